"""Read and write files of rows: JSON, JSON Lines, CSV and Parquet, told by their suffix; `-` is standard input."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from .disk import write_whole

Row = dict[str, Any]

STDIO = "-"
MAX_CSV_FIELD = 2**30  # characters; the csv module's own limit is shorter than some responses


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
        text = _decode(sys.stdin.buffer.read(), "standard input")
        return (
            _parse_json(text, "standard input")
            if text.lstrip().startswith("[")
            else _parse_jsonl(text, "standard input")
        )
    path = Path(source)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise DataFileError(f"{source} expects a suffix of {', '.join(_READERS)}, but got {path.suffix or 'none'!r}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataFileError(f"{source} could not be read: {error.strerror or error}. Check the path.") from error
    return read(data, source)


def write_rows(rows: list[Row], target: str) -> None:
    """Write all rows to a file, in the format of its suffix.

    JSON is an array with an indent of 4 and ASCII escapes, as the published tools write it.

    Args:
        rows: One dict a row.
        target: A path, or `-` for JSON Lines on standard output.

    Raises:
        DataFileError: The suffix is unknown, or the file cannot be written.
    """
    if target == STDIO:
        sys.stdout.flush()
        sys.stdout.buffer.write(_dump_jsonl(rows))
        return
    check_target(target)
    path = Path(target)
    try:
        write_whole(path, _WRITERS[path.suffix.lower()](rows))
    except (OSError, TypeError, ValueError) as error:
        raise DataFileError(f"{target} could not be written: {error}.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        DataFileError: It is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFileError(f"Expected a JSON file at {path}, but it could not be read: {error}.") from error


def check_target(target: str) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        DataFileError: The suffix is unknown, or the folder is missing.
    """
    path = Path(target)
    if target != STDIO and path.suffix.lower() not in _WRITERS:
        raise DataFileError(f"{target} expects a suffix of {', '.join(_WRITERS)}, but got {path.suffix or 'none'!r}.")
    if target != STDIO and path.is_dir():
        raise DataFileError(f"{target} expects a file, but is a folder.")
    if target != STDIO and not path.parent.is_dir():
        raise DataFileError(f"{target} expects an existing folder, but {path.parent} is none. Make it first.")


def _decode(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFileError(f"{source} expects UTF-8, but byte {error.start} is not. Convert the file.") from error


def _parse_json(text: str, source: str) -> list[Row]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DataFileError(f"{source} expects JSON, but: {error}.") from error
    if not isinstance(data, list):
        raise DataFileError(f"{source} expects a JSON array of objects, but got {type(data).__name__}.")
    return [_checked(row, source, f"item {i}") for i, row in enumerate(data)]


def _parse_jsonl(text: str, source: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataFileError(f"{source} expects a JSON object a line, but line {number}: {error}.") from error
        rows.append(_checked(row, source, f"line {number}"))
    return rows


def _checked(row: Any, source: str, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataFileError(
            f"{source} expects objects with question and prediction, but {where} is {type(row).__name__}."
        )
    return row


def _parse_csv(data: bytes, source: str) -> list[Row]:
    csv.field_size_limit(MAX_CSV_FIELD)
    reader = csv.DictReader(io.StringIO(_decode(data, source), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataFileError(f"{source} expects CSV, but line {reader.line_num}: {error}.") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataFileError(
                f"{source} expects {len(reader.fieldnames or [])} fields in every row, but row {number} differs."
            )
    return rows


def _parse_parquet(data: bytes, source: str) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataFileError(f"{source} expects Parquet, but: {error}.") from error
    return rows


def _dump_jsonl(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode(
        "utf-8", "surrogatepass"
    )


def _dump_csv(rows: list[Row]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _dump_parquet(rows: list[Row]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{n: row.get(n) for n in names} for row in rows]), buffer)
    return buffer.getvalue()


_READERS: dict[str, Callable[[bytes, str], list[Row]]] = {
    ".json": lambda data, source: _parse_json(_decode(data, source), source),
    ".jsonl": lambda data, source: _parse_jsonl(_decode(data, source), source),
    ".csv": _parse_csv,
    ".parquet": _parse_parquet,
}
_WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    ".json": lambda rows: json.dumps(rows, indent=4, default=str).encode(),
    ".jsonl": _dump_jsonl,
    ".csv": _dump_csv,
    ".parquet": _dump_parquet,
}
