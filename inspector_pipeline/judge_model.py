"""What a judge computes: its backbone's pass, and one head per aspect on the pooled states."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from .calibration import LevelMap, LevelTensors
from .checks import FINDERS, check_vectors
from .configuration_inspector import Aspect, InspectorConfig, unique_features
from .decisions import PREFERENCE
from .encoded import Finder
from .errors import BackboneError
from .familiarity import Familiarity
from .features import Feature, read_features
from .heads import LinearProbe, ScoreTokens, StackedHead, frozen_parameter, probe_key
from .truncation import position_limit, take_final_norm

logger = logging.getLogger(__name__)

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
        distance: float32 (batch,), how far the pair lies from those that the judge was fitted on; None where it does
            not know.
    """

    scores: Tensor | None = None
    expected: Tensor | None = None
    probabilities: tuple[Tensor, ...] | None = None
    decision_values: tuple[Tensor, ...] | None = None
    distance: Tensor | None = None


class JudgeModel(PreTrainedModel):
    """A frozen decoder cut at the deepest layer that any head reads, and the heads.

    Args:
        config: The judge's config.

    Raises:
        JudgeConfigError: The config is incomplete or contradicts itself.
    """

    config_class = InspectorConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    familiar: Familiarity | None
    seen_questions: Tensor | None  # int64, ascending: the numbers of the questions that the judge was fitted on
    _keys_to_ignore_on_load_unexpected = [r"^backbone\.", r"^final_norm\."]

    def __init__(self, config: InspectorConfig) -> None:
        """Build the probes, and the backbone where the config says that the judge's files hold it."""
        super().__init__(config)
        config.check()
        self.aspects = config.parsed_aspects
        read = unique_features(self.aspects)
        self.features = tuple(feature for feature in read if not feature.is_check)
        self.checks = tuple(feature for feature in read if feature.is_check)
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
        described = config.parsed_familiar
        self.familiar_features = described.features if described else ()
        sizes = (len(described.features) * hidden, described.n_components, described.n_words) if described else None
        self.familiar = Familiarity(*sizes) if sizes else None
        n_seen = config.n_seen_questions
        self.register_buffer("seen_questions", torch.zeros(n_seen, dtype=torch.int64) if n_seen else None)
        self.set_level_maps(config.parsed_calibration)
        self.post_init()

    def set_level_maps(self, level_maps: dict[str, LevelMap]) -> None:
        """Take these maps, aspect -> the levels and probabilities of a domain, in the place of the present ones."""
        self.level_maps = level_maps
        self._classes_on: tuple[torch.device, list[tuple[Tensor, LevelTensors | None]]] | None = None

    def set_backbone(self, backbone: PreTrainedModel, final_norm: nn.Module | None = None) -> None:
        """Take a decoder of the config's depth as the backbone; pairs are cut to the positions that it has.

        Args:
            backbone: With its final norm in place; or, where `final_norm` is given, without.
            final_norm: The norm that was taken from it.
        """
        limit = position_limit(backbone)
        if limit is not None and self.config.max_length > limit:
            message = "Pairs are cut to %d tokens, since the backbone has no more positions; max_length says %d."
            logger.warning(message, limit, self.config.max_length)
            self.config.max_length = limit
        if final_norm is None:
            final_norm = take_final_norm(backbone)
        self.backbone = backbone.requires_grad_(False)
        self.final_norm = final_norm.requires_grad_(False) if self.needs_final_norm else None

    @property
    def loaded_backbone(self) -> PreTrainedModel:
        """The backbone.

        Raises:
            BackboneError: The judge has none yet.
        """
        if self.backbone is None:
            raise BackboneError("This judge holds probes only. Load it with from_pretrained, which adds the backbone.")
        return self.backbone

    @property
    def needs_final_norm(self) -> bool:
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
            **kwargs: For each check that an aspect reads a (batch,) tensor by its name, non-zero where it found
                something (`EncodedPair.checks`); others are ignored, as transformers passes some of its own.

        Returns:
            Scores, expectations, probabilities and decision values.

        Raises:
            ValueError: The inputs do not name the judge's readings, or lack a check.
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "response_mask": response_mask}
        features: dict[Feature, Tensor] = {}
        for name in self.reading_names:
            inputs = {key: self._of_reading(value, name, key) for key, value in given.items() if value is not None}
            features |= self.read(name, **inputs)
        lacking = [check.pooling for check in self.checks if kwargs.get(check.pooling) is None]
        if lacking:
            raise ValueError(
                f"A judge expects what its checks found, {lacking[0]}=, a tensor with 1 for each response in which "
                "something was found. The pipeline finds it out; so does collate of encoded pairs."
            )
        return self.decide(features | self.checked({check.pooling: kwargs[check.pooling] for check in self.checks}))

    def finders(self, reading: str) -> dict[str, Finder]:
        """Return what finds the checks that are read beside a reading, by their names."""
        return {check.pooling: FINDERS[check.pooling] for check in self.checks if check.reading == reading}

    def checked(self, found: Mapping[str, Sequence[bool] | Tensor]) -> dict[Feature, Tensor]:
        """Return what checks found as features: check -> (batch,) in, float32 (batch, hidden) for each out."""
        size, device = self.centers.shape[1], self.centers.device
        return {check: check_vectors(found[check.pooling], size, device) for check in self.checks}

    def decide(self, features: Mapping[Feature, Tensor]) -> InspectorOutput:
        """Run every aspect's probe on features that were read already.

        Args:
            features: float32 (batch, hidden) for each of the judge's features, those of `checked` included.

        Returns:
            Scores, expectations, probabilities and decision values.
        """
        device = self.centers.device
        centred = {
            feature: features[feature].to(device) - center
            for feature, center in zip(self.centred_features, self.centers, strict=True)
        }
        values, probabilities, scores, expected = [], [], [], []
        for aspect, (classes, level_map) in zip(self.aspects, self._class_values(device), strict=True):
            head = cast(Union[LinearProbe, ScoreTokens], self.probes[probe_key(aspect.name)])  # noqa: UP007
            parts = ((aspect.probe_features, centred), (aspect.token_features, features))
            values.append(head(*(torch.stack([read[f].to(device) for f in own], dim=1) for own, read in parts if own)))
            decision = head.decide(values[-1])
            if level_map is not None:
                decision = level_map((decision.probabilities * classes).sum(dim=1))
            probabilities.append(decision.probabilities)
            scores.append(classes[decision.class_index])
            is_preference = aspect.head.rule == PREFERENCE
            expected.append(values[-1][:, 0] if is_preference else (decision.probabilities * classes).sum(dim=1))
        distance = None
        if self.familiar is not None:
            place = self.familiar.center.device
            distance = self.familiar(torch.stack([features[f].to(place) for f in self.familiar_features], dim=1))
        return InspectorOutput(
            scores=torch.stack(scores, dim=1),
            expected=torch.stack(expected, dim=1),
            probabilities=tuple(probabilities),
            decision_values=tuple(values),
            distance=distance,
        )

    def _class_values(self, device: torch.device) -> list[tuple[Tensor, LevelTensors | None]]:
        """Return each aspect's classes, and the map of its calibration, copied to a device once."""
        if self._classes_on is None or self._classes_on[0] != device:
            classes = [torch.tensor(aspect.classes, device=device) for aspect in self.aspects]
            maps = {name: level_map.tensors(device) for name, level_map in self.level_maps.items()}
            own = [maps.get(aspect.name) for aspect in self.aspects]
            self._classes_on = device, list(zip(classes, own, strict=True))
        return self._classes_on[1]

    def read(
        self,
        reading: str,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        response_mask: Tensor | None = None,
    ) -> dict[Feature, Tensor]:
        """Run one reading's pass and pool every feature that an aspect reads from it.

        Args:
            reading: Name of the reading.
            input_ids: int64 (batch, tokens).
            attention_mask: (batch, tokens), non-zero on real tokens; padding left or right; all are real where it is
                None.
            response_mask: (batch, tokens), non-zero on the response's tokens.

        Returns:
            float32 (batch, hidden) for each feature.

        Raises:
            BackboneError: The judge has no backbone yet, or one in whole numbers, which is not padded.
        """
        if self.config.engine:
            raise BackboneError(
                f"Padded batches expect the engine torch, but the judge runs {self.config.engine['name']}, whose "
                "results would depend on the padding. Use its pipeline, or load it with engine='torch'."
            )
        return read_features(
            self.loaded_backbone,
            self.final_norm,
            [feature for feature in self.features if feature.reading == reading],
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            response_mask=response_mask,
            rms_norm_eps=self.config.rms_norm_eps,
        )

    def _of_reading(self, value: PerReading, name: str, argument: str) -> Tensor:
        if isinstance(value, Tensor):
            if len(self.reading_names) == 1:
                return value
            raise ValueError(
                f"{argument} expects a mapping with a tensor for each reading ({', '.join(self.reading_names)}), but "
                "got one tensor."
            )
        if name not in value:
            raise ValueError(f"{argument} expects a tensor for the reading {name!r}, but got {', '.join(value)}.")
        return value[name]

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
        return cast(nn.Module, self.loaded_backbone.get_input_embeddings())

    def initialize_weights(self) -> None:
        """Compute what no file holds: while a fused judge is loaded, tensors that the backbone makes anew each time.

        The backbone does it as where it is loaded by itself: as a part of a model that is not transformers' own, its
        modules without parameters would be passed over.

        Raises:
            BackboneError: The backbone leaves a tensor as the memory happened to be.
        """
        if self.backbone is not None and not getattr(self.backbone, "_is_hf_initialized", False):
            found = [self._recompute(self.backbone, filling) for filling in (0, 1)]
            unset = [name for name, value in found[0].items() if not value.equal(found[1][name])]
            if unset:
                raise BackboneError(
                    f"A fused judge expects a backbone that computes what its files lack, but {unset[0]} and "
                    f"{len(unset) - 1} more of {type(self.backbone).__name__} stay unset. Save the judge with "
                    "fused=False."
                )
        super().initialize_weights()

    @staticmethod
    def _recompute(backbone: PreTrainedModel, filling: int) -> dict[str, Tensor]:
        """Fill what no file holds with a number, let the backbone set it, and return what it is then."""
        held = {k: v for k, v in backbone.named_non_persistent_buffers() if v.device.type != "meta"}
        for buffer in held.values():
            buffer.fill_(filling)
        for module in backbone.modules():
            module._is_hf_initialized = False
        backbone.initialize_weights()
        return {name: buffer.clone() for name, buffer in held.items()}

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the probes at zero: a judge whose probes are missing is refused, never made up."""


def _make_head(aspect: Aspect, hidden_size: int) -> LinearProbe | ScoreTokens:
    head = aspect.head
    if head.type == "score_tokens":
        return ScoreTokens(len(aspect.features), hidden_size, len(aspect.classes), head.rule, head.aggregation)
    if head.type == "stacked":
        counts = len(aspect.probe_features), len(aspect.token_features)
        return StackedHead(*counts, hidden_size, len(aspect.classes), len(head.token_ids), head.rule)
    return LinearProbe(len(aspect.features), hidden_size, len(aspect.classes), head.rule, head.members)
