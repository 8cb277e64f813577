"""Read Parquet and Arrow files batch by batch, in constant memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ..errors import DataFileError
from .entries import Entry, Row

BATCH_ROWS = 256
UNHELD = (ValueError, OverflowError)  # of values that Python cannot hold


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    """Open a file of Parquet, or of Arrow's file or stream format; gives its columns and its rows."""
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        if is_parquet:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield plain(file.schema.to_arrow_schema()), map(_plain_batch, file.iter_batches(batch_size=BATCH_ROWS))
        else:
            with pa.memory_map(str(path)) as data:
                reader = _arrow_reader(data)
                yield plain(reader.schema), map(_plain_batch, _arrow_batches(reader))
    except (pa.ArrowException, OSError) as error:
        kind = "Parquet" if is_parquet else "Arrow"
        raise DataFileError(f"{path} expects {kind}, but: {str(error).rstrip('.')}.") from error


def _arrow_reader(data: Any) -> Any:
    try:
        return pa.ipc.open_file(data)
    except pa.ArrowInvalid:
        data.seek(0)
        return pa.ipc.open_stream(data)


def _arrow_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    is_stream = isinstance(reader, pa.ipc.RecordBatchStreamReader)
    for batch in reader if is_stream else map(reader.get_batch, range(reader.num_record_batches)):
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def plain(schema: pa.Schema) -> pa.Schema:
    """Return columns in types that all of Arrow's functions know, without its views (string_view and their like)."""
    return pa.schema([field.with_type(_plain_type(field.type)) for field in schema], schema.metadata)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    known = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    if kind in known or not pa.types.is_nested(kind):
        return known.get(kind, kind)
    inner = [kind.field(at).with_type(_plain_type(kind.field(at).type)) for at in range(kind.num_fields)]
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    lists = {pa.types.is_list: pa.list_, pa.types.is_large_list: pa.large_list}
    return next((make(inner[0]) for is_kind, make in lists.items() if is_kind(kind)), kind)


def _plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = plain(batch.schema)
    return batch if schema == batch.schema else batch.cast(schema)


def read_schema(path: Path) -> pa.Schema:
    """Read a file's columns.

    Raises:
        DataFileError: It is not what its suffix says, or names a column twice.
    """
    with _opened(path) as (schema, _):
        if len(set(schema.names)) < len(schema.names):
            raise DataFileError(f"{path} expects to name every column once, but has {', '.join(schema.names)}.")
        return schema


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Read a file's rows.

    Raises:
        DataFileError: The file is damaged.
    """
    with _opened(path) as (_, batches):
        yield from batches


def table_entries(batches: Iterable[Any], name: str, columns: Iterable[str] | None) -> Iterator[Entry]:
    """Take the rows of Arrow batches.

    Args:
        batches: Record batches or tables.
        name: What to call the source.
        columns: Columns that become Python values; None takes all. The others stay in Arrow.
    """
    number = 0
    for batch in batches:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        wanted = table.column_names if columns is None else [one for one in columns if one in table.column_names]
        for at, (row, fault) in enumerate(_rows(table.select(wanted))):
            number += 1
            yield Entry(f"{name}: row {number}", row, fault, cells=(table, at))


def _rows(table: pa.Table) -> Iterator[tuple[Row | None, str | None]]:
    """Turn rows into Python values, one by one where some cannot: text that is no UTF-8, times between microseconds."""
    try:
        yield from [(row, None) for row in table.to_pylist()]
    except UNHELD:
        for at in range(table.num_rows):
            try:
                yield table.slice(at, 1).to_pylist()[0], None
            except UNHELD as error:
                yield None, f"expects values that Python can hold, but: {error}"


def rows_of(table: pa.Table) -> list[Row]:
    """Return all columns of a table's rows; what Python cannot hold comes as text."""
    try:
        return list(table.to_pylist())
    except UNHELD:
        cells = [(name, table.column(name)) for name in table.column_names]
        return [{name: _value(column.slice(at, 1)) for name, column in cells} for at in range(table.num_rows)]


def _value(cell: pa.ChunkedArray) -> Any:
    try:
        return cell.to_pylist()[0]
    except UnicodeDecodeError:
        if pa.types.is_string(cell.type) or pa.types.is_large_string(cell.type):
            return cell.cast(pa.large_binary()).to_pylist()[0].decode("utf-8", "backslashreplace")
        return f"{cell.type} with bytes that are not UTF-8"
    except UNHELD:
        return str(cell.cast(pa.string()).to_pylist()[0])
