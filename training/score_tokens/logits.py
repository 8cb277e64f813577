"""Score-token logits of every layer, read by a judge's own passes: what LAGER's weights are tuned on."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.engine import FeatureReader, windows
from inspector_pipeline.errors import BackboneError, SettingsError
from inspector_pipeline.heads import ScoreTokens, probe_key
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import EncodedPair
from inspector_pipeline.wheel_backbone import is_wheel_id

from ..rows.records import LabelledPair

Array = NDArray[np.float64]
WINDOW = 64  # pairs whose states are held at a time


def layer_logits(judge: InspectorPipeline, aspect: str, pairs: Sequence[tuple[str, str]]) -> Array:
    """Read the score tokens' logits of one aspect at every layer that its head reads.

    Args:
        judge: A judge with its backbone.
        aspect: Name of an aspect with score tokens.
        pairs: Questions with their predictions.

    Returns:
        (pairs, layers, classes).

    Raises:
        SettingsError: The aspect has no score tokens.
    """
    head, reading = score_tokens_of(judge, aspect)
    encoder = judge.encode.encoders[reading]
    return logits_of_encoded(judge, aspect, [encoder(*pair) for pair in pairs], head, reading)


def logits_of_encoded(
    judge: InspectorPipeline, aspect: str, encoded: Sequence[EncodedPair], head: ScoreTokens, reading: str
) -> Array:
    """Do the same for tokenised pairs."""
    features = next(a.features for a in judge.model.aspects if a.name == aspect)
    reader = FeatureReader(
        judge.model.backbone,
        judge.model.final_norm,
        features,
        {reading: judge.encode.encoders[reading]},
        rms_norm_eps=judge.model.config.rms_norm_eps,
        pad_id=judge.tokenizer.pad_token_id or 0,
    )
    found = np.zeros((len(encoded), len(features), len(head.levels)))
    with hf_logging.tqdm(total=len(encoded), desc=f"read {aspect}", unit="pair", delay=2.0) as bar:
        for window in windows(range(len(encoded)), WINDOW):
            with torch.inference_mode():
                states = reader([{reading: encoded[i]} for i in window])
                stacked = torch.stack([states[feature] for feature in features], dim=1).to(head.weight.device)
                found[window] = head.layer_logits(stacked).cpu().numpy()
            bar.update(len(window))
    return found


def score_tokens_of(judge: InspectorPipeline, aspect: str) -> tuple[ScoreTokens, str]:
    """Return an aspect's head and the name of its reading.

    Raises:
        SettingsError: The aspect has no score tokens.
    """
    described = next((a for a in judge.model.aspects if a.name == aspect), None)
    if described is None or described.head.type != "score_tokens":
        raise SettingsError(f"{aspect!r} expects to be an aspect with score tokens, but the judge has none.")
    return cast(ScoreTokens, judge.model.probes[probe_key(aspect)]), described.features[0].reading


def labelled_texts(pairs: Sequence[LabelledPair], aspect: str) -> tuple[list[tuple[str, str]], Array]:
    """Take the pairs that carry a label of an aspect, and those labels."""
    own = [pair for pair in pairs if aspect in pair.scores]
    return [(pair.question, pair.prediction) for pair in own], np.array([p.scores[aspect] for p in own], dtype=float)


SCALES = ("logit_scale", "logits_scaling")  # factors on the logits that some configs name
SOFTCAP = "final_logit_softcapping"


class Unembedding(NamedTuple):
    """A backbone's unembedding, in the checkpoint's dtype.

    Attributes:
        weight: (vocabulary, hidden).
        bias: (vocabulary,), zeros where the backbone has none.
    """

    weight: Tensor
    bias: Tensor


def load_unembedding(backbone_id: str, revision: str | None = None) -> Unembedding:
    """Load a backbone's unembedding: its token embeddings where the two are tied, else its LM head.

    Args:
        backbone_id: Hub id, folder or `pypi:` id.
        revision: Its revision.

    Raises:
        BackboneError: It cannot be loaded, or does more than a linear map.
    """
    location, pinned = backbone_location(backbone_id, revision, None)
    config = AutoConfig.from_pretrained(location, **pinned).get_text_config()
    _refuse_more_than_linear(config, backbone_id)
    if config.tie_word_embeddings:
        backbone = load_backbone(backbone_id, revision, None if is_wheel_id(backbone_id) else 1, dtype="auto")
        weight = backbone.get_input_embeddings().weight.detach()
        return Unembedding(weight, torch.zeros(len(weight)))
    model, info = AutoModelForCausalLM.from_pretrained(location, dtype="auto", output_loading_info=True, **pinned)
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    if head is None or any(key.startswith(f"{names[0]}.") for key in info["missing_keys"]):
        raise BackboneError(
            f"Score tokens expect a backbone with an LM head, but {backbone_id} has none. Take a causal LM."
        )
    bias = getattr(head, "bias", None)
    weight = head.weight.detach().clone()
    return Unembedding(weight, torch.zeros(len(weight)) if bias is None else bias.detach().clone())


def _refuse_more_than_linear(config: PreTrainedConfig, backbone_id: str) -> None:
    scaled = [name for name in SCALES if getattr(config, name, None) not in (None, 1, 1.0)]
    capped = [SOFTCAP] if getattr(config, SOFTCAP, None) else []
    if scaled or capped:
        name = (scaled + capped)[0]
        raise BackboneError(
            f"Score tokens expect logits that are a linear map of the state, but {backbone_id} has {name} = "
            f"{getattr(config, name)}. Take another backbone."
        )
