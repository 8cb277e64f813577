"""A judge's probes, fitted on all labelled rows, and the folder that they are kept in."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from inspector_pipeline.decisions import PREFERENCE
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.familiarity import question_number
from inspector_pipeline.features import Feature
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..features.store import FeatureSet
from ..runs.manifest import Manifest, checked_sha256
from .calibration import Calibration, LogOdds, Rounding
from .familiarity import Familiar, FamiliarityConfig, find_familiar, unfamiliar_shares
from .preferences import Comparisons, PreferenceDesign, fit_preference
from .priors import design_of
from .search import Choice, fit_judge, search
from .settings import SearchConfig
from .table import Array, Index, Labels

STAGE = "fit"
PROBES_FILE = "probes.safetensors"
FITTED_ON_FILE = "fitted_on.safetensors"
CHOICE_FILE = "fit.json"


@dataclass(frozen=True)
class FittedAspect:
    """An aspect's probe.

    Attributes:
        name: The aspect.
        classes: Scores seen in the labels, ascending.
        n: Labels fitted on.
        counts_in_total: Whether it counts in the judge's total.
        features: What the probe reads, in the order of its weight.
        center: float64 (features x hidden,), taken off first.
        weight: float64 (features x hidden,).
        bias: Added last.
        calibration: From the value to score and probabilities.
    """

    name: str
    classes: list[Any]
    n: int
    counts_in_total: bool
    features: list[Feature]
    center: Array
    weight: Array
    bias: float
    calibration: Calibration | Rounding | LogOdds


@dataclass(frozen=True)
class Fitted:
    """What the fit stage writes and the export stage reads.

    Attributes:
        aspects: The probes.
        choice: What the search chose, as plain data.
        has_bias: Whether probes have centre and bias.
        readings: Name -> reading, as plain data.
        extract: The manifest of the features, as plain data.
        n_foreign: Pairs that were dropped since their question is not in the dataset.
        familiar: Which pairs are like the normal rows; None where that is not told.
        seen_questions: int64, ascending: the numbers of the questions of all rows, auxiliary ones too.
    """

    aspects: list[FittedAspect]
    choice: dict[str, Any]
    has_bias: bool
    readings: dict[str, dict[str, Any]]
    extract: dict[str, Any]
    n_foreign: int
    familiar: Familiar | None = None
    seen_questions: Index = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def fit(features: FeatureSet, config: SearchConfig, familiarity: FamiliarityConfig | None = None) -> Fitted:
    """Search and fit on all labelled rows.

    Args:
        features: The rows.
        config: What to choose from.
        familiarity: How to find out what is familiar; None leaves it out.

    Raises:
        DataFileError: There are too few labels, or the features lack what the search asks for.
    """
    comparisons = Comparisons.of(features.pairs)
    choices, aspects = list[Choice](), list[FittedAspect]()
    if not comparisons or any(pair.scores for pair in features.pairs):
        choices.append(_fit_levels(features, config, aspects))
    for name, compared in comparisons.items():
        if name in {aspect.name for aspect in aspects}:
            raise DataFileError(f"Expected one kind of label for each aspect, but {name} has levels and comparisons.")
        preferences = PreferenceDesign(features, compared)
        fitted = fit_preference(preferences, np.arange(len(compared.won)), config)
        read = preferences.design.features(fitted.view, name, fitted.depth)
        probe = preferences.probe(fitted)
        aspects.append(FittedAspect(name, [0, 1], len(compared.won), False, read, *probe, LogOdds()))
        choices.append(fitted.choice)
    used = {feature.reading for aspect in aspects for feature in aspect.features}
    readings = {name: reading.to_dict() for name, reading in features.readings.items() if name in used}
    return Fitted(
        aspects,
        described_choice(choices[0]),
        config.bias,
        readings,
        asdict(features.manifest),
        features.n_foreign,
        familiar_rows(features, [one for aspect in aspects for one in aspect.features], familiarity),
        np.unique([question_number(pair.question) for pair in features.pairs if pair.scores or comparisons]),
    )


def _fit_levels(features: FeatureSet, config: SearchConfig, aspects: list[FittedAspect]) -> Choice:
    """Fit the aspects whose labels are levels, add them, and return what was chosen."""
    labels = Labels.of(features.pairs, config.uncounted, config.good)
    design = design_of(features, labels, config)
    choice = search(design, labels, config)
    judge = fit_judge(design, labels, choice, config)
    aspects += [
        FittedAspect(
            name,
            labels.classes[a],
            int(((labels.aspect == a) & ~labels.auxiliary).sum()),
            labels.counted[a],
            design.features(choice.view, name, choice.depth),
            *judge.probe(design, a),
            judge.calibrations[a],
        )
        for a, name in enumerate(labels.names)
    ]
    return choice


def familiar_rows(features: FeatureSet, read: Sequence[Feature], config: FamiliarityConfig | None) -> Familiar | None:
    """Find out what is familiar, and how many auxiliary rows are not; None where that is not asked for."""
    found = find_familiar(features, [one for one in read if not one.is_check], config) if config else None
    if found is not None:
        found.report["auxiliary"] = unfamiliar_shares(found, features, auxiliary=True)
    return found


def described_choice(choice: Choice) -> dict[str, Any]:
    """Write the choice as plain data, with the keys that card and plots read."""
    return {
        "depth": choice.depth,
        "view": str(choice.view),
        "curve": {str(depth): round(value, 4) for depth, value in choice.curve.items()},
        "settings": [asdict(setting) for setting in choice.settings],
        "sweep": {view: {str(d): round(v, 4) for d, v in found.items()} for view, found in choice.sweep.items()},
        "tried_at_depth": {name: round(value, 4) for name, value in choice.tried.items()},
    }


def save_fitted(fitted: Fitted, folder: Path) -> None:
    """Write probes.safetensors and fit.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Array] = {}
    described = []
    for aspect in fitted.aspects:
        found = {**vars(aspect), **vars(aspect.calibration)}
        arrays = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}
        tensors |= {f"{aspect.name}.{key}": np.ascontiguousarray(array) for key, array in arrays.items()}
        plain = {key: found[key] for key in ("name", "classes", "n", "counts_in_total", "bias")}
        plain |= {"rule": PREFERENCE} if isinstance(aspect.calibration, LogOdds) else {}
        features = [asdict(feature) for feature in aspect.features]
        described.append({**plain, "features": features, "slope": found.get("slope")})
    save_file(tensors, folder / PROBES_FILE)
    familiar = fitted.familiar
    own = {} if familiar is None else {f"familiar.{name}": values for name, values in familiar.tensors.items()}
    save_file({**own, "seen_questions": fitted.seen_questions}, folder / FITTED_ON_FILE)
    kept = {key: getattr(fitted, key) for key in ("choice", "has_bias", "readings", "extract", "n_foreign")}
    limits = familiar and {"report": familiar.report, **familiar.config}
    write_atomically(folder / CHOICE_FILE, json_text({"aspects": described, **kept, "familiar": limits}))


def load_fitted(folder: str | Path) -> Fitted:
    """Read what the fit stage wrote.

    Raises:
        DataFileError: The folder is incomplete, or was changed.
    """
    folder = Path(folder)
    for name in Manifest.read(folder, STAGE).outputs:
        checked_sha256(folder / name)
    described, tensors = read_json(folder / CHOICE_FILE), load_file(folder / PROBES_FILE)
    aspects = []
    for entry in described.pop("aspects"):
        name, slope = entry["name"], entry.pop("slope")
        calibration: Calibration | Rounding | LogOdds = Rounding(entry["classes"])
        if entry.pop("rule", None) == PREFERENCE:
            calibration = LogOdds()
        if slope is not None:
            calibration = Calibration(slope, tensors[f"{name}.thresholds"], tensors[f"{name}.cuts"])
        entry["features"] = [Feature(**feature) for feature in entry["features"]]
        center, weight = tensors[f"{name}.center"], tensors[f"{name}.weight"]
        aspects.append(FittedAspect(**entry, center=center, weight=weight, calibration=calibration))
    limits, path = described.pop("familiar", None), folder / FITTED_ON_FILE
    fitted_on = load_file(path) if path.is_file() else {"seen_questions": np.empty(0, dtype=np.int64)}
    seen, familiar = fitted_on.pop("seen_questions"), None
    if limits is not None:
        features = [Feature(**feature) for feature in limits["features"]]
        own = {name.removeprefix("familiar."): values for name, values in fitted_on.items()}
        text = {name: (low, high) for name, (low, high) in limits["text"].items()}
        familiar = Familiar(features, own, limits["threshold"], text, limits["report"])
    return Fitted(aspects=aspects, **described, familiar=familiar, seen_questions=seen)
