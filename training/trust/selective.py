"""Risk and coverage: how wrong a judge is on the share of rows, or of decisions, that it is surest of."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation.metrics import Array, Mask, interval
from ..evaluation.surest import SURE, top_right


def risk_coverage(
    doubt: Array, errors: dict[str, Array | Mask], weights: Array, shares: Sequence[float] = SURE
) -> list[dict[str, Any]]:
    """Measure errors on the rows with the least doubt.

    Args:
        doubt: (rows,) the expected error, or anything that grows with it.
        errors: Name -> (rows,) what is averaged over the rows that are kept, such as |score - label|.
        weights: (resamples + 1, rows) of `Resamples.weights`.
        shares: Of the rows to keep; of rows tied at the border a share counts.

    Returns:
        For each share `coverage`, and every error with its interval.
    """
    found = {
        name: top_right(-doubt, np.asarray(values, np.float64), weights, shares) for name, values in errors.items()
    }
    return [
        {"coverage": share, **{name: interval(draws[:, at]) for name, draws in found.items()}}
        for at, share in enumerate(shares)
    ]


def area_under_risk(doubt: Array, error: Array) -> float:
    """Average the error over all shares that could be kept, the area under the risk-coverage curve (AURC)."""
    ordered = np.asarray(error, np.float64)[np.argsort(doubt, kind="stable")]
    return float((ordered.cumsum() / np.arange(1, len(ordered) + 1)).mean())
