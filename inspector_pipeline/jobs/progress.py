"""A job's progress: rows while its input is read; then pairs, pairs/s, tokens/s and the time that is left."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm.auto import tqdm

EVERY_S = 0.5
EVERY_S_IN_A_LOG = 30.0

T = TypeVar("T")


def counted(rows: Iterable[T]) -> Iterator[T]:
    """Pass on the rows of an input, and say on standard error that it is read, and how many there were."""
    yield from tqdm(rows, desc="reading the input", unit=" rows", mininterval=_every(), file=sys.stderr)


def _every() -> float:
    return EVERY_S if sys.stderr.isatty() else EVERY_S_IN_A_LOG


class Progress:
    """A bar on standard error; in a log it is written seldom."""

    def __init__(self, rows: int, name: str) -> None:
        """Begin.

        Args:
            rows: How many rows there are to do.
            name: What the bar is called.
        """
        self._bar = tqdm(total=rows, desc=name, unit=" pairs", mininterval=_every(), file=sys.stderr, smoothing=0.05)
        self._tokens = 0
        self._started = time.monotonic()

    def __enter__(self) -> "Progress":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def skip(self, rows: int) -> None:
        """Count rows of an earlier run, which say nothing of the speed."""
        self._bar.initial += rows
        self._bar.n += rows
        self._bar.refresh()

    def add(self, rows: int, tokens: int) -> None:
        """Count rows that were done."""
        self._tokens += tokens
        speed = self._tokens / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
        self._bar.update(rows)
