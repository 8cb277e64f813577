"""The published procedure, as it reads a pair, in our own words: what a judge is measured against.

Five passes a pair, one for each aspect's rubric. Each runs the whole causal language model with eager attention, asks
for the attention weights and the states of every layer, lets the LM head compute logits of every token, computes the
entropy of every head, and pools every layer's states; then the aspect's linear classifier reads the layers it was
fitted on. Rows of a batch are padded to its longest, and, as published, states are pooled over the padding too, so a
score depends on the batch. Two costs of the original are left out, in its favour: classifiers are kept, not loaded from
disk again for every batch, and one pooling is computed, not four.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from inspector_pipeline.configuration_inspector import Aspect, InspectorConfig, unique_features
from inspector_pipeline.heads import probe_key
from inspector_pipeline.template import PairTemplate

from .inputs import Inputs, Pair
from .measure import Measurement, Work, measure, padded
from .rubric_judge import make_rubric_judge

TINY = 1e-12  # within the logarithm of an entropy


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
    config = inputs.config
    pairs = inputs.pairs[: config.reference_pairs]
    classifiers = read_classifiers(make_rubric_judge(inputs))
    rubrics = {aspect: inputs.rubrics[aspect] for aspect in classifiers}
    name, pinned = inputs.location
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.float32, attn_implementation="eager", **pinned
    ).eval()
    inputs.tokenizer.padding_side = "right"
    return measure(
        lambda: score(model, inputs.tokenizer, rubrics, classifiers, pairs, batch_size),
        _work(inputs, rubrics, pairs, batch_size),
        repetitions=config.reference_repetitions,
        warm_up=None,
        details=lambda found: {**found, "aspects": list(classifiers)},
    )


def _work(inputs: Inputs, rubrics: Mapping[str, PairTemplate], pairs: list[Pair], batch_size: int) -> Work:
    shape, backbone = inputs.shape, inputs.backbone_config
    tokens = flops = first_batch = 0
    for rubric in rubrics.values():
        lengths = [len(inputs.tokenizer(rubric.text(**pair))["input_ids"]) for pair in pairs]
        computed = padded(lengths, batch_size)
        tokens += sum(lengths)
        flops += shape.flops(computed, backbone.num_hidden_layers)
        flops += 2 * backbone.hidden_size * backbone.vocab_size * sum(computed)  # the LM head
        first_batch = first_batch or sum(computed[:batch_size])
    return Work(
        dtype="float32",
        pairs=len(pairs),
        tokens=tokens,
        chat_tokens=sum(inputs.chat_lengths(pairs)),
        flops=flops,
        shape=shape,
        batch_tokens=first_batch,
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
