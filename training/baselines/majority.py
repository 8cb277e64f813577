"""The majority baseline: the commonest score for every pair. It shows what the labels' shares alone give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics import Index, Prediction
from training.probing_set import is_positive
from training.records import LabelledPair


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
        share = float(is_positive(train_scores, classes).mean())
        return Prediction(np.full(n, float(commonest)), np.zeros(n), np.full(n, share), np.full(n, commonest))
