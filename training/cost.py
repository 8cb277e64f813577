"""What scoring a pair costs: floating-point operations by formula, seconds by the clock."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.batching import collate, plan_batches
from inspector_pipeline.reading import EncodedPair, Reading, ReadingEncoder
from inspector_pipeline.truncation import truncated_config
from training.lager_judge import LagerBackbone
from training.records import LabelledPair


@dataclass(frozen=True)
class Cost:
    """The cost of scoring one pair on all aspects, once everything is loaded.

    Attributes:
        seconds_per_pair: By the clock; None where it was not measured.
        flops_per_pair: By formula; 0 where no model is run.
    """

    seconds_per_pair: float | None = None
    flops_per_pair: float = 0.0


def pass_flops(config: PreTrainedConfig, tokens: float, depth: int | None = None, *, causal: bool = True) -> float:
    """Count the multiplications and additions of one pass through a model's layers.

    Two for each weight of the layers and token, and those of attention; embeddings are looked up, and norms and
    activations are left out.

    Args:
        config: Config of a transformer.
        tokens: Tokens of the text.
        depth: Layers that are run; None for all.
        causal: Whether a token sees only those before it, which halves attention.
    """
    depth = depth or config.num_hidden_layers
    with torch.device("meta"):
        model = AutoModel.from_config(truncated_config(config, depth))
    weights = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name)
    n_heads = config.num_attention_heads
    width = n_heads * (getattr(config, "head_dim", None) or config.hidden_size // n_heads)
    attention = 4 * tokens**2 * width * depth
    return float(2 * weights * tokens + (attention / 2 if causal else attention))


def passes_cost(
    backbone: LagerBackbone, depth: int | None, readings: Sequence[Reading], pairs: Sequence[LabelledPair]
) -> Cost:
    """Time the passes of a judge, one for each reading, in batches as it makes them; heads cost next to nothing.

    Args:
        backbone: Which backbone.
        depth: Layers that are run; None for all.
        readings: One pass each.
        pairs: A sample.
    """
    location, pinned = backbone_location(backbone.id, backbone.revision, depth)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    model = load_backbone(backbone.id, backbone.revision, depth, dtype=getattr(torch, backbone.dtype))
    encoders = [ReadingEncoder(reading, tokenizer, backbone.max_length) for reading in readings]
    encoded = [[encoder(pair.question, pair.prediction) for pair in pairs] for encoder in encoders]

    def run() -> None:
        for of_reading in encoded:
            for batch in plan_batches([len(pair.input_ids) for pair in of_reading]):
                inputs = collate([of_reading[i] for i in batch], tokenizer.pad_token_id or 0)
                with torch.inference_mode():
                    model(inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)

    flops = [pass_flops(model.config, mean_tokens(own), depth) for own in encoded]
    return Cost(seconds_each(run, len(pairs)), sum(flops))


def mean_tokens(encoded: Sequence[EncodedPair]) -> float:
    """Return the mean number of tokens."""
    return float(np.mean([len(pair.input_ids) for pair in encoded]))


def seconds_each(run: Callable[[], object], n: int) -> float:
    """Time a call, after one to warm up, and divide it by the number of pairs that it scores."""
    run()
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / n
