"""Keep the best of scored rows: read a number of every row, rank the numbers, and write the rows that are kept."""

import hashlib
import json
import math
import tempfile
from array import array
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ..errors import DataFileError, SettingsError
from ..files.entries import Entry, Row, cut, json_line, share_of
from ..files.sources import find_sources, skipped_files
from ..files.tables import Source, write_json, write_jsonl
from ..results import ABSTAINED, PUBLISHED_TOTAL, RANK_BY, REASON, UNFAMILIAR
from .input import unified
from .manifest import check_finished
from .output import whole_file
from .reorder import RowsOnDisk

ROW_GROUP = 1024


@dataclass(frozen=True)
class FilterJob:
    """What to keep of which rows.

    Attributes:
        input: A scored file, or the folder of a job.
        by: The column to rank by; of several, their mean. None takes what the rows' `rank_by` names, the field that
            their judge ranks by; rows without one, as published files are, are ranked by `total_score`.
        top: Share to keep, 0 to 1, of all rows or of each group; at 1.0 they stay in input order.
        best: How many to keep of all rows or of each group.
        per: The column whose values make groups.
        at_least: (column, number): rows with less are left out before anything is ranked.
        drop_unfamiliar: Whether rows unlike what their judge was fitted on are left out before anything is ranked.
        keep_abstained: Whether rows that their judge abstains from stay; they are left out before anything is ranked.
        output: The file to write; None is `<name>_filtered.json` beside the input.
        reasons: Whether to write beside the output why each row was kept.
    """

    input: str
    by: str | tuple[str, ...] | None = None
    top: float | None = None
    best: int | None = None
    per: str | None = None
    at_least: tuple[tuple[str, float], ...] = ()
    drop_unfamiliar: bool = False
    keep_abstained: bool = False
    output: str | None = None
    reasons: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if not self.ranked_by or len(set(self.ranked_by)) < len(self.ranked_by):
            raise SettingsError(f"--by expects one column or different ones, but got {', '.join(self.ranked_by)!r}.")
        if self.top is not None and not 0.0 <= self.top <= 1.0:
            raise SettingsError(f"--top expects a share from 0 to 1, but got {self.top}.")
        if self.top is not None and self.best is not None:
            raise SettingsError("A filter expects --top or --best, but got both.")
        leaves_out = self.at_least or self.drop_unfamiliar
        if self.top is None and self.best is None and (self.per is not None or not leaves_out):
            raise SettingsError(
                "A filter expects --top, --best, --at-least or --drop-unfamiliar, and --per only with the first two."
            )

    @property
    def ranked_by(self) -> tuple[str, ...]:
        """The columns whose mean rows are ranked by; mostly one."""
        by = PUBLISHED_TOTAL if self.by is None else self.by
        return (by,) if isinstance(by, str) else tuple(by)

    @property
    def rank_name(self) -> str:
        """What rows are ranked by, in words."""
        return self.ranked_by[0] if len(self.ranked_by) == 1 else f"the mean of {', '.join(self.ranked_by)}"

    @property
    def target(self) -> Path:
        """The file to write."""
        source = Path(self.input)
        name = source.name if source.is_dir() else source.stem
        return Path(self.output) if self.output else source.absolute().with_name(f"{name}_filtered.json")


@dataclass(frozen=True)
class Filtered:
    """What a filter did.

    Attributes:
        output: The file it wrote.
        rows: How many rows it read.
        kept: How many it kept.
        unranked: How many it left out because they have no number to rank by.
        reason: Why, of the first of them.
        unfamiliar: How many it left out because they are unfamiliar.
        skipped: Files of the input that it did not read.
        abstained: How many it left out because their judge abstains from them.
    """

    output: Path
    rows: int
    kept: int
    unranked: int
    reason: str | None
    unfamiliar: int = 0
    skipped: tuple[str, ...] = ()
    abstained: int = 0


def filter_job(job: FilterJob) -> Filtered:
    """Write the best rows, highest first and ties in input order.

    Args:
        job: What to keep.

    Raises:
        DataFileError: The input cannot be read or is not finished, or no row can be ranked; or unfamiliar rows are to
            be left out, but the rows do not say which are.
        SettingsError: The output's kind does not fit the input's.
    """
    check_finished(Path(job.input))
    sources = find_sources(job.input)
    schema = unified([source.schema for source in sources]) if sources[0].schema is not None else None
    _check_target(job, schema)
    names = _first_columns(sources, schema)
    ranks = _rank_column(sources, names) if job.by is None else None
    job = job if ranks is None else replace(job, by=ranks[1])
    flags = [n for n in names if n.endswith(UNFAMILIAR) and n.removesuffix(UNFAMILIAR) + REASON in names]
    read = [*job.ranked_by, *(name for name, _ in job.at_least), *([job.per] if job.per else [])]
    marks = [] if job.keep_abstained else _marks_among(names, names)
    read += [*([ranks[0]] if ranks else []), *(flags if job.drop_unfamiliar else []), *marks]
    numbers = _Numbers(job, ranks and ranks[0], flags, names, marks)
    for entry in chain.from_iterable(source.entries(read) for source in sources):
        numbers.add(entry)
    if job.per and numbers.rows and not numbers.has_groups:
        raise DataFileError(f"--per expects a column of {job.input}, but no row has {job.per!r}.")
    if job.drop_unfamiliar and numbers.rows and not numbers.knows_unfamiliar:
        raise DataFileError(
            f"--drop-unfamiliar expects rows that say whether they are unfamiliar, but none of {job.input} does: their "
            "judge has no statistics of what it was fitted on. Score them with one that has, or leave the option out."
        )
    if numbers.unranked and numbers.unranked == numbers.rows:
        raise DataFileError(f"No row can be ranked: {numbers.reason}. Check --by and --at-least.")
    chooses = job.best is not None or job.top not in (None, 0.0, 1.0)
    if chooses and len(numbers.scores) > 1 and job.rank_name.endswith("total_score") and not any(numbers.scores):
        raise DataFileError(
            f"--by expects a column that ranks rows, but {job.rank_name} is 0 in all of them, as that of a judge none "
            "of whose aspects counts. Name an aspect."
        )
    ranking = rank(np.asarray(numbers.scores), np.asarray(numbers.groups) if job.per else None, job.top, job.best)
    kept = np.asarray(numbers.positions)[ranking.kept]  # positions in the input, in the order of the output
    is_kept = np.zeros(numbers.rows, np.bool_)
    is_kept[kept] = True
    with tempfile.NamedTemporaryFile(prefix="inspector-") as file:
        rows = RowsOnDisk(file, schema)
        for entry in compress(chain.from_iterable(source.entries([]) for source in sources), is_kept):
            rows.add(entry)
        for source in sources:
            source.check_unchanged()
        _write(job, rows.in_order(np.searchsorted(np.sort(kept), kept)), schema, _reasons(job, numbers, ranking))
    skipped = tuple(skipped_files(job.input))
    found = (job.target, numbers.rows, len(kept), numbers.unranked, numbers.reason)
    return Filtered(*found, numbers.unfamiliar, skipped, numbers.abstained)


def _marks_among(names: Sequence[str], present: Container[str]) -> list[str]:
    """Return the columns that say of which rows a judge abstains: those beside what says what it ranks by."""
    found = [name for name in names if name.endswith(ABSTAINED)]
    return [name for name in found if name.removesuffix(ABSTAINED) + RANK_BY in present]


def _first_columns(sources: Sequence[Source], schema: pa.Schema | None) -> list[str]:
    """Name the input's columns: those of the schema, or of the first row that could be read."""
    if schema is not None:
        return list(schema.names)
    entries = chain.from_iterable(source.entries([]) for source in sources)
    return next((list(entry.row) for entry in entries if entry.row), [])


def _rank_column(sources: Sequence[Source], names: Sequence[str]) -> tuple[str, str] | None:
    """Find the column that says what a judge ranks by, and the one that it names; None where no row says it.

    Raises:
        DataFileError: Several judges scored the rows, and each says it.
    """
    told = [name for name in names if name.endswith(RANK_BY)]
    found: dict[str, str] = {}
    for entry in chain.from_iterable(source.entries(told) for source in sources) if told else ():
        row = entry.row or {}
        for name in told:
            named, prefix = row.get(name), name.removesuffix(RANK_BY)
            if isinstance(named, str) and named in names and named.startswith(prefix):
                found.setdefault(name, named)
        if found:  # a row that has no scores says nothing
            break
    if len(found) > 1:
        raise DataFileError(
            f"A filter expects rows of one judge, but got those of several, which rank by {', '.join(found.values())}. "
            "Name one by --by."
        )
    return next(iter(found.items()), None)


def _check_target(job: FilterJob, schema: pa.Schema | None) -> None:
    suffixes = (".json", ".jsonl") if schema is None else (".json", ".jsonl", ".parquet")
    target = job.target
    if target.suffix.lower() not in suffixes or not target.parent.is_dir() or target.is_dir():
        raise SettingsError(
            f"--output expects a file of {', '.join(suffixes)} in an existing folder, as SCORED is "
            f"{'text' if schema is None else 'Arrow or Parquet'}, but got {target}."
        )
    if target.resolve().is_relative_to(Path(job.input).resolve()):
        raise SettingsError(f"--output expects another file than the input, and none within it, but got {target}.")


class _Numbers:
    """All that is remembered of a row for its rank: its score, its position and its group."""

    def __init__(
        self, job: FilterJob, rank_column: str | None, flags: Sequence[str], names: Sequence[str], marks: Sequence[str]
    ) -> None:
        self.job = job
        self._marks = [*marks]
        self._rank_column = rank_column
        self._flags = [*flags]
        self._names = {*names}
        self.scores, self.positions, self.groups = array("d"), array("q"), array("q")
        self.rows = self.unranked = self.unfamiliar = self.abstained = 0
        self.has_groups = self.knows_unfamiliar = False
        self.reason: str | None = None
        self._known_groups: dict[bytes, int] = {}

    def add(self, entry: Entry) -> None:
        position, self.rows = self.rows, self.rows + 1
        if entry.row is not None and entry.cells is None and not entry.row.keys() <= self._names:
            self._see_more(entry, entry.row)
        if any(str((entry.row or {}).get(name)).lower() == "true" for name in self._marks):  # text in CSV
            self.abstained += 1
            return
        if self.job.drop_unfamiliar and self._is_unfamiliar(entry.row or {}):
            self.unfamiliar += 1
            return
        try:
            score, passes = self._score(entry)
        except DataFileError as error:
            self.unranked += 1
            self.reason = self.reason or str(error)
            return
        if passes:
            self.scores.append(score)
            self.positions.append(position)
            self.groups.append(self._group((entry.row or {}).get(self.job.per)) if self.job.per else 0)

    def _see_more(self, entry: Entry, row: Row) -> None:
        """Take note of columns that earlier rows of a text file did not have, as where jobs of two judges were joined.

        Raises:
            SettingsError: One of them says what a judge ranks by, and rows before it were ranked by something else.
        """
        new = row.keys() - self._names
        self._names |= new
        self._flags += sorted(n for n in new if n.endswith(UNFAMILIAR) and n.removesuffix(UNFAMILIAR) + REASON in row)
        self._marks += [] if self.job.keep_abstained else _marks_among(sorted(new), row)
        told = sorted(name for name in new if name.endswith(RANK_BY) and isinstance(row[name], str))
        if told and self.job.by is None and row[told[0]] in row and row[told[0]] != self.job.rank_name:
            raise SettingsError(
                f"A filter expects rows whose judges rank by one column, but {entry.place} names {row[told[0]]!r} and "
                f"rows before it are ranked by {self.job.rank_name!r}. Name one by --by."
            )

    def _is_unfamiliar(self, row: Row) -> bool:
        values = {str(row.get(name)).lower() for name in self._flags}  # text in CSV
        self.knows_unfamiliar = self.knows_unfamiliar or bool(values & {"true", "false"})
        return "true" in values

    def _score(self, entry: Entry) -> tuple[float, bool]:
        """Return what the row is ranked by, and whether it has at least what it should."""
        if entry.row is None or entry.fault is not None:
            raise DataFileError(f"{entry.place} {entry.fault}")
        self.has_groups = self.has_groups or self.job.per in entry.row
        named = entry.row.get(self._rank_column) if self._rank_column else None
        if named is not None and named not in ("", self.job.by):  # empty in CSV where a row has no scores
            raise SettingsError(
                f"A filter expects rows whose judges rank by one column, but {entry.place} names {named!r} and others "
                f"{self.job.by!r}. Name one by --by."
            )
        values = [_number(entry, name) for name in self.job.ranked_by]
        score = values[0] if len(values) == 1 else math.fsum(values) / len(values)  # the same in any order
        return score, all([_number(entry, name) >= least for name, least in self.job.at_least])

    def _group(self, value: Any) -> int:
        digest = hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).digest()
        return self._known_groups.setdefault(digest, len(self._known_groups))


def _number(entry: Entry, column: str) -> float:
    value = (entry.row or {}).get(column)
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)  # text in CSV
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise DataFileError(f"{entry.place} expects a number as {column!r}, but got {value!r:.60}")
    return number


@dataclass(frozen=True)
class Ranking:
    """Which rows are kept, in which order, and where each stood.

    Attributes:
        kept: int64 (kept,), indices into the ranked rows, in the order of the output.
        ranks: int64 (rows,), each row's rank among all, or in its group, from 1.
        sizes: int64 (rows,), how many rows it was ranked among.
    """

    kept: NDArray[np.int64]
    ranks: NDArray[np.int64]
    sizes: NDArray[np.int64]


def rank(scores: NDArray[np.float64], groups: NDArray[np.int64] | None, top: float | None, best: int | None) -> Ranking:
    """Rank rows, highest first and ties in input order, and keep the best.

    Args:
        scores: float64 (rows,), in input order.
        groups: int64 (rows,), each row's group; None where all are one.
        top: Share to keep, of all or of each group: floor(n * top). At 1.0 all are kept, in input order.
        best: How many to keep, of all or of each group. Where neither is given, all are kept.
    """
    order = np.argsort(-scores, kind="stable")
    keys = np.zeros(len(scores), np.int64) if groups is None else groups
    by_group = order[np.argsort(keys[order], kind="stable")]
    unique, firsts, counts = np.unique(keys[by_group], return_index=True, return_counts=True)
    ranks, sizes = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    ranks[by_group] = np.arange(len(scores)) - np.repeat(firsts, counts) + 1
    sizes[by_group] = np.repeat(counts, counts)
    limits = np.full(len(scores), best) if best is not None else sizes
    if top is not None:
        limits = np.array([share_of(size, top) for size in counts.tolist()], np.int64)
        limits = limits[np.searchsorted(unique, keys)]
    order = np.arange(len(scores)) if top == 1.0 else order
    return Ranking(order[ranks[order] <= limits[order]], ranks, sizes)


def _reasons(job: FilterJob, numbers: _Numbers, ranking: Ranking) -> Iterator[Row]:
    """Say of each kept row, in the output's order, why it was kept."""
    limits = [f"{name} is at least {least:g}" for name, least in job.at_least]
    if job.top is not None or job.best is not None:
        limits.append(f"the best {job.best if job.top is None else format(job.top, 'g')} of them are kept")
    of = f"rows with this {job.per}" if job.per else "rows"
    for place, at in enumerate(ranking.kept.tolist()):
        stood = f"rank {ranking.ranks[at]} of {ranking.sizes[at]} {of} by {job.rank_name}"
        yield {
            "place": place,
            "position": numbers.positions[at],
            job.rank_name: numbers.scores[at],
            "reason": "; ".join([stood, *limits]),
        }


def _write(job: FilterJob, rows: Iterator[tuple[Row, Any]], schema: pa.Schema | None, reasons: Iterator[Row]) -> None:
    target = job.target
    with ExitStack() as files:
        if job.reasons:
            beside = target.with_name(f"{target.stem}_reasons.jsonl")
            rows = _with_reasons(rows, reasons, files.enter_context(whole_file(beside)))
        file = files.enter_context(whole_file(target))
        if target.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetWriter(file, schema) as writer:
                for some in cut((table for _, table in rows), ROW_GROUP):
                    writer.write_table(pa.concat_tables(some).combine_chunks(), row_group_size=ROW_GROUP)
        else:
            write = write_jsonl if target.suffix.lower() == ".jsonl" else write_json
            write((row for row, _ in rows), file)


def _with_reasons(rows: Iterator[tuple[Row, Any]], reasons: Iterator[Row], file: BinaryIO) -> Iterator[tuple[Row, Any]]:
    for found, reason in zip(rows, reasons, strict=True):
        file.write(json_line(reason))
        yield found
