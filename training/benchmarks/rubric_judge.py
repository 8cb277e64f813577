"""A rubric judge with the layers of the published gsm8k_multi classifiers, for speed and equality alone.

Its probes are random, fixed by a seed, but on standardised states: each dimension is centred and scaled by what the
run's first pairs show, so that scores differ between pairs and equality means something. It is of no
use as a judge.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from transformers import AutoModel

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.heads import probe_key
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.truncation import truncated_config

from .inputs import Inputs

PUBLISHED_LAYERS = {
    "semantic_consistency": (16, 28),
    "logicality": (17,),
    "informativeness": (16,),  # not published; as the others' middle
    "fluency": (2,),
    "factuality": (16, 20),
}
SCALED_TO = 30  # the layers above are those of a backbone of so many
CLASSES = [1, 2, 3, 4, 5]
STANDARDISED_ON = 8  # pairs


def rubric_layers(n_layers: int) -> dict[str, tuple[int, ...]]:
    """Return the states that each aspect reads, of a backbone of some layers."""
    return {
        aspect: tuple(dict.fromkeys(max(1, layer * n_layers // SCALED_TO) for layer in layers))
        for aspect, layers in PUBLISHED_LAYERS.items()
    }


def rubric_config(inputs: Inputs) -> InspectorConfig:
    """Describe the judge: a reading per aspect, mean pooling over all tokens, raw states."""
    layers = rubric_layers(inputs.backbone_config.num_hidden_layers)
    depth = max(layer for own in layers.values() for layer in own)
    aspects = [
        {
            "name": aspect,
            "features": [{"reading": aspect, "layer": n, "pooling": "mean", "state": "raw"} for n in layers[aspect]],
            "head": {"type": "linear", "rule": "logistic", "members": 1},
            "classes": CLASSES,
            "counts_in_total": True,
        }
        for aspect in layers
    ]
    return InspectorConfig(
        backbone_config=truncated_config(inputs.backbone_config, depth),
        backbone_id=inputs.judge_config.backbone_id,
        backbone_revision=inputs.judge_config.backbone_revision,
        fused=False,
        depth=depth,
        readings={aspect: inputs.rubrics[aspect].to_dict() for aspect in layers},
        aspects=aspects,
        max_length=inputs.backbone_config.max_position_embeddings,
        dtype="float32",
    )


def make_rubric_judge(inputs: Inputs) -> Path:
    """Make the judge in the output's folder, where it is not there yet.

    Returns:
        Its folder.
    """
    folder = inputs.rubric_folder
    if folder.is_dir():
        return folder
    model = InspectorModel(rubric_config(inputs))
    generator = torch.Generator().manual_seed(inputs.config.seed)
    centers, scales = _standardisation(inputs, model)
    model.centers.data = centers
    for aspect in model.aspects:
        weight: nn.Parameter = model.probes[probe_key(aspect.name)].get_parameter("weight")
        rows = [model.features.index(feature) for feature in aspect.features]
        directions = torch.randn(weight.shape, generator=generator)
        weight.data = directions / (scales[rows] * weight[0].numel() ** 0.5)
    with TemporaryDirectory(dir=folder.parent) as scratch:  # put in place whole, or not at all
        model.save_pretrained(Path(scratch, folder.name), fused=False)
        Path(scratch, folder.name).rename(folder)
    return folder


def _standardisation(inputs: Inputs, model: InspectorModel) -> tuple[Tensor, Tensor]:
    """Pool states of a few pairs by plain transformers: their mean and spread, (features, hidden) each."""
    name, pinned = inputs.location
    backbone = AutoModel.from_pretrained(name, dtype=torch.float32, **pinned).eval()
    pooled: list[list[Tensor]] = [[] for _ in model.features]
    with torch.inference_mode():
        for pair in inputs.pairs[:STANDARDISED_ON]:
            for reading, rubric in inputs.rubrics.items():
                ids = inputs.tokenizer(rubric.text(**pair), return_tensors="pt")["input_ids"]
                states = backbone(ids, use_cache=False, output_hidden_states=True).hidden_states
                for row, feature in enumerate(model.features):
                    if feature.reading == reading:
                        pooled[row].append(states[feature.layer][0].mean(dim=0))
    stacked = torch.stack([torch.stack(rows) for rows in pooled])
    spread = stacked.std(dim=1, correction=0)
    return stacked.mean(dim=1), spread.clamp_min(1e-3 * spread.amax(dim=1, keepdim=True)).clamp_min(1e-6)
