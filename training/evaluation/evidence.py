"""The evidence of judges and of comparisons: quality with intervals and paired gains, in the form of results.json."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..probing.table import Array, Labels
from ..rows.records import is_good
from .cost import Cost
from .metrics import (
    DEFINITIONS,
    METRICS,
    UNSET,
    Predictions,
    Resamples,
    averaged,
    bootstrap,
    compared,
    confusion,
    gains,
    interval,
    label_counts,
    reliability,
    resamples,
)

Mask = NDArray[np.bool_]
Draws = Mapping[str, Array]  # of each metric, (resamples + 1,)

SHOWN = ("auroc", "spearman", "macro_f1", "qwk", "mae")
OF_PROBABILITIES = ("brier", "ece")


def judge_evidence(predictions: Mapping[str, Predictions], labels: Labels, samples: Resamples) -> dict[str, Any]:
    """Measure a judge on the labelled rows, aspect by aspect and on average, beside others on the same resamples.

    Args:
        predictions: The judge's first, then those of others; what predicts no row of an aspect is left out there.
        labels: The table; auxiliary rows are left out.
        samples: Of its questions.

    Returns:
        `aspects` and `mean`, over the aspects that count.
    """
    judge = next(iter(predictions))
    aspects: dict[str, Any] = {}
    draws: dict[str, list[Draws]] = {name: [] for name in predictions}
    for a, name in enumerate(labels.names):
        rows = np.flatnonzero((labels.aspect == a) & ~labels.auxiliary)
        if not len(rows):
            continue
        truth, classes, weights = labels.score[rows], labels.classes[a], samples.weights(labels.question[rows])
        taken = {method: found.take(rows) for method, found in predictions.items()}
        taken = {method: found for method, found in taken.items() if method == judge or (found.score != UNSET).any()}
        own: dict[str, Draws] = {m: bootstrap(truth, classes, found, weights) for m, found in taken.items()}
        bins = reliability(is_good(truth, classes), taken[judge].good_probability)
        if not bins:  # the judge says no P(good)
            own[judge] = {key: values for key, values in own[judge].items() if key not in OF_PROBABILITIES}
        for method, values in own.items():
            draws[method] += [values] if labels.counted[a] else []
        scale = sorted({*classes, *taken[judge].score.ravel().tolist()})  # a score may be none of the labels'
        aspects[name] = {
            **label_counts(truth, classes),
            "counts_in_total": labels.counted[a],
            **_beside(own),
            **({"reliability": bins} if bins else {}),
            "confusion": confusion(truth, scale, taken[judge]),
        }
    means = {method: averaged(values) for method, values in draws.items() if values}
    return {"aspects": aspects, "mean": _beside(means) if means else {}}


def set_evidence(
    predictions: Mapping[str, Predictions], labels: Labels, rows_of_set: Mask, bootstraps: int, seed: int
) -> dict[str, Any]:
    """Measure the first repeat on a set that was never fitted on; rows that no fold predicts are left out.

    Returns:
        Aspect -> what is measured, for the aspects with good and other labels.
    """
    judge, found = next(iter(predictions)), {}
    for a, name in enumerate(labels.names):
        rows = np.flatnonzero(rows_of_set & (labels.aspect == a) & (predictions[judge].score[0] != UNSET))
        truth, questions = labels.score[rows], labels.question[rows]
        classes = sorted({*labels.classes[a], *truth.tolist()})
        if len(np.unique(is_good(truth, classes))) == 2:
            weights = resamples(questions, bootstraps, seed).weights(questions)
            first = {method: one.take(rows, slice(1)) for method, one in predictions.items()}
            own = {method: bootstrap(truth, classes, one, weights) for method, one in first.items()}
            found[name] = {**label_counts(truth, classes), **_beside(own)}
    return found


def _beside(draws: Mapping[str, Draws]) -> dict[str, Any]:
    judge, *others = draws
    return {**compared(draws[judge], {name: draws[name] for name in others})}


def protocol(cross_validation: str, chosen: list[str], metrics: list[str], bootstraps: int) -> dict[str, Any]:
    """Say how a judge was measured."""
    return {
        "cross_validation": cross_validation,
        "chosen_inside_each_fold": chosen,
        "metrics": {name: DEFINITIONS[name] for name in metrics},
        "intervals": f"95 %, percentile, {bootstraps} resamples of questions",
    }


def one_repeat(folds: int, seed: int) -> str:
    """Say how rows are divided where there is one repeat."""
    return f"{folds} folds by question id over all aspects, stratified by label, seed {seed}; 1 repeat"


def mean_auroc(predictions: Predictions, labels: Labels, samples: Resamples) -> dict[str, float | None] | None:
    """Return the mean AUROC over the aspects that count and are predicted, with its interval; None where none is."""
    covered = _covered(predictions, labels) & np.array(labels.counted)[labels.aspect]
    draws = _draws(predictions, labels, covered, samples, ("auroc",))
    return interval(averaged(list(draws.values()))["auroc"]) if draws else None


class Outcome(NamedTuple):
    """What a method of a comparison gave.

    Attributes:
        predictions: One repeat, of every row of the table.
        told: Its description, budget and notes, and how many folds took how many seconds.
        cost: Of scoring a pair.
    """

    predictions: Predictions
    told: dict[str, Any]
    cost: Cost


def comparison_evidence(
    outcomes: Mapping[str, Outcome], labels: Labels, judge: str, samples: Resamples
) -> dict[str, Any]:
    """Measure all methods and compare the judge with each on the rows that both predict.

    Args:
        outcomes: Name -> what a method predicted.
        labels: The table.
        judge: Name of the method to compare with.
        samples: Of its questions.

    Returns:
        `judge`, and `methods`: name -> `aspects`, `mean` over the aspects that it predicts, `gain_of_judge` (with `p`),
        the same `gain_by_aspect`, `rows` and `rows_of`, cost, description, budget and notes.
    """
    theirs = outcomes[judge].predictions
    methods = {}
    for name, outcome in outcomes.items():
        covered = _covered(outcome.predictions, labels) & _covered(theirs, labels)
        own, ours = (_draws(found, labels, covered, samples) for found in (outcome.predictions, theirs))
        mean, judges_mean = (averaged(list(draws.values())) if draws else {} for draws in (own, ours))
        methods[name] = {
            **outcome.told,
            **vars(outcome.cost),
            "rows": int(covered.sum()),
            "rows_of": int((~labels.auxiliary).sum()),
            "aspects": {aspect: _intervals(draws) for aspect, draws in own.items()},
            "mean": _intervals(mean),
            "gain_of_judge": {} if name == judge else _gains(judges_mean, mean),
            "gain_by_aspect": {} if name == judge else {aspect: _gains(ours[aspect], own[aspect]) for aspect in own},
        }
    return {"judge": judge, "methods": methods}


def _covered(predictions: Predictions, labels: Labels) -> Mask:
    """Tell which labelled rows are predicted in the first repeat."""
    return np.asarray((predictions.score[0] != UNSET) & ~labels.auxiliary)


def _draws(
    predictions: Predictions, labels: Labels, covered: Mask, samples: Resamples, metrics: tuple[str, ...] = SHOWN
) -> dict[str, dict[str, Array]]:
    found = {}
    for a, name in enumerate(labels.names):
        rows = np.flatnonzero(covered & (labels.aspect == a))
        if len(rows):
            weights = samples.weights(labels.question[rows])
            found[name] = bootstrap(labels.score[rows], labels.classes[a], predictions.take(rows), weights, metrics)
    return found


def _intervals(draws: Draws) -> dict[str, Any]:
    return {name: interval(draws[name]) for name in SHOWN if name in draws}


def _gains(judge: Draws, other: Draws) -> dict[str, Any]:
    kept = {name: judge[name] for name in SHOWN if name in judge and name in other}
    found: dict[str, Any] = {**gains(kept, other)}
    for name in kept:
        sign = -1 if METRICS[name].lower_is_better else 1
        found[name]["p"] = _p_value(sign * (judge[name] - other[name])[1:])
    return found


def _p_value(draws: Array) -> float | None:
    """Double the smaller share of resamples on either side of 0; None where no resample defines the difference."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return None
    smaller = min((defined <= 0).sum(), (defined >= 0).sum())
    return round(float(min(1.0, 2 * (smaller + 1) / (len(defined) + 1))), 4)
