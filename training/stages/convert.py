r"""Convert files between rows and the published formats.

    python -m training convert --input a_results_roscoe5dim.jsonl --to probing --rubrics probing.json \
        --output a_roscoe5dim_probing.json --balance

- records: this project's rows, JSON Lines;
- results: responses, JSON array of {"id", "question", "gold_answer", "final_answer", "prediction", ...};
- teacher: results as JSON Lines, each with "roscoe5dim_score": {aspect: {"score", "justification"}};
- probing: {aspect: [{"id", "eval_prompt", "score"}]}, each prompt a rubric around a pair;
- evaluated: results with a judge's score of each aspect and "total_score";
- filtered: the best share of an evaluated file, by total_score.

Each format comes back byte for byte from the rows that it was read as.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.api.load import keep_top
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, write_rows

from ..features.plan import read_readings
from ..rows.published import (
    READERS,
    detect,
    evaluated_row,
    write_evaluated,
    write_probing_set,
    write_results,
    write_teacher,
)
from ..rows.records import binary_rows, write_records

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Settings of a conversion.

    Attributes:
        input: File to read; its format is recognised.
        to: records, results, teacher, probing, evaluated or filtered.
        output: File to write; None, which only `filtered` takes, puts `_filtered.json` for the input's `_evaled.json`.
        rubrics: Each aspect's rubric, for `probing`: a probing set, JSON of readings by aspect, or `own` for those of
            this project.
        balance: Draw as many rows of every score as the rarest has, for `probing`.
        seed: Of that draw.
        top_percent: Share to keep, 0 to 1, for `filtered`.
        binary: Whether scores become two classes: 1 for `threshold` or more, else 0.
        threshold: Lowest score that `binary` makes 1; 4, as published, for scores of 1 to 5.
    """

    input: str
    to: str
    output: str | None = None
    rubrics: str | None = None
    balance: bool = False
    seed: int = 731
    top_percent: float = 1.0
    binary: bool = False
    threshold: int = 4


def filtered_path(path: str) -> Path:
    """Name a filtered file as the published tools do: `x_evaled.json` -> `x_filtered.json`."""
    return Path(path).with_name(f"{Path(path).stem.removesuffix('_evaled')}_filtered.json")


def write_filtered(rows: Iterable[Row], path: Path, top_percent: float) -> None:
    """Write the best share by total_score, sorted where not all are kept, as `evaluate_samples` does.

    Raises:
        DataFileError: The share is not from 0 to 1, or a row has no total_score.
    """
    if not 0.0 <= top_percent <= 1.0:
        raise DataFileError(f"--top-percent expects a share from 0 to 1, but got {top_percent}.")
    scored = [evaluated_row(row) for row in rows]
    for i, row in enumerate(scored):
        if not isinstance(row["total_score"], (int, float)):
            raise DataFileError(f"A filter expects a total_score in every row, but row {i} has none. Leave it out.")
    write_rows(keep_top(scored, top_percent), str(path))


WRITERS: dict[str, Callable[[list[Row], Path, Config], None]] = {
    "records": lambda rows, path, _: write_records(rows, path),
    "results": lambda rows, path, _: write_results(rows, path),
    "teacher": lambda rows, path, _: write_teacher(rows, path),
    "evaluated": lambda rows, path, _: write_evaluated(rows, path),
    "filtered": lambda rows, path, config: write_filtered(rows, path, config.top_percent),
    "probing": lambda rows, path, config: write_probing_set(
        rows, read_readings(str(config.rubrics)), path, config.seed if config.balance else None
    ),
}


def run(config: Config) -> None:
    """Convert a file.

    Raises:
        DataFileError: The settings do not fit, or the file cannot be read or written in that format.
    """
    if config.to not in WRITERS:
        raise DataFileError(f"--to expects {', '.join(WRITERS)}, but got {config.to!r}.")
    if config.to == "probing" and not config.rubrics:
        raise DataFileError(
            "--to probing expects each aspect's rubric. Name a probing set that has them, or own: --rubrics own."
        )
    if not config.output and config.to != "filtered":
        raise DataFileError(f"--to {config.to} expects an --output.")
    output = Path(config.output or filtered_path(config.input))
    kind = detect(config.input)
    rows = READERS[kind](config.input)
    if config.to in ("teacher", "evaluated", "filtered") and not all(row.get("scores") is not None for row in rows):
        raise DataFileError(f"--to {config.to} expects rows with scores, but {config.input} ({kind}) has none in some.")
    if config.binary:
        rows = binary_rows(rows, config.threshold, config.input)
    WRITERS[config.to](rows, output, config)
    logger.info("Wrote %s (%s) as %s to %s.", config.input, kind, config.to, output)
