"""Choose the best of scored rows from their numbers alone: a score, a position and a group a row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """Which rows are kept, in which order, and where each stood.

    Attributes:
        kept: int64 (kept,), indices into the ranked rows, in the order of the output.
        ranks: int64 (rows,), each row's rank among all, or in its group, from 1.
        sizes: int64 (rows,), how many rows it was ranked among.
    """

    kept: NDArray[np.int64]
    ranks: NDArray[np.int64]
    sizes: NDArray[np.int64]


def rank(scores: NDArray[np.float64], groups: NDArray[np.int64] | None, top: float | None, best: int | None) -> Ranking:
    """Rank rows, highest first and ties in input order, and keep the best.

    Args:
        scores: float64 (rows,), in input order.
        groups: int64 (rows,), each row's group; None where all are one.
        top: Share to keep, of all or of each group: floor(n * top). At 1.0 all are kept, in input order.
        best: How many to keep, of all or of each group. Where neither is given, all are kept.
    """
    order = np.argsort(-scores, kind="stable")
    keys = np.zeros(len(scores), np.int64) if groups is None else groups
    by_group = order[np.argsort(keys[order], kind="stable")]
    _, firsts, counts = np.unique(keys[by_group], return_index=True, return_counts=True)
    ranks, sizes = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    ranks[by_group] = np.arange(len(scores)) - np.repeat(firsts, counts) + 1
    sizes[by_group] = np.repeat(counts, counts)
    limits = np.full(len(scores), best) if best is not None else sizes
    if top is not None:
        limits = np.floor(sizes * top).astype(np.int64)
    order = np.arange(len(scores)) if top == 1.0 else order
    return Ranking(order[ranks[order] <= limits[order]], ranks, sizes)
