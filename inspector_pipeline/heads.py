"""Heads: from an aspect's features to decision values and a decision, in float32 whatever dtype the backbone has.

A linear probe is one linear map over the aspect's centred features, and a rule of `decisions.py`.

Score tokens are LAGER's head (arXiv 2508.03550): the unembedding's rows of the score tokens, W, applied to every
layer's state, and weights of the layers. At the position before the score, state h_l gives the score tokens' logits
z_l = W h_l. Logits of all layers are summed before the softmax, P = softmax(sum_l w_l z_l), and the expectation under P
is the score. A head that reads the last state alone is the usual reading of an LM judge.

A stacked head is a probe's value, plus what the score tokens expect at every layer, each with a weight. With state h_l
the tokens of the scores s_c expect E_l = sum_c s_c softmax(W h_l)_c. The decision value is
w (x - center) + sum_l v_l E_l + b, where x are the probe's features. The weights v have either sign.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .decisions import RULES, Decision
from .errors import JudgeConfigError

AGGREGATIONS = ("logits", "probabilities")
SCORE_RULES = ("expectation", "argmax")
STACKED_RULES = ("ordinal",)
SUM_TOLERANCE = 1e-4  # how far from 1 the sum of layer weights may lie


class LinearProbe(nn.Module):
    """One aspect's probe: a linear map of its centred features to decision values, and a rule.

    Args:
        n_features: Number of features it reads.
        hidden_size: Size of each.
        n_classes: Number of observed classes, at least 2.
        rule: One of `RULES`.
        members: How many fits a calibrated rule averages.
    """

    def __init__(self, n_features: int, hidden_size: int, n_classes: int, rule: str, members: int = 1) -> None:
        """Make the parameters, zero until loaded."""
        super().__init__()
        self.rule = RULES[rule]
        self.n_classes = n_classes
        n_outputs = members * self.rule.n_values(n_classes)
        self.weight = frozen_parameter(n_outputs, n_features, hidden_size)
        self.bias = frozen_parameter(n_outputs)
        for name, size in self.rule.parameters.items():
            self.register_parameter(name, frozen_parameter(members * size(n_classes)))

    def forward(self, features: Tensor) -> Tensor:
        """Compute decision values.

        Args:
            features: float32 (batch, features, hidden), centred, in the config's order.

        Returns:
            float32 (batch, outputs); how many outputs there are is the rule's.
        """
        with torch.autocast(self.bias.device.type, enabled=False):
            return torch.nn.functional.linear(features.flatten(1), self.weight.flatten(1), self.bias)

    def decide(self, decision_values: Tensor) -> Decision:
        """Turn decision values into classes and probabilities by this probe's rule.

        Args:
            decision_values: float32 (batch, outputs), from `forward`.

        Returns:
            The class indices and the probabilities.
        """
        parameters: dict[str, Any] = {name: self.get_parameter(name) for name in self.rule.parameters}
        if self.rule.takes_members:
            parameters["n_classes"] = self.n_classes
        return self.rule.decide(decision_values, **parameters)


def frozen_parameter(*shape: int) -> nn.Parameter:
    """Make a float32 parameter that is not trained, zero until loaded."""
    return nn.Parameter(torch.zeros(shape, dtype=torch.float32), requires_grad=False)


def probe_key(aspect_name: str) -> str:
    """Name an aspect's probe in the state dict, so that it never collides with a method of ModuleDict."""
    return f"{aspect_name}_probe"


def check_weights(named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse weights of heads from which no honest score can come.

    Between equal thresholds or cuts lies a score that is never given, as the data may want it. Equal levels leave no
    score to choose.

    Raises:
        JudgeConfigError: One is not finite, not ascending where it must be, has equal levels, or no weight of layers.
    """
    for name, weight in named:
        if weight.device.type != "meta" and not weight.isfinite().all():
            raise JudgeConfigError(f"A judge expects finite weights, but {name} has NaN or infinite values.")
        if name.endswith((".thresholds", ".cuts", ".levels")) and (weight.diff() < 0).any():
            raise JudgeConfigError(f"A judge expects ascending {name}, but got {weight.tolist()}.")
        if name.endswith(".levels") and (weight.diff() == 0).any():
            raise JudgeConfigError(f"A judge expects ascending {name}, each once, but got {weight.tolist()}.")
        if name.endswith(".layer_weights") and ((weight < 0).any() or abs(weight.sum() - 1) > SUM_TOLERANCE):
            raise JudgeConfigError(f"A judge expects {name} of 0 or more with the sum 1, but got {weight.tolist()}.")


class ScoreTokens(nn.Module):
    """One aspect's score tokens over several layers.

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


class StackedHead(LinearProbe):
    """One aspect's probe stacked with score tokens.

    Args:
        n_features: Number of features that the probe reads.
        n_states: Number of states that score tokens are read from, one for each layer.
        hidden_size: Size of each.
        n_classes: Number of observed classes, at least 2.
        n_tokens: Number of score tokens.
        rule: One of `STACKED_RULES`.
    """

    def __init__(
        self, n_features: int, n_states: int, hidden_size: int, n_classes: int, n_tokens: int, rule: str
    ) -> None:
        """Make the parameters, zero until loaded."""
        super().__init__(n_features, hidden_size, n_classes, rule)
        self.token_weight = frozen_parameter(n_tokens, hidden_size)  # the unembedding's rows
        self.token_bias = frozen_parameter(n_tokens)
        self.levels = frozen_parameter(n_tokens)  # the score that each token stands for
        self.expectation_weights = frozen_parameter(n_states)

    def forward(self, features: Tensor, states: Tensor) -> Tensor:  # type: ignore[override]  # it reads two things
        """Compute decision values.

        Args:
            features: float32 (batch, features, hidden), centred, in the config's order.
            states: float32 (batch, states, hidden), as they are, in the config's order.

        Returns:
            float32 (batch, 1).
        """
        with torch.autocast(self.bias.device.type, enabled=False):
            expected = self.expectations(states) @ self.expectation_weights
            return super().forward(features) + expected.unsqueeze(1)

    def expectations(self, states: Tensor) -> Tensor:
        """Return the score that the tokens expect at each state: float32 (batch, states, hidden) -> (batch, states)."""
        logits = torch.nn.functional.linear(states, self.token_weight, self.token_bias)
        return logits.softmax(dim=2) @ self.levels
