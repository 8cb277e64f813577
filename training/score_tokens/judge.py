"""Build judges of score tokens: which states are read, and a head for every aspect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from transformers import AutoConfig

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.heads import ScoreTokens, probe_key
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.truncation import truncated_config

from ..features.store import RUBRIC_PREFIX
from .logits import Unembedding
from .prompts import ScoreReading
from .weights import Array, uniform_weights


@dataclass(frozen=True)
class ScoreStates:
    """Which states score tokens are read from, and how they are put together.

    Attributes:
        layers: all (the embeddings and every layer), without_last, or last, which is the usual reading of an LM judge.
        inner: Inner states raw, as published, or with the backbone's final_norm. The last state always has it.
        aggregation: What is summed over layers: logits or probabilities.
        decision: The score is the class nearest to the expectation, or the likeliest (argmax).
    """

    layers: Literal["all", "without_last", "last"] = "all"
    inner: Literal["raw", "final_norm"] = "raw"
    aggregation: Literal["logits", "probabilities"] = "logits"
    decision: Literal["expectation", "argmax"] = "expectation"

    def features(self, reading: str, n_layers: int) -> list[dict[str, Any]]:
        """Return the features, as a judge's config names them.

        Args:
            reading: Name of the reading.
            n_layers: Layers of the whole backbone.
        """
        chosen = {"all": range(n_layers + 1), "without_last": range(n_layers), "last": [n_layers]}[self.layers]
        kinds = {layer: "final_norm" if layer == n_layers else self.inner for layer in chosen}
        return [{"reading": reading, "layer": n, "pooling": "last", "state": kind} for n, kind in kinds.items()]


class Asked(NamedTuple):
    """An aspect, its scale, and the reading that asks for it.

    Attributes:
        name: The aspect's name.
        scores: The scale, ascending.
        asked: The reading and the score tokens that follow it.
    """

    name: str
    scores: list[int]
    asked: ScoreReading


@dataclass(frozen=True)
class BackboneSpec:
    """The backbone of a judge of score tokens.

    Attributes:
        id: Hub id, folder or `pypi:` id.
        revision: Its revision.
        dtype: Of its computation.
        max_length: Upper bound on the tokens of a pair with its rubric.
    """

    id: str
    revision: str | None
    dtype: str = "float32"
    max_length: int = 2048


def build_lager(
    backbone: BackboneSpec, aspects: Sequence[Asked], states: ScoreStates, unembedding: Unembedding
) -> InspectorModel:
    """Make a judge of score tokens with uniform layer weights.

    Args:
        backbone: Which backbone.
        aspects: What is asked for, and how.
        states: Which states are read.
        unembedding: The backbone's.

    Returns:
        A judge without its backbone.
    """
    location, pinned = backbone_location(backbone.id, backbone.revision, None)
    full = AutoConfig.from_pretrained(location, **pinned)
    n_layers = full.get_text_config().num_hidden_layers
    described = [_described(one, states, n_layers) for one in aspects]
    depth = max(1, *(feature["layer"] for entry in described for feature in entry["features"]))
    config = InspectorConfig(
        backbone_config=truncated_config(full, depth),
        backbone_id=backbone.id,
        backbone_revision=backbone.revision,
        fused=False,
        depth=depth,
        readings={_reading_name(one): one.asked.reading.to_dict() for one in aspects},
        aspects=described,
        max_length=backbone.max_length,
        dtype=backbone.dtype,
    )
    model = InspectorModel(config)
    for one in aspects:
        head = cast(ScoreTokens, model.probes[probe_key(one.name)])
        rows = torch.tensor(one.asked.token_ids)
        head.weight.data, head.bias.data = unembedding.weight[rows].float(), unembedding.bias[rows].float()
        head.levels.data = torch.tensor(one.scores, dtype=torch.float32)
        set_layer_weights(model, one.name, uniform_weights(len(head.layer_weights)))
    return model


def set_layer_weights(model: InspectorModel, aspect: str, weights: Array) -> None:
    """Give an aspect's head its layer weights.

    Args:
        model: A judge.
        aspect: Name of an aspect with score tokens.
        weights: (layers,), 0 or more, with the sum 1.

    Raises:
        SettingsError: There are more or fewer weights than states.
    """
    own = cast(ScoreTokens, model.probes[probe_key(aspect)]).layer_weights
    if weights.shape != own.shape:
        raise SettingsError(f"{aspect} expects {len(own)} layer weights, but got {len(weights)}.")
    own.data = torch.tensor(weights, dtype=torch.float32, device=own.device)


def _described(one: Asked, states: ScoreStates, n_layers: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "features": states.features(_reading_name(one), n_layers),
        "head": {
            "type": "score_tokens",
            "rule": states.decision,
            "aggregation": states.aggregation,
            "token_ids": one.asked.token_ids,
        },
        "classes": one.scores,
        "counts_in_total": True,
    }


def _reading_name(one: Asked) -> str:
    return f"{RUBRIC_PREFIX}{one.name}"
