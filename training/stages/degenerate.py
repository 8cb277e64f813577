r"""Make degenerate answers: bare numbers, echoes, cuts, talk, noise.

Verified answers hold question, prediction, generator, final, answer (the right one) and correct. Each question with a
right and a wrong one gives the worked solutions and what must not stand above a right one; corruptions/degenerate.py
says which, and how they are labelled. For a fit the forms are auxiliary rows of a weight of their own, without the
worked solutions, which the fit has already.

Example:
    python -m training degenerate --rows verified/*.jsonl.gz --output suite.jsonl --n-questions 300
    python -m training degenerate --rows verified/*.jsonl.gz --output more.jsonl --n-questions 1000 --per-question 2 \
        --auxiliary --weight 0.3 --without-worked
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.errors import DataFileError

from ..corruptions.degenerate import FORMS, WORKED, degenerate_rows
from ..rows.contrast import VERIFIED
from ..rows.correctness import CORRECTNESS
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to make.

    Attributes:
        rows: Files of verified answers; those of one question may stand in several.
        output: Labelled rows, JSON Lines.
        n_questions: How many questions to take at most, drawn; all where it is not given.
        seed: Of all that is drawn.
        forms: Which forms to make; all where none are named.
        per_question: How many forms a question gives at most, beside the worked solutions, drawn.
        without_worked: Whether to leave the worked solutions out.
        auxiliary: Whether to mark all rows but the worked solutions as auxiliary: for fits alone, never scored.
        weight: Weight of their labels in a fit; 1 where it is not given.
    """

    rows: tuple[Path, ...]
    output: Path
    n_questions: int | None = None
    seed: int = 0
    forms: tuple[str, ...] = ()
    per_question: int | None = None
    without_worked: bool = False
    auxiliary: bool = False
    weight: float | None = None


def run(config: Config) -> Counter[str]:
    """Make the answers and write them, with a manifest.

    Returns:
        How many rows each form gave, and in how many questions one could not be made ("skipped FORM").

    Raises:
        DataFileError: A file cannot be read or lacks keys, or no question has a right and a wrong worked answer.
    """
    for name in ("n_questions", "per_question"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise DataFileError(f"{name} expects at least 1, but got {value}.")
    if config.weight is not None and not 0 < config.weight < float("inf"):
        raise DataFileError(f"weight expects a number above 0, but got {config.weight}.")
    manifest = Manifest.of("degenerate", config, config.rows)
    if manifest.is_done(config.output):
        return Counter()
    verified = [row for path in config.rows for row in read_records(path, (*VERIFIED, "answer"))]
    forms = [form for form in config.forms or FORMS if not (config.without_worked and form in WORKED)]
    rows, counts = degenerate_rows(
        verified,
        ", ".join(map(str, config.rows)),
        n_questions=config.n_questions,
        seed=config.seed,
        forms=forms,
        per_question=config.per_question,
    )
    for row in rows:
        if row["form"] not in WORKED:
            row |= {"auxiliary": True} if config.auxiliary else {}
            row |= {"weights": {CORRECTNESS: config.weight}} if config.weight is not None else {}
    write_records(rows, config.output)
    manifest.write(config.output, [config.output])
    logger.info("%s: %d rows; %s", config.output, len(rows), dict(sorted(counts.items())))
    return counts
