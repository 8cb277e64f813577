"""Probabilities of all classes, from a fit that may not have seen all of them."""

from typing import Any

import numpy as np

from training.metrics import Array, Index


def fitted_probabilities(model: Any, train: Array, labels: Index, test: Array, classes: list[int]) -> Array:
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
    seen = np.unique(labels)
    probabilities = np.zeros((len(test), len(classes)))
    certain = len(seen) == 1
    probabilities[:, np.searchsorted(classes, seen)] = 1.0 if certain else model.fit(train, labels).predict_proba(test)
    return probabilities
