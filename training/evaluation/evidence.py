"""The evidence of judges and of comparisons: quality with intervals and paired gains, in the form of results.json."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..probing.table import Array, Labels
from ..rows.records import Levels, is_good
from ..rows.scales import plain
from .cost import Cost
from .metrics import (
    DEFINITIONS,
    ECE_BINS,
    ECE_ROWS,
    UNSET,
    LabelArray,
    Mask,
    Predictions,
    Resamples,
    Ties,
    averaged,
    bootstrap,
    compared,
    gains,
    interval,
    intervals,
    resamples,
    rounded,
)

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
            **compared(own.pop(judge), own),
            **({"reliability": bins} if bins else {}),
            "confusion": confusion(truth, scale, taken[judge]),
        }
    means = {method: averaged(values) for method, values in draws.items() if values}
    return {"aspects": aspects, "mean": compared(means.pop(judge), means) if means else {}}


def by_generator(
    predictions: Predictions, labels: Labels, generators: NDArray[np.str_], samples: Resamples
) -> dict[str, dict[str, Any]]:
    """Give the AUROC on the responses of each generator, where two or more are known.

    Args:
        predictions: The judge's.
        labels: The table; auxiliary rows are left out.
        generators: (rows,) of the table, "" where not known.
        samples: Of its questions.

    Returns:
        Aspect -> generator -> `n` and `auroc`, of those with good and other labels.
    """
    found: dict[str, dict[str, Any]] = {}
    good = labels.positive
    for a, name in enumerate(labels.names):
        own = (labels.aspect == a) & ~labels.auxiliary & (generators != "")
        for generator in np.unique(generators[own]) if len(np.unique(generators[own])) > 1 else ():
            rows = np.flatnonzero(own & (generators == generator))
            if len(np.unique(good[rows])) == 2:
                weights = samples.weights(labels.question[rows])
                taken = (labels.score[rows], labels.classes[a], predictions.take(rows), weights)
                entry = {"n": len(rows), "auroc": interval(bootstrap(*taken, ("auroc",))["auroc"])}
                found.setdefault(name, {})[str(generator)] = entry
    return found


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
        known = labels.classes[a]
        classes = Levels(sorted({*known, *map(plain, truth.tolist())}), getattr(known, "good", None))
        if len(np.unique(is_good(truth, classes))) == 2:
            weights = resamples(questions, bootstraps, seed).weights(questions)
            first = {method: one.take(rows, slice(1)) for method, one in predictions.items()}
            own = {method: bootstrap(truth, classes, one, weights) for method, one in first.items()}
            found[name] = {**label_counts(truth, classes), **compared(own.pop(judge), own)}
    return found


def today() -> str:
    """Return the day, in UTC, that evidence keeps as the one that it was measured on: 2026-11-28."""
    return datetime.now(UTC).date().isoformat()


def protocol(cross_validation: str, chosen: list[str], metrics: list[str], bootstraps: int) -> dict[str, Any]:
    """Say how a judge was measured."""
    return {
        "date": today(),
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
            "aspects": {aspect: intervals(draws) for aspect, draws in own.items()},
            "mean": intervals(mean),
            "gain_of_judge": {} if name == judge else gains(judges_mean, mean, tested=True),
            "gain_by_aspect": {}
            if name == judge
            else {aspect: gains(ours[aspect], own[aspect], tested=True) for aspect in own},
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


def label_counts(truth: LabelArray, classes: list[Any]) -> dict[str, object]:
    """Describe an aspect's labels: n, how many of each class, and the prior, which is the share of good ones."""
    counts = {str(c): int((truth == c).sum()) for c in classes}
    prior = rounded(is_good(truth, classes).mean())
    return {"classes": classes, "n": len(truth), "class_counts": counts, "label_prior": prior}


def reliability(good: Mask, probability: Array) -> list[dict[str, float | None]]:
    """Compare P(good) with the share of good labels in bins of like mass; equal probabilities share a bin.

    Args:
        good: (rows,) whether the label is good.
        probability: (repeats, rows) P(good); the repeats are pooled.

    Returns:
        For each bin that holds rows, 10 or fewer so that each holds 20, by rising probability: `predicted`, its mean
        probability, `observed`, its share of good labels, and `n`, its rows, on average over repeats. Empty if the
        method has no probabilities.
    """
    if np.isnan(probability).any():
        return []
    bins = max(1, min(ECE_BINS, ECE_BINS * len(good) // ECE_ROWS))
    values, repeated, ties = probability.ravel(), np.tile(good, len(probability)), Ties.of(probability.ravel())
    bin_of_row = ties.bins(np.ones((1, len(values))), bins)[0][ties.group]
    return [
        {
            "predicted": rounded(values[here].mean()),
            "observed": rounded(repeated[here].mean()),
            "n": rounded(here.sum() / len(probability)),
        }
        for here in (bin_of_row == b for b in np.unique(bin_of_row))
    ]


def confusion(truth: LabelArray, classes: list[Any], predictions: Predictions) -> dict[str, Any]:
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
