"""How far bfloat16 and shared prefixes move scores on the set's real pairs, from plain float32."""

import gc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inputs import Inputs, Pair
from .measure import Measurement, measure
from .ours import scores_of, work_of

Scores = tuple[NDArray[np.int64], NDArray[np.float64]]


def drift(inputs: Inputs) -> Measurement:
    """Score the pairs in both dtypes, with prefixes shared and not; what is timed is all four together."""
    pairs = inputs.all_pairs[: inputs.config.drift_pairs or None]
    loaded = inputs.load_judge("float32")
    work = work_of(inputs, loaded, pairs, "float32")
    del loaded
    return measure(lambda: compared(inputs, pairs), work, repetitions=1, warm_up=None, details=lambda found: found)


def compared(inputs: Inputs, pairs: list[Pair]) -> dict[str, Any]:
    """Compare every way of scoring with float32 without sharing, and bfloat16 also with itself without sharing."""
    runs: dict[tuple[str, bool], Scores] = {}
    for dtype in ("float32", "bfloat16"):
        loaded = inputs.load_judge(dtype)
        for is_shared in (False, True):
            found = scores_of(loaded(pairs, share_prefixes=is_shared))
            runs[dtype, is_shared] = np.array(found["scores"]), np.array(found["expected"], dtype=float)
        del loaded
        gc.collect()
    plain = runs["float32", False]
    return {
        "bfloat16": difference(plain, runs["bfloat16", True]),
        "bfloat16_unshared": difference(plain, runs["bfloat16", False]),
        "sharing_float32": difference(plain, runs["float32", True]),
        "sharing_bfloat16": difference(runs["bfloat16", False], runs["bfloat16", True]),
        "pairs": len(pairs),
    }


def difference(one: Scores, other: Scores) -> dict[str, float]:
    """Compare two runs over the same pairs.

    Returns:
        The largest and the mean difference of expected scores, their standard deviation over pairs (mean over aspects)
        to judge these by, and the share of whole-number scores that differ.
    """
    apart = np.abs(one[1] - other[1])
    return {
        "max": float(apart.max()),
        "mean": float(apart.mean()),
        "spread": float(one[1].std(axis=0).mean()),
        "flips": float((one[0] != other[0]).mean()),
    }
