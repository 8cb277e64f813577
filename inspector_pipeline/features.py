"""Features: one vector read from one pass, pooled over its tokens in a padded batch or in a pack (`packing.py`).

Both forms of pooling give the same numbers. Padding may lie on either side of a batch's rows. Nothing here ever looks
at a padded position, so a pooled vector does not depend on the batch that a pair happened to be in.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .devices import to_device
from .encoded import CHECKS
from .errors import BackboneError

POOLINGS = ("mean", "last", "response_mean", "min", "max")
STATE_KINDS = ("raw", "rms_normed", "final_norm")
Range = tuple[int, int]  # half-open

_EXTREMES = {"min": (torch.amin, float("inf")), "max": (torch.amax, float("-inf"))}


@dataclass(frozen=True)
class Feature:
    """One vector read from one pass, or what a check finds in the response's text.

    Attributes:
        reading: Name of the reading whose pass it is read from.
        layer: Which state, in Hugging Face's numbering: 0 = embeddings, i = after i decoder layers; 0 of a check.
        pooling: One of mean, last, response_mean, min, max; or a check, one of `encoded.CHECKS`.
        state: raw, rms_normed (unit root mean square, no weight) or final_norm (the backbone's own last norm); raw of a
            check.
    """

    reading: str
    layer: int
    pooling: str
    state: str = "raw"

    @property
    def is_check(self) -> bool:
        """Whether no state is read for it."""
        return self.pooling in CHECKS


def pool(states: Tensor, attention_mask: Tensor, pooling: str, response_mask: Tensor | None = None) -> Tensor:
    """Reduce the token axis of hidden states to one vector per row.

    Args:
        states: (batch, tokens, hidden), any floating dtype.
        attention_mask: (batch, tokens), non-zero on real tokens; padding left or right.
        pooling: One of `POOLINGS`. `last` is the last real token; `response_mean` averages over the response only.
        response_mask: (batch, tokens), non-zero on the response's tokens; needed by `response_mean` alone.

    Returns:
        float32 (batch, hidden). A row without any token to pool is NaN (mean) or infinite (min, max), never a number
        that looks valid.

    Raises:
        ValueError: The pooling is unknown, or `response_mean` came without its mask.

    Example:
        >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]), "mean")
        tensor([[2.]])
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pool expects one of {', '.join(POOLINGS)}, but got {pooling!r}.")
    if pooling == "last":
        return last_token(states, attention_mask).float()
    mask = response_mask if pooling == "response_mean" else attention_mask
    if mask is None:
        raise ValueError("pool expects a response_mask for 'response_mean', but got None. Pass the response's mask.")
    real = mask.to(states.device).bool()
    padding = ~real.unsqueeze(-1)
    if pooling in _EXTREMES:
        reduce, filling = _EXTREMES[pooling]
        return reduce(states.float().masked_fill(padding, filling), dim=1)
    return states.float().masked_fill(padding, 0.0).sum(dim=1) / real.float().sum(dim=1, keepdim=True)


def last_token(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Pick each row's last real token, found by the mask and never by the pad id.

    Args:
        states: (batch, tokens, hidden).
        attention_mask: (batch, tokens), non-zero on real tokens.

    Returns:
        (batch, hidden), in the dtype of `states`.
    """
    positions = torch.arange(states.shape[1], device=states.device)
    last = (attention_mask.to(states.device).bool() * positions).argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), last]


def rms_normalize(states: Tensor, eps: float) -> Tensor:
    """Scale every vector to unit root mean square, without a learnt weight (Zhang and Sennrich, arXiv 1910.07467).

    Args:
        states: (..., hidden), any floating dtype.
        eps: Added to the mean square, as the backbone's own norms do.

    Returns:
        float32, the shape of `states`.
    """
    states = states.float()
    return states * torch.rsqrt(states.square().mean(dim=-1, keepdim=True) + eps)


def normalized(states: Tensor, kind: str, eps: float, final_norm: nn.Module | None) -> Tensor:
    """Bring states (..., hidden) to the kind that a feature reads, token by token, in float32.

    Raises:
        BackboneError: The final norm is needed, but missing.
    """
    if kind == "rms_normed":
        return rms_normalize(states, eps)
    if kind == "final_norm":
        if final_norm is None:
            raise BackboneError(
                "A final_norm feature needs the backbone's final norm, but this backbone came without it."
            )
        states = final_norm(states)
    return states.float()


def read_features(
    backbone: PreTrainedModel,
    final_norm: nn.Module | None,
    features: Iterable[Feature],
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor | None,
    rms_norm_eps: float,
) -> dict[Feature, Tensor]:
    """Run one pass and pool the states that the features ask for; no other state is kept.

    Args:
        backbone: A decoder without its final norm (`take_final_norm`).
        final_norm: That norm, where a feature needs it.
        features: What to read; all of one reading.
        input_ids: int64 (batch, tokens).
        attention_mask: (batch, tokens), non-zero on real tokens; padding left or right.
        response_mask: (batch, tokens), non-zero on the response's tokens; None where no feature needs it.
        rms_norm_eps: Epsilon of rms_normed states.

    Returns:
        float32 (batch, hidden) for each feature.
    """
    features = list(dict.fromkeys(features))
    states = read_states(backbone, {feature.layer for feature in features}, input_ids, attention_mask)
    return pool_states(states, final_norm, features, attention_mask, response_mask, rms_norm_eps)


def read_states(
    backbone: PreTrainedModel, layers: Iterable[int], input_ids: Tensor, attention_mask: Tensor
) -> Sequence[Tensor]:
    """Run one pass of padded rows; of the states, (batch, tokens, hidden) a layer, only those asked for are there."""
    attention_mask = attention_mask.bool().long()
    layers = sorted(layers)
    accepts = inspect.signature(backbone.forward).parameters
    kwargs: dict[str, Any] = {"attention_mask": attention_mask, "output_hidden_states": layers}
    if "position_ids" in accepts:
        kwargs["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
    if "use_cache" in accepts:
        kwargs["use_cache"] = False
    states: Sequence[Tensor] = backbone(input_ids, **kwargs).hidden_states
    if len(states) != backbone.config.num_hidden_layers + 1:
        raise BackboneError(
            f"A backbone expects the embeddings and a state per layer, {backbone.config.num_hidden_layers + 1} states, "
            f"but {type(backbone).__name__} gives {len(states)}, whose numbering is unknown."
        )
    return states


def pool_states(
    states: Sequence[Tensor],
    final_norm: nn.Module | None,
    features: Iterable[Feature],
    attention_mask: Tensor,
    response_mask: Tensor | None,
    rms_norm_eps: float,
) -> dict[Feature, Tensor]:
    """Pool the states of a padded pass; see `read_features`."""
    attention_mask = attention_mask.bool().long()
    pooled: dict[Feature, Tensor] = {}
    for feature in features:
        state = states[feature.layer]
        if feature.pooling == "last":  # picked first, which gives the same and costs less
            state = last_token(state, attention_mask)
            pooled[feature] = normalized(state, feature.state, rms_norm_eps, final_norm)
        else:
            state = normalized(state, feature.state, rms_norm_eps, final_norm)
            pooled[feature] = pool(state, attention_mask, feature.pooling, response_mask)
    return pooled


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
    _weights_of: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, ranges: list[list[Range]], responses: Sequence[Range], lengths: list[int], n_tokens: int
    ) -> "PackPooling":
        """Find each row's response among its tokens.

        Args:
            ranges: For each row, its tokens in the pack.
            responses: For each row, where the response lies in the row.
            lengths: Tokens of each row; those that the ranges do not hold are at its beginning.
            n_tokens: Tokens of the pack.
        """
        found = []
        for own, (first, last), length in zip(ranges, responses, lengths, strict=True):
            at = length - _size(own)
            parts = []
            for start, end in own:
                low, high = max(first, at), min(last, at + end - start)
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
            states = states[torch.tensor([own[-1][1] - 1 for own in self.ranges], device=states.device)]
        values = normalized(states, feature.state, eps, final_norm)
        if feature.pooling == "last":
            return values
        if feature.pooling in _EXTREMES:
            reduce, _ = _EXTREMES[feature.pooling]
            outside = [] if past is None else [past.low if feature.pooling == "min" else past.high]
            rows = [[reduce(values[start:end], dim=0) for start, end in own] for own in self.ranges]
            return torch.stack([reduce(torch.stack([*parts, *outside]), dim=0) for parts in rows])
        mean = self._weights(feature.pooling, states.device) @ values
        if feature.pooling == "mean" and past is not None:
            mean = mean + past.total / torch.tensor(self.lengths, device=states.device).unsqueeze(1)
        return mean

    def _weights(self, pooling: str, device: torch.device) -> Tensor:
        """Return float32 (rows, tokens), by which states are averaged as one product of matrices; made once."""
        if pooling not in self._weights_of:
            ranges, counts = self.ranges, self.lengths
            if pooling == "response_mean":
                ranges, counts = self.responses, [_size(own) for own in self.responses]
            weights = torch.zeros(len(ranges), self.n_tokens)
            for row, (own, count) in enumerate(zip(ranges, counts, strict=True)):
                for start, end in own:
                    weights[row, start:end] = 1 / count
            self._weights_of[pooling] = to_device(weights, device)
        return self._weights_of[pooling]


class TokenShares:
    """What every token of some rows adds to linear maps of their pooled features.

    A mean over n tokens is a sum, and so is a linear map of it: W (mean - c) is the sum of W (x - c) / n over the
    tokens' states x. Of the last token's state all is that token's. Minima and maxima have no such shares.

    Args:
        weights: Feature -> float32 (outputs, hidden), W.
        centers: Feature -> float32 (hidden,), c.

    Attributes:
        of_tokens: Row -> reading -> float32 (tokens, outputs), summed over features.
        of_features: Row -> feature -> float32 (outputs,), summed over tokens.
    """

    def __init__(self, weights: Mapping[Feature, Tensor], centers: Mapping[Feature, Tensor]) -> None:
        """Hold nothing yet."""
        self.weights = weights
        self.centers = centers
        self.of_tokens: dict[int, dict[str, Tensor]] = {}
        self.of_features: dict[int, dict[Feature, Tensor]] = {}

    def project(self, states: Tensor, feature: Feature, eps: float, final_norm: nn.Module | None) -> Tensor:
        """Map states (..., hidden) at the feature's layer as if each were the pooled one: float32 (..., outputs)."""
        values = normalized(states, feature.state, eps, final_norm)
        with torch.autocast(values.device.type, enabled=False):
            return (values - self.centers[feature].to(values.device)) @ self.weights[feature].to(values.device).T

    def add(self, row: int, feature: Feature, projected: Tensor, response: Range) -> None:
        """Add what a feature's tokens bring.

        Args:
            row: Of which row.
            feature: Of which feature, whose pooling is mean, response_mean or last.
            projected: float32 (tokens, outputs), all of the row's, from `project`.
            response: Where its response lies.
        """
        first, last = {"mean": (0, len(projected)), "response_mean": response}.get(
            feature.pooling, (len(projected) - 1, len(projected))
        )
        shares = torch.zeros_like(projected)
        shares[first:last] = projected[first:last] / (last - first)
        own = self.of_tokens.setdefault(row, {})
        before = own.get(feature.reading)
        own[feature.reading] = shares if before is None else before + shares.to(before.device)
        self.of_features.setdefault(row, {})[feature] = shares.sum(dim=0)


def _size(ranges: list[Range]) -> int:
    return sum(end - start for start, end in ranges)
