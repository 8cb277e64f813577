"""`inspector serve`: a judge behind HTTP.

    POST /score     {"pairs": [{"question": ..., "prediction": ...}, ...]} -> {"results": [...]}, one a pair, in order
    POST /predict   the same in the shapes of text-embeddings-inference and text-classification, see predict.py
    GET  /health    200 while it serves, 503 once nothing can be scored any more
    GET  /ready     200 while it takes requests, 503 once it ends or nothing can be scored any more
    GET  /metrics   for Prometheus
    GET  /docs      the API, from /openapi.json

A judge that reads the question alone takes pairs without `prediction`. Rows of other tools, such as `messages`, are
read as pairs (rows.py); `columns` beside `pairs` says which of their columns hold what. Pairs of concurrent requests
are scored together, so in bfloat16 a score may depend a little on what came along with it; in float32 it does not. A
request is refused whole: 400 or 415 where it is not JSON in UTF-8, 408 where it arrives too slowly, 413 where it is too
large, 422 where a pair cannot be scored (the message says which), 503 with Retry-After where too much waits, 500 where
the server has failed. One whose client has gone is not scored. On SIGTERM what was accepted is answered first.
Where an API key is set, all but /health, /ready and the API's pages want it, as `Authorization: Bearer KEY`, else 401.
"""

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import islice
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..decisions import PREFERENCE
from ..errors import PairError
from ..jobs.window import Outcome
from ..pipeline_inspector import InspectorPipeline
from ..rows import SAMPLE_ROWS, RowReader
from ..template import PAIR_KEYS, QUESTION_KEYS, check_pair
from .batcher import Batcher, QueueFullError, ScoringFailedError
from .connections import Connection
from .gate import Bodies, Gate, Limits
from .predict import Prediction, PredictRequest, pairs_of, predictions

SCORE, PREDICT = "/score", "/predict"
JSON_TYPE = re.compile(r"\s*application/([\w.-]+\+)?json\s*(;\s*charset=\"?(utf-?8|us-ascii)\"?\s*)?;?\s*", re.I)
MAX_PARTS = 100_000  # strings, commas and brackets of a body; pairs of one request have a few thousand
# A string counts once, whatever it holds; one without an end goes to the end.
_PART = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,]')
WINDOW_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CODES: dict[type[Exception], int] = {PairError: 422, QueueFullError: 503, ScoringFailedError: 500}


class Turn(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(strict=True)
    role: str
    content: str


class Question(BaseModel):
    """A question alone; further keys are ignored."""

    model_config = ConfigDict(strict=True)
    question: str
    question_turns: list[Turn] | None = None
    reference: str | None = None
    context: str | None = None


class Pair(Question):
    """A question with one response."""

    prediction: str


class QuestionsRequest(BaseModel):
    """Questions to score, for a judge that reads no response; see `ScoreRequest`."""

    pairs: Annotated[list[Question], Field(min_length=1, fail_fast=True)]
    columns: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        """Read rows as pairs."""
        return _as_pairs(data, QUESTION_KEYS)


class ScoreRequest(BaseModel):
    """Pairs to score, or rows as other tools write them, such as `messages`, with one response each.

    `columns` says which of their columns hold the texts where names do not: `{"question": "q", "prediction": "a"}`.
    """

    pairs: Annotated[list[Pair], Field(min_length=1, fail_fast=True)]
    columns: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        """Read rows as pairs."""
        return _as_pairs(data, PAIR_KEYS)


def _as_pairs(data: Any, keys: tuple[str, ...]) -> Any:
    """Read a request's rows; what is none, or holds pairs already, stays as it is."""
    rows = data.get("pairs") if isinstance(data, dict) else None
    columns = data.get("columns") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return data
    if columns is not None and not (
        isinstance(columns, dict) and all(isinstance(one, str) for one in columns.values())
    ):
        return data
    reader = RowReader(columns, keys, where="The request", further=True, several=False)
    reader.settle(rows[:SAMPLE_ROWS], quiet=True)
    return data if reader.is_as_named else {**data, "pairs": [reader.read(row) for row in rows]}


class Result(BaseModel):
    """What a judge says of a pair."""

    scores: dict[str, int | float | str]
    total_score: int | float
    expected: dict[str, float]
    expected_total: float | None
    probabilities: dict[str, dict[int | float | str, float]]
    truncated: bool
    unfamiliar: bool | None
    unfamiliar_reason: str | None
    seen: bool | None
    score_sets: dict[str, list[int | float | str]] | None = None


class ScoreResponse(BaseModel):
    """One result a pair, in order."""

    results: list[Result]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class JsonRequest(Request):
    """A request whose body is taken for JSON only where it says so, and that says what is wrong with it."""

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            JSONDecodeError: It is no JSON; FastAPI says where.
            HTTPException: 400, it is JSON of a kind that is not taken; 413, it has so many parts that nothing else
                would be done while they are read.
        """
        body = await self.body()
        if next(islice(_PART.finditer(body), MAX_PARTS, None), None) is not None:
            raise HTTPException(413, f"A request expects JSON of at most {MAX_PARTS} parts, but got more. Divide it.")
        try:
            # Not of bytes, which may be UTF-16: a sign of two bytes can look like a quote to what counts the parts.
            text = body.decode("utf-8-sig")
            return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            fault = f"A request expects JSON in UTF-8, with distinct keys and not deeply nested, but got: {error}."
            raise HTTPException(400, fault) from error


class JsonRoute(APIRoute):
    """A route that takes JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Check what a body says it is before FastAPI reads it."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            kind = request.headers.get("content-type", "none")
            if request.method == "POST" and not (
                JSON_TYPE.fullmatch(kind) and "content-encoding" not in request.headers
            ):
                raise HTTPException(415, "A request expects Content-Type: application/json, in UTF-8, not compressed.")
            return await handle(JsonRequest(request.scope, request.receive))

        return checked


def _without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        raise ValueError("a key twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON. Write null")


class Metrics:
    """What Prometheus is told."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("inspector_requests", "Requests to /score and /predict", ["code"], **own)
        self.seconds = Histogram("inspector_request_seconds", "Time from request to answer", **own)
        self.pairs = Counter("inspector_pairs", "Pairs scored", **own)
        self.tokens = Counter("inspector_tokens", "Tokens read", **own)
        self.truncated = Counter("inspector_truncated_pairs", "Pairs that were cut to the judge's limit", **own)
        self.window = Histogram("inspector_window_pairs", "Pairs scored at a time", buckets=WINDOW_SIZES, **own)
        self.window_seconds = Histogram("inspector_window_seconds", "Time of such a window", **own)
        self.waiting = Gauge("inspector_waiting_pairs", "Pairs that wait or are being scored", **own)
        self.held = Gauge("inspector_held_bytes", "Bodies of requests without an answer yet", **own)

    def on_answer(self, path: str, code: int) -> None:
        """Count an answer."""
        if path in (SCORE, PREDICT):
            self.requests.labels(str(code)).inc()

    def on_window(self, outcomes: list[Outcome], seconds: float) -> None:
        """Count a window."""
        results = [outcome.result for outcome in outcomes if outcome.result is not None]
        self.pairs.inc(len(results))
        self.tokens.inc(sum(outcome.tokens for outcome in outcomes))
        self.truncated.inc(sum(result["truncated"] for result in results))
        self.window.observe(len(outcomes))
        self.window_seconds.observe(seconds)


def make_app(
    judge: InspectorPipeline,
    limits: Limits | None = None,
    *,
    access_log: logging.Logger | None = None,
    api_key: str | None = None,
) -> FastAPI:
    """Build the server's app; `make_config` says how to run it.

    Args:
        judge: A loaded judge, which the app then owns.
        limits: What it accepts.
        access_log: Gets a JSON object for each request, at INFO.
        api_key: What requests must bring; None lets all in.
    """
    limits = limits or Limits()
    metrics = Metrics()
    batcher = Batcher(judge, limits.queue, metrics.on_window)
    bodies = Bodies(limits, lambda: batcher.retry_after)
    metrics.waiting.set_function(lambda: batcher.waiting)
    metrics.held.set_function(lambda: bodies.size)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        worker = asyncio.create_task(batcher.run())
        yield {"limits": limits, "bodies": bodies}
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    app = FastAPI(title="Inspector", description="Scores (question, response) pairs.", lifespan=lifespan)
    app.router.route_class = JsonRoute
    app.router.redirect_slashes = False  # it would send clients to whatever host they name
    app.add_middleware(Gate, bodies=bodies, on_answer=metrics.on_answer, access_log=access_log, api_key=api_key)
    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem} for code in (400, 401, 408, 413, 415, 422, 500, 503)
    }

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may hold what JSON cannot.
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]]
        return JSONResponse({"detail": ascii("; ".join(faults))[1:-1]}, 422)

    async def score(request: ScoreRequest | QuestionsRequest, http: Request) -> JSONResponse:
        """Score pairs; each gets whole-number scores, their total, expected scores and probabilities."""
        http.state.pairs = len(request.pairs)
        with metrics.seconds.time():
            pairs = [pair.model_dump(exclude_none=True) for pair in request.pairs]
            return JSONResponse({"results": await _score(batcher, pairs, limits)})

    bounds = {
        aspect.name: None if aspect.head.rule == PREFERENCE else (aspect.classes[0], aspect.classes[-1])
        for aspect in judge.model.aspects
    }

    @app.post(PREDICT, response_model=list[Prediction] | list[list[Prediction]], responses=problems)
    async def predict(request: PredictRequest, http: Request) -> JSONResponse:
        """Score pairs as a text classifier does: each aspect is a label."""
        with metrics.seconds.time():
            try:
                pairs, many = pairs_of(request.inputs, judge.encode.keys)
            except PairError as error:
                raise HTTPException(422, str(error)) from error
            http.state.pairs = len(pairs)
            results = await _score(batcher, pairs, limits)
            found = [predictions(result, bounds, request.raw_scores) for result in results]
            return JSONResponse(found if many else found[0])

    # FastAPI reads what a request holds from here.
    score.__annotations__["request"] = ScoreRequest if "prediction" in judge.encode.keys else QuestionsRequest
    app.post(SCORE, response_model=ScoreResponse, responses=problems)(score)

    @app.get("/health", responses={503: {"description": "It must be started again"}})
    async def health() -> JSONResponse:
        """Say whether the server serves, and how many pairs wait."""
        status, code = ("failed", 503) if batcher.ended else ("ok", 200)
        return JSONResponse({"status": status, "waiting": batcher.waiting}, code)

    @app.get("/ready", responses={503: {"description": "Send requests elsewhere"}})
    async def ready() -> JSONResponse:
        """Say whether requests are taken: the judge is loaded, and the server does not end."""
        is_ready = not (batcher.ended or bodies.ending)
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """Tell Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _score(batcher: Batcher, pairs: list[dict[str, Any]], limits: Limits) -> list[Any]:
    if len(pairs) > limits.pairs:
        raise HTTPException(413, f"A request expects at most {limits.pairs} pairs, but got {len(pairs)}. Divide it.")
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


def make_config(
    judge: InspectorPipeline,
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    access_log: bool = False,
    api_key: str | None = None,
) -> uvicorn.Config:
    """Say how uvicorn serves the app, with the limits on connections, heads and the end that an app cannot hold.

    Args:
        judge: A loaded judge, which the app then owns.
        limits: What it accepts.
        host: Address to listen at.
        port: Port to listen at.
        access_log: Whether stderr gets a JSON object for each request.
        api_key: What requests must bring; None lets all in.

    Example:
        >>> uvicorn.Server(make_config(load_judge(), port=8080)).run()  # doctest: +SKIP
    """
    limits = limits or Limits()
    return uvicorn.Config(
        make_app(judge, limits, access_log=_stderr_log() if access_log else None, api_key=api_key),
        host,
        port,
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.shutdown_s,
    )


def _stderr_log() -> logging.Logger:
    logger = logging.getLogger("inspector_pipeline.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    return logger
