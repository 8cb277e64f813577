"""Mean scores of a set of responses, with bootstrap intervals: what a benchmark reports."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PairError
from .load import Judge, load_judge

TOTAL = "total_score"
CONFIDENCE = 0.95
N_RESAMPLES = 1000


def mean_scores(
    predictions: Sequence[str],
    questions: Sequence[str],
    judge: Judge = None,
    batch_size: int | None = None,
    *,
    return_pairs: bool = False,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score responses to questions, and average.

    Args:
        predictions: The responses; none may be blank, since a blank one has no score.
        questions: Their questions, in the same order.
        judge: Folder, Hub id or loaded pipeline; None is the embedded judge.
        batch_size: Pairs that are read ahead and scored together; None is 256.
        return_pairs: Whether to give every pair's result too.
        n_resamples: Bootstrap samples of pairs.
        seed: Of the bootstrap.

    Returns:
        A result in the shape of one pair's, with `{"mean", "low", "high"}` in the place of each number: `scores` and
        `expected` by aspect, and `total_score`; `n`, the number of pairs; `truncated`, how many of them were cut; and
        where asked for `pairs`, the results of the pairs. `low` and `high` are the 95 % percentile bootstrap interval.

    Raises:
        PairError: There are no pairs, not as many questions as predictions, or a pair cannot be scored.

    Example:
        >>> mean_scores(["4", "5"], ["2 + 2?", "2 + 3?"])["total_score"]  # doctest: +SKIP
        {'mean': 20.5, 'low': 20.0, 'high': 21.0}
    """
    if len(predictions) != len(questions):
        raise PairError(
            f"mean_scores expects a question for each prediction, but got {len(questions)} and {len(predictions)}."
        )
    if not len(predictions):
        raise PairError("mean_scores expects at least one pair, but got none.")
    pairs = [{"question": q, "prediction": p} for q, p in zip(questions, predictions, strict=True)]
    results = load_judge(judge)(pairs, batch_size=batch_size)
    aspects = list(results[0]["scores"])
    columns = {(kind, name): [r[kind][name] for r in results] for kind in ("scores", "expected") for name in aspects}
    columns[TOTAL, ""] = [r[TOTAL] for r in results]
    means = dict(zip(columns, _intervals(np.array(list(columns.values())).T, n_resamples, seed), strict=True))
    report: dict[str, Any] = {
        "scores": {name: means["scores", name] for name in aspects},
        TOTAL: means[TOTAL, ""],
        "expected": {name: means["expected", name] for name in aspects},
        "n": len(results),
        "truncated": sum(result["truncated"] for result in results),
    }
    return {**report, "pairs": results} if return_pairs else report


def _intervals(values: np.ndarray[Any, Any], n_resamples: int, seed: int) -> list[dict[str, float]]:
    """Average columns, with percentile bootstrap intervals over rows; all columns share their resamples.

    Args:
        values: (rows, columns).
        n_resamples: Bootstrap samples.
        seed: Of the generator.
    """
    generator = np.random.default_rng(seed)
    n = len(values)
    draws = np.stack([values[generator.integers(n, size=n)].mean(axis=0) for _ in range(n_resamples)])
    tails = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(draws, [tails, 100 - tails], axis=0)
    rows = zip(values.mean(axis=0), low, high, strict=True)
    return [{"mean": float(mean), "low": float(below), "high": float(above)} for mean, below, above in rows]
