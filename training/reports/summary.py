"""What a page says of scored rows in numbers, all of which its job says too where it says them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..evaluation.evidence import confusion, reliability
from ..evaluation.metrics import METRICS, Array, Index, Predictions, bootstrap, intervals, resamples, rounded
from ..rows.records import is_good
from .scored import Scored

MOST_GROUPS = 40  # those with most rows
MOST_REASONS = 8
SPREAD = (0.1, 0.5, 0.9)  # quantiles of a group's rows
BOOTSTRAPS = 200
MOST_BOOTSTRAPPED = 20_000  # rows; of more the figures come without intervals
Z = 1.959964  # of a 95 % interval


def summary(scored: Scored) -> dict[str, Any]:
    """Reduce scored rows to what a page says of them.

    Returns:
        `counts` of rows; `aspects`: name -> mean expected score with its interval, and the share of each score;
        `groups`: a list of each group's name, rows, mean of the ranked field with its interval, its quantiles of
        `SPREAD` and mean of each aspect's expected score, most rows first, of `n_groups` those with most; `labels`:
        aspect -> figures beside labels, with `reliability` and `confusion` in the form of results.json.
    """
    flags = scored.flags.counts()
    return {
        "counts": {
            "scored": scored.rows,
            "rejected": scored.rejected,
            **{name: flags.get(name) for name in ("truncated", "unfamiliar", "seen")},
            "abstained": scored.abstained,
        },
        "reasons": dict(list(flags.get("unfamiliar_reasons", {}).items())[:MOST_REASONS]),
        "field": scored.ranked_by,
        "ranked": clustered_mean(scored.ranked, scored.questions),
        "questions": int(scored.questions.max()) + 1,
        "aspects": {
            name: {
                "expected": clustered_mean(scored.expected[name], scored.questions),
                "scores": dict(sorted(Counter(scored.scores[name]).items())),
            }
            for name in scored.aspects
        },
        "groups": _groups(scored),
        "n_groups": len(set(scored.groups)),
        "labels": {name: _labelled(scored, name) for name in scored.labels},
    }


def clustered_mean(values: Array, clusters: Index) -> dict[str, float]:
    """Average values with a 95 % interval over clusters, by the variance of a ratio of sums (Cochran 1977, 6.3).

    Args:
        values: (rows,).
        clusters: (rows,) each row's cluster, such as its question; rows of one are not independent.

    Returns:
        `value`, `low`, `high` and `n`, the rows; the interval is NaN where there is one cluster.
    """
    _, place = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(place, values), np.bincount(place)
    mean, k = float(values.mean()), len(sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = Z * float(np.sqrt(np.float64(k) / (k - 1) * ((sums - mean * sizes) ** 2).sum()) / len(values))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def _groups(scored: Scored) -> list[dict[str, Any]]:
    sizes = Counter(scored.groups)
    if len(sizes) < 2:
        return []
    names = np.asarray(scored.groups, dtype=object)
    found = []
    for name, n in sizes.most_common(MOST_GROUPS):
        here = names == name
        means = {aspect: float(values[here].mean()) for aspect, values in scored.expected.items()}
        ranked = clustered_mean(scored.ranked[here], scored.questions[here])
        spread = np.quantile(scored.ranked[here], SPREAD).tolist()
        found.append({"name": name, "n": n, "ranked": ranked, "spread": spread, "aspects": means})
    return found


def _labelled(scored: Scored, name: str) -> dict[str, Any]:
    """Set an aspect's scores beside its labels, where rows have one."""
    here = ~np.isnan(scored.labels[name])
    truth = scored.labels[name][here].astype(np.int64)
    unread = scored.unread.get(name, 0)
    if not len(truth):
        return {"n": 0, "unread": unread}
    scores = np.asarray(scored.scores[name], dtype=np.int64)[here]
    classes = sorted({*scored.good[name], *truth.tolist(), *scores.tolist()})
    good = is_good(np.asarray(classes), classes)
    none = np.zeros(scored.rows)
    good_ones = [c for c, is_one in zip(classes, good.tolist(), strict=True) if is_one]
    probability = np.sum([scored.good[name].get(c, none)[here] for c in good_ones], axis=0)
    expected = scored.expected[name][here]
    predictions = Predictions(expected, expected, probability, scores)
    columns = Predictions(expected[None], expected[None], probability[None], scores[None])
    found: dict[str, Any] = {
        "n": len(truth),
        "unread": unread,
        "reliability": reliability(is_good(truth, classes), probability[None]),
        "confusion": confusion(truth, classes, columns),
    }
    if len(truth) > MOST_BOOTSTRAPPED:
        figures = {m: {"value": rounded(METRICS[m](truth, classes, predictions))} for m in METRICS}
        return {**found, "metrics": figures}
    questions = scored.questions[here].astype(np.str_)
    weights = resamples(questions, BOOTSTRAPS, 0).weights(questions)
    return {**found, "metrics": _known(intervals(bootstrap(truth, classes, columns, weights)))}


def _known(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in figures.items() if found["value"] is not None}
