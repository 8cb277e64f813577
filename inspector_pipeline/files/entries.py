"""One row of an input, whether or not it could be read."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]

SMALLEST_SHARE = 10**9  # one in as many


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
        pair: What a judge reads, where that is not a choice of the row's columns.
    """

    place: str
    row: Row | None
    fault: str | None = None
    raw: str | None = None
    cells: tuple[Any, int] | None = None
    number: int = -1
    pair: Row | None = None


def cut(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def share_of(number: int, share: float) -> int:
    """Return how many a share of a number is, rounded down: of the fraction that is meant, so 0.29 of 100 is 29."""
    return math.floor(number * Fraction(share).limit_denominator(SMALLEST_SHARE))


def strict_json(value: Any, **options: Any) -> str:
    """Write JSON as RFC 8259 has it: NaN and infinities, which it does not know, become null."""
    try:
        return json.dumps(value, allow_nan=False, default=str, **options)
    except ValueError:
        return json.dumps(finite(value), default=str, **options)


def finite(value: Any) -> Any:
    """Put None in the place of NaN and infinities, however deep."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_line(value: Any) -> bytes:
    """Write one line of JSON; characters that UTF-8 cannot hold are escaped, which reads back as they were."""
    try:
        return strict_json(value, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return strict_json(value).encode() + b"\n"
