"""Baselines that need no understanding, to be fitted in a judge's own folds: what a judge must beat to have read.

`majority` knows the labels' shares, `length` how long the texts are, and `surface` ten counts of the text.
"""

from collections.abc import Sequence
from typing import Protocol

from training.baselines.length import Length
from training.baselines.majority import Majority
from training.baselines.surface import Surface
from training.metrics import Index, Prediction
from training.records import LabelledPair


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
            seed: Of the fit.

        Returns:
            The predictions of the test pairs.
        """


BASELINES: tuple[Baseline, ...] = (Majority(), Length(), Surface())

__all__ = ["BASELINES", "Baseline", "Length", "Majority", "Surface"]
