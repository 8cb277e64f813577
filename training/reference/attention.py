"""Attention entropies of every head, which the published rankings and, as an option, probes read.

They need attention weights, so a pass with eager attention of its own, of which nothing else is kept: each layer's
weights are reduced as soon as they are there. What is read lies beside the features of the same fingerprint, in shards
of the same windows, and is not read again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.engine import collate, plan_batches, windows
from inspector_pipeline.errors import BackboneError
from inspector_pipeline.template import EncodedPair, PairTokenizer
from inspector_pipeline.truncation import find_decoder_parts

from ..features.store import (
    PAIRS_FILE,
    Fingerprint,
    Shard,
    covered_rows,
    plan_shards,
    read_column,
    shard_digest,
    write_shard,
)
from ..rows.records import LabelledPair, labelled_pairs, read_records

TOKEN_BUDGET = 1024  # tokens of a batch; a layer's weights are heads x tokens x longest row


def attention_entropies(folder: str | Path, reading: str) -> dict[int, NDArray[np.float32]]:
    """Read the mean attention entropy of every head, in a pass of its own where it was not read before.

    The entropy of a head in a pair is -sum_k a_qk ln a_qk (nats), averaged over the pair's tokens q.

    Args:
        folder: Output of the extract stage; the same pairs are read with the same backbone in the same reading.
        reading: One of its readings.

    Returns:
        Layer, counted from 1 as states are, up to the deepest that the features hold -> float32 (rows, heads), in the
        order of the features' rows.

    Raises:
        BackboneError: The backbone cannot be loaded, or gives no attention weights.
        DataFileError: The folder does not hold features.
    """
    folder = Path(folder)
    made_from = Fingerprint.read(folder)
    pairs = labelled_pairs(read_records(folder / PAIRS_FILE), unlabelled=True)
    rows = covered_rows(reading, pairs)
    shards = plan_shards(folder, f"attention:{reading}", len(rows), made_from.window)
    parts = list(zip(shards, windows(rows.tolist(), made_from.window), strict=True))
    missing = [part for part in parts if shard_digest(part[0]) != made_from.digest]
    if missing:
        _read_missing(missing, pairs, reading, made_from)
    layers = range(1, max(1, *made_from.layers) + 1)
    return {layer: np.concatenate([read_column(shard, f"entropy.{layer}") for shard in shards]) for layer in layers}


def _read_missing(
    missing: list[tuple[Shard, list[int]]], pairs: list[LabelledPair], reading: str, made_from: Fingerprint
) -> None:
    identity = made_from.backbone
    location, pinned = backbone_location(identity["id"], identity["revision"], None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    backbone = load_backbone(
        location,
        pinned.get("revision"),
        max(1, *made_from.layers),
        dtype=getattr(torch, identity["dtype"]),
        attn_implementation="eager",
    )
    if torch.cuda.is_available():
        backbone = backbone.to("cuda")
    encoder = PairTokenizer(made_from.readings[reading], tokenizer, made_from.max_length)
    with hf_logging.tqdm(total=sum(shard.n_rows for shard, _ in missing), desc=f"attention {reading}") as bar:
        for shard, rows in missing:
            encoded = [encoder(pairs[row].question, pairs[row].prediction) for row in rows]
            values = head_entropies(backbone, encoded, tokenizer.pad_token_id or 0)
            write_shard(shard, {f"entropy.{layer}": value for layer, value in values.items()}, made_from)
            bar.update(len(rows))


def head_entropies(
    backbone: PreTrainedModel, encoded: Sequence[EncodedPair], pad_id: int = 0
) -> dict[int, NDArray[np.float32]]:
    """Compute the mean attention entropy of every head.

    Args:
        backbone: A decoder with eager attention.
        encoded: Pairs under one reading.
        pad_id: Any valid token id.

    Returns:
        Layer, counted from 1 -> float32 (pairs, heads), in nats.

    Raises:
        BackboneError: The backbone gives no attention weights.
    """
    found: dict[int, NDArray[np.float32]] = {}
    for batch in plan_batches([len(pair.input_ids) for pair in encoded], token_budget=TOKEN_BUDGET):
        inputs = collate([encoded[i] for i in batch], pad_id)
        mask = inputs["attention_mask"].to(backbone.device)
        with torch.inference_mode(), _reduced_weights(backbone, mask) as entropies:
            backbone(inputs["input_ids"].to(backbone.device), attention_mask=mask, use_cache=False)
        if len(entropies) != backbone.config.num_hidden_layers:
            raise BackboneError(
                f"A backbone expects attention weights of {backbone.config.num_hidden_layers} layers, but "
                f"{type(backbone).__name__} gave those of {len(entropies)}. Load it with eager attention."
            )
        for layer, entropy in entropies.items():
            values = entropy.float().cpu().numpy()
            found.setdefault(layer, np.empty((len(encoded), values.shape[1]), dtype=np.float32))[batch] = values
    return found


@contextmanager
def _reduced_weights(backbone: PreTrainedModel, mask: Tensor) -> Iterator[dict[int, Tensor]]:
    """Collect each layer's entropies, (batch, heads), while the backbone runs; its weights are dropped at once."""
    parts = find_decoder_parts(backbone, backbone.config.num_hidden_layers)
    layers = getattr(backbone.get_submodule(parts.path), parts.layers_name)
    entropies: dict[int, Tensor] = {}

    def reduce(layer: int, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.ndim == 4:
            entropies[layer] = _mean_entropy(weights, mask)

    def hook(layer: int) -> Any:
        return lambda module, inputs, output: reduce(layer, output)

    handles = [
        module.register_forward_hook(hook(i))
        for i, layer in enumerate(layers, start=1)
        for module in _attention_modules(layer)
    ]
    try:
        yield entropies
    finally:
        for handle in handles:
            handle.remove()


def _attention_modules(layer: nn.Module) -> list[nn.Module]:
    return [module for module in layer.modules() if type(module).__name__.endswith("Attention")]


def _mean_entropy(weights: Tensor, mask: Tensor) -> Tensor:
    """Average the entropy of each token's attention over the real tokens: (batch, heads) of (batch, heads, q, k)."""
    entropy = torch.special.entr(weights.float()).sum(dim=-1)
    real = mask[:, None, :].to(entropy.dtype)
    mean: Tensor = (entropy * real).sum(dim=-1) / real.sum(dim=-1)
    return mean
