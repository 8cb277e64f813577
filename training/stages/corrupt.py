"""Make labelled responses with no teacher: gold solutions, damaged in known ways.

Every question gives one undamaged solution and others with one damage each: arithmetic slips, carried on or not,
contradicted givens, invented facts, dropped or reordered steps, garbled language, truncation, the bare answer, another
question's solution. corruptions/damage.py says which labels each damage determines, and why; other aspects have none.
The rows are auxiliary: they serve training only and are never scored in an evaluation.

Everything random is seeded by seed, id and kind, so that a row depends neither on the order of the questions nor on
how many are taken; only `off_topic` looks at the others, for another solution to give.

Example:
    python -m training corrupt --questions questions.jsonl --output corrupted.jsonl --n-questions 2000 --per-question 3
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.errors import DataFileError

from ..corruptions.damage import corrupted_rows
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to damage.

    Attributes:
        questions: Rows with id, question and answer, the gold solution; final_answer where the answer marks none.
        output: Labelled rows, JSON Lines.
        n_questions: How many questions to take, at most.
        per_question: How many responses a question gives, at most; the first is the undamaged solution.
        seed: What everything random starts from.
    """

    questions: Path
    output: Path
    n_questions: int = 2000
    per_question: int = 3
    seed: int = 731


def run(config: Config) -> Counter[str]:
    """Make the responses and write them, with a manifest.

    Returns:
        How many rows each kind and degree gave ("kind:degree"), and how often a kind did not apply ("skipped kind").

    Raises:
        DataFileError: The file cannot be read, lacks keys, or has no question with a gold solution.
    """
    if config.n_questions < 1 or config.per_question < 1:
        raise DataFileError(
            f"n_questions and per_question expect at least 1, but got {config.n_questions} and {config.per_question}."
        )
    manifest = Manifest.of("corrupt", config, [config.questions])
    if manifest.is_done(config.output):
        return Counter()
    rows, counts = corrupted_rows(read_records(config.questions), config.n_questions, config.per_question, config.seed)
    write_records(rows, config.output)
    manifest.write(config.output, [config.output])
    logger.info("%s: %d rows; %s", config.output, len(rows), dict(sorted(counts.items())))
    return counts
