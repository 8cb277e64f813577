"""The one place that describes a judge and fills its heads: from a backbone, readings, and a head for every aspect."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from inspector_pipeline.backbone import backbone_location, named_by_content
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import JudgeConfigError
from inspector_pipeline.features import Feature
from inspector_pipeline.heads import probe_key
from inspector_pipeline.int8 import ENGINE_SETTINGS, STATE_ERROR, TORCH
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.results import column_kinds
from inspector_pipeline.truncation import truncated_config

Array = NDArray[np.float64]
TOKEN_PARAMETERS = {  # head -> its parameters, in the order of `ScoreTokenWeights`
    "score_tokens": ("weight", "bias", "levels", "layer_weights"),
    "stacked": ("token_weight", "token_bias", "levels", "expectation_weights"),
}


@dataclass(frozen=True)
class BackboneSpec:
    """Which backbone a judge runs, and how.

    Attributes:
        id: Hub id, folder, `pypi:` or `gguf:` id.
        revision: Its revision.
        dtype: Of its computation.
        max_length: Upper bound on the tokens of a pair under one reading.
        engine: The arithmetic: torch or torch-int8.
        state_error: How far features in that engine were from those in float32, where it was measured.
    """

    id: str
    revision: str | None
    dtype: str = "float32"
    max_length: int = 2048
    engine: str = TORCH
    state_error: float | None = None

    @classmethod
    def of(cls, config: InspectorConfig) -> "BackboneSpec":
        """Return that of a judge."""
        dtype = str(config.dtype).removeprefix("torch.")
        engine, error = (config.engine["name"], config.engine.get(STATE_ERROR)) if config.engine else (TORCH, None)
        return cls(config.backbone_id, config.backbone_revision, dtype, config.max_length, engine, error)

    def config(self, depth: int | None = None) -> PreTrainedConfig:
        """Read its config.

        Args:
            depth: Layers that will be read; None for all.
        """
        location, pinned = backbone_location(self.id, self.revision, depth)
        config: PreTrainedConfig = AutoConfig.from_pretrained(location, **pinned)
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load its tokenizer."""
        location, pinned = backbone_location(self.id, self.revision, None)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(location, **pinned)
        return tokenizer


@dataclass(frozen=True)
class ProbeWeights:
    """A probe: decision values = (x - center) @ weight.T + bias, then a rule.

    Attributes:
        rule: One of `inspector_pipeline.decisions.RULES`.
        classes: The scores, ascending.
        center: (features,).
        weight: (outputs, features).
        bias: (outputs,).
        parameters: What the rule needs beside, each (size,).
        members: How many fits a calibrated rule averages.
    """

    rule: str
    classes: list[Any]
    center: Array
    weight: Array
    bias: Array
    parameters: dict[str, Array] = field(default_factory=dict)
    members: int = 1


class ScoreTokenWeights(NamedTuple):
    """The score tokens of a head, alone (LAGER) or stacked with a probe.

    Attributes:
        weight: (tokens, hidden), the unembedding's rows.
        bias: (tokens,).
        levels: (tokens,), the score that each token stands for, ascending.
        layers: (states,), the weight of each state's logits; in a stacked head, of what its tokens expect.
    """

    weight: Tensor
    bias: Tensor
    levels: Tensor
    layers: Tensor


@dataclass(frozen=True)
class AspectHead:
    """An aspect of a judge, and the weights of its head.

    Attributes:
        name: The aspect.
        features: What the head reads.
        head: Its type and rule, as config.json has them.
        classes: The scores that it gives, ascending.
        probe: Of a head that has a probe.
        tokens: Of a head that has score tokens.
        counts_in_total: Whether the score is part of the total.
        words: What a result calls each class, where the labels were words.
    """

    name: str
    features: Sequence[Feature]
    head: dict[str, Any]
    classes: Sequence[float]
    probe: ProbeWeights | None = None
    tokens: ScoreTokenWeights | None = None
    counts_in_total: bool = True
    words: Sequence[str] = ()


class FittedOn(NamedTuple):
    """What a judge says of the rows that it was fitted on.

    Attributes:
        familiar: The config's object; None where the judge cannot tell which pairs are like those rows.
        tensors: Those of `Familiarity`, by name.
        seen_questions: int64, ascending: the numbers of the rows' questions.
    """

    familiar: dict[str, Any] | None
    tensors: Mapping[str, NDArray[Any]]
    seen_questions: NDArray[np.int64]


def judge_config(
    backbone: BackboneSpec,
    readings: Mapping[str, dict[str, Any]],
    aspects: Sequence[AspectHead],
    whole_config: PreTrainedConfig | None = None,
    rank_by: str | None = None,
    fitted_on: FittedOn | None = None,
) -> InspectorConfig:
    """Describe a judge, as deep as its deepest feature.

    Args:
        backbone: Its backbone.
        readings: Name -> JSON object of a `PairTemplate`; those that no feature reads are left out.
        aspects: Its aspects, in the order of the result.
        whole_config: The backbone's config, where it is at hand.
        rank_by: The field that it ranks by; None is the expected total.
        fitted_on: What it says of the rows that it was fitted on.

    Raises:
        SettingsError: An aspect is called as one of a result's own columns.
    """
    column_kinds([aspect.name for aspect in aspects])
    familiar, n_seen = (fitted_on.familiar, len(fitted_on.seen_questions)) if fitted_on else (None, 0)
    features = [feature for aspect in aspects for feature in aspect.features]
    depth = max([1, *(feature.layer for feature in features)])
    read = {feature.reading for feature in features}
    backbone_id, revision = named_by_content(backbone.id, backbone.revision)
    config = InspectorConfig(
        backbone_config=truncated_config(whole_config or backbone.config(depth), depth),
        backbone_id=backbone_id,
        backbone_revision=revision,
        fused=False,
        depth=depth,
        readings={name: reading for name, reading in readings.items() if name in read},
        aspects=[
            {
                "name": aspect.name,
                "features": [asdict(feature) for feature in aspect.features],
                "head": aspect.head,
                "classes": list(aspect.classes),
                "counts_in_total": aspect.counts_in_total,
                **({"words": list(aspect.words)} if aspect.words else {}),
            }
            for aspect in aspects
        ],
        max_length=backbone.max_length,
        familiar=familiar,
        n_seen_questions=n_seen,
        dtype=backbone.dtype,
        rank_by=rank_by,
        engine=_engine_of(backbone),
    )
    config.format_version = config.needed_version
    return config


def _engine_of(backbone: BackboneSpec) -> dict[str, Any] | None:
    if backbone.engine == TORCH:
        return None
    return ENGINE_SETTINGS | ({} if backbone.state_error is None else {STATE_ERROR: backbone.state_error})


def build_judge(
    backbone: BackboneSpec,
    readings: Mapping[str, dict[str, Any]],
    aspects: Sequence[AspectHead],
    whole_config: PreTrainedConfig | None = None,
    rank_by: str | None = None,
    fitted_on: FittedOn | None = None,
) -> InspectorModel:
    """Make a judge and fill its heads; for the arguments see `judge_config`.

    A feature has one centre in a judge. Where aspects that read the same feature bring different ones, the first is
    kept and the difference goes into the others' bias, in float64, which changes no decision value.

    Returns:
        A judge without its backbone, whose weights are in float32.

    Raises:
        JudgeConfigError: A probe does not fit its aspect, or the parts contradict each other.
    """
    model = InspectorModel(judge_config(backbone, readings, aspects, whole_config, rank_by, fitted_on))
    centers: dict[Feature, Array] = {}
    for described, aspect in zip(model.aspects, aspects, strict=True):
        head = model.probes[probe_key(aspect.name)]
        if aspect.probe is not None:
            own = _centered(aspect, described.probe_features, model.config.backbone_config.hidden_size, centers)
            for name, values in own.items():
                head.get_parameter(name).data = _float32(values)
        if aspect.tokens is not None:
            for name, tensor in zip(TOKEN_PARAMETERS[described.head.type], aspect.tokens, strict=True):
                head.get_parameter(name).data = tensor.detach().float().clone()
    if centers:
        model.centers.data = _float32(np.stack([centers[feature] for feature in model.centred_features]))
    if fitted_on is not None:
        for name, values in fitted_on.tensors.items():
            model.get_buffer(f"familiar.{name}").data = torch.from_numpy(values)
        if model.seen_questions is not None:
            model.seen_questions.data = torch.from_numpy(fitted_on.seen_questions)
    return model


def _centered(
    aspect: AspectHead, features: Sequence[Feature], hidden: int, centers: dict[Feature, Array]
) -> dict[str, Array]:
    """Return the parameters of an aspect's probe around its features' centres, which it sets where there is none."""
    probe = cast(ProbeWeights, aspect.probe)
    expected = len(features) * hidden
    if probe.weight.shape[1] != expected:
        raise JudgeConfigError(
            f"The probe of {aspect.name} expects {probe.weight.shape[1]} inputs, but the judge gives it "
            f"{len(features)} feature(s) of {hidden}, {expected} in all. Check its layers and the backbone."
        )
    own = probe.center.reshape(len(features), hidden)
    kept = np.stack([centers.setdefault(feature, center) for feature, center in zip(features, own, strict=True)])
    bias = probe.bias + probe.weight @ (kept.astype(np.float32).astype(np.float64) - own).reshape(-1)
    return {"weight": probe.weight.reshape(-1, len(features), hidden), "bias": bias, **probe.parameters}


def _float32(values: Array) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)
