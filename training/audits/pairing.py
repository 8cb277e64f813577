"""Rows whose response fits another row's question better than its own.

A response repeats words, names and numbers of its question. For every word that a response shares with a question there
is a likelihood ratio: how much likelier the word stands in a response to a question that has it than in any response,

    log((REPEATED + (1 - REPEATED) * p) / p),    p = the share of the set's texts that hold the word.

Their sum over the shared words is the fit, in nats, as for a naive Bayes classifier with one class a question. The
difference between the best other question's fit and the own one's is the log odds that the response belongs there.
Since the best is taken of all Q questions, it must exceed log(Q) and a margin, so the threshold grows with the set;
less is asked where other rows say the same: two rows that have each other's response, or neighbours moved by the same
number of rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from training.audits.items import Item
from training.audits.text import tokens

REPEATED = 0.5  # how often a response repeats a word of its question
MARGIN = 1.0  # nats above log(questions) that a row needs alone
JOINT_MARGIN = 2.0  # nats that it needs where another row says the same
OWN_SHARE = 0.5  # of the own question's weight: a response that holds more of it fits, whatever fits better
MAX_PRODUCT = 20_000_000  # entries of one block of fits


@dataclass(frozen=True)
class Misfit:
    """A row whose response belongs to another row's question.

    Attributes:
        item: Its position.
        other: The nearest item with the question that the response fits best.
        own: Fit to its own question, nats.
        best: Fit to the other question, nats.
        why: In words.
    """

    item: int
    other: int
    own: float
    best: float
    why: str


@dataclass(frozen=True)
class Pairing:
    """What `find_shifted` finds.

    Attributes:
        shifted: The misfits.
        undecidable: Items whose response shares too little with any question to say where it belongs.
        threshold: Nats that a row's best other fit must exceed its own by.
    """

    shifted: list[Misfit]
    undecidable: list[int]
    threshold: float


@dataclass(frozen=True)
class _Fits:
    """Fits of all items; arrays are (items,).

    Attributes:
        own: To the own question, nats.
        best: To the best other question, nats.
        share: The own fit's share of the most that the own question allows.
        best_group: The best other question's group.
    """

    own: NDArray[np.float64]
    best: NDArray[np.float64]
    share: NDArray[np.float64]
    best_group: NDArray[np.int64]


def find_shifted(items: Sequence[Item], groups: NDArray[np.int64]) -> Pairing:
    """Find responses that stand with the wrong question.

    Args:
        items: Pairs in the files' order.
        groups: The question group of each item, (items,): questions that are one but for edits share a number.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    fits = _fits(items, groups)
    threshold = float(np.log(max(2, groups.max(initial=0) + 1)) + MARGIN)
    gain = fits.best - fits.own
    poor = fits.share < OWN_SHARE
    alone = poor & (gain > threshold)
    sources = _nearest_sources(groups, fits.best_group)
    joint = poor & (gain > JOINT_MARGIN) & _supported(alone, sources, groups)
    undecidable = ~alone & ~joint & (np.maximum(fits.own, fits.best) < threshold)
    answered = np.array([bool(item.prediction and item.question) for item in items], dtype=bool)
    shifted = [
        Misfit(int(i), int(sources[i]), round(float(fits.own[i]), 2), round(float(fits.best[i]), 2), _why(alone[i]))
        for i in np.flatnonzero((alone | joint) & answered)
    ]
    return Pairing(shifted, [int(i) for i in np.flatnonzero(undecidable & answered)], round(threshold, 2))


def _why(alone: bool) -> str:
    if alone:
        return "the response fits the other row's question clearly better than its own"
    return "the response fits the other row's question better than its own, and rows beside it are moved alike"


def _fits(items: Sequence[Item], groups: NDArray[np.int64]) -> _Fits:
    """Fit every response to every group's question; a group's question is all words of its items' questions."""
    n_groups = int(groups.max(initial=-1)) + 1
    words = CountVectorizer(analyzer=tokens, dtype=np.float64, binary=True)
    texts = [item.question for item in items] + [item.prediction for item in items]
    if not any(tokens(text) for text in texts):
        nothing = np.zeros(len(items))
        return _Fits(nothing, nothing, nothing, groups)
    held = sparse.csr_matrix(words.fit_transform(texts))
    members = sparse.csr_matrix((np.ones(len(items)), (groups, np.arange(len(items)))), shape=(n_groups, len(items)))
    questions = sparse.csr_matrix(members @ held[: len(items)])
    questions.data[:] = 1
    responses = held[len(items) :]
    spread = np.asarray(questions.sum(axis=0) + responses.sum(axis=0)).ravel()
    share = (spread + 1) / (n_groups + len(items) + 1)
    ratios = np.log((REPEATED + (1 - REPEATED) * share) / share)
    weighted = sparse.csr_matrix(questions @ sparse.diags(ratios))
    most = np.asarray(weighted.sum(axis=1)).ravel()
    own, best = np.zeros(len(items)), np.zeros(len(items))
    best_group = groups.copy()
    transposed = weighted.T.tocsr()
    size = max(1, MAX_PRODUCT // max(1, n_groups))
    for start in range(0, len(items), size):
        block = (responses[start : start + size] @ transposed).toarray()
        rows = np.arange(len(block))
        own[start : start + size] = block[rows, groups[start : start + size]]
        block[rows, groups[start : start + size]] = -1
        best_group[start : start + size] = block.argmax(axis=1)
        best[start : start + size] = block.max(axis=1)
    return _Fits(own, best, own / np.where(most[groups] > 0, most[groups], 1), best_group)


def _nearest_sources(groups: NDArray[np.int64], best_group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each item the position nearest to it of an item with its best group's question."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(int(groups.max(initial=-1)) + 2))
    nearest = np.zeros(len(groups), dtype=np.int64)
    for i, group in enumerate(best_group):
        members = order[starts[group] : starts[group + 1]]
        nearest[i] = members[np.abs(members - i).argmin()]
    return nearest


def _supported(alone: NDArray[np.bool_], sources: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which items another clear misfit backs: one that points back, or a neighbour moved by as many rows."""
    supported = np.zeros(len(alone), dtype=bool)
    offsets = sources - np.arange(len(sources))
    pointed_at = Counter(zip(groups[alone].tolist(), groups[sources[alone]].tolist(), strict=True))
    for i, source in enumerate(sources):
        beside = [j for j in (i - 2, i - 1, i + 1, i + 2) if 0 <= j < len(alone)]
        supported[i] = any(alone[j] and offsets[j] == offsets[i] for j in beside)
        supported[i] |= pointed_at[int(groups[source]), int(groups[i])] > 0
    return supported
