"""Score-token logits of every layer, read by a judge's own passes: what LAGER's weights are tuned on.

Those of all labelled rows are read once and kept on the disk.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.batches import windows
from inspector_pipeline.configuration_inspector import Aspect, InspectorConfig
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.engine import FeatureReader
from inspector_pipeline.errors import BackboneError, DataFileError, SettingsError
from inspector_pipeline.heads import ScoreTokens, probe_key
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.progress import Progress, Tally
from inspector_pipeline.wheel_backbone import find_gguf, is_gguf_id, is_wheel_id

from ..probing.table import Array, Index, Labels
from ..rows.records import LabelledPair
from ..runs.manifest import FOLDERS_MANIFEST, Manifest

GGUF_HEAD = "output.weight"  # where a file has none, transformers says that the embeddings are tied
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
    encoder = judge.encode.encoders[score_tokens_of(judge, aspect)[0].features[0].reading]
    return logits_of_encoded(judge, aspect, [encoder(*pair) for pair in pairs])


def logits_of_encoded(judge: InspectorPipeline, aspect: str, encoded: Sequence[EncodedPair]) -> Array:
    """Do the same for tokenised pairs."""
    described, head = score_tokens_of(judge, aspect)
    features, reading = described.features, described.features[0].reading
    reader = FeatureReader(
        judge.model.backbone,
        judge.model.final_norm,
        features,
        {reading: judge.encode.encoders[reading]},
        rms_norm_eps=judge.model.config.rms_norm_eps,
        pad_id=judge.tokenizer.pad_token_id or 0,
    )
    found = np.zeros((len(encoded), len(features), len(head.levels)))
    tokens = [len(pair.input_ids) for pair in encoded]
    is_silent = not hf_logging.is_progress_bar_enabled()
    with Progress(f"read {aspect}", Tally(len(encoded), tokens), delay=2.0, disable=is_silent) as bar:
        reader.on_pass = bar.passed
        for window in windows(range(len(encoded)), WINDOW):
            bar.begin(len(window), sum(tokens[i] for i in window))
            with torch.inference_mode():
                states = reader([{reading: encoded[i]} for i in window])
                stacked = torch.stack([states[feature] for feature in features], dim=1).to(head.weight.device)
                found[window] = head.layer_logits(stacked).cpu().numpy()
            bar.end()
    return found


def score_tokens_of(judge: InspectorPipeline, aspect: str) -> tuple[Aspect, ScoreTokens]:
    """Return an aspect with score tokens, and its head.

    Raises:
        SettingsError: The judge has no such aspect.
    """
    for described in judge.model.aspects:
        if described.name == aspect and described.head.type == "score_tokens":
            return described, cast(ScoreTokens, judge.model.probes[probe_key(aspect)])
    raise SettingsError(f"{aspect!r} expects to be an aspect with score tokens, but the judge has none.")


# What a config may do to logits beside the linear map: name -> the values that change nothing.
NOT_LINEAR = {
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "final_logit_softcapping": (None, 0),
}


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
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
        revision: Its revision.

    Raises:
        BackboneError: It cannot be loaded, or does more than a linear map.
    """
    location, pinned = backbone_location(backbone_id, revision, None)
    config = AutoConfig.from_pretrained(location, **pinned).get_text_config()
    for name, harmless in NOT_LINEAR.items():
        if getattr(config, name, None) not in harmless:
            raise BackboneError(
                f"Score tokens expect logits that are a linear map of the state, but {backbone_id} has {name} = "
                f"{getattr(config, name)}. Take another backbone."
            )
    if config.tie_word_embeddings:
        backbone = load_backbone(backbone_id, revision, None if is_wheel_id(backbone_id) else 1, dtype="auto")
        weight = backbone.get_input_embeddings().weight.detach()
        return Unembedding(weight, torch.zeros(len(weight)))
    if is_gguf_id(backbone_id):
        return _unembedding_in(find_gguf(backbone_id, revision))
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


def _unembedding_in(path: Path) -> Unembedding:
    """Dequantise the unembedding of a GGUF file, of which converted backbones keep no copy."""
    (head,) = (tensor for tensor in GGUFReader(path).tensors if tensor.name == GGUF_HEAD)
    weight = torch.from_numpy(dequantize(head.data, head.tensor_type)).to(torch.bfloat16)
    return Unembedding(weight, torch.zeros(len(weight)))


@dataclass(frozen=True)
class LayerLogits:
    """Score-token logits of every row of some aspects.

    Attributes:
        values: Aspect -> (rows of that aspect, layers, classes), in the table's order.
        scales: Aspect -> the scores of its tokens.
        labels: The table.
    """

    values: Mapping[str, Array]
    scales: Mapping[str, tuple[int, ...]]
    labels: Labels

    def of(self, aspect: str, rows: Index) -> Array:
        """Return the logits of some rows of the table, (rows, layers, classes)."""
        own = np.flatnonzero(self.labels.aspect == self.labels.names.index(aspect))
        return self.values[aspect][np.searchsorted(own, rows)]

    def by_scale(self) -> list[list[str]]:
        """Group the aspects by their scale."""
        scales = dict.fromkeys(self.scales.values())
        return [[name for name, own in self.scales.items() if own == scale] for scale in scales]


@dataclass(frozen=True)
class LogitsSettings:
    """What the logits depend on.

    Attributes:
        judge: Folder of the lager stage.
        pairs: File of the labelled rows.
        uncounted: Aspects that are left out.
    """

    judge: str
    pairs: str
    uncounted: tuple[str, ...]


def cached_layer_logits(settings: LogitsSettings, pairs: list[LabelledPair], labels: Labels, path: Path) -> LayerLogits:
    """Read them, or take what was read before; what a killed run had read is kept in parts of `WINDOW` rows.

    Args:
        settings: What they depend on.
        pairs: The rows' pairs.
        labels: The table.
        path: Where they are kept; parts of it stand in a folder beside it until all are there.

    Raises:
        DataFileError: The judge scores none of the labels' aspects.
    """
    aspects = InspectorConfig.from_pretrained(settings.judge).parsed_aspects
    scales = {aspect.name: aspect.classes for aspect in aspects if aspect.name in labels.names}
    if not scales:
        raise DataFileError(f"{settings.judge} expects to score an aspect of the labels, {', '.join(labels.names)}.")
    manifest = Manifest.of("layer_logits", settings, (settings.pairs, str(Path(settings.judge) / FOLDERS_MANIFEST)))
    if not manifest.vouches_for(path):
        parts = path.with_suffix(".parts")
        parts.mkdir(parents=True, exist_ok=True)
        judge = load_judge(Path(settings.judge), dtype="stored")
        texts = [(pair.question, pair.prediction) for pair in pairs]
        found = {}
        for a, name in enumerate(labels.names):
            if name in scales:
                own = [texts[i] for i in labels.pair[labels.aspect == a]]
                found[name] = _in_parts(judge, name, own, manifest, parts / str(a))
        save_file(found, path)
        manifest.write(path, [path])
        shutil.rmtree(parts)
    with safe_open(path, framework="numpy") as file:
        return LayerLogits({name: file.get_tensor(name) for name in scales}, scales, labels)


def _in_parts(
    judge: InspectorPipeline, aspect: str, pairs: Sequence[tuple[str, str]], manifest: Manifest, start: Path
) -> Array:
    """Read an aspect's logits window by window, each kept as a file whose name begins so, or take what is kept."""
    found = []
    for n, window in enumerate(windows(pairs, WINDOW)):
        part = start.with_name(f"{start.name}-{n}.safetensors")
        if not manifest.vouches_for(part):
            save_file({aspect: layer_logits(judge, aspect, window)}, part)
            manifest.write(part, [part])
        found.append(load_file(part)[aspect])
    return np.concatenate(found)
