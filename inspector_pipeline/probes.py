"""Probes: one linear map over an aspect's centred features, in float32, and a decision rule."""

import torch
from torch import Tensor, nn

from .decisions import RULES, Decision


class LinearProbe(nn.Module):
    """One aspect's probe: a linear map of its centred features to decision values, and a rule.

    Everything is float32 whatever dtype the backbone has.

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
        parameters = {name: self.get_parameter(name) for name in self.rule.parameters}
        if self.rule.takes_members:
            return self.rule.decide(decision_values, **parameters, n_classes=self.n_classes)
        return self.rule.decide(decision_values, **parameters)


def frozen_parameter(*shape: int) -> nn.Parameter:
    """Make a float32 parameter that is not trained, zero until loaded."""
    return nn.Parameter(torch.zeros(shape, dtype=torch.float32), requires_grad=False)
