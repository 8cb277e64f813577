"""Judges of score tokens (LAGER): built with layers that weigh alike, opened with their backbone, and tuned."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.entries import Row
from inspector_pipeline.heads import ScoreTokens, probe_key
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from ..features.store import RUBRIC_PREFIX
from ..judges.build import AspectHead, BackboneSpec, ScoreTokenWeights, build_judge
from ..rows.records import LabelledPair
from .logits import Unembedding, layer_logits
from .prompt_rows import PromptColumns, read_prompt_rows
from .prompts import PROMPT, AskedAspect, prompt_reading, score_reading
from .split_scores import SplitScore
from .weights import Array, TuningConfig, tune, uniform_weights


@dataclass(frozen=True)
class ScoreStates:
    """Which states score tokens are read from, and how they are put together.

    Attributes:
        layers: all (the embeddings and every layer), without_last, or last, which is the usual reading of an LM judge.
        inner: Inner states raw, as published, or with the backbone's final_norm. The last state always has it.
        aggregation: What is summed over layers: logits or probabilities.
        decision: The score is the class nearest to the expectation, or the likeliest (argmax).
    """

    layers: Literal["all", "without_last", "last"] = "all"
    inner: Literal["raw", "final_norm"] = "raw"
    aggregation: Literal["logits", "probabilities"] = "logits"
    decision: Literal["expectation", "argmax"] = "expectation"

    def features(self, reading: str, n_layers: int) -> list[Feature]:
        """Return what a head reads.

        Args:
            reading: Name of the reading.
            n_layers: Layers of the whole backbone.
        """
        chosen = {"all": range(n_layers + 1), "without_last": range(n_layers), "last": [n_layers]}[self.layers]
        return [Feature(reading, n, "last", "final_norm" if n == n_layers else self.inner) for n in chosen]


def build_lager(
    backbone: BackboneSpec, aspects: Sequence[AskedAspect], states: ScoreStates, unembedding: Unembedding
) -> InspectorModel:
    """Make a judge of score tokens with uniform layer weights.

    Args:
        backbone: Which backbone.
        aspects: What is asked for, and how.
        states: Which states are read.
        unembedding: The backbone's.

    Returns:
        A judge without its backbone.
    """
    whole = backbone.config()
    heads = []
    for name, scores, asked in aspects:
        features = states.features(f"{RUBRIC_PREFIX}{name}", whole.get_text_config().num_hidden_layers)
        rule = {"type": "score_tokens", "rule": states.decision, "aggregation": states.aggregation}
        tokens = ScoreTokenWeights(
            unembedding.weight[asked.token_ids],
            unembedding.bias[asked.token_ids],
            torch.tensor(scores),
            torch.tensor(uniform_weights(len(features))),
        )
        heads.append(AspectHead(name, features, {**rule, "token_ids": asked.token_ids}, scores, tokens=tokens))
    readings = {f"{RUBRIC_PREFIX}{one.name}": one.asked.reading.to_dict() for one in aspects}
    return build_judge(backbone, readings, heads, whole)


def prompt_judge(
    backbone: BackboneSpec,
    states: ScoreStates,
    scores: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    unembedding: Unembedding,
    *,
    written: Sequence[str] = (),
    answer: str | None = None,
) -> InspectorPipeline:
    """Make a judge of whole prompts, with uniform layer weights and its backbone.

    Args:
        backbone: Which backbone.
        states: Which states are read.
        scores: The scale, ascending.
        tokenizer: The backbone's.
        unembedding: The backbone's.
        written: What the prompts write each score as, where it is not its number.
        answer: What the reply begins with; see `prompt_reading`.

    Raises:
        ReadingError: Scores cannot be told apart by their first token.
    """
    asked = score_reading(prompt_reading(tokenizer, answer), tokenizer, written or scores)
    return open_judge(build_lager(backbone, [AskedAspect(PROMPT, list(scores), asked)], states, unembedding))


def open_judge(model: InspectorModel, shared: InspectorModel | None = None) -> InspectorPipeline:
    """Load a judge that was just built, with its tokenizer and its backbone, or that of another judge."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, fused=False)
        return load_judge(folder, **({} if shared is None else {"share_backbone_with": shared}))


class SplitJudge:
    """Scores whole prompts on a scale of which one score begins with another's token, layers alike: two prefills each.

    Args:
        backbone: Which backbone.
        states: Which states are read.
        split: How the scale is read.
        unembedding: The backbone's.
    """

    def __init__(
        self, backbone: BackboneSpec, states: ScoreStates, split: SplitScore, unembedding: Unembedding
    ) -> None:
        """Make a judge of each of the two states, on one backbone."""
        self.both, self.likeliest = split.both, states.decision == "argmax"
        first = AskedAspect(PROMPT, split.scores, split.first)
        second = AskedAspect(PROMPT, list(split.both), split.second)
        self.first = open_judge(build_lager(backbone, [first], states, unembedding))
        self.second = open_judge(build_lager(backbone, [second], states, unembedding), self.first.model)

    def __call__(self, pairs: list[Row], batch_size: int | None = None) -> list[dict[str, Any]]:
        """Score prompts, each in two halves; results have a pipeline's scores, expected, probabilities, truncated."""
        results = zip(self.first(pairs, batch_size=batch_size), self.second(pairs, batch_size=batch_size), strict=True)
        return [self._joined(first, second) for first, second in results]

    def _joined(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        shares: dict[int, float] = dict(first["probabilities"][PROMPT])
        shared = shares[self.both[0]]
        shares |= {score: shared * second["probabilities"][PROMPT][score] for score in self.both}
        expected = sum(score * share for score, share in shares.items())
        nearest = min(sorted(shares), key=lambda score: abs(score - expected))
        score = max(sorted(shares), key=shares.__getitem__) if self.likeliest else nearest
        return {
            "scores": {PROMPT: score},
            "expected": {PROMPT: expected},
            "probabilities": {PROMPT: dict(sorted(shares.items()))},
            "truncated": first["truncated"] or second["truncated"],
        }


def set_layer_weights(model: InspectorModel, aspect: str, weights: Array) -> None:
    """Give an aspect's head its layer weights.

    Args:
        model: A judge.
        aspect: Name of an aspect with score tokens.
        weights: (layers,), 0 or more, with the sum 1.

    Raises:
        SettingsError: There are more or fewer weights than states.
    """
    own = cast(ScoreTokens, model.probes[probe_key(aspect)]).layer_weights
    if weights.shape != own.shape:
        raise SettingsError(f"{aspect} expects {len(own)} layer weights, but got {len(weights)}.")
    own.data = torch.tensor(weights, dtype=torch.float32, device=own.device)


@dataclass(frozen=True)
class TuningRows:
    """Labelled rows that layer weights of one scale are tuned on.

    Attributes:
        layer_logits: (rows, layers, classes).
        labels: (rows,).
        source: What the rows are, for the evidence.
    """

    layer_logits: Array
    labels: Array
    source: str

    @classmethod
    def of_pairs(cls, judge: InspectorPipeline, aspect: str, pairs: Sequence[LabelledPair]) -> "TuningRows":
        """Read the pairs that carry a label of an aspect."""
        own = [pair for pair in pairs if aspect in pair.scores]
        logits = layer_logits(judge, aspect, [(pair.question, pair.prediction) for pair in own])
        labels = np.array([pair.scores[aspect] for pair in own], dtype=float)
        return cls(logits, labels, f"{len(own)} labels of {aspect}")

    @classmethod
    def of_prompts(cls, judge: InspectorPipeline, path: str, columns: PromptColumns | None = None) -> "TuningRows":
        """Read a file of LAGER's own rows with a judge of whole prompts."""
        rows = read_prompt_rows(path, columns)
        logits = layer_logits(judge, PROMPT, [row.as_pair() for row in rows])
        labels = np.array([row.score for row in rows], dtype=float)
        return cls(logits, labels, f"{len(rows)} prompts of {Path(path).name}")


def tune_judge(
    judge: InspectorPipeline,
    pairs: Sequence[LabelledPair],
    config: TuningConfig,
    prompts: Mapping[tuple[int, ...], TuningRows],
) -> dict[str, Any]:
    """Tune a judge's layer weights in place; aspects of one scale share their weights.

    Args:
        judge: A judge of score tokens with its backbone.
        pairs: Labelled pairs.
        config: How.
        prompts: Scale -> further rows.

    Returns:
        Scale, as text -> the aspects, the sources of the labels, and the weights. Scales without a label are absent,
        and keep uniform weights.

    Raises:
        DataFileError: A label lies outside its aspect's scale.
    """
    report = {}
    for scale in dict.fromkeys(aspect.classes for aspect in judge.model.aspects):
        aspects = [aspect for aspect in judge.model.aspects if aspect.classes == scale]
        names = [aspect.name for aspect in aspects]
        labelled = [name for name in names if any(name in pair.scores for pair in pairs)]
        rows = [*(TuningRows.of_pairs(judge, name, pairs) for name in labelled), *filter(None, [prompts.get(scale)])]
        if not rows:
            continue
        logits, labels = (np.concatenate([getattr(one, key) for one in rows]) for key in ("layer_logits", "labels"))
        weights = tune(logits, labels, np.array(scale, dtype=float), aspects[0].head.aggregation, config)
        for name in names:
            set_layer_weights(judge.model, name, weights)
        sources = [one.source for one in rows]
        report[_scale_name(scale)] = {"aspects": names, "sources": sources, "weights": weights.round(6).tolist()}
    return report


def _scale_name(scale: tuple[int, ...]) -> str:
    whole = scale == tuple(range(scale[0], scale[-1] + 1))
    return f"{scale[0]}-{scale[-1]}" if whole else ", ".join(map(str, scale))
