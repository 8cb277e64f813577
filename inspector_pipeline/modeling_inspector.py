"""The judge as transformers knows models: loaded, shared, saved with its code, and as a reward model.

`InspectorModel` scores encoded pairs. `InspectorReward` is the same judge as trainers know reward models: token ids of
a conversation in, one logit out.
"""

import copy
import logging
import os
from collections.abc import Mapping
from typing import Any, Union, cast

import torch
from torch import Tensor, nn
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash

from .backbone import check_backbone, check_shareable, check_sharing, load_backbone, load_tokenizer
from .configuration_inspector import InspectorConfig
from .devices import preferred_dtype
from .errors import BackboneError, JudgeConfigError
from .familiarity import check_fitted_on
from .handler import EndpointHandler
from .heads import check_weights
from .int8 import ENGINE_SETTINGS, ENGINES, STATE_ERROR, TORCH, TORCH_INT8, is_int8, round_linears
from .judge_model import JudgeModel
from .pipeline_inspector import TASK, InspectorPipeline
from .results import TOTAL, own_rank_field
from .reward import ConversationReader
from .truncation import check_final_norm, decoder_layers, shallow_view

logger = logging.getLogger(__name__)

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
FITTED_ON = ("familiar.", "seen_questions")  # how the names begin of tensors that say what a judge was fitted on
BACKBONE_KWARGS = ("device_map", "attn_implementation", "quantization_config", "max_memory", "offload_folder")


class InspectorModel(JudgeModel):
    """A judge: a frozen decoder cut at the deepest layer that any probe reads, and the probes.

    `save_pretrained` writes one of two forms: fused (truncated backbone and probes, the default) or probes only, whose
    backbone is loaded again by id and revision. `from_pretrained` reads both.

    Args:
        config: The judge's config.

    Raises:
        JudgeConfigError: The config is incomplete or contradicts itself.

    Example:
        >>> model = InspectorModel.from_pretrained("org/inspector-gsm8k-multi")  # doctest: +SKIP
        >>> other = InspectorModel.from_pretrained("org/inspector-code", share_backbone_with=model)  # doctest: +SKIP
    """

    revision: str | None = None  # of the Hub repo that it was loaded from, where one was asked for
    commit: str | None = None  # what that revision, or the default branch, stood for then

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        config: InspectorConfig | None = None,
        share_backbone_with: Union["InspectorModel", None] = None,
        engine: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a judge, fused or probes only.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            *model_args: For `PreTrainedModel.from_pretrained`.
            config: The judge's config, where it is loaded already.
            share_backbone_with: A loaded judge of the same backbone, at least as deep; its weights are used, so that
                several probe sets run on one backbone in memory.
            engine: The arithmetic: `torch`, or `torch-int8` on a CPU (see `int8.py`). None is the judge's own, in which
                its probes were fitted; another one gives other scores, and is warned of. What `torch-int8` leaves to
                floating point is float32, whatever the dtype.
            **kwargs: For `PreTrainedModel.from_pretrained` (dtype, device_map, revision, token, ...). A dtype of
                "auto", the default, is bfloat16 on a GPU that has it, else float32; "stored" is that of the
                judge's files.

        Returns:
            The judge in eval mode.

        Raises:
            BackboneError: The backbone cannot be loaded, or the one to share does not fit.
            JudgeConfigError: The config is wrong, or weights are missing or unsound.
        """
        if config is None:
            hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if name in kwargs}
            config = InspectorConfig.from_pretrained(pretrained_model_name_or_path, **hub_kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        if share_backbone_with is not None:
            check_sharing(kwargs)
        config = _with_engine(config, engine)
        backbone_kwargs = _set_dtype(config, kwargs, fused=config.fused and share_backbone_with is None)
        if backbone_kwargs is not None:
            config = copy.deepcopy(config)
            config.fused = False
        kwargs.setdefault("ignore_mismatched_sizes", True)  # they are refused below, by name
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, output_loading_info=True, **kwargs
        )
        _check_loaded(pretrained_model_name_or_path, info)
        check_weights([("centers", model.centers), *model.probes.named_parameters()])
        check_fitted_on((name, tensor) for name, tensor in model.named_buffers() if name.startswith(FITTED_ON))
        model._note_revision(kwargs)
        if backbone_kwargs is not None:
            model._take_backbone(share_backbone_with, backbone_kwargs)
        if config.engine and not is_int8(model.loaded_backbone):
            round_linears(decoder_layers(model.loaded_backbone))
        return (model, info) if wants_info else model

    def _take_backbone(self, shared: Union["InspectorModel", None], kwargs: Mapping[str, Any]) -> None:
        """Take a view of another judge's backbone, or load this judge's own with these arguments, and follow it.

        The judge gets the backbone's dtype, and its probes the device of the backbone's last layer.
        """
        config = self.config
        final_norm: nn.Module | None = None
        if shared is not None:
            check_shareable(config, shared, self.needs_final_norm)
            backbone = shallow_view(shared.loaded_backbone, config.depth)
            final_norm = shared.final_norm if self.needs_final_norm else nn.Identity()
        elif config.backbone_id:
            backbone = load_backbone(config.backbone_id, config.backbone_revision, config.depth, **kwargs)
            check_backbone(config, backbone.config)
        else:
            raise JudgeConfigError(
                "backbone_id expects the id to load the backbone by, since this judge holds probes only."
            )
        config.dtype = backbone.dtype
        config.backbone_config._attn_implementation = backbone.config._attn_implementation
        device_map = getattr(backbone, "hf_device_map", None)
        if device_map is not None:
            self.hf_device_map = {f"backbone.{name}" if name else "": place for name, place in device_map.items()}
        *_, last = backbone.parameters()
        if last.device.type != "meta":
            self.probes.to(last.device)
            self.centers.data = self.centers.data.to(last.device)
            if self.familiar is not None:
                self.familiar.to(last.device)
        self.set_backbone(backbone, final_norm)

    def _note_revision(self, kwargs: Mapping[str, Any]) -> None:
        """Keep the revision that was asked for, and the commit that it was; transformers' own config forgets it."""
        self.revision = kwargs.get("revision")
        if os.path.exists(self.name_or_path):
            return
        where = {name: kwargs[name] for name in ("cache_dir", "revision", "subfolder") if name in kwargs}
        path = cached_file(
            self.name_or_path,
            CONFIG_NAME,
            local_files_only=True,  # the cache holds it since this very load
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **where,
        )
        self.commit = extract_commit_hash(path, None)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, fused: bool = True, **kwargs: Any
    ) -> None:
        """Write the judge.

        Args:
            save_directory: Folder; made where it is missing.
            *args: For `PreTrainedModel.save_pretrained`.
            fused: True writes the truncated backbone and the probes; False the probes alone, a few hundred KB.
            **kwargs: For `PreTrainedModel.save_pretrained`.

        Raises:
            BackboneError: Fused was asked for, but there is no backbone.
            JudgeConfigError: Probes only was asked for, but there is no backbone_id to load the backbone by.
        """
        if fused and self.backbone is None:
            raise BackboneError(
                "save_pretrained(fused=True) expects a judge with its backbone, but this holds probes only."
            )
        if fused and is_int8(self.loaded_backbone):
            self._unrounded().save_pretrained(save_directory, *args, **kwargs)
            return
        if not fused and not self.config.backbone_id:
            raise JudgeConfigError("save_pretrained(fused=False) expects a backbone_id in the config, but it is empty.")
        if not fused:
            own = {k: v for k, v in self.state_dict().items() if not k.startswith(("backbone.", "final_norm."))}
            kwargs.setdefault("state_dict", own)
        was_fused = self.config.fused
        self.config.fused = fused
        self.config._name_or_path = self.config.backbone_config._name_or_path = ""
        self.config.custom_pipelines = {TASK: {"impl": "pipeline_inspector.InspectorPipeline", "pt": ["AutoModel"]}}
        self.config.auto_map = {
            **(getattr(self.config, "auto_map", None) or {}),
            "AutoModel": "modeling_inspector.InspectorModel",
            "AutoModelForSequenceClassification": "modeling_inspector.InspectorReward",
        }
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config.fused = was_fused
            del self.config.custom_pipelines
        # What these import goes along too; a judge saved by a repo's own code has them, since this file imports them.
        for shipped in (InspectorPipeline, EndpointHandler):
            custom_object_save(shipped, save_directory)

    def _unrounded(self) -> "InspectorModel":
        """Load this judge again, with its backbone's own weights and its engine in the config alone.

        Raises:
            BackboneError: It was not loaded from anywhere.
        """
        if not self.name_or_path:
            raise BackboneError(
                f"save_pretrained(fused=True) expects the backbone's own weights, but the engine {TORCH_INT8} has "
                "rounded them. Save the judge with fused=False, load that, and save it fused."
            )
        config = copy.deepcopy(self.config)
        config.engine = None
        config.format_version = config.needed_version
        found: InspectorModel = type(self).from_pretrained(
            self.name_or_path, config=config, revision=self.revision or "main", dtype=torch.float32
        )
        found.config.engine, found.config.format_version = self.config.engine, self.config.format_version
        return found

    def load_tokenizer(self, **hub_kwargs: Any) -> Any:
        """Load this judge's tokenizer, see `backbone.load_tokenizer`."""
        return load_tokenizer(self, **hub_kwargs)


def _set_dtype(config: InspectorConfig, kwargs: dict[str, Any], *, fused: bool) -> dict[str, Any] | None:
    """Set the dtype that weights of a judge's own files are loaded in.

    Args:
        config: The judge's.
        kwargs: Of `from_pretrained`; gets the dtype, and loses what is the backbone's.
        fused: Whether the backbone is among these files.

    Returns:
        What the backbone is loaded with where it is not; else None.
    """
    dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
    dtype = preferred_dtype() if dtype in (None, "auto") else dtype
    dtype = torch.float32 if config.engine else dtype
    if fused:
        kwargs["dtype"] = "auto" if dtype == "stored" else dtype
        return None
    found = {name: kwargs.pop(name) for name in BACKBONE_KWARGS if kwargs.get(name) is not None}
    found |= {name: kwargs[name] for name in ("token", "cache_dir", "local_files_only") if name in kwargs}
    found["dtype"] = (config.dtype or "auto") if dtype == "stored" else dtype
    kwargs["dtype"] = torch.float32
    return found


def _check_loaded(place: str | os.PathLike[str], info: Mapping[str, Any]) -> None:
    """Refuse files that do not hold what their config names: it would score at random.

    Raises:
        JudgeConfigError: Weights are missing, of another shape, or the config has no place for them.
    """
    missing = sorted(info["missing_keys"]) + sorted(str(item[0]) for item in info["mismatched_keys"])
    if missing:
        raise JudgeConfigError(
            f"{place} expects all weights that its config names, but these are missing or of another shape: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. Save the judge again with save_pretrained."
        )
    left = [key for key in info["unexpected_keys"] if key.startswith(FITTED_ON)]
    if left:
        raise JudgeConfigError(
            f"{place} expects a config that names what its files hold, but it has no place for "
            f"{', '.join(sorted(left)[:5])}. Save the judge again with save_pretrained."
        )


def _with_engine(config: InspectorConfig, engine: str | None) -> InspectorConfig:
    """Return a config with the engine that was asked for, and warn where its probes were fitted in another.

    Raises:
        JudgeConfigError: There is no such engine.
    """
    if engine not in (None, *ENGINES):
        raise JudgeConfigError(f"engine expects one of {', '.join(ENGINES)}, but got {engine!r}.")
    own = TORCH_INT8 if config.engine else TORCH
    if engine in (None, own):
        return config
    error = (config.engine or {}).get(STATE_ERROR)
    drift = "how far was not measured" if error is None else f"its features by {error:.1%}, when it was fitted"
    logger.warning(
        "The judge's probes were fitted in the engine %s and run in %s: its scores differ (%s), and its evidence "
        "does not hold for them.",
        own,
        engine,
        drift,
    )
    config = copy.deepcopy(config)
    config.engine = ENGINE_SETTINGS if engine == TORCH_INT8 else None
    config.format_version = config.needed_version
    return config


class InspectorReward(InspectorModel):
    """A judge whose logit is the field that it ranks by, of a chat-formatted prompt with its completion.

    Args:
        config: Config of a judge with one reading, its tokenizer's chat template.

    Raises:
        JudgeConfigError: The judge has several readings, as rubric judges have, or it names no field to rank by and no
            aspect counts in its total.

    Example:
        >>> from transformers import AutoModelForSequenceClassification
        >>> reward = AutoModelForSequenceClassification.from_pretrained(
        ...     "org/inspector-gsm8k-multi", num_labels=1, trust_remote_code=True
        ... )  # doctest: +SKIP
    """

    def __init__(self, config: InspectorConfig) -> None:
        """Build the judge; its tokenizer is loaded by `from_pretrained`."""
        super().__init__(config)
        if len(self.reading_names) > 1:
            raise JudgeConfigError(
                "A reward model expects a judge with one reading, its chat template, since it is given token ids and "
                f"no texts to write into rubrics, but this one has {', '.join(self.reading_names)}. Use RewardFunction "
                "instead."
            )
        rank_by = own_rank_field(config)
        if rank_by is None:
            raise JudgeConfigError(
                "A reward model expects an aspect that counts in the total, or a field to rank by, but this judge has "
                "none. Set rank_by in its config."
            )
        is_total = rank_by == TOTAL
        self._ranked = [a.counts_in_total if is_total else rank_by == f"expected_{a.name}" for a in self.aspects]
        self._conversations: ConversationReader | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a judge and its tokenizer; see `InspectorModel.from_pretrained`.

        Raises:
            BackboneError: The backbone applies its final norm elsewhere too.
            ReadingError: The judge's reading is not its tokenizer's chat template.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        check_final_norm(model.loaded_backbone)
        ((name, template),) = model.config.parsed_readings.items()
        model._conversations = ConversationReader(
            template, model.load_tokenizer(), model.config.max_length, model.finders(name)
        )
        return (model, info) if wants_info else model

    def forward(  # type: ignore[override]  # what sequence classifiers take and give
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Score a batch of conversations.

        Args:
            input_ids: int64 (batch, tokens): chat-formatted prompts with their completions.
            attention_mask: (batch, tokens), non-zero on real tokens, padding left or right; all are real where it is
                None.
            **kwargs: Ignored, as trainers pass some of their own.

        Returns:
            `logits`, float32 (batch, 1): the field that the judge ranks by, such as the sum of the expected scores of
            all aspects that count. NaN, which trainers take for "no reward", where the assistant's turn is blank or
            does not end the conversation.

        Raises:
            PairError: A conversation has no assistant header.
            BackboneError: The judge was not loaded by `from_pretrained`, or its states are not finite.
        """
        if self._conversations is None:
            raise BackboneError("A reward model expects its tokenizer. Load the judge with from_pretrained.")
        rows, batch = self._conversations.batch(input_ids, attention_mask)
        logits = torch.full((len(input_ids), 1), torch.nan, device=input_ids.device)
        if rows:
            output = super().forward(**batch)
            if not all(values.isfinite().all() for values in output.decision_values or ()):
                raise BackboneError(
                    f"A judge expects finite states, but got others in {self.dtype}. Load it with dtype=torch.float32 "
                    "or torch.bfloat16."
                )
            logits[rows, 0] = cast(Tensor, output.expected)[:, self._ranked].sum(dim=1).to(input_ids.device)
        return SequenceClassifierOutput(logits=logits)


InspectorModel.register_for_auto_class("AutoModel")
InspectorReward.register_for_auto_class("AutoModelForSequenceClassification")
