"""Say which questions a model knows, by its responses labelled by correctness.

    python -m training known_questions --labelled work/labelled.jsonl --output work/known.jsonl

A question is known (1) where more than half of its different responses are right, and not known (0) where more than
half are wrong. A tie, and a question without a label of correctness, is null with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.files.tables import Row

from ..rows.correctness import CORRECTNESS
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest

STAGE = "known_questions"
LABEL = "known"


@dataclass(frozen=True)
class Config:
    """Settings of the known_questions stage.

    Attributes:
        labelled: Rows of the correctness stage.
        output: One row for each question, JSON Lines.
    """

    labelled: str
    output: str


def run(config: Config) -> list[Row]:
    """Run the stage: labelled responses -> questions with the label `known`.

    Returns:
        The rows that were written: id, question, `scores` with `known`, and `reasons`.

    Raises:
        DataFileError: The file cannot be read, or a row lacks its id, question or prediction.
    """
    questions: dict[str, Row] = {}
    verdicts: dict[str, dict[str, int]] = {}
    for row in read_records(config.labelled, ("id", "question")):
        name, score = str(row["id"]), (row.get("scores") or {}).get(CORRECTNESS)
        questions.setdefault(name, {"id": row["id"], "question": row["question"]})
        if score is not None and row.get("prediction"):
            verdicts.setdefault(name, {})[row["prediction"]] = score
    rows = [row | _label(verdicts.get(name, {})) for name, row in questions.items()]
    write_records(rows, Path(config.output))
    Manifest.of(STAGE, config, (config.labelled,)).write(Path(config.output), [Path(config.output)])
    return rows


def _label(verdicts: Mapping[str, int]) -> Row:
    right, wrong = sum(verdicts.values()), len(verdicts) - sum(verdicts.values())
    if not verdicts:
        return {"scores": {LABEL: None}, "reasons": {LABEL: f"no response has a label of {CORRECTNESS}"}}
    if right == wrong:
        return {"scores": {LABEL: None}, "reasons": {LABEL: f"{right} responses are right and as many are wrong"}}
    return {"scores": {LABEL: int(right > wrong)}, "reasons": {}}
