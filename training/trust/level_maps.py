"""Maps from a judge's expected score to the levels and probabilities of a domain, fitted on its labels.

Of every map P(label > class k) is a rising function of the expected score:

- `ordinal`: proportional odds on the logit of the expected score (McCullagh 1980), two numbers for two classes;
- `beta`: a beta calibration for each class (Kull, Silva Filho and Flach 2017), three numbers each;
- `isotonic`: a rising step function for each class, read between the centres of its steps (centred isotonic
  regression, Oron and Flournoy 2017), so that no rows tie that did not before but at its ends;
- `none`: the judge as it is.

All but `none` are mixed with a thousandth of the judge's own scale, which keeps its order where a map is flat, and
gives a little probability to the classes that no label has.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from inspector_pipeline.calibration import METHODS, NONE, LevelMap

from ..probing.calibration import fit_cumulative_logit
from ..probing.table import Array, Index

Mask = NDArray[np.bool_]
Curve = tuple[Array, Array]  # places on the judge's scale, 0 to 1, and P(label > class) there

OWN_SHARE = 1e-3
EDGE = 1e-4  # how near to its ends a place on the scale is told apart
GRID = np.concatenate([[0.0], expit(np.linspace(logit(EDGE), logit(1 - EDGE), 81)), [1.0]])
DIGITS = 8
WEAK_PENALTY = 100.0  # scikit-learn's C: of the beta map, so that labels that a score separates keep it finite


class Slice(NamedTuple):
    """Labels of one aspect, with what the judge says of their rows.

    Attributes:
        classes: The judge's, ascending.
        expected: (rows,) expected score by the judge, before any calibration.
        probabilities: (rows, classes) its probabilities.
        label: (rows,) the place of the label among the classes.
        question: (rows,) its question.
        drawn: (rows,) whether the row may stand for others; rows that were chosen for their doubt may not.
    """

    classes: tuple[float, ...]
    expected: Array
    probabilities: Array
    label: Index
    question: NDArray[np.str_]
    drawn: Mask

    def take(self, rows: Index | Mask) -> "Slice":
        """Return some of the rows."""
        columns = {name: column[rows] for name, column in self._asdict().items() if name != "classes"}
        return self._replace(**columns)


def fit_map(method: str, rows: Slice) -> LevelMap:
    """Fit a map on labelled rows.

    Args:
        method: One of `METHODS`.
        rows: At least one.
    """
    if method == NONE:
        return LevelMap(NONE)
    low, high = rows.classes[0], rows.classes[-1]
    place = np.clip((rows.expected - low) / (high - low), 0, 1)
    observed = np.unique(rows.label)
    curves = FITS[method](place, rows.label, observed) if len(observed) > 1 else []
    knots = np.unique(np.concatenate([[0.0, 1.0], *(x for x, _ in curves)]).round(DIGITS - 2))
    # Classes below the lowest label are always exceeded, those from the highest on never.
    known = [np.ones(len(knots)), *(np.interp(knots, *curve) for curve in curves), np.zeros(len(knots))]
    exceed = np.stack([known[int((observed <= k).sum())] for k in range(len(rows.classes) - 1)], axis=1)
    exceed = np.maximum.accumulate(np.minimum.accumulate(np.clip(exceed, 0, 1), axis=1), axis=0)
    exceed = np.clip((1 - OWN_SHARE) * exceed + OWN_SHARE * knots[:, None], 0, 1).round(DIGITS)
    return LevelMap(
        method,
        tuple((low + (high - low) * knots).round(DIGITS - 2).tolist()),
        tuple(map(tuple, exceed.tolist())),
        tuple(_cuts(rows)),
    )


def _cuts(rows: Slice) -> list[float]:
    """Lay cuts so that each level is given as often as it is among the rows that were drawn."""
    drawn = rows.take(rows.drawn) if rows.drawn.any() else rows
    below = [float((drawn.label <= k).mean()) for k in range(len(rows.classes) - 1)]
    ends = {0.0: float(rows.classes[0] - 1), 1.0: float(rows.classes[-1])}  # always passed, and never
    return [ends.get(share, float(np.quantile(drawn.expected, share))) for share in below]


def _isotonic(place: Array, label: Index, observed: Index) -> list[Curve]:
    curves = []
    for k in observed[:-1]:
        beyond = (label > k).astype(np.float64)
        level = IsotonicRegression(y_min=0, y_max=1).fit_transform(place, beyond)
        level = (len(label) * level + beyond.mean()) / (len(label) + 1)  # never surely 0 or 1
        values, step = np.unique(level, return_inverse=True)
        curves.append((np.bincount(step, place) / np.bincount(step), values))
    return curves


def _beta(place: Array, label: Index, observed: Index) -> list[Curve]:
    def parts(at: Array) -> Array:
        inside = np.clip(at, EDGE, 1 - EDGE)
        return np.stack([np.log(inside), -np.log1p(-inside)], axis=1)

    curves = []
    for k in observed[:-1]:
        beyond, used = label > k, [0, 1]
        curve = np.full(len(GRID), beyond.mean())
        while used:
            fit = LogisticRegression(C=WEAK_PENALTY, max_iter=1000).fit(parts(place)[:, used], beyond)
            if (fit.coef_ >= 0).all():
                curve = fit.predict_proba(parts(GRID)[:, used])[:, 1]
                break
            used.pop(int(np.argmin(fit.coef_[0])))
        curves.append((GRID, curve))
    return curves


def _ordinal(place: Array, label: Index, observed: Index) -> list[Curve]:
    def at(value: Array) -> Array:
        return np.asarray(logit(np.clip(value, EDGE, 1 - EDGE)))

    slope, thresholds = fit_cumulative_logit(at(place), label, observed.tolist())
    return [(GRID, expit(slope * at(GRID) - threshold)) for threshold in thresholds]


FITS: dict[str, Callable[[Array, Index, Index], list[Curve]]] = {
    "ordinal": _ordinal,
    "beta": _beta,
    "isotonic": _isotonic,
}


def apply_map(level_map: LevelMap, rows: Slice) -> Array:
    """Return the probabilities that a map gives, (rows, classes)."""
    if not level_map.knots:
        return rows.probabilities
    columns = np.array(level_map.exceed).T
    exceed = np.stack([np.interp(rows.expected, level_map.knots, column) for column in columns], axis=1)
    edge = np.ones((len(exceed), 1))
    return np.asarray(np.hstack([edge, exceed]) - np.hstack([exceed, 0 * edge]))


def levels_of(level_map: LevelMap, rows: Slice) -> Index | None:
    """Return the place of the score that a map gives, (rows,); None where the judge's own scores stay."""
    return (rows.expected[:, None] > np.array(level_map.cuts)).sum(axis=1) if level_map.knots else None


def ranked_probability_scores(probabilities: Array, label: Index) -> Array:
    """Return each row's mean squared error of P(label > class) over the classes but the highest, (rows,); 0 is best.

    Of two classes it is the Brier score.
    """
    exceed = 1 - probabilities.cumsum(axis=1)[:, :-1]
    return np.asarray(((exceed - (label[:, None] > np.arange(exceed.shape[1]))) ** 2).mean(axis=1))


def question_folds(question: NDArray[np.str_], folds: int, seed: int) -> list[tuple[Index, Index]]:
    """Divide rows by question: (rows to fit on, rows to hold out) of each fold."""
    n = min(folds, len(np.unique(question)))
    splitter = GroupKFold(n, shuffle=True, random_state=seed)
    return [(fitted, held) for fitted, held in splitter.split(question, groups=question)]


def choose_method(rows: Slice, methods: Sequence[str], folds: int, seed: int) -> str:
    """Choose the method with the lowest ranked probability score on held-out questions; the first of equal ones."""
    if len(methods) == 1 or len(np.unique(rows.question)) < 2:
        return methods[0]
    found = dict.fromkeys(methods, 0.0)
    for fitted, held in question_folds(rows.question, folds, seed):
        out = rows.take(held[rows.drawn[held]])
        for method in methods:
            shares = apply_map(fit_map(method, rows.take(fitted)), out)
            found[method] += float(ranked_probability_scores(shares, out.label).sum())
    return min(found, key=found.__getitem__)


class Nested(NamedTuple):
    """What maps say of rows whose questions they were not fitted on.

    Attributes:
        probabilities: (rows, classes).
        level: (rows,) the place of the score among the classes; -1 where the judge's own stays.
        fold: (rows,) in which the row was held out.
        chosen: Method -> folds that chose it.
    """

    probabilities: Array
    level: Index
    fold: Index
    chosen: dict[str, int]

    def take(self, rows: Index | Mask) -> "Nested":
        """Return some of the rows."""
        return Nested(self.probabilities[rows], self.level[rows], self.fold[rows], self.chosen)


def nested_maps(rows: Slice, methods: Sequence[str] = METHODS, folds: int = 5, seed: int = 0) -> Nested:
    """Choose and fit a map in each fold, the choice by folds within it, all of them by question."""
    probabilities = np.empty_like(rows.probabilities)
    level, fold = np.full(len(rows.label), -1), np.zeros(len(rows.label), dtype=np.int64)
    chosen: Counter[str] = Counter()
    for number, (fitted, held) in enumerate(question_folds(rows.question, folds, seed)):
        inner, out = rows.take(fitted), rows.take(held)
        method = choose_method(inner, methods, folds, seed + 1)
        found = fit_map(method, inner)
        probabilities[held], fold[held] = apply_map(found, out), number
        own = levels_of(found, out)
        level[held] = -1 if own is None else own
        chosen[method] += 1
    return Nested(probabilities, level, fold, dict(chosen))
