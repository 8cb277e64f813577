"""The published probe: a standardised, balanced linear classifier, tested once on a fifth of the rows."""

import math
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ..evaluation.metrics import Predictions, bootstrap, intervals, resamples
from .rankings import Array, Index

SPLIT_SEED = 731
TEST_SHARE = 0.2
FOLDS = 5
C_GRIDS = {"lr": (0.001, 0.01, 0.1, 1.0), "linear_svm": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)}
BOOTSTRAPS = 1000
LEAST_ROWS = 3  # of the rarest class: one to test, and two that cross-validation can part


def why_not(labels: Index) -> str | None:
    """Say why labels are too few for the protocol, or None where they suffice.

    Args:
        labels: (rows,).
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return f"it expects two classes or more, but the labels have {len(classes)}"
    if counts.min() < LEAST_ROWS:
        return f"it expects {LEAST_ROWS} rows or more of every class, but the rarest has {counts.min()}"
    if math.ceil(TEST_SHARE * len(labels)) < len(classes):
        return f"it expects a test row for each of {len(classes)} classes in a fifth of the rows, of {len(labels)}"
    return None


def fit_and_test(inputs: Array, labels: Index, classifier: str = "lr") -> dict[str, Any]:
    """Fit a probe on 80 % of the rows and test it on the others, as published.

    Args:
        inputs: (rows, features), not standardised.
        labels: (rows,) scores, each of at least 3 rows.
        classifier: lr or linear_svm.

    Returns:
        The number of test rows, the chosen C, cross-validated macro F1 on the other rows, and the test rows' metrics
        with intervals over them, None where they are not defined, as AUROC is not without both good scores and others
        to test. AUROC and Spearman's rho are those of the expected score; for linear_svm from Platt's
        probabilities, while the score itself is the vote.
    """
    everyone = np.arange(len(labels))
    split = train_test_split(everyone, test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED)
    train, test = (np.asarray(rows) for rows in split)
    search = _search(classifier, labels[train]).fit(inputs[train], labels[train])
    classes = [int(c) for c in search.classes_]
    expected = _probabilities(search, inputs, labels, train, test) @ np.array(classes, dtype=float)
    score = search.predict(inputs[test])[None]
    predicted = Predictions(expected[None], expected[None], np.full((1, len(test)), np.nan), score)
    rows = np.arange(len(test)).astype(np.str_)
    draws = bootstrap(labels[test], classes, predicted, resamples(rows, BOOTSTRAPS, SPLIT_SEED).weights(rows))
    return {
        "n_test": len(test),
        "C": search.best_params_["classifier__C"],
        "cv_macro_f1": round(float(search.best_score_), 4),
        **intervals(draws),
    }


def balanced_rows(scores: Index) -> Index:
    """Choose as many rows of every score as the rarest has, ascending."""
    rng = np.random.default_rng(SPLIT_SEED)
    classes, counts = np.unique(scores, return_counts=True)
    chosen = [rng.choice(np.flatnonzero(scores == c), counts.min(), replace=False) for c in classes]
    return np.sort(np.concatenate(chosen))


def _search(classifier: str, labels: Index) -> GridSearchCV:
    model = (
        LogisticRegression(max_iter=2000, class_weight="balanced")
        if classifier == "lr"
        else SVC(kernel="linear", class_weight="balanced", random_state=SPLIT_SEED)
    )
    pipeline = Pipeline([("scaler", StandardScaler()), ("classifier", model)])
    return GridSearchCV(pipeline, {"classifier__C": list(C_GRIDS[classifier])}, cv=_folds(labels), scoring="f1_macro")


def _probabilities(search: GridSearchCV, inputs: Array, labels: Index, train: Index, test: Index) -> Array:
    """Return the test rows' probabilities, (rows, classes)."""
    if isinstance(search.best_estimator_[-1], SVC):
        platt = CalibratedClassifierCV(search.best_estimator_, cv=_folds(labels[train]), ensemble=False)
        probabilities: Array = platt.fit(inputs[train], labels[train]).predict_proba(inputs[test])
    else:
        probabilities = search.predict_proba(inputs[test])
    return probabilities


def _folds(labels: Index) -> int:
    """Return 5, or the rows of the rarest class where they are fewer."""
    return min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
