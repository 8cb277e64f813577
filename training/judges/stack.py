"""Build a combined judge from one of score tokens and fitted probes: an aspect with labels gets a stacked head."""

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoConfig

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import HEADS, Aspect, InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.heads import ScoreTokens, StackedHead, probe_key
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.truncation import truncated_config

from ..features.store import RUBRIC_PREFIX, FeatureSet
from ..probing.kernels import Design
from ..probing.table import Array
from ..score_tokens.stack import Combination
from .build import fill_probes
from .port import ProbeWeights

SCORE_PREFIX = "score:"  # and an aspect: a reading that ends right before the score; no extracted one is named so


def check_same_backbone(config: InspectorConfig, features: FeatureSet) -> None:
    """Refuse features that were not read from a judge's backbone.

    Args:
        config: The judge's.
        features: The features.

    Raises:
        DataFileError: They are of another backbone or dtype, or of pairs that were cut at another length.
    """
    settings = features.manifest.settings
    used = settings["backbone"]
    dtype = str(config.dtype).removeprefix("torch.")
    ours = (config.backbone_id, config.backbone_revision, dtype, config.max_length)
    theirs = (used["id"], used["revision"], used["dtype"], settings["max_length"])
    names = ("backbone_id", "backbone_revision", "dtype", "max_length")
    for name, expected, found in zip(names, ours, theirs, strict=True):
        if expected != found:
            raise DataFileError(
                f"A combined judge expects features and score tokens of one backbone, but {name} is {found!r} for the "
                f"features and {expected!r} for the score tokens. Make one of them again."
            )


def build_combined(
    tokens: InspectorModel, design: Design | None, fitted: Combination | None, uncounted: Collection[str] = ()
) -> InspectorModel:
    """Make a judge of stacked heads.

    Args:
        tokens: A judge of score tokens, without or with its backbone.
        design: The features that the probes were fitted on; None where there are none.
        fitted: Probes and stack; None where there are none.
        uncounted: Aspects that do not count in the total.

    Returns:
        A judge without its backbone. Aspects that were not fitted have the head that they have in `tokens`.
    """
    names = {} if fitted is None else {fitted.judge.labels.names[a]: a for a in fitted.calibrations}
    described = [
        _described(aspect, design, fitted, names[aspect.name])
        if design is not None and fitted is not None and aspect.name in names
        else _kept(aspect)
        for aspect in tokens.aspects
    ]
    for entry in described:
        entry["counts_in_total"] = entry["counts_in_total"] and entry["name"] not in uncounted
    model = InspectorModel(_config(tokens.config, design, described))
    probes = {}
    for aspect in model.aspects:
        theirs = cast(ScoreTokens, tokens.probes[probe_key(aspect.name)])
        own = model.probes[probe_key(aspect.name)]
        if design is not None and fitted is not None and aspect.name in names:
            probes[aspect.name], weights = _folded(design, fitted, names[aspect.name])
            _fill_tokens(cast(StackedHead, own), theirs, weights)
        else:
            own.load_state_dict(theirs.state_dict())
    fill_probes(model, probes)
    return model


def _config(tokens: InspectorConfig, design: Design | None, aspects: list[dict[str, Any]]) -> InspectorConfig:
    """Describe the judge: as deep as its deepest feature, with the readings that its aspects read."""
    depth = max(1, *(feature["layer"] for entry in aspects for feature in entry["features"]))
    read = {feature["reading"] for entry in aspects for feature in entry["features"]}
    readings = {_score_reading(name): reading for name, reading in tokens.readings.items()}
    if design is not None:
        readings |= {name: reading.to_dict() for name, reading in design.data.readings.items()}
    location, pinned = backbone_location(tokens.backbone_id, tokens.backbone_revision, depth)
    return InspectorConfig(
        backbone_config=truncated_config(AutoConfig.from_pretrained(location, **pinned), depth),
        backbone_id=tokens.backbone_id,
        backbone_revision=tokens.backbone_revision,
        fused=False,
        depth=depth,
        readings={name: reading for name, reading in readings.items() if name in read},
        aspects=aspects,
        max_length=tokens.max_length,
        format_version=max(HEADS[entry["head"]["type"]] for entry in aspects),
        dtype=tokens.dtype,
    )


def _score_reading(name: str) -> str:
    """Rename a reading of score tokens, since extracted features may be of another reading of that name."""
    return f"{SCORE_PREFIX}{name.removeprefix(RUBRIC_PREFIX)}"


def _token_features(aspect: Aspect) -> list[dict[str, Any]]:
    return [asdict(replace(feature, reading=_score_reading(feature.reading))) for feature in aspect.features]


def _kept(aspect: Aspect) -> dict[str, Any]:
    head = {name: getattr(aspect.head, name) for name in ("type", "rule", "aggregation")}
    head["token_ids"] = list(aspect.head.token_ids)
    return {
        "name": aspect.name,
        "features": _token_features(aspect),
        "head": head,
        "classes": list(aspect.classes),
        "counts_in_total": aspect.counts_in_total,
    }


def _described(aspect: Aspect, design: Design, fitted: Combination, number: int) -> dict[str, Any]:
    choice = fitted.judge.choice
    read = [asdict(feature) for feature in design.features(choice.view, aspect.name, choice.depth)]
    head = {
        "type": "stacked",
        "rule": "ordinal",
        "token_ids": list(aspect.head.token_ids),
        "n_probe_features": len(read),
    }
    classes = fitted.judge.labels.classes[number]
    return {**_kept(aspect), "features": read + _token_features(aspect), "head": head, "classes": classes}


def _folded(design: Design, fitted: Combination, aspect: int) -> tuple[ProbeWeights, Array]:
    """Fold probe, stack and the calibration's slope into one linear map, in float64: the probe and layers' weights."""
    center, weight, bias = fitted.judge.probe(design, aspect)
    calibration, linear = fitted.calibrations[aspect], fitted.stack.linear(aspect)
    slope = calibration.slope
    probe = ProbeWeights(
        "ordinal",
        fitted.judge.labels.classes[aspect],
        center,
        slope * linear.probe * weight[None],
        np.array([slope * (linear.probe * bias + linear.bias)]),
        {"thresholds": calibration.thresholds, "cuts": calibration.cuts},
    )
    return probe, slope * linear.layers


def _fill_tokens(own: StackedHead, theirs: ScoreTokens, weights: Array) -> None:
    own.token_weight.data = theirs.weight.data.clone()
    own.token_bias.data = theirs.bias.data.clone()
    own.levels.data = theirs.levels.data.clone()
    own.expectation_weights.data = torch.tensor(weights, dtype=torch.float32)
