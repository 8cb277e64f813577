"""Metrics of predictions that never saw their questions, with bootstrap intervals over questions.

All methods and aspects share the resamples, so that their differences are paired:

    samples = resamples(questions, 1000, seed)
    ours = bootstrap(truth, classes, predictions, samples.weights(questions))
    evidence = compared(ours, {"surface": bootstrap(truth, classes, base, samples.weights(questions))})
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows.records import is_good
from . import weighted

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Interval = dict[str, float | None]

ECE_BINS = 10
ECE_ROWS = 200  # with fewer rows the bins hold too few for the estimate to mean anything
BIN_ROWS = ECE_ROWS // ECE_BINS
UNSET = -1  # no class; a score that was never predicted
BLOCK = 2_000_000  # weights taken at once, so that many rows and resamples need little memory


class Prediction(NamedTuple):
    """Predictions of rows in one repeat, (rows,) each; the fields are those of `Predictions`."""

    expected: Array
    good: Array
    good_probability: Array
    score: Index


class Predictions(NamedTuple):
    """Predictions of rows by fits that never saw their questions, over several repeats.

    Attributes:
        expected: (repeats, rows) mean score under the probabilities.
        good: (repeats, rows) what a good label is ranked by; larger is better.
        good_probability: (repeats, rows) P(label is good); NaN where a method has none.
        score: (repeats, rows) the score by the decision rule.
    """

    expected: Array
    good: Array
    good_probability: Array
    score: Index

    @classmethod
    def blank(cls, repeats: int, rows: int) -> "Predictions":
        """Make room for predictions: NaN, and the score `UNSET`, until they are put."""
        expected, good, probability = (np.full((repeats, rows), np.nan) for _ in range(3))
        return cls(expected, good, probability, np.full((repeats, rows), UNSET))

    def put(self, repeat: int, rows: Index, prediction: Prediction) -> None:
        """Fill some of the rows of one repeat, in place."""
        for column, values in zip(self, prediction, strict=True):
            column[repeat, rows] = values

    def take(self, rows: Index, repeats: slice = slice(None)) -> "Predictions":
        """Return some of the rows, of all repeats or some."""
        return self._replace(**{name: column[repeats, rows] for name, column in self._asdict().items()})

    def repeats(self) -> list[Prediction]:
        """Return each repeat's predictions."""
        return [Prediction(*columns) for columns in zip(*self, strict=True)]


WeightedMetric = Callable[[Index, list[int], Prediction, Array], Array]


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

    def __call__(self, truth: Index, classes: list[int], prediction: Prediction) -> float:
        """Compute it on the rows as they are; NaN where it is undefined."""
        return float(self.draws(truth, classes, prediction, np.ones((1, len(truth))))[0])

    def draws(self, truth: Index, classes: list[int], prediction: Prediction, weights: Array) -> Array:
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


METRICS: Mapping[str, Metric] = {
    "auroc": Metric(lambda truth, classes, p, w: weighted.auroc(is_good(truth, classes), p.good, w)),
    "macro_f1": Metric(lambda truth, classes, p, w: weighted.macro_f1(truth, p.score, w)),
    "weighted_f1": Metric(lambda truth, classes, p, w: weighted.weighted_f1(truth, p.score, w)),
    "accuracy": Metric(lambda truth, classes, p, w: weighted.mean(truth == p.score, w)),
    "spearman": Metric(lambda truth, classes, p, w: weighted.spearman(truth, p.expected, w)),
    "qwk": Metric(lambda truth, classes, p, w: weighted.quadratic_kappa(truth, p.score, w)),
    "mae": Metric(lambda truth, classes, p, w: weighted.mean(np.abs(p.expected - truth), w), lower_is_better=True),
    "brier": Metric(
        lambda truth, classes, p, w: weighted.mean((p.good_probability - is_good(truth, classes)) ** 2, w),
        lower_is_better=True,
    ),
    "ece": Metric(
        lambda truth, classes, p, w: weighted.calibration_error(
            is_good(truth, classes), p.good_probability, ECE_BINS, w
        ),
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


def measure(truth: Index, classes: list[int], predictions: Predictions) -> dict[str, float]:
    """Compute every metric per repeat and average it over repeats; ECE from 200 rows on."""
    sample = bootstrap(truth, classes, predictions, np.ones((1, len(truth))))
    return {name: float(values[0]) for name, values in sample.items()}


def bootstrap(
    truth: Index, classes: list[int], predictions: Predictions, weights: Array, metrics: Iterable[str] | None = None
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
    found: Interval = {"value": _rounded(draws[0]), "low": _rounded(low), "high": _rounded(high)}
    left_out = len(draws) - 1 - len(defined)
    return {**found, "left_out": left_out} if left_out else found


def intervals(draws: Mapping[str, Array]) -> dict[str, Interval]:
    """Give every metric with its interval."""
    return {name: interval(values) for name, values in draws.items()}


def gains(ours: Mapping[str, Array], baseline: Mapping[str, Array]) -> dict[str, Interval]:
    """Give the paired differences with their intervals; above 0 ours is better, for errors too."""
    signs = {name: -1 if METRICS[name].lower_is_better else 1 for name in ours if name in baseline}
    return {name: interval(sign * (ours[name] - baseline[name])) for name, sign in signs.items()}


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
        found[name] = {**intervals(draws)}
        found[f"gain_over_{name}"] = gains(ours, draws)
    return found


def label_counts(truth: Index, classes: list[int]) -> dict[str, object]:
    """Describe an aspect's labels: n, how many of each class, and the prior, which is the share of good ones."""
    counts = {str(c): int((truth == c).sum()) for c in classes}
    prior = _rounded(is_good(truth, classes).mean())
    return {"classes": classes, "n": len(truth), "class_counts": counts, "label_prior": prior}


def reliability(good: NDArray[np.bool_], probability: Array, bins: int | None = None) -> list[dict[str, float | None]]:
    """Compare P(good) with the share of good labels in bins of like mass; equal probabilities share a bin.

    Args:
        good: (rows,) whether the label is good.
        probability: (repeats, rows) P(good); the repeats are pooled.
        bins: Their number; by default 10, or fewer so that each holds 20 rows.

    Returns:
        For each bin that holds rows, by rising probability: `predicted`, its mean probability, `observed`, its share
        of good labels, and `n`, its rows, on average over repeats. Empty if the method has no probabilities.
    """
    if np.isnan(probability).any():
        return []
    bins = bins or max(1, min(ECE_BINS, len(good) // BIN_ROWS))
    values, repeated, ones = probability.ravel(), np.tile(good, len(probability)), np.ones((1, probability.size))
    ties = weighted.Ties.of(values)
    bin_of_row = ties.bins(ones, bins)[0][ties.group]
    return [
        {
            "predicted": _rounded(values[here].mean()),
            "observed": _rounded(repeated[here].mean()),
            "n": _rounded(here.sum() / len(probability)),
        }
        for here in (bin_of_row == b for b in np.unique(bin_of_row))
    ]


def confusion(truth: Index, classes: list[int], predictions: Predictions) -> dict[str, list[int] | list[list[float]]]:
    """Count labels against scores, on average over repeats.

    Args:
        truth: (rows,) labels.
        classes: All scores, ascending.
        predictions: Of these rows.

    Returns:
        `classes`, and `matrix`: a row for each label, a column for each score.

    Raises:
        ValueError: A label or score is not among the classes.
    """
    matrix = np.zeros((len(classes), len(classes)))
    rows = [classes.index(label) for label in truth.tolist()]
    for scores in predictions.score.tolist():
        np.add.at(matrix, (rows, [classes.index(score) for score in scores]), 1 / len(predictions.score))
    return {"classes": classes, "matrix": np.round(matrix, 2).tolist()}


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
