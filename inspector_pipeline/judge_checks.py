"""What a judge must be to be loaded: all weights there and sound, and a backbone that is its own."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .configuration_inspector import InspectorConfig
from .errors import BackboneError, JudgeConfigError

SUM_TOLERANCE = 1e-4  # how far from 1 the sum of layer weights may lie
COMES_WITH_BACKBONE = ("dtype", "torch_dtype", "device_map", "quantization_config")
NOT_OF_THE_BACKBONE = ("dtype", "architectures", "_name_or_path", "transformers_version", "use_cache")


def check_weights(info: Mapping[str, Any], heads: Iterable[tuple[str, Tensor]], judge: str | os.PathLike[str]) -> None:
    """Refuse a judge with absent weights, which would score at random, and weights that give no honest score.

    Args:
        info: What transformers says of the load.
        heads: The weights of the judge's heads by name.
        judge: Folder or Hub id.

    Raises:
        JudgeConfigError: A weight is missing or of another shape; or one of a head is not finite, not ascending where
            it must be, or no weight of layers.
    """
    missing = sorted(info["missing_keys"]) + sorted(str(item[0]) for item in info["mismatched_keys"])
    if missing:
        raise JudgeConfigError(
            f"{judge} expects all weights that its config names, but these are missing or of another shape: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. Save the judge again with save_pretrained."
        )
    for name, weight in heads:
        if weight.device.type != "meta" and not weight.isfinite().all():
            raise JudgeConfigError(f"A judge expects finite weights, but {name} has NaN or infinite values.")
        if name.endswith((".thresholds", ".cuts", ".levels")) and (weight.diff() < 0).any():
            raise JudgeConfigError(f"A judge expects ascending {name}, but got {weight.tolist()}.")
        if name.endswith(".layer_weights") and ((weight < 0).any() or abs(weight.sum() - 1) > SUM_TOLERANCE):
            raise JudgeConfigError(f"A judge expects {name} of 0 or more with the sum 1, but got {weight.tolist()}.")


def check_backbone(config: InspectorConfig, backbone_config: Any) -> None:
    """Check that what is loaded by a judge's backbone_id is its backbone.

    Raises:
        BackboneError: It is another.
    """
    for name in ("model_type", "hidden_size"):
        expected, found = getattr(config.backbone_config, name), getattr(backbone_config, name)
        if expected != found:
            raise BackboneError(
                f"The judge's backbone_config.{name} expects {expected}, but {config.backbone_id} has {found}. Check "
                "backbone_id and backbone_revision."
            )


def check_sharing(kwargs: Mapping[str, Any]) -> None:
    """Refuse settings that a shared backbone brings along.

    Raises:
        ValueError: One was given.
    """
    given = [name for name in COMES_WITH_BACKBONE if kwargs.get(name) is not None]
    if given:
        raise ValueError(
            f"share_backbone_with brings its own backbone, so {', '.join(given)} cannot be given beside it."
        )


def check_shareable(own: InspectorConfig, other: Any, needs_norm: bool) -> None:
    """Check that a judge can run on another judge's backbone.

    Args:
        own: The config of the judge that is loaded.
        other: The judge whose backbone it would use.
        needs_norm: Whether it reads states after the final norm.

    Raises:
        BackboneError: That judge has another backbone, none, one with too few layers, or one without its norm.
    """
    theirs: InspectorConfig = other.config
    if other.backbone is None:
        raise BackboneError("share_backbone_with expects a judge with a backbone, but this one holds probes only.")
    if not own.backbone_id:
        raise BackboneError("share_backbone_with expects judges with a backbone_id to compare, but it is empty.")
    for name in ("backbone_id", "backbone_revision"):
        expected, found = getattr(own, name), getattr(theirs, name)
        if expected != found:
            raise BackboneError(
                f"share_backbone_with expects a judge with {name} {expected!r}, but got one with {found!r}."
            )
    if _apart_from_depth(own.backbone_config) != _apart_from_depth(theirs.backbone_config):
        raise BackboneError("share_backbone_with expects a judge of the same backbone_config, but got another.")
    if own.depth > theirs.depth:
        raise BackboneError(
            f"share_backbone_with expects a judge of at least {own.depth} layers, but got one of {theirs.depth}. Load "
            "the deeper judge first."
        )
    if needs_norm and other.final_norm is None:
        raise BackboneError(
            "share_backbone_with expects a judge that kept the backbone's final norm, since this one reads post-norm "
            "states, but it dropped it. Load the judge that needs the norm first."
        )


def _apart_from_depth(backbone_config: Any) -> dict[str, Any]:
    """Describe a backbone by what does not depend on how many layers are kept or how it is run."""
    described = backbone_config.to_dict().items()
    skipped = ("num_hidden_layers", *NOT_OF_THE_BACKBONE)
    return {name: value for name, value in described if name not in skipped and "layer_types" not in name}
