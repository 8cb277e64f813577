"""Our own judges, through the public pipeline: one pass in the chat reading, or one per rubric."""

from typing import Any

import torch
from transformers import PreTrainedModel

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.devices import TOKEN_BUDGET
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from ..evaluation.cost import LayerShape
from .inputs import Inputs, Pair
from .measure import Measurement, Work, measure
from .rubric_judge import make_rubric_judge

Result = dict[str, Any]


def judge(inputs: Inputs, dtype: str, name: str | None = None) -> Measurement:
    """Score the run's pairs with the judge, or with another one."""
    return _throughput(inputs, inputs.load_judge(dtype, name), inputs.pairs, dtype)


def rubric(inputs: Inputs, dtype: str) -> Measurement:
    """Score the run's pairs with the rubric judge."""
    folder = make_rubric_judge(inputs)
    loaded = load_judge(folder, dtype=getattr(torch, dtype))
    return _throughput(inputs, loaded, inputs.pairs, dtype)


def _throughput(inputs: Inputs, loaded: InspectorPipeline, pairs: list[Pair], dtype: str) -> Measurement:
    return measure(
        lambda: loaded(pairs),
        work_of(inputs, loaded, pairs, dtype),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: loaded(pairs[:2]),
        details=scores_of,
    )


def work_of(inputs: Inputs, loaded: InspectorPipeline, pairs: list[Pair], dtype: str) -> Work:
    """Count what scoring some pairs takes: every reading to its own deepest layer."""
    backbone: PreTrainedModel = loaded.model.backbone
    shape = LayerShape.of(backbone.config)
    lengths = lengths_by_reading(loaded, pairs)
    depths = reading_depths(loaded)
    tokens = sum(sum(own) for own in lengths.values())
    return Work(
        dtype=dtype,
        pairs=len(pairs),
        tokens=tokens,
        chat_tokens=sum(inputs.chat_lengths(pairs)),
        flops=sum(shape.flops(own, depths[reading]) for reading, own in lengths.items()),
        shape=shape,
        batch_tokens=min(TOKEN_BUDGET, tokens),
    )


def lengths_by_reading(loaded: InspectorPipeline, pairs: list[Pair]) -> dict[str, list[int]]:
    """Count each pair's tokens under each reading of a judge."""
    encoded = [loaded.encode(pair) for pair in pairs]
    return {name: [len(own[name].input_ids) for own in encoded] for name in loaded.encode.encoders}


def reading_depths(loaded: InspectorPipeline) -> dict[str, int]:
    """Return the deepest layer that is read under each reading; at least one layer runs."""
    features = [feature for aspect in loaded.model.aspects for feature in aspect.features]
    readings = {feature.reading for feature in features}
    return {name: max(1, *(f.layer for f in features if f.reading == name)) for name in readings}


def scores_of(results: list[Result]) -> dict[str, Any]:
    """Keep what cases are compared by: scores and expected scores, in the order of the pairs."""
    return {
        "scores": [list(result["scores"].values()) for result in results],
        "expected": [list(result["expected"].values()) for result in results],
        "aspects": list(results[0]["scores"]),
    }
