"""Write verified answers again so that no rule finds their final answer.

Labelled rows of the contrast stage, with `final` and `answer`, get their `reference` and other forms: the final
number in words, the sentence that states it gone, another number planted and rejected. What a response says stays as
right or as wrong as it was; corruptions/restated.py says how. They are for judges whose reading has a slot
`{reference}`, and for measuring these beside exact match and math-verify.

Example:
    python -m training restate --rows work/matched.jsonl --output work/restated.jsonl
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.errors import DataFileError

from ..corruptions.restated import FORMS, restated_rows
from ..rows.correctness import CORRECTNESS
from ..rows.records import FORM, matching_files, number_samples, read_records, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

STAGE = "restate"


@dataclass(frozen=True)
class Config:
    """What to write again.

    Attributes:
        rows: Files of labelled rows of the contrast stage.
        output: The rows, JSON Lines, with `reference` and `form`.
        forms: Which forms to make.
        per_row: How many of them a row gives at most, drawn, beside the row as it is; where it is not given, one in
            all, which may be the row as it is.
        seed: Of all chance.
    """

    rows: tuple[str, ...]
    output: Path
    forms: tuple[str, ...] = tuple(FORMS)
    per_row: int | None = None
    seed: int = 731


def run(config: Config) -> Counter[str]:
    """Write the rows, with a manifest.

    Returns:
        How many rows each form gave, right and wrong ones apart ("planted:0").

    Raises:
        DataFileError: A file cannot be read, a row lacks a key, or a form is unknown.
    """
    if unknown := sorted(set(config.forms) - FORMS.keys()):
        raise DataFileError(f"forms expects some of {', '.join(FORMS)}, but got {', '.join(unknown)}.")
    files = matching_files(config.rows)
    manifest = Manifest.of(STAGE, config, files)
    if manifest.is_done(config.output):
        return Counter()
    read = [row for path in files for row in read_records(path, ("id", "question", "prediction", "scores", "answer"))]
    made = restated_rows(read, config.forms, config.per_row, config.seed)
    rows = number_samples([{**row, "sample": None} for row in made], ", ".join(config.rows))
    write_records(rows, config.output)
    manifest.write(config.output, [config.output])
    counts = Counter(f"{row[FORM]}:{row['scores'][CORRECTNESS]}" for row in rows)
    logger.info("%s: %s", config.output, dict(sorted(counts.items())))
    return counts
