"""Estimate a judge's quality: repeated K-fold CV nested around every choice, intervals, and the surface baseline.

python -m training.evaluate --features work/features --output work/results.json
"""

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from transformers.utils import logging as hf_logging

from training.extract import FeatureSet, load_features
from training.fit import Choice, FitConfig, Labels, auroc, calibrate, choose, fit_ridge, load_grams, question_folds
from training.probing_set import POSITIVE_SCORE, is_positive
from training.records import json_text
from training.stage import run
from training.surface import fit_surface, surface_features, surface_probabilities

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of the evaluate stage.

    Attributes:
        fit: Settings of the fit that is evaluated.
        folds: Outer folds, by question id over all aspects.
        repeats: Repetitions with other folds.
        bootstraps: Resamples of the questions for the intervals.
        seed: Of folds, forests and resamples.
        candidates_tried: How many other settings people looked at on this data before; said in the evidence.
    """

    fit: FitConfig = field(default_factory=FitConfig)
    folds: int = 5
    repeats: int = 3
    bootstraps: int = 1000
    seed: int = 731
    candidates_tried: int = 0


class Prediction(NamedTuple):
    """Predictions of rows in one repeat: mean scores, what a good label is ranked by, and scores; (rows,) each."""

    expected: Array
    good: Array
    score: Index


class OutOfFold(NamedTuple):
    """Predictions of one aspect's rows by fits that never saw their questions.

    Attributes:
        expected: (repeats, rows) mean scores.
        good: (repeats, rows) what a good label is ranked by.
        score: (repeats, rows) scores by the decision rule.
    """

    expected: Array
    good: Array
    score: Index

    def take(self, rows: Index) -> "OutOfFold":
        """Return some of the rows."""
        return OutOfFold(self.expected[:, rows], self.good[:, rows], self.score[:, rows])


def evaluate(features: FeatureSet, config: EvaluateConfig) -> dict[str, Any]:
    """Run the nested cross-validation.

    Args:
        features: Features of labelled pairs.
        config: Settings.

    Returns:
        The evidence, in the form of results.json.
    """
    labels = Labels.of(features)
    grams = load_grams(features, config.fit)
    surface = np.array([surface_features(pair) for pair in features.pairs])[labels.pair]
    judge, base = _blank(labels, config.repeats), _blank(labels, config.repeats)
    choices = []
    folds = [(r, f) for r in range(config.repeats) for f in question_folds(labels, config.folds, config.seed + r)]
    for repeat, (fit_rows, test_rows) in hf_logging.tqdm(folds, desc="evaluate", unit="fold"):
        train = labels.take(fit_rows)
        choice = choose(grams, train, config.fit)
        choices.append(choice)
        gram = grams[choice.depth]
        calibrations = calibrate(gram, train, choice, config.fit)
        ridge = fit_ridge(gram, train, choice.alpha, choice.sharing, config.fit)
        values = ridge.values(gram, labels.take(test_rows))
        for a, classes in enumerate(labels.classes):
            here = labels.aspect[test_rows] == a
            rows, scale = test_rows[here], np.array(classes)
            judge.expected[repeat, rows] = calibrations[a].probabilities(values[here]) @ scale
            judge.good[repeat, rows] = judge.expected[repeat, rows]
            judge.score[repeat, rows] = scale[calibrations[a].class_index(values[here])]
            own = fit_rows[labels.aspect[fit_rows] == a]
            forest = fit_surface(surface[own], labels.score[own], config.seed + repeat)
            probabilities = surface_probabilities(forest, surface[rows], classes)
            base.expected[repeat, rows] = probabilities @ scale
            good = fit_surface(surface[own], labels.positive[own].astype(np.int64), config.seed + repeat)
            base.good[repeat, rows] = surface_probabilities(good, surface[rows], [0, 1])[:, 1]
            base.score[repeat, rows] = scale[probabilities.argmax(axis=1)]
    return _results(config, labels, judge, base, choices)


def _blank(labels: Labels, repeats: int) -> OutOfFold:
    shape = (repeats, len(labels.score))
    return OutOfFold(np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=np.int64))


def _auroc(truth: Index, classes: list[int], predicted: Prediction) -> float:
    return auroc(is_positive(truth, classes), predicted.good)


def _macro_f1(truth: Index, classes: list[int], predicted: Prediction) -> float:
    f1 = []
    for c in classes:
        found, true = predicted.score == c, truth == c
        if found.any() or true.any():
            f1.append(2 * float((found & true).sum()) / float(found.sum() + true.sum()))
    return float(np.mean(f1))


def _spearman(truth: Index, classes: list[int], predicted: Prediction) -> float:
    expected = predicted.expected
    if np.ptp(expected) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(expected), rankdata(truth))[0, 1])


METRICS: Mapping[str, Callable[[Index, list[int], Prediction], float]] = {
    "auroc": _auroc,
    "macro_f1": _macro_f1,
    "spearman": _spearman,
}


def measure(truth: Index, classes: list[int], predicted: OutOfFold) -> dict[str, float]:
    """Compute every metric per repeat and average it over repeats."""
    repeats = [Prediction(*columns) for columns in zip(*predicted, strict=True)]
    return {name: float(np.mean([metric(truth, classes, one) for one in repeats])) for name, metric in METRICS.items()}


def _results(
    config: EvaluateConfig, labels: Labels, judge: OutOfFold, base: OutOfFold, choices: list[Choice]
) -> dict[str, Any]:
    samples = _resamples(labels, config)
    aspects: dict[str, Any] = {}
    draws = []
    for a, (name, classes) in enumerate(zip(labels.names, labels.classes, strict=True)):
        rows = np.flatnonzero(labels.aspect == a)
        truth = labels.score[rows]
        draws.append(_bootstrap(labels, rows, judge, base, samples))
        counts = {str(c): int((truth == c).sum()) for c in classes}
        aspects[name] = {"classes": classes, "n": len(rows), "class_counts": counts, **_compared(draws[-1])}
    depths = [choice.depth for choice in choices]
    return {
        "aspects": aspects,
        "mean": _compared({key: np.mean([draw[key] for draw in draws], axis=0) for key in draws[0]}),
        "protocol": {
            "cross_validation": (
                f"{config.folds} folds x {config.repeats} repeats, by question id over all aspects, stratified by label"
            ),
            "chosen_inside_each_fold": [
                "depth",
                "ridge penalty",
                "sharing between aspects",
                "thresholds",
                "cuts",
                "centres",
            ],
            "auroc": f"of score >= {POSITIVE_SCORE} (1 of 0 and 1), by expected score; per repeat, then averaged",
            "intervals": f"95 %, percentile, {config.bootstraps} resamples of questions",
            "surface": (
                "random forests on ten surface features of the text, in the same folds: one fitted on good against "
                "other labels for AUROC, one on the scores for the rest"
            ),
            "depths_chosen": {str(depth): depths.count(depth) for depth in sorted(set(depths))},
            "settings": asdict(config),
        },
        "candidates_tried": config.candidates_tried,
    }


def _resamples(labels: Labels, config: EvaluateConfig) -> list[dict[str, int]]:
    """Draw questions with replacement: question id -> how often, for each resample; the first is the sample itself."""
    rng = np.random.default_rng(config.seed)
    unique = np.unique(labels.question)
    drawn = [unique, *(rng.choice(unique, len(unique)) for _ in range(config.bootstraps))]
    return [dict(zip(*np.unique(sample, return_counts=True), strict=True)) for sample in drawn]


def _bootstrap(
    labels: Labels, rows: Index, judge: OutOfFold, base: OutOfFold, samples: list[dict[str, int]]
) -> dict[str, Array]:
    """Return every metric of judge and baseline on every resample of an aspect's rows, (resamples + 1,) each."""
    classes = labels.classes[labels.aspect[rows[0]]]
    draws: dict[str, list[float]] = {}
    for counts in samples:
        take = np.repeat(rows, [counts.get(question, 0) for question in labels.question[rows]])
        for prefix, predicted in (("", judge), ("surface_", base)):
            for name, value in measure(labels.score[take], classes, predicted.take(take)).items():
                draws.setdefault(prefix + name, []).append(value)
    return {name: np.array(values) for name, values in draws.items()}


def _compared(draws: Mapping[str, Array]) -> dict[str, Any]:
    """Give every metric with its interval, the baseline's beside it, and the paired gain."""
    return {
        **{name: interval(draws[name]) for name in METRICS},
        "surface": {name: interval(draws[f"surface_{name}"]) for name in METRICS},
        "gain_over_surface": {name: interval(draws[name] - draws[f"surface_{name}"]) for name in METRICS},
    }


def interval(draws: Array) -> dict[str, float]:
    """Give the value (the first draw) with the 95 % percentile interval of the others."""
    low, high = np.nanpercentile(draws[1:], [2.5, 97.5])
    return {"value": round(float(draws[0]), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def report(results: Mapping[str, Any]) -> str:
    """Write the AUROC of every aspect as a table for people."""
    lines = []
    for name, entry in [*results["aspects"].items(), ("mean", results["mean"])]:
        ours, base, gain = entry["auroc"], entry["surface"]["auroc"], entry["gain_over_surface"]["auroc"]
        lines.append(
            f"{name:<22} AUROC {ours['value']:.3f} ({ours['low']:.3f} to {ours['high']:.3f})"
            f"   surface {base['value']:.3f}   gain {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse arguments and run the stage."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--features", required=True, help="folder of the extract stage")
    parser.add_argument("--output", required=True, help="results.json to write")
    parser.add_argument("--candidates-tried", type=int, default=0, help="settings looked at on this data before")
    args = parser.parse_args()
    results = evaluate(load_features(args.features), EvaluateConfig(candidates_tried=args.candidates_tried))
    Path(args.output).write_text(json_text(results), encoding="utf-8")
    logger.info(report(results))


if __name__ == "__main__":
    run(main)
