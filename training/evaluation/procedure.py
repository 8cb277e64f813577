"""Which method of a comparison is a judge's own procedure, and the evidence that its kept predictions give."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json

from ..probing.settings import SearchConfig
from ..probing.table import Labels
from ..runs.manifest import Manifest, checked_sha256
from ..score_tokens.weights import TuningConfig
from .crossval import COMPARE, CURVE, LEARNING_CURVE, METHODS, read_predictions
from .evidence import judge_evidence, one_repeat, protocol
from .metrics import resamples

COMBINED = "combined"  # the method that stacks probes with score tokens
BOOTSTRAPS = 1000
SURFACE = "surface"


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
        states, tuning = made.settings["states"], TuningConfig(**made.settings["tuning"])
        tuned = bool(made.settings["labels"])
        if made.settings["validation"] or (tuned and checked_sha256(Path(pairs)) not in made.inputs.values()):
            raise DataFileError(
                f"{judge} expects layer weights that are uniform or tuned on {pairs}, as a comparison tunes them in "
                "its folds, but they were tuned on other rows. Make the judge again from these."
            )
        if states["layers"] == "last":
            return cls(f"lager_last_{states['decision']}", {}, (), uncounted)
        weights = tuning.method if tuned else "uniform"
        name = f"lager_{states['aggregation']}_{weights}_{states['decision']}"
        settings = {"adam": repr(tuning)} if weights == "adam" else {}
        return cls(name, settings, ("layer weights",) if tuned else (), uncounted)

    def differs(self, settings: dict[str, Any]) -> str | None:
        """Name a setting of the comparison that is another; None where there is none."""
        if tuple(settings["uncounted"]) != self.uncounted:
            return "the setting uncounted"
        settings = settings["method"]
        if "search" in self.settings:
            mine, usual = (json.loads(json.dumps(one)) for one in (self.settings["search"], asdict(SearchConfig())))
            theirs = {**usual, **settings["search"]}  # one that was written before a setting was there has its default
            return next((f"the search setting {key}" for key in mine if theirs[key] != mine[key]), None)
        told = str(settings["tuning"]) if self.settings else ""
        return None if all(f"'{key}': {own}" in told for key, own in self.settings.items()) else "the tuning"

    def files(self, folder: str | Path) -> list[Path]:
        """Name the files of a comparison that the evidence is made from."""
        path = Path(folder) / METHODS
        curve = path / f"{self.method}{CURVE}"
        return [*(path / f"{name}.json" for name in (self.method, SURFACE)), *([curve] if curve.is_file() else [])]

    def evidence(self, folder: str | Path, labels: Labels, inputs: Iterable[str | Path]) -> dict[str, Any]:
        """Measure what a comparison's folds predicted, in the form of the evaluate stage's results.json.

        Args:
            folder: Of the compare stage.
            labels: All labels of the aspects that count, as the comparison numbers them.
            inputs: What the judge is made from: the labelled rows, and the manifests of features and score tokens.

        Raises:
            DataFileError: The comparison has no such method or no surface baseline, or it is of other inputs or
                settings.
        """
        ours, surface, *curve = self.files(folder)
        settings = self._settings(ours, surface, inputs)
        predictions = {
            name: read_predictions(read_json(path), labels) for name, path in ((self.method, ours), (SURFACE, surface))
        }
        folds, seed = int(settings["folds"]), int(settings["seed"])
        measured = judge_evidence(predictions, labels, resamples(labels.question[~labels.auxiliary], BOOTSTRAPS, seed))
        mean = measured["mean"]
        points: list[dict[str, Any]] = []
        if curve and Manifest.read(curve[0], LEARNING_CURVE).settings["fold"] == settings:
            n_fitted = round((~labels.auxiliary).sum() * (1 - 1 / folds))
            points = read_json(curve[0])
            points = [*points, {"share": 1.0, "n": n_fitted, "auroc": mean["auroc"]}] if points else []
        metrics = [name for name in mean if "value" in mean[name]]
        described = protocol(one_repeat(folds, seed), list(self.chosen), metrics, BOOTSTRAPS)
        return {**measured, "learning_curve": points, "protocol": {**described, "settings": settings}}

    def _settings(self, method: Path, surface: Path, inputs: Iterable[str | Path]) -> dict[str, Any]:
        """Check that the comparison was of the same inputs and settings; return its own."""
        manifest, other = (Manifest.read(path, COMPARE) for path in (method, surface))
        missing = {checked_sha256(Path(one)) for one in inputs} - set(manifest.inputs.values())
        shared = [key for key in ("folds", "seed", "uncounted") if manifest.settings[key] != other.settings[key]]
        different = self.differs(manifest.settings)
        if missing or shared or different or not set(other.inputs.values()) <= set(manifest.inputs.values()):
            raise DataFileError(
                f"{method.parent} expects the comparison of this judge's own procedure, beside the surface baseline, "
                f"but {different or 'rows, features, score tokens or folds'} differs. Run python -m training compare "
                "with the same files and settings."
            )
        return manifest.settings
