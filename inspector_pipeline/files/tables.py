"""Read and write whole files of rows, told by their suffix; `-` is standard input and output."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataFileError
from .compressed import kind_of
from .disk import file_sha256, write_whole
from .entries import Entry, json_line, strict_json
from .entries import Row as Row
from .text import BOM, TEXT_READERS, csv_columns, json_entries, jsonl_entries, text_entries

SUFFIXES = (*TEXT_READERS, ".parquet", ".arrow")
STDIO = "-"
MAY_BE = "Text may be compressed as .gz or .zst"


@dataclass(frozen=True)
class Source:
    """Rows to read, of one file or dataset.

    Attributes:
        name: What places and the manifest call it.
        sha256: Hashes its bytes.
        schema: Its columns, a `pyarrow.Schema`; None for text, whose columns are known only once it was read.
        entries: Reads its rows. Of Arrow rows only the named columns become Python values; None takes all.
        path: The file; None for a dataset.
        types: Of rows that were put together from Arrow's: the columns that stay as they were, with their types.
    """

    name: str
    sha256: Callable[[], str]
    schema: Any
    entries: Callable[[Iterable[str] | None], Iterator[Entry]]
    path: Path | None = None
    types: Any = None
    _opened: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the file as it is when it is opened."""
        object.__setattr__(self, "_opened", self._state())

    def _state(self) -> tuple[int, ...]:
        """Return what differs once the file was written again, or another one stands in its place."""
        if self.path is None or not self.path.exists():
            return ()
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns, found.st_ino

    def check_unchanged(self) -> None:
        """Refuse to go on with what was changed since it was opened, as where rows are still being added to it.

        Raises:
            DataFileError: It is another file than then.
        """
        if self._state() != self._opened:
            raise DataFileError(
                f"{self.path} expects to stay as it is while it is read, but was changed. Run again once it is whole, "
                "with a new output."
            )

    def header(self) -> list[str]:
        """Return the columns of a CSV file; none of anything else, whose rows say them."""
        return csv_columns(self.path) if self.path is not None and kind_of(self.path)[0] == ".csv" else []

    def check_header(self, columns: Iterable[str]) -> None:
        """Refuse CSV whose header is of something else: its first row may have been taken for it.

        Raises:
            DataFileError: The header lacks one of the columns.
        """
        names = self.header()
        missing = [column for column in columns if column not in names]
        if names and missing:
            raise DataFileError(
                f"{self.path} expects a header with the column {missing[0]!r}, but has {', '.join(names)!r:.200}. Name "
                "the column by --column, or leave the file out."
            )


def is_readable(path: Path) -> bool:
    """Say whether a file's suffix is one of those that can be read."""
    kind, compression = kind_of(path)
    return kind in (TEXT_READERS if compression else SUFFIXES)


def file_source(path: Path, name: str) -> Source:
    """Open a file of rows, in the format of its suffix.

    Args:
        path: The file.
        name: What to call it.

    Raises:
        DataFileError: It is missing, of an unknown kind, or not what its suffix says.
    """
    if not is_readable(path):
        raise DataFileError(
            f"{path} expects a suffix of {', '.join(SUFFIXES)}, but got {path.suffix or 'none'!r}. {MAY_BE}."
        )
    if path.exists() and not path.is_file():
        raise DataFileError(
            f"{path} expects a regular file, since it is read more than once, but is none. Write what a pipe gives "
            "into a file, or give - for standard input."
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataFileError(f"{path} could not be read: {error.strerror or error}. Check the path.") from error
    sha256 = partial(file_sha256, path)
    if kind_of(path)[0] in TEXT_READERS:
        return Source(name, sha256, None, lambda _: text_entries(path), path)

    from .arrow import read_batches, read_schema, table_entries  # pyarrow, which text does not need

    schema = read_schema(path)
    return Source(name, sha256, schema, lambda columns: table_entries(read_batches(path), name, columns), path)


def read_rows(source: str) -> list[Row]:
    """Read all rows of a file.

    Args:
        source: A path, or `-` for JSON or JSON Lines on standard input.

    Returns:
        One dict a row, in the file's order.

    Raises:
        DataFileError: The file is missing, of another kind, or malformed; the message says where.
    """
    if source == STDIO:
        path, data = Path("standard input"), sys.stdin.buffer.read()
        read = json_entries if data.removeprefix(BOM).lstrip().startswith(b"[") else jsonl_entries
        entries = read(path, io.BytesIO(data))
    else:
        path = Path(source)
        entries = file_source(path, path.name).entries(None)
    rows = []
    for entry in entries:
        if entry.row is None or entry.fault is not None:
            raise DataFileError(f"{path.with_name(entry.place)} {entry.fault}.")
        rows.append(entry.row)
    return rows


def write_rows(rows: list[Row], target: str) -> None:
    """Write all rows to a file, in the format of its suffix.

    Args:
        rows: One dict a row.
        target: A path, or `-` for JSON Lines on standard output.

    Raises:
        DataFileError: The suffix is unknown, or the file cannot be written.
    """
    if target == STDIO:
        sys.stdout.flush()
        write_jsonl(rows, sys.stdout.buffer)
        return
    check_target(target)
    path, data = Path(target), io.BytesIO()
    try:
        WRITERS[path.suffix.lower()](rows, data)
        write_whole(path, data.getvalue())
    except (OSError, TypeError, ValueError) as error:
        raise DataFileError(f"{target} could not be written: {error}.") from error


def check_rows(rows: list[Row], target: str) -> None:
    """Refuse, before they are scored, rows that a file of its kind cannot hold.

    Raises:
        DataFileError: They have values of several types, or bytes, numbers or text that the format does not know.
    """
    with_bytes = [name for row in rows for name, value in row.items() if _holds_bytes(value)]
    if with_bytes and Path(target).suffix.lower() != ".parquet":
        raise DataFileError(
            f"{target} expects text, but the column {with_bytes[0]!r} holds bytes. Give a .parquet file as --output."
        )
    if Path(target).suffix.lower() in (".csv", ".parquet"):
        try:
            WRITERS[Path(target).suffix.lower()](rows, io.BytesIO())
        except (NotImplementedError, OverflowError, TypeError, ValueError) as error:
            raise DataFileError(
                f"{target} cannot hold these rows: {error}. Give a file of JSON Lines, or a folder/, as --output."
            ) from error


def _holds_bytes(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return isinstance(value, bytes) or any(map(_holds_bytes, inner))


def read_table(source: str) -> Any:
    """Read a Parquet or Arrow file whole, as a `pyarrow.Table` in its own types."""
    import pyarrow

    from .arrow import read_batches, read_schema

    return pyarrow.Table.from_batches(read_batches(Path(source)), read_schema(Path(source)))


def write_table(table: Any, target: str) -> None:
    """Write a `pyarrow.Table` to a Parquet file.

    Raises:
        DataFileError: Parquet does not know a column's type, or the file cannot be written.
    """
    import pyarrow.parquet

    data = io.BytesIO()
    try:
        pyarrow.parquet.write_table(table, data)
        write_whole(Path(target), data.getvalue())
    except (OSError, TypeError, ValueError, NotImplementedError) as error:
        raise DataFileError(f"{target} could not be written: {error}.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        DataFileError: It is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataFileError(f"Expected a JSON file at {path}, but it could not be read: {error}.") from error


def check_target(target: str) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        DataFileError: The suffix is unknown, or the folder is missing.
    """
    path = Path(target)
    if target == STDIO:
        return
    if path.suffix.lower() not in WRITERS:
        raise DataFileError(
            f"{target} expects a suffix of {', '.join(WRITERS)}, but got {path.suffix or 'none'!r}. A folder for a "
            "job's parts ends in /."
        )
    if path.is_dir():
        raise DataFileError(f"{target} expects a file, but is a folder.")
    if not path.parent.is_dir():
        raise DataFileError(f"{target} expects an existing folder, but {path.parent} is none. Make it first.")


def write_json(rows: Iterable[Row], file: BinaryIO) -> None:
    """Write what `json.dumps(rows, indent=4)` gives, as the published tools do, row by row."""
    before = b"[\n    "
    for row in rows:
        file.write(before + strict_json(row, indent=4).replace("\n", "\n    ").encode())
        before = b",\n    "
    file.write(b"[]" if before.startswith(b"[") else b"\n]")


def write_jsonl(rows: Iterable[Row], file: BinaryIO) -> None:
    """Write JSON Lines, row by row."""
    file.writelines(json_line(row) for row in rows)


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _write_csv(rows: list[Row], file: BinaryIO) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=_columns(rows))
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    file.write(text.getvalue().encode())


def _cell(value: Any) -> Any:
    """Return a value as CSV holds it: an object or a list as JSON."""
    return strict_json(value, ensure_ascii=False) if isinstance(value, (dict, list, tuple)) else value


def table_of(rows: list[Row], types: Any = ()) -> Any:
    """Return rows as a `pyarrow.Table` with every column that one of them has.

    Args:
        rows: The rows.
        types: Fields of columns whose types are known; the others' are what their values look like.
    """
    import pyarrow

    known = {field.name: field.type for field in types}
    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    return pyarrow.table({name: pyarrow.array(own, known.get(name)) for name, own in columns.items()})


def _write_parquet(rows: list[Row], file: BinaryIO) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table_of(rows), file)


WRITERS: dict[str, Callable[[list[Row], BinaryIO], None]] = {
    ".json": write_json,
    ".jsonl": write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
