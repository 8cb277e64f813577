"""A job's progress: rows while its input is read; then pairs, pairs/s, tokens/s and the time that is left."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm.auto import tqdm

EVERY_S = 0.5
EVERY_S_IN_A_LOG = 30.0

T = TypeVar("T")


class Bar(tqdm):
    """A bar on standard error; in a log it is written seldom."""

    monitor_interval = 0  # no thread of its own

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin; the arguments are tqdm's."""
        seconds = EVERY_S if sys.stderr.isatty() else EVERY_S_IN_A_LOG
        super().__init__(*args, mininterval=seconds, miniters=1, file=sys.stderr, **kwargs)


# tqdm's own lock is shared by all processes that were forked from one, and a killed one would never give it back.
Bar.set_lock(threading.RLock())


def counted(rows: Iterable[T]) -> Iterator[T]:
    """Pass on the rows of an input, and say on standard error that it is read, and how many there were."""
    yield from Bar(rows, desc="reading the input", unit=" rows")


class Progress(Bar):
    """The bar of a job's pairs."""

    def __init__(self, rows: int, name: str) -> None:
        """Begin.

        Args:
            rows: How many rows there are to do.
            name: What the bar is called.
        """
        super().__init__(total=rows, desc=name, unit=" pairs", smoothing=0.05)
        self._tokens = 0
        self._started = time.monotonic()

    def skip(self, rows: int) -> None:
        """Count rows of an earlier run, which say nothing of the speed."""
        self.initial += rows
        self.n += rows
        self.refresh()

    def add(self, rows: int, tokens: int) -> None:
        """Count rows that were done."""
        self._tokens += tokens
        speed = self._tokens / max(time.monotonic() - self._started, 1e-9)
        self.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
        self.update(rows)
