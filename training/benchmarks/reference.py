"""What a judge is measured against: the published procedure, plain transformers, and an encoder.

The published procedure, as it reads a pair, in our own words: five passes a pair, one for each aspect's rubric. Each
runs the whole causal language model with eager attention, asks for the attention weights and the states of every layer,
lets the LM head compute logits of every token, computes the entropy of every head, and pools every layer's states; then
the aspect's linear classifier reads the layers it was fitted on. Rows of a batch are padded to its longest, and, as
published, states are pooled over the padding too, so a score depends on the batch. Two costs of the original are left
out, in its favour: classifiers are kept, not loaded from disk again for every batch, and one pooling is computed, not
four.

Plain transformers is what one would write: the whole backbone, every state, SDPA, padded batches in input order. The
encoder is what many would take instead: of the backbone's size, with a classification head, in padded batches. Its
weights are random, which changes no time: it is built for speed only, and no quality is claimed of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig

from inspector_pipeline.configuration_inspector import Aspect, InspectorConfig, unique_features
from inspector_pipeline.heads import probe_key
from inspector_pipeline.template import PairTemplate

from ..evaluation.cost import LayerShape
from .inputs import Inputs, Pair, make_rubric_judge
from .measure import Measurement, Work, measure, padded

TINY = 1e-12  # within the logarithm of an entropy
ENCODER_LABELS = 25  # five aspects of five scores


@dataclass(frozen=True)
class Classifier:
    """An aspect's linear classifier.

    Attributes:
        layers: The states it reads, concatenated in this order.
        center: float32 (inputs,), subtracted first.
        weight: float32 (classes, inputs).
        bias: float32 (classes,).
        classes: Its scores.
    """

    layers: tuple[int, ...]
    center: Tensor
    weight: Tensor
    bias: Tensor
    classes: tuple[int, ...]

    def probabilities(self, states: list[Tensor]) -> Tensor:
        """Classify pooled states, one (rows, hidden) for each layer of the model, the embeddings first."""
        inputs = torch.cat([states[layer] for layer in self.layers], dim=1)
        return ((inputs - self.center) @ self.weight.T + self.bias).softmax(dim=1)


@dataclass(frozen=True)
class Features:
    """What one pass over a batch gives.

    Attributes:
        pooled: float32 (rows, hidden) of the embeddings and of every layer: means over all positions, padding included.
        entropies: float32 (rows, heads) of every layer.
    """

    pooled: list[Tensor]
    entropies: list[Tensor]


def reference(inputs: Inputs, batch_size: int) -> Measurement:
    """Score the run's first pairs by the published procedure, in float32."""
    pairs, tokenizer, (name, pinned) = inputs.pairs[: inputs.config.reference_pairs], inputs.tokenizer, inputs.location
    classifiers = read_classifiers(make_rubric_judge(inputs))
    rubrics = {aspect: inputs.rubrics[aspect] for aspect in classifiers}
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="eager", **pinned)
    model.eval()
    tokenizer.padding_side = "right"
    lengths = [[len(tokenizer(rubric.text(**pair))["input_ids"]) for pair in pairs] for rubric in rubrics.values()]
    lm_head = 2 * inputs.backbone_config.hidden_size * inputs.backbone_config.vocab_size
    return measure(
        lambda: score(model, tokenizer, rubrics, classifiers, pairs, batch_size),
        _work(inputs, "float32", inputs.shape, inputs.backbone_config.num_hidden_layers, lengths, batch_size, lm_head),
        repetitions=inputs.config.reference_repetitions,
        warm_up=None,
        details=lambda found: {**found, "aspects": list(classifiers)},
    )


def _work(
    inputs: Inputs,
    dtype: str,
    shape: LayerShape,
    layers: int,
    lengths: Sequence[list[int]],
    batch_size: int,
    token_flops: int = 0,
) -> Work:
    """Count what passes over padded batches take.

    Args:
        inputs: The run's; the first of its pairs are read.
        dtype: Of the weights.
        shape: Of a layer.
        layers: How many run.
        lengths: Tokens of every pair, a list for each pass.
        batch_size: Rows of a batch.
        token_flops: Operations of a token beside the layers'.
    """
    passes = [padded(own, batch_size) for own in lengths]
    return Work(
        dtype=dtype,
        pairs=len(lengths[0]),
        tokens=sum(map(sum, lengths)),
        chat_tokens=sum(inputs.chat_lengths(inputs.pairs[: len(lengths[0])])),
        flops=sum(shape.flops(computed, layers) + token_flops * sum(computed) for computed in passes),
        shape=shape,
        batch_tokens=sum(passes[0][:batch_size]),
    )


def score(
    model: Any,
    tokenizer: Any,
    rubrics: Mapping[str, PairTemplate],
    classifiers: Mapping[str, Classifier],
    pairs: list[Pair],
    batch_size: int,
) -> dict[str, Any]:
    """Score pairs, batch by batch and aspect by aspect.

    Returns:
        `scores` and `expected`: a row for each pair, a column for each aspect.
    """
    scores: list[list[int]] = [[] for _ in pairs]
    expected: list[list[float]] = [[] for _ in pairs]
    for start in range(0, len(pairs), batch_size):
        rows = range(start, min(start + batch_size, len(pairs)))
        for aspect, classifier in classifiers.items():
            features = read(model, tokenizer, [rubrics[aspect].text(**pairs[row]) for row in rows])
            probabilities = classifier.probabilities(features.pooled)
            means = probabilities @ torch.tensor(classifier.classes, dtype=torch.float32)
            for row, best, mean in zip(rows, probabilities.argmax(dim=1).tolist(), means.tolist(), strict=True):
                scores[row].append(classifier.classes[best])
                expected[row].append(mean)
    return {"scores": scores, "expected": expected}


def read(model: Any, tokenizer: Any, prompts: list[str]) -> Features:
    """Run one pass over a batch of prompts and reduce everything it gives."""
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.no_grad():
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            output_attentions=True,
            output_hidden_states=True,
            return_dict=True,
        )
    pooled = [state.mean(dim=1) for state in output.hidden_states]
    return Features(pooled, [attention_entropy(weights) for weights in output.attentions])


def attention_entropy(weights: Tensor) -> Tensor:
    """Average the entropy of every position's attention, in nats.

    Args:
        weights: (rows, heads, positions, positions), each last axis a distribution.

    Returns:
        (rows, heads).
    """
    entropy = -(weights * (weights + TINY).log()).sum(dim=-1)
    return entropy.mean(dim=-1)


def read_classifiers(folder: Path) -> dict[str, Classifier]:
    """Read the classifiers out of the rubric judge's folder, so that both read with the same weights."""
    config = InspectorConfig.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    aspects: tuple[Aspect, ...] = config.parsed_aspects
    features = unique_features(aspects)
    found = {}
    for aspect in aspects:
        rows = [features.index(feature) for feature in aspect.features]
        key = f"probes.{probe_key(aspect.name)}"
        found[aspect.name] = Classifier(
            layers=tuple(feature.layer for feature in aspect.features),
            center=weights["centers"][rows].flatten(),
            weight=weights[f"{key}.weight"].flatten(1),
            bias=weights[f"{key}.bias"],
            classes=aspect.classes,
        )
    return found


def plain(inputs: Inputs, dtype: str) -> Measurement:
    """Read the run's pairs in the chat reading and pool every state over the real tokens."""
    (name, pinned), size = inputs.location, inputs.config.batch_size
    backbone = AutoModel.from_pretrained(name, dtype=getattr(torch, dtype), attn_implementation="sdpa", **pinned).eval()
    texts = [inputs.chat.template.text(**pair) for pair in inputs.pairs]
    lengths = inputs.chat_lengths(inputs.pairs)
    inputs.tokenizer.padding_side = "right"
    return measure(
        lambda: pooled_states(backbone, inputs.tokenizer, texts, size),
        _work(inputs, dtype, inputs.shape, backbone.config.num_hidden_layers, [lengths], size),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: pooled_states(backbone, inputs.tokenizer, texts[:2], size),
    )


def pooled_states(backbone: torch.nn.Module, tokenizer: Any, texts: list[str], batch_size: int) -> Tensor:
    """Pool all states of texts.

    Returns:
        float32 (texts, states, hidden), means over the real tokens.
    """
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            chunk = texts[start : start + batch_size]
            batch = tokenizer(chunk, return_tensors="pt", padding=True, add_special_tokens=False)
            states = backbone(**batch, use_cache=False, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"].unsqueeze(-1).float()
            means = [(state.float() * mask).sum(dim=1) / mask.sum(dim=1) for state in states]
            rows.append(torch.stack(means, dim=1))
    return torch.cat(rows)


def encoder_config(vocab_size: int) -> BertConfig:
    """Describe the encoder: BERT's and RoBERTa's base size, and a vocabulary as large as the backbone's."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=2048,
        num_labels=ENCODER_LABELS,
    )


def encoder(inputs: Inputs, dtype: str) -> Measurement:
    """Classify the run's pairs, question and response as the two texts of a pair."""
    torch.manual_seed(inputs.config.seed)
    config, size = encoder_config(inputs.backbone_config.vocab_size), inputs.config.batch_size
    weights = getattr(torch, dtype)
    model = AutoModelForSequenceClassification.from_config(config, dtype=weights, attn_implementation="sdpa").eval()
    inputs.tokenizer.padding_side = "right"
    texts = [[pair["question"], pair["prediction"]] for pair in inputs.pairs]
    lengths = [len(ids) for ids in inputs.tokenizer(texts)["input_ids"]]

    def classify(texts: list[list[str]]) -> Tensor:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), size):
                batch = inputs.tokenizer(texts[start : start + size], return_tensors="pt", padding=True)
                rows.append(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits)
        return torch.cat(rows)

    shape = LayerShape.of(config, gated=False, causal=False)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return measure(
        lambda: classify(texts),
        _work(inputs, dtype, shape, config.num_hidden_layers, [lengths], size),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: classify(texts[:2]),
        details=lambda _: {"parameters": n_parameters},
    )
