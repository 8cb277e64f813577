"""The TF-IDF baseline: logistic regressions on words and word pairs of question and response."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from training.baselines.classes import fitted_probabilities
from training.metrics import Index, Prediction
from training.probing_set import is_positive
from training.records import LabelledPair

TOKEN = r"\w+|[^\w\s]"  # signs are words too: an equals sign says more of mathematics than most words


@dataclass(frozen=True)
class TfIdf:
    """Words and word pairs, counted apart in question and response, in L2-regularised logistic regressions.

    One regression is of good labels, for P(good) and the ranking; one is of the scores, and the likeliest is given.

    Attributes:
        inverse_penalty: scikit-learn's C.
    """

    name: str = "tfidf"
    description: str = "logistic regressions on TF-IDF of words and word pairs of question and response"
    inverse_penalty: float = 1.0

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: Index,
        test_pairs: Sequence[LabelledPair],
        classes: list[int],
        seed: int,
    ) -> Prediction:
        """Predict as `Baseline.predict` says; the fit has no chance in it, so the seed does not matter."""
        train, test = _texts(train_pairs), _texts(test_pairs)
        is_good = is_positive(train_scores, classes).astype(np.int64)
        good = fitted_probabilities(self._classifier(), train, is_good, test, [0, 1])[:, 1]
        by_score = fitted_probabilities(self._classifier(), train, train_scores, test, classes)
        scale = np.array(classes)
        return Prediction(by_score @ scale, good, good, scale[by_score.argmax(axis=1)])

    def _classifier(self) -> Pipeline:
        options = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": TOKEN}
        columns = [(name, TfidfVectorizer(**options), place) for place, name in enumerate(("question", "prediction"))]
        return make_pipeline(ColumnTransformer(columns), LogisticRegression(C=self.inverse_penalty, max_iter=2000))


def _texts(pairs: Sequence[LabelledPair]) -> np.ndarray:
    return np.array([(pair.question, pair.prediction) for pair in pairs], dtype=object)
