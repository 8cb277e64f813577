"""What a job is to score: its input's rows, chosen, numbered and checked, always in the same order."""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ..batches import WINDOW_ROWS
from ..columns import Late
from ..errors import DataFileError, PairError
from ..files.arrow import kept_types
from ..files.entries import Entry, Row, cut
from ..files.tables import Source
from ..names import QUESTION, QUESTION_TURNS, normal
from ..pairs import PAIR_KEYS, check_pair
from ..progress import Sizes, counted
from ..rows import SAMPLE_ROWS, SOURCE_PART, RowReader, missing_column
from .where import Where

SURROGATE = re.compile("[\ud800-\udfff]")  # which UTF-8 cannot hold


def settled(sources: Sequence[Source], reader: RowReader) -> tuple[list[Source], dict[str, str], bool]:
    """Find out by the first rows how an input's rows are read.

    Args:
        sources: Where the rows are.
        reader: What reads them.

    Returns:
        The sources; text -> column; and whether the rows are put together from others, each with its pair.

    Raises:
        DataFileError: They may be meant in several ways, or hold no pairs.
    """
    entries = chain.from_iterable(source.entries(None) for source in sources)
    sample = [entry.row for entry in islice(entries, SAMPLE_ROWS) if entry.row and entry.fault is None]
    named = (source.header() if source.schema is None else source.schema.names for source in sources)
    names = list(dict.fromkeys(chain.from_iterable(named)))
    layout = reader.settle(sample, names)
    if layout.read is None:
        late = layout.late
        beside = [name for name in names if normal(name) in late.watched]
        checked = [replace(one, entries=partial(_checked_entries, one.entries, late, beside)) for one in sources]
        return checked if late.watched else list(sources), dict(layout.plain or {}), False
    read = [
        replace(
            one,
            schema=None,
            types=kept_types(one.schema, layout.used),
            entries=partial(_read_entries, one.entries, reader),
        )
        for one in sources
    ]
    return read, {}, True


def _checked_entries(
    entries: Callable[[Iterable[str] | None], Iterator[Entry]],
    late: Late,
    beside: Iterable[str],
    columns: Iterable[str] | None,
) -> Iterator[Entry]:
    """Read rows that stay as they are, with the fault of those that hold more than was known when this was settled."""
    for entry in entries(None if columns is None else [*columns, *beside]):
        if entry.row is not None and entry.fault is None:
            try:
                late.check(entry.row)
            except PairError as error:
                entry.fault = str(error)
        yield entry


def _read_entries(
    entries: Callable[[Iterable[str] | None], Iterator[Entry]], reader: RowReader, _: Iterable[str] | None
) -> Iterator[Entry]:
    """Read rows of any layout: an entry a pair, or one with the reason why there is none."""
    for number, entry in enumerate(entries(None)):
        if entry.row is None or entry.fault is not None:
            yield entry
            continue
        try:
            found = reader.reads(entry.row, number)
        except PairError as error:
            yield Entry(entry.place, entry.row, str(error))
            continue
        for one in found:
            part = f" ({one.row[SOURCE_PART]})" if len(found) > 1 else ""
            yield Entry(f"{entry.place}{part}", one.row, pair=one.pair)


@dataclass(frozen=True)
class JobInput:
    """Reads the rows of all sources as often as it is iterated.

    A row that cannot be scored comes with its fault, and takes its place in a window as every other.

    Attributes:
        sources: Where the rows are.
        columns: `question` and `prediction` -> the input's column.
        where: Chooses rows; one that it cannot decide on comes with a fault.
        limit: How many rows are taken, after the choice.
        whole_rows: Whether all columns are wanted as Python values.
        unicode_only: Whether rows with any text that UTF-8 cannot hold are refused.
        keys: The texts of a pair that are needed.
        is_read: Whether the rows come with their pairs, put together from other columns.
        begun: The sources of which rows were read since this list was emptied.
    """

    sources: Sequence[Source]
    columns: dict[str, str] = field(default_factory=dict)
    where: Where | None = None
    limit: int | None = None
    whole_rows: bool = True
    unicode_only: bool = False
    keys: tuple[str, ...] = PAIR_KEYS
    is_read: bool = False
    begun: list[Source] = field(default_factory=list, compare=False)

    def __iter__(self) -> Iterator[Entry]:
        """Read the rows."""
        entries = chain.from_iterable(map(self._entries, self.sources))
        return islice((entry for number, entry in enumerate(entries) if self._takes(entry, number)), self.limit)

    def _entries(self, source: Source) -> Iterator[Entry]:
        self.begun.append(source)
        return source.entries(self._wanted())

    def check_headers(self) -> None:
        """Refuse CSV of something else, before its rows are read.

        Raises:
            DataFileError: The header of a file lacks a column that is needed.
        """
        for source in () if self.is_read else self.sources:
            source.check_header(self.key_columns.values())

    def pair(self, entry: Entry) -> Row:
        """Return what a judge reads of a row."""
        if entry.pair is not None:
            return entry.pair
        row, columns = entry.row or {}, self.key_columns
        if columns[QUESTION] == QUESTION:
            columns = {**columns, QUESTION_TURNS: QUESTION_TURNS}
        return {key: row[column] for key, column in columns.items() if column in row}

    @property
    def key_columns(self) -> dict[str, str]:
        """The column of each text that is needed."""
        return {key: self.columns.get(key, key) for key in self.keys}

    def _wanted(self) -> list[str] | None:
        """Name the columns that are read as Python values; None is all."""
        if self.whole_rows or (self.where is not None and self.where.takes_all):
            return None
        return sorted(
            {*self.key_columns.values(), QUESTION_TURNS, *(self.where.columns if self.where is not None else ())}
        )

    def _takes(self, entry: Entry, number: int) -> bool:
        """Number a row, and say whether it is taken; one that cannot be scored is, with its fault."""
        entry.number = number
        if entry.row is None or entry.fault is not None:
            return True
        try:
            if self.where is not None and not self.where(entry.row):
                return False
            entry.fault = self._fault(entry, entry.row)
        except (DataFileError, PairError) as error:
            entry.fault = str(error)
        return True

    def _fault(self, entry: Entry, row: Row) -> str | None:
        missing = None if entry.pair is not None else missing_column(row, self.key_columns)
        if missing:
            return missing
        check_pair(self.pair(entry), keys=self.keys)
        if self.unicode_only and SURROGATE.search(json.dumps(row, ensure_ascii=False, default=str)):
            return "expects text that UTF-8 can hold in every column, as Parquet does, but got a lone surrogate"
        return None


CONFLICTS = (pa.ArrowException, OverflowError, TypeError, ValueError)  # of values that have no type in common


@dataclass(frozen=True)
class Survey:
    """What a job's input holds.

    Attributes:
        rows: How many rows are to be scored or refused.
        columns: The columns' names, in order of appearance.
        schema: The columns' types, for output in Parquet.
        as_json: Columns of no single type; Parquet gets their values as JSON text.
        sizes: Of each window of rows, how long they are (`progress.Sizes`).
    """

    rows: int
    columns: tuple[str, ...]
    schema: pa.Schema
    as_json: tuple[str, ...] = ()
    sizes: Sequence[int] = ()


def survey_input(job_input: JobInput, *, typed: bool, size_of: Sizes) -> Survey:
    """Read the whole input once.

    Args:
        job_input: The input.
        typed: Whether types are wanted of text files, whose columns have none of their own.
        size_of: How long a pair is.

    Raises:
        DataFileError: A CSV file's header lacks a column, Arrow sources differ in their columns' types, or --where
            names a column that is nowhere.
    """
    job_input.check_headers()
    schemas = [source.schema for source in job_input.sources if source.schema is not None]
    if schemas:
        columns = dict.fromkeys(name for schema in schemas for name in schema.names)
        windows = [(len(rows), sum(map(size_of, map(job_input.pair, rows)))) for rows in cut_counted(job_input)]
        sizes = [size for _, size in windows]
        found = Survey(sum(rows for rows, _ in windows), tuple(columns), unified(schemas), sizes=sizes)
    else:
        found = _survey_text(job_input, typed, size_of)
    where = job_input.where
    if where is not None and where.unseen:
        raise DataFileError(f"--where expects columns of the input, but no row has {sorted(where.unseen)[0]!r}.")
    return found


def unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Join the columns of several files.

    Raises:
        DataFileError: Two of them differ in a column's type.
    """
    try:
        # What is said of the whole schema, as pandas and datasets do, is no longer true once columns were added.
        return pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()
    except pa.ArrowException as error:
        raise DataFileError(
            f"The input expects the same columns in every file, but: {error}. Cast that "
            "column to one type, or score the files in jobs of their own."
        ) from error


def cut_counted(job_input: JobInput) -> Iterator[list[Entry]]:
    """Read an input in windows, and say how many rows there are."""
    return cut(counted(job_input), WINDOW_ROWS)


def _survey_text(job_input: JobInput, typed: bool, size_of: Sizes) -> Survey:
    types: dict[str, pa.DataType | None] = {}  # None for a column of no single type
    own = unified([source.types for source in job_input.sources if source.types is not None] or [pa.schema([])])
    known_types = dict(zip(own.names, own.types, strict=True))
    n_rows, sizes = 0, []
    for sample in cut_counted(job_input):
        n_rows += len(sample)
        sizes.append(sum(map(size_of, map(job_input.pair, sample))))
        rows = [entry.row for entry in sample if entry.row is not None and entry.fault is None]
        for name in dict.fromkeys(name for row in rows for name in row):
            known = types.setdefault(name, known_types.get(name, pa.null()))
            if typed and known is not None and name not in known_types:
                types[name] = _merged_type(known, [row.get(name) for row in rows])
    if not typed:
        return Survey(n_rows, tuple(types), pa.schema([]), sizes=sizes)
    kept = {name: kind for name, kind in types.items() if kind is not None and is_parquet(kind)}
    schema = pa.schema([(name, kept.get(name, pa.string())) for name in types])
    return Survey(n_rows, tuple(types), schema, tuple(name for name in types if name not in kept), sizes)


def _merged_type(known: pa.DataType, values: list[Any]) -> pa.DataType | None:
    try:
        pair = [pa.schema([("x", kind)]) for kind in (known, pa.array(values).type)]
        return pa.unify_schemas(pair, promote_options="permissive").field("x").type
    except CONFLICTS:
        return None


def is_parquet(kind: pa.DataType) -> bool:
    """Say whether Parquet can hold a type; it cannot hold objects without keys."""
    try:
        pyarrow.parquet.write_table(pa.schema([("x", kind)]).empty_table(), io.BytesIO())
    except pa.ArrowNotImplementedError:
        return False
    return True
