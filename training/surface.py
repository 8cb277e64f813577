"""The surface baseline: a random forest on ten counts of a pair's text. A judge that is no better learnt surface."""

import re

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

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


def surface_features(pair: LabelledPair) -> list[float]:
    """Count what needs no understanding; the values are in the order of `FEATURE_NAMES`."""
    question, response = pair.question, pair.prediction
    question_words, response_words = _words(question), _words(response)
    question_numbers, response_numbers = set(re.findall(r"\d+", question)), set(re.findall(r"\d+", response))
    return [
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
    ]


def fit_surface(x: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> RandomForestClassifier:
    """Fit the forest on training rows."""
    forest = RandomForestClassifier(
        n_estimators=300, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=-1
    )
    return forest.fit(x, labels)


def surface_probabilities(
    forest: RandomForestClassifier, x: NDArray[np.float64], classes: list[int]
) -> NDArray[np.float64]:
    """Return the forest's probabilities for all classes, (n, classes); 0 for a class it never saw."""
    probabilities = np.zeros((len(x), len(classes)))
    seen = [classes.index(int(c)) for c in forest.classes_]
    probabilities[:, seen] = forest.predict_proba(x)
    return probabilities


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))
