"""How well numbers follow labels: Spearman's, Pearson's and Kendall's correlation, with bootstrap intervals."""

import numpy as np
from scipy.stats import kendalltau

from .metrics import Array, Interval, intervals, resamples, spearman


def correlations(truth: Array, values: Array, n_resamples: int, seed: int) -> dict[str, Interval]:
    """Correlate numbers with labels.

    Args:
        truth: (rows,) labels.
        values: (rows,) what is to follow them.
        n_resamples: Of the rows, for the 95 % percentile interval.
        seed: Of the resamples.

    Returns:
        spearman, pearson and kendall (tau-b), each with its interval. Where the values are constant and the labels are
        not, nothing is followed: 0. Where the labels are constant: None.
    """
    rows = np.array([str(i) for i in range(len(truth))])
    return intervals(correlation_draws(truth, values, resamples(rows, n_resamples, seed).weights(rows)))


def correlation_draws(truth: Array, values: Array, weights: Array) -> dict[str, Array]:
    """Correlate numbers with labels in every resample, so that those of two sets of values can be paired.

    Args:
        truth: (rows,) labels.
        values: (rows,) what is to follow them.
        weights: (resamples, rows) how often each row was drawn; the first are the rows themselves.

    Returns:
        spearman, pearson and kendall (tau-b), (resamples,) each; NaN where the labels are constant.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of one row's copies has no ranks
        found = {"spearman": spearman(truth, values, weights), "pearson": pearson(truth, values, weights)}
    return {**found, "kendall": np.array([_kendall(truth, values, draw) for draw in weights])}


def pearson(truth: Array, values: Array, weights: Array) -> Array:
    """Correlate values with labels; 0 where the values are constant, NaN where the labels are.

    Args:
        truth: (rows,).
        values: (rows,).
        weights: (resamples, rows) how often each row was drawn.

    Returns:
        (resamples,).
    """
    total = weights.sum(axis=1, keepdims=True)
    x, y = (column - (weights @ column)[:, None] / total for column in (truth, values))
    spread_x, spread_y, both = ((weights * product).sum(axis=1) for product in (x * x, y * y, x * y))
    tiny_x, tiny_y = (_is_tiny(spread, column) for spread, column in ((spread_x, truth), (spread_y, values)))
    found = np.where(tiny_y, 0.0, both / np.sqrt(spread_x * spread_y))
    return np.asarray(np.where(tiny_x, np.nan, found))


def _is_tiny(spread: Array, column: Array) -> Array:
    """Say where a spread is nothing but rounding."""
    return np.asarray(spread <= 1e-20 * len(column) * (1 + np.abs(column).max()) ** 2)


def _kendall(truth: Array, values: Array, weights: Array) -> float:
    drawn = np.repeat(np.arange(len(truth)), weights.astype(np.int64))
    if np.ptp(truth[drawn]) == 0:
        return np.nan
    return float(kendalltau(truth[drawn], values[drawn]).statistic) if np.ptp(values[drawn]) else 0.0
