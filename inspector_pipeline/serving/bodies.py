"""How a body becomes JSON: only where it says so, is in UTF-8, has distinct keys, and is not made to take long."""

import json
import re
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

JSON_TYPE = re.compile(r"\s*application/([\w.-]+\+)?json\s*(;\s*charset=\"?(utf-?8|us-ascii)\"?\s*)?;?\s*", re.I)
MAX_PARTS = 100_000  # strings, commas and brackets of a body; pairs of one request have a few thousand
# A string counts once, whatever it holds; one without an end goes to the end.
_PART = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,]')


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
