"""Fits of all aspects together, given inner products: ridge, logistic, support vectors, ordinal logistic.

Every head gives the same thing, a coefficient for each training row, so that an aspect's value is linear in its
features, whatever the loss was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from ..rows.records import LONGEST_USUAL
from .settings import Setting
from .table import Array, Index, Labels, Rows

INTERCEPT_SCALE = 10.0  # of the constant columns, so that the penalty leaves the intercepts nearly free
MAX_ITERATIONS = 2000
RANK_TOLERANCE = 1e-10  # directions below this share of the largest are rounding


@dataclass(frozen=True)
class Target:
    """What is fitted.

    Attributes:
        value: (rows,) the regression's target.
        score: (rows,) the label.
        positive: (rows,) whether it is a good one.
    """

    value: Array
    score: NDArray[Any]
    positive: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Labels, threshold_weight: float) -> "Target":
        """Weight what users filter by, the step to a good label, more than a step elsewhere on the scale.

        That weight is meant for a scale of 1 to 5, so other scales whose good levels are stated are put on it.
        """
        value = labels.score
        for a, classes in enumerate(labels.classes):
            stretched = threshold_weight > 0 and getattr(classes, "good", None) is not None
            if stretched and (classes[0] < 0 or classes[-1] > LONGEST_USUAL):
                usual = 1 + (value - classes[0]) * (LONGEST_USUAL - 1) / (classes[-1] - classes[0])
                value = np.where(labels.aspect == a, usual, value)
        return cls(value + threshold_weight * labels.positive, labels.score, labels.positive)


@dataclass(frozen=True)
class Fit:
    """A fit of aspects that share a part of their weight, in dual form.

    Attributes:
        train: The training rows.
        dual: (train rows,) coefficients.
        offset: (aspects,) value at an aspect's centre, or at the origin without centres.
        sharing: Weight of the part that aspects share.
        centered: Whether each aspect's mean is taken off its features.
    """

    train: Rows
    dual: Array
    offset: Array
    sharing: float
    centered: bool

    def values(self, gram: Array, rows: Rows) -> Array:
        """Return each row's value by its aspect's weight, (rows,)."""
        kernel = joint_kernel(gram, rows, self.train, self.sharing, centered=self.centered)
        return np.asarray(kernel @ self.dual + self.offset[rows.aspect])

    def unit_dual(self, aspect: int, n_units: int) -> tuple[Array, Array]:
        """Return an aspect's weight and centre as combinations of the units' features, (units,) each."""
        train = self.train
        own = train.aspect == aspect
        strength = self.dual * (own + self.sharing) / (1 + self.sharing)
        dual, center = np.zeros(n_units), np.zeros(n_units)
        np.add.at(dual, train.unit, strength)
        if self.centered:
            for a in np.unique(train.aspect):
                other = train.aspect == a
                share = train.weight[other] / train.weight[other].sum()
                np.add.at(dual, train.unit[other], -strength[other].sum() * share)
                if a == aspect:
                    np.add.at(center, train.unit[other], share)
        return dual, center


def fit_each(
    gram: Array, train: Rows, target: Target, settings: Sequence[Setting], *, centered: bool = True
) -> list[Fit]:
    """Fit several heads on the same rows; what they have in common is computed once.

    Args:
        gram: (units, units) inner products.
        train: Rows to fit on.
        target: What is fitted, of the same rows.
        settings: How, one for each fit.
        centered: Whether there are centres and offsets; without them (ridge only) the value is linear in the features.
    """
    kernels = {s.sharing: joint_kernel(gram, train, train, s.sharing, centered=centered) for s in settings}
    scales = {sharing: mean_diagonal(kernel, train.auxiliary) for sharing, kernel in kernels.items()}
    needed = {s.sharing for s in settings if s.head != "ridge"}
    coordinates = {sharing: coordinates_of(kernels[sharing] / scales[sharing]) for sharing in needed}
    fits = []
    for setting in settings:
        kernel, scale = kernels[setting.sharing], scales[setting.sharing]
        if setting.head == "ridge":
            offset = _means(target.value, train) if centered else np.zeros(train.n_aspects)
            penalty = np.diag(setting.penalty * scale / train.weight)
            dual = _solved(kernel + penalty, target.value - offset[train.aspect])
        else:
            dual, offset = _fit_losses(*coordinates[setting.sharing], train, target, setting)
            dual = dual / scale
        fits.append(Fit(train, dual, offset, setting.sharing, centered))
    return fits


def joint_kernel(gram: Array, rows: Rows, train: Rows, sharing: float, *, centered: bool = True) -> Array:
    """Inner products of rows with training rows under weights of which aspects share a part.

    An aspect's weight is a part that all share plus a part of its own (Evgeniou and Pontil, KDD 2004), each aspect
    with its own centre, the weighted mean of its training rows.

    Args:
        gram: (units, units) inner products.
        rows: Rows to predict.
        train: Rows to fit on.
        sharing: Weight of the part that aspects share, against 1 for their own.
        centered: Whether the aspect's centre is taken off.

    Returns:
        float64 (rows, train rows).
    """
    n = max(rows.n_aspects, train.n_aspects)
    of_rows, of_train = np.eye(n)[rows.aspect], np.eye(n)[train.aspect]
    block = gram[np.ix_(rows.unit, train.unit)]
    if centered:
        average = (of_train * train.weight[:, None]).T
        average = average / np.maximum(average.sum(axis=1, keepdims=True), 1e-300)
        within = average @ gram[np.ix_(train.unit, train.unit)]
        to_mean = within @ average.T
        block = block - of_rows @ within - (block @ average.T) @ of_train.T + of_rows @ to_mean @ of_train.T
    return np.asarray(block * (of_rows @ of_train.T + sharing) / (1 + sharing))


def left_out_errors(
    gram: Array, train: Rows, target: Target, sharing: float, penalties: tuple[float, ...], *, centered: bool = True
) -> Array:
    """Return the errors of ridge fits at rows whose question was left out, without refitting (PRESS).

    With B = (K + penalty)^-1 and C = B - BH(H'BH)^-1H'B, which keeps the offsets H free, the errors of a question's
    rows b are C_bb^-1 (C y)_b: exact, by the block inverse of the whole system. The penalty is that of all rows.

    Returns:
        float64 (penalties, rows); NaN at a row whose question holds all rows of its aspect, as no other has its offset.
    """
    kernel = joint_kernel(gram, train, train, sharing, centered=centered)
    scale = mean_diagonal(kernel, train.auxiliary)
    offsets = np.eye(train.n_aspects)[train.aspect][:, np.unique(train.aspect)]
    order = np.argsort(train.question, kind="stable")
    _, starts = np.unique(train.question[order], return_index=True)
    blocks = np.split(order, starts[1:])
    alone = _alone(train) if centered else np.zeros(len(order), dtype=bool)
    errors = np.empty((len(penalties), len(train.unit)))
    for i, penalty in enumerate(penalties):
        c = np.linalg.inv(kernel + np.diag(penalty * scale / train.weight))
        if centered:
            free = c @ offsets
            c = c - free @ np.linalg.solve(offsets.T @ free, free.T)
        dual = c @ target.value
        errors[i] = dual / np.where(alone, np.nan, np.diag(c))
        for block in blocks:
            if len(block) > 1:
                errors[i, block] = np.linalg.lstsq(c[np.ix_(block, block)], dual[block], rcond=None)[0]
    errors[:, alone] = np.nan
    return errors


def _alone(train: Rows) -> NDArray[np.bool_]:
    """Say of each row whether its question holds all rows of its aspect."""
    alone = np.zeros(len(train.unit), dtype=bool)
    for a in np.unique(train.aspect):
        own = train.aspect == a
        alone[own] = len(np.unique(train.question[own])) == 1
    return alone


def _solved(matrix: Array, values: Array) -> Array:
    """Solve a symmetric positive definite system; one that rounding made indefinite, as of constant features, too."""
    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), values, check_finite=False))
    except LinAlgError:
        return np.asarray(np.linalg.solve(matrix, values))


def mean_diagonal(kernel: Array, auxiliary: NDArray[np.bool_] | None = None) -> float:
    """Return the mean diagonal, what penalties are multiples of; 1 where all features are constant.

    Auxiliary rows do not count, unless all are: they may lie far from the others (a bare number's states are four times
    as far from the mean as a solution's), and a penalty chosen without them is to be the same with them.
    """
    diagonal = np.diagonal(kernel)
    own = diagonal if auxiliary is None or auxiliary.all() else diagonal[~auxiliary]
    return float(own.mean()) or 1.0


def _means(values: Array, train: Rows) -> Array:
    """Return the weighted mean by aspect, 0 for an aspect without rows."""
    total = np.bincount(train.aspect, train.weight * values, train.n_aspects)
    return np.asarray(total / np.maximum(np.bincount(train.aspect, train.weight, train.n_aspects), 1e-300))


def coordinates_of(kernel: Array) -> tuple[Array, Array]:
    """Return coordinates in which the kernel is the plain inner product, (rows, rank), and the map from their duals."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > RANK_TOLERANCE * max(values[-1], 0.0)
    return vectors[:, kept] * np.sqrt(values[kept]), vectors[:, kept] / np.sqrt(values[kept])


def _fit_losses(x: Array, to_dual: Array, train: Rows, target: Target, setting: Setting) -> tuple[Array, Array]:
    """Fit a classifier on coordinates, (rows, rank); give the rows' coefficients and the aspects' offsets.

    Where all labels fall on one side, there is nothing to tell apart, and all values are 0.
    """
    rows, columns, is_above = _thresholds(train, target, setting.head)
    if len(np.unique(is_above)) < 2:
        return np.zeros(len(train.unit)), np.zeros(train.n_aspects)
    constants = INTERCEPT_SCALE * np.eye(int(columns.max()) + 1)[columns]
    options: dict[str, Any] = {"C": 1 / setting.penalty, "fit_intercept": False, "max_iter": MAX_ITERATIONS}
    model = LinearSVC(**options, dual=False) if setting.head == "svc" else LogisticRegression(**options)
    model.fit(np.hstack([x[rows], constants]), is_above, sample_weight=train.weight[rows])
    weight = model.coef_[0]
    of_column = INTERCEPT_SCALE * weight[x.shape[1] :]
    owner = np.array([train.aspect[rows[columns == c][0]] for c in range(len(of_column))])
    offset = np.array([of_column[owner == a].mean() if (owner == a).any() else 0.0 for a in range(train.n_aspects)])
    return to_dual @ weight[: x.shape[1]], offset


def _thresholds(train: Rows, target: Target, head: str) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Return for each comparison its row, its own constant's number, and whether the label lies above."""
    if head != "ordinal":
        _, columns = np.unique(train.aspect, return_inverse=True)
        return np.arange(len(train.aspect)), columns, target.positive
    none = np.empty(0, dtype=np.int64)
    parts: list[tuple[Index, Index, NDArray[np.bool_]]] = [(none, none, none.astype(bool))]
    for a in np.unique(train.aspect):
        own = np.flatnonzero(train.aspect == a)
        for threshold in np.unique(target.score[own])[1:]:
            parts.append((own, np.full(len(own), len(parts) - 1), target.score[own] >= threshold))
    rows, columns, above = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, above
