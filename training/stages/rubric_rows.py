"""Bring responses that were scored by rubrics of their own into labelled rows.

    python -m training rubric_rows --input vicuna_eval.json --output work/general.jsonl

The source is JSON in the form of Prometheus's evaluation sets: objects of `instruction`, a prompt with the task, the
response, a reference answer and a rubric under headings of ###, and `gpt4_score`, one score or several. A row's
question is the task with its rubric, so that rubrics of any domain come with the pair; its score is the lower median.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_json

from ..rows.records import question_id, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

STAGE = "rubric_rows"
PARTS = re.compile(
    r"###The instruction to evaluate:\s*(?P<task>.*?)\s*###Response to evaluate:\s*(?P<response>.*?)\s*"
    r"###Reference Answer[^\n]*:\s*(?P<reference>.*?)\s*###Score Rubrics:\s*(?P<rubric>.*?)\s*###Feedback:\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Config:
    """Settings of the stage.

    Attributes:
        input: JSON file.
        output: JSON Lines to write.
        aspect: Name of the score.
    """

    input: str
    output: str
    aspect: str = "quality"


def run(config: Config) -> list[Row]:
    """Run the stage and return the rows.

    Raises:
        DataFileError: The file is no JSON list, or a row lacks a part of the prompt, or scores that are whole numbers.
    """
    manifest = Manifest.of(STAGE, config, (config.input,))
    data = read_json(config.input)
    if not isinstance(data, list) or not data:
        raise DataFileError(f"{config.input} expects a list of scored responses, but got {data!r:.80}.")
    rows = [_row(entry, config.aspect, f"{config.input}: row {i}") for i, entry in enumerate(data)]
    seen: dict[str, int] = {}
    for row in rows:
        row["sample"] = seen[row["id"]] = seen.get(row["id"], -1) + 1
    output = Path(config.output)
    if not manifest.vouches_for(output):
        write_records(rows, output)
        manifest.write(output, [output])
    logger.info("%s holds %d responses to %d tasks.", output, len(rows), len(seen))
    return rows


def _row(entry: Any, aspect: str, where: str) -> Row:
    prompt, given = (entry.get(key) if isinstance(entry, dict) else None for key in ("instruction", "gpt4_score"))
    parts = PARTS.fullmatch(prompt[prompt.find("###The instruction") :]) if isinstance(prompt, str) else None
    if parts is None or not parts["response"]:
        raise DataFileError(f"{where} expects an instruction with task, response, reference and rubric, but has none.")
    scores = given if isinstance(given, list) else [given]
    if not scores or not all(isinstance(score, int) and not isinstance(score, bool) for score in scores):
        raise DataFileError(f"{where} expects whole numbers as gpt4_score, but got {given!r:.80}.")
    return {
        "id": question_id(parts["task"]),
        "question": f"{parts['task']}\n\nRubric:\n{parts['rubric']}",
        "prediction": parts["response"],
        "answer": parts["reference"],
        "generator": entry.get("response_source"),
        "scores": {aspect: median_low(scores)},
        "all_scores": scores,
    }
