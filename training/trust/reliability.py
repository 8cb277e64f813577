"""How well probabilities fit the labels: Brier score and its parts without the bias of few rows, before and after."""

from typing import Any, NamedTuple

import numpy as np

from ..evaluation.evidence import reliability
from ..evaluation.metrics import Array, Index, Mask, Ties, interval, rounded, weighted_mean
from ..rows.records import is_good
from ..rows.scales import usual_good
from .level_maps import ranked_probability_scores

MOST_BINS, ROWS_OF_BIN = 10, 20


class BrierParts(NamedTuple):
    """The parts of the Brier score, reliability - resolution + uncertainty, corrected for what few rows add to each.

    Attributes:
        reliability: Mean squared distance of probabilities from frequencies, 0 for calibrated ones; below 0 by chance.
        resolution: Mean squared distance of the bins' frequencies from the overall one; higher is better.
        uncertainty: Of the labels alone.
    """

    reliability: float
    resolution: float
    uncertainty: float


def bins_of(probability: Array) -> Index:
    """Divide rows into bins of like mass, 10 or fewer so that each holds 20; equal probabilities share one: (rows,)."""
    ties, bins = Ties.of(probability), max(1, min(MOST_BINS, len(probability) // ROWS_OF_BIN))
    return np.asarray(ties.bins(np.ones((1, len(probability))), bins)[0][ties.group])


def brier_parts(good: Mask, probability: Array) -> BrierParts:
    """Decompose the Brier score over bins (Murphy 1973) without its bias (Bröcker 2012; Ferro and Fricker 2012).

    Args:
        good: (rows,) whether the label is good.
        probability: (rows,) P(good).
    """
    bins = bins_of(probability)
    n = np.bincount(bins).astype(np.float64)
    kept = n > 0
    hits, shares = np.bincount(bins, good)[kept], np.bincount(bins, probability)[kept]
    n, total, rate = n[kept], float(len(good)), float(good.mean())
    observed = hits / n
    noise = float((n * observed * (1 - observed) / np.maximum(n - 1, 1)).sum()) / total
    chance = rate * (1 - rate) / max(total - 1, 1)
    apart = float((n * (shares / n - observed) ** 2).sum()) / total
    spread = float((n * (observed - rate) ** 2).sum()) / total
    return BrierParts(apart - noise, spread - noise + chance, rate * (1 - rate) + chance)


def good_classes(classes: tuple[float, ...]) -> Mask:
    """Tell which classes are good by the usual rule; where it would be all or none of them, by that of any scale."""
    values = np.array(classes)
    found = np.asarray(is_good(values, list(classes)))
    if found.all() or not found.any():
        found = values >= min(usual_good(classes[0], classes[-1]), classes[-1])
    return found


def fit_of_probabilities(
    probabilities: Array, label: Index, classes: tuple[float, ...], weights: Array
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Measure probabilities on labelled rows.

    Args:
        probabilities: (rows, classes).
        label: (rows,) the place of the label.
        classes: The scores.
        weights: (resamples + 1, rows) of `Resamples.weights`.

    Returns:
        The figures: `rps`, mean ranked probability score, and `brier` of P(good), with intervals over questions;
        `reliability`, unbiased, with an interval, and its root `calibration_error`; `resolution`, `uncertainty`, and
        `table`, of P(good) by bins. And the draws of the first two.
    """
    is_good_class = good_classes(classes)
    good, share = is_good_class[label], probabilities[:, is_good_class].sum(axis=1)
    draws = {
        "rps": weighted_mean(ranked_probability_scores(probabilities, label), weights),
        "brier": weighted_mean((share - good) ** 2, weights),
    }
    parts = brier_parts(good, share)
    return {
        **{name: interval(own) for name, own in draws.items()},
        "reliability": _reliability_interval(parts.reliability, good, share, weights),
        "calibration_error": rounded(max(0.0, parts.reliability) ** 0.5),
        "resolution": rounded(parts.resolution),
        "uncertainty": rounded(parts.uncertainty),
        "table": reliability(good, share[None]),
    }, draws


def _reliability_interval(value: float, good: Mask, share: Array, weights: Array) -> dict[str, float | None]:
    """Give the unbiased reliability with the spread of the plain one over resamples: it adds its bias again."""
    bins = bins_of(share)
    cells = np.eye(bins.max() + 1)[bins]
    excess = weights @ (cells * (share - good)[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.nan_to_num(excess**2 / (weights @ cells)).sum(axis=1) / weights.sum(axis=1)
    low, high = np.percentile(plain[1:] - plain[1:].mean(), [2.5, 97.5])
    return {"value": rounded(value), "low": rounded(value + low), "high": rounded(value + high)}
