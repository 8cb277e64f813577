"""Progress that is true: bars that move with each pass, by tokens, with an end estimated from the tokens left.

How many tokens pairs have is known once they are tokenised, a window ahead. Of those still to come the characters are
known, and how many tokens a character makes is known from those that came: so a file whose long pairs come last is not
said to be nearly done when half of its rows are. On a terminal a bar is drawn anew every second, also within a pass;
elsewhere it is a plain line twice a minute.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from .template import Reading

EVERY_S = 0.5
EVERY_S_IN_A_LOG = 30.0
TICK_S = 1.0  # in which a bar on a terminal is drawn anew, whatever happens
RATE_S = 120.0  # over which speed is measured
COLUMNS, LINES = 80, 24
CHARACTERS = 4  # of a token, about

T = TypeVar("T")


class Bar(tqdm):
    """A bar on standard error; in a log it is a line, and seldom written."""

    monitor_interval = 0  # a thread for all bars, which would only look after those that are slow

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin; the arguments are tqdm's."""
        self.is_plain = not sys.stderr.isatty()
        seconds = EVERY_S_IN_A_LOG if self.is_plain else EVERY_S
        self._ended = threading.Event()
        columns, lines = _terminal()
        kwargs = {"ncols": None if self.is_plain else columns - 1, "nrows": lines, **kwargs}
        super().__init__(*args, mininterval=seconds, miniters=1, file=sys.stderr, **kwargs)
        if not self.is_plain and not self.disable:
            threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_S):
            if time.time() >= self.start_t + self.delay:
                self.refresh()
                self.last_print_t = time.time()  # without which a bar that was drawn here alone gets no last line

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or write its line."""
        if not self.is_plain:
            return bool(super().display(msg, pos))
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return False

    @staticmethod
    def status_printer(file: TextIO) -> Any:
        """Return what draws on a terminal; on none nothing is drawn before the first line."""
        return tqdm.status_printer(file) if file.isatty() else lambda _: None

    def close(self) -> None:
        """Draw it for the last time."""
        self._ended.set()
        if self.is_plain and not self.disable:
            if time.time() >= self.start_t + self.delay:
                self.refresh()
            self.leave = False
        super().close()


def _terminal() -> tuple[int, int]:
    """Return the terminal's columns and lines; one that does not say so is taken for a usual one."""
    try:
        found = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return COLUMNS, LINES
    return found.columns or COLUMNS, found.lines or LINES


# tqdm's own lock is shared by all processes that were forked from one, and a killed one would never give it back.
Bar.set_lock(threading.RLock())


def counted(rows: Iterable[T], desc: str = "reading the input") -> Iterator[T]:
    """Pass on the rows of an input, and say on standard error that it is read, and how many there were."""
    yield from Bar(rows, desc=desc, unit=" rows")


class Sizes:
    """Says how long pairs are before they are tokenised: in characters, the template's included.

    Args:
        keys: The texts that the judge needs of a pair.
        readings: The judge's.
    """

    def __init__(self, keys: Sequence[str], readings: Collection[Reading]) -> None:
        """Measure the templates."""
        self.keys = keys
        self.own = CHARACTERS * round(sum(len(one.opening_ids) for one in readings) / max(1, len(readings)))
        self.most = CHARACTERS * max((one.max_length for one in readings), default=1)

    def __call__(self, pair: Mapping[str, Any]) -> int:
        """Return a pair's size; what is cut counts no more than what is left."""
        texts = (pair.get(key) for key in self.keys)
        return min(self.most, self.own + sum(len(text) for text in texts if isinstance(text, str)))


class Tally:
    """What is done and what is left of some pairs, in tokens.

    Args:
        pairs: How many there are.
        sizes: Their sizes in order, or of each `rows` of them together; those of no size count as much as any other.
        rows: How many pairs one of the sizes is of.
    """

    def __init__(self, pairs: int, sizes: Sequence[int], rows: int = 1) -> None:
        """Begin with nothing done."""
        self.pairs = pairs
        self.sizes = sizes
        self.rows = rows
        self.tokens = 0  # read in this run
        self._at = 0  # of sizes
        self._pairs = 0  # done
        self._left = sum(sizes)
        self.skipped = 0  # pairs of earlier runs
        self._skipped = self._known = self._known_tokens = 0  # sizes, and the tokens of those that are known
        self._window: tuple[int, int, int] = 0, 0, 0  # pairs, tokens, tokens read

    def skip(self, pairs: int) -> None:
        """Count pairs of an earlier run, which say nothing of the speed."""
        self._skipped += self._take(pairs)
        self.skipped += pairs
        self._pairs += pairs

    def begin(self, pairs: int, tokens: int) -> None:
        """Begin the next pairs, which have so many tokens in all readings; those before are done."""
        self.end()
        self._known += self._take(pairs)
        self._known_tokens += tokens
        self._window = pairs, tokens, 0

    def passed(self, tokens: int) -> int:
        """Count tokens that a pass has read; returns how many of them are new."""
        pairs, total, read = self._window
        new = min(tokens, total - read)  # pairs that failed together are read again
        self._window = pairs, total, read + new
        self.tokens += new
        return new

    def end(self) -> int:
        """Count the pairs that were begun as done; returns how many tokens that adds."""
        pairs, tokens, read = self._window
        self._pairs += pairs
        self.tokens += tokens - read
        self._window = 0, 0, 0
        return tokens - read

    @property
    def done(self) -> int:
        """How many pairs are done; those that are being read by their share of tokens."""
        pairs, tokens, read = self._window
        return self._pairs + (pairs * read // tokens if tokens else 0)

    def estimate(self) -> tuple[float, float]:
        """Return the tokens that are done, with those of earlier runs, and all of them, as far as is known."""
        ratio = self._known_tokens / self._known if self._known else 1 / CHARACTERS
        before = self._skipped * ratio
        return before + self.tokens, before + self._known_tokens + self._left * ratio

    def _take(self, pairs: int) -> int:
        """Return the size of the next pairs."""
        end = self._at + -(-pairs // self.rows)
        size = sum(self.sizes[self._at : end])
        self._at = end
        self._left -= size
        return size


class Progress(Bar):
    """The bar of one or more tallies: pairs, and by tokens what is done, the speed, and the time that is left."""

    def __init__(self, name: str, *tallies: Tally, **options: Any) -> None:
        """Begin.

        Args:
            name: What the bar is called.
            *tallies: Of all pairs; the methods count in the first.
            **options: tqdm's.
        """
        self.tallies = tallies
        self._speeds: deque[tuple[float, int]] = deque()
        shape = "{l_bar}{bar}| {pairs} [{elapsed}<{remaining}, {pairs_a_second} pairs/s, {tokens_a_second} tokens/s]"
        super().__init__(desc=name, total=sum(one.pairs for one in tallies), bar_format=shape, **options)

    def skip(self, pairs: int) -> None:
        """Count pairs of an earlier run."""
        self.tallies[0].skip(pairs)

    def begin(self, pairs: int, tokens: int) -> None:
        """Begin the next pairs; see `Tally`."""
        self.tallies[0].begin(pairs, tokens)
        self.moved(0)

    def passed(self, tokens: int) -> None:
        """Count the tokens of a pass."""
        self.moved(self.tallies[0].passed(tokens))

    def end(self) -> None:
        """Count the pairs that were begun as done."""
        self.moved(self.tallies[0].end())

    def moved(self, tokens: int) -> None:
        """Say that so many tokens were read, and draw the bar where it is time."""
        now = time.monotonic()
        if not self._speeds or tokens:
            self._speeds.append((now, sum(one.tokens for one in self.tallies)))
        while len(self._speeds) > 2 and now - self._speeds[1][0] > RATE_S:
            self._speeds.popleft()
        self.update(max(1, tokens))

    def close(self) -> None:
        """Draw it for the last time, with all that was begun."""
        if not self.disable and sys.exception() is None:
            for one in self.tallies:
                one.end()
        super().close()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What a bar is written from."""
        done, total = (sum(column) for column in zip(*(one.estimate() for one in self.tallies), strict=True))
        pairs = sum(one.done for one in self.tallies)
        tokens = sum(one.tokens for one in self.tallies)
        ahead = tokens and (pairs - sum(one.skipped for one in self.tallies)) / tokens
        (begun, before), (last, now) = (self._speeds[0], self._speeds[-1]) if self._speeds else ((0, 0), (0, 0))
        speed = (now - before) / (last - begun) if last > begun else None
        return {
            **super().format_dict,
            "n": min(done, total),
            "total": total,
            "rate": speed,
            "pairs": f"{pairs}/{sum(one.pairs for one in self.tallies)}",
            "pairs_a_second": f"{speed * ahead:.2f}" if speed else "?",
            "tokens_a_second": f"{speed:,.0f}" if speed else "?",
        }
