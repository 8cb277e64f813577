"""Arrays of numbers from plain data: from a pickle's records of numpy's constructors, and from the bytes of a .npy.

The bytes are copied into an array of a checked dtype and shape. Objects, text, dates and structured values are
refused, and so is a shape that does not take up exactly the bytes there are.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inert import ARRAY_MAKERS, BUFFER_MAKERS, MAX_BYTES, SCALAR_MAKERS, Record, refuse, require, shown

NUMBER = re.compile(r"b1|[iu][1248]|f[248]")
NPY = re.compile(rb"\{'descr': '([<>|])([biuf]\d)', 'fortran_order': (False|True), 'shape': \(([\d, ]{0,80})\), \} *\n")
NPY_HEADERS = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}  # -> bytes of the header's length
MAX_DIMENSIONS = 3


def array_of(value: Any, where: str) -> NDArray[Any]:
    """Read an array, or a number as an array of no dimensions.

    Args:
        value: A number, or the `Record` of an array or a numpy scalar.
        where: File and field, for messages.

    Returns:
        The array; it owns its memory, in the file's order.

    Raises:
        UnsafePickleError: It is no array of numbers.
    """
    if isinstance(value, (bool, int, float)):
        require(not isinstance(value, int) or value.bit_length() < 63, f"{where} expects a number, but got a huge one.")
        return np.array(value)
    require(isinstance(value, Record), f"{where} expects numbers, but got {shown(value)}.")
    args: tuple[Any, ...] = value.args or ()
    state = value.state
    if value.name == "npy" and len(args) == 1:
        return _of_npy(args[0], where)
    if value.name in SCALAR_MAKERS and len(args) == 2:
        return _of_bytes(args[1], args[0], (), False, where)
    if value.name in BUFFER_MAKERS and len(args) == 4:
        require(args[3] in ("C", "F"), f"{where} expects an array in the order C or F, but got {shown(args[3])}.")
        return _of_bytes(args[0], args[1], args[2], args[3] == "F", where)
    if value.name in ARRAY_MAKERS and len(args) == 3 and type(state) is tuple and len(state) == 5:
        plain = isinstance(args[0], Record) and args[0].name == "numpy.ndarray"
        require(plain, f"{where} expects a plain array, but got {shown(args[0])}.")
        return _of_bytes(state[4], state[2], state[1], state[3], where)
    return refuse(f"{where} expects an array of numbers, but got {shown(value)}.")


def _of_bytes(data: Any, dtype: Any, shape: Any, fortran: Any, where: str) -> NDArray[Any]:
    code: Any
    order: Any
    require(isinstance(dtype, Record) and dtype.name == "numpy.dtype", f"{where} expects a dtype, not {shown(dtype)}.")
    code, state = (dtype.args or (None,))[0], dtype.state
    require(
        isinstance(code, str) and NUMBER.fullmatch(code) is not None, f"{where} expects numbers, not {shown(code)}."
    )
    order = "|" if state is None else state[1] if type(state) is tuple and len(state) == 8 else None
    right = order in ("<", ">", "|", "=") and (state is None or state[2:5] == (None, None, None))
    require(right, f"{where} expects a plain dtype, but got {code} with a state of its own.")
    return _filled(data, order, code, shape, fortran, where)


def _of_npy(data: bytes, where: str) -> NDArray[Any]:
    """Read a .npy, whose header is matched whole and not evaluated."""
    width = NPY_HEADERS.get(data[:8], 0)
    start = 8 + width
    end = start + int.from_bytes(data[8:start], "little")
    header = NPY.fullmatch(data[start:end]) if width else None
    if header is None:
        refuse(f"{where} expects a .npy of numbers, but its header is {shown(data[start:end])}.")
    order, code, fortran, shape = (group.decode() for group in header.groups())
    require(NUMBER.fullmatch(code) is not None, f"{where} expects numbers, not {code}.")
    sizes = tuple(int(size) for size in shape.replace(" ", "").split(",") if size)
    return _filled(data[end:], order, code, sizes, fortran == "True", where)


def _filled(data: Any, order: str, code: str, shape: Any, fortran: Any, where: str) -> NDArray[Any]:
    sizes = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS
    sizes = sizes and all(type(size) is int and 0 <= size <= MAX_BYTES for size in shape)
    require(sizes, f"{where} expects a shape of at most {MAX_DIMENSIONS} sizes, but got {shown(shape)}.")
    require(type(data) is bytes, f"{where} expects the bytes of numbers, but got {shown(data)}.")
    dtype = np.dtype(f"{order if order in '<>' else '='}{code}")
    expected = math.prod(shape) * dtype.itemsize
    problem = f"{where} expects {expected:,} bytes for its shape {shape} of {code}, but holds {len(data):,}."
    require(len(data) == expected, problem)
    require(code != "b1" or not data.strip(b"\0\1"), f"{where} expects truth values of 0 and 1, but holds others.")
    flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return flat.reshape(shape, order="F" if fortran is True else "C")
