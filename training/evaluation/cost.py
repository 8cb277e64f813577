"""What scoring a pair costs: floating-point operations by formula, seconds by the clock."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.configuration_inspector import Feature, InspectorConfig, norm_eps
from inspector_pipeline.engine import FeatureReader
from inspector_pipeline.template import EncodedPair, PairTemplate, PairTokenizer
from inspector_pipeline.truncation import take_final_norm, truncated_config

from ..rows.records import LabelledPair
from ..score_tokens.judge import BackboneSpec


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
    backbone: BackboneSpec,
    readings: Mapping[str, PairTemplate],
    features: Sequence[Feature],
    pairs: Sequence[LabelledPair],
) -> Cost:
    """Time the passes of a judge, tokenisation included, as it makes them; its heads cost next to nothing.

    Args:
        backbone: Which backbone.
        readings: Name -> what is read.
        features: What is read from their passes; each reading runs to its own deepest layer.
        pairs: A sample.

    Returns:
        The seconds, and the operations of every token of every reading: what prefixes share is not taken off.
    """
    depths = {name: max(1, *(f.layer for f in features if f.reading == name)) for name in readings}
    deepest = max(depths.values())
    location, pinned = backbone_location(backbone.id, backbone.revision, deepest)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    model = load_backbone(backbone.id, backbone.revision, deepest, dtype=getattr(torch, backbone.dtype))
    if torch.cuda.is_available():
        model = model.to("cuda")
    encoders = {name: PairTokenizer(reading, tokenizer, backbone.max_length) for name, reading in readings.items()}
    reader = FeatureReader(
        model,
        take_final_norm(model),
        features,
        encoders,
        rms_norm_eps=norm_eps(model.config),
        pad_id=tokenizer.pad_token_id or 0,
    )

    def encoded() -> list[dict[str, EncodedPair]]:
        return [{name: encode(p.question, p.prediction) for name, encode in encoders.items()} for p in pairs]

    def run() -> None:
        with torch.inference_mode():
            next(iter(reader(encoded()).values())).cpu()

    tokens = {name: mean_tokens([pair[name] for pair in encoded()]) for name in readings}
    flops = sum(pass_flops(model.config, tokens[name], depths[name]) for name in readings)
    return Cost(seconds_each(run, len(pairs)), flops)


def judge_cost(folder: str, pairs: Sequence[LabelledPair]) -> Cost:
    """Time the passes of a saved judge, for all its aspects; see `passes_cost`."""
    config = InspectorConfig.from_pretrained(folder)
    features = [feature for aspect in config.parsed_aspects for feature in aspect.features]
    backbone = BackboneSpec(
        config.backbone_id, config.backbone_revision, str(config.dtype).removeprefix("torch."), config.max_length
    )
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
