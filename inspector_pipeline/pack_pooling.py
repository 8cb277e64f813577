"""Masked pooling of a pack's states (`packing.py`): the numbers of `pooling.py`, without padding to skip."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .configuration_inspector import Feature
from .features import normalized
from .packing import to_device
from .template import Span

Range = tuple[int, int]  # half-open


@dataclass(frozen=True)
class Pooled:
    """What tokens that are not in the pack add to one feature of the rows that begin with them.

    Attributes:
        total: float32 (hidden,), the sum over the tokens.
        low: float32 (hidden,), their minimum.
        high: float32 (hidden,), their maximum.
    """

    total: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, states: Tensor, feature: Feature, eps: float, final_norm: nn.Module | None) -> "Pooled":
        """Pool the states (tokens, hidden) of such tokens."""
        values = normalized(states, feature.state, eps, final_norm)
        return cls(values.sum(dim=0), values.amin(dim=0), values.amax(dim=0))


@dataclass(frozen=True)
class PackPooling:
    """Where the tokens of a pack's rows lie.

    Attributes:
        ranges: For each row, its tokens in the pack, in order.
        responses: For each row, those of its response.
        lengths: Tokens of each row, those outside the pack included.
        n_tokens: Tokens of the pack.
    """

    ranges: list[list[Range]]
    responses: list[list[Range]]
    lengths: list[int]
    n_tokens: int
    _made: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, ranges: list[list[Range]], responses: Sequence[Span], lengths: list[int], n_tokens: int
    ) -> "PackPooling":
        """Find each row's response among its tokens.

        Args:
            ranges: For each row, its tokens in the pack.
            responses: For each row, where the response lies in the row.
            lengths: Tokens of each row; those that the ranges do not hold are at its beginning.
            n_tokens: Tokens of the pack.
        """
        found = []
        for own, response, length in zip(ranges, responses, lengths, strict=True):
            at = length - _size(own)
            parts = []
            for start, end in own:
                low, high = max(response.start, at), min(response.end, at + end - start)
                if low < high:
                    parts.append((start + low - at, start + high - at))
                at += end - start
            found.append(parts)
        return cls(ranges, found, lengths, n_tokens)

    def __call__(
        self, states: Tensor, feature: Feature, eps: float, final_norm: nn.Module | None, past: Pooled | None = None
    ) -> Tensor:
        """Pool a pack's states.

        Args:
            states: (tokens, hidden) of the pack, at the feature's layer.
            feature: Which pooling, of which kind of state.
            eps: Epsilon of rms_normed states.
            final_norm: The backbone's final norm, where the feature needs it.
            past: What the tokens outside the pack add.

        Returns:
            float32 (rows, hidden).
        """
        if feature.pooling == "last":
            last = torch.tensor([own[-1][1] - 1 for own in self.ranges], device=states.device)
            return normalized(states[last], feature.state, eps, final_norm)
        if feature.pooling == "response_mean":
            return self._response_weights(states.device) @ normalized(states, feature.state, eps, final_norm)
        if feature.pooling == "mean":
            mean = self._mean_weights(states.device) @ normalized(states, feature.state, eps, final_norm)
            if past is None:
                return mean
            return mean + past.total / torch.tensor(self.lengths, device=states.device).unsqueeze(1)
        values = normalized(states, feature.state, eps, final_norm)
        reduce = torch.amin if feature.pooling == "min" else torch.amax
        outside = [] if past is None else [past.low if feature.pooling == "min" else past.high]
        rows = [[reduce(values[start:end], dim=0) for start, end in own] for own in self.ranges]
        return torch.stack([reduce(torch.stack([*parts, *outside]), dim=0) for parts in rows])

    def _response_weights(self, device: torch.device) -> Tensor:
        return self._weights("response", self.responses, [_size(own) for own in self.responses], device)

    def _mean_weights(self, device: torch.device) -> Tensor:
        return self._weights("mean", self.ranges, self.lengths, device)

    def _weights(self, key: str, ranges: list[list[Range]], counts: list[int], device: torch.device) -> Tensor:
        """Return float32 (rows, tokens), by which states are averaged as one product of matrices; made once."""
        if key not in self._made:
            weights = torch.zeros(len(ranges), self.n_tokens)
            for row, (own, count) in enumerate(zip(ranges, counts, strict=True)):
                for start, end in own:
                    weights[row, start:end] = 1 / count
            self._made[key] = to_device(weights, device)
        return self._made[key]


def _size(ranges: list[Range]) -> int:
    return sum(end - start for start, end in ranges)
