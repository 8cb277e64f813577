"""Fit the judge on all labelled pairs by the evaluated procedure and write its folder.

python -m training.export --features work/features --results work/results.json --output work/judge
"""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from hub_cards.judge_card import JudgeCard
from inspector_pipeline import InspectorConfig, InspectorModel
from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.truncation import truncated_config
from training.assemble import fill_probes
from training.extract import READING_NAME, FeatureSet, load_features
from training.fit import (
    Calibration,
    Choice,
    FitConfig,
    JointRidge,
    Labels,
    calibrate,
    choose,
    design,
    fit_ridge,
    load_grams,
)
from training.porting import PortedProbe
from training.records import json_text, read_json
from training.stage import run

logger = logging.getLogger(__name__)


def export(
    features: FeatureSet,
    results: dict[str, Any],
    output: Path,
    *,
    fused: bool = False,
    reference: dict[str, Any] | None = None,
) -> InspectorModel:
    """Fit on all pairs and write the judge: config.json, model.safetensors, results.json, README.md and its code.

    Args:
        features: What the extract stage wrote.
        results: What the evaluate stage wrote, for the same features and settings.
        output: The judge's folder.
        fused: Whether the truncated backbone goes into it.
        reference: What the published protocol gave on the same labels, by aspect, to stand in the evidence.

    Returns:
        The judge, without its backbone unless fused.

    Raises:
        DataFileError: The results are of other labels.
    """
    labels = Labels.of(features)
    if {name: entry["n"] for name, entry in results["aspects"].items()} != _counts(labels):
        raise DataFileError(
            "results.json expects the labels of the features given, but names others. Run evaluate again."
        )
    config = FitConfig(**{k: _tuple(v) for k, v in results["protocol"]["settings"]["fit"].items()})
    grams = load_grams(features, config)
    choice = choose(grams, labels, config)
    ridge = fit_ridge(grams[choice.depth], labels, choice.alpha, choice.sharing, config)
    calibrations = calibrate(grams[choice.depth], labels, choice, config)
    model = _build(features, labels, config, choice, ridge, calibrations)
    if fused:
        model.set_backbone(load_backbone(model.config.backbone_id, model.config.backbone_revision, choice.depth))
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output, fused=fused)
    aspects = {name: {**entry, **_of_reference(reference, name)} for name, entry in results["aspects"].items()}
    evidence = {
        **results,
        "aspects": aspects,
        "judge": asdict(choice),
        "extract": asdict(features.manifest),
        "n_foreign": features.n_foreign,
    }
    (output / "results.json").write_text(json_text(evidence), encoding="utf-8")
    card = JudgeCard.from_judge(model.config, evidence)
    (output / "README.md").write_text(card.render(), encoding="utf-8")
    return model


def _of_reference(reference: dict[str, Any] | None, name: str) -> dict[str, Any]:
    return {"reference_protocol": reference[name]} if reference and name in reference else {}


def _counts(labels: Labels) -> dict[str, int]:
    return {name: int((labels.aspect == a).sum()) for a, name in enumerate(labels.names)}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _build(
    features: FeatureSet,
    labels: Labels,
    config: FitConfig,
    choice: Choice,
    ridge: JointRidge,
    calibrations: list[Calibration],
) -> InspectorModel:
    """Make the judge's config and fill its probes."""
    settings = features.manifest.settings
    layers = list(range(1, choice.depth + 1))
    read = [
        {"reading": READING_NAME, "layer": layer, "pooling": pooling, "state": settings["state"]}
        for layer in layers
        for pooling in config.poolings
    ]
    location, pinned = backbone_location(settings["backbone_id"], settings["backbone_revision"], choice.depth)
    judge = InspectorConfig(
        backbone_config=truncated_config(AutoConfig.from_pretrained(location, **pinned), choice.depth),
        backbone_id=settings["backbone_id"],
        backbone_revision=settings["backbone_revision"],
        fused=False,
        depth=choice.depth,
        readings={READING_NAME: features.reading.to_dict()},
        aspects=[
            {
                "name": name,
                "features": read,
                "head": {"type": "linear", "rule": "ordinal"},
                "classes": classes,
                "counts_in_total": True,
            }
            for name, classes in zip(labels.names, labels.classes, strict=True)
        ],
        max_length=settings["max_length"],
        dtype=settings["dtype"],
    )
    model = InspectorModel(judge)
    x = design(features, config, layers)
    common = x[labels.pair].mean(axis=0)
    probes = {}
    for a, name in enumerate(labels.names):
        own_center, weight = ridge.weight(x, a)
        slope = calibrations[a].slope
        bias = slope * (ridge.target_mean[a] + float((common - own_center) @ weight))
        parameters = {"thresholds": calibrations[a].thresholds, "cuts": calibrations[a].cuts}
        probe = PortedProbe("ordinal", labels.classes[a], common, slope * weight[None], np.array([bias]), parameters)
        probes[name] = probe
    fill_probes(model, probes)
    return model


def main() -> None:
    """Parse arguments and run the stage."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("--features", required=True, help="folder of the extract stage")
    parser.add_argument("--results", required=True, help="results.json of the evaluate stage")
    parser.add_argument("--output", required=True, help="the judge's folder")
    parser.add_argument("--reference", help="JSON of python -m training.reference_protocol on the same labels")
    parser.add_argument("--fused", action="store_true", help="put the truncated backbone into it")
    args = parser.parse_args()
    reference = read_json(args.reference) if args.reference else None
    features, results = load_features(args.features), read_json(args.results)
    model = export(features, results, Path(args.output), fused=args.fused, reference=reference)
    logger.info("Wrote a judge of depth %d to %s.", model.config.depth, args.output)


if __name__ == "__main__":
    run(main)
