"""Cutting a decoder: fewer layers, no final norm, and views that share weights.

Nothing here knows an architecture by name. A decoder is taken to be a module that holds a ModuleList of
`num_hidden_layers` layers and, beside it, a final norm under one of the names in `FINAL_NORM_NAMES`.
"""

import copy
from typing import Any, NamedTuple, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from .errors import BackboneError

PER_LAYER_WORDS = ("layer", "pattern", "block", "_size", "num_")  # in the name of a list that has an item a layer
MAX_POSITION_OFFSET = 8  # rows of a table of positions beyond those of the tokens, as OPT has two
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
        A copy with `num_hidden_layers = depth`, every setting of single layers cut alike, and no local path in it.

    Raises:
        BackboneError: The backbone has fewer layers, or what is left of it would depend on how many there are.
    """
    config = copy.deepcopy(config.get_text_config())
    n_layers = config.num_hidden_layers
    if not 1 <= depth <= n_layers:
        raise BackboneError(
            f"depth expects 1 to {n_layers}, the layers of this {config.model_type} backbone, but got {depth}."
        )
    if depth < n_layers:
        config = _cut(config, depth)
    config._name_or_path = ""
    return config


def _cut(config: PreTrainedConfig, depth: int) -> PreTrainedConfig:
    """Cut a config that has more layers, and see that its class takes what is left as it is.

    Raises:
        BackboneError: It does not.
    """
    n_layers, described = config.num_hidden_layers, config.to_dict()
    changes: dict[str, Any] = {"num_hidden_layers": depth}
    for name, value in described.items():
        if any(word in name for word in PER_LAYER_WORDS) and isinstance(value, list) and len(value) == n_layers:
            changes[name] = value[:depth]
    if getattr(config, "num_kv_shared_layers", None):  # the last layers, which use states of those before them
        changes["num_kv_shared_layers"] = max(0, config.num_kv_shared_layers - (n_layers - depth))
    why = ""
    if described.get("hidden_size_per_layer_input") or described.get("per_layer_config"):
        why = "weights or settings of all its layers lie in one"
    else:
        for name, value in changes.items():
            setattr(config, name, value)
        try:
            again = type(config).from_dict(config.to_dict())
        except (StrictDataclassError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            why = f"{error}"
        else:
            changed = [name for name, value in changes.items() if getattr(again, name, None) != value]
            why = f"its config changes {', '.join(changed)}" if changed else ""
    if why:
        raise BackboneError(
            f"A backbone of the family {config.model_type} cannot be cut from {n_layers} to {depth} layers: {why}. "
            "Read its last layer too, so that all are kept, or take another backbone."
        )
    return config


def position_limit(backbone: PreTrainedModel) -> int | None:
    """Return how many tokens a backbone has positions for; None where there is no table of them, as with rotary ones.

    Args:
        backbone: A decoder; on the meta device too.
    """
    n_positions = getattr(backbone.config, "max_position_embeddings", None)
    if not isinstance(n_positions, int):
        return None
    tokens = backbone.get_input_embeddings()
    sizes = set()
    for module in backbone.modules():
        if isinstance(module, nn.Embedding) and module is not tokens:
            sizes.add(module.num_embeddings)
        elif not hasattr(module, "make_weights"):  # by which a table of sines grows
            sizes |= {buffer.shape[0] for buffer in module.buffers(recurse=False) if buffer.ndim == 2}
    return n_positions if any(0 <= size - n_positions <= MAX_POSITION_OFFSET for size in sizes) else None


def find_decoder_parts(backbone: nn.Module, n_layers: int) -> DecoderParts:
    """Find a decoder's layers and final norm by structure.

    Raises:
        BackboneError: There is no such structure.
    """
    for path, module in backbone.named_modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers:
                norm_name = next((norm for norm in FINAL_NORM_NAMES if hasattr(module, norm)), None)
                if norm_name is not None:
                    return DecoderParts(path, name, norm_name)
    raise BackboneError(
        f"A backbone expects a decoder with a list of {n_layers} layers and, beside it, a final norm named one of "
        f"{', '.join(FINAL_NORM_NAMES)}, but {type(backbone).__name__} has none."
    )


def decoder_layers(backbone: PreTrainedModel) -> nn.ModuleList:
    """Return a decoder's layers."""
    parts = find_decoder_parts(backbone, backbone.config.num_hidden_layers)
    return cast(nn.ModuleList, getattr(backbone.get_submodule(parts.path), parts.layers_name))


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
    maybe_install_capturing_hooks(backbone)
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


def with_attention(backbone: PreTrainedModel, attention: str) -> PreTrainedModel:
    """Return a backbone that shares every weight with the given one, but runs another attention function.

    Args:
        backbone: A decoder of transformers.
        attention: A name that is registered with `AttentionInterface`.
    """
    configs: dict[int, Any] = {}

    def copied(module: Any) -> Any:
        duplicate = _copy_module(module)
        for name, child in module._modules.items():
            if child is not None:
                duplicate._modules[name] = copied(child)
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig):
            if id(config) not in configs:
                configs[id(config)] = copy.deepcopy(config)
                configs[id(config)]._attn_implementation = attention
            duplicate.config = configs[id(config)]
        return duplicate

    maybe_install_capturing_hooks(backbone)
    return cast(PreTrainedModel, copied(backbone))


def _copy_module(module: Any) -> Any:
    """Copy a module, but nothing in it.

    The hooks that capture states go along, so they must be there before: installed later, on the view and on what it
    was made from, they would be on the shared layers twice, and states would be counted double.
    """
    duplicate = copy.copy(module)
    duplicate.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    return duplicate


def check_final_norm(backbone: PreTrainedModel) -> None:
    """Refuse a backbone that applies its final norm elsewhere too, since without it all its states are others.

    Raises:
        BackboneError: It does.
    """
    parts = find_decoder_parts(backbone, backbone.config.num_hidden_layers)
    calls: list[int] = []
    norm = getattr(backbone.get_submodule(parts.path), parts.norm_name)
    handle = norm.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.ones(1, 2, dtype=torch.long, device=backbone.device)
    with torch.inference_mode():
        backbone(ids, attention_mask=ids)
    handle.remove()
    if len(calls) > 1:
        raise BackboneError(
            f"A backbone expects to apply its final norm once, after its layers, but {type(backbone).__name__} applies "
            f"it {len(calls)} times, so that its states cannot be read without. Take another backbone."
        )
