"""Weights of LAGER's layers, and the scores of its ablation.

The published loss (a cross-entropy plus an error of the expectation) is not convex where logits are summed. The
cross-entropy alone is, in the weights themselves: it is a log-sum-exp of linear functions for summed logits, and minus
the logarithm of one for summed probabilities. So over all weights of 0 or more with the sum 1 it has one minimum, which
the `convex` method finds without a learning rate, a batch size or a number of epochs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.heads import AGGREGATIONS, aggregate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TuningConfig:
    """How layer weights are tuned.

    Attributes:
        method: adam, the published one; or convex, the minimum of the cross-entropy alone.
        error: Of the expectation, beside the cross-entropy: mae as in the paper, or mse as in its code (adam only).
        cross_entropy: Share of the cross-entropy in the loss, 0 to 1 (adam only).
        learning_rate: Of Adam.
        batch_size: Of Adam.
        epochs: Of Adam.
        seed: Of the order of rows (adam only).
    """

    method: Literal["adam", "convex"] = "adam"
    error: Literal["mae", "mse"] = "mae"
    cross_entropy: float = 0.5
    learning_rate: float = 0.01
    batch_size: int = 4
    epochs: int = 2
    seed: int = 731

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            SettingsError: One is.
        """
        if not 0 <= self.cross_entropy <= 1:
            raise SettingsError(f"cross_entropy expects a share from 0 to 1, but got {self.cross_entropy}.")
        if min(self.batch_size, self.epochs) < 1 or self.learning_rate <= 0:
            raise SettingsError("batch_size and epochs expect 1 or more, and learning_rate more than 0.")


def uniform_weights(n_layers: int) -> Array:
    """Weigh all layers alike, as the untuned method does: 1 / n_layers each."""
    return np.full(n_layers, 1.0 / n_layers)


def tune(layer_logits: Array, labels: Array, levels: Array, aggregation: str, config: TuningConfig) -> Array:
    """Tune layer weights on labelled rows.

    Args:
        layer_logits: (rows, layers, classes).
        labels: (rows,) within the levels; a label between two, such as a mean of several raters, counts for both.
        levels: (classes,), ascending.
        aggregation: `logits` or `probabilities`.
        config: Settings.

    Returns:
        (layers,), 0 or more, with the sum 1. With rows of number 0, uniform weights.

    Raises:
        DataFileError: A label lies outside the levels.
    """
    if len(labels) == 0:
        return uniform_weights(layer_logits.shape[1])
    if labels.min() < levels[0] or labels.max() > levels[-1]:
        raise DataFileError(
            f"Tuning expects labels from {levels[0]:g} to {levels[-1]:g}, but got {labels.min():g} to "
            f"{labels.max():g}. Give the scale that the labels have."
        )
    logits, labelled, scale = (torch.tensor(values, dtype=torch.float64) for values in (layer_logits, labels, levels))
    rows = _Rows(logits, labelled, scale, aggregation)
    weights = _by_adam(rows, config) if config.method == "adam" else _by_convex(rows)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


class _Rows:
    """Labelled rows, and losses of weights on them."""

    def __init__(self, layer_logits: Tensor, labels: Tensor, levels: Tensor, aggregation: str) -> None:
        self.layer_logits = layer_logits
        self.labels = labels
        self.levels = levels
        self.aggregation = aggregation
        upper = torch.searchsorted(levels[1:-1].contiguous(), labels, right=True) + 1
        share = (labels - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
        self.target = torch.zeros(len(labels), len(levels), dtype=labels.dtype)
        at = torch.stack([upper - 1, upper], dim=1)
        self.target.scatter_(1, at, torch.stack([1 - share, share], dim=1))

    def loss(self, weights: Tensor, rows: Any, cross_entropy: float, error: str) -> Tensor:
        """Compute the mean loss of some rows."""
        values = aggregate(self.layer_logits[rows], weights, self.aggregation)
        log_p = values.log_softmax(dim=1)
        entropy = -(self.target[rows] * log_p).sum(dim=1).mean()
        distance = log_p.exp() @ self.levels - self.labels[rows]
        off = distance.abs().mean() if error == "mae" else (distance**2).mean()
        return cross_entropy * entropy + (1 - cross_entropy) * off


def _by_adam(rows: _Rows, config: TuningConfig) -> Array:
    """Follow the published recipe: Adam on the softmax-normalised weights, from uniform ones."""
    free = torch.zeros(rows.layer_logits.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for batch in torch.split(torch.randperm(len(rows.labels), generator=generator), config.batch_size):
            optimizer.zero_grad()
            loss = rows.loss(free.softmax(dim=0), batch, config.cross_entropy, config.error)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return free.detach().softmax(dim=0).numpy()


def _by_convex(rows: _Rows) -> Array:
    """Minimise the cross-entropy of all rows over the simplex."""
    n_layers = rows.layer_logits.shape[1]

    def objective(weights: Array) -> tuple[float, Array]:
        free = torch.tensor(np.maximum(weights, 1e-12), requires_grad=True)
        loss = rows.loss(free, slice(None), 1.0, "mae")
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = free.grad
        return loss.item(), np.zeros(n_layers) if gradient is None else gradient.numpy()

    found = minimize(
        objective,
        uniform_weights(n_layers),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * n_layers,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones_like(w)},
        options={"maxiter": 500, "ftol": 1e-9},
    )
    return np.clip(np.asarray(found.x, dtype=np.float64), 0.0, None)


def ten_scores(layer_logits: Array, tuned: Mapping[str, Array], levels: Array) -> dict[str, Array]:
    """Compute the ten scores of the published ablation.

    Args:
        layer_logits: (rows, layers, classes), the last of the layers being the model's own output.
        tuned: Aggregation -> (layers,) tuned weights.
        levels: (classes,), ascending.

    Returns:
        Name -> (rows,). The names are `<aggregation>_<tuned or uniform>_<expectation or argmax>`,
        `last_expectation` (the paper's E-Score) and `last_argmax` (its VScore).
    """
    logits, scale = torch.tensor(layer_logits, dtype=torch.float64), torch.tensor(levels, dtype=torch.float64)
    uniform = uniform_weights(logits.shape[1])
    values = {
        f"{aggregation}_{name}": aggregate(logits, torch.tensor(weights), aggregation)
        for aggregation in AGGREGATIONS
        for name, weights in (("tuned", tuned[aggregation]), ("uniform", uniform))
    }
    values["last"] = logits[:, -1]
    found = {}
    for name, value in values.items():
        probabilities = value.softmax(dim=1)
        found[f"{name}_expectation"] = (probabilities @ scale).numpy()
        found[f"{name}_argmax"] = scale[probabilities.argmax(dim=1)].numpy()
    return found
