"""Whether raters mean the same by their numbers: told where one's scale is another, or runs the other way."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

FEWEST = 10  # responses that two raters share
AGAINST = -0.2  # rank correlation from which on a rater is said to run against the others
WIDER = 2.0  # so many times as high as another's reach a rater's labels where the scale is another one
REACHES = 0.9  # of a rater's labels: how high they reach, a slip or two aside

Ratings = Mapping[str, Sequence[float | None]]


def rater_warnings(aspect: str, ratings: Ratings) -> list[str]:
    """Say which raters seem to use a scale of their own.

    Args:
        aspect: What they rate, for messages.
        ratings: Rater -> what they said of each response, None where they said nothing; in the same order.
    """
    return [*_other_scales(aspect, ratings), *_reversed(aspect, ratings)]


def _other_scales(aspect: str, ratings: Ratings) -> list[str]:
    reach = {}
    for name, own in ratings.items():
        given = [value for value in own if value is not None]
        if len(given) >= FEWEST:
            reach[name] = float(np.quantile(given, REACHES))
    found = []
    for one, other in combinations(reach, 2):
        low, high = sorted((one, other), key=lambda name: reach[name])
        if reach[low] > 0 and reach[high] >= WIDER * reach[low] and reach[high] > 1:
            found.append(
                f"{aspect}: the labels of {high!r} reach {reach[high]:g} and those of {low!r} {reach[low]:g}: do they "
                "use the same scale?"
            )
    return found


def _reversed(aspect: str, ratings: Ratings) -> list[str]:
    """Compare each rater's ranks with the mean of the others' on what they share."""
    names = list(ratings)
    table = np.array([[np.nan if value is None else value for value in ratings[name]] for name in names], dtype=float)
    found = []
    for i, name in enumerate(names):
        others = np.delete(table, i, axis=0)
        shared = ~np.isnan(table[i]) & (~np.isnan(others)).any(axis=0)
        if shared.sum() < FEWEST:
            continue
        theirs = np.nanmean(others[:, shared], axis=0)
        correlation = rank_correlation(table[i, shared], theirs)
        if correlation is not None and correlation <= AGAINST:
            found.append((correlation, name, int(shared.sum())))
    if not found:
        return []
    correlation, name, n = min(found)
    whose = f"{name!r}" if len(names) > 2 else " and ".join(map(repr, names))  # of two, either may be the one
    return [
        f"{aspect}: the labels of {whose} run against {'the others' if len(names) > 2 else 'each other'} (rank "
        f"correlation {correlation:.2f} on {n} responses): is a scale reversed?"
    ]


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Return Spearman's correlation of numbers, (n,) each; None where one of them is always the same.

    Example:
        >>> rank_correlation([1, 2, 3], [5, 4, 1])
        -1.0
    """
    first, second = (ranks - ranks.mean() for ranks in (rankdata(one), rankdata(other)))
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return None if spread == 0 else round(float((first * second).sum()) / spread, 12)
