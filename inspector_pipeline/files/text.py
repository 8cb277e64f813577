"""Read JSON Lines, JSON and CSV row by row, in constant memory; a row that cannot be read is told, never dropped."""

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ..errors import DataFileError
from ..names import QUESTION_TURNS, opened_json
from .compressed import kind_of, opened
from .csv_quotes import broken_stretch
from .entries import Entry

BOM = b"\xef\xbb\xbf"
CHUNK = 1 << 20  # characters of a JSON array that are read at a time
LONGEST_ITEM = 1 << 26  # characters
LONGEST_LINE = 1 << 28  # bytes or characters; a small compressed file may hold one that no memory does
MOST_PARTS = 1 << 24  # lists and objects of a file that is read whole
LONGEST_TOKEN = 16  # characters of a literal or an escape that may be cut at the end of what was read
MAX_CSV_FIELD = 2**30  # characters; the csv module's own limit is shorter than some responses
MAX_DEPTH = 200  # of lists and objects in each other; writers and Python's own recursion end soon beyond
BETWEEN_ITEMS = re.compile(r"[\s,]*")
CONTAINERS = (
    ("samples",),
    ("results", "results"),
    ("results",),
    ("data",),
    ("rows",),
    ("records",),
)  # of logs, exports
OTHER_SIGNS = ";\t"  # that some programs write between columns
UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that were not UTF-8, as Python's surrogateescape keeps them


def jsonl_entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    """Read JSON Lines; blank lines are no rows."""
    decoder, number, goes_on = _Decoder(), 1, False
    while line := file.readline(LONGEST_LINE):
        is_whole = line.endswith(b"\n") or len(line) < LONGEST_LINE
        data = line.removeprefix(BOM) if number == 1 and not goes_on else line
        place = f"{path.name}:{number}"
        if data.strip() and is_whole and not goes_on:
            yield _json_entry(data, place, decoder)
        elif data.strip():
            said = f"expects a line of at most {LONGEST_LINE} bytes, of which this is a piece"
            yield Entry(place, None, said, data.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        number, goes_on = number + is_whole, not is_whole


def _json_entry(data: bytes, place: str, decoder: "_Decoder") -> Entry:
    decoder.twice = None
    try:
        text = data.decode("utf-8")
        return _object_entry(decoder.decode(text), place, text, decoder.twice)
    except (ValueError, RecursionError) as error:
        raw = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
        return Entry(place, None, f"expects a JSON object in UTF-8, but: {_in_words(error)}", raw)


class _Decoder(json.JSONDecoder):
    """Python's own, which also notes a key that stands twice in one object; of the values only the last is kept."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.twice: str | None = None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            self.twice = next(name for name in names if names.count(name) > 1)
        return found


def _object_entry(row: Any, place: str, text: str, twice: str | None) -> Entry:
    if twice is not None:
        fault = f"expects each key once in an object, but {twice!r:.60} stands there twice"
        return Entry(place, None, fault, text.strip())
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(row, MAX_DEPTH):
        return Entry(place, None, f"expects lists and objects at most {MAX_DEPTH} deep in each other", text.strip())
    if not isinstance(row, dict):
        return Entry(place, None, f"expects an object, but got {type(row).__name__}", json.dumps(row))
    return Entry(place, row)


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [one for some in inner for one in some]
    return bool(level)


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__


def json_entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    """Read the objects of a JSON array one by one; what follows a broken one cannot be read, and is rejected.

    Of an object that a tool wrote around its rows (`CONTAINERS`) the rows are read.

    Raises:
        DataFileError: The file holds no array.
    """
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as characters:
        text = _from_next_sign("", characters)
        if text.startswith("{") and (items := _contained(path, text + characters.read(LONGEST_LINE))) is not None:
            for number, item in enumerate(items, start=1):
                yield _decoded(_object_entry(item, f"{path.name}: item {number}", json.dumps(item), None))
            return
        if not text.startswith("["):
            lists = f"One object needs its list of rows: {' or '.join('.'.join(keys) for keys in CONTAINERS)}."
            hint = f" If each of its lines is an object, call it .jsonl. {lists}" if text.startswith("{") else ""
            raise DataFileError(f"{path} expects a JSON array of objects, but begins with {text[:20]!r}.{hint}")
        yield from _array_entries(path, characters, text[1:])


def _contained(path: Path, text: str) -> list[Any] | None:
    """Return the rows that a tool's file holds; None where it is no such file.

    Raises:
        DataFileError: It holds several lists of rows, a key twice, or more parts than fit into memory.
    """
    if text.count("{") + text.count("[") > MOST_PARTS:  # a small compressed file may hold as many as no memory does
        raise DataFileError(f"{path} expects at most {MOST_PARTS} lists and objects. Write its rows as JSON Lines.")
    decoder = _Decoder()
    try:
        whole = decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    found = {}
    for keys in CONTAINERS:
        value = whole
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            found[".".join(keys)] = value
    if rows := _of_table(whole):
        found["columns and data"] = rows
    if len(found) > 1:
        raise DataFileError(
            f"{path} expects one list of rows, but holds {' and '.join(found)}. Write the rows that are meant as a file"
            " of their own."
        )
    if found and decoder.twice is not None:
        raise DataFileError(f"{path} expects each key once in an object, but {decoder.twice!r:.60} stands there twice.")
    return next(iter(found.values()), None)


def _of_table(whole: Any) -> list[Any] | None:
    """Return the rows of a table that names its columns once, as Weights & Biases writes it, and pandas' `split`."""
    names, rows = (whole.get(key) if isinstance(whole, dict) else None for key in ("columns", "data"))
    if not isinstance(names, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in names):
        return None
    is_whole = all(isinstance(row, list) and len(row) == len(names) for row in rows)
    return [dict(zip(names, row, strict=True)) for row in rows] if is_whole and len(set(names)) == len(names) else None


def _from_next_sign(text: str, characters: TextIO) -> str:
    """Leave out white space, however long; empty at the file's end."""
    while not (text := text.lstrip()):
        text = characters.read(CHUNK)
        if not text:
            break
    return text


def _array_entries(path: Path, characters: TextIO, text: str) -> Iterator[Entry]:
    decoder, at, number = _Decoder(), 0, 1
    while True:
        place = f"{path.name}: item {number}"
        found = BETWEEN_ITEMS.match(text, at)
        at = found.end() if found else at
        if text.startswith("]", at):
            rest = _from_next_sign(text[at + 1 :], characters)
            yield from _unread(place, "expects nothing after the array's end", rest, characters)
            return
        fault: Exception | None = None
        item, end, decoder.twice = None, len(text), None
        try:
            item, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            fault = error
        if end == len(text) and not (fault and _is_certain(fault, text, at)):
            more = characters.read(max(CHUNK, len(text) - at))  # twice as much keeps the work linear
            if more:
                text, at = text[at:] + more, 0
                continue
            fault = fault or ValueError("the array does not end")
        if fault is not None:
            said = f"expects JSON from here to the array's end, but: {_in_words(fault)}"
            yield from _unread(place, said, text[at:] or " ", characters)
            return
        yield _decoded(_object_entry(item, place, text[at:end], decoder.twice))
        at, number = end, number + 1


def _unread(place: str, fault: str, rest: str, characters: TextIO) -> Iterator[Entry]:
    """Reject the rest of a file with all its text, in pieces that fit into memory."""
    while rest:
        yield Entry(place, None, fault, UNDECODED.sub("\ufffd", rest))
        rest = characters.read(CHUNK)


def _is_certain(fault: Exception, text: str, at: int) -> bool:
    """Tell a fault from an item that goes on beyond what was read."""
    if not isinstance(fault, json.JSONDecodeError) or len(text) - at > LONGEST_ITEM:
        return True
    return fault.pos < len(text) - LONGEST_TOKEN and not fault.msg.startswith("Unterminated string")


def _decoded(entry: Entry) -> Entry:
    """Refuse a row with bytes that were not UTF-8; a lone surrogate that JSON spelt out is another matter."""
    if entry.row is not None and UNDECODED.search(json.dumps(entry.row, ensure_ascii=False)):
        entry.fault = "expects UTF-8, but some of its bytes are not"
    return entry


def csv_entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    """Read CSV with a header; a row of more or fewer fields is told as such, as is the header where it comes again.

    Where a quote stands where none may, which of the lines around it belong to one field cannot be told: they are
    rejected line by line, each with its text.

    Raises:
        DataFileError: The header is missing, or names a column twice.
    """
    csv.field_size_limit(MAX_CSV_FIELD)
    with _csv_lines(opened(path)) as lines:
        header = csv.reader(lines, strict=True)
        names = _header(header, path)
        stretch = broken_stretch(lines, len(names), header.line_num)
    with _csv_lines(file) as lines:
        reader = csv.reader(lines, strict=True)
        next(reader, None)
        done = reader.line_num
        while True:
            if done + 1 in stretch:
                for number in stretch:
                    line = next(lines, None)
                    if line is None:
                        return
                    if line.strip():
                        said = f"expects CSV, but a quote stands where none may, from line {stretch.start} on"
                        text = UNDECODED.sub("\ufffd", line).rstrip("\r\n")
                        yield Entry(f"{path.name}:{number}", None, said, text)
                done, reader = stretch.stop - 1, csv.reader(lines, strict=True)
            place, before = f"{path.name}:{done + 1}", reader.line_num
            fields = next(reader, None)
            if fields is None:
                return
            done += reader.line_num - before
            if len(fields) not in (0, len(names)):
                text = UNDECODED.sub("\ufffd", json.dumps(fields, ensure_ascii=False))
                yield Entry(place, None, f"expects {len(names)} fields, but got {len(fields)}", text)
            elif fields and [fields[0].removeprefix("\ufeff"), *fields[1:]] == names:
                said = "expects a row, but repeats the header, as where files were joined"
                yield Entry(place, None, said, json.dumps(fields, ensure_ascii=False))
            elif fields:
                yield _decoded(Entry(place, _csv_row(names, fields)))


def _csv_row(names: list[str], fields: list[str]) -> dict[str, Any]:
    """Return a row's cells as texts; a conversation, which is written as JSON, as turns."""
    row: dict[str, Any] = dict(zip(names, fields, strict=True))
    if QUESTION_TURNS in row:
        row[QUESTION_TURNS] = opened_json(row[QUESTION_TURNS]) or None
    return row


def csv_columns(path: Path) -> list[str]:
    """Read the names of a CSV file's columns, none where it is empty.

    Raises:
        DataFileError: The header is malformed, or names a column twice.
    """
    with _whole(path), _csv_lines(opened(path)) as lines:
        return _header(csv.reader(lines, strict=True), path)


def _csv_lines(file: BinaryIO) -> TextIO:
    return _BoundedLines(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _BoundedLines(io.TextIOWrapper):
    """Text whose lines have a bound."""

    def __next__(self) -> str:  # type: ignore[override]  # which is of bytes in the base of all files
        """Read a line.

        Raises:
            DataFileError: It is longer than that.
        """
        line = self.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        if len(line) == LONGEST_LINE and not line.endswith(("\n", "\r")):
            raise DataFileError(f"A CSV file expects lines of at most {LONGEST_LINE} characters, but has a longer one.")
        return line


def _header(reader: Any, path: Path) -> list[str]:
    try:
        names: list[str] = next(reader, [])
    except csv.Error as error:
        raise DataFileError(f"{path} expects CSV with a header, but: {error}.") from error
    if len(names) == 1 and any(sign in names[0] for sign in OTHER_SIGNS):
        raise DataFileError(f"{path}: its one column is {names[0]!r:.80}. Save it with commas between columns.")
    if len(set(names)) < len(names) or UNDECODED.search("".join(names)):
        raise DataFileError(f"{path} expects a header in UTF-8 that names every column once, but got {names!r:.200}.")
    return names


TEXT_READERS: dict[str, Callable[[Path, BinaryIO], Iterator[Entry]]] = {
    ".json": json_entries,
    ".jsonl": jsonl_entries,
    ".csv": csv_entries,
}


def text_entries(path: Path) -> Iterator[Entry]:
    """Read a file in the format of its suffix, which is one of `TEXT_READERS`, compressed or not.

    Raises:
        DataFileError: What is compressed is damaged.
    """
    with _whole(path), opened(path) as file:
        yield from TEXT_READERS[kind_of(path)[0]](path, file)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        if not kind_of(path)[1]:
            raise DataFileError(f"{path} could not be read: {getattr(error, 'strerror', error)}.") from error
        raise DataFileError(f"{path} expects data that is whole, but: {error}. Compress the file again.") from error
