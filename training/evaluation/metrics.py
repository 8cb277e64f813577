"""Metrics of predictions that never saw their questions, with bootstrap intervals over questions.

A resample weighs each row by how often it was drawn, so nothing is copied: a metric takes weights, (resamples, rows),
and gives (resamples,). Ranks are weighted midranks, and F1 and kappa come from weighted confusion matrices. What is
undefined is NaN; `Metric` silences numpy's warnings of it. All methods and aspects share the resamples, so that their
differences are paired:

    samples = resamples(questions, 1000, seed)
    ours = bootstrap(truth, classes, predictions, samples.weights(questions))
    evidence = compared(ours, {"surface": bootstrap(truth, classes, base, samples.weights(questions))})
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows.records import is_good

Array = NDArray[np.float64]
Index = NDArray[np.int64]
LabelArray = NDArray[Any]  # int64, or float64 where one is no whole number
Mask = NDArray[np.bool_]
Interval = dict[str, float | None]

ECE_BINS = 10
ECE_ROWS = 200  # with fewer rows the bins hold too few for the estimate to mean anything
UNSET = -(2**31)  # no level; a score that was never predicted
BLOCK = 2_000_000  # weights taken at once, so that many rows and resamples need little memory


class Predictions(NamedTuple):
    """Predictions of rows by fits that never saw their questions, over several repeats; of one repeat, (rows,) each.

    Attributes:
        expected: (repeats, rows) mean score under the probabilities.
        good: (repeats, rows) what a good label is ranked by; larger is better.
        good_probability: (repeats, rows) P(label is good); NaN where a method has none.
        score: (repeats, rows) the score by the decision rule.
    """

    expected: Array
    good: Array
    good_probability: Array
    score: NDArray[Any]

    @classmethod
    def blank(cls, repeats: int, rows: int, like: NDArray[Any] | None = None) -> "Predictions":
        """Make room for predictions: NaN, and the score `UNSET`, until they are put; scores are of the labels' type."""
        expected, good, probability = (np.full((repeats, rows), np.nan) for _ in range(3))
        dtype = np.dtype(np.int64) if like is None else like.dtype
        return cls(expected, good, probability, np.full((repeats, rows), UNSET, dtype=dtype))

    def put(self, repeat: int, rows: Index, prediction: "Predictions") -> None:
        """Fill some of the rows of one repeat, in place."""
        for column, values in zip(self, prediction, strict=True):
            column[repeat, rows] = values

    def take(self, rows: Index, repeats: slice = slice(None)) -> "Predictions":
        """Return some of the rows, of all repeats or some."""
        return self._replace(**{name: column[repeats, rows] for name, column in self._asdict().items()})

    def repeats(self) -> "list[Predictions]":
        """Return each repeat's predictions."""
        return [Predictions(*columns) for columns in zip(*self, strict=True)]


WeightedMetric = Callable[[LabelArray, list[Any], Predictions, Array], Array]


@dataclass(frozen=True)
class Metric:
    """One number for how well predictions fit labels.

    Attributes:
        weighted: Of labels (rows,), all classes, predictions and weights (resamples, rows), for each resample.
        lower_is_better: Whether it is an error; a gain then is the baseline's value minus ours.
        least_rows: Rows below which it is not computed.
    """

    weighted: WeightedMetric
    lower_is_better: bool = False
    least_rows: int = 0

    def __call__(self, truth: LabelArray, classes: list[Any], prediction: Predictions) -> float:
        """Compute it on the rows as they are; NaN where it is undefined."""
        return float(self.draws(truth, classes, prediction, np.ones((1, len(truth))))[0])

    def draws(self, truth: LabelArray, classes: list[Any], prediction: Predictions, weights: Array) -> Array:
        """Compute it on every resample.

        Args:
            truth: (rows,) labels.
            classes: All scores of the aspect; they say which labels are good.
            prediction: One repeat's predictions.
            weights: (resamples, rows) how often each row was drawn.

        Returns:
            (resamples,); NaN where it is undefined.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            blocks = np.array_split(weights, min(len(weights), ceil(max(1, weights.size) / BLOCK)))
            return np.concatenate([self.weighted(truth, classes, prediction, block) for block in blocks])


def weighted_mean(values: Array | Mask, weights: Array) -> Array:
    """Average values, (rows,)."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def auroc(good: Mask, values: Array, weights: Array) -> Array:
    """P(a good row has a larger value than another), ties count half; NaN where all rows are good, or none."""
    ties = Ties.of(values)
    positive, negative = ties.mass(weights * good), ties.mass(weights * ~good)
    below = negative.cumsum(axis=1) - negative / 2
    area: Array = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return area * _defined(values)


def spearman(truth: LabelArray, values: Array, weights: Array) -> Array:
    """Correlate the ranks of values and labels; 0 where the values are constant, NaN where the labels are."""
    half = weights.sum(axis=1, keepdims=True) / 2  # the mean of the midranks
    ranks, true_ranks = Ties.of(values).midranks(weights) - half, Ties.of(truth).midranks(weights) - half
    spread, true_spread = ((weights * r**2).sum(axis=1) for r in (ranks, true_ranks))
    correlation = (weights * ranks * true_ranks).sum(axis=1) / np.sqrt(spread * true_spread)
    known: Array = np.where((spread == 0) & (true_spread > 0), 0.0, correlation)
    return known * _defined(values)


def f1(truth: LabelArray, score: LabelArray, weights: Array, *, by_support: bool = False) -> Array:
    """Average F1 over the classes that occur in the resample's labels or scores, or weighted by their labels."""
    cells, _ = confusions(truth, score, weights)
    labels, scores = cells.sum(axis=2), cells.sum(axis=1)
    hits, share = 2 * np.diagonal(cells, axis1=1, axis2=2), labels if by_support else (scores + labels > 0) * 1.0
    return np.asarray(np.where(share > 0, share * (hits / (scores + labels)), 0.0).sum(axis=1) / share.sum(axis=1))


def quadratic_kappa(truth: LabelArray, score: LabelArray, weights: Array, values: Array | None = None) -> Array:
    """Cohen's kappa, disagreement being the squared distance on the scale; NaN where all are the same one score.

    Args:
        truth: (rows,) labels.
        score: (rows,) scores.
        weights: (resamples, rows).
        values: What the numbers of labels and scores stand for, where they are places in it.
    """
    cells, scale = confusions(truth, score, weights)
    if values is not None:
        scale = values[scale.astype(np.int64)]
    return _kappa(cells, (scale[:, None] - scale) ** 2)


def cohen_kappa(truth: LabelArray, score: LabelArray, weights: Array) -> Array:
    """Cohen's kappa, all disagreements being alike; NaN where all are the same one score."""
    cells, scale = confusions(truth, score, weights)
    return _kappa(cells, 1 - np.eye(len(scale)))


def _kappa(cells: Array, distance: Array) -> Array:
    by_chance = cells.sum(axis=2)[:, :, None] * cells.sum(axis=1)[:, None, :] / cells.sum(axis=(1, 2))[:, None, None]
    return np.asarray(1 - (cells * distance).sum(axis=(1, 2)) / (by_chance * distance).sum(axis=(1, 2)))


def calibration_error(good: Mask, probability: Array, weights: Array) -> Array:
    """Average |mean probability - share of good rows| over bins of like mass; each resample makes its own bins."""
    ties = Ties.of(probability)
    excess = ties.mass(weights * (probability - good))
    place = ties.bins(weights, ECE_BINS) + ECE_BINS * np.arange(len(weights))[:, None]
    by_bin = np.bincount(place.ravel(), excess.ravel(), ECE_BINS * len(weights)).reshape(-1, ECE_BINS)
    return np.asarray(np.abs(by_bin).sum(axis=1) / weights.sum(axis=1))


def confusions(truth: LabelArray, score: LabelArray, weights: Array) -> tuple[Array, Array]:
    """Count labels (rows) against scores (columns), (resamples, k, k), and name the k classes that occur, (k,)."""
    scale, codes = np.unique(np.concatenate([truth, score]), return_inverse=True)
    k = len(scale)
    cells = np.eye(k * k)[codes[: len(truth)] * k + codes[len(truth) :]]
    return (weights @ cells).reshape(-1, k, k), scale.astype(np.float64)


class Ties(NamedTuple):
    """Rows grouped by equal values, groups ascending.

    Attributes:
        group: (rows,) each row's group.
        order: (rows,) the rows by group.
        starts: (groups,) where each group starts in that order.
    """

    group: Index
    order: Index
    starts: Index

    @classmethod
    def of(cls, values: Array | Index) -> "Ties":
        """Group rows by their values, (rows,)."""
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(group, np.argsort(group, kind="stable"), np.cumsum(counts) - counts)

    def mass(self, weights: Array) -> Array:
        """Sum the weights of each group, (resamples, groups)."""
        return np.asarray(np.add.reduceat(weights[:, self.order], self.starts, axis=1))

    def midranks(self, weights: Array) -> Array:
        """Rank every row, counted from 1/2, ties sharing the middle of theirs: (resamples, rows)."""
        return np.asarray(self._middles(weights)[:, self.group])

    def bins(self, weights: Array, bins: int) -> Index:
        """Divide the groups into bins of like mass, numbered from 0: (resamples, groups)."""
        position = bins * self._middles(weights) / weights.sum(axis=1, keepdims=True)
        return np.asarray(np.clip(np.nan_to_num(position), 0, bins - 1).astype(np.int64))

    def _middles(self, weights: Array) -> Array:
        mass = self.mass(weights)
        return np.asarray(mass.cumsum(axis=1) - mass / 2)


def _defined(values: Array) -> float:
    """1, or NaN where a value is missing, so that ranks of missing values are never taken for results."""
    return float("nan") if np.isnan(values).any() else 1.0


METRICS: Mapping[str, Metric] = {
    "auroc": Metric(lambda truth, classes, p, w: auroc(is_good(truth, classes), p.good, w)),
    "macro_f1": Metric(lambda truth, classes, p, w: f1(truth, p.score, w)),
    "weighted_f1": Metric(lambda truth, classes, p, w: f1(truth, p.score, w, by_support=True)),
    "accuracy": Metric(lambda truth, classes, p, w: weighted_mean(truth == p.score, w)),
    "spearman": Metric(lambda truth, classes, p, w: spearman(truth, p.expected, w)),
    "qwk": Metric(lambda truth, classes, p, w: quadratic_kappa(truth, p.score, w)),
    "mae": Metric(lambda truth, classes, p, w: weighted_mean(np.abs(p.expected - truth), w), lower_is_better=True),
    "brier": Metric(
        lambda truth, classes, p, w: weighted_mean((p.good_probability - is_good(truth, classes)) ** 2, w),
        lower_is_better=True,
    ),
    "ece": Metric(
        lambda truth, classes, p, w: calibration_error(is_good(truth, classes), p.good_probability, w),
        lower_is_better=True,
        least_rows=ECE_ROWS,
    ),
}
DEFINITIONS: Mapping[str, str] = {
    "auroc": "of a good label (score >= 4; 1 of 0 and 1; of 1 to 9 >= 7) against others; ties count half",
    "macro_f1": "of scores, mean over the classes that occur in labels or scores",
    "weighted_f1": "of scores, mean over classes weighted by their labels",
    "accuracy": "of scores",
    "spearman": "of the expected score against the label; 0 for a constant expected score",
    "qwk": "Cohen's kappa of scores, disagreement weighted by the squared distance on the scale",
    "mae": "mean distance of the expected score from the label",
    "brier": "mean squared error of P(good)",
    "ece": f"of P(good), {ECE_BINS} bins of like mass; only from {ECE_ROWS} rows on, to be read beside label_prior",
}


@dataclass(frozen=True)
class Resamples:
    """Bootstrap samples of questions, the first of which is the sample itself.

    Attributes:
        questions: (questions,) the distinct ids, ascending.
        counts: (resamples + 1, questions) how often each was drawn.
    """

    questions: NDArray[np.str_]
    counts: Index

    def weights(self, questions: NDArray[np.str_]) -> Array:
        """Return how often each row was drawn, (resamples + 1, rows), given the rows' questions, (rows,)."""
        place = {str(question): i for i, question in enumerate(self.questions)}
        return self.counts[:, [place[str(question)] for question in questions]].astype(np.float64)


def resamples(questions: NDArray[np.str_], n: int, seed: int) -> Resamples:
    """Draw as many questions as there are, with replacement, n times; a question takes all its rows along.

    Args:
        questions: The questions of all rows of all aspects.
        n: Resamples beside the sample itself.
        seed: Of the draws.
    """
    distinct = np.unique(questions)
    shares = np.full(len(distinct), 1 / len(distinct))
    drawn = np.random.default_rng(seed).multinomial(len(distinct), shares, size=n)
    return Resamples(distinct, np.vstack([np.ones((1, len(distinct)), dtype=np.int64), drawn]))


def bootstrap(
    truth: LabelArray,
    classes: list[Any],
    predictions: Predictions,
    weights: Array,
    metrics: Iterable[str] | None = None,
) -> dict[str, Array]:
    """Compute metrics on every resample of one aspect's rows.

    Args:
        truth: (rows,) labels.
        classes: All scores of the aspect.
        predictions: Of these rows.
        weights: (resamples + 1, rows) of `Resamples.weights`.
        metrics: Some of `METRICS`; None for all.

    Returns:
        Metric -> (resamples + 1,), the mean over repeats; the first is that of the sample itself. NaN where a metric is
        undefined, such as AUROC in a resample without both kinds of label.

    Raises:
        ValueError: A row has no prediction, as auxiliary rows have none.
    """
    missing = int((predictions.score == UNSET).any(axis=0).sum())
    if missing:
        raise ValueError(
            f"bootstrap expects predictions of all rows, but {missing} of {len(truth)} have none. Take the others."
        )
    return {
        name: np.mean([METRICS[name].draws(truth, classes, one, weights) for one in predictions.repeats()], axis=0)
        for name in metrics or METRICS
        if len(truth) >= METRICS[name].least_rows
    }


def averaged(draws: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Average the draws of several aspects, for the metrics that all have; NaN where one aspect is."""
    shared = [name for name in METRICS if all(name in one for one in draws)]
    return {name: np.mean([one[name] for one in draws], axis=0) for name in shared}


def interval(draws: Array) -> Interval:
    """Give the value (the first draw) with the 95 % percentile interval of the others.

    Args:
        draws: (resamples + 1,).

    Returns:
        value, low and high, rounded to 4 digits, None where undefined; `left_out` says in how many resamples the
        metric was undefined, where it was in any.
    """
    defined = draws[1:][~np.isnan(draws[1:])]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    found: Interval = {"value": rounded(draws[0]), "low": rounded(low), "high": rounded(high)}
    left_out = len(draws) - 1 - len(defined)
    return {**found, "left_out": left_out} if left_out else found


def shown(figure: Mapping[str, Any]) -> str:
    """Write a figure with its interval."""
    if None in (figure["value"], figure["low"], figure["high"]):
        return "not defined"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def intervals(draws: Mapping[str, Array]) -> dict[str, Interval]:
    """Give every metric with its interval."""
    return {name: interval(values) for name, values in draws.items()}


def gains(ours: Mapping[str, Array], baseline: Mapping[str, Array], *, tested: bool = False) -> dict[str, Interval]:
    """Give the paired differences with their intervals, and p if tested; above 0 ours is better, for errors too."""
    signs = {name: -1 if METRICS[name].lower_is_better else 1 for name in ours if name in baseline}
    draws = {name: sign * (ours[name] - baseline[name]) for name, sign in signs.items()}
    return {name: interval(own) | ({"p": _p_value(own[1:])} if tested else {}) for name, own in draws.items()}


def _p_value(draws: Array) -> float | None:
    """Double the smaller share of resamples on either side of 0; None where no resample defines the difference."""
    defined = draws[~np.isnan(draws)]
    smaller = min((defined <= 0).sum(), (defined >= 0).sum())
    return round(float(min(1.0, 2 * (smaller + 1) / (len(defined) + 1))), 4) if len(defined) else None


def compared(
    ours: Mapping[str, Array], baselines: Mapping[str, Mapping[str, Array]]
) -> dict[str, Interval | dict[str, Interval]]:
    """Give every metric with its interval, the baselines' beside it, and the paired gains.

    Args:
        ours: Draws of the judge.
        baselines: Name -> draws on the same resamples.

    Returns:
        metric -> interval, `<baseline>` -> metric -> interval, and `gain_over_<baseline>` -> metric -> interval.
    """
    found: dict[str, Interval | dict[str, Interval]] = {**intervals(ours)}
    for name, draws in baselines.items():
        found |= {name: intervals(draws), f"gain_over_{name}": gains(ours, draws)}
    return found


def rounded(value: float) -> float | None:
    """Round a number to the 4 digits that are shown; None where it is not a number."""
    return None if np.isnan(value) else round(float(value), 4)
