"""Read and write the published formats, and convert between them and rows (training/records.py).

    python -m training convert --input a_results_roscoe5dim.jsonl --to probing --rubrics probing.json \
        --output a_roscoe5dim_probing.json --balance true

- records: this project's rows, JSON Lines;
- results: responses, JSON array of {"id", "question", "gold_answer", "final_answer", "prediction", ...};
- teacher: results as JSON Lines, each with "roscoe5dim_score": {aspect: {"score", "justification"}};
- probing: {aspect: [{"id", "eval_prompt", "score"}]}, each prompt a rubric around a pair;
- evaluated: results with a judge's score of each aspect and "total_score";
- filtered: the best share of an evaluated file, by total_score.

The published `gold_answer` is a row's `answer`; other keys are kept. Each writer undoes its reader. What is no whole
number is no score: it is null in `scores`, `reasons` says why, and `raw_labels` holds what the file says, which goes
back into the file when it is written.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector_pipeline.api.load import keep_top
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import write_atomically
from inspector_pipeline.files.tables import Row, read_json, read_rows, write_rows
from inspector_pipeline.template import PairTemplate

from ..rows.columns import parse_label
from ..rows.probing_set import ASPECTS, make_probing_set, read_probing_set, read_rubrics
from ..rows.records import labelled_pairs, read_records, write_records

logger = logging.getLogger(__name__)

TEACHER_KEY = "roscoe5dim_score"
LABEL_KEYS = ("scores", "reasons", "justifications", "raw_labels")
BALANCE_SEED = 731
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Config:
    """Settings of a conversion.

    Attributes:
        input: File to read; its format is recognised.
        to: records, results, teacher, probing, evaluated or filtered.
        output: File to write; None, which only `filtered` takes, puts `_filtered.json` for the input's `_evaled.json`.
        rubrics: Each aspect's rubric, for `probing`: a probing set, or JSON of readings by aspect.
        balance: Draw as many rows of every score as the rarest has, for `probing`.
        seed: Of that draw.
        top_percent: Share to keep, 0 to 1, for `filtered`.
    """

    input: str
    to: str
    output: str | None = None
    rubrics: str | None = None
    balance: bool = False
    seed: int = BALANCE_SEED
    top_percent: float = 1.0


def detect(path: PathLike) -> str:
    """Recognise the format of a file by its content.

    Returns:
        probing, teacher, evaluated (filtered files too), results or records; for .csv and .parquet always records.

    Raises:
        DataFileError: It cannot be read.
    """
    if Path(path).suffix.lower() not in (".json", ".jsonl"):
        return "records"
    if Path(path).suffix.lower() == ".json" and isinstance(read_json(path), dict):
        return "probing"
    rows = read_rows(str(path))
    if rows and all(TEACHER_KEY in row for row in rows):
        return "teacher"
    if rows and all("total_score" in row and any(aspect in row for aspect in ASPECTS) for row in rows):
        return "evaluated"
    own = any("scores" in row or "sample" in row for row in rows)
    return "results" if rows and not own and all("prediction" in row for row in rows) else "records"


def read_results(path: PathLike) -> list[Row]:
    """Read a results file as responses.

    Raises:
        DataFileError: It is malformed, or a row lacks id, question or prediction.
    """
    return [_renamed(row, "gold_answer", "answer") for row in _read(path)]


def write_results(rows: Iterable[Row], path: PathLike) -> None:
    """Write responses as a results file; labels are left out."""
    write_rows([_published(row) for row in rows], str(path))


def read_teacher(path: PathLike) -> list[Row]:
    """Read a teacher's file as labelled rows.

    Raises:
        DataFileError: It is malformed, or a row lacks id, question, prediction or the teacher's scores.
    """
    rows = []
    for row in _read(path, TEACHER_KEY):
        given = row.pop(TEACHER_KEY)
        rows.append(_renamed(row, "gold_answer", "answer") | _labels(given))
    return rows


def write_teacher(rows: Iterable[Row], path: PathLike) -> None:
    """Write labelled rows as a teacher's file."""
    published = [_published(row) | {TEACHER_KEY: _teacher_entries(row)} for row in rows]
    write_atomically(Path(path), "".join(json.dumps(row) + "\n" for row in published))


def read_evaluated(path: PathLike, aspects: Iterable[str] = ASPECTS) -> list[Row]:
    """Read an evaluated or filtered file as rows whose `scores` are the judge's; `total_score` is kept beside them.

    Args:
        path: The file.
        aspects: Names of the aspects; those that a row lacks are left out.

    Raises:
        DataFileError: It is malformed, or a row lacks id, question, prediction, total_score or any of the aspects.
    """
    names = tuple(aspects)
    rows = []
    for i, row in enumerate(_read(path, "total_score")):
        given = {aspect: row.pop(aspect) for aspect in list(row) if aspect in names}
        if not given:
            raise DataFileError(f"{path}: row {i} expects scores of {', '.join(names)}, but has none of them.")
        total = row.pop("total_score")
        parsed = {aspect: parse_label(value) for aspect, value in given.items()}
        raw = {aspect: value for aspect, value in given.items() if not _same(value, parsed[aspect][0])}
        labels: Row = {"scores": {aspect: score for aspect, (score, _) in parsed.items()}, "total_score": total}
        labels["reasons"] = {aspect: reason for aspect, (_, reason) in parsed.items() if reason}
        rows.append(_renamed(row, "gold_answer", "answer") | labels | ({"raw_labels": raw} if raw else {}))
    return rows


def write_evaluated(rows: Iterable[Row], path: PathLike) -> None:
    """Write rows with a judge's scores as an evaluated file.

    A row without `total_score` gets the sum of its scores, or null where one is missing.
    """
    write_rows([_evaluated(row) for row in rows], str(path))


def write_filtered(rows: Iterable[Row], path: PathLike, top_percent: float) -> None:
    """Write the best share by total_score, sorted where not all are kept, as `evaluate_samples` does.

    Raises:
        DataFileError: The share is not from 0 to 1, or a row has no total_score.
    """
    if not 0.0 <= top_percent <= 1.0:
        raise DataFileError(f"--top_percent expects a share from 0 to 1, but got {top_percent}.")
    scored = [_evaluated(row) for row in rows]
    for i, row in enumerate(scored):
        if not isinstance(row["total_score"], (int, float)):
            raise DataFileError(f"A filter expects a total_score in every row, but row {i} has none. Leave it out.")
    write_rows(keep_top(scored, top_percent), str(path))


def read_probing_rows(path: PathLike) -> list[Row]:
    """Read a probing set as labelled rows, one a pair.

    Raises:
        DataFileError: It is malformed.
    """
    pairs, _ = read_probing_set(path)
    return [
        {"id": pair.id, "question": pair.question, "prediction": pair.prediction, "scores": pair.scores}
        for pair in pairs
    ]


def write_probing_set(
    rows: Iterable[Row], rubrics: Mapping[str, PairTemplate], path: PathLike, balance_seed: int | None = None
) -> None:
    """Write labelled rows as a probing set; see `make_probing_set`. Rows without response or label are left out.

    Raises:
        DataFileError: A labelled aspect has no rubric.
    """
    made = make_probing_set(labelled_pairs(rows), rubrics, balance_seed)
    write_atomically(Path(path), json.dumps(made, indent=4))


def filtered_path(path: PathLike) -> Path:
    """Name a filtered file as the published tools do: `x_evaled.json` -> `x_filtered.json`."""
    return Path(path).with_name(f"{Path(path).stem.removesuffix('_evaled')}_filtered.json")


READERS: dict[str, Callable[[PathLike], list[Row]]] = {
    "records": lambda path: read_records(Path(path)),
    "results": read_results,
    "teacher": read_teacher,
    "probing": read_probing_rows,
    "evaluated": read_evaluated,
}
WRITERS: dict[str, Callable[[list[Row], Path, Config], None]] = {
    "records": lambda rows, path, _: write_records(rows, path),
    "results": lambda rows, path, _: write_results(rows, path),
    "teacher": lambda rows, path, _: write_teacher(rows, path),
    "evaluated": lambda rows, path, _: write_evaluated(rows, path),
    "filtered": lambda rows, path, config: write_filtered(rows, path, config.top_percent),
    "probing": lambda rows, path, config: write_probing_set(
        rows, read_rubrics(str(config.rubrics)), path, config.seed if config.balance else None
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
        raise DataFileError("--to probing expects each aspect's rubric. Name a probing set that has them: --rubrics.")
    if not config.output and config.to != "filtered":
        raise DataFileError(f"--to {config.to} expects an --output.")
    output = Path(config.output or filtered_path(config.input))
    kind = detect(config.input)
    rows = READERS[kind](config.input)
    if config.to in ("teacher", "evaluated", "filtered") and not all(row.get("scores") is not None for row in rows):
        raise DataFileError(f"--to {config.to} expects rows with scores, but {config.input} ({kind}) has none in some.")
    WRITERS[config.to](rows, output, config)
    logger.info("Wrote %s (%s) as %s to %s.", config.input, kind, config.to, output)


def _read(path: PathLike, *keys: str) -> list[Row]:
    rows = read_rows(str(path))
    required = ("id", "question", "prediction", *keys)
    for i, row in enumerate(rows):
        missing = [key for key in required if key not in row]
        if missing:
            raise DataFileError(f"{path}: row {i} expects the keys {', '.join(required)}, but lacks {missing[0]!r}.")
        if not isinstance(row["question"], str) or not isinstance(row["prediction"], (str, type(None))):
            raise DataFileError(f"{path}: row {i} expects a question and a prediction that are texts, but one is not.")
    return rows


def _renamed(row: Row, old: str, new: str) -> Row:
    """Rename a key where it stands; a row that has both keeps both."""
    return row if new in row else {new if key == old else key: value for key, value in row.items()}


def _published(row: Row) -> Row:
    """Return a row's own keys by their published names, without labels."""
    own = {key: value for key, value in row.items() if key not in LABEL_KEYS}
    return _renamed(own, "answer", "gold_answer")


def _labels(given: Any) -> Row:
    """Read the teacher's scores; what a score and its justification alone would not say is kept as it is."""
    if not isinstance(given, dict):
        why = f"the teacher's scores are {type(given).__name__}, not an object"
        return {"scores": dict.fromkeys(ASPECTS), "reasons": dict.fromkeys(ASPECTS, why), "raw_labels": given}
    labels: Row = {"scores": {}, "reasons": {}, "justifications": {}}
    for aspect, entry in given.items():
        fields = entry if isinstance(entry, dict) else {"score": entry}
        labels["scores"][aspect], reason = parse_label(fields.get("score"))
        if reason:
            labels["reasons"][aspect] = str(fields.get("reason") or reason)
        if isinstance(fields.get("justification"), str):
            labels["justifications"][aspect] = fields["justification"]
    rebuilt = _teacher_entries(labels)
    raw = {aspect: entry for aspect, entry in given.items() if not _same(entry, rebuilt[aspect])}
    return labels | ({"raw_labels": raw} if raw else {})


def _teacher_entries(row: Row) -> Any:
    """Write a row's labels as the teacher's scores: what the file said, where that still is the label."""
    scores, raw = row["scores"], row.get("raw_labels", {})
    if not isinstance(raw, dict):
        if all(score is None for score in scores.values()):
            return raw
        raw = {}
    entries = {}
    for aspect, score in scores.items():
        entry = {"score": score, "justification": (row.get("justifications") or {}).get(aspect)}
        if score is None and aspect in (row.get("reasons") or {}):
            entry["reason"] = row["reasons"][aspect]
        entries[aspect] = raw[aspect] if aspect in raw and score == _score_in(raw[aspect]) else entry
    return entries


def _score_in(entry: Any) -> int | None:
    return parse_label(entry.get("score") if isinstance(entry, dict) else entry)[0]


def _evaluated(row: Row) -> Row:
    scores, raw = row["scores"], row.get("raw_labels", {})
    raw = {aspect: cell for aspect, cell in raw.items() if not isinstance(cell, dict)} if isinstance(raw, dict) else {}
    written = {
        aspect: raw[aspect] if aspect in raw and score == _score_in(raw[aspect]) else score
        for aspect, score in scores.items()
    }
    total = row.get("total_score", None if None in scores.values() else sum(scores.values()))
    own = {key: value for key, value in _published(row).items() if key != "total_score"}
    return own | written | {"total_score": total}


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 4 is not 4.0, and true is not 1."""
    return json.dumps(one) == json.dumps(other)
