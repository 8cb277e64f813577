"""Krippendorff's alpha: how well any number of raters agree, labels missing where they may (Krippendorff, 2011)."""

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import SettingsError

Array = NDArray[np.float64]

LEVELS = ("nominal", "ordinal", "interval")


def krippendorff_alpha(labels: Array, level: str = "nominal", weights: Array | None = None) -> Array:
    """Compute Krippendorff's alpha.

    Args:
        labels: (rows, raters), NaN where there is none; rows with fewer than two labels tell nothing.
        level: nominal, ordinal or interval.
        weights: (resamples, rows) how often each row counts; once where it is None.

    Returns:
        (resamples,); NaN where all labels are the same.
    """
    values, codes = np.unique(labels[~np.isnan(labels)], return_inverse=True)
    counts = np.zeros((len(labels), len(values)))
    np.add.at(counts, (np.nonzero(~np.isnan(labels))[0], codes), 1)
    size = counts.sum(axis=1)
    paired = size > 1
    counts, size = counts[paired], size[paired]
    weights = np.ones((1, len(labels))) if weights is None else weights
    pairs = (counts[:, :, None] * counts[:, None, :] - np.einsum("uc,cd->ucd", counts, np.eye(len(values)))) / (
        size - 1
    )[:, None, None]
    cells = np.einsum("ru,ucd->rcd", weights[:, paired], pairs)
    margin = cells.sum(axis=2)
    total = margin.sum(axis=1)
    expected = margin[:, :, None] * margin[:, None, :] - np.einsum("rc,cd->rcd", margin, np.eye(len(values)))
    distance = _distances(values, margin, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (cells * distance).sum(axis=(1, 2))
        return np.asarray(1 - (total - 1) * observed / (expected * distance).sum(axis=(1, 2)))


def _distances(values: Array, margin: Array, level: str) -> Array:
    """Return the squared distance of any two labels, (resamples or 1, labels, labels)."""
    if level == "nominal":
        return np.asarray(1 - np.eye(len(values)))[None]
    if level == "interval":
        return np.asarray((values[:, None] - values) ** 2)[None]
    if level != "ordinal":
        raise SettingsError(f"level expects {', '.join(LEVELS)}, but got {level!r}.")
    middle = margin.cumsum(axis=1) - margin / 2
    return np.asarray((middle[:, :, None] - middle[:, None, :]) ** 2)
