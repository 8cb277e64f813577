"""Baselines that read texts alone: the majority, lengths, surface features, and words.

Each fits an aspect's labels of some pairs and predicts others; `TextMethod` runs one of them fold by fold.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ...probing.table import Labels, TooFewLabelsError
from ...rows.records import LabelledPair, is_good
from ..metrics import Array, Index, Prediction
from .base import Fold, Method, Predicted

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
TOKEN = r"\w+|[^\w\s]"  # signs are words too: an equals sign says more of mathematics than most words


class Baseline(Protocol):
    """What predicts an aspect's labels of some pairs from those of others."""

    @property
    def name(self) -> str:
        """Its name in results.json."""

    @property
    def description(self) -> str:
        """What it is, in a few words for the protocol in results.json."""

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: Index,
        test_pairs: Sequence[LabelledPair],
        classes: list[int],
        seed: int,
    ) -> Prediction:
        """Fit on some pairs of one aspect and predict others.

        Args:
            train_pairs: Pairs to fit on.
            train_scores: (train pairs,) their labels.
            test_pairs: Pairs of other questions.
            classes: All scores of the aspect, ascending; those to fit on may lack some.
            seed: Of the fit, where there is chance in it.

        Returns:
            The predictions of the test pairs.
        """


class TextMethod(Method):
    """A baseline, fitted for each aspect by itself."""

    budget = "one fit, nothing tuned"

    def __init__(self, baseline: Baseline, pairs: Sequence[LabelledPair], seed: int) -> None:
        """Keep a baseline and all pairs."""
        self.baseline, self.pairs, self.seed = baseline, pairs, seed
        self.name, self.description = baseline.name, baseline.description

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Keep the training rows; they are fitted once it is known what is asked."""
        return partial(self._predict, fold.train.take(np.flatnonzero(~fold.train.auxiliary)), self.seed + fold.repeat)

    def _predict(self, train: Labels, seed: int, rows: Labels) -> Predicted:
        for a in np.unique(rows.aspect):
            fitted, asked = np.flatnonzero(train.aspect == a), np.flatnonzero(rows.aspect == a)
            if not len(fitted):
                raise TooFewLabelsError(f"{self.name} expects labels of {train.names[a]} to fit on, but got none.")
            train_pairs, test_pairs = ([self.pairs[i] for i in own] for own in (train.pair[fitted], rows.pair[asked]))
            yield (
                rows.row[asked],
                self.baseline.predict(train_pairs, train.score[fitted], test_pairs, train.classes[a], seed),
            )


@dataclass(frozen=True)
class Majority:
    """Gives every pair the commonest score, and the share of good labels as P(good).

    What it gives must not follow the fold: a fold that holds fewer of a label leaves more of it to fit on, so that
    folds would be ranked against their labels. So its expected score is the score itself and not the labels' mean, it
    ranks all pairs alike, and of the scores whose counts lie within a standard deviation, the square root, of the
    largest count, it takes the one nearest to the median.
    """

    name: str = "majority"
    description: str = "the commonest score for every pair; P(good) is the share of good labels"

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: Index,
        test_pairs: Sequence[LabelledPair],
        classes: list[int],
        seed: int,
    ) -> Prediction:
        """Predict as `Baseline.predict` says; pairs and seed do not matter."""
        n = len(test_pairs)
        scores, counts = np.unique(train_scores, return_counts=True)
        common = scores[counts >= counts.max() - np.sqrt(counts.max())]
        commonest = int(common[np.argmin(np.abs(common - np.median(train_scores)))])
        share = float(is_good(train_scores, classes).mean())
        return Prediction(np.full(n, float(commonest)), np.zeros(n), np.full(n, share), np.full(n, commonest))


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
        train, both = _lengths(train_pairs), _lengths([*train_pairs, *test_pairs])
        test = both[len(train) :]
        polynomial = PolynomialFeatures(2, include_bias=False)
        model = make_pipeline(StandardScaler(), polynomial, LogisticRegression(max_iter=1000))
        good = _good_probabilities(model, train, train_scores, test, classes)[:, 1]
        expected = fitted_probabilities(model, train, train_scores, both, classes) @ np.array(classes, float)
        seen, counts = np.unique(train_scores, return_counts=True)
        cuts = np.quantile(expected[: len(train)], counts.cumsum()[:-1] / counts.sum())
        score = seen[np.searchsorted(cuts, expected[len(train) :])]
        return Prediction(expected[len(train) :], good, good, score)


def _lengths(pairs: Sequence[LabelledPair]) -> Array:
    """Count response characters, response words and question characters, as logarithms: (pairs, 3)."""
    counts = [(len(p.prediction), len(p.prediction.split()), len(p.question)) for p in pairs]
    return np.log1p(np.array(counts, dtype=np.float64))


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
        train, test = (np.array([surface_features(pair) for pair in own]) for own in (train_pairs, test_pairs))
        options = {"n_estimators": self.trees, "min_samples_leaf": 3, "class_weight": "balanced"}
        forest, scale = RandomForestClassifier(**options, random_state=seed), np.array(classes)
        by_good, prior = (
            _good_probabilities(forest, train, train_scores, test, classes),
            is_good(train_scores, classes).mean(),
        )
        good_probability = _unbalanced(by_good, np.array([1 - prior, prior]))[:, 1]
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


def _unbalanced(probabilities: Array, shares: Array) -> Array:
    """Take probabilities, (n, classes), from equally frequent classes to classes of given shares (Saerens 2002)."""
    weighed = probabilities * shares
    return np.asarray(weighed / weighed.sum(axis=1, keepdims=True))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


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
        train, test = (
            np.array([(p.question, p.prediction) for p in own], dtype=object) for own in (train_pairs, test_pairs)
        )
        options = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": TOKEN}
        columns = [(name, TfidfVectorizer(**options), place) for place, name in enumerate(("question", "prediction"))]
        regression = LogisticRegression(C=self.inverse_penalty, max_iter=2000)
        model, scale = make_pipeline(ColumnTransformer(columns), regression), np.array(classes)
        good = _good_probabilities(model, train, train_scores, test, classes)[:, 1]
        by_score = fitted_probabilities(model, train, train_scores, test, classes)
        return Prediction(by_score @ scale, good, good, scale[by_score.argmax(axis=1)])


def _good_probabilities(model: Any, train: Array, scores: Index, test: Array, classes: list[int]) -> Array:
    """Fit good labels against others and predict both, (test rows, 2)."""
    return fitted_probabilities(model, train, is_good(scores, classes).astype(np.int64), test, [0, 1])


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


BASELINES: tuple[Baseline, ...] = (Majority(), Length(), Surface())  # those of the evaluate stage
TEXT_BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in (*BASELINES, TfIdf())}
