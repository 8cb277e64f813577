"""Probes and score tokens, stacked inside each fold."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.special import softmax

from ...probing.table import Labels, TooFewLabelsError, with_both_kinds
from ...score_tokens.logits import LayerLogits
from ...score_tokens.stack import PENALTIES, Combination, refuse_missing_tokens
from ..cost import Cost
from .base import Fold, Method, Predicted, calibrated, nearest
from .probes import ProbesMethod


class CombinedMethod(Method):
    """Probes and score tokens, stacked inside each fold.

    Attributes:
        shares: How much of the stack's weight is the probes', fold by fold.
    """

    description = "a ridge regression on a probe's value and the expectation of each layer's score tokens"

    def __init__(
        self, name: str, probes: ProbesMethod, logits: LayerLogits, passes_cost: Callable[[], Cost] = Cost
    ) -> None:
        """Take probes and score tokens of the same rows.

        Args:
            name: Its name in the table.
            probes: The probes, not searched yet.
            logits: The score tokens' logits, of every aspect of the labels.
            passes_cost: Times the score tokens' passes.

        Raises:
            DataFileError: The score tokens lack an aspect.
        """
        refuse_missing_tokens(name, logits)
        self.name, self.probes, self.logits, self.passes_cost = name, probes, logits, passes_cost
        self.budget = f"{probes.budget}; {len(PENALTIES)} penalties of the stack"
        self.shares: list[float] = []

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Fit on a fold's training rows.

        As in the judge that the combine stage makes, an aspect without good and other labels is predicted by its score
        tokens alone, and so are all where the labels are too few for probes.
        """
        train = fold.train.take(np.flatnonzero(np.isin(fold.train.aspect, with_both_kinds(fold.train))))
        try:
            fitted = Combination.fit(self.probes.design, self.logits, train, self.probes.search)
        except TooFewLabelsError:
            return self._untuned
        self.probes.choices.append(fitted.judge.choice)
        self.shares.append(round(fitted.stack.probe_share, 3))
        return partial(self._stacked, fitted)

    def _stacked(self, fitted: Combination, rows: Labels) -> Predicted:
        probed = np.isin(rows.aspect, list(fitted.calibrations))
        yield from self._untuned(rows.take(np.flatnonzero(~probed)))
        asked = rows.take(np.flatnonzero(probed))
        values = fitted.values(self.logits, asked)
        for a in np.unique(asked.aspect):
            own = asked.aspect == a
            yield asked.row[own], calibrated(fitted.calibrations[a], values[own], asked.classes[a])

    def _untuned(self, rows: Labels) -> Predicted:
        """Predict by LAGER with uniform weights."""
        for a in np.unique(rows.aspect):
            own, scale = rows.row[rows.aspect == a], np.array(self.logits.scales[rows.names[a]])
            shares = softmax(self.logits.of(rows.names[a], own).mean(axis=1), axis=1)
            yield own, nearest(shares @ scale.astype(float), scale)

    def cost(self, notes: Mapping[str, Any]) -> Cost:
        """Both the probes' passes and the score tokens'; the latter alone where there were no probes."""
        tokens = self.passes_cost()
        if "deepest_reads" not in notes:
            return tokens
        probes = self.probes.cost(notes)
        seconds = (probes.seconds_per_pair or 0.0) + (tokens.seconds_per_pair or 0.0)
        flops, parameters = probes.flops_per_pair + tokens.flops_per_pair, max(probes.parameters, tokens.parameters)
        return Cost(seconds, flops, parameters)

    def notes(self) -> dict[str, Any]:
        """What the probes chose, and how much of the stack's weight is theirs, by fold."""
        return {**self.probes.notes(), "probe_share": self.shares}
