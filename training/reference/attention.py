"""Attention entropies of every head, which the published rankings and, as an option, probes read.

They need attention weights, so a pass with eager attention of its own, of which nothing else is kept: each layer's
weights are reduced as soon as they are there. What is read lies beside the features of the same fingerprint, in shards
of the same windows, and is not read again.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.batches import collate, plan_batches
from inspector_pipeline.encoded import EncodedPair

from ..features.attention_weights import reduced_weights
from ..features.extract import fill_shards, load_layers
from ..features.store import FeatureSet, Fingerprint, Shard, plan_shards

TOKEN_BUDGET = 1024  # tokens of a batch; a layer's weights are heads x tokens x longest row

Entropies = dict[int, NDArray[np.float32]]  # layer, counted from 1 -> (rows, heads)


def attention_entropies(features: FeatureSet, reading: str) -> Entropies:
    """Read the mean attention entropy of every head, in a pass of its own where it was not read before.

    The entropy of a head in a pair is -sum_k a_qk ln a_qk (nats), averaged over the pair's tokens q.

    Args:
        features: The same pairs are read with the same backbone in the same reading.
        reading: One of theirs.

    Returns:
        Layer, counted from 1 as states are, up to the deepest that the features hold -> float32 (rows, heads), in the
        order of the features' rows; empty where there are none.

    Raises:
        BackboneError: The backbone cannot be loaded, or gives no attention weights.
    """
    folders = dict.fromkeys(shard.path.parent for shard in features.shards[reading])
    shards = [shard for folder in folders for shard in _filled_shards(folder, reading)]
    layers = range(1, max(1, *features.layers) + 1) if shards else ()
    return {layer: np.concatenate([shard.column(f"entropy.{layer}") for shard in shards]) for layer in layers}


def _filled_shards(folder: Path, reading: str) -> tuple[Shard, ...]:
    """Return the shards of a folder's attention entropies; those that are missing are read first."""
    made_from = Fingerprint.read(folder)
    pairs = made_from.read_pairs(folder)
    shards = plan_shards(folder, reading, pairs, made_from.window, prefix="attention:")
    missing = [shard for shard in shards if not shard.is_of(made_from.digest)]
    if missing:
        location, pinned = backbone_location(made_from.backbone["id"], made_from.backbone["revision"], None)
        tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
        backbone = load_layers(made_from, attn_implementation="eager")
        read = partial(_read_columns, backbone, tokenizer.pad_token_id or 0)
        label = f"attention {reading}"
        fill_shards({reading: missing}, pairs, made_from, tokenizer, lambda *_: read, label=label)
    return shards


def _read_columns(backbone: PreTrainedModel, pad_id: int, encoded: list[EncodedPair]) -> dict[str, NDArray[np.float32]]:
    return {f"entropy.{layer}": values for layer, values in head_entropies(backbone, encoded, pad_id).items()}


def head_entropies(backbone: PreTrainedModel, encoded: Sequence[EncodedPair], pad_id: int = 0) -> Entropies:
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
    found: Entropies = {}
    for batch in plan_batches([len(pair.input_ids) for pair in encoded], token_budget=TOKEN_BUDGET):
        inputs = collate([encoded[i] for i in batch], pad_id)
        mask = inputs["attention_mask"].to(backbone.device)
        with torch.inference_mode(), reduced_weights(backbone, partial(_mean_entropy, mask)) as entropies:
            backbone(inputs["input_ids"].to(backbone.device), attention_mask=mask, use_cache=False)
        for layer, entropy in entropies.items():
            values = entropy.float().cpu().numpy()
            found.setdefault(layer, np.empty((len(encoded), values.shape[1]), dtype=np.float32))[batch] = values
    return found


def _mean_entropy(mask: Tensor, weights: Tensor) -> Tensor:
    """Average the entropy of each token's attention over the real tokens: (batch, heads) of (batch, heads, q, k)."""
    entropy = torch.special.entr(weights.float()).sum(dim=-1)
    real = mask[:, None, :].to(entropy.dtype)
    mean: Tensor = (entropy * real).sum(dim=-1) / real.sum(dim=-1)
    return mean
