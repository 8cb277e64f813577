"""The judge as a `PreTrainedModel`: a truncated decoder, and one head per aspect on its pooled states."""

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import CONFIG_NAME, ModelOutput, cached_file, extract_commit_hash

from .backbone import load_backbone
from .configuration_inspector import Aspect, InspectorConfig
from .devices import preferred_dtype
from .errors import BackboneError, JudgeConfigError
from .features import Feature, read_features
from .handler import EndpointHandler
from .heads import LinearProbe, ScoreTokens, StackedHead, frozen_parameter
from .judge_checks import check_shareable, refuse_broken_weights, refuse_missing, refuse_with_shared
from .pipeline_inspector import TASK, InspectorPipeline
from .truncation import shallow_view, take_final_norm

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")

# One tensor where the judge has one reading, else one per reading's name.
PerReading = Union[Tensor, Mapping[str, Tensor]]  # noqa: UP007 (evaluated in remote code too)


@dataclass
class InspectorOutput(ModelOutput):
    """What a judge says of a batch of pairs; aspects in the config's order.

    Attributes:
        scores: int64 (batch, aspects), the predicted classes.
        expected: float32 (batch, aspects), sum over classes of class * probability.
        probabilities: For each aspect, float32 (batch, classes).
        decision_values: For each aspect, float32 (batch, outputs) before the decision rule.
    """

    scores: Tensor | None = None
    expected: Tensor | None = None
    probabilities: tuple[Tensor, ...] | None = None
    decision_values: tuple[Tensor, ...] | None = None


class InspectorModel(PreTrainedModel):
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

    config_class = InspectorConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    revision: str | None = None  # of the Hub repo that it was loaded from, where one was asked for
    commit: str | None = None  # what that revision, or the default branch, stood for then
    _keys_to_ignore_on_load_unexpected = [r"^backbone\.", r"^final_norm\."]

    def __init__(self, config: InspectorConfig) -> None:
        """Build the probes, and the backbone where the config says that the judge's files hold it."""
        super().__init__(config)
        config.check()
        self.aspects = config.parsed_aspects
        self.features = unique_features(self.aspects)
        self.reading_names = tuple(config.readings)
        self.backbone: PreTrainedModel | None = None
        self.final_norm: nn.Module | None = None
        if config.fused:
            self.set_backbone(AutoModel.from_config(config.backbone_config))
        hidden = config.backbone_config.hidden_size
        # Subtracted before any probe: folded into the bias, it would cost precision where states are large. Score
        # tokens read states as they are.
        self.centred_features = tuple(dict.fromkeys(f for aspect in self.aspects for f in aspect.probe_features))
        self.centers = frozen_parameter(len(self.centred_features), hidden)
        self.probes = nn.ModuleDict({probe_key(aspect.name): _make_head(aspect, hidden) for aspect in self.aspects})
        self._classes_on: tuple[torch.device, list[Tensor]] | None = None
        self.post_init()

    def set_backbone(self, backbone: PreTrainedModel, final_norm: nn.Module | None = None) -> None:
        """Take a decoder of the config's depth as the backbone.

        Args:
            backbone: With its final norm in place; or, where `final_norm` is given, without.
            final_norm: The norm that was taken from it.
        """
        if final_norm is None:
            final_norm = take_final_norm(backbone)
        self.backbone = backbone.requires_grad_(False)
        self.final_norm = final_norm.requires_grad_(False) if self._needs_final_norm else None

    @property
    def _needs_final_norm(self) -> bool:
        """Whether a feature reads post-norm states."""
        return any(feature.state == "final_norm" for feature in self.features)

    def forward(
        self,
        input_ids: PerReading,
        attention_mask: PerReading | None = None,
        response_mask: PerReading | None = None,
        **kwargs: Any,
    ) -> InspectorOutput:
        """Score a batch: one pass per reading, then every aspect's probe.

        Args:
            input_ids: int64 (batch, tokens); for a judge of several readings, a mapping from reading to such a tensor.
            attention_mask: (batch, tokens), non-zero on real tokens; all are real where it is None.
            response_mask: (batch, tokens), non-zero on the response's tokens; needed by response_mean features.
            **kwargs: Ignored, as transformers passes some of its own.

        Returns:
            Scores, expectations, probabilities and decision values.

        Raises:
            ValueError: The inputs do not name the judge's readings.
        """
        features: dict[Feature, Tensor] = {}
        for name in self.reading_names:
            ids = self._of_reading(input_ids, name, "input_ids")
            mask = (
                torch.ones_like(ids)
                if attention_mask is None
                else self._of_reading(attention_mask, name, "attention_mask")
            )
            response = None if response_mask is None else self._of_reading(response_mask, name, "response_mask")
            features |= self.read(name, ids, mask, response)
        return self.decide(features)

    def decide(self, features: Mapping[Feature, Tensor]) -> InspectorOutput:
        """Run every aspect's probe on features that were read already.

        Args:
            features: float32 (batch, hidden) for each of the judge's features.

        Returns:
            Scores, expectations, probabilities and decision values.
        """
        device = self.centers.device
        centred = {
            feature: features[feature].to(device) - center
            for feature, center in zip(self.centred_features, self.centers, strict=True)
        }
        values, probabilities, scores, expected = [], [], [], []
        for aspect, classes in zip(self.aspects, self._class_values(device), strict=True):
            head = cast(Union[LinearProbe, ScoreTokens], self.probes[probe_key(aspect.name)])  # noqa: UP007
            parts = ((aspect.probe_features, centred), (aspect.token_features, features))
            value = head(*(torch.stack([read[f].to(device) for f in own], dim=1) for own, read in parts if own))
            decision = head.decide(value)
            values.append(value)
            probabilities.append(decision.probabilities)
            scores.append(classes[decision.class_index])
            expected.append((decision.probabilities * classes).sum(dim=1))
        return InspectorOutput(
            scores=torch.stack(scores, dim=1),
            expected=torch.stack(expected, dim=1),
            probabilities=tuple(probabilities),
            decision_values=tuple(values),
        )

    def _class_values(self, device: torch.device) -> list[Tensor]:
        """Return each aspect's classes as a tensor, copied to a device once."""
        if self._classes_on is None or self._classes_on[0] != device:
            self._classes_on = device, [torch.tensor(aspect.classes, device=device) for aspect in self.aspects]
        return self._classes_on[1]

    def read(
        self, reading: str, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor | None = None
    ) -> dict[Feature, Tensor]:
        """Run one reading's pass and pool every feature that an aspect reads from it.

        Args:
            reading: Name of the reading.
            input_ids: int64 (batch, tokens).
            attention_mask: (batch, tokens), non-zero on real tokens; padding left or right.
            response_mask: (batch, tokens), non-zero on the response's tokens.

        Returns:
            float32 (batch, hidden) for each feature.

        Raises:
            BackboneError: The judge has no backbone yet.
        """
        if self.backbone is None:
            raise BackboneError("This judge holds probes only. Load it with from_pretrained, which adds the backbone.")
        return read_features(
            self.backbone,
            self.final_norm,
            [feature for feature in self.features if feature.reading == reading],
            input_ids=input_ids,
            attention_mask=attention_mask,
            response_mask=response_mask,
            rms_norm_eps=self.config.rms_norm_eps,
        )

    def _of_reading(self, value: PerReading, name: str, argument: str) -> Tensor:
        if isinstance(value, Tensor):
            if len(self.reading_names) == 1:
                return value
            raise ValueError(
                f"{argument} expects a mapping with a tensor for each reading ({', '.join(self.reading_names)}), "
                "but got "
                "one tensor."
            )
        if name not in value:
            raise ValueError(f"{argument} expects a tensor for the reading {name!r}, but got {', '.join(value)}.")
        return value[name]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        config: InspectorConfig | None = None,
        share_backbone_with: Union["InspectorModel", None] = None,
        **kwargs: Any,
    ) -> Any:
        """Load a judge, fused or probes only.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            *model_args: For `PreTrainedModel.from_pretrained`.
            config: The judge's config, where it is loaded already.
            share_backbone_with: A loaded judge of the same backbone, at least as deep; its weights are used, so that
                several probe sets run on one backbone in memory.
            **kwargs: For `PreTrainedModel.from_pretrained` (dtype, device_map, revision, token, ...). A dtype of
                "auto", the default, is what the hardware is fastest in (`preferred_dtype`); "stored" is that of the
                judge's files.

        Returns:
            The judge in eval mode.

        Raises:
            BackboneError: The backbone cannot be loaded, or the one to share does not fit.
            JudgeConfigError: The config is wrong.
        """
        if config is None:
            hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if name in kwargs}
            config = InspectorConfig.from_pretrained(pretrained_model_name_or_path, **hub_kwargs)
        refuse_with_shared(share_backbone_with, kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["output_loading_info"] = True
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        dtype = preferred_dtype() if dtype in (None, "auto") else dtype
        if config.fused and share_backbone_with is None:
            kwargs["dtype"] = "auto" if dtype == "stored" else dtype
            model, info = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
            refuse_missing(info, pretrained_model_name_or_path)
            model._refuse_broken_probes()
            model._note_revision(kwargs)
            return (model, info) if wants_info else model
        config = copy.deepcopy(config)
        config.fused = False
        backbone_kwargs = {"dtype": (config.dtype or "auto") if dtype == "stored" else dtype}
        for name in ("device_map", "attn_implementation", "quantization_config", "max_memory", "offload_folder"):
            if kwargs.get(name) is not None:
                backbone_kwargs[name] = kwargs.pop(name)
        backbone_kwargs |= {k: kwargs[k] for k in ("token", "cache_dir", "local_files_only") if k in kwargs}
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, dtype=torch.float32, **kwargs
        )
        refuse_missing(info, pretrained_model_name_or_path)
        model._refuse_broken_probes()
        model._note_revision(kwargs)
        if share_backbone_with is None:
            model._load_own_backbone(**backbone_kwargs)
        else:
            model._share_backbone(share_backbone_with)
        return (model, info) if wants_info else model

    def _load_own_backbone(self, **kwargs: Any) -> None:
        config = self.config
        if not config.backbone_id:
            raise JudgeConfigError(
                "backbone_id expects the id to load the backbone by, since this judge holds probes only."
            )
        backbone = load_backbone(config.backbone_id, config.backbone_revision, config.depth, **kwargs)
        for name in ("model_type", "hidden_size"):
            expected, found = getattr(config.backbone_config, name), getattr(backbone.config, name)
            if expected != found:
                raise BackboneError(
                    f"The judge's backbone_config.{name} expects {expected}, but {config.backbone_id} has {found}. "
                    "Check "
                    "backbone_id and backbone_revision."
                )
        self._take_place_of(backbone)
        self.set_backbone(backbone)

    def _share_backbone(self, other: "InspectorModel") -> None:
        check_shareable(self.config, other.config, other.backbone is not None)
        if self._needs_final_norm and other.final_norm is None:
            raise BackboneError(
                "share_backbone_with expects a judge that kept the backbone's final norm, since this one reads "
                "post-norm states, but it dropped it. Load the judge that needs the norm first."
            )
        view = shallow_view(other.backbone, self.config.depth)
        self._take_place_of(view)
        self.set_backbone(view, other.final_norm if self._needs_final_norm else nn.Identity())

    def _refuse_broken_probes(self) -> None:
        """Refuse weights from which no honest score can come."""
        refuse_broken_weights([("centers", self.centers), *self.probes.named_parameters()])

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

    def _take_place_of(self, backbone: PreTrainedModel) -> None:
        """Follow a loaded backbone: its dtype, and the device of its last layer for the probes."""
        self.config.dtype = backbone.dtype
        self.config.backbone_config._attn_implementation = backbone.config._attn_implementation
        device_map = getattr(backbone, "hf_device_map", None)
        if device_map is not None:
            self.hf_device_map = {f"backbone.{name}" if name else "": place for name, place in device_map.items()}
        *_, last = backbone.parameters()
        if last.device.type != "meta":
            self.probes.to(last.device)
            self.centers.data = self.centers.data.to(last.device)

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's dtype; the probes are float32 whatever it is."""
        module = self.probes if self.backbone is None else self.backbone
        return next(parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())

    @property
    def device(self) -> torch.device:
        """The device that takes the token ids."""
        module = self.probes if self.backbone is None else self.backbone
        return next(module.parameters()).device

    def get_input_embeddings(self) -> nn.Module:
        """Return the backbone's token embeddings."""
        if self.backbone is None:
            raise BackboneError("This judge holds probes only and has no embeddings.")
        embeddings: nn.Module = self.backbone.get_input_embeddings()
        return embeddings

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the probes at zero: a judge whose probes are missing is refused, never made up."""

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
        if not fused and not self.config.backbone_id:
            raise JudgeConfigError("save_pretrained(fused=False) expects a backbone_id in the config, but it is empty.")
        if not fused:
            state = {
                name: tensor
                for name, tensor in self.state_dict().items()
                if not name.startswith(("backbone.", "final_norm."))
            }
            kwargs.setdefault("state_dict", state)
        was_fused = self.config.fused
        self.config.fused = fused
        self.config._name_or_path = self.config.backbone_config._name_or_path = ""
        self.config.custom_pipelines = {TASK: {"impl": "pipeline_inspector.InspectorPipeline", "pt": ["AutoModel"]}}
        self.config.auto_map = {
            **(getattr(self.config, "auto_map", None) or {}),
            "AutoModel": "modeling_inspector.InspectorModel",
            "AutoModelForSequenceClassification": "reward.InspectorReward",
        }
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config.fused = was_fused
            del self.config.custom_pipelines
        from .reward import InspectorReward

        for shipped in (InspectorPipeline, InspectorReward, EndpointHandler):
            custom_object_save(shipped, save_directory)


def _make_head(aspect: Aspect, hidden_size: int) -> LinearProbe | ScoreTokens:
    head = aspect.head
    if head.type == "score_tokens":
        return ScoreTokens(len(aspect.features), hidden_size, len(aspect.classes), head.rule, head.aggregation)
    if head.type == "stacked":
        n_features, n_states = len(aspect.probe_features), len(aspect.token_features)
        return StackedHead(n_features, n_states, hidden_size, len(aspect.classes), len(head.token_ids), head.rule)
    return LinearProbe(len(aspect.features), hidden_size, len(aspect.classes), head.rule, head.members)


def unique_features(aspects: Iterable[Aspect]) -> tuple[Feature, ...]:
    """Return every feature that one of these aspects reads, once, in order of first appearance."""
    return tuple(dict.fromkeys(feature for aspect in aspects for feature in aspect.features))


def probe_key(aspect_name: str) -> str:
    """Name an aspect's probe in the state dict, so that it never collides with a method of ModuleDict."""
    return f"{aspect_name}_probe"


InspectorModel.register_for_auto_class("AutoModel")
