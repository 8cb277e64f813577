"""How a fitted value becomes a score and probabilities: a cumulative logit model, and cuts between scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from .table import Array, Index


@dataclass(frozen=True)
class Calibration:
    """How an aspect's predicted target becomes a score and probabilities.

    Attributes:
        slope: P(score > class k) = sigmoid(slope * value - thresholds[k]).
        thresholds: (classes - 1,), ascending.
        cuts: (classes - 1,), ascending, on the scale of slope * value; the score is the number of cuts passed. They
            are laid so that each score is given as often as it was observed in training.
    """

    slope: float
    thresholds: Array
    cuts: Array

    @classmethod
    def fit(cls, values: Array, scores: NDArray[Any], classes: list[Any]) -> "Calibration":
        """Fit on values of rows that were not fitted on, (n,), and their labels, (n,)."""
        slope, thresholds = fit_cumulative_logit(values, scores, classes)
        cuts = np.quantile(slope * values, [np.mean(scores <= c) for c in classes[:-1]])
        return cls(slope, thresholds, cuts)

    def probabilities(self, values: Array) -> Array:
        """Return class probabilities, (n, classes)."""
        return class_probabilities(self.slope * values, self.thresholds)

    def class_index(self, values: Array) -> Index:
        """Return how many cuts each value passes, (n,)."""
        return np.asarray((self.slope * values[:, None] > self.cuts).sum(axis=1))


@dataclass(frozen=True)
class Rounding:
    """How the value of a probe without a bias becomes a score and probabilities: it is the score itself.

    Attributes:
        classes: All scores, ascending.
    """

    classes: list[Any]

    def probabilities(self, values: Array) -> Array:
        """Share the probability between the scores beside each value, so that it is the expected score."""
        return np.stack([np.interp(values, self.classes, corner) for corner in np.eye(len(self.classes))], axis=1)

    def class_index(self, values: Array) -> Index:
        """Return the place of the nearest score, the higher one halfway, (n,)."""
        middles = (np.array(self.classes[1:]) + np.array(self.classes[:-1])) / 2
        return np.asarray((values[:, None] >= middles).sum(axis=1))


@dataclass(frozen=True)
class LogOdds:
    """The value of a preference's probe is its score: differences are log odds, and 0 is the typical response."""


def fit_cumulative_logit(
    values: Array, scores: NDArray[Any], classes: list[Any], prior: float = 1.0
) -> tuple[float, Array]:
    """Fit P(score > class k) = sigmoid(slope * value - threshold_k) by maximum likelihood (McCullagh 1980).

    Args:
        values: (n,) predictions of rows that were not fitted on.
        scores: (n,) labels.
        classes: All scores, ascending.
        prior: Weight of a log-normal prior that keeps the slope positive and finite.

    Returns:
        The slope, and ascending thresholds (classes - 1,).
    """
    index = np.searchsorted(classes, scores)
    spread = max(float(values.std()), 1e-6)
    shares = np.clip([(index > k).mean() for k in range(len(classes) - 1)], 0.02, 0.98)
    first = float(values.mean()) / spread - np.log(shares / (1 - shares))
    steps = np.log(np.maximum(np.diff(first), 1e-2))

    def unpack(parameters: Array) -> tuple[float, Array]:
        slope = float(np.exp(parameters[0])) / spread
        return slope, parameters[1] + np.concatenate([[0.0], np.cumsum(np.exp(parameters[2:]))])

    def loss(parameters: Array) -> float:
        slope, thresholds = unpack(parameters)
        p = class_probabilities(slope * values, thresholds)[np.arange(len(index)), index]
        return float(-np.log(np.maximum(p, 1e-12)).sum() + prior * parameters[0] ** 2 / 2)

    found = minimize(loss, np.concatenate([[0.0, first[0]], steps]), method="L-BFGS-B")
    return unpack(found.x)


def class_probabilities(values: Array, thresholds: Array) -> Array:
    """Return P(class) of a cumulative logit model, (n, classes)."""
    exceed: Array = expit(values[:, None] - thresholds)
    edge = np.ones((len(values), 1))
    return np.asarray(np.hstack([edge, exceed]) - np.hstack([exceed, 0 * edge]))
