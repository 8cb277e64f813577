"""LAGER's head: the unembedding's rows of the score tokens, applied to every layer's state, and weights of the layers.

At the position before the score, state h_l gives the score tokens' logits z_l = W h_l. Logits of all layers are summed
before the softmax, P = softmax(sum_l w_l z_l), and the expectation under P is the score (arXiv 2508.03550). A head that
reads the last state alone is the usual reading of an LM judge.
"""

import torch
from torch import Tensor, nn

from .decisions import Decision
from .probes import frozen_parameter

AGGREGATIONS = ("logits", "probabilities")
SCORE_RULES = ("expectation", "argmax")


class ScoreTokens(nn.Module):
    """One aspect's score tokens over several layers, in float32.

    Args:
        n_features: Number of states that it reads, one for each layer.
        hidden_size: Size of each.
        n_classes: Number of scores, each with a token of its own.
        rule: How probabilities become a score: `expectation`, the class nearest to it, or `argmax`, the likeliest.
        aggregation: What is weighted and summed over layers: `logits` or `probabilities`.
    """

    def __init__(self, n_features: int, hidden_size: int, n_classes: int, rule: str, aggregation: str) -> None:
        """Make the parameters, zero until loaded."""
        super().__init__()
        self.rule = rule
        self.aggregation = aggregation
        self.weight = frozen_parameter(n_classes, hidden_size)  # the unembedding's rows
        self.bias = frozen_parameter(n_classes)  # zero for nearly every backbone
        self.layer_weights = frozen_parameter(n_features)
        self.levels = frozen_parameter(n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Compute decision values, whose softmax are the probabilities.

        Args:
            features: float32 (batch, features, hidden), the states as they are, in the config's order.

        Returns:
            float32 (batch, classes).
        """
        return aggregate(self.layer_logits(features), self.layer_weights, self.aggregation)

    def layer_logits(self, features: Tensor) -> Tensor:
        """Apply the unembedding to every state.

        Args:
            features: float32 (batch, features, hidden).

        Returns:
            float32 (batch, features, classes).
        """
        with torch.autocast(features.device.type, enabled=False):
            return nn.functional.linear(features, self.weight, self.bias)

    def decide(self, decision_values: Tensor) -> Decision:
        """Turn decision values into classes and probabilities.

        Args:
            decision_values: float32 (batch, classes), from `forward`.

        Returns:
            The class indices, by this head's rule, and the probabilities.
        """
        probabilities = decision_values.softmax(dim=1)
        if self.rule == "argmax":
            return Decision(probabilities.argmax(dim=1), probabilities)
        return Decision(nearest_level(probabilities @ self.levels, self.levels), probabilities)


def aggregate(layer_logits: Tensor, layer_weights: Tensor, aggregation: str) -> Tensor:
    """Sum over layers.

    Args:
        layer_logits: (batch, layers, classes).
        layer_weights: (layers,), not negative, with the sum 1.
        aggregation: `logits` sums those; `probabilities` sums each layer's softmax.

    Returns:
        (batch, classes) whose softmax are the probabilities: summed logits, or the logarithms of summed probabilities.
    """
    if aggregation == "logits":
        return torch.einsum("l,blc->bc", layer_weights, layer_logits)
    return torch.logsumexp(layer_logits.log_softmax(dim=2) + layer_weights.log()[:, None], dim=1)


def nearest_level(expected: Tensor, levels: Tensor) -> Tensor:
    """Return the position of the level nearest to each value; halfway, of the higher one.

    Args:
        expected: (batch,).
        levels: (classes,), ascending.
    """
    return torch.searchsorted((levels[1:] + levels[:-1]) / 2, expected.contiguous(), right=True)
