"""Means from many judged rows and few labelled ones: prediction-powered inference with power tuning, PPI++.

With y the labels and f what the judge says, the mean of y is estimated by

    mean of y on labelled rows + tuning * (mean of f on unlabelled rows - mean of f on labelled rows),

where the tuning is the one with the least variance (Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023;
Angelopoulos, Duchi and Zrnic 2023). It is right whatever the judge is worth: a bad one gives a tuning near 0, and the
mean of the labels alone. Rows of one question are no independent draws, so variances are sums over questions, of
labelled and unlabelled rows alike; with one row a question they are those of the papers. Labels must be of rows drawn
at random.

Intervals take Student's t with the labelled questions less 2, since the tuning and the variance are estimated on them.
Of a share of 0 and 1 they are Wilson's with the effective number of labels, which holds near 0 and 1 too. Wilson's
variance is that of the bound itself, not an estimate, so its quantile is the normal one; but Student's where questions
repeat, since how much their rows count is estimated on few of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from ..probing.table import Array


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end.
        confidence: Of the interval.
        tuning: How far the judge is relied on; 0 is not at all.
        labels_alone: The mean of the labels.
        labels_low: Lower end of its interval, made in the same way.
        labels_high: Upper end.
        judge_alone: The mean of what the judge says of all rows, which may be wrong.
        n: Labelled rows.
        n_unlabelled: Judged rows without a label.
        n_questions: Questions of labelled rows.
        effective_n: As many labels would give as short an interval without the judge.
    """

    value: float
    low: float
    high: float
    confidence: float
    tuning: float
    labels_alone: float
    labels_low: float
    labels_high: float
    judge_alone: float
    n: int
    n_unlabelled: int
    n_questions: int
    effective_n: float

    @property
    def labels_saved(self) -> float:
        """How many labels the judge saved."""
        return self.effective_n - self.n

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, rounded to 4 digits."""
        plain = {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(self).items()}
        return {**plain, "labels_saved": round(self.labels_saved, 1)}


def estimate_mean(
    labels: Array,
    said: Array,
    said_unlabelled: Array,
    *,
    question: NDArray[Any] | None = None,
    question_unlabelled: NDArray[Any] | None = None,
    confidence: float = 0.95,
) -> MeanEstimate:
    """Estimate the mean label of a population.

    Args:
        labels: (n,) of rows drawn at random.
        said: (n,) what the judge says of them, such as its expected score.
        said_unlabelled: (N,) the same of other rows of the population.
        question: (n,) what rows share whose errors go together; None where each row is alone.
        question_unlabelled: (N,) the same.
        confidence: Of the interval.

    Raises:
        ValueError: There are fewer than 3 labelled questions.
    """
    n, total = len(labels), len(labels) + len(said_unlabelled)
    if question is None:
        codes = np.arange(total)
    else:
        others = np.empty(0, dtype=question.dtype) if question_unlabelled is None else question_unlabelled
        codes = np.unique(np.concatenate([question, others]), return_inverse=True)[1]
    n_questions = len(np.unique(codes[:n]))
    if n_questions < 3:
        raise ValueError(f"A mean with an interval expects labels of 3 or more questions, but got {n_questions}.")
    drawn = labels[None], said[None], said_unlabelled[None]
    found = _intervals(*drawn, *_influences(*drawn, codes), n_questions, confidence)
    alone = found["labels_alone"]
    share = alone if _is_share(labels) else None
    low, high = _interval(alone, found["classical"], n_questions - 1, confidence, (n, n_questions), share)
    return MeanEstimate(
        **{name: float(found[name][0]) for name in ("value", "low", "high", "tuning", "labels_alone", "effective_n")},
        labels_low=float(low[0]),
        labels_high=float(high[0]),
        judge_alone=float(np.concatenate([said, said_unlabelled]).mean()),
        confidence=confidence,
        n=n,
        n_unlabelled=len(said_unlabelled),
        n_questions=n_questions,
    )


def estimate_many(labels: Array, said: Array, said_unlabelled: Array, confidence: float = 0.95) -> dict[str, Array]:
    """Estimate the means of many draws at once, each row a draw and every row of a draw alone.

    Args:
        labels: (draws, n).
        said: (draws, n).
        said_unlabelled: (draws, N).
        confidence: Of the intervals.

    Returns:
        `value`, `low`, `high`, `tuning` and `effective_n`, (draws,), as `estimate_mean` gives them.
    """
    n = labels.shape[1]
    ours = (labels - labels.mean(axis=1, keepdims=True)) / n
    parts = (said, 1 / n), (said_unlabelled, -1 / max(1, said_unlabelled.shape[1]))
    theirs = np.hstack(
        [(values - values.mean(axis=1, keepdims=True)) * weight for values, weight in parts if values.size]
    )
    ours = np.hstack([ours, np.zeros((len(ours), theirs.shape[1] - n))])
    return _intervals(labels, said, said_unlabelled, ours, theirs, n, confidence)


def _is_share(labels: Array) -> bool:
    return bool(np.isin(labels, (0.0, 1.0)).all())


def _influences(labels: Array, said: Array, said_unlabelled: Array, codes: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return what each question adds to the labels' mean and to the difference of the judge's means, (1, questions)."""
    n = labels.shape[1]
    own: Array = np.bincount(codes[:n], (labels - labels.mean())[0] / n, codes.max() + 1).astype(np.float64)
    other: Array = np.bincount(codes[:n], (said - said.mean())[0] / n, codes.max() + 1).astype(np.float64)
    if said_unlabelled.size:
        rest = (said_unlabelled - said_unlabelled.mean())[0] / said_unlabelled.shape[1]
        other -= np.bincount(codes[n:], rest, codes.max() + 1)
    return own[None], other[None]


def _intervals(
    labels: Array,
    said: Array,
    said_unlabelled: Array,
    ours: Array,
    theirs: Array,
    n_questions: int,
    confidence: float,
) -> dict[str, Array]:
    """Tune, estimate and bound; `ours` and `theirs` are of `_influences`, (draws, questions)."""
    spread, shared = (theirs**2).sum(axis=1), (ours * theirs).sum(axis=1)
    rounding = 1e-20 * (said**2).mean(axis=1)  # what is left of a judge that says the same of all rows
    usable = (spread > rounding) & bool(said_unlabelled.shape[1])
    tuning = np.where(usable, shared / np.where(usable, spread, 1), 0.0)
    classical = (ours**2).sum(axis=1) * n_questions / (n_questions - 1)
    left = ((ours - tuning[:, None] * theirs) ** 2).sum(axis=1)
    freedom = n_questions - 1 - usable.astype(np.float64)
    variance = left * n_questions / freedom
    mean = labels.mean(axis=1)
    gap = (said_unlabelled.mean(axis=1) if said_unlabelled.shape[1] else said.mean(axis=1)) - said.mean(axis=1)
    value = mean + tuning * gap
    counts = labels.shape[1], n_questions
    low, high = _interval(value, variance, freedom, confidence, counts, mean if _is_share(labels) else None)
    ratio = np.where(variance > 0, classical / np.where(variance > 0, variance, 1), 1.0)
    found = {"value": value, "low": low, "high": high, "tuning": tuning, "effective_n": ratio * labels.shape[1]}
    return {**found, "labels_alone": mean, "classical": classical}


def _interval(
    value: Array,
    variance: Array,
    freedom: Array | int,
    confidence: float,
    counts: tuple[int, int],
    share: Array | None,
) -> tuple[Array, Array]:
    """Bound a mean.

    Args:
        value: (draws,).
        variance: (draws,) of the value.
        freedom: Of Student's t, (draws,) or the same for all.
        confidence: Of the interval.
        counts: Labelled rows, and their questions.
        share: (draws,) the labels' mean where each of them is 0 or 1, for Wilson's interval; else None.
    """
    n, n_questions = counts
    quantile = student.ppf((1 + confidence) / 2, freedom)
    if share is None:
        return value - quantile * np.sqrt(variance), value + quantile * np.sqrt(variance)
    if n == n_questions:
        quantile = norm.ppf((1 + confidence) / 2)
    spread = share * (1 - share)
    # The variance is that of 1 / scale labels; of labels that are all alike nothing is known but their number.
    scale = np.where(spread > 0, variance / np.where(spread > 0, spread, 1), 1 / n) * quantile**2
    at = np.clip(value, 0, 1)
    middle, half = at + scale / 2, np.sqrt(scale * at * (1 - at) + scale**2 / 4)
    return (middle - half) / (1 + scale), (middle + half) / (1 + scale)
