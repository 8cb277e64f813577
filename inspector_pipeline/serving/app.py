"""`inspector serve`: a judge behind HTTP.

    POST /score     {"pairs": [{"question": ..., "prediction": ...}, ...]} -> {"results": [...]}, one a pair, in order
    GET  /health    200 while it serves, 503 once nothing can be scored any more
    GET  /metrics   for Prometheus
    GET  /docs      the API, from /openapi.json

A judge that reads the question alone takes pairs without `prediction`. Pairs of concurrent requests are scored
together, so in bfloat16 a score may depend a little on what came along with it; in float32 it does not. A request is
refused whole: 413 where it is too large, 422 where a pair cannot be scored (the message says which), 503 with
Retry-After where too many pairs wait, 500 where the server has failed. On SIGTERM what was accepted is answered first.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import PairError, SettingsError
from ..jobs.window import Outcome
from ..pipeline_inspector import InspectorPipeline
from ..template import check_pair
from .batcher import Batcher, QueueFullError, ScoringFailedError

SCORE = "/score"
DRAIN_S = 10.0  # how long a body that is too large is read, so that its sender can be told
WINDOW_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CODES: dict[type[Exception], int] = {PairError: 422, QueueFullError: 503, ScoringFailedError: 500}


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        body_bytes: Of a request's body.
        pairs: Of one request.
        queue: Pairs that may wait, of all requests.
    """

    body_bytes: int = 8_000_000
    pairs: int = 256
    queue: int = 2048

    def __post_init__(self) -> None:
        """Refuse a queue that a request does not fit into."""
        if min(self.body_bytes, self.pairs) < 1 or self.queue < self.pairs:
            raise SettingsError(f"A server expects limits of 1 or more and queue >= pairs, but got {self}.")


class Pair(BaseModel):
    """A question with one response."""

    model_config = ConfigDict(strict=True)
    question: str
    prediction: str


class ScoreRequest(BaseModel):
    """Pairs to score."""

    pairs: Annotated[list[Pair], Field(min_length=1)]


class Question(BaseModel):
    """A question alone; further keys are ignored."""

    model_config = ConfigDict(strict=True)
    question: str


class QuestionsRequest(BaseModel):
    """Questions to score, for a judge that reads no response."""

    pairs: Annotated[list[Question], Field(min_length=1)]


class Result(BaseModel):
    """What a judge says of a pair."""

    scores: dict[str, int]
    total_score: int
    expected: dict[str, float]
    probabilities: dict[str, dict[int, float]]
    truncated: bool


class ScoreResponse(BaseModel):
    """One result a pair, in order."""

    results: list[Result]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class ScoreRequests:
    """Counts requests to /score by the code of their answer, and refuses a body that is too large."""

    def __init__(self, app: ASGIApp, body_bytes: int, requests: Counter) -> None:
        """Wrap an app."""
        self.app = app
        self.body_bytes = body_bytes
        self.requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["path"] != SCORE:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refused_unread = b"expect" in headers and int(headers.get(b"content-length", b"0")) > self.body_bytes
        left = -1 if refused_unread else self.body_bytes

        async def receive_some() -> Message:
            nonlocal left
            message: Message = {} if refused_unread else await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                if message.get("more_body"):
                    await _drain(receive)
                fault = f"A request expects a body of at most {self.body_bytes} bytes. Send fewer pairs."
                raise HTTPException(413, fault, {"Connection": "close"})
            return message

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.requests.labels(str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive_some, send_counted)


async def _drain(receive: Receive) -> None:
    """Read what is left of a body, and forget it: a client that is cut off while it sends never sees the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            message = await receive()
            while message["type"] != "http.disconnect" and message.get("more_body", False):
                message = await receive()


class Metrics:
    """What Prometheus is told."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("inspector_requests", "Requests to /score", ["code"], **own)
        self.seconds = Histogram("inspector_request_seconds", "Time from request to answer", **own)
        self.pairs = Counter("inspector_pairs", "Pairs scored", **own)
        self.tokens = Counter("inspector_tokens", "Tokens read", **own)
        self.truncated = Counter("inspector_truncated_pairs", "Pairs that were cut to the judge's limit", **own)
        self.window = Histogram("inspector_window_pairs", "Pairs scored at a time", buckets=WINDOW_SIZES, **own)
        self.window_seconds = Histogram("inspector_window_seconds", "Time of such a window", **own)
        self.waiting = Gauge("inspector_waiting_pairs", "Pairs that wait or are being scored", **own)

    def on_window(self, outcomes: list[Outcome], seconds: float) -> None:
        """Count a window."""
        results = [outcome.result for outcome in outcomes if outcome.result is not None]
        self.pairs.inc(len(results))
        self.tokens.inc(sum(outcome.tokens for outcome in outcomes))
        self.truncated.inc(sum(result["truncated"] for result in results))
        self.window.observe(len(outcomes))
        self.window_seconds.observe(seconds)


def make_app(judge: InspectorPipeline, limits: Limits | None = None) -> FastAPI:
    """Build the server's app.

    Args:
        judge: A loaded judge, which the app then owns.
        limits: What it accepts.

    Example:
        >>> uvicorn.run(make_app(load_judge()))  # doctest: +SKIP
    """
    limits = limits or Limits()
    metrics = Metrics()
    batcher = Batcher(judge, limits.queue, metrics.on_window)
    metrics.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    app = FastAPI(title="Inspector", description="Scores (question, response) pairs.", lifespan=lifespan)
    app.add_middleware(ScoreRequests, body_bytes=limits.body_bytes, requests=metrics.requests)
    problems: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (400, 413, 422, 500, 503)}

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may hold what JSON cannot.
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]]
        return JSONResponse({"detail": ascii("; ".join(faults))[1:-1]}, 422)

    async def score(request: ScoreRequest | QuestionsRequest) -> JSONResponse:
        """Score pairs; each gets whole-number scores, their total, expected scores and probabilities."""
        with metrics.seconds.time():
            return JSONResponse({"results": await _score(batcher, request, limits)})

    # FastAPI reads what a request holds from here.
    score.__annotations__["request"] = ScoreRequest if "prediction" in judge.encode.keys else QuestionsRequest
    app.post(SCORE, response_model=ScoreResponse, responses=problems)(score)

    @app.get("/health", responses={503: {"description": "It must be started again"}})
    async def health() -> JSONResponse:
        """Say whether the server serves, and how many pairs wait."""
        status, code = ("failed", 503) if batcher.ended else ("ok", 200)
        return JSONResponse({"status": status, "waiting": batcher.waiting}, code)

    @app.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """Tell Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _score(batcher: Batcher, request: ScoreRequest | QuestionsRequest, limits: Limits) -> list[Any]:
    if len(request.pairs) > limits.pairs:
        raise HTTPException(
            413, f"A request expects at most {limits.pairs} pairs, but got {len(request.pairs)}. Divide it."
        )
    pairs = [pair.model_dump() for pair in request.pairs]
    try:
        for index, pair in enumerate(pairs):
            check_pair(pair, index, batcher.judge.encode.keys)
        outcomes = await batcher.score(pairs)
    except tuple(CODES) as error:
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, QueueFullError) else None
        raise HTTPException(CODES[type(error)], str(error), headers) from error
    for index, outcome in enumerate(outcomes):
        if outcome.reason is not None:
            raise HTTPException(422, f"Pair {index} cannot be scored: {outcome.reason}")
    return [outcome.result for outcome in outcomes]
