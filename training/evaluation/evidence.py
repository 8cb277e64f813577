"""The evidence of a judge of score tokens, combined or plain: what a comparison of its own procedure predicted."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json

from ..probing.search import SearchConfig
from ..probing.table import Labels
from ..rows.records import is_good
from ..runs.manifest import Manifest, checked_sha256
from ..score_tokens.weights import TuningConfig
from .comparison import COMBINED, CURVE, LEARNING_CURVE, METHODS, read_predictions
from .comparison import STAGE as COMPARE
from .metrics import (
    DEFINITIONS,
    averaged,
    bootstrap,
    compared,
    confusion,
    interval,
    label_counts,
    reliability,
    resamples,
)

BOOTSTRAPS = 1000
SURFACE = "surface"
OF_PROBABILITIES = ("brier", "ece")
TUNED = ("layer weights",)


@dataclass(frozen=True)
class Procedure:
    """A method of a comparison, as a judge's own settings name it.

    Attributes:
        method: Its name.
        settings: What its settings in the comparison are to be: those of `method`, or of its `search`.
        chosen: What it chooses inside each fold.
        uncounted: Aspects that it leaves out.
    """

    method: str
    settings: dict[str, Any]
    chosen: tuple[str, ...]
    uncounted: tuple[str, ...]

    @classmethod
    def combined(cls, search: SearchConfig) -> "Procedure":
        """Probes, found by a search, that are stacked with score tokens."""
        chosen = ("poolings", "depth", "head", "penalties", "weights of the stack", "cuts")
        return cls(COMBINED, {"search": asdict(search)}, chosen, search.uncounted)

    @classmethod
    def lager(cls, judge: str | Path, pairs: str | Path, uncounted: tuple[str, ...]) -> "Procedure":
        """Score tokens alone, as the lager stage made them.

        Args:
            judge: Folder of that stage.
            pairs: The rows of the comparison.
            uncounted: Aspects that it leaves out.

        Raises:
            DataFileError: The layer weights were tuned on other rows than these, which no comparison does.
        """
        made = Manifest.read(Path(judge), "lager")
        states, tuned_on = made.settings["states"], set(made.inputs.values())
        tuning = TuningConfig(**made.settings["tuning"])
        if made.settings["validation"] or (made.settings["labels"] and checked_sha256(Path(pairs)) not in tuned_on):
            raise DataFileError(
                f"{judge} expects layer weights that are uniform or tuned on {pairs}, as a comparison tunes them in "
                "its folds, but they were tuned on other rows. Make the judge again from these."
            )
        if states["layers"] == "last":
            return cls(f"lager_last_{states['decision']}", {}, (), uncounted)
        weights = tuning.method if made.settings["labels"] else "uniform"
        name = f"lager_{states['aggregation']}_{weights}_{states['decision']}"
        settings = {"adam": repr(tuning)} if weights == "adam" else {}
        return cls(name, settings, () if weights == "uniform" else TUNED, uncounted)

    def differs(self, settings: dict[str, Any]) -> str | None:
        """Name a setting of the comparison that is another; None where there is none."""
        if tuple(settings["uncounted"]) != self.uncounted:
            return "the setting uncounted"
        settings = settings["method"]
        if "search" in self.settings:
            mine, theirs = json.loads(json.dumps(self.settings["search"])), settings["search"]
            return next((f"the search setting {key}" for key in mine if theirs.get(key) != mine[key]), None)
        told = str(settings["tuning"]) if self.settings else ""
        return None if all(f"'{key}': {own}" in told for key, own in self.settings.items()) else "the tuning"


def comparison_files(folder: str | Path, method: str) -> list[Path]:
    """Name the files of a comparison that the evidence is made from."""
    path = Path(folder) / METHODS
    curve = path / f"{method}{CURVE}"
    return [*(path / f"{name}.json" for name in (method, SURFACE)), *([curve] if curve.is_file() else [])]


def comparison_evidence(
    folder: str | Path, labels: Labels, procedure: Procedure, inputs: Iterable[str | Path]
) -> dict[str, Any]:
    """Measure what a comparison's folds predicted, in the form of the evaluate stage's results.json.

    Args:
        folder: Of the compare stage.
        labels: All labels of the aspects that count, as the comparison numbers them.
        procedure: The judge's own.
        inputs: Files that the judge is made from: the labelled rows, and the manifests of features and score tokens.

    Raises:
        DataFileError: The comparison has no such method or no surface baseline, or it is of other inputs or settings.
    """
    path = Path(folder) / METHODS
    settings, method = _settings(path, procedure, inputs), procedure.method
    predictions = {
        name: read_predictions(read_json(path / f"{name}.json"), len(labels.score)) for name in (method, SURFACE)
    }
    seed = int(settings["seed"])
    samples = resamples(labels.question[~labels.auxiliary], BOOTSTRAPS, seed)
    aspects, draws = {}, []
    for a in np.unique(labels.aspect):
        name, classes = labels.names[a], labels.classes[a]
        rows = np.flatnonzero((labels.aspect == a) & ~labels.auxiliary)
        truth, weights = labels.score[rows], samples.weights(labels.question[rows])
        own = {key: bootstrap(truth, classes, found.take(rows), weights) for key, found in predictions.items()}
        judge = predictions[method].take(rows)
        scale = sorted({*classes, *judge.score.ravel().tolist()})  # a score may be none of the labels'
        bins = reliability(is_good(truth, classes), judge.good_probability)
        if not bins:  # score tokens say no P(good)
            own[method] = {key: found for key, found in own[method].items() if key not in OF_PROBABILITIES}
        draws.append(own)
        aspects[name] = {
            **label_counts(truth, classes),
            **compared(own[method], {SURFACE: own[SURFACE]}),
            **({"reliability": bins} if bins else {}),
            "confusion": confusion(truth, scale, judge),
        }
    means = {key: averaged([own[key] for own in draws]) for key in predictions}
    curve = _curve(path / f"{method}{CURVE}", settings)
    n_fitted = round((~labels.auxiliary).sum() * (1 - 1 / int(settings["folds"])))
    last = {"share": 1.0, "n": n_fitted, "auroc": interval(means[method]["auroc"])}
    return {
        "aspects": aspects,
        "mean": compared(means[method], {SURFACE: means[SURFACE]}),
        "learning_curve": [*curve, last] if curve else [],
        "protocol": _protocol(settings, procedure, list(means[method])),
    }


def _settings(path: Path, procedure: Procedure, inputs: Iterable[str | Path]) -> dict[str, Any]:
    """Check that the comparison was of the same inputs and settings; return its own."""
    manifest, surface = (Manifest.read(path / f"{name}.json", COMPARE) for name in (procedure.method, SURFACE))
    others = {checked_sha256(Path(one)) for one in inputs} - set(manifest.inputs.values())
    shared = [key for key in ("folds", "seed", "uncounted") if manifest.settings[key] != surface.settings[key]]
    different = procedure.differs(manifest.settings)
    if others or shared or different or not set(surface.inputs.values()) <= set(manifest.inputs.values()):
        what = different or "rows, features, score tokens or folds"
        raise DataFileError(
            f"{path} expects the comparison of this judge's own procedure, beside the surface baseline, but {what} "
            "differs. Run python -m training compare with the same files and settings."
        )
    return manifest.settings


def _curve(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read a learning curve; none where there is none of these settings."""
    if not path.is_file() or Manifest.read(path, LEARNING_CURVE).settings["fold"] != settings:
        return []
    points: list[dict[str, Any]] = read_json(path)
    return points


def _protocol(settings: dict[str, Any], procedure: Procedure, metrics: list[str]) -> dict[str, Any]:
    return {
        "cross_validation": f"{settings['folds']} folds by question id over all aspects, stratified by label, seed "
        f"{settings['seed']}; 1 repeat",
        "chosen_inside_each_fold": list(procedure.chosen),
        "metrics": {name: DEFINITIONS[name] for name in metrics},
        "intervals": f"95 %, percentile, {BOOTSTRAPS} resamples of questions",
        "settings": settings,
    }
