"""What a judge must be to be loaded: all weights there and sound, and a backbone that it can share."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .configuration_inspector import InspectorConfig
from .errors import BackboneError, JudgeConfigError

SUM_TOLERANCE = 1e-4  # how far from 1 the sum of layer weights may lie


def refuse_missing(info: Mapping[str, Any], judge: str | os.PathLike[str]) -> None:
    """Refuse a judge with absent weights, which would score at random.

    Raises:
        JudgeConfigError: A weight is missing or of another shape.
    """
    missing = sorted(info["missing_keys"]) + sorted(str(item[0]) for item in info["mismatched_keys"])
    if missing:
        raise JudgeConfigError(
            f"{judge} expects all weights that its config names, but these are missing or of another shape: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. Save the judge again with save_pretrained."
        )


def refuse_broken_weights(named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse weights of heads from which no honest score can come.

    Raises:
        JudgeConfigError: One is not finite, not ascending where it must be, or no weight of layers.
    """
    for name, parameter in named:
        if parameter.device.type != "meta" and not parameter.isfinite().all():
            raise JudgeConfigError(f"A judge expects finite weights, but {name} has NaN or infinite values.")
        if name.endswith((".thresholds", ".cuts", ".levels")) and (parameter.diff() < 0).any():
            raise JudgeConfigError(f"A judge expects ascending {name}, but got {parameter.tolist()}.")
        if name.endswith(".layer_weights") and ((parameter < 0).any() or abs(parameter.sum() - 1) > SUM_TOLERANCE):
            raise JudgeConfigError(f"A judge expects {name} of 0 or more with the sum 1, but got {parameter.tolist()}.")


def refuse_with_shared(shared: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse settings that a shared backbone brings along.

    Raises:
        ValueError: One was given.
    """
    given = [
        name for name in ("dtype", "torch_dtype", "device_map", "quantization_config") if kwargs.get(name) is not None
    ]
    if shared is not None and given:
        raise ValueError(
            f"share_backbone_with brings its own backbone, so {', '.join(given)} cannot be given beside it."
        )


def check_shareable(own: InspectorConfig, theirs: InspectorConfig, has_backbone: bool) -> None:
    """Check that a judge can run on another judge's backbone.

    Args:
        own: The config of the judge that is loaded.
        theirs: That of the judge whose backbone it would use.
        has_backbone: Whether that judge has one.

    Raises:
        BackboneError: It is another backbone, or one with too few layers.
    """
    if not has_backbone:
        raise BackboneError("share_backbone_with expects a judge with a backbone, but this one holds probes only.")
    if not own.backbone_id:
        raise BackboneError("share_backbone_with expects judges with a backbone_id to compare, but it is empty.")
    for name in ("backbone_id", "backbone_revision"):
        if getattr(own, name) != getattr(theirs, name):
            raise BackboneError(
                f"share_backbone_with expects a judge with {name} {getattr(own, name)!r}, but got one with "
                f"{getattr(theirs, name)!r}."
            )
    if _apart_from_depth(own.backbone_config) != _apart_from_depth(theirs.backbone_config):
        raise BackboneError("share_backbone_with expects a judge of the same backbone_config, but got another.")
    if own.depth > theirs.depth:
        raise BackboneError(
            f"share_backbone_with expects a judge of at least {own.depth} layers, but got one of "
            f"{theirs.depth}. Load "
            "the deeper judge first."
        )


def _apart_from_depth(backbone_config: Any) -> dict[str, Any]:
    """Describe a backbone by what does not depend on how many layers are kept or how it is run."""
    skipped = ("num_hidden_layers", "dtype", "architectures", "_name_or_path", "transformers_version", "use_cache")
    described = backbone_config.to_dict().items()
    return {name: value for name, value in described if name not in skipped and "layer_types" not in name}
