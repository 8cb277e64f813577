r"""Measure how far to believe a judge, by out-of-fold scores and the truth.

Rows hold question, generator, a label of 0 or 1 and one or more columns of scores, as `evaluate --out-of-fold` writes
them; every score must come from a fit that saw neither the question nor, where generators count as new, the generator
(rows that say that a fit saw it are left out). Measured are conformal sets over questions and over held-out generators,
the decisions between two answers to a question by how sure they are, and means by prediction-powered inference over
many draws (training/trust/report.py); each over each column of scores, and by length.

Example:
    python -m training trust_report --scores oof.jsonl --fields expected_correctness length --output work/trust.json
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import Row, read_rows

from ..evaluation.evidence import today
from ..evaluation.metrics import Array, Mask, auroc
from ..evaluation.out_of_fold import GENERATOR_UNSEEN
from ..evaluation.scored import as_flag, numbers
from ..rows.records import matching_files, question_id
from ..rows.scales import is_blank
from ..runs.manifest import Manifest
from ..trust.level_maps import FITS
from ..trust.report import Outcomes, conformal_report, decision_report, mean_report, report_lines

LENGTH = "length"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        scores: Tables of answers.
        output: JSON file with the part `trust`, which can go onto the judge's card (`export --card`).
        fields: Columns of scores, higher for right answers; `length`, where rows have no such column, is the number of
            characters of the prediction, or where short answers are right more often its negative.
        question: Column of the questions, or of their ids.
        generator: Column of the generators.
        label: Column of the truth, 0 or 1; rows without it are left out.
        coverages: What sets are stated to hold.
        method: How scores become probabilities: isotonic, beta or ordinal.
        n_labels: How many labels a mean is estimated from.
        n_draws: Of each generator and number of labels.
        bootstraps: Resamples of questions, for intervals.
        seed: Of all chance.
    """

    scores: tuple[Path, ...]
    output: Path
    fields: tuple[str, ...] = ("expected_correctness",)
    question: str = "question"
    generator: str = "generator"
    label: str = "correctness"
    coverages: tuple[float, ...] = (0.8, 0.9, 0.95)
    method: str = "isotonic"
    n_labels: tuple[int, ...] = (50, 100)
    n_draws: int = 2000
    bootstraps: int = 1000
    seed: int = 0


def run(config: Config) -> dict[str, Any]:
    """Measure, write the figures, and show them.

    Returns:
        The part `trust`: column of scores -> `conformal`, `decisions` and `means`; empty where it was there already.

    Raises:
        DataFileError: A file cannot be read, or a row lacks a column.
    """
    if config.method not in FITS or not all(0 < share < 1 for share in config.coverages):
        raise DataFileError(
            f"trust_report expects a method of {', '.join(FITS)} and coverages between 0 and 1, but got "
            f"{config.method} and {config.coverages}."
        )
    places = matching_files(config.scores)
    manifest = Manifest.of("trust_report", config, places)
    if manifest.is_done(config.output):
        return {}
    source = ", ".join(map(str, places))
    every = [row for place in places for row in read_rows(str(place))]
    rows = [
        row for row in every if not is_blank(row.get(config.label)) and as_flag(row.get(GENERATOR_UNSEEN)) is not False
    ]
    logger.info("%d of %d rows have a label and are of fits that saw no generator.", len(rows), len(every))
    for name in (config.question, config.generator):
        missing = next((at for at, row in enumerate(rows) if row.get(name) is None), None)
        if missing is not None:
            raise DataFileError(f"{source} expects {name!r} in every row, but row {missing} has none.")
    right = numbers(rows, config.label, source)
    if not rows or not np.isin(right, (0, 1)).all() or len(np.unique(right)) < 2:
        raise DataFileError(f"{source} expects right and wrong answers, 1 and 0 as {config.label!r}.")
    question = np.array([question_id(str(row[config.question])) for row in rows])
    generator = np.array([str(row[config.generator]) for row in rows])
    found = {}
    for name in config.fields:
        outcomes = Outcomes(_scores(rows, name, source, right == 1), right == 1, question, generator)
        settings = {"bootstraps": config.bootstraps, "seed": config.seed}
        found[name] = {
            "date": today(),
            "conformal": conformal_report(outcomes, config.coverages, method=config.method, **settings),
            "decisions": decision_report(outcomes, **settings),
            "means": mean_report(outcomes, config.n_labels, n_draws=config.n_draws, seed=config.seed),
        }
        for line in report_lines(found[name]):
            logger.info("%s: %s.", name, line)
    write_atomically(config.output, json_text({"trust": found}))
    manifest.write(config.output, [config.output])
    return found


def _scores(rows: Sequence[Row], name: str, source: str, right: Mask) -> Array:
    """Return a column of scores, or the length of the responses in the direction in which it tells more."""
    if name != LENGTH or any(name in row for row in rows):
        return numbers(rows, name, source)
    length = np.array([len(str(row.get("prediction") or "")) for row in rows], dtype=np.float64)
    return length if auroc(right, length, np.ones((1, len(rows))))[0] >= 0.5 else -length
