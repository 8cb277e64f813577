"""Kinds of fields that a file of a fitted estimator has: each reads plain data, or refuses it by the field's name.

Sizes have letters: n features, c classes, k rows of coefficients (one for two classes), p pairs of classes, d one less
than the classes; s and m are any size, the same wherever they stand in one estimator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inert import MAX_BYTES, require, shown
from .inert_arrays import array_of

MAX_FEATURES = 2**20
MAX_CLASSES = 1000


@dataclass
class Reading:
    """What was read of one file so far, so that small files cannot ask for large results.

    Attributes:
        where: The file.
        versions: Those of scikit-learn that its estimators name.
        estimators: How many were made.
        size: Bytes of their arrays.
    """

    where: str
    versions: set[str] = field(default_factory=set)
    estimators: int = 0
    size: int = 0


Kind = Callable[[Any, str, dict[str, int], Reading, int], Any]


def one_of(*allowed: Any) -> Kind:
    """Make the kind of a value of some, of their very types."""

    def read(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
        right = any(type(value) is type(option) and value == option for option in allowed)
        require(right, f"{where} expects one of {allowed}, but got {shown(value)}.")
        return value

    return read


FLAG = one_of(False, True)


def word(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
    """Read a short printable text."""
    right = isinstance(value, str) and value.isprintable() and len(value) <= 80
    require(right, f"{where} expects a word, but got {shown(value)}.")
    return value


def numbers(*shapes: str, lowest: float = -math.inf, dtype: Any = None, gaps: bool = False, none: bool = False) -> Kind:
    """Make the kind of an array whose shape is one of some, such as `"k n"`.

    Args:
        shapes: What it may be; the empty one is a number.
        lowest: Below which no value lies.
        dtype: What it is turned into; None keeps the file's.
        gaps: Whether NaN may stand for what is missing.
        none: Whether None may stand there.
    """

    def read(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
        if value is None and none:
            return None
        array = array_of(value, where)
        reading.size += array.nbytes
        require(reading.size <= MAX_BYTES, f"{reading.where} expects arrays of at most {MAX_BYTES:,} bytes.")
        require(any(_fits(array.shape, shape, sizes) for shape in shapes), _misfit(where, array.shape, shapes, sizes))
        finite = np.isfinite(array) | np.isnan(array) if gaps else np.isfinite(array)
        require(bool(finite.all()), f"{where} expects finite numbers, but holds others.")
        require(not (array < lowest).any(), f"{where} expects no number under {lowest:.3g}, but holds one.")
        if dtype is not None:
            array = np.ascontiguousarray(array, dtype)
        return array[()] if array.ndim == 0 else array

    return read


def _fits(shape: tuple[int, ...], expected: str, sizes: dict[str, int]) -> bool:
    letters = expected.split()
    if len(letters) != len(shape):
        return False
    bound = dict(sizes)
    for letter, size in zip(letters, shape, strict=True):
        if size != (int(letter) if letter.isdigit() else bound.setdefault(letter, max(size, 1))):
            return False
    sizes.update(bound)
    return True


def _misfit(where: str, shape: tuple[int, ...], shapes: tuple[str, ...], sizes: dict[str, int]) -> str:
    known = {letter: size for letter, size in sizes.items() if any(letter in expected for expected in shapes)}
    return f"{where} expects the shape {' or '.join(map(repr, shapes))} with {known}, but got {shape}."


def whole(least: int, most: int) -> Kind:
    """Make the kind of a whole number between two."""

    def read(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
        number = array_of(value, where)
        right = number.ndim == 0 and number.dtype.kind in "iu" and least <= number <= most
        require(bool(right), f"{where} expects a whole number from {least} to {most:,}, but got {shown(value)}.")
        return int(number)

    return read


def feature_count(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
    """Read how many features an estimator takes, which the shapes of its arrays must agree with."""
    sizes["n"] = whole(1, MAX_FEATURES)(value, where, sizes, reading, depth)
    return sizes["n"]


def known_classes(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
    """Read ascending classes, which say how many coefficients and pairs there are."""
    classes: NDArray[Any] = numbers("c")(value, where, sizes, reading, depth)
    c = len(classes)
    values = classes.astype(np.float64)
    right = 2 <= c <= MAX_CLASSES and bool((np.diff(values) > 0).all() and (np.abs(values) < 2**31).all())
    require(right, f"{where} expects 2 to {MAX_CLASSES} ascending classes, but got {c}, in disorder, or too large.")
    sizes.update(sizes_of_classes(c))
    return classes


def sizes_of_classes(c: int) -> dict[str, int]:
    """Return the letters that a number of classes stands for."""
    return {"c": c, "k": 1 if c == 2 else c, "d": c - 1, "p": c * (c - 1) // 2}
