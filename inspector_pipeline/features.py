"""Masked pooling of hidden states: pure functions from tensors to tensors.

Padding may lie on either side. Nothing here ever looks at a padded position, so a pooled vector does not depend on
the batch that a pair happened to be in.
"""

import torch
from torch import Tensor, nn

from .errors import BackboneError

POOLINGS = ("mean", "last", "response_mean", "min", "max")


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
    if pooling == "last":
        return last_token(states, attention_mask).float()
    if pooling == "mean":
        return _masked_mean(states, attention_mask)
    if pooling == "response_mean":
        if response_mask is None:
            raise ValueError(
                "pool expects a response_mask for 'response_mean', but got None. Pass the response's mask."
            )
        return _masked_mean(states, response_mask)
    if pooling in ("min", "max"):
        padding = ~attention_mask.to(states.device).bool().unsqueeze(-1)
        if pooling == "min":
            return states.float().masked_fill(padding, float("inf")).amin(dim=1)
        return states.float().masked_fill(padding, float("-inf")).amax(dim=1)
    raise ValueError(f"pool expects one of {', '.join(POOLINGS)}, but got {pooling!r}.")


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


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(states.device).bool().float()
    kept = states.float().masked_fill(~weights.bool().unsqueeze(-1), 0.0)
    return kept.sum(dim=1) / weights.sum(dim=1, keepdim=True)
