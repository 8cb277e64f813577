"""How encoded pairs form batches: by a token budget, longest first, inside fixed windows of input rows.

Windows make a job repeatable: in bfloat16 a score depends a little on its batch, so every run, resume and shard that
starts at a window's border forms the same batches and gives the same output.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from .reading import EncodedPair

WINDOW_ROWS = 256
TOKEN_BUDGET = 3072  # tokens of one batch, padding included, on a CPU; 4096 is no faster and takes .4 GB more
ACCELERATOR_TOKEN_BUDGET = 16384

T = TypeVar("T")


def token_budget(device: torch.device) -> int:
    """Return how many tokens one pass takes: enough to keep a device busy, few enough for its memory."""
    return TOKEN_BUDGET if device.type == "cpu" else ACCELERATOR_TOKEN_BUDGET


def windows(items: Iterable[T], rows: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `rows` items, the last one shorter."""
    iterator = iter(items)
    while window := list(islice(iterator, rows)):
        yield window


def plan_batches(
    lengths: Sequence[int], batch_size: int | None = None, token_budget: int = TOKEN_BUDGET
) -> list[list[int]]:
    """Group rows of like length.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch; None fills each batch up to the token budget.
        token_budget: Upper bound on rows x longest row; a single longer row is a batch of its own.

    Returns:
        Batches of row positions, longest rows first, every row once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        full = not batches or (
            len(batches[-1]) >= batch_size
            if batch_size is not None
            else (len(batches[-1]) + 1) * lengths[batches[-1][0]] > token_budget
        )
        if full:
            batches.append([])
        batches[-1].append(i)
    return batches


def collate(pairs: Sequence[EncodedPair], pad_id: int, padding_side: str = "right") -> dict[str, Tensor]:
    """Pad encoded pairs to one length.

    Args:
        pairs: Pairs under one reading.
        pad_id: Any valid token id; padded positions are masked.
        padding_side: `right` or `left`.

    Returns:
        int64 (batch, tokens) tensors `input_ids`, `attention_mask` and `response_mask`.
    """
    width = max(len(pair.input_ids) for pair in pairs)
    shape = (len(pairs), width)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    response_mask = torch.zeros(shape, dtype=torch.long)
    for row, pair in enumerate(pairs):
        n = len(pair.input_ids)
        start = width - n if padding_side == "left" else 0
        input_ids[row, start : start + n] = torch.tensor(pair.input_ids)
        attention_mask[row, start : start + n] = 1
        response_mask[row, start + pair.response.start : start + pair.response.end] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "response_mask": response_mask}
