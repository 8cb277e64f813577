"""What a judge tells of answers to one question: the evidence that length, style and difficulty cannot give.

Taken from rows whose question has right and wrong answers by named generators, such as the contrast stage's. Beside the
AUROC over all of them stands *same question*: the share of pairs of a good and another answer to one question in which
the good one is ranked higher (ties count half; every pair counts the same). Both are given for unseen questions, and
for unseen questions by generators that no fit saw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probing.table import Array, Labels
from ..rows.contrast import answer_margins, higher
from ..rows.records import LabelledPair
from .between import between_generators
from .methods.base import Fold
from .metrics import UNSET, Index, Interval, Mask, Predictions, auroc, interval, resamples, rounded

SHARES = (0.1, 0.3, 0.5)  # of the surest decisions
MIN_GENERATORS = 2
NONE = np.array([], dtype=np.int64)


def generators_of(labels: Labels, pairs: Sequence[LabelledPair]) -> NDArray[np.str_]:
    """Return each row's generator, "" where it is not known, (rows,)."""
    return np.array([pairs[i].generator or "" for i in labels.pair], dtype=np.str_)


def generator_groups(generators: NDArray[np.str_], n_groups: int, seed: int) -> list[list[str]]:
    """Divide the known generators into groups at random; none where there are fewer than groups."""
    known = np.unique(generators[generators != ""])
    if n_groups < MIN_GENERATORS or len(known) < n_groups:
        return []
    return [part.tolist() for part in np.array_split(np.random.default_rng(seed).permutation(known), n_groups)]


def without_generators(
    folds: Sequence[Fold], generators: NDArray[np.str_], groups: Sequence[Sequence[str]]
) -> list[Fold]:
    """Cross folds with groups of generators: held-out rows are of no question and no generator that is fitted on.

    Args:
        folds: Of one repeat.
        generators: (rows,) of the whole table.
        groups: Of generators.

    Returns:
        For each fold and group, the fold without the group's training rows, asked for the group's held-out rows and for
        its rows of other sets.
    """
    found: list[Fold] = []
    for fold in folds:
        for group in groups:
            train, test, others = (
                rows.take(np.flatnonzero(np.isin(generators[rows.row], group) == wanted))
                for rows, wanted in (
                    (fold.train, False),
                    (fold.test, True),
                    (fold.others or fold.test.take(NONE), True),
                )
            )
            if len(test.score):
                more = others if len(others.score) else None
                found.append(replace(fold, repeat=0, number=len(found), train=train, test=test, others=more))
    return found


def new_generators(folds: Sequence[Fold], generators: NDArray[np.str_]) -> Mask:
    """Tell which held-out rows, (rows,) of the whole table, are of a generator that their fold's fit never sees."""
    found = np.zeros(len(generators), dtype=np.bool_)
    for fold in folds:
        rows = fold.test.row
        found[rows] = ~np.isin(generators[rows], generators[fold.train.row])
    return found


def compared_answers(
    predictions: Mapping[str, Predictions],
    labels: Labels,
    generators: NDArray[np.str_],
    is_new: Mask,
    judge: str,
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Compare methods on answers to one question; each with the judge on the rows that both predict.

    Args:
        predictions: Method -> one repeat, of every row of the table.
        labels: The table.
        generators: (rows,) as `generators_of` gives them.
        is_new: (rows,) whether a row's generator was unknown to the fit that predicts it.
        judge: The method to compare with.
        bootstraps: Resamples of the questions.
        seed: Of the resamples.

    Returns:
        Aspect -> `all` rows, those of `seen` and of `unseen` generators, each where there are some -> method -> counts,
        `auroc` and `same_question` with intervals, and but for the judge its paired `gain_of_judge`.
    """
    found: dict[str, dict[str, Any]] = {}
    named = (generators != "") & ~labels.auxiliary & (predictions[judge].score[0] != UNSET)
    for a, aspect in enumerate(labels.names):
        for part, kept in (("all", is_new | True), ("seen", ~is_new), ("unseen", is_new)):
            for method, one in predictions.items():
                rows = np.flatnonzero(named & kept & (labels.aspect == a) & (one.score[0] != UNSET))
                good, question = labels.positive[rows], labels.question[rows]
                both = _both_kinds(question, good)
                if not len(both) or len(np.unique(generators[rows[both]])) < MIN_GENERATORS:
                    continue
                theirs, ours = (
                    Decisions(good[both], values.good[0, rows[both]], question[both], bootstraps, seed)
                    for values in (one, predictions[judge])
                )
                entry = {"n_rows": len(both), "n_questions": len(np.unique(question[both])), **theirs.intervals()}
                entry |= {} if method == judge else {"gain_of_judge": ours.gains(theirs)}
                found.setdefault(aspect, {}).setdefault(part, {})[method] = entry
    return found


def matched_evidence(
    predictions: Mapping[str, Predictions],
    labels: Labels,
    generators: NDArray[np.str_],
    bootstraps: int,
    seed: int,
    unseen: Predictions | None = None,
) -> dict[str, Any]:
    """Measure the first repeat on questions with good and other answers by named generators.

    Args:
        predictions: The judge's first, then those of others.
        labels: The whole table.
        generators: (rows,) as `generators_of` gives them.
        bootstraps: Resamples of the questions.
        seed: Of the resamples.
        unseen: The judge's predictions of rows by generators that no fit saw.

    Returns:
        Aspect -> counts, `auroc` and `same_question` with intervals, each method's beside it with the paired gain,
        `surest` (share of the surest decisions -> share right), `by_generator`, `unseen_generators` with the same rows'
        figures where their generators were seen and the paired difference; and `between_generators`, the error between
        them of the expected score (`between.between_generators`), of unseen ones where `generators_unseen`.
    """
    judge, found = next(iter(predictions)), {}
    first = {name: one.take(np.arange(len(labels.score)), slice(1)).repeats()[0] for name, one in predictions.items()}
    positive = labels.positive
    for a, name in enumerate(labels.names):
        named = (labels.aspect == a) & ~labels.auxiliary & (generators != "") & (first[judge].score != UNSET)
        every = rows = np.flatnonzero(named)
        rows = rows[_both_kinds(labels.question[rows], positive[rows])]
        if len(np.unique(generators[rows])) < MIN_GENERATORS:
            continue
        good, question = positive[rows], labels.question[rows]
        drawn = {
            method: Decisions(good, one.good[rows], question, bootstraps, seed)
            for method, one in first.items()
            if method == judge or (one.score[rows] != UNSET).all()
        }
        ours = drawn[judge]
        entry: dict[str, Any] = {
            "n_rows": len(rows),
            "n_questions": len(np.unique(question)),
            "n_generators": len(np.unique(generators[rows])),
            **beside(drawn),
            "surest": {str(share): rounded(ours.surest(share)) for share in SHARES},
            "by_generator": {
                str(one): rounded(_auroc(good[own], ours.value[own]))
                for one in np.unique(generators[rows])
                for own in [generators[rows] == one]
            },
        }
        if unseen is not None and (unseen.score[0, rows] != UNSET).any():
            kept = np.flatnonzero(unseen.score[0, rows] != UNSET)
            kept = kept[_both_kinds(question[kept], good[kept])]
            new, seen = (
                Decisions(good[kept], value[kept], question[kept], bootstraps, seed)
                for value in (unseen.good[0, rows], ours.value)
            )
            entry["unseen_generators"] = {
                "n_rows": len(kept),
                **new.intervals(),
                "surest": {str(share): rounded(new.surest(share)) for share in SHARES},
                "seen": seen.intervals(),
                "difference": new.gains(seen),
            }
        predicted = first[judge].expected if unseen is None else unseen.expected[0]
        every = every[~np.isnan(predicted[every])]
        truth = labels.score[every].astype(np.float64)
        if between := between_generators(predicted[every], truth, labels.question[every], generators[every]):
            entry["between_generators"] = {"generators_unseen": unseen is not None, **between}
        found[name] = entry
    return found


class Decisions:
    """A ranking of answers, resampled by question.

    Args:
        good: (rows,) which answers are good ones.
        value: (rows,) what they are ranked by.
        question: (rows,) their questions; same_question is of those with both kinds.
        bootstraps: Resamples.
        seed: Of the resamples.
    """

    def __init__(self, good: Mask, value: Array, question: NDArray[np.str_], bootstraps: int, seed: int) -> None:
        """Compare the answers to each question once; resamples weigh the questions."""
        self.value = value
        samples = resamples(question, bootstraps, seed)
        margins = answer_margins(good, value, question.tolist())
        self.margins = np.concatenate(margins)
        won, n_pairs = np.array([higher(margin).sum() for margin in margins]), np.array([len(m) for m in margins])
        with np.errstate(invalid="ignore"):
            self.draws = {
                "auroc": auroc(good, value, samples.weights(question)),
                "same_question": samples.counts @ won / (samples.counts @ n_pairs),
            }

    def intervals(self) -> dict[str, Interval]:
        """Give both figures with intervals."""
        return {name: interval(draws) for name, draws in self.draws.items()}

    def gains(self, other: "Decisions") -> dict[str, Interval]:
        """Give the paired differences; above 0 these decisions are the better ones."""
        return {name: interval(draws - other.draws[name]) for name, draws in self.draws.items()}

    def surest(self, share: float) -> float:
        """Return the share right among so many of the decisions, those with the largest margins."""
        order = np.argsort(-np.abs(self.margins), kind="stable")[: max(1, round(share * len(self.margins)))]
        return float(higher(self.margins[order]).mean())


def beside(drawn: Mapping[str, Decisions]) -> dict[str, Any]:
    """Give the first one's figures, then each other's with the paired gain of the first over it."""
    (_, ours), *others = drawn.items()
    found: dict[str, Any] = ours.intervals()
    for name, theirs in others:
        found |= {name: theirs.intervals(), f"gain_over_{name}": ours.gains(theirs)}
    return found


def _auroc(good: Mask, value: Array) -> float:
    """AUROC of the rows as they are; NaN where all are good, as all answers of one generator may be, or none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(auroc(good, value, np.ones((1, len(good))))[0])


def _both_kinds(question: NDArray[np.str_], good: Mask) -> Index:
    """Return the rows whose question has good and other ones."""
    both = np.intersect1d(question[good], question[~good])
    return np.flatnonzero(np.isin(question, both))
