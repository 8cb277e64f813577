"""Score with the model's own feedback first (LAGER's reasoning condition).

    python -m training feedback --judge work/lager --pairs pairs.jsonl --output scored.jsonl

The whole model writes up to 256 tokens, greedily. The states of every layer are then read at the position before the
last score that the reply gives, by the judge's own pass and weights. A reply without a score has no score: it is null,
and `reasons` says why.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PairTemplate

from ..features.plan import read_templates
from ..labelling.rubrics import FIVE_LEVELS, Rubric, Scale, chosen_rubrics
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest
from ..score_tokens.feedback import load_causal, score_after_feedback
from ..score_tokens.prompts import rubric_reading, score_letters

logger = logging.getLogger(__name__)

STAGE = "feedback"


@dataclass(frozen=True)
class Config:
    """Settings of the feedback stage.

    Attributes:
        judge: Folder or Hub id of a judge of score tokens, whose backbone is a whole causal model.
        pairs: Rows with question and prediction.
        output: JSON Lines to write: the rows with scores, expected, probabilities, total_score, feedback and reasons.
        aspects: Which of the five aspects are the judge's.
        scale: Theirs.
        custom_aspects: Further aspects of the judge.
        templates: JSON file with objects of name (an aspect's) and template, each ending where the reply begins, to ask
            in other words than the rubric's.
        max_new_tokens: Longest reply.
        batch_size: Replies written at once; None fills batches up to a token budget.
    """

    judge: str
    pairs: str
    output: str
    aspects: tuple[str, ...] = tuple(FIVE_LEVELS)
    scale: Scale = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    templates: str | None = None
    max_new_tokens: int = 256
    batch_size: int | None = None


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: The pairs cannot be read.
        PairError: A pair cannot be scored.
        SettingsError: The aspects are not the judge's.
        BackboneError: The backbone is no whole causal model.
    """
    output = Path(config.output)
    manifest = Manifest.of(STAGE, config, (config.pairs, config.templates))
    if manifest.is_done(output):
        return
    rows = read_records(config.pairs, ("question", "prediction"))
    judge = load_judge(config.judge)
    templates = dict(read_templates(config.templates)) if config.templates else {}
    rubrics = chosen_rubrics(config.aspects, config.scale, config.custom_aspects)
    readings = {rubric.name: templates.get(rubric.name) or _asks(rubric, judge) for rubric in rubrics}
    found = score_after_feedback(
        judge, load_causal(judge), readings, rows, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size
    )
    write_records(({**row, **result} for row, result in zip(rows, found, strict=True)), output)
    manifest.write(output, [output])
    n_null = sum(score is None for result in found for score in result["scores"].values())
    logger.info("Wrote %d rows to %s; %d scores are null.", len(rows), output, n_null)


def _asks(rubric: Rubric, judge: InspectorPipeline) -> PairTemplate:
    """Ask by a rubric for what the judge's score tokens are, numbers or letters."""
    tokens = next((a.head.token_ids for a in judge.model.aspects if a.name == rubric.name), ())
    by_letter = any(judge.tokenizer.decode([token]).strip().isalpha() for token in tokens[:1])
    letters = score_letters(rubric, judge.tokenizer) if by_letter else ()
    return rubric_reading(rubric, judge.tokenizer, feedback=True, letters=letters)
