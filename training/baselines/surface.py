"""The surface baseline: random forests on ten counts of a pair's text. A judge that is no better learnt surface."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from training.baselines.classes import fitted_probabilities
from training.metrics import Array, Index, Prediction
from training.probing_set import is_positive
from training.records import LabelledPair

FEATURE_NAMES = (
    "question_characters",
    "question_words",
    "response_characters",
    "response_words",
    "response_lines",
    "response_digits",
    "response_equals_signs",
    "question_digits",
    "share_of_question_words_in_response",
    "share_of_response_numbers_in_question",
)


@dataclass(frozen=True)
class Surface:
    """Random forests with balanced classes: one of good labels for AUROC and P(good), one of scores for the rest.

    The balance takes the classes as equally frequent. For P(good) it is undone, else its Brier score would be bad for
    that reason alone; the ranking stays as it is. The forests run in one thread: several add up the trees' votes in any
    order, so that their rounding makes and breaks ties by chance.

    Attributes:
        trees: Of each forest.
    """

    trees: int = 300
    name: str = "surface"
    description: str = (
        "random forests on ten surface features of the text: one fitted on good against other labels for AUROC and "
        "P(good), one on the scores for the rest"
    )

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: Index,
        test_pairs: Sequence[LabelledPair],
        classes: list[int],
        seed: int,
    ) -> Prediction:
        """Predict as `Baseline.predict` says."""
        train, test, scale = _matrix(train_pairs), _matrix(test_pairs), np.array(classes)
        is_good = is_positive(train_scores, classes)
        forest = RandomForestClassifier(
            n_estimators=self.trees, min_samples_leaf=3, class_weight="balanced", random_state=seed
        )
        by_good = fitted_probabilities(forest, train, is_good.astype(np.int64), test, [0, 1])
        good_probability = _unbalanced(by_good, np.array([1 - is_good.mean(), is_good.mean()]))[:, 1]
        by_score = fitted_probabilities(forest, train, train_scores, test, classes)
        return Prediction(by_score @ scale, by_good[:, 1], good_probability, scale[by_score.argmax(axis=1)])


def surface_features(pair: LabelledPair) -> tuple[float, ...]:
    """Count what needs no understanding; the values are in the order of `FEATURE_NAMES`."""
    return _counts(pair.question, pair.prediction)


@lru_cache(maxsize=100_000)
def _counts(question: str, response: str) -> tuple[float, ...]:
    """Count once for all folds and aspects."""
    question_words, response_words = _words(question), _words(response)
    question_numbers, response_numbers = set(re.findall(r"\d+", question)), set(re.findall(r"\d+", response))
    return (
        len(question),
        len(question.split()),
        len(response),
        len(response.split()),
        response.count("\n") + 1,
        sum(map(str.isdigit, response)),
        response.count("="),
        sum(map(str.isdigit, question)),
        len(question_words & response_words) / max(1, len(question_words)),
        len(question_numbers & response_numbers) / max(1, len(response_numbers)),
    )


def _matrix(pairs: Sequence[LabelledPair]) -> Array:
    return np.array([surface_features(pair) for pair in pairs])


def _unbalanced(probabilities: Array, shares: Array) -> Array:
    """Take probabilities, (n, classes), from equally frequent classes to classes of given shares (Saerens 2002)."""
    weighed = probabilities * shares
    normed: Array = weighed / weighed.sum(axis=1, keepdims=True)
    return normed


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))
