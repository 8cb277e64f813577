"""Score LAGER's own rows, whose prompts bring their rubrics with them.

    python -m training lager_prompts --input flask.jsonl --output work/flask
    python -m training lager_prompts --input flask.jsonl --output work/flask_feedback --feedback true \
        --validation valid.jsonl

The direct condition reads `user_prompt` in one prefill. With feedback the backbone first writes a reply to
`user_prompt_feedback`, and the states before its last score are read; a reply without a score is null, with its reason.
`scored.jsonl` holds the rows with lager_score, lager_expected and lager_reason beside their own keys, `results.json`
Spearman's, Pearson's and Kendall's correlation and the mean error against the scores that the rows bring, in all and by
criterion. Where a score begins with another's token, as 10 with that of 1 where each digit is a token, a second state,
behind what both begin with, tells them apart: the longer score's next token against the end of the reply.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.entries import Row
from inspector_pipeline.pairs import PAIR_KEYS
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ..evaluation.correlations import correlations
from ..evaluation.metrics import interval, resamples, weighted_mean
from ..judges.build import BackboneSpec
from ..rows.records import write_records
from ..runs.manifest import Manifest
from ..score_tokens.feedback import load_causal, score_after_feedback
from ..score_tokens.judge import ScoreStates, SplitJudge, TuningRows, prompt_judge, tune_judge
from ..score_tokens.logits import load_unembedding
from ..score_tokens.prompt_rows import PromptColumns, PromptRow, prompt_rows, read_prompt_table
from ..score_tokens.prompts import ANSWER, PROMPT, prompt_reading
from ..score_tokens.split_scores import split_score
from ..score_tokens.weights import TuningConfig

logger = logging.getLogger(__name__)

STAGE = "lager_prompts"
BOOTSTRAPS = 1000
NO_PROMPT = "the row has no user_prompt_feedback"


@dataclass(frozen=True)
class Config:
    """Settings of the lager_prompts stage.

    Attributes:
        input: Rows with user_prompt, user_prompt_feedback where feedback is asked for, and score where one is known, in
            any table format; a .json of one object a line, as LAGER's are, is read too.
        output: Folder for scored.jsonl and results.json.
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation.
        max_length: Upper bound on the tokens of a prompt.
        scores: The scale that the prompts ask for, ascending.
        written: What the prompts write each score as, such as letters, where it is not its number.
        columns: Which keys of the rows hold these, where they have other names.
        criterion: Key of what a row is scored on, such as category or aspect; results are told for each of its values.
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
    columns: PromptColumns = field(default_factory=PromptColumns)
    criterion: str | None = None
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
    rows = read_prompt_table(config.input)
    prompts = prompt_rows(rows, config.input, unscored=True, columns=config.columns)
    criteria = _criteria(rows, config)
    lowest, highest = config.scores[0], config.scores[-1]
    for i, row in enumerate(prompts):
        if row.score is not None and not lowest <= row.score <= highest:
            raise DataFileError(
                f"{config.input}: row {i} expects a score from {lowest} to {highest}, but got {row.score:g}. Give the "
                "scale as scores."
            )
    judge, weights = _judge(config)
    found = _score(judge, prompts, config)
    output.mkdir(parents=True, exist_ok=True)
    scored, results = output / "scored.jsonl", output / "results.json"
    write_records(({**row, **own} for row, own in zip(rows, found, strict=True)), scored)
    told = {"condition": "feedback" if config.feedback else "direct", **_measured(prompts, found, config.seed)}
    if criteria is not None:
        told["by_criterion"] = {
            name: _measured([prompts[i] for i in own], [found[i] for i in own], config.seed)
            for name, own in criteria.items()
        }
    write_atomically(results, json_text({**told, "scores": config.scores, "layer_weights": weights}))
    manifest.write(output, [scored, results])
    logger.info("Wrote %d rows to %s; %d are null.", len(rows), output, told["n_null"])


def _criteria(rows: Sequence[Row], config: Config) -> dict[str, list[int]] | None:
    """Group the rows' places by what they are scored on."""
    if config.criterion is None:
        return None
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.get(config.criterion) is None:
            raise DataFileError(
                f"{config.input}: row {i} expects a value of {config.criterion!r}, the criterion, but has the keys "
                f"{', '.join(row)}."
            )
        found.setdefault(str(row[config.criterion]), []).append(i)
    return found


def _judge(config: Config) -> tuple[InspectorPipeline | SplitJudge, list[float] | Literal["uniform"]]:
    """Make the judge, and tune its layer weights where there is a validation file."""
    backbone = BackboneSpec(config.backbone_id, config.backbone_revision, config.dtype, config.max_length)
    tokenizer, unembedding = backbone.tokenizer(), load_unembedding(backbone.id, backbone.revision)
    reading = prompt_reading(tokenizer, config.answer)
    split = None if config.written else split_score(reading, tokenizer, config.scores, tokenizer.eos_token_id)
    if split is not None:
        shorter, longer = split.both
        if config.feedback or config.validation:
            raise SettingsError(
                f"scores expects tokens of their own for feedback and for a validation file, but {longer} begins with "
                f"that of {shorter} in this tokenizer. Leave both out, or take another backbone."
            )
        logger.info("%d begins with the token of %d, so a second state tells the two apart.", longer, shorter)
        return SplitJudge(backbone, config.states, split, unembedding), "uniform"

    def make(answer: str | None) -> InspectorPipeline:
        parts = (backbone, config.states, config.scores, tokenizer, unembedding)
        return prompt_judge(*parts, written=config.written, answer=answer)

    judge = make(ANSWER if config.feedback else config.answer)  # feedback ends on "Score: ", which sets the tokens
    if config.validation is None:
        return judge, "uniform"
    rows = TuningRows.of_prompts(make(config.answer) if config.feedback else judge, config.validation, config.columns)
    (tuned,) = tune_judge(judge, [], config.tuning, {config.scores: rows}).values()
    return judge, tuned["weights"]


def _score(judge: InspectorPipeline | SplitJudge, prompts: Sequence[PromptRow], config: Config) -> list[dict[str, Any]]:
    """Return what each row gets, beside its own `score`."""
    asked = [i for i, row in enumerate(prompts) if not config.feedback or row.user_prompt_feedback is not None]
    texts = (prompts[i].as_pair(feedback=config.feedback) for i in asked)
    pairs = [dict(zip(PAIR_KEYS, pair, strict=True)) for pair in texts]
    if config.feedback and isinstance(judge, InspectorPipeline):
        readings = {PROMPT: prompt_reading(judge.tokenizer, answer="")}
        limit = config.max_new_tokens
        results = score_after_feedback(
            judge, load_causal(judge), readings, pairs, max_new_tokens=limit, batch_size=config.batch_size
        )
    else:
        results = list(judge(pairs, batch_size=config.batch_size))
    found: list[dict[str, Any]]
    found = [{"lager_score": None, "lager_expected": None, "lager_reason": NO_PROMPT} for _ in prompts]
    for i, result in zip(asked, results, strict=True):
        found[i] = {
            "lager_score": result["scores"][PROMPT],
            "lager_expected": result["expected"][PROMPT],
            "lager_reason": result.get("reasons", {}).get(PROMPT),
            "lager_truncated": result["truncated"],
        }
        if config.feedback:
            found[i]["lager_feedback"] = result["feedback"][PROMPT]
    return found


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
    weights = resamples(rows, BOOTSTRAPS, seed).weights(rows)
    mae = interval(weighted_mean(np.abs(expected - truth), weights))
    return {
        **told,
        **correlations(truth, expected, BOOTSTRAPS, seed),
        "mae": mae,
        "intervals": f"95 %, percentile, {BOOTSTRAPS} resamples of rows",
    }
