"""Journals: what a stage has finished so far, so that a killed run goes on where it stopped and pays for nothing twice.

The journal of `x.jsonl` is `x.jsonl.partial.jsonl` beside it. Its first line says which inputs and settings it belongs
to; then comes one finished unit a line, each on disk before the next is begun. A kill can tear the last line only,
which is cut off. The journal goes when the output and its manifest are there. It also holds what every call took, so a
limit of cost holds over all runs of a job.
"""

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeVar

from filelock import FileLock, Timeout
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError, EndpointError, SettingsError
from inspector_pipeline.files.tables import Row

from ..rows.records import write_records
from ..runs.manifest import Manifest
from .endpoint import Endpoint, Failure

logger = logging.getLogger(__name__)

MESSAGE_TOKENS = 64  # what a chat template may add around one message

Key = tuple[str | int, ...]


class Unit(Protocol):
    """One call to make, such as a question and which of its samples."""

    @property
    def key(self) -> Key:
        """Its name, by which the journal's entries are found."""


AnyUnit = TypeVar("AnyUnit", bound=Unit)


def answers_manifest(manifest: Manifest, run_only: Iterable[str], **named: Any) -> Manifest:
    """Reduce a stage's manifest to what its answers are made from.

    How fast, how patiently and how dearly an endpoint was asked may change between a run and its resume; so may the
    packages here, since none of them computes an answer of an endpoint.

    Args:
        manifest: The run's; its config has an `endpoint`, None where a model runs here.
        run_only: Further settings that do not touch the answers.
        **named: Settings to say in other words.
    """
    endpoint = manifest.settings["endpoint"]
    settings = {key: value for key, value in manifest.settings.items() if key not in {"endpoint", *run_only}} | named
    if endpoint is None:
        return replace(manifest, settings=settings)
    return replace(manifest, settings={**settings, "extra_body": endpoint["extra_body"]}, versions={})


def journal_path(output: Path) -> Path:
    """Return where the journal of an output stands."""
    return output.with_name(f"{output.name}.partial.jsonl")


def is_settled(output: Path, manifest: Manifest, retry_failed: bool) -> bool:
    """Say whether there is nothing left to do: the output is complete, and no failed unit is to be tried again."""
    return not (retry_failed and journal_path(output).is_file()) and manifest.is_done(output)


class Journal:
    """The journal of one run, open for reading and appending; a context manager.

    An entry is an object with a `key`, a list that names a unit. `usage`, the tokens of its calls, is summed over all
    entries of a key; of everything else the last entry counts. An entry with `passing` true is a failure that another
    try may mend.

    Args:
        output: The stage's output file.
        manifest: What the run is made from; a journal of anything else is refused.

    Example:
        >>> with Journal(output, manifest) as journal:  # doctest: +SKIP
        ...     journal.append({"key": ["q1", 0], "prediction": "4"})
    """

    def __init__(self, output: Path, manifest: Manifest) -> None:
        """Name the journal; it is opened on entering the context."""
        self.path = journal_path(output)
        self.output = output
        self.manifest = manifest
        self.entries: dict[Key, Row] = {}
        self.usage: dict[Key, dict[str, int]] = {}
        described = {"inputs": manifest.inputs, "settings": manifest.settings, "versions": manifest.versions}
        self._header: Row = {"journal": manifest.stage, **json.loads(json.dumps(described))}
        self._lock = FileLock(output.with_name(f".{output.name}.lock"))
        self._file: BinaryIO

    def __enter__(self) -> "Journal":
        """Lock the journal and read it.

        Raises:
            DataFileError: Another run has it open, it belongs to other inputs or settings, or it is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise DataFileError(
                f"{self.path} expects one run at a time, but another has it open. Wait for it, or stop it."
            ) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and give the lock back."""
        self._file.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def append(self, *entries: Row) -> None:
        """Add entries; they are on disk when this returns.

        Args:
            *entries: Objects that JSON can hold, each with a `key`.
        """
        self._write(entries)
        for entry in entries:
            self._take(entry)

    def is_done(self, key: Key, retry_failed: bool) -> bool:
        """Say whether a unit needs no call any more."""
        entry = self.entries.get(key)
        return entry is not None and "partial" not in entry and not (retry_failed and entry.get("passing"))

    def fail(self, key: Key, failure: Failure) -> None:
        """Record that a unit failed."""
        self.append({"key": list(key), "error": failure.reason, "passing": failure.passing})

    async def ask_for_missing(
        self,
        endpoint: Endpoint,
        units: Collection[AnyUnit],
        ask: Callable[[AnyUnit], Awaitable[bool]],
        *,
        retry_failed: bool,
        unit: str,
    ) -> None:
        """Ask for every unit that the journal lacks, with a progress bar.

        Args:
            endpoint: Bounds how many are asked for at a time.
            units: All units of the output.
            ask: Asks for one, records what comes of it, and says whether it succeeded.
            retry_failed: Whether to ask again for what failed for a reason that may have passed.
            unit: What the bar counts.

        Raises:
            EndpointError: No call can succeed, or too many units in a row failed.
        """
        missing = [one for one in units if not self.is_done(one.key, retry_failed)]
        done = len(units) - len(missing)
        with hf_logging.tqdm(total=len(units), initial=done, desc=self.manifest.stage, unit=unit) as bar:

            async def ask_and_count(one: AnyUnit) -> bool:
                succeeded = await ask(one)
                bar.update()
                return succeeded

            await endpoint.each(missing, ask_and_count)

    def finish(self, rows: Iterable[Row]) -> None:
        """Write the output, then its manifest; then delete the journal, unless it names units to try again.

        Args:
            rows: The output, in its order.
        """
        write_records(rows, self.output)
        self.manifest.write(self.output, (self.output,))
        failed = sum(bool(entry.get("passing")) for entry in self.entries.values())
        if failed:
            logger.warning("%d units failed for reasons that may pass; run again to try just these.", failed)
        else:
            self.path.unlink()

    def _open(self) -> None:
        data = self.path.read_bytes() if self.path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if len(lines) == 1:  # nothing was finished under these settings, so others are welcome
            whole, lines = b"", []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if number == 1:
                    self._check(entry)
                else:
                    self._take(entry)
            except DataFileError:
                raise
            except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
                raise DataFileError(
                    f"{self.path} expects a JSON object a line, but line {number}: {error}. Delete that line to ask "
                    "for it again."
                ) from error
        self._file = self.path.open("ab")
        self._file.truncate(len(whole))
        if not lines:
            self._write([self._header])

    def _check(self, header: Mapping[str, Any]) -> None:
        """Refuse the journal of another run, and say what differs."""
        for part in ("journal", "inputs", "settings", "versions"):
            found, wanted = header.get(part), self._header[part]
            if found == wanted:
                continue
            if isinstance(found, dict) and isinstance(wanted, dict):
                name = next(key for key in {**found, **wanted} if found.get(key) != wanted.get(key))
                found, wanted, part = found.get(name), wanted.get(name), f"{part}: {name}"
            raise DataFileError(
                f"{self.path} was begun with other {part}: {found!r:.80}, but now {wanted!r:.80} is asked for. Go on "
                "with the old ones, write to another output, or delete the file to begin anew."
            )

    def _take(self, entry: Row) -> None:
        key = tuple(entry["key"])
        self.entries[key] = entry
        total = self.usage.setdefault(key, {})
        for name, count in entry.get("usage", {}).items():
            total[name] = total.get(name, 0) + count

    def _write(self, entries: Iterable[Row]) -> None:
        self._file.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(frozen=True)
class Prices:
    """Prices and limit, all in one currency.

    Attributes:
        prompt: Price of a million prompt tokens.
        completion: Price of a million completion tokens.
        max_cost: What may be spent in all, over every run of the same job; none where absent.
    """

    prompt: float = 0.0
    completion: float = 0.0
    max_cost: float | None = None

    def __post_init__(self) -> None:
        """Refuse a limit that could never be reached.

        Raises:
            SettingsError: There is a limit but no price.
        """
        if self.max_cost is not None and not self.prompt + self.completion > 0:
            raise SettingsError("prices.max_cost expects prices.prompt or prices.completion above 0, but both are 0.")

    def cost(self, usage: Mapping[str, int]) -> float:
        """Price the tokens of some calls."""
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return (prompt * self.prompt + completion * self.completion) / 1e6


class Ledger:
    """Tokens used so far, and room kept for calls in flight.

    Args:
        prices: Prices and limit.
        used: Usage of earlier runs.

    Attributes:
        used: Usage of all runs; update it with that of each call.
    """

    def __init__(self, prices: Prices, used: Iterable[Mapping[str, int]]) -> None:
        """Begin with what was used before."""
        self.prices = prices
        self.used: Counter[str] = Counter()
        for usage in used:
            self.used.update(usage)
        self._kept: list[float] = []
        self._settled = asyncio.Condition()

    @asynccontextmanager
    async def room_for(self, most: Mapping[str, int]) -> AsyncIterator[None]:
        """Keep room for calls while they are in flight, waiting for others to end where there is not enough yet.

        Args:
            most: Upper bound on their usage.

        Raises:
            EndpointError: The limit could be exceeded, even with nothing else in flight.
        """
        limit, price = self.prices.max_cost, self.prices.cost(most)
        async with self._settled:
            while limit is not None and (spent := self.prices.cost(self.used)) + sum(self._kept) + price > limit:
                if not self._kept:
                    raise EndpointError(
                        f"The next call could cost {price:.6g}, and {spent:.6g} of prices.max_cost {limit:g} is spent. "
                        "Everything answered is kept; run again with a higher prices.max_cost to go on."
                    )
                await self._settled.wait()
            self._kept.append(price)
        try:
            yield
        finally:
            async with self._settled:
                self._kept.remove(price)
                self._settled.notify_all()

    def summary(self) -> str:
        """Say what was used, for people."""
        tokens = f"{self.used['prompt_tokens']} prompt and {self.used['completion_tokens']} completion tokens"
        return f"{self.used['calls']} calls, {tokens}, at a cost of {self.prices.cost(self.used):.6g}"


def most_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """Bound the tokens of messages from above: no byte-level tokenizer makes more tokens than there are bytes."""
    return sum(len(message["content"].encode()) + MESSAGE_TOKENS for message in messages)
