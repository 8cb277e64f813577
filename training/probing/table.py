"""All labels of all aspects as one table, and folds of it by question."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedKFold

from inspector_pipeline.errors import DataFileError

from ..rows.records import LabelledPair, Levels, is_good, question_id
from ..rows.scales import plain
from .settings import UNCOUNTED

Array = NDArray[np.float64]
Index = NDArray[np.int64]

DOWNSAMPLE_SEED = 731
COLUMNS = ("aspect", "pair", "question", "score", "weight", "auxiliary", "row")


class TooFewLabelsError(DataFileError):
    """There are too few labels to fit on; with others the same call would work."""


@dataclass(frozen=True)
class Labels:
    """All labels of all aspects, one row each.

    Attributes:
        names: The aspects.
        classes: For each aspect the scores that occur in rows that are not auxiliary, ascending.
        counted: Whether each aspect counts in a judge's total.
        aspect: (rows,) which aspect.
        pair: (rows,) which pair.
        question: (rows,) its question's name; see `question_names`.
        score: (rows,) the label; int64, or float64 where one is no whole number.
        weight: (rows,) float64, the label's weight in a fit.
        auxiliary: (rows,) whether the row serves training only.
        row: (rows,) its number in the whole table.
    """

    names: tuple[str, ...]
    classes: tuple[list[Any], ...]
    counted: tuple[bool, ...]
    aspect: Index
    pair: Index
    question: NDArray[np.str_]
    score: NDArray[Any]
    weight: Array
    auxiliary: NDArray[np.bool_]
    row: Index

    @classmethod
    def of(
        cls,
        pairs: Sequence[LabelledPair],
        uncounted: Sequence[str] = UNCOUNTED,
        good: Mapping[str, float] | None = None,
    ) -> "Labels":
        """Collect the labels, aspects in order of first appearance.

        Args:
            pairs: Labelled pairs.
            uncounted: Aspects that do not count in the total.
            good: Aspect -> the level from which on labels are good; the usual rule where not given.

        Raises:
            DataFileError: There is no label, an aspect has one class only, or a weight is not above 0.
        """
        names = tuple(dict.fromkeys(name for pair in pairs if not pair.auxiliary for name in pair.scores))
        named = question_names(pairs)
        rows = sorted(
            (names.index(name), i, named[i], score, pair.weights.get(name, 1.0), pair.auxiliary)
            for i, pair in enumerate(pairs)
            for name, score in pair.scores.items()
            if name in names
        )
        if not rows:
            raise DataFileError(f"Expected labels, but none of {len(pairs)} pairs has one. Label them first.")
        aspect, pair, question, score, weight, auxiliary = map(np.array, zip(*rows, strict=True))
        wrong = [row for row in rows if not 0 < row[4] < np.inf]
        if wrong:
            raise DataFileError(
                f"weights expects numbers above 0, but question {wrong[0][2]} has {wrong[0][4]} for "
                f"{names[wrong[0][0]]}. Leave out its label instead."
            )
        good = good or {}
        classes = tuple(
            Levels(map(plain, np.unique(score[(aspect == a) & ~auxiliary]).tolist()), good.get(name))
            for a, name in enumerate(names)
        )
        for name, own in zip(names, classes, strict=True):
            if len(own) < 2:
                raise DataFileError(
                    f"Expected at least two different labels of {name}, but all are {own[0]}. Leave the aspect out."
                )
        counted, numbers = tuple(name not in uncounted for name in names), np.arange(len(rows))
        return cls(names, classes, counted, aspect, pair, question, score, weight.astype(float), auxiliary, numbers)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which labels are good ones, (rows,)."""
        good = np.zeros(len(self.score), dtype=bool)
        for a, classes in enumerate(self.classes):
            good[self.aspect == a] = is_good(self.score[self.aspect == a], classes)
        return good

    def take(self, rows: Index) -> "Labels":
        """Return some of the rows; the aspects keep their numbers."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def that_count(self) -> "Labels":
        """Return the rows of aspects that count in the total."""
        return self.take(np.flatnonzero(np.array(self.counted)[self.aspect]))

    def groups(self) -> list[list[int]]:
        """Return which aspects of the rows are fitted together: those that count, and each other one by itself."""
        present = [int(a) for a in np.unique(self.aspect)]
        together = [a for a in present if self.counted[a]]
        alone = [[a] for a in present if not self.counted[a]]
        return [together, *alone] if together else alone


@dataclass(frozen=True)
class Rows:
    """What a fit needs of labelled rows.

    Attributes:
        unit: (rows,) their features.
        aspect: (rows,) their aspect.
        weight: (rows,) their weight.
        question: (rows,) their question.
        auxiliary: (rows,) whether they are auxiliary; None where none is.
    """

    unit: Index
    aspect: Index
    weight: Array
    question: NDArray[np.str_]
    auxiliary: NDArray[np.bool_] | None = None

    @property
    def n_aspects(self) -> int:
        """How many aspects there are at least, counted by their numbers."""
        return int(self.aspect.max(initial=-1)) + 1


def question_names(pairs: Sequence[LabelledPair]) -> list[str]:
    """Name each pair's question by the first id that it, or a pair of the same text, context or id, carries.

    One text may stand under several ids, one id may hold a question in several wordings, and several questions may
    rest on one context: what shares any of these is one question, on one side of every fold.
    """
    ids = np.unique([str(pair.id) for pair in pairs], return_inverse=True)[1]
    places: dict[tuple[str, str], int] = {}
    n, links = int(ids.max(initial=-1)) + 1, list[tuple[int, int]]()
    for own, pair in zip(ids.tolist(), pairs, strict=True):
        shared = [("text", pair.question), *([("context", pair.context)] if isinstance(pair.context, str) else [])]
        links += [(own, n + places.setdefault((kind, question_id(text)), len(places))) for kind, text in shared]
    size = n + len(places)
    rows, columns = np.array(links, dtype=np.int64).reshape(-1, 2).T
    linked = coo_array((np.ones(len(links)), (rows, columns)), shape=(size, size))
    component = connected_components(linked, directed=False)[1][ids]
    first: dict[int, str] = {}
    return [first.setdefault(int(number), str(pair.id)) for number, pair in zip(component, pairs, strict=True)]


def counted_table(
    pairs: Sequence[LabelledPair], uncounted: tuple[str, ...], good: Mapping[str, float] | None = None
) -> Labels:
    """Collect the labels of the aspects that count in the total; `row` numbers these alone."""
    labels = Labels.of(pairs, uncounted, good).that_count()
    return replace(labels, row=np.arange(len(labels.score)))


def with_both_kinds(labels: Labels) -> list[int]:
    """Return the aspects that probes can be fitted for: those with good and with other labels."""
    positive = labels.positive
    present = (int(a) for a in np.unique(labels.aspect))
    return [a for a in present if len(np.unique(positive[(labels.aspect == a) & ~labels.auxiliary])) == 2]


def check_both_kinds(train: Labels, aspects: Index) -> None:
    """Refuse training rows from which no probe can be fitted for some aspect.

    Raises:
        TooFewLabelsError: One lacks good or other labels.
    """
    known = with_both_kinds(train)
    lacking = [train.names[a] for a in aspects if a not in known]
    if lacking:
        raise TooFewLabelsError(
            f"Probes expect good and other labels of {lacking[0]} among the training rows, but got none or one kind."
        )


def question_folds(labels: Labels, folds: int, seed: int) -> Iterator[tuple[Index, Index]]:
    """Divide questions, with all their rows of all aspects, into folds of like label shares.

    A question is stratified by its label of the rarest aspect that it carries. Without that, pooling the predictions
    of several folds misjudges a small aspect: a fold that holds more good rows is predicted by a fit that saw fewer.
    Auxiliary rows are never held out, and those of a held-out question are not fitted on either.

    Args:
        labels: All rows.
        folds: Their number.
        seed: Of the shuffle.

    Yields:
        Positions of rows to fit on, and to hold out.

    Raises:
        TooFewLabelsError: There are fewer questions than folds, or so few of an aspect that one fold holds out all.
    """
    stratum: dict[str, str] = {}
    rarity = np.bincount(labels.aspect, minlength=len(labels.names))
    for row in np.argsort(rarity[labels.aspect], kind="stable"):
        if not labels.auxiliary[row]:
            stratum.setdefault(str(labels.question[row]), f"{labels.aspect[row]} {labels.score[row]}")
    questions = np.array(sorted(stratum))
    if len(questions) < folds:
        raise TooFewLabelsError(
            f"Expected at least {folds} questions for {folds} folds, but got {len(questions)}. Label more, or use "
            "fewer folds."
        )
    strata = [stratum[question] for question in questions]
    if max(Counter(strata).values()) < folds:  # nothing to stratify by; the splitter would refuse
        strata = [""] * len(questions)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a label rarer than folds is spread
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for _, held_out in splitter.split(questions, strata):
            out = np.isin(labels.question, questions[held_out])
            held = out & ~labels.auxiliary
            for a in np.setdiff1d(labels.aspect[held], labels.aspect[~out]):
                raise TooFewLabelsError(
                    f"Expected labels of {labels.names[a]} for questions of more than one of {folds} folds, but got "
                    f"{(labels.aspect[held] == a).sum()} label(s) in one. Label more, or leave the aspect out."
                )
            yield np.flatnonzero(~out), np.flatnonzero(held)


def balanced(labels: Labels, balance: str) -> Labels:
    """Even out the classes of every aspect, among the rows to fit on.

    Args:
        labels: Rows to fit on.
        balance: `none`; `weights`: a row's weight is divided by its class's share, so that each class weighs the same;
            `downsample`: as many rows of each class as the rarest has, as the published protocol does (seed 731).
    """
    if balance == "none":
        return labels
    weight, keep = labels.weight.copy(), []
    rng = np.random.default_rng(DOWNSAMPLE_SEED)
    for a in range(len(labels.names)):
        own = np.flatnonzero(labels.aspect == a)
        by_class = [own[labels.score[own] == c] for c in np.unique(labels.score[own])]
        for rows in by_class:
            weight[rows] *= labels.weight[own].sum() / (len(by_class) * labels.weight[rows].sum())
            keep.append(rng.permutation(rows)[: min(map(len, by_class))])
    if balance == "downsample":
        return labels.take(np.sort(np.concatenate(keep)))
    return replace(labels, weight=weight)
