"""Read and write the published formats; each writer undoes its reader.

- results: responses, JSON array of {"id", "question", "gold_answer", "final_answer", "prediction", ...};
- teacher: results as JSON Lines, each with "roscoe5dim_score": {aspect: {"score", "justification"}};
- probing: {aspect: [{"id", "eval_prompt", "score"}]}, each prompt a rubric around a pair (rows/probing_set.py);
- evaluated: results with a judge's score of each aspect and "total_score".

The published `gold_answer` is a row's `answer`; other keys are kept. What is no whole number is no score: it is null in
`scores`, `reasons` says why, and `raw_labels` holds what the file says, which goes back into the file when it is
written.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import write_atomically
from inspector_pipeline.files.tables import Row, read_rows, write_rows
from inspector_pipeline.template import PairTemplate

from .columns import parse_label
from .probing_set import ASPECTS, is_probing_set, make_probing_set, read_probing_set
from .records import labelled_pairs, read_records

TEACHER_KEY = "roscoe5dim_score"
LABEL_KEYS = ("scores", "reasons", "justifications", "raw_labels")
PathLike = str | os.PathLike[str]
Words = Mapping[str, int] | None


def detect(path: PathLike) -> str:
    """Recognise the format of a file by its content.

    Returns:
        probing, teacher, evaluated (filtered files too), results or records; for .csv and .parquet always records.

    Raises:
        DataFileError: It cannot be read.
    """
    if Path(path).suffix.lower() not in (".json", ".jsonl"):
        return "records"
    if is_probing_set(path):
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
    write_rows([_without_labels(row) for row in rows], str(path))


def read_teacher(path: PathLike, words: Words = None) -> list[Row]:
    """Read a teacher's file as labelled rows.

    Args:
        path: The file.
        words: Label as it is written -> score, for labels that are no whole numbers.

    Raises:
        DataFileError: It is malformed, or a row lacks id, question, prediction or the teacher's scores.
    """
    rows = []
    for row in _read(path, TEACHER_KEY):
        given = row.pop(TEACHER_KEY)
        rows.append(_renamed(row, "gold_answer", "answer") | _teacher_labels(given, words))
    return rows


def write_teacher(rows: Iterable[Row], path: PathLike) -> None:
    """Write labelled rows as a teacher's file."""
    published = [_without_labels(row) | {TEACHER_KEY: _teacher_entries(row)} for row in rows]
    write_atomically(Path(path), "".join(json.dumps(row) + "\n" for row in published))


def read_evaluated(path: PathLike, aspects: Iterable[str] = ASPECTS, words: Words = None) -> list[Row]:
    """Read an evaluated or filtered file as rows whose `scores` are the judge's; `total_score` is kept beside them.

    Args:
        path: The file.
        aspects: Names of the aspects; those that a row lacks are left out.
        words: Label as it is written -> score.

    Raises:
        DataFileError: It is malformed, or a row lacks id, question, prediction, total_score or any of the aspects.
    """
    names = tuple(aspects)
    rows = []
    for i, row in enumerate(_read(path, "total_score")):
        given = {aspect: row.pop(aspect) for aspect in list(row) if aspect in names}
        if not given:
            raise DataFileError(f"{path}: row {i} expects scores of {', '.join(names)}, but has none of them.")
        parsed = {aspect: parse_label(value, words) for aspect, value in given.items()}
        labels: Row = {
            "scores": {aspect: score for aspect, (score, _) in parsed.items()},
            "total_score": row.pop("total_score"),
            "reasons": {aspect: reason for aspect, (_, reason) in parsed.items() if reason},
        }
        rows.append(_renamed(row, "gold_answer", "answer") | labels | _raw_labels(given, labels["scores"]))
    return rows


def write_evaluated(rows: Iterable[Row], path: PathLike) -> None:
    """Write rows with a judge's scores as an evaluated file.

    A row without `total_score` gets the sum of its scores, or null where one is missing.
    """
    write_rows([evaluated_row(row) for row in rows], str(path))


def evaluated_row(row: Row) -> Row:
    """Return a row with a judge's scores as an evaluated file has it."""
    scores, raw = row["scores"], row.get("raw_labels", {})
    raw = {aspect: cell for aspect, cell in raw.items() if not isinstance(cell, dict)} if isinstance(raw, dict) else {}
    total = row.get("total_score", None if None in scores.values() else sum(scores.values()))
    own = {key: value for key, value in _without_labels(row).items() if key != "total_score"}
    return (
        own | {aspect: _as_said(raw, aspect, score, score) for aspect, score in scores.items()} | {"total_score": total}
    )


def read_probing_rows(path: PathLike, words: Words = None) -> list[Row]:
    """Read a probing set as labelled rows, one a pair.

    Args:
        path: The file.
        words: Label as it is written -> score; without any, labels are taken as they are.

    Raises:
        DataFileError: It is malformed.
    """
    pairs, _ = read_probing_set(path)
    rows: list[Row] = [
        {key: getattr(pair, key) for key in ("id", "question", "prediction", "scores")} for pair in pairs
    ]
    for row in rows if words else ():
        parsed = {aspect: parse_label(said, words) for aspect, said in row["scores"].items()}
        row["scores"] = {aspect: score for aspect, (score, _) in parsed.items()}
        row["reasons"] = {aspect: reason for aspect, (_, reason) in parsed.items() if reason}
    return rows


def write_probing_set(
    rows: Iterable[Row], rubrics: Mapping[str, PairTemplate], path: PathLike, balance_seed: int | None = None
) -> None:
    """Write labelled rows as a probing set; see `make_probing_set`. Rows without response or label are left out.

    Raises:
        DataFileError: A labelled aspect has no rubric.
    """
    made = make_probing_set(labelled_pairs(rows), rubrics, balance_seed)
    write_atomically(Path(path), json.dumps(made, indent=4))


READERS: dict[str, Callable[..., list[Row]]] = {
    "records": read_records,
    "results": read_results,
    "teacher": read_teacher,
    "probing": read_probing_rows,
    "evaluated": read_evaluated,
}
"""Format, as `detect` names it -> its reader; those of labels take `words`."""


def _read(path: PathLike, *keys: str) -> list[Row]:
    """Read published rows, and refuse those that lack a key or whose texts are none."""
    rows = read_rows(str(path))
    required = ("id", "question", "prediction", *keys)
    for i, row in enumerate(rows):
        missing = [key for key in required if key not in row]
        if missing:
            raise DataFileError(f"{path}: row {i} expects the keys {', '.join(required)}, but lacks {missing[0]!r}.")
        if not isinstance(row["question"], str) or not isinstance(row["prediction"], str | None):
            raise DataFileError(f"{path}: row {i} expects a question and a prediction that are texts, but one is not.")
    return rows


def _renamed(row: Row, old: str, new: str) -> Row:
    """Rename a key where it stands; a row that has both keeps both."""
    return row if new in row else {new if key == old else key: value for key, value in row.items()}


def _without_labels(row: Row) -> Row:
    """Return a row's own keys by their published names."""
    return _renamed({key: value for key, value in row.items() if key not in LABEL_KEYS}, "answer", "gold_answer")


def _teacher_labels(given: Any, words: Words) -> Row:
    """Read the teacher's scores; what a score and its justification alone would not say is kept as it is."""
    if not isinstance(given, dict):
        why = f"the teacher's scores are {type(given).__name__}, not an object"
        return {"scores": dict.fromkeys(ASPECTS), "reasons": dict.fromkeys(ASPECTS, why), "raw_labels": given}
    labels: Row = {"scores": {}, "reasons": {}, "justifications": {}}
    for aspect, entry in given.items():
        fields = entry if isinstance(entry, dict) else {"score": entry}
        labels["scores"][aspect], reason = parse_label(fields.get("score"), words)
        if reason:
            labels["reasons"][aspect] = str(fields.get("reason") or reason)
        if isinstance(fields.get("justification"), str):
            labels["justifications"][aspect] = fields["justification"]
    return labels | _raw_labels(given, _teacher_entries(labels))


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
        entries[aspect] = _as_said(raw, aspect, score, entry)
    return entries


def _raw_labels(given: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> Row:
    """Keep, as `raw_labels`, what a file says where writing the labels would give other JSON: 4 is not 4.0."""
    raw = {aspect: said for aspect, said in given.items() if json.dumps(said) != json.dumps(rebuilt[aspect])}
    return {"raw_labels": raw} if raw else {}


def _as_said(raw: Mapping[str, Any], aspect: str, score: int | None, otherwise: Any) -> Any:
    """Return what a file said of an aspect, where that still is its score."""
    said = raw.get(aspect)
    said_score, _ = parse_label(said.get("score") if isinstance(said, dict) else said)
    return said if aspect in raw and score == said_score else otherwise
