"""What a judge says of rows, in the field that it ranks by: by running it, or from rows that were scored before."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.api.load import judge_name
from inspector_pipeline.errors import DataFileError, PairError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.files.sources import find_sources
from inspector_pipeline.names import PAIR, QUESTION_TURNS
from inspector_pipeline.pairs import check_pair
from inspector_pipeline.results import (
    ABSTAINED,
    PUBLISHED_TOTAL,
    RANK_BY,
    SEEN,
    TOTAL,
    UNFAMILIAR,
    rank_field,
    ranked_value,
)

from .metrics import Array

logger = logging.getLogger(__name__)

JUDGE_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Scored:
    """Rows with what a judge says of them.

    Attributes:
        rows: The rows.
        field: What the judge ranks by.
        value: (rows,) that field; higher is better.
        unfamiliar: Whether each row is unlike what the judge was fitted on; None where it cannot say.
        seen: Whether the judge was fitted on each row's question; None where it cannot say.
    """

    rows: list[Row]
    field: str
    value: Array
    unfamiliar: list[bool | None]
    seen: list[bool | None]

    def n_seen(self, questions: Sequence[str]) -> int | None:
        """Count the questions, (rows,), that the judge was fitted on; None where it cannot say."""
        said = any(flag is not None for flag in self.seen)
        return len({name for name, flag in zip(questions, self.seen, strict=True) if flag}) if said else None


def judged(judge: Any, rows: Sequence[Row], rank_by: str | None = None) -> Scored:
    """Score rows.

    Args:
        judge: A loaded judge, an `InspectorPipeline`.
        rows: With question and prediction.
        rank_by: The field to rank by; the judge's own where it is None.

    Raises:
        PairError: A row cannot be scored.
        SettingsError: The judge has no such field.
    """
    field = rank_field(judge.model.config, rank_by)
    results = judge([pair_of(row) for row in rows])
    values = np.array([ranked_value(result, field) for result in results], dtype=np.float64)
    return Scored(list(rows), field, values, *([result[flag] for result in results] for flag in (UNFAMILIAR, SEEN)))


def pair_of(row: Row, keys: Sequence[str] = PAIR) -> Row:
    """Return what a judge reads of a row: the texts that it needs, and a conversation where the question is one."""
    turns = {QUESTION_TURNS: row[QUESTION_TURNS]} if row.get(QUESTION_TURNS) else {}
    return {key: row.get(key) for key in keys} | turns


def read_scored(
    paths: Sequence[Path], required: Sequence[str], rank_by: str | None = None, *, keep_abstained: bool = False
) -> Scored:
    """Read what `inspector score` wrote: files of rows, or the folders of its jobs.

    Args:
        paths: Files and folders.
        required: Keys that every row has beside its scores.
        rank_by: The column to rank by; the one that the rows name, in `rank_by`, where it is None.
        keep_abstained: Whether rows that the judge abstains from stay; else they are left out, with a line in the log.

    Raises:
        DataFileError: A file cannot be read, a row lacks a key or its score, or rows name different fields.
    """
    rows = read_entries(paths, required)
    told = ", ".join(map(str, paths))
    prefix = next((found for row in rows[:1] for found in judge_prefixes(row)), "")
    rows = rows if keep_abstained else without_abstained(rows, told, prefix)
    named = {row.get(prefix + RANK_BY) for row in rows} if rank_by is None else {rank_by}
    if len(named) != 1 or None in named:
        found = ", ".join(sorted(map(str, named))) or "no rows"
        raise DataFileError(
            f"{told} expects rows that were scored by one judge, which names the column that it ranks by as "
            f"{RANK_BY!r}, but got {found}. Score them by `inspector score`, or give --rank-by."
        )
    field = str(named.pop())
    flags = ([as_flag(row.get(prefix + name)) for row in rows] for name in (UNFAMILIAR, SEEN))
    return Scored(rows, field, numbers(rows, field, told), *flags)


def check_row(row: Row, keys: Sequence[str], source: str, number: int) -> None:
    """Refuse a row that a judge cannot read, by the name of its file.

    Raises:
        PairError: It lacks a text, or one cannot be scored.
    """
    missing = next((key for key in keys if row.get(key) is None), None)
    if missing is not None:
        shown = ", ".join(repr(name) for name, cell in row.items() if cell is not None) or "nothing"
        raise PairError(f"{source} expects {missing!r} in every row, but row {number} lacks it: it has {shown}.")
    try:
        check_pair(pair_of(row, keys), keys=tuple(keys))
    except PairError as error:
        raise PairError(f"{source}, row {number}: {error}") from error


def refuse_judges_column(rows: Sequence[Row], column: str, source: str) -> None:
    """Refuse labels from a column that a judge has written its own scores into.

    Raises:
        DataFileError: The column is a judge's.
    """
    for prefix in judge_prefixes(rows[0]) if rows else ():
        expected = [name for name in rows[0] if name.startswith(f"{prefix}expected_")]
        scores = [prefix + name.removeprefix(f"{prefix}expected_") for name in expected if name != prefix + TOTAL]
        if column in (*expected, *scores, prefix + PUBLISHED_TOTAL):
            raise DataFileError(
                f"{source} expects labels as {column!r}, but there stand the scores of the judge that scored it. Keep "
                "labels in a column of another name, such as label."
            )


def judge_prefixes(names: Iterable[str]) -> list[str]:
    """Return what judges' columns begin with, in the order of the columns; none where rows are not scored.

    A judge's columns are what rows are ranked by, or a total, and expected scores beside it; a column of the user's
    that is called so too is none.
    """
    own = dict.fromkeys(names)
    ends = (name.removesuffix(end) for name in own for end in (RANK_BY, PUBLISHED_TOTAL) if name.endswith(end))
    return [end for end in dict.fromkeys(ends) if any(name.startswith(f"{end}expected_") for name in own)]


def without_abstained(rows: list[Row], source: str, prefix: str) -> list[Row]:
    """Leave out scored rows that their judge abstains from; the log says how many of which source."""
    kept = [row for row in rows if not as_flag(row.get(prefix + ABSTAINED)) or prefix + RANK_BY not in row]
    if len(kept) < len(rows):
        told = "%s: %d of %d rows are left out, since the judge abstains from them."
        logger.warning(told, source, len(rows) - len(kept), len(rows))
    return kept


def read_entries(paths: Sequence[Path], required: Sequence[str]) -> list[Row]:
    """Read the rows of files, and of folders that `inspector score` wrote.

    Args:
        paths: Files and folders.
        required: Keys that every row has.

    Raises:
        DataFileError: A file cannot be read, or a row lacks a key.
    """
    rows: list[Row] = []
    for path in paths:
        for entry in (entry for source in find_sources(str(path)) for entry in source.entries(None)):
            if entry.row is None or entry.fault is not None:
                raise DataFileError(f"{entry.place} {entry.fault}.")
            lacking = [key for key in required if entry.row.get(key) is None]
            if lacking:
                raise DataFileError(f"{entry.place} expects {', '.join(required)}, but lacks {lacking[0]!r}.")
            rows.append(entry.row)
    return rows


def input_files(scored: Iterable[Path], judge: str | None) -> list[Path]:
    """Name the files that scored rows and a judge consist of, for a manifest; none of a judge on the Hub."""
    found = [path / source.name if path.is_dir() else path for path in scored for source in find_sources(str(path))]
    folder = Path(judge_name(judge)) if judge is not None else None
    return [*found, *([folder / name for name in JUDGE_FILES if (folder / name).is_file()] if folder else [])]


def numbers(rows: Sequence[Row], column: str, source: str) -> Array:
    """Return a column of finite numbers, (rows,).

    Raises:
        DataFileError: A row has none there.
    """
    found = np.array([_number(row.get(column)) for row in rows], dtype=np.float64)
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataFileError(
            f"{source} expects a number as {column!r}, but row {place} has {rows[place].get(column)!r:.60}."
        )
    return found


def as_flag(value: Any) -> bool | None:
    """Read a flag of a scored row; None where it says nothing."""
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())  # text in CSV


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) or value is None else float(value)  # text in CSV
    except (TypeError, ValueError):
        return math.nan
