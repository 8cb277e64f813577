"""Score tokens (LAGER), without labels or with layer weights that are tuned on the training rows."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.heads import AGGREGATIONS

from ...probing.table import Array, Labels
from ...score_tokens.logits import LayerLogits
from ...score_tokens.weights import TuningConfig, ten_scores, tune, uniform_weights
from ..cost import Cost
from .base import Fold, Method, Predicted, nearest

DIRECT = {
    "argmax": "direct prompting: the likeliest score token of the last layer (VScore)",
    "expectation": "direct prompting: the expectation of the last layer's score tokens (E-Score)",
}


class LagerMethod(Method):
    """Score tokens, without labels or with layer weights tuned on the training rows."""

    def __init__(
        self,
        variant: str,
        logits: LayerLogits,
        tuning: Mapping[str, TuningConfig],
        passes_cost: Callable[[], Cost] = Cost,
    ) -> None:
        """Take one of the ten scores of the ablation.

        Args:
            variant: `last_<decision>` or `<aggregation>_<weights>_<decision>`, the weights uniform or a key of tuning.
            logits: The score tokens' logits.
            tuning: Name -> how weights are tuned.
            passes_cost: Times the passes, which cost the same for every variant.

        Raises:
            SettingsError: The variant is none of these.
        """
        *how, self.decision = variant.split("_")
        self.aggregation, self.weights = (how[0], how[1]) if len(how) == 2 else ("logits", "last")
        known = self.aggregation in AGGREGATIONS and (self.weights in ("uniform", *tuning) or how == ["last"])
        if not known or self.decision not in ("expectation", "argmax"):
            raise SettingsError(
                f"A variant of score tokens expects last_<decision> or <logits or probabilities>_<uniform, "
                f"{' or '.join(tuning)}>_<decision>, with the decision expectation or argmax, but got {variant!r}."
            )
        self.name, self.logits, self.passes_cost = f"lager_{variant}", logits, passes_cost
        self.tuning, self.tuned = tuning.get(self.weights), list[list[float]]()
        all_layers = f"LAGER: {self.decision} of the {self.aggregation} of all layers, {self.weights} weights"
        self.description = DIRECT[self.decision] if self.weights == "last" else all_layers
        self.budget = "no labels"
        if self.tuning:
            convex = self.tuning.method == "convex"
            self.budget = f"layer weights, {'one convex fit' if convex else f'{self.tuning.epochs} epochs of Adam'}"

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Tune the weights of each scale on the training rows."""
        return partial(self._predict, {name: own for names, own in self._weights(fold.train) for name in names})

    def _weights(self, train: Labels) -> list[tuple[list[str], Array]]:
        found = []
        for names in self.logits.by_scale():
            own = [train.row[self._is_of(train, name) & ~train.auxiliary] for name in names]
            weights = uniform_weights(self.logits.values[names[0]].shape[1])
            if self.tuning and any(map(len, own)):
                logits = np.concatenate([self.logits.of(name, rows) for name, rows in zip(names, own, strict=True)])
                scores = self.logits.labels.score[np.concatenate(own)].astype(float)
                scale = np.array(self.logits.scales[names[0]], dtype=float)
                weights = tune(logits, scores, scale, self.aggregation, self.tuning)
                self.tuned.append(weights.round(4).tolist())
            found.append((names, weights))
        return found

    def _predict(self, weights: Mapping[str, Array], rows: Labels) -> Predicted:
        """Score rows; an argmax ranks by itself, as it is all that such a judge says."""
        key = "last" if self.weights == "last" else f"{self.aggregation}_tuned"
        for name, own in weights.items():
            asked, scale = rows.row[self._is_of(rows, name)], np.array(self.logits.scales[name])
            scores = ten_scores(self.logits.of(name, asked), dict.fromkeys(AGGREGATIONS, own), scale.astype(float))
            yield asked, nearest(scores[f"{key}_{self.decision}"], scale)

    def _is_of(self, labels: Labels, name: str) -> NDArray[np.bool_]:
        return np.asarray(labels.aspect == self.logits.labels.names.index(name))

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """What the passes cost, the same for every variant."""
        return self.passes_cost()

    def notes(self) -> dict[str, Any]:
        """The weights, for each fold and scale."""
        return {"layer_weights": self.tuned} if self.tuned else {}
