"""Join pairs of concurrent requests into windows that one thread scores."""

import asyncio
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from ..batches import WINDOW_ROWS
from ..devices import token_budget
from ..files.entries import Row
from ..jobs.window import Outcome, score_window
from ..pipeline_inspector import InspectorPipeline
from ..progress import CHARACTERS, Sizes

logger = logging.getLogger(__name__)

SMOOTHING = 0.2  # of the measured speed
FIRST_GUESS = 50.0  # pairs a second, before anything was measured
TURN = 16  # pairs that a request is given at a time, while others wait
WINDOW_PASSES = 4  # of which a window is at most, about: enough for full passes, few enough that nobody waits long

PairAndAnswer = tuple[Row, asyncio.Future[Outcome]]


class QueueFullError(Exception):
    """More pairs wait than may wait; `seconds` says when there will be room."""

    def __init__(self, seconds: int) -> None:
        """Say when to come again."""
        super().__init__(f"The queue is full. Come again in {seconds} s.")
        self.seconds = seconds


class ScoringFailedError(Exception):
    """Pairs could not be scored by no fault of theirs; the log says why."""


class Batcher:
    """Scores pairs of many requests, as many at a time as wait, up to a few passes.

    Nothing waits for company: while a window is scored, the pairs of the next one gather. Requests take turns, so that
    a small one does not wait for all pairs of a large one.
    """

    def __init__(
        self, judge: InspectorPipeline, max_queue: int, on_window: Callable[[list[Outcome], float], None]
    ) -> None:
        """Prepare.

        Args:
            judge: The judge; nothing else may use it.
            max_queue: How many pairs may wait.
            on_window: Told of each window's outcomes and of the seconds that it took.
        """
        self.judge = judge
        self.max_queue = max_queue
        self.ended = False  # nothing can be scored any more
        self._on_window = on_window
        self._size = Sizes(judge.encode.keys, judge.encode.encoders.values())
        self._most = WINDOW_PASSES * CHARACTERS * token_budget(judge.device)
        self._queue: deque[deque[PairAndAnswer]] = deque()  # of requests
        self._window: list[PairAndAnswer] = []  # that is being scored
        self._arrived = asyncio.Event()
        self._speed = FIRST_GUESS

    @property
    def waiting(self) -> int:
        """How many pairs wait or are being scored."""
        return sum(not answer.done() for _, answer in chain(self._window, *self._queue))

    @property
    def retry_after(self) -> int:
        """Seconds, 1 or more, after which what waits now will have been scored."""
        return max(1, math.ceil(self.waiting / self._speed))

    async def score(self, pairs: list[Row]) -> list[Outcome]:
        """Score the pairs of a request; where it is cancelled, those that are not being scored yet never are.

        Raises:
            QueueFullError: They would make the queue too long.
            ScoringFailedError: Their window failed, or the task that runs windows has ended.
        """
        if self.ended:
            raise ScoringFailedError("The server scores no more, and must be started again.")
        if self.waiting + len(pairs) > self.max_queue:
            raise QueueFullError(self.retry_after)
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Outcome]] = [loop.create_future() for _ in pairs]
        own = deque(zip(pairs, answers, strict=True))
        self._queue.append(own)
        self._arrived.set()
        try:
            return await asyncio.gather(*answers)
        finally:
            own.clear()

    async def run(self) -> None:
        """Score until cancelled; what waits when it ends, for whatever reason, is told so."""
        thread = ThreadPoolExecutor(1, "judge")
        try:
            while True:
                await self._arrived.wait()
                await self._score_window(thread)
        finally:
            self.ended = True
            thread.shutdown(wait=False)  # a server that ends waits for no window that nobody waits for
            if not isinstance(sys.exception(), asyncio.CancelledError):
                logger.error("The server scores no more, and must be started again.", exc_info=True)
            _fail(chain(self._window, *self._queue), "The server has stopped scoring.")

    def _fill_window(self) -> None:
        """Take pairs of the requests in turn, until there are as many as a few passes take."""
        size = 0
        while self._queue and size < self._most and len(self._window) < WINDOW_ROWS:
            own = self._queue.popleft()
            for _ in range(min(TURN, len(own), WINDOW_ROWS - len(self._window))):
                self._window.append(own.popleft())
                size += self._size(self._window[-1][0])
                if size >= self._most:
                    break
            if own:
                self._queue.append(own)

    async def _score_window(self, thread: ThreadPoolExecutor) -> None:
        """Score the next pairs."""
        self._fill_window()
        if not self._window:
            self._arrived.clear()
            return
        started = time.monotonic()
        pairs = [pair for pair, _ in self._window]
        work = asyncio.get_running_loop().run_in_executor(thread, score_window, self.judge, pairs)
        found = (await asyncio.gather(work, return_exceptions=True))[0]
        if isinstance(found, BaseException):
            logger.error("A window of %d pairs failed.", len(pairs), exc_info=found)
            _fail(self._window, f"Scoring failed: {type(found).__name__}.")
        else:
            seconds = time.monotonic() - started
            self._speed += SMOOTHING * (len(pairs) / max(seconds, 1e-9) - self._speed)
            self._on_window(found, seconds)
            for (_, answer), outcome in zip(self._window, found, strict=True):
                if not answer.done():
                    answer.set_result(outcome)
        self._window = []


def _fail(window: Iterable[PairAndAnswer], why: str) -> None:
    for _, answer in window:
        if not answer.done():
            answer.set_exception(ScoringFailedError(f"{why} The server's log says more."))
