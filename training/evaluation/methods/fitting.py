"""What baselines share: their form, and how they fit a classifier of scikit-learn."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...rows.records import LabelledPair, is_good
from ..metrics import Array, Predictions


class Baseline(Protocol):
    """What fits an aspect's labels of some pairs and predicts others; `Majority.predict` says how."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says."""


def fitted_both(model: Any, train: Array, scores: NDArray[Any], rows: Array, classes: list[Any]) -> tuple[Array, Array]:
    """Fit a classifier on good labels against others, and on the scores: probabilities (rows, 2), (rows, classes)."""
    good = is_good(scores, classes).astype(np.int64)
    by_good = fitted_probabilities(model, train, good, rows, [0, 1])
    return by_good, fitted_probabilities(model, train, scores, rows, classes)


def predictions_of(
    by_good: Array, by_score: Array, classes: list[Any], probability: Array | None = None
) -> Predictions:
    """Say what two classifiers predict: the expected and the likeliest score, the ranking, and P(good).

    Args:
        by_good: (rows, 2), of good labels against others; its second column ranks.
        by_score: (rows, classes).
        classes: All scores, ascending.
        probability: (rows,) P(good); None where it is what ranks.
    """
    scale, good = np.array(classes), by_good[:, 1]
    said = good if probability is None else probability
    return Predictions(by_score @ scale, good, said, scale[by_score.argmax(axis=1)])


def fitted_probabilities(model: Any, train: Array, labels: NDArray[Any], test: Array, classes: list[Any]) -> Array:
    """Fit a scikit-learn classifier and predict.

    Args:
        model: The classifier; it is not needed where only one class is seen, which then is certain.
        train: (train rows, features).
        labels: (train rows,).
        test: (test rows, features).
        classes: All classes, ascending.

    Returns:
        (test rows, classes); 0 for a class that was not seen.
    """
    seen, place = np.unique(labels, return_inverse=True)
    if labels.dtype.kind == "f":  # which scikit-learn takes for a regression's target
        labels = place
    probabilities = np.zeros((len(test), len(classes)))
    certain = len(seen) == 1
    probabilities[:, np.searchsorted(classes, seen)] = 1.0 if certain else model.fit(train, labels).predict_proba(test)
    return probabilities
