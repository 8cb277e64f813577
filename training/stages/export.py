"""Write a judge's folder: probes, evidence, audit, plots, card.

    python -m training export --fit work/fit --results work/results.json --output work/judge

The judge's results.json is the evaluation's with the choice, the audit's summary and the published protocol's result
added; the card and the plots come from it and from nothing else.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.decisions import PREFERENCE
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.int8 import STATE_ERROR, TORCH
from inspector_pipeline.modeling_inspector import InspectorModel

from ..judges.build import AspectHead, BackboneSpec, FittedOn, ProbeWeights, build_judge
from ..judges.write import read_card, write_judge
from ..probing.calibration import LogOdds, Rounding
from ..probing.fitted import Fitted, FittedAspect, load_fitted
from ..runs.manifest import checked_sha256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Settings of the export stage.

    Attributes:
        fit: Folder of the fit stage.
        results: results.json of the evaluate stage, for the same labels and search.
        output: The judge's folder.
        audit: audit.json of the audit stage.
        reference: reference.json of `python -m training fit --protocol reference` on the same labels.
        card: YAML or JSON with what only the judge's maker knows, for its card: sources (of the data: name, what,
            license, teacher, generator, ...), meanings (aspect -> score -> words), notes, retrain, cost; and what the
            stages degenerate, use, compare (compared.json) and rank_report wrote. Of several files, each goes before
            those left of it.
        name: What its card says to load it by: `embedded` for that of the package; `./` and the
            output folder's name where not given. Pushed to the Hub, a judge gets a card with its id there.
        fused: Whether the truncated backbone goes into it.
        rank_by: The field that it ranks responses by: expected_total, or expected_ and an aspect. Not given, it is
            expected_total where an aspect counts in the total, else the score of a first aspect of preferences.
    """

    fit: str
    results: str
    output: str
    audit: str | None = None
    reference: str | None = None
    card: str | tuple[str, ...] | None = None
    name: str | None = None
    fused: bool = False
    rank_by: str | None = None


def run(config: Config) -> InspectorModel:
    """Run the stage.

    Raises:
        DataFileError: An input is missing or was changed, or the results are not those of the fitted labels.
        BackboneError: The backbone cannot be loaded.
        JudgeConfigError: It cannot rank by that field; the message lists the choices.
    """
    for path in filter(None, (config.results, config.audit)):
        checked_sha256(Path(path))
    fitted, results = load_fitted(config.fit), read_json(config.results)
    found = {name: (entry["n"], entry["classes"]) for name, entry in results.get("aspects", {}).items()}
    expected = {aspect.name: (aspect.n, aspect.classes) for aspect in fitted.aspects}
    if found != expected:
        raise DataFileError(
            f"{config.results} expects the evaluation of the labels that were fitted, {expected}, but got {found}. "
            "Evaluate the same features."
        )
    settings = fitted.extract["settings"]
    backbone = BackboneSpec(*(settings[key] for key in ("backbone_id", "backbone_revision", "dtype", "max_length")))
    backbone = replace(backbone, engine=settings.get("engine", TORCH), state_error=_largest(settings.get(STATE_ERROR)))
    familiar = fitted.familiar
    tensors = familiar.tensors if familiar else {}
    fitted_on = FittedOn(familiar.config if familiar else None, tensors, fitted.seen_questions)
    told = results.get("labels", {}).get("aspects", {})
    heads = [_aspect_head(aspect, told.get(aspect.name, {}).get("words", ())) for aspect in fitted.aspects]
    rank_by = config.rank_by
    if rank_by is None and not any(head.counts_in_total for head in heads) and heads[0].head["rule"] == PREFERENCE:
        rank_by = f"expected_{heads[0].name}"
    model = build_judge(backbone, fitted.readings, heads, rank_by=rank_by, fitted_on=fitted_on)
    evidence = _evidence(fitted, results, config)
    write_judge(model, Path(config.output), evidence, audit=config.audit, name=config.name, fused=config.fused)
    logger.info("Wrote a judge of depth %d to %s.", model.config.depth, config.output)
    return model


def _evidence(fitted: Fitted, results: Mapping[str, Any], config: Config) -> dict[str, Any]:
    card, reference = read_card(config.card, config.audit), read_json(config.reference) if config.reference else {}
    told = results.get("labels", {}).get("aspects", {})
    words = {name: dict(enumerate(own["words"], start=1)) for name, own in told.items() if own.get("words")}
    meanings = {name: {str(level): word for level, word in own.items()} for name, own in words.items()}
    added = {"reference_protocol": reference, "meanings": {**meanings, **card.pop("meanings")}}
    aspects = {
        name: entry | {key: own[name] for key, own in added.items() if name in own}
        for name, entry in results["aspects"].items()
    }
    told = {"unfamiliar": fitted.familiar.report} if fitted.familiar else {}
    fit = {"judge": fitted.choice, **told, "extract": fitted.extract, "n_foreign": fitted.n_foreign}
    return {**results, "aspects": aspects, **fit, **card}


def _largest(errors: float | Sequence[float | None] | None) -> float | None:
    """Return the largest of what was measured in several folders of features."""
    known = [error for error in (errors if isinstance(errors, list) else [errors]) if isinstance(error, float)]
    return max(known, default=None)


def _aspect_head(aspect: FittedAspect, words: Sequence[str] = ()) -> AspectHead:
    """Fold the slope of an aspect's calibration into its probe; words are those of the scale's levels, 1, 2, ...."""
    classes, calibration = aspect.classes, aspect.calibration
    weight, bias = aspect.weight[None], np.array([aspect.bias])
    if isinstance(calibration, LogOdds):
        probe = ProbeWeights(PREFERENCE, classes, aspect.center, weight, bias)
    elif isinstance(calibration, Rounding):
        parameters = {"levels": np.array(classes, dtype=np.float64)}
        probe = ProbeWeights("regression", classes, aspect.center, weight, bias, parameters)
    else:
        parameters, slope = {"thresholds": calibration.thresholds, "cuts": calibration.cuts}, calibration.slope
        probe = ProbeWeights("ordinal", classes, aspect.center, slope * weight, slope * bias, parameters)
    head = {"type": "linear", "rule": probe.rule}
    named = [words[level - 1] for level in classes] if words else []
    return AspectHead(aspect.name, aspect.features, head, classes, probe, None, aspect.counts_in_total, named)
