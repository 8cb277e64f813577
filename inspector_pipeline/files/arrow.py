"""Read Parquet and Arrow files batch by batch, in constant memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ..errors import DataFileError
from .entries import Entry, Row

BATCH_ROWS = 256
MOST_BYTES = 1 << 30  # of a column's texts in a batch
HEAD, TAIL = 8, 10  # bytes of an Arrow file before its first message, and after its footer
END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
JOINED = b"PAR1PAR1"  # where a Parquet file ends and another begins
SEVERAL = "it is several files, one after another; divide them, and give their folder"
UNHELD = (ValueError, OverflowError, LookupError)  # of values that Python cannot hold, and zones it does not know


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    """Open a file of Parquet, or of Arrow's file or stream format; gives its columns and its rows."""
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        if is_parquet:
            with pyarrow.parquet.ParquetFile(path) as file:
                _check_one_parquet(path, file.metadata)
                schema, packed = file.schema.to_arrow_schema(), _packed_columns(file)
            with pyarrow.parquet.ParquetFile(path, read_dictionary=packed) as file:
                batches = _parquet_batches(file)
                whole = (_unpacked(batch, schema) for batch in batches) if packed else batches
                yield plain(schema), map(_plain_batch, whole)
        else:
            with pa.memory_map(str(path)) as data:
                reader = _arrow_reader(data)
                yield plain(reader.schema), map(_plain_batch, _arrow_batches(reader))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Parquet" if is_parquet else "Arrow"
        raise DataFileError(f"{path} expects {kind}, but: {str(error).rstrip('.')}.") from error


def _parquet_batches(file: Any) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        rows += batch.num_rows
        yield batch
    if rows != file.metadata.num_rows:
        raise pa.ArrowInvalid(f"it names {file.metadata.num_rows} rows and holds {rows}")


def _packed_columns(file: Any) -> list[str]:
    """Name the columns of texts that may be far longer than their file: repeated ones stand there once."""
    texts = {one.name for one in file.schema.to_arrow_schema() if _has_lengths(one.type)}
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    chunks = (group.column(place) for group in groups for place in range(group.num_columns))
    rows = min(BATCH_ROWS, file.metadata.num_rows)
    large = (one for one in chunks if one.has_dictionary_page and one.total_uncompressed_size * rows > MOST_BYTES)
    return sorted({chunk.path_in_schema for chunk in large} & texts)


def _has_lengths(kind: pa.DataType) -> bool:
    types = pa.types
    return any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_binary))


def _unpacked(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Write out the texts that a batch holds once, unless they are more than memory should hold.

    Raises:
        ArrowInvalid: They are.
    """
    columns = list(batch.columns)
    for place, (field, column) in enumerate(zip(schema, columns, strict=True)):
        if column.type != field.type:
            lengths = pa.compute.binary_length(column.dictionary).take(column.indices)
            if (pa.compute.sum(lengths).as_py() or 0) > MOST_BYTES:
                raise pa.ArrowInvalid(f"{len(batch)} of its rows hold more than {MOST_BYTES} bytes in {field.name!r}")
            columns[place] = column.cast(field.type)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _check_one_parquet(path: Path, metadata: Any) -> None:
    """Refuse files joined by `cat`: only the last one's footer is read, and its places are taken for the first one's.

    Raises:
        ArrowInvalid: They are several.
    """
    end = 0  # of the data that the footer names; as many bytes as a file before it has are missing from there on
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
            end = max(end, start + chunk.total_compressed_size)
    with path.open("rb") as file:
        before = file.read(max(0, path.stat().st_size - metadata.serialized_size - end))
    at = before.find(JOINED)
    while at >= 0:
        try:
            pyarrow.parquet.read_metadata(pa.BufferReader(before[: at + len(JOINED) // 2]))
        except (pa.ArrowException, OSError):  # the letters stand in its data
            at = before.find(JOINED, at + 1)
        else:
            raise pa.ArrowInvalid(SEVERAL)


def _arrow_reader(data: Any) -> Any:
    size = data.size()
    try:
        reader = pa.ipc.open_file(data)
    except pa.ArrowInvalid:
        end = _end_of_stream(data, 0)
        if end != size or data.read_at(len(END), max(0, size - len(END))) != END:
            fault = "its end is missing, as where its writer was stopped" if end == size else SEVERAL
            raise pa.ArrowInvalid(fault) from None
        data.seek(0)
        return pa.ipc.open_stream(data)
    footer = size - TAIL - int.from_bytes(data.read_at(4, size - TAIL), "little")
    try:
        end = _end_of_stream(data, HEAD)
    except (pa.ArrowException, OSError):  # it may do without an end, before its footer
        return reader
    if end != footer and data.read_at(len(END), end - len(END)) == END:
        raise pa.ArrowInvalid(SEVERAL)
    return reader


def _end_of_stream(data: Any, start: int) -> int:
    data.seek(start)
    for _ in pa.ipc.MessageReader.open_stream(data):  # maps what they hold, and does not read it
        pass
    return int(data.tell())


def _arrow_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    is_stream = isinstance(reader, pa.ipc.RecordBatchStreamReader)
    for batch in reader if is_stream else map(reader.get_batch, range(reader.num_record_batches)):
        _check_places(batch)
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _check_places(batch: pa.RecordBatch) -> None:
    """Refuse a batch whose lists or texts point beyond its data: reading them would end the process.

    Values themselves may be wrong, and are told row by row.

    Raises:
        ArrowInvalid: A place is out of bounds.
    """
    for column in batch.columns:
        column.view(_as_bytes(column.type)).validate(full=True)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same bytes of which any are right: no UTF-8, no times within a day."""
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _as_bytes(kind.value_type), kind.ordered)
    texts = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pa.binary(kind.bit_width // 8)
    return _with_inner(kind, _as_bytes) if pa.types.is_nested(kind) else texts.get(kind, kind)


def plain(schema: pa.Schema) -> pa.Schema:
    """Return columns in types that all of Arrow's functions know, without its views (string_view and their like)."""
    return pa.schema([field.with_type(_plain_type(field.type)) for field in schema], schema.metadata)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if "_view" not in str(kind):
        return kind
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain_type(kind.value_type), kind.ordered)
    if pa.types.is_nested(kind):
        kind = _with_inner(kind, _plain_type)
        lists = {pa.types.is_list_view: pa.list_, pa.types.is_large_list_view: pa.large_list}
        return next((make(kind.field(0)) for is_kind, make in lists.items() if is_kind(kind)), kind)
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind, kind)


def _with_inner(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Change the types within a nested one; unions and the like stay."""
    types = pa.types
    inner = [kind.field(at).with_type(change(kind.field(at).type)) for at in range(kind.num_fields)]
    if types.is_struct(kind):
        return pa.struct(inner)
    if types.is_map(kind):
        pair = [one.with_type(change(one.type)) for one in (kind.key_field, kind.item_field)]
        return pa.map_(*pair, keys_sorted=kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    lists = {
        types.is_list: pa.list_,
        types.is_large_list: pa.large_list,
        types.is_list_view: pa.list_view,
        types.is_large_list_view: pa.large_list_view,
    }
    return next((make(inner[0]) for is_kind, make in lists.items() if is_kind(kind)), kind)


def kept_types(schema: pa.Schema | None, used: Iterable[str]) -> pa.Schema | None:
    """Return the columns of rows that other texts were put together from, which get their types back from values.

    Args:
        schema: The rows' columns; None where they have no types.
        used: Those that are not kept.
    """
    if schema is None:
        return None
    odd = ("dictionary", "run_end_encoded", "extension", "union")  # which values alone do not make again
    return pa.schema([one for one in schema if one.name not in used and not any(k in str(one.type) for k in odd)])


def _plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = plain(batch.schema)
    if schema == batch.schema:
        return batch
    columns = [_plain_column(*both) for both in zip(batch.columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if "list_view" not in str(column.type):
        return column.cast(kind)
    return pa.array(column.to_pylist(), kind)  # a cast of views of lists loses the last offset


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
        try:
            return str(cell.cast(pa.string()).to_pylist()[0])
        except pa.ArrowException:  # a list of them, or what names a field twice
            return cell.chunk(0).to_string()
