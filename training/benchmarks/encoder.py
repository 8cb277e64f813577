"""What many would take instead: an encoder of the backbone's size with a classification head, in padded batches.

Its weights are random, which changes no time. It is built for speed only: no quality is claimed of it.
"""

import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from ..evaluation.cost import LayerShape
from .inputs import Inputs
from .measure import Measurement, Work, measure, padded

N_LABELS = 25  # five aspects of five scores
LAYERS, HIDDEN, HEADS, INTERMEDIATE = 12, 768, 12, 3072  # BERT and RoBERTa, base


def encoder_config(vocab_size: int) -> BertConfig:
    """Describe the encoder: the usual base size, and a vocabulary as large as the backbone's."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=2048,
        num_labels=N_LABELS,
    )


def encoder(inputs: Inputs, dtype: str) -> Measurement:
    """Classify the run's pairs, question and response as the two texts of a pair."""
    torch.manual_seed(inputs.config.seed)
    config = encoder_config(inputs.backbone_config.vocab_size)
    model = AutoModelForSequenceClassification.from_config(
        config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    inputs.tokenizer.padding_side = "right"
    size = inputs.config.batch_size
    texts = [(pair["question"], pair["prediction"]) for pair in inputs.pairs]
    encoded = inputs.tokenizer([list(pair) for pair in texts])["input_ids"]
    lengths = [len(ids) for ids in encoded]
    computed = padded(lengths, size)
    shape = LayerShape.of(config, gated=False, causal=False)
    work = Work(
        dtype=dtype,
        pairs=len(texts),
        tokens=sum(lengths),
        chat_tokens=sum(inputs.chat_lengths(inputs.pairs)),
        flops=shape.flops(computed, LAYERS),
        shape=shape,
        batch_tokens=sum(computed[:size]),
    )

    def classify(n: int) -> torch.Tensor:
        rows = []
        with torch.inference_mode():
            for start in range(0, n, size):
                chunk = [list(pair) for pair in texts[start : min(n, start + size)]]
                batch = inputs.tokenizer(chunk, return_tensors="pt", padding=True)
                rows.append(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits)
        return torch.cat(rows)

    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return measure(
        lambda: classify(len(texts)),
        work,
        repetitions=inputs.config.repetitions,
        warm_up=lambda: classify(2),
        details=lambda _: {"parameters": n_parameters},
    )
