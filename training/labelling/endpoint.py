"""Ask a model behind any OpenAI-compatible endpoint: retries, bounded concurrency, and failures as values.

What may pass (429, 5xx, time-outs, broken connections, answers that are no JSON) is tried again with growing waits, or
after as long as the server's Retry-After says. What will not pass for one row is that row's failure. What will not
pass for any row (401, 402, 404, nobody listening) stops the run with an `EndpointError`.
"""

import asyncio
import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncOpenAI, RateLimitError
from openai.types.chat import ChatCompletion

from inspector_pipeline.errors import EndpointError

MAX_SEED = 2**31
LONGEST_WAIT = 60.0  # seconds between two attempts, where the server names none
LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more is waited for so long only
FAILURES_IN_A_ROW = 20  # after so many units without one success, the run stops
NO_ROW_WILL_PASS = (401, 402, 404)
MAY_PASS = (408, 409, 425, 429)
SCHEMA_WORDS = ("response_format", "json_schema", "json_object", "guided", "structured output")

Message = dict[str, str]
Unit = TypeVar("Unit")


@dataclass(frozen=True)
class EndpointConfig:
    """Where and how a model is asked. Only `extra_body` is part of what the answers are made from.

    Attributes:
        base_url: The endpoint, such as http://127.0.0.1:8000/v1.
        api_key_env: Environment variable that holds the key; a server without keys needs none.
        concurrency: Calls in flight at a time.
        timeout: Seconds that the server may stay silent.
        attempts: How often a call is tried before its unit counts as failed.
        backoff: Seconds before the second attempt; doubled each time, with jitter, up to a minute.
        max_tokens_key: Name under which the limit of new tokens is sent.
        extra_body: Further fields of every request, such as {"chat_template_kwargs": {"enable_thinking": false}}.
    """

    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 6
    backoff: float = 1.0
    max_tokens_key: str = "max_tokens"
    extra_body: dict[str, Any] = field(default_factory=dict)


class Reply(NamedTuple):
    """What a model answered.

    Attributes:
        text: The text, "" where there is none; never holds half a surrogate pair.
        finish_reason: `stop`, `length` (cut off), `content_filter`, ...
        refusal: What the model said when it refused, else "".
        usage: prompt_tokens, completion_tokens and calls (1); tokens the server does not count are left out.
    """

    text: str
    finish_reason: str | None
    refusal: str
    usage: dict[str, int]


class Failure(NamedTuple):
    """Why there is no reply.

    Attributes:
        reason: For people, one line.
        passing: Whether the same call may succeed later.
        retry_after: Seconds that the server asks to wait.
    """

    reason: str
    passing: bool
    retry_after: float | None = None


def model_label(model: str) -> str:
    """Name a model in rows and manifests: a local path by its last part, anything else as it is."""
    return os.path.basename(os.path.normpath(model)) if model.startswith(("/", ".", "~")) else model


def derived_seed(seed: int, *parts: object) -> int:
    """Derive a seed from a run's seed and a unit's name, the same on every machine."""
    name = "\x00".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:4], "big") % MAX_SEED


def whole(text: str) -> str:
    """Replace halves of surrogate pairs, which cut-off replies hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Endpoint:
    """A model behind an endpoint; an async context manager.

    Args:
        config: Where and how.
        model: The model's name there.
    """

    def __init__(self, config: EndpointConfig, model: str) -> None:
        """Make a client; nothing is sent yet."""
        self.config = config
        self.model = model
        self.stopping = asyncio.Event()
        self._answered = False
        self._succeeded = False
        key = os.environ.get(config.api_key_env) or "none"
        self._client = AsyncOpenAI(base_url=config.base_url, api_key=key, timeout=config.timeout, max_retries=0)

    async def __aenter__(self) -> "Endpoint":
        """Return itself."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, messages: list[Message], max_tokens: int, **request: Any) -> Reply | Failure:
        """Ask once, with retries.

        Args:
            messages: Role and content each.
            max_tokens: Limit of new tokens.
            **request: Further fields (temperature, seed, response_format, ...); None is not sent.

        Returns:
            The reply, or why there is none.

        Raises:
            EndpointError: No call can succeed.
        """
        fields = {key: value for key, value in request.items() if value is not None}
        body = {"model": self.model, "messages": messages, self.config.max_tokens_key: max_tokens, **fields}
        backoff, attempts_left = self.config.backoff, self.config.attempts
        delay = backoff
        while True:
            answer = await self._once(body)
            attempts_left -= 1
            if isinstance(answer, Reply) or not (answer.passing and attempts_left) or self.stopping.is_set():
                return answer
            if answer.retry_after is None:
                wait = min(delay + random.uniform(0, backoff), LONGEST_WAIT)
            else:
                wait = min(answer.retry_after, LONGEST_RETRY_AFTER)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), wait)
            delay = min(2 * delay, LONGEST_WAIT)

    async def each(self, units: Iterable[Unit], work: Callable[[Unit], Awaitable[bool]]) -> None:
        """Work through units, a bounded number at a time; after an error, what is in flight is still finished.

        Args:
            units: Drawn one by one, so there may be millions.
            work: Does a unit and says whether it succeeded.

        Raises:
            EndpointError: No call can succeed, or too many units in a row failed.
        """
        pending = iter(units)
        failures = 0

        async def worker() -> None:
            nonlocal failures
            for unit in pending:
                failures = 0 if await work(unit) else failures + 1
                if failures >= FAILURES_IN_A_ROW:
                    raise EndpointError(
                        f"{self.model} at {self.config.base_url} failed {FAILURES_IN_A_ROW} units in a row; the "
                        "journal says why. Check the server and the settings, then run again to go on."
                    )
                if self.stopping.is_set():
                    return

        workers = [asyncio.create_task(worker()) for _ in range(self.config.concurrency)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        self.stopping.set()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _once(self, body: dict[str, Any]) -> Reply | Failure:
        try:
            completion = await self._client.chat.completions.create(**body, extra_body=self.config.extra_body)
        except APIStatusError as error:
            self._answered = True
            return self._refused(error, "response_format" in body)
        except APITimeoutError:
            return Failure(f"timed out after {self.config.timeout:g} s", passing=True)
        except APIConnectionError as error:
            cause = type(error.__cause__).__name__
            if cause == "ConnectError" and not self._answered:  # of httpx or httpx2, whichever the client uses
                raise EndpointError(
                    f"Nobody answers at {self.config.base_url}: {error.__cause__}. Start the server or correct "
                    "endpoint.base_url."
                ) from error
            return Failure(f"connection failed ({cause})", passing=True)
        except (APIError, ValueError) as error:  # a body that is no JSON, or not the whole of it
            return Failure(f"the answer could not be read: {error}"[:300], passing=True)
        self._answered = True
        reply = _reply(completion)
        self._succeeded |= isinstance(reply, Reply)
        return reply

    def _refused(self, error: APIStatusError, formatted: bool) -> Failure:
        status, said = error.status_code, _one_line(error.message)
        drained = isinstance(error, RateLimitError) and error.code == "insufficient_quota"
        if status in NO_ROW_WILL_PASS or drained or (status == 403 and not self._succeeded):
            raise EndpointError(
                f"{self.config.base_url} refuses the model {model_label(self.model)!r}: {said}. Check the model's "
                f"name, endpoint.base_url and the key in {self.config.api_key_env}; what was answered is kept."
            ) from error
        if status in (400, 422) and formatted and any(word in said.lower() for word in SCHEMA_WORDS):
            raise EndpointError(
                f"{self.config.base_url} refuses the format asked for: {said}. Set structured to json_object or none."
            ) from error
        passing = status in MAY_PASS or status >= 500
        return Failure(said, passing, _retry_after(error) if passing else None)


def _one_line(message: str) -> str:
    return " ".join(message.split())[:300]


def _reply(completion: object) -> Reply | Failure:
    """Check the shape of an answer; the client does not."""
    choices = completion.choices if isinstance(completion, ChatCompletion) else None
    if not isinstance(choices, list) or not choices:
        return Failure(f"the answer is not a chat completion: {_one_line(str(completion))[:100]}", passing=True)
    message = getattr(choices[0], "message", None)
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    if message is None or not isinstance(text, str | None) or not isinstance(refusal, str | None):
        return Failure(f"the answer holds no message: {_one_line(str(choices[0]))[:100]}", passing=True)
    counted = getattr(completion, "usage", None)
    counts = {name: getattr(counted, name, None) for name in ("prompt_tokens", "completion_tokens")}
    usage = {name: count for name, count in counts.items() if isinstance(count, int) and count >= 0}
    finish_reason = getattr(choices[0], "finish_reason", None)
    return Reply(whole(text or ""), finish_reason, whole(refusal or ""), {**usage, "calls": 1})


def _retry_after(error: APIStatusError) -> float | None:
    """Read how many seconds the server asks to wait, from a number or a date."""
    said = error.response.headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(said))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    return None
