"""Attention over segments of different lengths in one kernel, without padding, on GPUs that have it.

PyTorch's own kernel (FlashAttention) for float16 and bfloat16. It runs without splitting keys, so a segment's result
does not depend on what else is in a pass. Where it is missing or refuses, `varlen_allowed` turns false for the rest of
the process.
"""

import importlib
import logging
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

LARGEST_HEAD = 256
CAUSAL = (-1, 0)  # a window without end to the left and none to the right; the last query sees the last key

_allowed, _used = True, False


class Lengths(NamedTuple):
    """Where segments' queries and keys lie.

    Attributes:
        keys: int64 (keys,), for each segment the places of what it sees, its own tokens last.
        query_ends: int32 (segments + 1,), from 0.
        key_ends: int32 (segments + 1,), from 0.
        longest: The most queries and the most keys of a segment.
    """

    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    longest: tuple[int, int]

    @classmethod
    def of(cls, spans: Sequence[Sequence[tuple[int, int]]], device: torch.device) -> "Lengths":
        """Describe segments.

        Args:
            spans: For each segment, the ranges of tokens that it sees, its own last; its own follow one another.
            device: Where attention runs.
        """
        queries = [span[-1][1] - span[-1][0] for span in spans]
        keys = [sum(end - start for start, end in span) for span in spans]
        places = torch.tensor(list(chain.from_iterable(range(a, b) for span in spans for a, b in span)))
        return cls(places.to(device), _ends(queries, device), _ends(keys, device), (max(queries), max(keys)))


def _ends(lengths: Iterable[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device)


def stop_varlen(reason: str) -> bool:
    """Use the kernel no more in this process, and say whether it was ever used."""
    global _allowed, _used
    logger.debug("Attention of variable lengths is not used here: %s", reason)
    was_used, _allowed, _used = _used, False, False
    return was_used


def varlen_allowed(query: Tensor, value: Tensor) -> bool:
    """Whether the kernel may be tried.

    Args:
        query: (1, heads, tokens, size).
        value: (1, key heads, tokens, size).
    """
    fits = query.shape[3] == value.shape[3] <= LARGEST_HEAD and query.shape[3] % 8 == 0
    return _allowed and fits and query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16)


def varlen_attend(query: Tensor, key: Tensor, value: Tensor, lengths: Lengths, scaling: float | None) -> Tensor | None:
    """Let every segment see its keys, causally.

    Args:
        query: (1, heads, tokens, size), the segments' one after the other.
        key: (1, key heads, all tokens, size), what is cached before those of the pass.
        value: (1, key heads, all tokens, size).
        lengths: Where they lie.
        scaling: Factor of the products; None is 1 / sqrt(size).

    Returns:
        (1, tokens, heads, size); None where the kernel is missing or refuses.
    """
    global _used
    try:
        kernel: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
        queries = query[0].transpose(0, 1).contiguous()
        keys, values = (states[0].transpose(0, 1)[lengths.keys] for states in (key, value))
        ends = lengths.query_ends, lengths.key_ends, *lengths.longest
        has_groups = query.shape[1] != key.shape[1]
        options = {"scale": scaling, "window_size": CAUSAL, "enable_gqa": has_groups, "num_splits": 1}
        output: Tensor = kernel(queries, keys, values, *ends, **options)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        stop_varlen(str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    _used = True
    return output.unsqueeze(0)
