"""Metrics of weighted rows, for many weightings at once: weights are (resamples, rows), results (resamples,).

A bootstrap resample weighs each row by how often it was drawn, so nothing is copied. Ranks are weighted midranks, and
F1 and kappa come from weighted confusion matrices. What is undefined is NaN; callers silence numpy's warnings of it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


def mean(values: Array | Mask, weights: Array) -> Array:
    """Average values, (rows,)."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def auroc(good: Mask, values: Array, weights: Array) -> Array:
    """P(a good row has a larger value than another), ties count half; NaN where all rows are good, or none."""
    ties = Ties.of(values)
    positive, negative = ties.mass(weights * good), ties.mass(weights * ~good)
    below = negative.cumsum(axis=1) - negative / 2
    area: Array = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return area * _defined(values)


def spearman(truth: Index | Array, values: Array, weights: Array) -> Array:
    """Correlate the ranks of values and labels; 0 where the values are constant, NaN where the labels are."""
    half = weights.sum(axis=1, keepdims=True) / 2  # the mean of the midranks
    ranks, true_ranks = Ties.of(values).midranks(weights) - half, Ties.of(truth).midranks(weights) - half
    spread, true_spread = ((weights * r**2).sum(axis=1) for r in (ranks, true_ranks))
    correlation = (weights * ranks * true_ranks).sum(axis=1) / np.sqrt(spread * true_spread)
    known: Array = np.where((spread == 0) & (true_spread > 0), 0.0, correlation)
    return known * _defined(values)


def macro_f1(truth: Index, score: Index, weights: Array) -> Array:
    """Average F1 over the classes that occur in the resample's labels or scores."""
    cells, _ = confusions(truth, score, weights)
    occurs = (cells.sum(axis=1) + cells.sum(axis=2)) > 0
    return np.asarray(np.where(occurs, _f1(cells), 0.0).sum(axis=1) / occurs.sum(axis=1))


def weighted_f1(truth: Index, score: Index, weights: Array) -> Array:
    """Average F1 over classes, weighted by how often each is the label."""
    cells, _ = confusions(truth, score, weights)
    support = cells.sum(axis=2)
    return np.asarray(np.where(support > 0, support * _f1(cells), 0.0).sum(axis=1) / support.sum(axis=1))


def quadratic_kappa(truth: Index, score: Index, weights: Array) -> Array:
    """Cohen's kappa, disagreement being the squared distance on the scale; NaN where all are the same one score."""
    cells, scale = confusions(truth, score, weights)
    distance = (scale[:, None] - scale) ** 2
    by_chance = cells.sum(axis=2)[:, :, None] * cells.sum(axis=1)[:, None, :] / cells.sum(axis=(1, 2))[:, None, None]
    return np.asarray(1 - (cells * distance).sum(axis=(1, 2)) / (by_chance * distance).sum(axis=(1, 2)))


def calibration_error(good: Mask, probability: Array, bins: int, weights: Array) -> Array:
    """Average |mean probability - share of good rows| over bins of like mass; each resample makes its own bins."""
    ties = Ties.of(probability)
    excess = ties.mass(weights * (probability - good))
    place = ties.bins(weights, bins) + bins * np.arange(len(weights))[:, None]
    by_bin = np.bincount(place.ravel(), excess.ravel(), bins * len(weights)).reshape(-1, bins)
    return np.asarray(np.abs(by_bin).sum(axis=1) / weights.sum(axis=1))


def confusions(truth: Index, score: Index, weights: Array) -> tuple[Array, Array]:
    """Count labels (rows) against scores (columns), (resamples, k, k), and name the k classes that occur, (k,)."""
    scale, codes = np.unique(np.concatenate([truth, score]), return_inverse=True)
    k = len(scale)
    cells = np.eye(k * k)[codes[: len(truth)] * k + codes[len(truth) :]]
    return (weights @ cells).reshape(-1, k, k), scale.astype(np.float64)


class Ties(NamedTuple):
    """Rows grouped by equal values, groups ascending.

    Attributes:
        group: (rows,) each row's group.
        order: (rows,) the rows by group.
        starts: (groups,) where each group starts in that order.
    """

    group: Index
    order: Index
    starts: Index

    @classmethod
    def of(cls, values: Array | Index) -> "Ties":
        """Group rows by their values, (rows,)."""
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(group, np.argsort(group, kind="stable"), np.cumsum(counts) - counts)

    def mass(self, weights: Array) -> Array:
        """Sum the weights of each group, (resamples, groups)."""
        return np.asarray(np.add.reduceat(weights[:, self.order], self.starts, axis=1))

    def midranks(self, weights: Array) -> Array:
        """Rank every row, counted from 1/2, ties sharing the middle of theirs: (resamples, rows)."""
        return np.asarray(self._middles(weights)[:, self.group])

    def bins(self, weights: Array, bins: int) -> Index:
        """Divide the groups into bins of like mass, numbered from 0: (resamples, groups)."""
        position = bins * self._middles(weights) / weights.sum(axis=1, keepdims=True)
        return np.asarray(np.clip(np.nan_to_num(position), 0, bins - 1).astype(np.int64))

    def _middles(self, weights: Array) -> Array:
        mass = self.mass(weights)
        return np.asarray(mass.cumsum(axis=1) - mass / 2)


def _f1(cells: Array) -> Array:
    """Return F1 by class, (resamples, k), of confusion matrices."""
    hits = 2 * np.diagonal(cells, axis1=1, axis2=2)
    return np.asarray(hits / (cells.sum(axis=1) + cells.sum(axis=2)))


def _defined(values: Array) -> float:
    """1, or NaN where a value is missing, so that ranks of missing values are never taken for results."""
    return float("nan") if np.isnan(values).any() else 1.0
