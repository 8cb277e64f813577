"""Choose the best of scored rows from their numbers alone: a score, a position and a group a row."""

import hashlib
import json
import math
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ..errors import DataFileError, SettingsError
from ..files.arrow import rows_of
from ..files.entries import Entry, cut, json_line
from ..files.sources import Source, find_sources
from ..files.tables import Row
from .input import unified
from .output import check_finished, whole_file


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
    _, firsts, counts = np.unique(keys[by_group], return_index=True, return_counts=True)
    ranks, sizes = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    ranks[by_group] = np.arange(len(scores)) - np.repeat(firsts, counts) + 1
    sizes[by_group] = np.repeat(counts, counts)
    limits = np.full(len(scores), best) if best is not None else sizes
    if top is not None:
        limits = np.floor(sizes * top).astype(np.int64)
    order = np.arange(len(scores)) if top == 1.0 else order
    return Ranking(order[ranks[order] <= limits[order]], ranks, sizes)


BLOCK_ROWS = 20_000
MOST_BLOCKS = 200  # each holds a file open
BUFFER_ROWS = 256


class Block(Protocol):
    """Rows whose places in the output follow each other."""

    def add(self, entry: Entry) -> None:
        """Take a row, in input order."""

    def rows(self, order: Sequence[int]) -> Iterator[tuple[Row, Any]]:
        """Give the rows in an order, as Python values and, where they came from Arrow, as a table of one row."""


class JsonBlock:
    """A block of rows of text files."""

    def __init__(self, path: Path) -> None:
        """Spill to a file."""
        self._path = path
        self._file = path.open("wb")

    def add(self, entry: Entry) -> None:
        """Take a row."""
        self._file.write(json_line(entry.row))

    def rows(self, order: Sequence[int]) -> Iterator[tuple[Row, Any]]:
        """Give the rows in an order."""
        self._file.close()
        lines = self._path.read_bytes().splitlines()
        for at in order:
            yield json.loads(lines[at]), None


class ArrowBlock:
    """A block of rows of Parquet or Arrow files."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Spill to a file, in the schema of all sources."""
        self._path = path
        self._schema = schema
        self._writer = pa.ipc.new_stream(str(path), schema)
        self._buffer: list[pa.Table] = []

    def add(self, entry: Entry) -> None:
        """Take a row."""
        if entry.cells is not None:
            table, at = entry.cells
            self._buffer.append(table.slice(at, 1))
        if len(self._buffer) >= BUFFER_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            table = pa.concat_tables([self._schema.empty_table(), *self._buffer], promote_options="permissive")
            self._writer.write_table(table.select(self._schema.names).cast(self._schema).combine_chunks())
            self._buffer = []

    def rows(self, order: Sequence[int]) -> Iterator[tuple[Row, Any]]:
        """Give the rows in an order."""
        self._flush()
        self._writer.close()
        with pa.memory_map(str(self._path)) as data:
            table = pa.ipc.open_stream(data).read_all()
            for start in range(0, len(order), BUFFER_ROWS):
                piece = table.take(pa.array(order[start : start + BUFFER_ROWS]))
                for at, row in enumerate(rows_of(piece)):
                    yield row, piece.slice(at, 1)


class Spill:
    """Takes rows in input order, each with its place in the output, and gives them by that place."""

    def __init__(self, rows: int, schema: pa.Schema | None) -> None:
        """Prepare for so many rows.

        Args:
            rows: How many will be added.
            schema: Of Arrow rows; None for rows of text files.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="inspector-")
        self._size = max(BLOCK_ROWS, rows // MOST_BLOCKS + 1)
        paths = [Path(self._folder.name) / str(number) for number in range(-(-rows // self._size))]
        self._blocks: list[Block] = [JsonBlock(path) if schema is None else ArrowBlock(path, schema) for path in paths]
        self._places = [array("q") for _ in paths]

    def add(self, place: int, entry: Entry) -> None:
        """Take a row that will be at this place, from 0."""
        self._blocks[place // self._size].add(entry)
        self._places[place // self._size].append(place)

    def __iter__(self) -> Iterator[tuple[Row, Any]]:
        """Give all rows by their places."""
        with self._folder:
            for block, places in zip(self._blocks, self._places, strict=True):
                yield from block.rows(np.argsort(np.asarray(places)).tolist())


ROW_GROUP = 1024


@dataclass(frozen=True)
class FilterJob:
    """What to keep of which rows.

    Attributes:
        input: A scored file, or the folder of a job.
        by: The column to rank by; of several, their mean.
        top: Share to keep, 0 to 1, of all rows or of each group; at 1.0 they stay in input order.
        best: How many to keep of all rows or of each group.
        per: The column whose values make groups.
        at_least: (column, number): rows with less are left out before anything is ranked.
        output: The file to write; None is `<name>_filtered.json` beside the input.
        explain: Whether to write beside the output why each row was kept.
    """

    input: str
    by: str | tuple[str, ...] = "total_score"
    top: float | None = None
    best: int | None = None
    per: str | None = None
    at_least: tuple[tuple[str, float], ...] = ()
    output: str | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if not self.ranked_by or len(set(self.ranked_by)) < len(self.ranked_by):
            raise SettingsError(f"--by expects one column or different ones, but got {', '.join(self.ranked_by)!r}.")
        if self.top is not None and not 0.0 <= self.top <= 1.0:
            raise SettingsError(f"--top expects a share from 0 to 1, but got {self.top}.")
        if self.top is not None and self.best is not None:
            raise SettingsError("A filter expects --top or --best, but got both.")
        if self.top is None and self.best is None and (self.per is not None or not self.at_least):
            raise SettingsError("A filter expects --top, --best or --at-least, and --per only with the first two.")

    @property
    def ranked_by(self) -> tuple[str, ...]:
        """The columns whose mean rows are ranked by; mostly one."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

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
    """

    output: Path
    rows: int
    kept: int
    unranked: int
    reason: str | None


def filter_job(job: FilterJob) -> Filtered:
    """Write the best rows, highest first and ties in input order.

    Args:
        job: What to keep.

    Raises:
        DataFileError: The input cannot be read or is not finished, or no row can be ranked.
        SettingsError: The output's kind does not fit the input's.
    """
    check_finished(Path(job.input))
    sources = find_sources(job.input)
    schema = unified([source.schema for source in sources]) if sources[0].schema is not None else None
    _check_target(job, schema)
    numbers = _Numbers(job)
    for entry in _entries(
        sources, [*job.ranked_by, *(name for name, _ in job.at_least), *([job.per] if job.per else [])]
    ):
        numbers.add(entry)
    if job.per and numbers.rows and not numbers.has_groups:
        raise DataFileError(f"--per expects a column of {job.input}, but no row has {job.per!r}.")
    if numbers.unranked and numbers.unranked == numbers.rows:
        raise DataFileError(f"No row can be ranked: {numbers.reason}. Check --by and --at-least.")
    ranking = rank(np.asarray(numbers.scores), np.asarray(numbers.groups) if job.per else None, job.top, job.best)
    places = dict(zip(np.asarray(numbers.positions)[ranking.kept].tolist(), range(len(ranking.kept)), strict=True))
    spill = Spill(len(places), schema)
    for position, entry in enumerate(_entries(sources, [])):
        if position in places:
            spill.add(places[position], entry)
    _write(job, spill, schema, _reasons(job, numbers, ranking))
    return Filtered(job.target, numbers.rows, len(places), numbers.unranked, numbers.reason)


class _Numbers:
    """All that is remembered of a row for its rank: its score, its position and its group."""

    def __init__(self, job: FilterJob) -> None:
        self.job = job
        self.scores, self.positions, self.groups = array("d"), array("q"), array("q")
        self.rows = self.unranked = 0
        self.has_groups = False
        self.reason: str | None = None
        self._known: dict[bytes, int] = {}

    def add(self, entry: Entry) -> None:
        position, self.rows = self.rows, self.rows + 1
        try:
            score, passes, group = self._read(entry)
        except DataFileError as error:
            self.unranked += 1
            self.reason = self.reason or str(error)
            return
        if passes:
            self.scores.append(score)
            self.positions.append(position)
            self.groups.append(group)

    def _read(self, entry: Entry) -> tuple[float, bool, int]:
        if entry.row is None:
            raise DataFileError(f"{entry.place} {entry.fault}")
        self.has_groups = self.has_groups or self.job.per in entry.row
        values = [_number(entry, name) for name in self.job.ranked_by]
        score = values[0] if len(values) == 1 else math.fsum(values) / len(values)  # the same in any order
        passes = all([_number(entry, name) >= least for name, least in self.job.at_least])
        return score, passes, self._group(entry.row.get(self.job.per)) if self.job.per else 0

    def _group(self, value: Any) -> int:
        digest = hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).digest()
        return self._known.setdefault(digest, len(self._known))


def _number(entry: Entry, column: str) -> float:
    value = (entry.row or {}).get(column)
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)  # text in CSV
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise DataFileError(f"{entry.place} expects a number as {column!r}, but got {value!r:.60}")
    return number


def _entries(sources: list[Source], columns: Iterable[str]) -> Iterator[Entry]:
    for source in sources:
        yield from source.entries(columns)


def _reasons(job: FilterJob, numbers: _Numbers, ranking: Ranking) -> Iterator[Row]:
    """Say of each kept row, in the output's order, why it was kept."""
    limits = [f"{name} is at least {least:g}" for name, least in job.at_least]
    if job.top is not None:
        limits.append(f"the best {job.top:g} of them are kept")
    if job.best is not None:
        limits.append(f"the best {job.best} of them are kept")
    of = f"rows with this {job.per}" if job.per else "rows"
    for place, at in enumerate(ranking.kept.tolist()):
        stood = f"rank {ranking.ranks[at]} of {ranking.sizes[at]} {of} by {job.rank_name}"
        yield {
            "place": place,
            "position": numbers.positions[at],
            job.rank_name: numbers.scores[at],
            "reason": "; ".join([stood, *limits]),
        }


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


def _write(job: FilterJob, spill: Spill, schema: pa.Schema | None, reasons: Iterator[Row]) -> None:
    target = job.target
    with ExitStack() as files:
        rows: Iterator[tuple[Row, Any]] = iter(spill)
        if job.explain:
            beside = target.with_name(f"{target.stem}_explained.jsonl")
            rows = _explained(rows, reasons, files.enter_context(whole_file(beside)))
        file = files.enter_context(whole_file(target))
        if target.suffix.lower() == ".parquet":
            _write_parquet(rows, file, schema)
        elif target.suffix.lower() == ".jsonl":
            file.writelines(json_line(row) for row, _ in rows)
        else:
            _write_json(rows, file)


def _explained(rows: Iterator[tuple[Row, Any]], reasons: Iterator[Row], file: BinaryIO) -> Iterator[tuple[Row, Any]]:
    for found, reason in zip(rows, reasons, strict=True):
        file.write(json_line(reason))
        yield found


def _write_json(rows: Iterator[tuple[Row, Any]], file: BinaryIO) -> None:
    """Write what `json.dumps(rows, indent=4)` gives, as the published tools do, row by row."""
    mark = b"[\n    "
    for row, _ in rows:
        file.write(mark + json.dumps(row, indent=4, default=str).replace("\n", "\n    ").encode())
        mark = b",\n    "
    file.write(b"[]" if mark.startswith(b"[") else b"\n]")


def _write_parquet(rows: Iterator[tuple[Row, Any]], file: BinaryIO, schema: pa.Schema | None) -> None:
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for some in cut((table for _, table in rows), ROW_GROUP):
            writer.write_table(pa.concat_tables(some).combine_chunks(), row_group_size=ROW_GROUP)
