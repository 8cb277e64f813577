"""Tiny backbones and judges of random numbers."""

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig, Qwen3Config

from inspector_pipeline import InspectorConfig, PairTemplate
from inspector_pipeline.familiarity import question_number, word_number
from inspector_pipeline.truncation import truncated_config

N_LAYERS = 4


FAMILIES = {"qwen3": Qwen3Config, "llama": LlamaConfig}


PAIRS = [
    {"question": "What is 2 + 2?", "prediction": "2 + 2 = 4, so the answer is 4."},
    {"question": "How many stickers does Lena keep of her 60?", "prediction": "36"},
    {"question": "Is 7 prime?", "prediction": "Yes.\nIt has no divisors but 1 and itself, so it is prime. " * 3},
]


def tiny_config(family, **changes):
    settings = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.3,
    }
    return FAMILIES[family](**{**settings, **changes})


def feature(layer, pooling="mean", state="raw", reading="chat"):
    return {"reading": reading, "layer": layer, "pooling": pooling, "state": state}


def aspect(name, features, rule="logistic", classes=(1, 2, 3, 4, 5), counts=True):
    head = {"type": "linear", "rule": rule}
    return {"name": name, "features": features, "head": head, "classes": list(classes), "counts_in_total": counts}


def chat_reading(tokenizer):
    return PairTemplate.from_chat_template(tokenizer).to_dict()


def config_of(backbone_dir, aspects, readings, max_length=512, **changes):
    layers = [f["layer"] for a in aspects for f in a["features"]]
    full = AutoConfig.from_pretrained(backbone_dir)
    settings = {
        "backbone_config": truncated_config(full, max(1, *layers)),
        "backbone_id": str(backbone_dir),
        "depth": max(1, *layers),
        "readings": readings,
        "aspects": aspects,
        "max_length": max_length,
        "fused": False,
    }
    return InspectorConfig(**{**settings, **changes})


def random_probes(model, seed=0):
    """Fill every probe with reproducible numbers; thresholds, cuts and levels ascend."""
    generator = torch.Generator().manual_seed(seed)
    named = [("centers", model.centers), *sorted(model.probes.named_parameters())]
    for name, parameter in named:
        parameter.data = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("thresholds", "cuts", "levels")):
            parameter.data = parameter.data.sort().values
        if "weight" in name:
            parameter.data *= 0.1
    if model.familiar is not None:
        for name, buffer in model.familiar.named_buffers():
            shape = buffer.shape
            buffer.data = torch.arange(shape[0]) if name == "words" else torch.rand(shape, generator=generator) + 0.5
        model.familiar.basis.data = torch.linalg.qr(model.familiar.basis).Q
    return model


def familiar(features, *, text=None, threshold=1e9, n_components=3, words=()):
    """A config's fields of a judge that says what it was fitted on; `fill_known` sets the words."""
    found = {"features": features, "n_components": n_components, "n_words": len(words), "threshold": threshold}
    return {"familiar": {**found, "text": text or {}}, "format_version": 3}


def fill_known(folder, words=(), questions=()):
    """Write into a judge's file which words and questions it knows."""
    path = folder / "model.safetensors"
    state = load_file(path)
    numbers = {"familiar.words": map(word_number, words), "seen_questions": map(question_number, questions)}
    state |= {name: torch.tensor(sorted(own)) for name, own in numbers.items() if name in state}
    save_file(state, path, metadata={"format": "pt"})
    return folder
