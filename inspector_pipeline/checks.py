"""What a probe reads of a response's text by rule, beside hidden states: a small frozen model cannot reckon.

A check is a feature like any other, a vector of the hidden states' size: ones where it finds something, else zeros. So
it is centred, weighed by a probe and explained as they are, and what it weighs comes from the same fit.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .encoded import WRONG_SUMS, Finder, Span
from .sums import wrong_sums


def _wrong_sums(response: str) -> list[Span]:
    return [Span(one.start, one.end) for one in wrong_sums(response)]


FINDERS: Mapping[str, Finder] = {WRONG_SUMS: _wrong_sums}  # of each of `encoded.CHECKS`


def check_vectors(found: Sequence[bool] | Tensor, hidden_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return a check as a feature.

    Args:
        found: (responses,), whether the check found something.
        hidden_size: Size of the hidden states that it stands beside.
        device: Where it is wanted.

    Returns:
        float32 (responses, hidden_size) of ones and zeros.
    """
    values = found if isinstance(found, Tensor) else torch.tensor(found)
    return (values != 0).float().to(device).unsqueeze(1).expand(-1, hidden_size)
