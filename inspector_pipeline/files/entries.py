"""One row of an input, whether or not it could be read."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """A row of the input.

    Attributes:
        place: Where it stands: the file's name and its line or row, from 1.
        row: The row; None where it could not be read.
        fault: Why it cannot be scored; None where nothing is known against it.
        raw: What could not be read, as text.
        cells: The Arrow table that the row comes from, and its position there; None for rows of text files.
        number: Its position in the whole input, from 0.
    """

    place: str
    row: Row | None
    fault: str | None = None
    raw: str | None = None
    cells: tuple[Any, int] | None = None
    number: int = -1


def cut(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def json_line(value: Any) -> bytes:
    """Write one line of JSON; characters that UTF-8 cannot hold are escaped, which reads back as they were."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, default=str).encode() + b"\n"
