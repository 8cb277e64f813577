"""Plain transformers, as one would write it: the whole backbone, every state, SDPA, padded batches in input order."""

import torch
from torch import Tensor
from transformers import AutoModel

from .inputs import Inputs
from .measure import Measurement, Work, measure, padded


def plain(inputs: Inputs, dtype: str) -> Measurement:
    """Read the run's pairs in the chat reading and pool every state over the real tokens."""
    name, pinned = inputs.location
    backbone = AutoModel.from_pretrained(name, dtype=getattr(torch, dtype), attn_implementation="sdpa", **pinned).eval()
    texts = [inputs.chat.template.text(**pair) for pair in inputs.pairs]
    lengths = inputs.chat_lengths(inputs.pairs)
    size = inputs.config.batch_size
    computed = padded(lengths, size)
    work = Work(
        dtype=dtype,
        pairs=len(texts),
        tokens=sum(lengths),
        chat_tokens=sum(lengths),
        flops=inputs.shape.flops(computed, backbone.config.num_hidden_layers),
        shape=inputs.shape,
        batch_tokens=sum(computed[:size]),
    )
    inputs.tokenizer.padding_side = "right"
    return measure(
        lambda: read(backbone, inputs.tokenizer, texts, size),
        work,
        repetitions=inputs.config.repetitions,
        warm_up=lambda: read(backbone, inputs.tokenizer, texts[:2], size),
    )


def read(backbone: torch.nn.Module, tokenizer: object, texts: list[str], batch_size: int) -> Tensor:
    """Pool all states of texts.

    Returns:
        float32 (texts, states, hidden), means over the real tokens.
    """
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(  # type: ignore[operator]  # transformers' tokenizers have no common type here
                texts[start : start + batch_size], return_tensors="pt", padding=True, add_special_tokens=False
            )
            states = backbone(**batch, use_cache=False, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"].unsqueeze(-1).float()
            means = [(state.float() * mask).sum(dim=1) / mask.sum(dim=1) for state in states]
            rows.append(torch.stack(means, dim=1))
    return torch.cat(rows)
