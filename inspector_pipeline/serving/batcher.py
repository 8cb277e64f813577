"""Join pairs of concurrent requests into windows that one thread scores."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..engine import WINDOW_ROWS
from ..files.tables import Row
from ..jobs.window import Outcome, score_window
from ..pipeline_inspector import InspectorPipeline

logger = logging.getLogger(__name__)

SMOOTHING = 0.2  # of the measured speed
FIRST_GUESS = 50.0  # pairs a second, before anything was measured


class QueueFullError(Exception):
    """More pairs wait than may wait; `seconds` says when there will be room."""

    def __init__(self, seconds: int) -> None:
        """Say when to come again."""
        super().__init__(f"The queue is full. Come again in {seconds} s.")
        self.seconds = seconds


class ScoringFailedError(Exception):
    """Pairs could not be scored by no fault of theirs; the log says why."""


@dataclass(eq=False)
class Request:
    """Pairs of one request, which may be scored in more than one window.

    Attributes:
        pairs: What to score.
        done: Gets one outcome a pair.
        outcomes: What there is so far.
        taken: How many pairs were taken into windows.
    """

    pairs: list[Row]
    done: asyncio.Future[list[Outcome]]
    outcomes: list[Outcome] = field(default_factory=list)
    taken: int = 0


class Batcher:
    """Scores pairs of many requests, as many at a time as wait, up to a window.

    Nothing waits for company: while a window is scored, the pairs of the next one gather.
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
        self.waiting = 0  # pairs
        self.ended = False  # nothing can be scored any more
        self._on_window = on_window
        self._requests: deque[Request] = deque()  # with pairs that were not taken into a window
        self._unanswered: set[Request] = set()
        self._arrived = asyncio.Event()
        self._speed = FIRST_GUESS

    async def score(self, pairs: list[Row]) -> list[Outcome]:
        """Score the pairs of a request.

        Raises:
            QueueFullError: They would make the queue too long.
            ScoringFailedError: Their window failed, or the task that runs windows has ended.
        """
        if self.ended:
            raise ScoringFailedError("The server scores no more, and must be started again.")
        if self.waiting + len(pairs) > self.max_queue:
            raise QueueFullError(max(1, math.ceil(self.waiting / self._speed)))
        request = Request(pairs, asyncio.get_running_loop().create_future())
        self.waiting += len(pairs)
        self._requests.append(request)
        self._arrived.set()
        self._unanswered.add(request)
        try:
            return await request.done
        finally:
            self._unanswered.remove(request)

    async def run(self) -> None:
        """Score until cancelled; what waits when it ends, for whatever reason, is told so."""
        try:
            await self._score_windows()
        finally:
            self.ended = True
            self._fail(self._unanswered, "The server has stopped scoring.")

    async def _score_windows(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "judge") as thread:
            while True:
                await self._arrived.wait()
                window = self._next_window()
                if not window:
                    self._arrived.clear()
                    continue
                started = time.monotonic()
                pairs = [pair for _, some in window for pair in some]
                work = loop.run_in_executor(thread, score_window, self.judge, pairs)
                found = (await asyncio.gather(work, return_exceptions=True))[0]
                self.waiting -= len(pairs)
                if isinstance(found, BaseException):
                    logger.error("A window of %d pairs failed.", len(pairs), exc_info=found)
                    self._fail((request for request, _ in window), f"Scoring failed: {type(found).__name__}.")
                    continue
                seconds = time.monotonic() - started
                self._speed += SMOOTHING * (len(pairs) / max(seconds, 1e-9) - self._speed)
                self._on_window(found, seconds)
                self._deliver(window, found)

    def _next_window(self) -> list[tuple[Request, list[Row]]]:
        """Take pairs in the order of their arrival; a request that nobody waits for any more is left out."""
        window: list[tuple[Request, list[Row]]] = []
        room = WINDOW_ROWS
        while self._requests and room:
            request = self._requests[0]
            some = request.pairs[request.taken : request.taken + room]
            request.taken += len(some)
            if request.done.done():
                self.waiting -= len(some) + len(request.pairs) - request.taken
                request.taken = len(request.pairs)
            else:
                window.append((request, some))
                room -= len(some)
            if request.taken == len(request.pairs):
                self._requests.popleft()
        return window

    @staticmethod
    def _deliver(window: list[tuple[Request, list[Row]]], outcomes: list[Outcome]) -> None:
        at = 0
        for request, some in window:
            request.outcomes += outcomes[at : at + len(some)]
            at += len(some)
            if len(request.outcomes) == len(request.pairs) and not request.done.done():
                request.done.set_result(request.outcomes)

    @staticmethod
    def _fail(requests: Iterable[Request], why: str) -> None:
        for request in requests:
            if not request.done.done():
                request.done.set_exception(ScoringFailedError(f"{why} The server's log says more."))
