"""Baselines that read texts alone: the majority, lengths, surface features, and words.

Each fits an aspect's labels of some pairs and predicts others; `TextMethod` runs one of them fold by fold.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from inspector_pipeline.sums import wrong_sums

from ...probing.table import Labels, TooFewLabelsError
from ...rows.records import LabelledPair, is_good
from ..metrics import Predictions
from .base import Fold, Method, Predicted
from .fitting import Baseline, fitted_both, fitted_probabilities, predictions_of

TOKEN = r"\w+|[^\w\s]"  # signs are words too: an equals sign says more of mathematics than most words


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
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Fit on some pairs of one aspect and predict others; so do all baselines.

        Args:
            train_pairs: Pairs to fit on.
            train_scores: (train pairs,) their labels.
            test_pairs: Pairs of other questions.
            classes: All scores of the aspect, ascending; those to fit on may lack some.
            seed: Of the fit, where there is chance in it, as there is in the forests' alone.

        Returns:
            The predictions of the test pairs, (test pairs,) each.
        """
        n = len(test_pairs)
        scores, counts = np.unique(train_scores, return_counts=True)
        common = scores[counts >= counts.max() - np.sqrt(counts.max())]
        commonest = common[np.argmin(np.abs(common - np.median(train_scores)))].item()
        share = float(is_good(train_scores, classes).mean())
        return Predictions(np.full(n, float(commonest)), np.zeros(n), np.full(n, share), np.full(n, commonest))


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
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says."""
        pairs, n = [*train_pairs, *test_pairs], len(train_pairs)
        counts = [(len(p.prediction), len(p.prediction.split()), len(p.question)) for p in pairs]
        lengths = np.log1p(np.array(counts, dtype=np.float64))
        polynomial = PolynomialFeatures(2, include_bias=False)
        model = make_pipeline(StandardScaler(), polynomial, LogisticRegression(max_iter=1000))
        is_fitted_good = is_good(train_scores, classes).astype(np.int64)
        good = fitted_probabilities(model, lengths[:n], is_fitted_good, lengths[n:], [0, 1])[:, 1]
        expected = fitted_probabilities(model, lengths[:n], train_scores, lengths, classes) @ np.array(classes, float)
        seen, counted = np.unique(train_scores, return_counts=True)
        cuts = np.quantile(expected[:n], counted.cumsum()[:-1] / counted.sum())
        return Predictions(expected[n:], good, good, seen[np.searchsorted(cuts, expected[n:])])


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
        "random forests on eleven surface features of the text: one fitted on good against other labels for AUROC and "
        "P(good), one on the scores for the rest"
    )

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says."""
        train, test = (
            np.array([tuple(surface_features(p.question, p.prediction).values()) for p in own])
            for own in (train_pairs, test_pairs)
        )
        options = {"n_estimators": self.trees, "min_samples_leaf": 3, "class_weight": "balanced"}
        forest = RandomForestClassifier(**options, random_state=seed)
        by_good, by_score = fitted_both(forest, train, train_scores, test, classes)
        prior = is_good(train_scores, classes).mean()
        weighed = by_good * np.array([1 - prior, prior])  # from equally frequent classes to these (Saerens 2002)
        good_probability = (weighed / weighed.sum(axis=1, keepdims=True))[:, 1]
        return predictions_of(by_good, by_score, classes, good_probability)


@lru_cache(maxsize=100_000)
def surface_features(question: str, response: str) -> dict[str, float]:
    """Count what needs no understanding, once for all folds and aspects."""
    asked, said = (set(re.findall(r"[a-z]+", text.lower())) for text in (question, response))
    asked_numbers, said_numbers = (set(re.findall(r"\d+", text)) for text in (question, response))
    return {
        "question_characters": len(question),
        "question_words": len(question.split()),
        "response_characters": len(response),
        "response_words": len(response.split()),
        "response_lines": response.count("\n") + 1,
        "response_digits": sum(map(str.isdigit, response)),
        "response_equals_signs": response.count("="),
        "question_digits": sum(map(str.isdigit, question)),
        "share_of_question_words_in_response": len(asked & said) / max(1, len(asked)),
        "share_of_response_numbers_in_question": len(asked_numbers & said_numbers) / max(1, len(said_numbers)),
        "response_wrong_sums": len(wrong_sums(response)),
    }


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
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says."""
        train, test = (
            np.array([(p.question, p.prediction) for p in own], dtype=object) for own in (train_pairs, test_pairs)
        )
        options = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": TOKEN}
        named = enumerate(("question", "prediction"))  # one may be empty everywhere: questions are read alone then
        columns = [
            (name, TfidfVectorizer(**options), n) for n, name in named if any(text.strip() for text in train[:, n])
        ]
        regression = LogisticRegression(C=self.inverse_penalty, max_iter=2000)
        model = make_pipeline(ColumnTransformer(columns), regression)
        return predictions_of(*fitted_both(model, train, train_scores, test, classes), classes)


BASELINES: tuple[Baseline, ...] = (Majority(), Length(), Surface(), TfIdf())
TEXT_BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in BASELINES}


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
            own = ([self.pairs[i] for i in train.pair[fitted]], train.score[fitted])
            test_pairs = [self.pairs[i] for i in rows.pair[asked]]
            yield rows.row[asked], self.baseline.predict(*own, test_pairs, train.classes[a], seed)
