"""Write a judge's folder from what the other stages made: probes, evidence, audit, plots, card.

    python -m training export --fit work/fit --results work/results.json --output work/judge

The judge's results.json is the evaluation's with the choice, the audit's summary and the published protocol's result
added; the card and the plots come from it and from nothing else.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME

from hub_cards.judge_card import JudgeCard
from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.truncation import truncated_config

from ..judges.build import fill_probes
from ..judges.plots import PlotsConfig, plots
from ..judges.port import ProbeWeights
from ..probing.calibration import Rounding
from ..runs.manifest import checked_sha256
from .audit import audit_summary
from .fit import Fitted, FittedAspect, load_fitted

logger = logging.getLogger(__name__)

STAGE = "export"
CARD_KEYS = {"sources", "meanings", "notes", "retrain", "cost"}


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
            license, teacher, generator, ...), meanings (aspect -> score -> words), notes, retrain, cost. Of several
            files, each goes before those left of it.
        name: What its card says to load it by: `embedded` or `embedded-fast` for those of the package; `./` and the
            output folder's name where not given. Pushed to the Hub, a judge gets a card with its id there.
        fused: Whether the truncated backbone goes into it.
    """

    fit: str
    results: str
    output: str
    audit: str | None = None
    reference: str | None = None
    card: str | tuple[str, ...] | None = None
    name: str | None = None
    fused: bool = False


def run(config: Config) -> InspectorModel:
    """Run the stage.

    Raises:
        DataFileError: An input is missing or was changed, or the results are not those of the fitted labels.
        BackboneError: The backbone cannot be loaded.
    """
    for path in filter(None, (config.results, config.audit)):
        checked_sha256(Path(path))
    fitted, results = load_fitted(config.fit), read_json(config.results)
    _check_results(fitted, results, config.results)
    model = build_judge(fitted)
    evidence = _evidence(fitted, results, config)
    write_judge(model, Path(config.output), evidence, config.audit, name=config.name, fused=config.fused)
    logger.info("Wrote a judge of depth %d to %s.", model.config.depth, config.output)
    return model


def write_judge(
    model: InspectorModel,
    output: Path,
    evidence: dict[str, Any],
    audit: str | None = None,
    *,
    name: str | None = None,
    fused: bool = False,
) -> None:
    """Write a judge's folder: config and weights, results.json, audit, plots and card.

    Args:
        model: A judge without its backbone.
        output: The folder; an older judge in it is replaced.
        evidence: The content of results.json.
        audit: audit.json of the audit stage.
        name: What its card says to load it by; `./` and the folder's name where not given.
        fused: Whether the truncated backbone goes into it.

    Raises:
        BackboneError: The backbone cannot be loaded.
    """
    if fused:
        backbone = load_backbone(model.config.backbone_id, model.config.backbone_revision, model.config.depth)
        model.set_backbone(backbone)
    scratch = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    scratch.mkdir(parents=True)
    model.save_pretrained(scratch, fused=fused)
    (scratch / "results.json").write_text(json_text(evidence), encoding="utf-8")
    if audit:
        shutil.copyfile(audit, scratch / "audit.json")
    drawn = [path.name for path in plots(PlotsConfig(str(scratch / "results.json"), str(scratch)))]
    card = JudgeCard.from_judge(model.config, evidence, judge=name or f"./{output.resolve().name}", plots=drawn)
    (scratch / "README.md").write_text(card.render(), encoding="utf-8")
    _put_in_place(scratch, output)


def _put_in_place(made: Path, output: Path) -> None:
    """Move a whole judge into its folder, its config last: a folder without one is no judge that could be loaded."""
    output.mkdir(exist_ok=True)
    for stale in (output / CONFIG_NAME, *output.glob("model*.safetensors*")):
        stale.unlink(missing_ok=True)
    for path in sorted(made.iterdir(), key=lambda path: path.name == CONFIG_NAME):
        os.replace(path, output / path.name)
    made.rmdir()


def _check_results(fitted: Fitted, results: Mapping[str, Any], path: str) -> None:
    found = {name: (entry["n"], entry["classes"]) for name, entry in results.get("aspects", {}).items()}
    expected = {aspect.name: (aspect.n, aspect.classes) for aspect in fitted.aspects}
    if found != expected:
        raise DataFileError(
            f"{path} expects the evaluation of the labels that were fitted, {expected}, but got {found}. Evaluate the "
            "same features."
        )


def _evidence(fitted: Fitted, results: dict[str, Any], config: Config) -> dict[str, Any]:
    reference = read_json(config.reference) if config.reference else {}
    cards = (config.card,) if isinstance(config.card, str) else config.card or ()
    told = {key: value for path in cards for key, value in read_card(path).items()}
    meanings = told.pop("meanings", {})
    aspects = {}
    for name, entry in results["aspects"].items():
        added = {"reference_protocol": reference[name]} if name in reference else {}
        added |= (
            {"meanings": {str(score): words for score, words in meanings[name].items()}} if name in meanings else {}
        )
        aspects[name] = {**entry, **added}
    audit = {"audit": audit_summary(read_json(config.audit))} if config.audit else {}
    made = {"judge": fitted.choice, "extract": fitted.extract, "n_foreign": fitted.n_foreign}
    return {**results, "aspects": aspects, **made, **audit, **told}


def read_card(path: str) -> dict[str, Any]:
    """Read what only a judge's maker knows, for its card.

    Raises:
        DataFileError: It cannot be read, or says other things than `CARD_KEYS`.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataFileError(f"Expected YAML or JSON for the card at {path}, but: {error}.") from error
    unknown = sorted(found.keys() - CARD_KEYS) if isinstance(found, dict) else ["no object"]
    if unknown:
        raise DataFileError(f"{path} expects an object of {', '.join(sorted(CARD_KEYS))}, but got {unknown[0]}.")
    return dict(found)


def build_judge(fitted: Fitted) -> InspectorModel:
    """Make the judge's config and fill its probes.

    Args:
        fitted: What the fit stage wrote.

    Returns:
        A judge without its backbone, whose weights are in float32.
    """
    settings = fitted.extract["settings"]
    depth = fitted.choice["depth"]
    rule = "ordinal" if fitted.has_bias else "regression"
    location, pinned = backbone_location(settings["backbone_id"], settings["backbone_revision"], depth)
    config = InspectorConfig(
        backbone_config=truncated_config(AutoConfig.from_pretrained(location, **pinned), depth),
        backbone_id=settings["backbone_id"],
        backbone_revision=settings["backbone_revision"],
        fused=False,
        depth=depth,
        readings=fitted.readings,
        aspects=[
            {
                "name": aspect.name,
                "features": [asdict(feature) for feature in aspect.features],
                "head": {"type": "linear", "rule": rule},
                "classes": aspect.classes,
                "counts_in_total": aspect.counts_in_total,
            }
            for aspect in fitted.aspects
        ],
        max_length=settings["max_length"],
        dtype=settings["dtype"],
    )
    model = InspectorModel(config)
    fill_probes(model, {aspect.name: _probe(aspect) for aspect in fitted.aspects})
    return model


def _probe(aspect: FittedAspect) -> ProbeWeights:
    weight, bias = aspect.weight[None], np.array([aspect.bias])
    calibration = aspect.calibration
    if isinstance(calibration, Rounding):
        levels = np.array(aspect.classes, dtype=np.float64)
        return ProbeWeights("regression", aspect.classes, aspect.center, weight, bias, {"levels": levels})
    parameters = {"thresholds": calibration.thresholds, "cuts": calibration.cuts}
    slope = calibration.slope
    return ProbeWeights("ordinal", aspect.classes, aspect.center, slope * weight, slope * bias, parameters)
