"""What a refused request is told: one shape for all, which clients of text-embeddings-inference read too."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

KINDS = {401: "Unauthorized", 408: "Timeout", 429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Timeout"}
OTHER_KIND = "Validation"
MEANINGS = {
    400: "The body is no JSON in UTF-8 with distinct keys",
    401: "The API key is missing or wrong",
    408: "The body arrived too slowly",
    413: "The body, the number of pairs or, where truncate is false, a pair is too large",
    415: "The body is said to be something else than JSON, or is compressed",
    422: "The body is no request, or a pair cannot be scored; detail says which and why",
    429: "Too much waits, or too many connections are open; come again after Retry-After seconds",
    500: "The server has failed; its log says more",
    503: "The server shuts down; send the request to another",
    504: "The request could not be answered within the server's limit of time",
}
COME_AGAIN = (429, 503, 504)  # answers with Retry-After


class Problem(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "detail": "The queue is full. Come again in 3 s.",
                    "error": "The queue is full. Come again in 3 s.",
                    "error_type": "Overloaded",
                }
            ]
        }
    )
    detail: str
    error: str
    error_type: str


def described(code: int) -> dict[str, object]:
    """Return what the API's description says of a refusal."""
    found: dict[str, object] = {"model": Problem, "description": MEANINGS[code]}
    if code in COME_AGAIN:
        what = "Seconds after which to come again"
        found["headers"] = {"Retry-After": {"description": what, "schema": {"type": "integer", "minimum": 1}}}
    return found


def content(code: int, detail: str) -> dict[str, str]:
    """Return the body of a refusal: the text twice, since some clients read `detail` and some `error`."""
    return {"detail": detail, "error": detail, "error_type": KINDS.get(code, OTHER_KIND)}


def refusal(code: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused."""
    return JSONResponse(content(code, detail), code, dict(headers) if headers else None)
