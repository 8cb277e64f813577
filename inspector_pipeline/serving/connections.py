"""Connections that are bounded in number and in time; what their limits are is read from the app's lifespan state."""

import asyncio
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

from .problems import content

_BODY = json.dumps(content(429, "Too many connections are open. Come again in 5 s.")).encode()
FULL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Connection(H11Protocol):
    """A connection on which a request's head must arrive in time, even byte by byte; one too many is refused."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse it where too many are open."""
        super().connection_made(transport)
        self._expect_head()
        if len(self.connections) > self.app_state["limits"].connections:
            transport.write(FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; what is not a whole head must become one in time."""
        super().data_received(data)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        super().connection_lost(exc)
        self._forget_deadline()

    def shutdown(self) -> None:
        """Take no further request; a body that is still arriving is refused."""
        self.app_state["bodies"].stop()
        super().shutdown()

    def _expect_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_deadline()
        elif self._deadline is None:
            seconds = self.app_state["limits"].read_s
            self._deadline = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
