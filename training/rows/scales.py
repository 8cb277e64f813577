"""Scales of labels: which levels they have, which of them are good, and how a label is read.

A scale's levels are numbers. Words have an order that people state (`bad<fair<good`) and stand for 1, 2, 3, ...;
numbers are kept as they are, halves and tenths too; of real numbers, and of scales with more than `MOST_LEVELS` levels,
the means of `REAL_LEVELS` parts of like size are the levels. Where no scale is stated, it is read from the labels: the
first of the usual ones that holds nine in ten of them. What lies outside is not read, so that no slip is ever a level.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError

Level = int | float

WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
RANGE = re.compile(rf"({NUMBER.pattern})\.\.({NUMBER.pattern})")
NEARLY = (  # a number but for how it is written; how it should be
    (re.compile(r"[+-]?\d+([.,]\d+)?\s*%"), "write it without the percent sign"),
    (re.compile(r"[+-]?\d*,\d+"), "write it with a point"),
    (re.compile(r"\d+([.,]\d+)?\s*/\s*\d+"), "write the first number alone"),
)
BINARY_WORDS = {"yes": 1, "no": 0, "true": 1, "false": 0}
USUAL = (1, 5, 7, 10, 100)  # the highest level; the lowest is 0 or 1
LONGEST_SHORT = 5  # up to here, a scale ends where the labels do
MOSTLY = 0.9  # of the labels a scale holds that was not stated
MOST_UNREADABLE = 0.02  # of the labels, unless more are allowed
MOST_LEVELS = 21  # halves of 0 to 10
REAL_LEVELS = 8
SHOWN = 3
BLANK = "the label is blank"


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or white space alone."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def parse_label(value: Any, words: Mapping[str, int] | None = None) -> tuple[int | None, str | None]:
    """Read a label: a whole number, also written as text ("4", "4.0"), a truth value (1 or 0), or a word.

    Args:
        value: The cell.
        words: Label as it is written -> score; looked up first, spaces around it aside.

    Returns:
        The score and None, or None and why there is none. Nothing is rounded.

    Example:
        >>> parse_label("4"), parse_label("good", {"good": 1})
        ((4, None), (1, None))
        >>> parse_label(3.5)
        (None, '3.5 is not a whole number')
    """
    if is_blank(value):
        return None, BLANK
    text = str(value).strip()
    if words and text in words:
        return words[text], None
    if isinstance(value, bool):
        return int(value), None
    if isinstance(value, (int, float, str)) and WHOLE_NUMBER.fullmatch(text):
        return int(text.partition(".")[0]), None
    if isinstance(value, float) and value.is_integer():  # written with an exponent
        return int(value), None
    return None, f"{text[:80]} is not a whole number{' or a known word' if words else ''}"


def number_of(value: Any, words: Mapping[str, Level]) -> Level | None:
    """Read a number, a truth value or a known word, its capitals aside; None where it is none of them."""
    text = str(value).strip()
    for key in (text, text.casefold()):
        if key in words:
            return words[key]
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if not isinstance(value, (int, float, str, np.number)) or not NUMBER.fullmatch(text):
        return None
    found = float(text)
    return plain(found) if math.isfinite(found) else None


def plain(value: float) -> Level:
    """Return a whole number as an int."""
    return int(value) if float(value).is_integer() else float(value)


@dataclass(frozen=True)
class Scale:
    """The levels of one aspect's labels.

    Attributes:
        low: The lowest number that is read.
        high: The highest.
        words: The levels, where they are words, in their order: 1, 2, ....
        known: Further words -> number.
        step: What levels are multiples of; 0 for any number.
        edges: Of real numbers, where a level ends and the next begins, ascending.
        means: Of real numbers, the levels.
        good: From which level on a label is good.
        is_stated: Whether people stated the scale.
        good_is_stated: Whether people stated what is good.
    """

    low: float
    high: float
    words: tuple[str, ...] = ()
    known: Mapping[str, Level] = field(default_factory=dict)
    step: float = 0.0
    edges: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    good: float = math.nan
    is_stated: bool = False
    good_is_stated: bool = False

    def read(self, cell: Any) -> tuple[Level | None, str | None]:
        """Read a cell: a number of this scale and None, or None and why there is none."""
        if is_blank(cell):
            return None, BLANK
        text = f"{str(cell).strip()[:40]!r}"
        if self.words:
            place = {word.casefold(): n for n, word in enumerate(self.words, start=1)}.get(str(cell).strip().casefold())
            return place, None if place else f"{text} is none of {', '.join(self.words)}"
        found = number_of(cell, self.known)
        if found is None:
            how = nearly_number(cell)
            return None, f"{text} is no number{f' ({how})' if how else ''}"
        if not self.low <= found <= self.high:
            return None, f"{text} lies outside {_shown(self.low)} to {_shown(self.high)}"
        if self.step and (found / self.step) % 1:
            return None, f"{text} is no multiple of {_shown(self.step)}"
        return found, None

    @property
    def is_binary(self) -> bool:
        """Whether there are two levels."""
        return (self.low, self.high) == (0, 1) and not self.means or len(self.words) == 2

    def level(self, number: float) -> Level:
        """Return the level of a number that was read."""
        return self.means[int(np.searchsorted(self.edges, number, side="right"))] if self.means else plain(number)

    def with_good(self, level: str | None, aspect: str) -> "Scale":
        """Say from which level on labels are good; without one the usual rule says it: `usual_good`.

        Raises:
            DataFileError: That is no level.
        """
        if level is None:
            middle = self.means[len(self.means) // 2] if self.means else usual_good(self.low, self.high)
            return replace(self, good=middle)
        found, reason = self.read(level)
        if found is None:
            raise DataFileError(f"good expects a level of {aspect} ({self.describe()}), but {reason}.")
        return replace(self, good=float(found), good_is_stated=True)

    def describe(self) -> str:
        """Name the levels."""
        if self.words:
            return " < ".join(self.words)
        told = f"{_shown(self.low)} to {_shown(self.high)}"
        if self.means:
            return f"numbers from {told}, as {len(self.means)} levels"
        return "0 and 1" if self.is_binary else told

    def describe_good(self) -> str:
        """Name the good levels."""
        if self.words:
            return " or ".join(self.words[math.ceil(self.good) - 1 :])
        return f"{_shown(self.good)} and more" if self.good < self.high else _shown(self.good)


def usual_good(low: float, high: float) -> float:
    """Return from where on labels are good where nobody says: 1 of 0 and 1, 4 of 1 to 5, else the upper quarter.

    Example:
        >>> usual_good(1, 5), usual_good(0, 10), usual_good(1, 7), usual_good(1, 3)
        (4, 8, 6, 3)
    """
    if high <= 1 and low >= 0:
        return high
    if low >= 0 and 4 <= high <= 5:
        return 4
    bound = low + (high - low) * 3 / 4
    return math.ceil(bound) if float(low).is_integer() and float(high).is_integer() else bound


def stated_scale(text: str, aspect: str) -> Scale:
    """Read a stated scale: words in their order, `bad<fair<good`; a range, `0..10`; or `real`.

    Raises:
        DataFileError: It is none of them.
    """
    words = [word.strip() for word in text.split("<")]
    found = RANGE.fullmatch(text.replace(" ", ""))
    if len(words) > 1 and all(words) and len({word.casefold() for word in words}) == len(words):
        return Scale(1, len(words), words=tuple(words), step=1, is_stated=True)
    if found and float(found[1]) < float(found[5]):
        return Scale(float(found[1]), float(found[5]), known=BINARY_WORDS, is_stated=True)
    if text.strip() == "real":
        return Scale(-math.inf, math.inf, is_stated=True)
    raise DataFileError(
        f"The scale of {aspect} expects words in order (bad<fair<good), a range (0..10) or real, but got {text!r}."
    )


def find_scale(cells: Iterable[Any], words: Mapping[str, Level], stated: str | None, aspect: str) -> Scale:
    """Find the scale of a column: the stated one, or what the labels look like.

    Args:
        cells: All of the column.
        words: Label as it is written -> number.
        stated: See `stated_scale`.
        aspect: Whose labels they are, for messages.

    Raises:
        DataFileError: The labels are words whose order nobody stated; the message names them.
    """
    given = [cell for cell in cells if not is_blank(cell)]
    known = {**BINARY_WORDS, **words}
    if stated is not None:
        scale = stated_scale(stated, aspect)
        numbers = [] if scale.words else [n for n in (scale.read(cell)[0] for cell in given) if n is not None]
        scale = replace(scale, known=known)
    else:
        found = [number_of(cell, known) for cell in given]
        numbers = [number for number in found if number is not None]
        if given and len(numbers) < (1 - MOSTLY) * len(given) or (given and not numbers):
            counts = Counter(str(cell).strip()[:40] for cell in given).most_common(SHOWN * 2)
            shown = ", ".join(f"{word!r} ({n})" for word, n in counts)
            raise DataFileError(
                f"The labels of {aspect} expect numbers, or words whose order is stated, but are {shown}. "
                f"{_remedy(given, aspect)}"
            )
        scale = _usual_scale(numbers, known)
        numbers = [number for number in numbers if scale.low <= number <= scale.high]
    if scale.words or not numbers:
        return scale
    halves = [number for number in numbers if (2 * number) % 1 == 0]
    is_real = math.isinf(scale.low) or len(set(halves)) > MOST_LEVELS
    if not is_real and len(halves) >= (1 - MOST_UNREADABLE) * len(numbers):
        return scale if scale.is_stated and len(set(numbers)) <= MOST_LEVELS else replace(scale, step=0.5)
    if len(set(numbers)) <= MOST_LEVELS and not is_real:
        return scale
    return _as_real(scale, numbers)


def nearly_number(cell: Any) -> str | None:
    """Say how a number should be written that is written otherwise; None where it is none.

    Example:
        >>> nearly_number("85 %"), nearly_number("3,5"), nearly_number("good")
        ('write it without the percent sign', 'write it with a point', None)
    """
    text = cell.strip() if isinstance(cell, str) else ""
    return next((how for pattern, how in NEARLY if pattern.fullmatch(text)), None)


def _remedy(cells: Sequence[Any], aspect: str) -> str:
    """Say what to do with labels that are no numbers."""
    hows = Counter(how for cell in cells if (how := nearly_number(cell)))
    if hows.total() > len(cells) / 2:
        how, _ = hows.most_common(1)[0]
        return f"They are numbers, but written otherwise: {how}, in every row."
    different = len({str(cell).strip().casefold() for cell in cells})
    if different > MOST_LEVELS:
        return f"They are {different} different texts or dates: are these the labels? Name the column that holds them."
    return f"State the scale, lowest first, such as {aspect}='bad<fair<good'."


def _usual_scale(numbers: Sequence[float], known: Mapping[str, Level]) -> Scale:
    """Take the first usual scale that holds nine in ten, two different ones at least; else what there is."""
    if not numbers:
        return Scale(0, 1, known=known)
    halves = sum((2 * number) % 1 == 0 for number in numbers)
    if halves < MOSTLY * len(numbers):
        return Scale(-math.inf, math.inf, known=known)
    low = 0 if any(0 <= number < 1 for number in numbers) else 1
    for high in USUAL:
        inside = [number for number in numbers if low <= number <= high]
        if len(set(inside)) > 1 and len(inside) >= MOSTLY * len(numbers):
            is_shorter = high == LONGEST_SHORT and max(inside) < LONGEST_SHORT - (low == 1)
            ends = (math.floor(min(inside)), math.ceil(max(inside))) if is_shorter else (low, high)
            return Scale(*ends, known=known)
    return Scale(min(numbers), max(numbers), known=known)


def _as_real(scale: Scale, numbers: Sequence[float]) -> Scale:
    """Divide real numbers into parts of like size; a part's level is its mean."""
    values = np.array(numbers, dtype=np.float64)
    edges = np.unique(np.quantile(values, np.arange(1, REAL_LEVELS) / REAL_LEVELS))
    part = np.searchsorted(edges, values, side="right")
    held = [part == p for p in range(len(edges) + 1)]
    kept = [float(np.float32(values[own].mean())) for own in held if own.any()]
    edges = edges[[bool(own.any()) for own in held[:-1]]] if held[-1].any() else edges[:-1]
    if math.isinf(scale.low):
        scale = replace(scale, low=float(values.min()), high=float(values.max()))
    return replace(scale, step=0.0, edges=tuple(edges.tolist()), means=tuple(kept))


def _shown(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:.6g}"  # so that a date is seen to be one


def cells_of(cell: Any) -> list[Any]:
    """Return what several people said, where a cell lists it; else the cell alone."""
    return list(cell) if isinstance(cell, (list, tuple)) and cell else [None if cell in ([], ()) else cell]


def rater_columns(column: str, present: Iterable[str]) -> list[str]:
    """Return the columns that a name stands for: itself, or several raters' that `+` joins."""
    return [column] if column in set(present) or "+" not in column else [name.strip() for name in column.split("+")]
