"""The evidence of a combined judge: what a comparison of the same inputs predicted by the same procedure."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from training.comparison import COLUMNS, COMBINED, METHODS
from training.comparison import STAGE as COMPARE
from training.labels import Labels
from training.manifest import Manifest, checked_sha256
from training.metrics import (
    DEFINITIONS,
    METRICS,
    Predictions,
    averaged,
    bootstrap,
    compared,
    confusion,
    interval,
    label_counts,
    reliability,
    resamples,
)
from training.probing_set import is_positive
from training.records import read_json
from training.search import SearchConfig

BOOTSTRAPS = 1000
SURFACE = "surface"


def comparison_files(folder: str | Path) -> list[Path]:
    """Name the files of a comparison that the evidence is made from."""
    return [Path(folder) / METHODS / f"{name}.json" for name in (COMBINED, SURFACE)]


def comparison_evidence(
    folder: str | Path, labels: Labels, search: SearchConfig, inputs: Iterable[str | Path]
) -> dict[str, Any]:
    """Measure what a comparison's folds predicted, in the form of the evaluate stage's results.json.

    Args:
        folder: Of the compare stage.
        labels: All labels of the aspects that count, as the comparison numbers them.
        search: What the judge was searched by.
        inputs: Files that the judge is made from: the labelled rows, and the manifests of features and score tokens.

    Raises:
        DataFileError: The comparison has no such method or no surface baseline, or it is of other inputs or settings.
    """
    path = Path(folder) / METHODS
    settings = _settings(path, search, inputs)
    predictions = {name: _predictions(path / f"{name}.json", labels) for name in (COMBINED, SURFACE)}
    seed = int(settings["seed"])
    samples = resamples(labels.question[~labels.auxiliary], BOOTSTRAPS, seed)
    aspects, draws = {}, []
    for a in np.unique(labels.aspect):
        name, classes = labels.names[a], labels.classes[a]
        rows = np.flatnonzero((labels.aspect == a) & ~labels.auxiliary)
        truth, weights = labels.score[rows], samples.weights(labels.question[rows])
        own = {key: bootstrap(truth, classes, found.take(rows), weights) for key, found in predictions.items()}
        draws.append(own)
        judge = predictions[COMBINED].take(rows)
        aspects[name] = {
            **label_counts(truth, classes),
            **compared(own[COMBINED], {SURFACE: own[SURFACE]}),
            "reliability": reliability(is_positive(truth, classes), judge.good_probability),
            "confusion": confusion(truth, classes, judge),
        }
    means = {key: averaged([own[key] for own in draws]) for key in predictions}
    curve = path / f"{COMBINED}.curve.json"
    n_fitted = round((~labels.auxiliary).sum() * (1 - 1 / int(settings["folds"])))
    last = {"share": 1.0, "n": n_fitted, "auroc": interval(means[COMBINED]["auroc"])}
    return {
        "aspects": aspects,
        "mean": compared(means[COMBINED], {SURFACE: means[SURFACE]}),
        "learning_curve": [*read_json(curve), last] if curve.is_file() else [],
        "protocol": _protocol(settings),
    }


def _settings(path: Path, search: SearchConfig, inputs: Iterable[str | Path]) -> dict[str, Any]:
    """Check that the comparison was of the same inputs and settings; return its own."""
    manifest, surface = (Manifest.read(path / f"{name}.json", COMPARE) for name in (COMBINED, SURFACE))
    others = {checked_sha256(Path(one)) for one in inputs} - set(manifest.inputs.values())
    shared = [key for key in ("folds", "seed", "uncounted") if manifest.settings[key] != surface.settings[key]]
    searched = manifest.settings["method"]["search"]
    mine = json.loads(json.dumps(asdict(search)))
    different = [key for key in mine if searched.get(key) != mine[key]]
    if others or shared or different or not set(surface.inputs.values()) <= set(manifest.inputs.values()):
        what = f"the search setting {different[0]}" if different else "rows, features, score tokens or folds"
        raise DataFileError(
            f"{path} expects the comparison of this judge's own procedure, beside the surface baseline, but {what} "
            "differs. Run python -m training.compare with the same files and settings."
        )
    return manifest.settings


def _predictions(path: Path, labels: Labels) -> Predictions:
    data = read_json(path)
    found = Predictions.blank(1, len(labels.score))
    for name in COLUMNS:
        column = getattr(found, name)
        column[0, data["rows"]] = np.array(data[name], dtype=column.dtype)
    return found


def _protocol(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "cross_validation": f"{settings['folds']} folds by question id over all aspects, stratified by label, seed "
        f"{settings['seed']}; 1 repeat",
        "chosen_inside_each_fold": ["poolings", "depth", "head", "penalties", "weights of the stack", "cuts"],
        "metrics": {name: DEFINITIONS[name] for name in METRICS},
        "intervals": f"95 %, percentile, {BOOTSTRAPS} resamples of questions",
        "settings": settings,
    }
