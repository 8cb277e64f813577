"""What every way of judging has: it is fitted on a fold's training rows, and predicts rows that the fold asks for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...probing.calibration import Calibration, Rounding
from ...probing.table import Array, Index, Labels
from ...rows.records import is_good
from ..cost import Cost
from ..metrics import Predictions

Predicted = Iterator[tuple[Index, Predictions]]


@dataclass(frozen=True)
class Fold:
    """One division of the labelled rows, by their numbers in the whole table.

    Attributes:
        repeat: Which repetition it is of.
        number: Its number in that repetition.
        train: Rows to fit on.
        test: Rows that are held out.
        others: Rows of other sets that it predicts besides, none of a question that is fitted on.
    """

    repeat: int
    number: int
    train: Labels
    test: Labels
    others: Labels | None = None

    @property
    def asked(self) -> list[Labels]:
        """What is to be predicted, set by set."""
        return [rows for rows in (self.test, self.others) if rows is not None]

    def with_share(self, share: float, seed: int) -> "Fold":
        """Keep a share of the training questions, at least one but for a share of 0, with all their rows."""
        questions = np.unique(self.train.question)
        n_kept = max(1, round(share * len(questions))) if share > 0 else 0
        kept = np.random.default_rng(seed).permutation(questions)[:n_kept]
        return replace(self, train=self.train.take(np.flatnonzero(np.isin(self.train.question, kept))), others=None)

    def without(self, generators: NDArray[np.str_], group: Sequence[str]) -> "Fold":
        """Leave out the training rows of some generators; what is asked stays.

        Args:
            generators: (rows,) of the whole table, "" where not known.
            group: Names.
        """
        kept = np.flatnonzero(~np.isin(generators[self.train.row], list(group)))
        return replace(self, train=self.train.take(kept))

    def that_counts(self) -> "Fold":
        """Keep the labelled rows of aspects that count in the total."""
        return replace(self, train=self.train.that_count(), test=self.test.that_count(), others=None)


class Method(Protocol):
    """A way of judging.

    Attributes:
        name: Its name in the table.
        description: What it is, in a few words.
        budget: What its fit is given beside the training labels, in a few words.
        n_folds: How many of the folds it is run on; None for all.
    """

    name: str
    description: str
    budget: str
    n_folds: int | None = None

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Fit on a fold's training rows.

        Returns:
            What predicts rows of the table: it yields their numbers in the table, and their predictions.
        """

    def cost(self, notes: Mapping[str, Any]) -> Cost:
        """Measure what scoring a pair costs; nothing worth a clock where no model is run.

        Args:
            notes: Of the predictions; the method itself may be a new one that predicted nothing.
        """
        return Cost()

    def notes(self) -> dict[str, Any]:
        """Say what else happened, such as failures."""
        return {}


def calibrated(calibration: Calibration | Rounding, values: Array, classes: list[Any]) -> Predictions:
    """Turn values, (rows,), into predictions; a row is ranked by its expected score."""
    scale, probabilities = np.array(classes), calibration.probabilities(values)
    expected = probabilities @ scale
    good = probabilities[:, is_good(scale, classes)].sum(axis=1)
    return Predictions(expected, expected, good, scale[calibration.class_index(values)])


def nearest(expected: Array, scale: NDArray[Any]) -> Predictions:
    """Predict the score of the scale that is nearest to what is expected, (rows,); P(good) is not said."""
    score = scale[np.abs(expected[:, None] - scale).argmin(axis=1)]
    return Predictions(expected, expected, np.full(len(expected), np.nan), score)
