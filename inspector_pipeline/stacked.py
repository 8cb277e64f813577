"""A probe stacked with score tokens: its value, plus what the score tokens expect at every layer, each with a weight.

With state h_l at the position before the score, the tokens of the scores s_c expect E_l = sum_c s_c softmax(W h_l)_c.
The decision value is w (x - center) + sum_l v_l E_l + b, where x are the probe's features. Weights have either sign.
"""

import torch
from torch import Tensor

from .probes import LinearProbe, frozen_parameter

STACKED_RULES = ("ordinal",)


class StackedHead(LinearProbe):
    """One aspect's probe and score tokens, in float32.

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
