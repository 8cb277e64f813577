"""The length baseline: a logistic regression on how long question and response are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from training.baselines.classes import fitted_probabilities
from training.metrics import Array, Index, Prediction
from training.probing_set import is_positive
from training.records import LabelledPair


@dataclass(frozen=True)
class Length:
    """Logarithms of lengths with their squares and products, in L2-regularised logistic regressions.

    Labels rise or fall smoothly with length or have a best length, which a square can say, and products compare
    response and question. A forest on three features would need more labels than an aspect has to say as much.

    One regression is of good labels, for P(good) and the ranking; one is of the scores. A score is given as often as
    it was a label in training, in the order of the expected score, which is how a judge gives its scores: so the
    difference of the two lies in what they know, not in how they decide.
    """

    name: str = "length"
    description: str = "logistic regressions on the lengths of question and response"

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: Index,
        test_pairs: Sequence[LabelledPair],
        classes: list[int],
        seed: int,
    ) -> Prediction:
        """Predict as `Baseline.predict` says; the fit has no chance in it, so the seed does not matter."""
        train, both = _features(train_pairs), _features([*train_pairs, *test_pairs])
        test = both[len(train) :]
        is_good = is_positive(train_scores, classes).astype(np.int64)
        good = fitted_probabilities(_classifier(), train, is_good, test, [0, 1])[:, 1]
        expected = fitted_probabilities(_classifier(), train, train_scores, both, classes) @ np.array(classes, float)
        seen, counts = np.unique(train_scores, return_counts=True)
        cuts = np.quantile(expected[: len(train)], counts.cumsum()[:-1] / counts.sum())
        score = seen[np.searchsorted(cuts, expected[len(train) :])]
        return Prediction(expected[len(train) :], good, good, score)


def _features(pairs: Sequence[LabelledPair]) -> Array:
    """Count response characters, response words and question characters, as logarithms: (pairs, 3)."""
    counts = [(len(p.prediction), len(p.prediction.split()), len(p.question)) for p in pairs]
    return np.log1p(np.array(counts, dtype=np.float64))


def _classifier() -> Pipeline:
    return make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), LogisticRegression(max_iter=1000))
