"""What the labels look like: classes, imbalance, length, and fields that are constant or missing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from inspector_pipeline.files.entries import Row

from .items import Item

BINARY = (0, 1)
NORMAL_95 = 1.959964
LONG_CORRELATION_PAIRS = 10  # fewer give no useful interval


def describe_labels(items: Sequence[Item], scale: Sequence[int], tiny: int) -> dict[str, Any]:
    """Describe every aspect's labels.

    Args:
        items: Labelled pairs.
        scale: The classes that labels may take; aspects that hold only 0 and 1 are on that scale instead.
        tiny: A class with fewer labels than this, but one, is tiny.

    Returns:
        Aspect -> n, counts by class, share of the rarest observed class, unobserved, tiny and unexpected classes,
        whether it is constant, and the rank correlations of labels with the response's length in words.
    """
    aspects = list(dict.fromkeys(aspect for item in items for aspect in item.scores))
    return {aspect: _describe(aspect, items, scale, tiny) for aspect in aspects}


def _describe(aspect: str, items: Sequence[Item], scale: Sequence[int], tiny: int) -> dict[str, Any]:
    labelled = [item for item in items if aspect in item.scores]
    labels = [item.scores[aspect] for item in labelled]
    counts = Counter(labels)
    classes = BINARY if set(counts) <= set(BINARY) else tuple(scale)
    return {
        "n": len(labels),
        "classes": {str(label): counts[label] for label in sorted(set(classes) | set(counts))},
        "share_of_rarest": round(min(counts.values()) / len(labels), 4),
        "share_of_commonest": round(max(counts.values()) / len(labels), 4),
        "unobserved": [label for label in classes if not counts[label]],
        "tiny": [label for label in sorted(counts) if counts[label] < tiny],
        "off_scale": sorted(set(counts) - set(classes)),
        "constant": len(counts) == 1,
        "length_correlation": _spearman(labels, [len(item.prediction.split()) for item in labelled]),
    }


def _spearman(labels: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    """Return Spearman's rho of labels and lengths with a 95 % interval (Fisher's z, Bonett and Wright's variance)."""
    if len(labels) < LONG_CORRELATION_PAIRS:
        return {"value": None, "low": None, "high": None, "why": f"fewer than {LONG_CORRELATION_PAIRS} labels"}
    if len(set(labels)) == 1 or len(set(lengths)) == 1:
        return {"value": None, "low": None, "high": None, "why": "labels or lengths are constant"}
    rho = float(stats.spearmanr(labels, lengths).statistic)
    center = np.arctanh(np.clip(rho, -0.999999, 0.999999))
    half = NORMAL_95 * np.sqrt((1 + rho**2 / 2) / (len(labels) - 3))
    low, high = np.tanh([center - half, center + half])
    return {"value": round(rho, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def describe_fields(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say for every key of the rows how often it is missing (absent, null or blank), and whether it is constant.

    Returns:
        Key -> missing, the positions of the rows where it is, and constant (the one value of all rows, as text).
    """
    fields = list(dict.fromkeys(key for row in rows for key in row))
    described = {}
    for key in fields:
        missing = [i for i, row in enumerate(rows) if _blank(row.get(key))]
        values = {repr(row[key]) for row in rows if not _blank(row.get(key))}
        constant = len(rows) > 1 and len(values) == 1 and not missing
        described[key] = {"missing": len(missing), "missing_rows": missing, "constant": constant}
        if constant:
            described[key]["value"] = next(iter(values))[:80]
    return described


def item_rows(items: Sequence[Item]) -> list[Row]:
    """Return a probing set's pairs as rows, to describe their fields."""
    return [{"id": item.id, "question": item.question, "prediction": item.prediction} for item in items]


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == {} or value == []
