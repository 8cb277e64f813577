"""`inspector serve`: a judge behind HTTP.

    POST /score     {"pairs": [{"question": ..., "prediction": ...}, ...]} -> {"results": [...]}, one a pair, in order
    POST /predict   the same in the shapes of text-embeddings-inference and text-classification, see predict.py
    POST /          the same for clients that ask there
    GET  /health    200 while it serves, 503 once nothing can be scored any more
    GET  /ready     200 while it takes requests, 503 once it ends or nothing can be scored any more
    GET  /metrics   for Prometheus
    GET  /docs      the API, from /openapi.json

A judge that reads the question alone takes pairs without `prediction`. Rows of other tools, such as `messages`, are
read as pairs (rows.py); `columns` beside `pairs` says which of their columns hold what. Pairs of concurrent requests
are scored together, so in bfloat16 a score may depend a little on what came along with it; in float32 it does not. A
request is refused whole: 400 or 415 where it is not JSON in UTF-8, 408 where it arrives too slowly, 413 where it is too
large, 422 where a pair cannot be scored (the message says which), 429 with Retry-After where too much waits or too many
connections are open, 500 where the server has failed, 503 where it ends, 504 where the answer takes too long. One whose
client has gone is not scored. On SIGTERM what was accepted is answered first.
Where an API key is set, all but /health, /ready and the API's pages want it, as `Authorization: Bearer KEY`, else 401.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from ..decisions import PREFERENCE
from ..errors import PairError
from ..pairs import check_pair
from ..pipeline_inspector import InspectorPipeline
from . import page
from .batcher import Batcher, QueueFullError, ScoringFailedError
from .bodies import JsonRoute
from .connections import Connection
from .gate import Bodies, Gate, Limits
from .logs import access_log as make_access_log
from .metrics import Metrics
from .predict import Prediction, PredictRequest, check_untruncated, pairs_of, predictions
from .problems import MEANINGS, described, refusal
from .schemas import Health, QuestionsRequest, Ready, ScoreRequest, ScoreResponse

ROOT, SCORE, PREDICT = "/", "/score", "/predict"
CODES: dict[type[Exception], int] = {PairError: 422, QueueFullError: 429, ScoringFailedError: 500}
KEY_SCHEME = "ApiKey"


@dataclass(frozen=True)
class _Service:
    """What the routes of an app share."""

    batcher: Batcher
    bodies: Bodies
    metrics: Metrics
    limits: Limits

    @property
    def judge(self) -> InspectorPipeline:
        return self.batcher.judge


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
    metrics = Metrics((SCORE, PREDICT, ROOT))
    batcher = Batcher(judge, limits.queue, metrics.on_window)
    bodies = Bodies(limits, lambda: batcher.retry_after)
    metrics.waiting.set_function(lambda: batcher.waiting)
    metrics.held.set_function(lambda: bodies.size)
    app = FastAPI(
        title="Inspector",
        description="Scores (question, response) pairs.",
        lifespan=_lifespan(batcher, {"limits": limits, "bodies": bodies}),
        docs_url=None,
        redoc_url=None,
    )
    app.router.route_class = JsonRoute
    app.router.redirect_slashes = False  # it would send clients to whatever host they name
    app.add_middleware(Gate, bodies=bodies, on_answer=metrics.on_answer, access_log=access_log, api_key=api_key)
    service = _Service(batcher, bodies, metrics, limits)
    _add_refusals(app)
    _add_scores(app, service)
    _add_predictions(app, service)
    _add_states(app, service)
    _describe(app, wants_key=api_key is not None)
    return app


def _lifespan(
    batcher: Batcher, state: dict[str, Any]
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        worker = asyncio.create_task(batcher.run())
        yield state
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    return lifespan


def _add_refusals(app: FastAPI) -> None:
    """Answer refusals in one shape."""

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may hold what JSON cannot.
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]]
        return refusal(422, ascii("; ".join(faults))[1:-1])

    @app.exception_handler(HTTPException)
    async def tell(_: Request, error: HTTPException) -> JSONResponse:
        return refusal(error.status_code, error.detail, error.headers)


def _add_scores(app: FastAPI, service: _Service) -> None:
    async def score(request: ScoreRequest | QuestionsRequest, http: Request) -> JSONResponse:
        """Score pairs; each gets whole-number scores, their total, expected scores and probabilities."""
        http.state.pairs = len(request.pairs)
        with service.metrics.seconds.time():
            pairs = [pair.model_dump(exclude_none=True) for pair in request.pairs]
            return JSONResponse({"results": await _score(service, pairs)})

    # FastAPI reads what a request holds from here.
    has_responses = "prediction" in service.judge.encode.keys
    score.__annotations__["request"] = ScoreRequest if has_responses else QuestionsRequest
    app.post(SCORE, response_model=ScoreResponse, responses=_refusals())(score)


def _add_predictions(app: FastAPI, service: _Service) -> None:
    judge = service.judge
    bounds = {
        aspect.name: None if aspect.head.rule == PREFERENCE else (aspect.classes[0], aspect.classes[-1])
        for aspect in judge.model.aspects
    }

    async def classified(request: PredictRequest, http: Request) -> tuple[list[Any], bool]:
        with service.metrics.seconds.time():
            try:
                pairs, many = pairs_of(request.inputs, judge.encode.keys)
            except PairError as error:
                raise HTTPException(422, str(error)) from error
            http.state.pairs = len(pairs)
            results = await _score(service, pairs)
            try:
                check_untruncated(request, results, judge.model.config.max_length)
            except PairError as error:
                raise HTTPException(413, str(error)) from error
            return [predictions(result, bounds, request) for result in results], many

    @app.post(PREDICT, response_model=list[Prediction] | list[list[Prediction]], responses=_refusals())
    async def predict(request: PredictRequest, http: Request) -> JSONResponse:
        """Score pairs as a text classifier does: each aspect is a label; one pair gets a list, several a list each."""
        found, many = await classified(request, http)
        return JSONResponse(found if many else found[0])

    @app.post(ROOT, response_model=list[list[Prediction]], responses=_refusals())
    async def classify(request: PredictRequest, http: Request) -> JSONResponse:
        """Score pairs as /predict does, with a list of labels for each pair, also where there is but one."""
        return JSONResponse((await classified(request, http))[0])


def _add_states(app: FastAPI, service: _Service) -> None:
    batcher, bodies = service.batcher, service.bodies

    @app.get("/health", response_model=Health, responses={503: {"model": Health, "description": "Start it again"}})
    async def health() -> JSONResponse:
        """Say whether the server serves, and how many pairs wait."""
        status, code = ("failed", 503) if batcher.ended else ("ok", 200)
        return JSONResponse({"status": status, "waiting": batcher.waiting}, code)

    @app.get("/ready", response_model=Ready, responses={503: {"model": Ready, "description": "Ask another server"}})
    async def ready() -> JSONResponse:
        """Say whether requests are taken: the judge is loaded, and the server does not end."""
        is_ready = not (batcher.ended or bodies.ending)
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    for path, answer in (("/health", health), ("/ready", ready)):
        app.head(path, include_in_schema=False)(answer)  # as load balancers ask

    told: dict[int | str, dict[str, Any]] = {
        200: {"description": "Prometheus' text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @app.get("/metrics", response_class=Response, responses=told)
    async def show_metrics() -> Response:
        """Tell Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """Show the API."""
        return HTMLResponse(page.page_of(app.openapi()), headers=page.HEADERS)


def _refusals() -> dict[int | str, dict[str, Any]]:
    return {code: described(code) for code in MEANINGS}


def _describe(app: FastAPI, *, wants_key: bool) -> None:
    """Say in the API's description which requests want a key."""
    description = app.openapi()
    if wants_key:
        scheme = {"type": "http", "scheme": "bearer", "description": "The server's API key"}
        description["components"]["securitySchemes"] = {KEY_SCHEME: scheme}
        for path in (SCORE, PREDICT, ROOT, "/metrics"):
            for operation in description["paths"][path].values():
                operation["security"] = [{KEY_SCHEME: []}]


async def _score(service: _Service, pairs: list[dict[str, Any]]) -> list[Any]:
    most, batcher = service.limits.pairs, service.batcher
    if len(pairs) > most:
        raise HTTPException(413, f"A request expects at most {most} pairs, but got {len(pairs)}. Divide it.")
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
        make_app(judge, limits, access_log=make_access_log() if access_log else None, api_key=api_key),
        host,
        port,
        http=Connection,
        ws="none",
        log_config=None,
        log_level="info",
        access_log=False,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.shutdown_s,
    )
