"""What scoring a pair costs: floating-point operations by formula, seconds by the clock.

Counted are the matrix products, a multiplication and an addition each: for every token 2 x the weights of the layers,
and for every sequence of T tokens the two products of attention, 2 x 2 x width x T^2, of which a causal layer needs
half. Activations, rotary embeddings, softmax and the embedding's look-up are left out.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.configuration_inspector import InspectorConfig, norm_eps
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.engine import FeatureReader
from inspector_pipeline.features import Feature
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.template import PairTemplate
from inspector_pipeline.truncation import take_final_norm, truncated_config

from ..rows.records import LabelledPair


@dataclass(frozen=True)
class Cost:
    """The cost of scoring one pair on all aspects, once everything is loaded.

    Attributes:
        seconds_per_pair: By the clock; None where it was not measured.
        flops_per_pair: By formula; 0 where no model is run.
        parameters: Of the model that is run, up to the last layer that is read; 0 where none is.
    """

    seconds_per_pair: float | None = None
    flops_per_pair: float = 0.0
    parameters: int = 0


def operations(weights: int, width: int, lengths: Iterable[float], *, causal: bool) -> float:
    """Count the multiplications and additions of layers on sequences.

    Args:
        weights: Of all the layers.
        width: Heads x size of a head, summed over the layers.
        lengths: Tokens of each sequence, padding included where it is computed.
        causal: Whether a token sees only those before it, which halves attention.
    """
    return sum(2 * weights * n + (2 if causal else 4) * n**2 * width for n in lengths)


def head_size(config: Any) -> int:
    """Return the size of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


@dataclass(frozen=True)
class LayerShape:
    """Sizes of a layer.

    Attributes:
        hidden: Size of a state.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Size of a head.
        intermediate: Size of the MLP.
        gated: Whether the MLP has a gate beside its up projection.
        causal: Whether a token sees only those before it.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool = True
    causal: bool = True

    @classmethod
    def of(cls, config: Any, *, gated: bool = True, causal: bool = True) -> "LayerShape":
        """Read the sizes from a backbone's config."""
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(config.hidden_size, heads, kv_heads, head_size(config), config.intermediate_size, gated, causal)

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The layer's linear maps: name -> (inputs, outputs)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        maps = {
            "q": (self.hidden, query),
            "k": (self.hidden, key),
            "v": (self.hidden, key),
            "o": (query, self.hidden),
            "gate": (self.hidden, self.intermediate),
            "up": (self.hidden, self.intermediate),
            "down": (self.intermediate, self.hidden),
        }
        return {name: sizes for name, sizes in maps.items() if self.gated or name != "gate"}

    def flops(self, lengths: Iterable[int], layers: int) -> int:
        """Count the operations of some layers' linear maps and attention alone, norms left out; see `operations`."""
        weights = sum(inputs * outputs for inputs, outputs in self.linears.values())
        return int(operations(layers * weights, layers * self.heads * self.head_dim, lengths, causal=self.causal))


def pass_flops(config: PreTrainedConfig, tokens: float, depth: int | None = None, *, causal: bool = True) -> float:
    """Count the operations of one pass with all weights of a model's layers, norms and biases too; see `operations`.

    Args:
        config: Config of a transformer.
        tokens: Tokens of the text.
        depth: Layers that are run; None for all.
        causal: Whether a token sees only those before it.
    """
    depth = depth or config.num_hidden_layers
    with torch.device("meta"):
        model = AutoModel.from_config(truncated_config(config, depth))
    weights = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name)
    width = depth * config.num_attention_heads * head_size(config)
    return float(operations(weights, width, [tokens], causal=causal))


def passes_cost(
    backbone: Mapping[str, Any],
    readings: Mapping[str, PairTemplate],
    features: Sequence[Feature],
    pairs: Sequence[LabelledPair],
) -> Cost:
    """Time the passes of a judge, tokenisation included, as it makes them; its heads cost next to nothing.

    Args:
        backbone: Its `id`, `revision`, `dtype` and `max_length`.
        readings: Name -> what is read.
        features: What is read from their passes; each reading runs to its own deepest layer.
        pairs: A sample.

    Returns:
        The seconds, and the operations of every token of every reading: what prefixes share is not taken off.
    """
    features = [feature for feature in features if not feature.is_check]  # which no pass is run for
    depths = {name: max(1, *(f.layer for f in features if f.reading == name)) for name in readings}
    pinned_id, deepest = (backbone["id"], backbone["revision"]), max(depths.values())
    location, pinned = backbone_location(*pinned_id, deepest)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    model = load_backbone(*pinned_id, deepest, dtype=getattr(torch, backbone["dtype"]))
    if torch.cuda.is_available():
        model = model.to("cuda")
    encoders = {name: PairTokenizer(reading, tokenizer, backbone["max_length"]) for name, reading in readings.items()}
    eps, pad_id = norm_eps(model.config), tokenizer.pad_token_id or 0
    reader = FeatureReader(model, take_final_norm(model), features, encoders, rms_norm_eps=eps, pad_id=pad_id)

    def encoded() -> list[dict[str, EncodedPair]]:
        return [{name: encode(**p.texts) for name, encode in encoders.items()} for p in pairs]

    def run() -> None:
        with torch.inference_mode():
            next(iter(reader(encoded()).values())).cpu()

    tokens = {name: mean_tokens([pair[name] for pair in encoded()]) for name in readings}
    flops = sum(pass_flops(model.config, tokens[name], depths[name]) for name in readings)
    return Cost(seconds_each(run, len(pairs)), flops, sum(parameter.numel() for parameter in model.parameters()))


def judge_cost(folder: str, pairs: Sequence[LabelledPair]) -> Cost:
    """Time the passes of a saved judge, for all its aspects; see `passes_cost`."""
    config = InspectorConfig.from_pretrained(folder)
    backbone = {"id": config.backbone_id, "revision": config.backbone_revision, "max_length": config.max_length}
    backbone["dtype"] = str(config.dtype).removeprefix("torch.")
    features = [feature for aspect in config.parsed_aspects for feature in aspect.features]
    return passes_cost(backbone, config.parsed_readings, features, pairs)


def mean_tokens(encoded: Sequence[EncodedPair]) -> float:
    """Return the mean number of tokens."""
    return float(np.mean([len(pair.input_ids) for pair in encoded]))


def seconds_each(run: Callable[[], object], n: int) -> float:
    """Time a call, after one to warm up, and divide it by the number of pairs that it scores."""
    run()
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / n
