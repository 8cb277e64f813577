"""How a process asks the system for memory, where the C library is glibc.

A pass allocates and frees blocks of several megabytes in every layer. glibc hands each of them back and asks anew, and
the system clears each page again: a sixth of the time of a judge on a CPU. A process that only judges keeps them.
"""

import ctypes
import os
import sys
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 256 * 2**20  # freed memory that is not handed back
_LARGEST_BYTES = 32 * 2**20  # of a block that is taken from it; glibc allows no more
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process, and those that it forks, keep memory that it has freed, up to 256 MiB.

    Only for processes of our own, not for a program that imports the package; there the environment variables
    `MALLOC_TRIM_THRESHOLD_` and `MALLOC_MMAP_THRESHOLD_` do the same.

    Returns:
        Whether it was done: not where the environment says otherwise, or the C library is not glibc.
    """
    mallopt = None if any(name in os.environ for name in _OWN_SETTINGS) else _of_glibc("mallopt")
    settings = ((_M_MMAP_THRESHOLD, _LARGEST_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES))
    return mallopt is not None and all(mallopt(name, size) == 1 for name, size in settings)


def return_freed_memory() -> None:
    """Hand back what was freed so far, as when weights in another form have taken the place of those that were read."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    """Find a function of the C library; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
