"""Write a judge's folder: probes, evidence, audit, plots, card.

    python -m training export --fit work/fit --results work/results.json --output work/judge

The judge's results.json is the evaluation's with the choice, the audit's summary and the published protocol's result
added; the card and the plots come from it and from nothing else.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.truncation import truncated_config

from ..audits.report import audit_summary
from ..judges.build import fill_probes
from ..judges.port import ProbeWeights
from ..judges.write import read_card, write_judge
from ..probing.calibration import Rounding
from ..probing.fitted import Fitted, FittedAspect, load_fitted
from ..runs.manifest import checked_sha256

logger = logging.getLogger(__name__)

STAGE = "export"


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
