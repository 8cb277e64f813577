"""Score LAGER's own rows, whose prompts bring their rubrics with them.

    python -m training lager_prompts --input flask.jsonl --output work/flask
    python -m training lager_prompts --input flask.jsonl --output work/flask_feedback --feedback true \
        --validation valid.jsonl

The direct condition reads `user_prompt` in one prefill. With feedback the backbone first writes a reply to
`user_prompt_feedback`, and the states before its last score are read; a reply without a score is null, with its reason.
`scored.jsonl` holds the rows with lager_score, lager_expected and lager_reason beside their own keys, `results.json`
the Spearman correlation and the mean error against the scores that the rows bring.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoTokenizer

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PAIR_KEYS
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ..evaluation import weighted
from ..evaluation.metrics import interval, resamples
from ..rows.records import write_records
from ..runs.manifest import Manifest
from ..score_tokens.feedback import load_causal, score_after_feedback
from ..score_tokens.judge import BackboneSpec, ScoreStates, set_layer_weights
from ..score_tokens.logits import layer_logits, load_unembedding
from ..score_tokens.prompt_rows import PROMPT, PromptRow, prompt_judge, prompt_reading, prompt_rows, read_prompt_rows
from ..score_tokens.prompts import ANSWER
from ..score_tokens.weights import Array, TuningConfig, tune

logger = logging.getLogger(__name__)

STAGE = "lager_prompts"
BOOTSTRAPS = 1000
NO_PROMPT = "the row has no user_prompt_feedback"


@dataclass(frozen=True)
class Config:
    """Settings of the lager_prompts stage.

    Attributes:
        input: Rows with user_prompt, user_prompt_feedback where feedback is asked for, and score where one is known.
        output: Folder for scored.jsonl and results.json.
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation.
        max_length: Upper bound on the tokens of a prompt.
        scores: The scale that the prompts ask for, ascending.
        written: What the prompts write each score as, such as letters, where it is not its number.
        answer: What a reply begins with, such as "Score: ", before the score; by default the score itself.
        states: Which states are read, and how they are put together.
        validation: File of such rows to tune the layer weights on, by their user_prompt; without it they are uniform.
        tuning: How weights are tuned.
        feedback: Whether the backbone first writes feedback (the reasoning condition).
        max_new_tokens: Longest feedback.
        batch_size: Prompts read, or replies written, at once; None fills batches up to a token budget.
        seed: Of the interval's resamples.
    """

    input: str
    output: str
    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_length: int = 2048
    scores: tuple[int, ...] = (1, 2, 3, 4, 5)
    written: tuple[str, ...] = ()
    answer: str | None = None
    states: ScoreStates = field(default_factory=ScoreStates)
    validation: str | None = None
    tuning: TuningConfig = field(default_factory=TuningConfig)
    feedback: bool = False
    max_new_tokens: int = 256
    batch_size: int | None = None
    seed: int = 731

    def __post_init__(self) -> None:
        """Refuse a scale that is none.

        Raises:
            SettingsError: The scores do not ascend, or are written in more or fewer ways.
        """
        if len(self.scores) < 2 or list(self.scores) != sorted(set(self.scores)):
            raise SettingsError(f"scores expects two or more, ascending, but got {self.scores}.")
        if self.written and len(self.written) != len(self.scores):
            raise SettingsError(
                f"written expects a text for each of {len(self.scores)} scores, but got {self.written}."
            )


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: A file cannot be read, or holds scores outside the scale.
        ReadingError: Scores cannot be told apart by their first token.
        PairError: A prompt cannot be read.
        BackboneError: The backbone cannot be loaded, or is no whole causal model.
    """
    output = Path(config.output)
    manifest = Manifest.of(STAGE, config, (config.input, config.validation))
    if manifest.is_done(output):
        return
    rows = read_rows(config.input)
    prompts = prompt_rows(rows, config.input, unscored=True)
    _check_scale(prompts, config)
    judge, weights = _judge(config)
    found = _after_feedback(judge, prompts, config) if config.feedback else _direct(judge, prompts, config)
    output.mkdir(parents=True, exist_ok=True)
    scored, results = output / "scored.jsonl", output / "results.json"
    write_records(({**row, **own} for row, own in zip(rows, found, strict=True)), scored)
    told = {"condition": "feedback" if config.feedback else "direct", **_measured(prompts, found, config.seed)}
    write_atomically(results, json_text({**told, "scores": config.scores, "layer_weights": weights}))
    manifest.write(output, [scored, results])
    logger.info("Wrote %d rows to %s; %d are null.", len(rows), output, told["n_null"])


def _check_scale(prompts: Sequence[PromptRow], config: Config) -> None:
    lowest, highest = config.scores[0], config.scores[-1]
    for i, row in enumerate(prompts):
        if row.score is not None and not lowest <= row.score <= highest:
            raise DataFileError(
                f"{config.input}: row {i} expects a score from {lowest} to {highest}, but got {row.score:g}. Give the "
                "scale as scores."
            )


def _judge(config: Config) -> tuple[InspectorPipeline, list[float] | Literal["uniform"]]:
    """Make the judge, and tune its layer weights where there is a validation file."""
    backbone = BackboneSpec(config.backbone_id, config.backbone_revision, config.dtype, config.max_length)
    location, pinned = backbone_location(backbone.id, backbone.revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    unembedding = load_unembedding(backbone.id, backbone.revision)

    def make(answer: str | None) -> InspectorPipeline:
        parts = (backbone, config.states, config.scores, tokenizer, unembedding)
        return prompt_judge(*parts, written=config.written, answer=answer)

    judge = make(ANSWER if config.feedback else config.answer)  # feedback ends on "Score: ", which sets the tokens
    if config.validation is None:
        return judge, "uniform"
    rows = read_prompt_rows(config.validation)
    direct = make(config.answer) if config.feedback else judge
    logits = layer_logits(direct, PROMPT, [row.as_pair() for row in rows])
    labels, levels = np.array([row.score for row in rows], dtype=float), np.array(config.scores, dtype=float)
    weights = tune(logits, labels, levels, config.states.aggregation, config.tuning)
    set_layer_weights(judge.model, PROMPT, weights)
    return judge, weights.round(6).tolist()


def _direct(judge: InspectorPipeline, prompts: Sequence[PromptRow], config: Config) -> list[dict[str, Any]]:
    pairs = [dict(zip(PAIR_KEYS, row.as_pair(), strict=True)) for row in prompts]
    return [_own_keys(result) for result in judge(pairs, batch_size=config.batch_size)]


def _after_feedback(judge: InspectorPipeline, prompts: Sequence[PromptRow], config: Config) -> list[dict[str, Any]]:
    asked = [i for i, row in enumerate(prompts) if row.user_prompt_feedback is not None]
    pairs = [dict(zip(PAIR_KEYS, prompts[i].as_pair(feedback=True), strict=True)) for i in asked]
    readings = {PROMPT: prompt_reading(judge.tokenizer, answer="")}
    results = score_after_feedback(
        judge,
        load_causal(judge),
        readings,
        pairs,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
    )
    by_row = dict(zip(asked, map(_own_keys, results), strict=True))
    unasked = {"lager_score": None, "lager_expected": None, "lager_reason": NO_PROMPT}
    return [by_row.get(i, unasked) for i in range(len(prompts))]


def _own_keys(result: dict[str, Any]) -> dict[str, Any]:
    """Name what a row gets, beside its own `score`."""
    found = {
        "lager_score": result["scores"][PROMPT],
        "lager_expected": result["expected"][PROMPT],
        "lager_reason": result.get("reasons", {}).get(PROMPT),
        "lager_truncated": result["truncated"],
    }
    return {**found, "lager_feedback": result["feedback"][PROMPT]} if "feedback" in result else found


def _measured(prompts: Sequence[PromptRow], found: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Compare expected scores with those that the rows bring; a row without either is left out."""
    reasons = Counter(own["lager_reason"] for own in found if own["lager_score"] is None)
    both = [
        (row.score, own["lager_expected"])
        for row, own in zip(prompts, found, strict=True)
        if row.score is not None and own["lager_score"] is not None
    ]
    told = {"n": len(found), "n_null": sum(reasons.values()), "reasons": dict(reasons), "n_compared": len(both)}
    if not both:
        return told
    truth, expected = (np.array(column, dtype=float) for column in zip(*both, strict=True))
    rows = np.array([str(i) for i in range(len(both))])
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of one row's copies has no ranks
        weights: Array = resamples(rows, BOOTSTRAPS, seed).weights(rows)
        spearman = interval(weighted.spearman(truth, expected, weights))
    mae = interval(weighted.mean(np.abs(expected - truth), weights))
    return {**told, "spearman": spearman, "mae": mae, "intervals": f"95 %, percentile, {BOOTSTRAPS} resamples of rows"}
