"""Which rows go together: windows of a stream, and padded batches of rows of like length.

Passes form inside fixed windows of input rows. Windows make a job repeatable: in bfloat16 a score depends a little on
its batch, so every run, resume and shard that starts at a window's border forms the same passes and gives the same
output.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from .devices import TOKEN_BUDGET
from .encoded import EncodedPair

WINDOW_ROWS = 256

T = TypeVar("T")


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
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or (
            len(batches[-1]) >= batch_size
            if batch_size is not None
            else (len(batches[-1]) + 1) * lengths[batches[-1][0]] > token_budget
        ):
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
        int64 (batch, tokens) tensors `input_ids`, `attention_mask` and `response_mask`; and for each check that the
        pairs were encoded with a bool (batch,), whether it found something.
    """
    width = max(len(pair.input_ids) for pair in pairs)
    batch = {name: torch.zeros(len(pairs), width, dtype=torch.long) for name in ("attention_mask", "response_mask")}
    batch["input_ids"] = torch.full((len(pairs), width), pad_id, dtype=torch.long)
    for row, pair in enumerate(pairs):
        n = len(pair.input_ids)
        start = width - n if padding_side == "left" else 0
        batch["input_ids"][row, start : start + n] = torch.tensor(pair.input_ids)
        batch["attention_mask"][row, start : start + n] = 1
        batch["response_mask"][row, start + pair.response.start : start + pair.response.end] = 1
    for name in pairs[0].checks:
        batch[name] = torch.tensor([bool(pair.checks[name]) for pair in pairs])
    return batch
