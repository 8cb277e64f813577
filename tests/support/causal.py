"""A whole causal language model, LM head and all, of random weights."""

import torch
from transformers import AutoModelForCausalLM

from support.models import tiny_config


def save_causal(folder, family, tokenizer, **changes):
    """Save a tiny causal model, tied where it is a Llama, with its tokenizer."""
    torch.manual_seed(11)
    config = tiny_config(family, **{"tie_word_embeddings": family == "llama", **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    for module in model.modules():  # norms of all ones would hide a norm that is left out
        if "Norm" in type(module).__name__:
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
