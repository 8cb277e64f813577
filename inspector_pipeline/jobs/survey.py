"""A first pass over a job's input: how many rows there are, and which columns of which type the output has."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ..errors import DataFileError
from ..tables import Row
from .entries import Entry, cut
from .intake import Intake
from .progress import counted

SAMPLE_ROWS = 256
_CONFLICTS = (pa.ArrowException, OverflowError, TypeError, ValueError)


@dataclass(frozen=True)
class Survey:
    """What a job's input holds.

    Attributes:
        rows: How many rows are to be scored or refused.
        columns: The columns' names, in order of appearance.
        schema: The columns' types, for output in Parquet.
        as_json: Columns of no single type; Parquet gets their values as JSON text.
    """

    rows: int
    columns: tuple[str, ...]
    schema: pa.Schema
    as_json: tuple[str, ...] = ()


def survey(intake: Intake, *, typed: bool) -> Survey:
    """Read the whole input once.

    Args:
        intake: The input.
        typed: Whether types are wanted of text files, whose columns have none of their own.

    Raises:
        DataFileError: Arrow sources differ in their columns' types, or --where names a column that is nowhere.
    """
    schemas = [source.schema for source in intake.sources if source.schema is not None]
    if schemas:
        columns = {field.name: pa.null() for schema in schemas for field in schema}
        found = Survey(sum(1 for _ in counted(intake)), tuple(columns), unified(schemas))
    else:
        found = _text_survey(intake, typed)
    if intake.where is not None and intake.where.unseen:
        raise DataFileError(f"--where expects columns of the input, but no row has {sorted(intake.where.unseen)[0]!r}.")
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


def _text_survey(intake: Intake, typed: bool) -> Survey:
    types: dict[str, pa.DataType | None] = {}  # None for a column of no single type
    n_rows = 0
    for window in cut(counted(intake), SAMPLE_ROWS):
        n_rows += len(window)
        _merge(types, _usable_rows(window), typed)
    kept = {name: kind for name, kind in types.items() if kind is not None and is_parquet(kind)}
    schema = pa.schema([(name, kept.get(name, pa.string())) for name in types]) if typed else pa.schema([])
    return Survey(n_rows, tuple(types), schema, tuple(name for name in types if name not in kept) if typed else ())


def _usable_rows(entries: Iterable[Entry]) -> list[Row]:
    return [entry.row for entry in entries if entry.row is not None and entry.fault is None]


def _merge(types: dict[str, pa.DataType | None], rows: list[Row], typed: bool) -> None:
    for name in dict.fromkeys(name for row in rows for name in row):
        known = types.setdefault(name, pa.null())
        if typed and known is not None:
            types[name] = _merged(known, [row.get(name) for row in rows])


def _merged(known: pa.DataType, values: list[Any]) -> pa.DataType | None:
    try:
        pair = [pa.schema([("x", kind)]) for kind in (known, pa.array(values).type)]
        return pa.unify_schemas(pair, promote_options="permissive").field("x").type
    except _CONFLICTS:
        return None


def is_parquet(kind: pa.DataType) -> bool:
    """Say whether Parquet can hold a type; it cannot hold objects without keys."""
    try:
        pyarrow.parquet.write_table(pa.schema([("x", kind)]).empty_table(), io.BytesIO())
    except pa.ArrowNotImplementedError:
        return False
    return True
