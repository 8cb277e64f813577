"""Put ported or fitted probes into a judge."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from inspector_pipeline.errors import JudgeConfigError
from inspector_pipeline.heads import probe_key
from inspector_pipeline.modeling_inspector import InspectorModel

from .port import ProbeWeights


def fill_probes(model: InspectorModel, probes: Mapping[str, ProbeWeights]) -> None:
    """Write probes into a judge's parameters, in float32.

    A feature has one centre in a judge. Where aspects that read the same feature bring different ones, the first is
    kept and the difference goes into the others' bias, in float64, which changes no decision value.

    Args:
        model: A judge whose config names the probes' aspects, features, rules and classes.
        probes: Aspect -> probe, of the aspects whose heads have one.

    Raises:
        JudgeConfigError: A probe does not fit its aspect.
    """
    hidden = model.config.backbone_config.hidden_size
    centers: dict[int, NDArray[np.float64]] = {}
    for aspect in model.aspects:
        features = aspect.probe_features
        if not features:
            continue
        probe = probes[aspect.name]
        expected = len(features) * hidden
        if probe.weight.shape[1] != expected:
            raise JudgeConfigError(
                f"The probe of {aspect.name} expects {probe.weight.shape[1]} inputs, but the judge gives it "
                f"{len(features)} feature(s) of {hidden}, {expected} in all. Check its layers and the backbone."
            )
        own = probe.center.reshape(len(features), hidden)
        rows = [model.centred_features.index(feature) for feature in features]
        kept = np.stack([centers.setdefault(row, center) for row, center in zip(rows, own, strict=True)])
        rounded = kept.astype(np.float32).astype(np.float64)
        bias = probe.bias + probe.weight @ (rounded - own).reshape(-1)
        module = model.probes[probe_key(aspect.name)]
        module.weight.data = _float32(probe.weight.reshape(-1, len(features), hidden))
        module.bias.data = _float32(bias)
        for name, values in probe.parameters.items():
            module.get_parameter(name).data = _float32(values)
    if centers:
        model.centers.data = _float32(np.stack([centers[row] for row in range(len(model.centred_features))]))


def _float32(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)
