r"""Measure what choosing by a judge brings: best of n, the top share, votes.

From verified answers of several generators that `inspector score` has scored. What is measured is the field that the
judge ranks by: the best of n answers to a question and the top share of all of them, beside chance, length, votes and
the oracle; same-question accuracy, and of the surest decisions; with intervals over questions
(evaluation/selection.py). With answers to other questions, a probe that reads questions alone stands beside
(evaluation/question_only.py). With a judge, wrong solutions are edited at random, and it shows how many of them reach
the score of the median right one (evaluation/hill_climbing.py). The part `use` of the output can go onto the judge's
card.

Example:
    inspector score verified.jsonl --judge work/judge --output work/scored.jsonl
    python -m training use --scored work/scored.jsonl --judge work/judge --output work/use.json
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_cards.measured import use_table
from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.entries import Row

from ..corruptions.degenerate import WORKED, degenerate_rows
from ..evaluation.evidence import today
from ..evaluation.hill_climbing import hill_climbing
from ..evaluation.metrics import Array
from ..evaluation.question_only import QuestionOnlyConfig, question_values
from ..evaluation.scored import input_files, judged, numbers, read_scored
from ..evaluation.selection import REQUIRED, use_evidence
from ..rows.records import matching_files, question_id
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

QUESTION_ONLY = "question_only"


@dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        scored: Scored answers, with question, prediction, generator, final, answer and correct: files, or folders of
            `inspector score`.
        output: JSON file with the part `use`.
        rank_by: The column to choose by; what the judge names where it is not given.
        baselines: Other columns with numbers to choose by.
        question_only: Verified answers to other questions, such as those that the judge was fitted on, from whose
            questions alone a probe learns which are hard; what it reads is kept in OUTPUT.questions.
        sizes: How many answers to choose the best of.
        top: Share of all answers to keep.
        judge: Folder or Hub id of the judge, for edits of wrong solutions; none are made where it is not given.
        n_climbed: How many wrong solutions to edit.
        n_edits: How many edits to try on each.
        bootstraps: Resamples of the questions.
        seed: Of all chance.
    """

    scored: tuple[Path, ...]
    output: Path
    rank_by: str | None = None
    baselines: tuple[str, ...] = ()
    question_only: QuestionOnlyConfig | None = None
    sizes: tuple[int, ...] = (2, 4, 8, 16)
    top: float = 0.2
    judge: str | None = None
    n_climbed: int = 50
    n_edits: int = 200
    bootstraps: int = 1000
    seed: int = 0


def run(config: Config) -> dict[str, Any]:
    """Measure, write the results, and show them.

    Returns:
        The part `use`; empty where it was there already.

    Raises:
        DataFileError: A file cannot be read, or a row is no scored verified answer.
    """
    if not 0 < config.top <= 1 or min(config.sizes, default=0) < 1:
        raise DataFileError(
            f"top expects a share of 0 to 1 and sizes numbers from 1, but got {config.top} and {config.sizes}."
        )
    places = matching_files(config.scored)
    known = matching_files(config.question_only.answers) if config.question_only else []
    manifest = Manifest.of("use", config, [*input_files(places, config.judge), *known])
    if manifest.is_done(config.output):
        return {}
    scored = read_scored(places, REQUIRED, config.rank_by)
    told = ", ".join(map(str, places))
    baselines = {name: numbers(scored.rows, name, told) for name in config.baselines}
    if config.question_only is not None:
        baselines[QUESTION_ONLY] = question_values(scored.rows, config.question_only, questions_of(config.output))
    drawn = {"bootstraps": config.bootstraps, "seed": config.seed}
    found = {"date": today(), **use_evidence(scored, baselines, sizes=config.sizes, top=config.top, **drawn)}
    if config.judge is not None:
        found["hill_climbing"] = _climbed(scored.rows, told, config)
    write_atomically(config.output, json_text({"use": found}))
    manifest.write(config.output, [config.output])
    logger.info("%s", use_table(found))
    return found


def questions_of(output: Path) -> Path:
    """Name the folder of what a question-only probe reads."""
    return output.with_name(f"{output.name}.questions")


def _climbed(rows: Sequence[Row], source: str, config: Config) -> dict[str, Any]:
    """Edit wrong solutions of some questions, by what the judge itself says of them."""
    answers = {question_id(row["question"]): row.get("answer") for row in rows}
    made, _ = degenerate_rows(rows, source, n_questions=config.n_climbed, seed=config.seed, forms=WORKED)
    right, wrong = ([row | {"answer": answers[row["id"]]} for row in made if row["form"] == form] for form in WORKED)
    judge = load_judge(config.judge)

    def score(pairs: list[Row]) -> tuple[Array, list[bool | None]]:
        said = judged(judge, pairs, config.rank_by)
        return said.value, said.unfamiliar

    return hill_climbing(wrong, right, score, n_edits=config.n_edits, bootstraps=config.bootstraps, seed=config.seed)
