"""Rank systems by a judge's scores on the same prompts, with the judge's own error between systems in every interval.

Two errors stand between judged means and the truth. Which prompts were drawn: estimated from the prompts, which are
paired. What the judge adds to all answers of one system (`JudgeError`): known from labelled answers of several
generators (evaluation/between.py), and the same however many prompts there are. All pairs are compared at once by Tukey
and Kramer's range, with the degrees of freedom of Satterthwaite, so that of all the pairs, in 95 % of rankings, none is
called better wrongly. With labelled rows, a system's mean is the labelled rows' plus what the judge says of all the
others against these (regression estimator of two-phase samples, as in prediction-powered inference): the judge's error
then cancels, and the labels' chance takes its place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.results import TOTAL

from ..evaluation.metrics import Array
from .bradley_terry import shifts, strengths

LEAST_LABELLED = 10  # rows of each system
NEVER = "never"  # or more prompts than anybody would write
_PROMPTS = np.unique(np.geomspace(2, 1e7, 600).round())
_DF = (1, 2, 3, 4, 6, 10, 20, 40, 1e6)  # for which the range's quantile is taken


@dataclass(frozen=True)
class JudgeError:
    """What a judge may add to, or take from, every answer of one system.

    Attributes:
        sd: Standard deviation, on the scale of what is ranked by.
        df: Degrees of freedom that it was estimated with.
        source: Where it is known from, in words.
        slope: How much the score rises with the truth between systems; None where that is not known.
        ranks: Whether better systems are shown to get higher scores; where not, nothing is called better.
    """

    sd: float
    df: float
    source: str
    slope: float | None = None
    ranks: bool = True


def judge_error(results: Mapping[str, Any], field: str) -> JudgeError | None:
    """Take a judge's error between systems from its evidence.

    Args:
        results: Its results.json.
        field: What is ranked by.

    Returns:
        None where the evidence has none. That of all answers of generators (`ranking`) goes before that of matched
        ones; of the expected total it is the sum over the aspects that count, which is the most that it can be.
    """
    matched, ranking = results.get("matched", {}), results.get("ranking", {})
    if field == TOTAL:
        counted = [name for name, one in results.get("aspects", {}).items() if one.get("counts_in_total", True)]
        each = [judge_error(results, f"expected_{name}") for name in counted]
        known = [one for one in each if one]
        if not known or len(known) < len(each):
            return None
        sd, df = sum(one.sd for one in known), min(one.df for one in known)
        return JudgeError(sd, df, "its evidence, the sum over aspects", ranks=all(one.ranks for one in known))
    aspect = field.removeprefix("expected_")
    found = matched.get(aspect, {}).get("between_generators") or {}
    if ranking.get("field") == field:  # of all answers, not of matched ones alone
        found = {"generators_unseen": True, **(ranking["ways"]["judge"]["between_generators"] or {})}
    if not found.get("sd") or aspect == field or aspect in results.get("calibration", {}).get("aspects", {}):
        return None  # calibrated scores are on another scale than the evidence
    unseen = "that no fit saw" if found.get("generators_unseen") else "that its fits saw"
    source = f"its evidence on {found['n_generators']} generators {unseen}"
    slope = found["slope"]["value"] if found["slope"]["from"] == "generators" else None
    return JudgeError(found["sd"]["value"], found["df"], source, slope, (found["slope"]["low"] or 0) > 0)


class Means(NamedTuple):
    """Systems' means, and how much each prompt moves them.

    Attributes:
        value: (k,).
        influence: (prompts, k); the covariance of the means is that of its columns' products.
        df: Degrees of freedom of it.
        shifts: (k, k), how values move by one of the judge's errors of each system, a row for each; None where each
            moves its own mean alone, by just that.
    """

    value: Array
    influence: Array
    df: float
    shifts: Array | None = None

    def judge_variance(self, error: JudgeError | None, a: int, b: int | None = None) -> float:
        """Return what the judge's errors add to the variance of a system's value, or of the difference of two."""
        if error is None:
            return 0.0
        moved = error.sd * np.eye(len(self.value)) if self.shifts is None else self.shifts
        return float(np.sum((moved[:, a] - (0.0 if b is None else moved[:, b])) ** 2))


def wins_of(values: Array, error: JudgeError | None) -> Means:
    """Estimate each system's Bradley-Terry strength by who is higher at each prompt.

    Args:
        values: (prompts, k) the judge's.
        error: The judge's between systems, on the scale of the scores.
    """
    strength, influence = strengths(values)
    return Means(strength, influence, len(values) - 1, shifts(values, error.sd, strength) if error else None)


def means_of(values: Array, labels: Array | None = None) -> Means:
    """Estimate each system's mean over prompts.

    Args:
        values: (prompts, k) the judge's.
        labels: (prompts, k) the truth, on any scale; NaN where a row has none.

    Raises:
        DataFileError: A system has fewer than `LEAST_LABELLED` labels.
    """
    n = len(values)
    centred = values - values.mean(axis=0)
    if labels is None:
        return Means(values.mean(axis=0), centred / np.sqrt(n * (n - 1)), n - 1)
    has = ~np.isnan(labels)
    count = has.sum(axis=0)
    if count.min() < LEAST_LABELLED:
        raise DataFileError(
            f"A ranking with labels expects {LEAST_LABELLED} labelled rows of each system or more, but got "
            f"{int(count.min())} of one. Label more, drawn at random, or leave the labels out."
        )
    told = np.where(has, labels, 0.0)
    score_of, label_of = ((has * one).sum(axis=0) / count for one in (values, told))
    products = (has * (values - score_of) * (told - label_of)).sum(axis=0)
    squares = (has * (values - score_of) ** 2).sum(axis=0)
    slope = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    rest = np.where(has, told - label_of - slope * (values - score_of), 0.0)
    mean = label_of + slope * (values.mean(axis=0) - score_of)
    influence = slope * centred / np.sqrt(n * (n - 1)) + rest / np.sqrt(count * (count - 2))
    return Means(mean, influence, int(count.min()) - 2)


@lru_cache(maxsize=256)
def _range_quantiles(k: int, level: float) -> Array:
    return np.array([float(stats.studentized_range.ppf(level, k, df) / np.sqrt(2)) for df in _DF])


def critical(k: int, df: Array | float, level: float = 0.95) -> Array:
    """Return how many standard errors a difference must have, where all pairs of k systems are compared at once.

    Between the degrees of freedom of `_DF` it is drawn straight in 1 / df, which is never too small.
    """
    df = np.maximum(df, 1.0)
    if k == 2:
        return np.asarray(stats.t.ppf(0.5 + level / 2, df))
    return np.interp(-1 / df, [-1 / one for one in _DF], _range_quantiles(k, level))


def joined_df(sampling: Array | float, df: Array | float, judge: Array | float, judge_df: float) -> Array:
    """Return Satterthwaite's degrees of freedom of a variance of sampling plus one of the judge's."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (sampling + judge) ** 2 / (np.square(sampling) / df + np.square(judge) / judge_df)
    return np.asarray(np.where(np.isnan(found), df, found), dtype=np.float64)


def prompts_needed(
    difference: float, variance: float, k: int, error: JudgeError | None, level: float, judge: float | None = None
) -> int | str:
    """Say how many prompts, to the next of `_PROMPTS`, would tell two systems apart, were the difference to stay.

    Args:
        difference: Of their means.
        variance: Of one prompt's difference.
        k: How many systems are compared.
        error: The judge's.
        level: Of the intervals.
        judge: What that error adds to the variance of the difference; None for what it adds to that of two means.
    """
    judge = judge if judge is not None else 2 * error.sd**2 if error else 0.0
    df = joined_df(variance / _PROMPTS, _PROMPTS - 1, judge, error.df if error else inf)
    told = difference**2 > critical(k, df, level) ** 2 * (variance / _PROMPTS + judge)
    return int(_PROMPTS[np.argmax(told)]) if told.any() and (error is None or error.ranks) else NEVER


def rank_systems(
    values: Array,
    error: JudgeError | None,
    *,
    labels: Array | None = None,
    flagged: NDArray[np.bool_] | None = None,
    level: float = 0.95,
    by: str = "means",
) -> dict[str, Any]:
    """Compare systems on the same prompts.

    Args:
        values: (prompts, k) the judge's scores.
        error: The judge's between systems; nothing is called better where it is None or not shown to rank.
        labels: (prompts, k) the truth where it is known, else NaN; the judge's error plays no part then.
        flagged: (prompts, k) answers that must not decide: who is better only with them is not called better.
        level: Of the intervals.
        by: `means`, or `wins` for Bradley-Terry strengths, which take no labels: `mean` is then a strength and a
            difference the log odds of winning.

    Returns:
        `systems`, each with mean, low and high (all at once) and `ranks`, the best and the worst place that it may
        have; `pairs`, each with first, second (numbers), difference (second - first), low, high, `better`, a number or
        None, `beyond_sampling`, the same by sampling alone, `rests_on_flagged`, `wins`, the share of prompts at which
        second is higher, and `prompts_needed`; and `groups`, the largest ones in which no system is called better.

    Raises:
        DataFileError: Fewer than two prompts, or too few labels.
    """
    n, k = values.shape
    if n < 2 or k < 2:
        raise DataFileError(f"A ranking expects two systems and two prompts or more, but got {k} and {n}.")
    known = None if labels is not None else error

    def estimate(values: Array, labels: Array | None) -> Means:
        return means_of(values, labels) if by == "means" else wins_of(values, known)

    means = estimate(values, labels)
    pairs = [
        {**_pair(values, means, (a, b), known, level, k, labels is not None), "first": a, "second": b}
        for a, b in combinations(range(k), 2)
    ]
    for pair in pairs:
        pair["rests_on_flagged"] = (
            pair["better"] is not None
            and flagged is not None
            and _rests(pair, values, labels, flagged, known, level, estimate)
        )
        if pair["rests_on_flagged"]:
            pair["better"] = None
    kind = "better" if known or labels is not None else "beyond_sampling"
    order = np.argsort(-means.value, kind="stable").tolist()
    called = {(pair["first"], pair["second"]): pair[kind] for pair in pairs if pair[kind] is not None}
    systems = [
        {
            **bounds,
            "ranks": [
                1 + sum(i in pair and better != i for pair, better in called.items()),
                k - sum(better == i for better in called.values()),
            ],
        }
        for i, bounds in enumerate(bounded(means, known, level))
    ]
    return {"systems": systems, "pairs": pairs, "groups": groups(order, set(called))}


def bounded(means: Means, error: JudgeError | None, level: float) -> list[dict[str, float]]:
    """Give each system's mean with an interval, all at once (Bonferroni): mean, low and high.

    Args:
        means: The systems' means.
        error: The judge's between systems; None where it plays no part or is not known.
        level: Of the intervals together.
    """
    variance = np.sum(means.influence**2, axis=0)
    judge = np.array([means.judge_variance(error, i) for i in range(len(variance))])
    df = joined_df(variance, means.df, judge, error.df if error else inf)
    reach = stats.t.ppf(1 - (1 - level) / 2 / len(variance), df) * np.sqrt(variance + judge)
    ends = zip(means.value.tolist(), (means.value - reach).tolist(), (means.value + reach).tolist(), strict=True)
    return [dict(zip(("mean", "low", "high"), own, strict=True)) for own in ends]


def _pair(
    values: Array,
    means: Means,
    at: tuple[int, int],
    error: JudgeError | None,
    level: float,
    k: int,
    labelled: bool,
) -> dict[str, Any]:
    a, b = at
    difference = float(means.value[b] - means.value[a])
    variance = float(np.sum((means.influence[:, b] - means.influence[:, a]) ** 2))
    judge = means.judge_variance(error, a, b)
    df = joined_df(variance, means.df, judge, error.df if error else inf)
    reach = float(critical(k, df, level) * np.sqrt(variance + judge))
    of_sampling = float(critical(k, means.df, level) * np.sqrt(variance))

    def higher(limit: float) -> int | None:
        return None if abs(difference) <= limit else b if difference > 0 else a

    n = len(values)
    return {
        "difference": difference,
        "low": difference - reach,
        "high": difference + reach,
        "better": higher(reach) if (error and error.ranks) or labelled else None,
        "beyond_sampling": higher(of_sampling),
        "wins": float(np.mean((values[:, b] > values[:, a]) + (values[:, b] == values[:, a]) / 2)),
        "prompts_needed": prompts_needed(difference, variance * n, k, error, level, judge),
    }


def _rests(
    pair: Mapping[str, Any],
    values: Array,
    labels: Array | None,
    flagged: NDArray[np.bool_],
    error: JudgeError | None,
    level: float,
    estimate: Callable[[Array, Array | None], Means],
) -> bool:
    """Whether a pair is not called the same where its flagged answers are left out."""
    at = [pair["first"], pair["second"]]
    if not flagged[:, at].any():
        return False
    kept = ~flagged[:, at].any(axis=1)
    own = None if labels is None else labels[kept][:, at]
    if kept.sum() < 2 or (own is not None and (~np.isnan(own)).sum(axis=0).min() < LEAST_LABELLED):
        return True
    again = _pair(values[kept][:, at], estimate(values[kept][:, at], own), (0, 1), error, level, 2, own is not None)
    return bool(again["better"] is None or at[again["better"]] != pair["better"])


def groups(order: Sequence[int], told_apart: set[tuple[int, int]]) -> list[list[int]]:
    """Find the largest groups in which no two systems are told apart (Piepho's insert and absorb, 2004).

    Args:
        order: All systems, best first.
        told_apart: Pairs, the smaller number first.

    Returns:
        Each group in that order, and the groups by their best.
    """
    found = [frozenset(order)]
    for a, b in sorted(told_apart):
        both = [one for one in found if {a, b} <= one]
        kept = [one for one in found if not {a, b} <= one]
        for part in dict.fromkeys(one - {own} for one in both for own in (a, b)):
            if not any(part < other for one in both for other in (one - {a}, one - {b})):
                kept += [] if any(part <= other for other in kept) else [part]
        found = kept
    place = {system: i for i, system in enumerate(order)}
    return sorted((sorted(one, key=place.__getitem__) for one in found), key=lambda one: [place[i] for i in one])
