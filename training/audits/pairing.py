"""Rows whose response fits another row's question better than its own.

A response repeats words, names and numbers of its question. For every word that a response shares with a question there
is a likelihood ratio: how much likelier the word stands in a response to a question that has it than in any response,

    log((REPEATED + (1 - REPEATED) * p) / p),    p = the share of the set's texts that hold the word.

Their sum over the shared words is the fit, in nats, as for a naive Bayes classifier with one class a question. The
difference between the best other question's fit and the own one's is the log odds that the response belongs there.
A response can have gone only to a question that lacks its own, so only open questions are looked at: those with a row
whose response fits another question better, and those that hold a copy of the response. Each takes as many responses as
it has lost, the surest first. Since the best is taken of Q open questions, it must exceed log(Q) and a margin; less is
asked where the question holds a copy, and where other rows say the same: two rows that have each other's response, or
neighbours moved by the same number of rows.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from .items import Item
from .similarity import tokens

REPEATED = 0.5  # how often a response repeats a word of its question
MARGIN = 1.0  # nats above log(open questions) that a row needs alone
JOINT_MARGIN = 2.0  # nats that it needs where another row says the same
OWN_SHARE = 0.5  # of the own question's weight: a response that holds more of it fits, whatever fits better
OPENING = 8  # words that two responses begin with, where one is taken for the other's copy
MAX_PRODUCT = 20_000_000  # entries of one block of fits
WHY = {
    True: "the response fits the other row's question clearly better than its own",
    False: "the response fits the other row's question better than its own, and rows beside it are moved alike",
}


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
    """

    shifted: list[Misfit]
    undecidable: list[int]


@dataclass(frozen=True)
class _Texts:
    """What is compared.

    Attributes:
        questions: Weight of each word in each group's question, (groups, words), nats.
        responses: The words of each response, (items, words), 1 where held.
        groups: The question group of each item, (items,).
        openings: The words that each response begins with.
    """

    questions: sparse.csr_matrix
    responses: sparse.csr_matrix
    groups: NDArray[np.int64]
    openings: list[str]


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
    texts = _read(items, np.unique(groups, return_inverse=True)[1])
    groups = texts.groups
    everywhere = _fits(texts)
    poor = everywhere.share < OWN_SHARE
    lost = np.flatnonzero(poor & (everywhere.best > everywhere.own))
    fits, copied = _match(texts, everywhere, lost)
    one_word = float(texts.questions.max()) if texts.questions.nnz else 0.0  # no single word is evidence enough
    threshold = max(float(np.log(max(2, len(lost))) + MARGIN), one_word)
    gain = fits.best - fits.own
    alone = poor & ((gain > threshold) | (copied & (gain > JOINT_MARGIN)))
    sources = _nearest_sources(groups, fits.best_group)
    joint = poor & (gain > JOINT_MARGIN) & _supported(alone, sources, groups)
    undecidable = ~alone & ~joint & (np.maximum(everywhere.own, everywhere.best) < threshold)
    answered = np.array([bool(item.prediction and item.question) for item in items], dtype=bool)
    shifted = [
        Misfit(
            int(i), int(sources[i]), round(float(fits.own[i]), 2), round(float(fits.best[i]), 2), WHY[bool(alone[i])]
        )
        for i in np.flatnonzero((alone | joint) & answered)
    ]
    return Pairing(shifted, [int(i) for i in np.flatnonzero(undecidable & answered)])


def _read(items: Sequence[Item], groups: NDArray[np.int64]) -> _Texts:
    """Weigh the words of all questions; a group's question is all words of its items' questions."""
    n_groups = int(groups.max(initial=-1)) + 1
    texts = [tokens(item.question) for item in items] + [tokens(item.prediction) for item in items]
    openings = [" ".join(words[:OPENING]) for words in texts[len(items) :]]
    if not any(texts):
        nothing = sparse.csr_matrix((n_groups, 1))
        return _Texts(nothing, sparse.csr_matrix((len(items), 1)), groups, openings)
    held = sparse.csr_matrix(CountVectorizer(analyzer=list, dtype=np.float64, binary=True).fit_transform(texts))
    members = sparse.csr_matrix((np.ones(len(items)), (groups, np.arange(len(items)))), shape=(n_groups, len(items)))
    questions = sparse.csr_matrix(members @ held[: len(items)])
    questions.data[:] = 1
    responses = held[len(items) :]
    spread = np.asarray(questions.sum(axis=0) + responses.sum(axis=0)).ravel()
    share = (spread + 1) / (n_groups + len(items) + 1)
    ratios = np.log((REPEATED + (1 - REPEATED) * share) / share)
    return _Texts(sparse.csr_matrix(questions @ sparse.diags(ratios)), responses, groups, openings)


def _fits(texts: _Texts) -> _Fits:
    """Fit every response to every group's question."""
    groups, n_items, n_groups = texts.groups, len(texts.groups), texts.questions.shape[0]
    most = np.asarray(texts.questions.sum(axis=1)).ravel()
    own, best = np.zeros(n_items), np.zeros(n_items)
    best_group = groups.copy()
    transposed = texts.questions.T.tocsr()
    size = max(1, MAX_PRODUCT // max(1, n_groups))
    for start in range(0, n_items, size):
        block = (texts.responses[start : start + size] @ transposed).toarray()
        rows = np.arange(len(block))
        own[start : start + size] = block[rows, groups[start : start + size]]
        block[rows, groups[start : start + size]] = -1
        best_group[start : start + size] = block.argmax(axis=1)
        best[start : start + size] = block.max(axis=1)
    return _Fits(own, best, own / np.where(most[groups] > 0, most[groups], 1), best_group)


def _match(texts: _Texts, fits: _Fits, lost: NDArray[np.int64]) -> tuple[_Fits, NDArray[np.bool_]]:
    """Give the lost responses to the questions that may lack theirs, the surest first.

    A question takes as many responses as it has lost, and those that it holds a copy of.

    Args:
        texts: What is compared.
        fits: Fits to all questions; own and share stay.
        lost: The items whose response fits another question better.

    Returns:
        The fits, with best 0 where no question is given, and of each item whether its question holds a copy, (items,).
    """
    groups = texts.groups
    holders: defaultdict[str, set[int]] = defaultdict(set)
    for opening, group in zip(texts.openings, groups.tolist(), strict=True):
        if opening.count(" ") == OPENING - 1:  # shorter responses are alike by chance
            holders[opening].add(group)
    room = Counter(groups[lost].tolist())
    copies = {(i, group) for i in lost.tolist() for group in holders[texts.openings[i]] - {int(groups[i])}}
    columns = np.array(sorted({*room, *(group for _, group in copies)}), dtype=np.int64)
    transposed = texts.questions[columns].T.tocsr()
    claims: list[tuple[float, int, int]] = []
    size = max(1, MAX_PRODUCT // max(1, len(columns)))
    for start in range(0, len(lost), size):
        items = lost[start : start + size]
        gains = (texts.responses[items] @ transposed).toarray() - fits.own[items][:, None]
        for row, column in np.argwhere(gains > JOINT_MARGIN):
            claims.append((-float(gains[row, column]), int(items[row]), int(columns[column])))
    best, best_group, copied = np.zeros(len(groups)), groups.copy(), np.zeros(len(groups), dtype=bool)
    for loss, i, group in sorted(claims):
        copy = (i, group) in copies
        if group == groups[i] or best_group[i] != groups[i] or not (copy or room[group]):
            continue
        room[group] -= not copy
        best[i], best_group[i], copied[i] = fits.own[i] - loss, group, copy
    return replace(fits, best=best, best_group=best_group), copied


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
