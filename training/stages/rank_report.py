"""Measure how well a judge ranks systems, from out-of-fold scores of known truth.

    python -m training rank_report --scores work/out_of_fold/fitted.jsonl --output work/rank.json

Rows hold question, generator, score and label, as evaluate's `out_of_fold` writes them; the scores are to be of fits
that saw neither the question nor the generator. Rows that lack one are left out.

Of the whole: Spearman's correlation of judged with true means. Of every pair of generators: how often, over draws of so
many prompts, the worse one is called better, and the better one where they differ by 10 points or more, with the
judge's error between generators as the others show it; and how many prompts would be needed. The same by length, where
rows hold the prediction.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hub_cards.measured import ranking_table
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically

from ..evaluation.evidence import today
from ..evaluation.scored import numbers, read_entries
from ..rows.records import matching_files, normal_text
from ..runs.manifest import Manifest
from ..trust.rank_evidence import rank_evidence

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        scores: Files of rows: question (a text or an id), generator, score and label, and prediction or a length.
        output: JSON file with the part `ranking`, which can go onto the judge's card (`export --card`): `inspector
            rank` then takes the judge's error between systems from it.
        field: What the scores are in the judge's results.
        score: The column of the scores; that of the field where it is not given.
        label: The column of the truth; the aspect's, or `correct`, where it is not given.
        question: The column of the questions.
        generator: The column of the generators.
        others: Further columns with numbers to rank by, beside the length.
        n_prompts: How many prompts to draw.
        draws: How often.
        points: How far the true means of two generators differ that should be told apart.
        level: Of the intervals.
        seed: Of the draws.
    """

    scores: tuple[Path, ...]
    output: Path
    field: str = "expected_correctness"
    score: str | None = None
    label: str | None = None
    question: str = "question"
    generator: str = "generator"
    others: tuple[str, ...] = ()
    n_prompts: tuple[int, ...] = (60, 125, 250, 500)
    draws: int = 200
    points: float = 0.1
    level: float = 0.95
    seed: int = 0


def run(config: Config) -> dict[str, Any]:
    """Measure, write the figures and show them.

    Returns:
        The part `ranking`: what `rank_evidence` gives; empty where it was there already.

    Raises:
        DataFileError: A file cannot be read, lacks a column, or has too few generators.
    """
    if not 0.5 <= config.level < 1 or config.draws < 1 or min(config.n_prompts, default=0) < 2:
        raise DataFileError(
            f"level expects 0.5 to 1, draws 1 or more and n_prompts 2 or more, but got {config.level}, {config.draws} "
            f"and {config.n_prompts}."
        )
    files = matching_files(config.scores)
    manifest = Manifest.of("rank_report", config, files)
    if manifest.is_done(config.output):
        return {}
    told, score = ", ".join(map(str, files)), config.score or config.field
    aspect = config.field.removeprefix("expected_")
    read = read_entries(files, (config.question,))
    label = config.label or (aspect if any(aspect in row for row in read) else "correct")
    columns = (config.generator, score, label)
    rows = [row for row in read if all(row.get(name) not in (None, "") for name in columns)]
    if not rows:
        raise DataFileError(f"{told} expects rows with {', '.join(columns)}, but none has all of them.")
    logger.info("%d of %d rows have %s.", len(rows), len(read), ", ".join(columns))
    rows = [{**row, label: {True: 1, False: 0}.get(row[label], row[label])} for row in rows]
    ways = {"judge": numbers(rows, score, told)}
    if all(isinstance(row.get("prediction"), str) for row in rows):
        ways["length"] = np.array([len(row["prediction"]) for row in rows], dtype=np.float64)
    evidence = rank_evidence(
        ways | {name: numbers(rows, name, told) for name in config.others},
        numbers(rows, label, told),
        [normal_text(str(row[config.question])) for row in rows],
        [str(row[config.generator]) for row in rows],
        n_prompts=config.n_prompts,
        draws=config.draws,
        points=config.points,
        level=config.level,
        seed=config.seed,
    )
    found = {"date": today(), "field": config.field, **evidence}
    write_atomically(config.output, json_text({"ranking": found}))
    manifest.write(config.output, [config.output])
    logger.info("%s", ranking_table(found))
    return found
