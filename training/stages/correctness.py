r"""Label responses by whether their final answer is right, without a teacher.

Responses meet their questions by id, never by position, and the question's text must be the same. The label is 1 or 0
where that is certain, else null with its reason; rows/correctness.py says how it is found.

Example:
    python -m training correctness --responses rows.jsonl --questions questions.jsonl --output labelled.jsonl
"""

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row

from ..rows.correctness import CORRECTNESS, join_key, label_row, questions_by_key
from ..rows.probing_set import is_probing_set, read_probing_set
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to label.

    Attributes:
        responses: Rows with id, question and prediction (JSON Lines, results JSON), or a probing set.
        questions: Rows with id, question and final_answer, or answer, the gold solution.
        output: Labelled rows, JSON Lines.
        join: Which key of a response names its question: id, or question for files whose ids are another dataset's.
    """

    responses: Path
    questions: Path
    output: Path
    join: str = "id"


def run(config: Config) -> Counter[str]:
    """Label every response and write the rows.

    Returns:
        How many rows got which label or reason.

    Raises:
        DataFileError: A file cannot be read, lacks keys, or two questions share an id.
    """
    if config.join not in ("id", "question"):
        raise DataFileError(f"join expects id or question, but got {config.join!r}. Choose one.")
    manifest = Manifest.of(CORRECTNESS, config, [config.responses, config.questions])
    if manifest.is_done(config.output):
        return Counter()
    questions = questions_by_key(read_records(config.questions), config.join)
    rows = [
        label_row(row, questions.get(join_key(row, config.join)), config.join)
        for row in hf_logging.tqdm(read_responses(config.responses), desc=CORRECTNESS)
    ]
    write_records(rows, config.output)
    manifest.write(config.output, [config.output])
    counts = Counter(str(row["scores"][CORRECTNESS]) for row in rows)
    reasons = Counter(row["reasons"][CORRECTNESS] for row in rows if row["reasons"].get(CORRECTNESS))
    logger.info("%s: %s; reasons: %s", config.output, dict(counts), dict(reasons))
    return counts + reasons


def read_responses(path: Path) -> list[Row]:
    """Read responses: rows of any supported format, or a probing set, whose pairs keep their labels.

    Raises:
        DataFileError: The file cannot be read, or a row lacks id or question.
    """
    return [asdict(pair) for pair in read_probing_set(path)[0]] if is_probing_set(path) else read_records(path)
