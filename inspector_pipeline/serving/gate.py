"""What every request passes on its way in and out: limits of size and time, and one line in the log.

A body is read whole before anything is made of it. Bodies of requests without an answer yet count against one bound,
whether they arrive, wait or are being scored: where they exceed it, the largest of those that still arrive is refused,
so many halves of large bodies cannot keep small requests out. A request whose client has gone is given up at once.
"""

import asyncio
import hmac
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import SettingsError
from .logs import written
from .problems import refusal

DRAIN_S = 10.0  # how long a refused body is read and forgotten: who is cut off while sending never sees the answer
DRAIN_PAUSE_S = 0.005  # between pieces of refused bodies, all together: reading them takes no time from others
LAST_READ_S = 1.0  # how long bodies may still arrive once the server shuts down
GONE = 499  # logged and counted where nobody waits for an answer any more
CLOSE = {"Connection": "close"}
OPEN_PATHS = ("/health", "/ready", "/docs", "/openapi.json")  # which want no key


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        body_bytes: Of a request's body.
        pairs: Of one request.
        queue: Pairs that may wait, of all requests.
        queue_bytes: Of the bodies of all requests without an answer yet.
        connections: That may be open at a time.
        read_s: Seconds in which a request's head must have arrived, and then its body.
        request_s: Seconds from then to the answer.
        keep_alive_s: Seconds that a connection may idle after an answer.
        shutdown_s: Seconds in which a server that ends answers what it has accepted.
    """

    body_bytes: int = 8_000_000
    pairs: int = 256
    queue: int = 2048
    queue_bytes: int = 64_000_000
    connections: int = 512
    read_s: int = 30
    request_s: int = 600
    keep_alive_s: int = 5
    shutdown_s: int = 8

    def __post_init__(self) -> None:
        """Refuse a queue that a request does not fit into."""
        least = min(getattr(self, one.name) for one in fields(self))
        if least < 1 or self.queue < self.pairs or self.queue_bytes < self.body_bytes:
            raise SettingsError(
                "A server expects limits of 1 or more, queue >= pairs and queue_bytes >= body_bytes, "
                f"but got {self}. Raise the smaller one."
            )


@dataclass(eq=False)
class _Body:
    """A request's body, of which `size` bytes are held until the request is answered."""

    timeout: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    arriving: bool = True
    refusal: HTTPException | None = None  # whatever else arrives
    late: HTTPException | None = None  # where the rest does not arrive in time

    def refuse(self, refusal: HTTPException) -> None:
        """Forget what has arrived and what will; whoever reads the body says why."""
        self.refusal = refusal
        self.data.clear()
        self.size = 0
        self.hurry(DRAIN_S)

    def hurry(self, seconds: float) -> None:
        """Leave the rest no more than so many seconds."""
        if not self.timeout.expired():
            self.timeout.reschedule(min(self.timeout.when() or 0, asyncio.get_running_loop().time() + seconds))


class Bodies:
    """The bodies of all requests that have no answer yet.

    Args:
        limits: What the server accepts.
        retry_after: Gives the seconds after which there may be room again.
    """

    def __init__(self, limits: Limits, retry_after: Callable[[], int]) -> None:
        """Hold none."""
        self.limits = limits
        self.retry_after = retry_after
        self.held: set[_Body] = set()
        self._drain = asyncio.Lock()  # that refused bodies take turns
        self.ending = False

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return sum(body.size for body in self.held)

    async def read(self, body: _Body, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """Read a body whole.

        Returns:
            The body, or None where the client has gone.

        Raises:
            HTTPException: 413 it is too large, 408 it did not arrive in time, 429 there is no room for it, 503 the
                server ends; the connection must be closed.
        """
        too_large = HTTPException(
            413, f"A request expects a body of at most {self.limits.body_bytes} bytes. Send fewer pairs.", CLOSE
        )
        try:
            is_large = int(headers.get(b"content-length", b"0")) > self.limits.body_bytes
            if is_large and b"expect" in headers:
                raise too_large
            async with asyncio.timeout(self.limits.read_s) as body.timeout:
                more = True
                if is_large:
                    body.refuse(too_large)  # nothing of it is kept
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    more = message.get("more_body", False)
                    if body.refusal is None:
                        body.data += message.get("body", b"")
                        body.size = len(body.data)
                        if body.size > self.limits.body_bytes:
                            body.refuse(too_large)
                        self._make_room()
                    elif more:
                        async with self._drain:
                            await asyncio.sleep(DRAIN_PAUSE_S)
        except TimeoutError:
            late = f"A request expects its body within {self.limits.read_s} s. Send it faster, or fewer pairs."
            body.refusal = body.refusal or body.late or HTTPException(408, late, CLOSE)
        finally:
            body.arriving = False
        if body.refusal is not None:
            raise body.refusal
        data = bytes(body.data)
        body.data.clear()
        return data

    def _make_room(self) -> None:
        while self.size > self.limits.queue_bytes:
            largest = max((body for body in self.held if body.arriving), key=lambda body: body.size)
            seconds = self.retry_after()
            full = f"The server holds as many bytes of requests as it may. Come again in {seconds} s."
            largest.refuse(HTTPException(429, full, {"Retry-After": str(seconds), **CLOSE}))

    def stop(self) -> None:
        """Refuse what has not arrived in a moment: the server ends."""
        self.ending = True
        for body in self.held:
            if body.arriving:
                body.late = _ending()
                body.hurry(LAST_READ_S)


class Gate:
    """Lets requests in within limits, gives up those whose client has gone, counts those to one path, and logs."""

    def __init__(
        self,
        app: ASGIApp,
        bodies: Bodies,
        on_answer: Callable[[str, int], None],
        access_log: logging.Logger | None,
        api_key: str | None = None,
    ) -> None:
        """Wrap an app.

        Args:
            app: What answers.
            bodies: Of all requests.
            on_answer: Told of each answer's path and code.
            access_log: Gets a JSON object for each request; None: none is written.
            api_key: What requests must bring, but those for `OPEN_PATHS`; None lets all in.
        """
        self.api_key = api_key
        self.app = app
        self.bodies = bodies
        self.on_answer = on_answer
        self.access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status = GONE
        body = _Body()
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.bodies.held.add(body)
        try:
            await self._answer(body, scope, receive_counted, send_noted)
        except (HTTPException, asyncio.CancelledError) as error:  # uvicorn cancels what it has waited for long enough
            told = error if isinstance(error, HTTPException) else _ending()
            if status == GONE:  # else an answer is under way, and the connection is closed instead
                await refusal(told.status_code, told.detail, told.headers)(scope, receive, send_noted)
        finally:
            if sys.exception() is not None and status == GONE:  # the server's fault, which uvicorn answers and logs
                status = 500
            self.bodies.held.discard(body)
            self.on_answer(scope["path"], status)
            if self.access_log is not None:
                self.access_log.info(_line(scope, status, arrived, time.monotonic() - started))

    def _check_key(self, scope: Scope) -> None:
        """Refuse a request without the key before its body is read; in the time that any wrong key takes."""
        if self.api_key is None or scope["path"] in OPEN_PATHS:
            return
        given = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(given, self.api_key.encode()):
            told = "A request expects the server's API key. Send it as Authorization: Bearer KEY."
            raise HTTPException(401, told, {"WWW-Authenticate": "Bearer", **CLOSE})

    async def _answer(self, body: _Body, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_key(scope)
        data = await self.bodies.read(body, dict(scope["headers"]), receive)
        if data is None:
            return
        gone = asyncio.ensure_future(receive())
        messages: list[Message] = [{"type": "http.request", "body": data}]
        del data  # which is not needed once it is parsed

        async def receive_read() -> Message:
            return messages.pop() if messages else await asyncio.shield(gone)

        work = asyncio.ensure_future(self.app(scope, receive_read, send))
        try:
            seconds = self.bodies.limits.request_s
            done, _ = await asyncio.wait({gone, work}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                work.result()
            elif not done:
                late = f"The request could not be answered within {seconds} s. Send it again, or fewer pairs."
                raise HTTPException(504, late, {"Retry-After": str(self.bodies.retry_after()), **CLOSE})
        finally:
            gone.cancel()
            work.cancel()


def _ending() -> HTTPException:
    return HTTPException(503, "The server shuts down. Send the request again.", {"Retry-After": "5", **CLOSE})


def _line(scope: Scope, status: int, size: int, seconds: float) -> str:
    """Describe a request in JSON: of what its sender wrote only its method and, where it is one of ours, its path."""
    client, path = scope.get("client"), scope["path"]
    return written(
        {
            "client": client[0] if client else None,
            "method": scope["method"][:16],
            "path": path if path in {getattr(route, "path", None) for route in scope["app"].routes} else None,
            "status": status,
            "bytes": size,
            "pairs": scope.get("state", {}).get("pairs"),
            "seconds": round(seconds, 4),
        }
    )
