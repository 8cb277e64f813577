"""How much of the matrix-product ceiling a judge reaches on pairs of 256 tokens or more.

Prefixes are not shared here, so that every operation that is counted is one that is done.
"""

import torch
from transformers import AutoModel, Qwen3Config

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pipeline_inspector import TASK, InspectorPipeline

from .inputs import Inputs, Pair
from .measure import Measurement, measure
from .ours import work_of

MIN_TOKENS = 256
QWEN3_LAYERS = 4


def long_judge(inputs: Inputs, dtype: str) -> Measurement:
    """Measure the judge."""
    return _measured(inputs, inputs.load_judge(dtype), dtype)


def long_qwen3(inputs: Inputs, dtype: str) -> Measurement:
    """Measure a judge on layers of Qwen3-1.7B's shape with random weights."""
    return _measured(inputs, qwen3_judge(inputs, dtype), dtype)


def _measured(inputs: Inputs, loaded: InspectorPipeline, dtype: str) -> Measurement:
    pairs = long_pairs(inputs)
    return measure(
        lambda: loaded(pairs, share_prefixes=False),
        work_of(inputs, loaded, pairs, dtype),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: loaded(pairs[:2], share_prefixes=False),
    )


def long_pairs(inputs: Inputs) -> list[Pair]:
    """Take the set's first pairs of 256 tokens or more in the chat reading.

    Raises:
        DataFileError: The set has none.
    """
    found: list[Pair] = []
    for pair in inputs.all_pairs:
        if len(inputs.chat(**pair).input_ids) >= MIN_TOKENS:
            found.append(pair)
        if len(found) == inputs.config.long_pairs:
            break
    if not found:
        raise DataFileError(f"{inputs.config.probing_set} expects pairs of {MIN_TOKENS} tokens, but holds none.")
    return found


def qwen3_config(vocab_size: int) -> Qwen3Config:
    """Describe the layers: Qwen3-1.7B's, a few of them, with the vocabulary of the run's tokenizer."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=QWEN3_LAYERS,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
    )


def qwen3_judge(inputs: Inputs, dtype: str) -> InspectorPipeline:
    """Make a judge of one aspect, the mean over the response at the last layer; weights are random, by the seed."""
    torch.manual_seed(inputs.config.seed)
    config = qwen3_config(inputs.backbone_config.vocab_size)
    backbone = AutoModel.from_config(config, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
    feature = {"reading": "chat", "layer": QWEN3_LAYERS, "pooling": "response_mean", "state": "rms_normed"}
    head = {"type": "linear", "rule": "logistic", "members": 1}
    aspect = {"name": "speed", "features": [feature], "head": head, "classes": [0, 1], "counts_in_total": True}
    model = InspectorModel(
        InspectorConfig(
            backbone_config=config,
            backbone_id="",
            depth=QWEN3_LAYERS,
            readings={"chat": inputs.chat.template.to_dict()},
            aspects=[aspect],
            max_length=2048,
        )
    )
    model.set_backbone(backbone)
    return InspectorPipeline(model=model.eval(), tokenizer=inputs.tokenizer, task=TASK)
