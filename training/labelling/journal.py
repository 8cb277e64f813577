"""Journals: what a stage has finished so far, so that a killed run goes on where it stopped and pays for nothing twice.

The journal of `x.jsonl` is `x.jsonl.partial.jsonl` beside it. Its first line says which inputs and settings it belongs
to; then comes one finished unit a line, each on disk before the next is begun. A kill can tear the last line only,
which is cut off. The journal goes when the output and its manifest are there.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row

from ..rows.records import write_records
from ..runs.manifest import Manifest
from .endpoint import Failure

logger = logging.getLogger(__name__)

Key = tuple[str | int, ...]


def journal_path(output: Path) -> Path:
    """Return where the journal of an output stands."""
    return output.with_name(f"{output.name}.partial.jsonl")


def is_settled(output: Path, manifest: Manifest, retry_failed: bool) -> bool:
    """Say whether there is nothing left to do: the output is complete, and no failed unit is to be tried again."""
    return not (retry_failed and journal_path(output).is_file()) and manifest.is_done(output)


def checked_rows(path: str, rows: list[Row], key: Callable[[Row], Key], texts: Iterable[str]) -> list[Row]:
    """Refuse rows that answers could not be joined to, or that could not be sent.

    Args:
        path: Where they come from.
        rows: Questions or responses.
        key: What names a row.
        texts: Keys whose values are texts, or None.

    Raises:
        DataFileError: Two rows have one name, a text is none or not valid Unicode, or a question is blank.
    """
    seen: set[Key] = set()
    for i, row in enumerate(rows):
        if key(row) in seen:
            raise DataFileError(f"{path}: row {i} expects a name of its own, but {key(row)} occurs twice. Remove one.")
        seen.add(key(row))
        for name in texts:
            text = row.get(name)
            if text is not None and (not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text)):
                raise DataFileError(f"{path}: row {i} expects Unicode text as {name}, but got {text!r:.60}.")
        if not (row.get("question") or "").strip():
            raise DataFileError(f"{path}: row {i} expects a question, but it is blank. Remove the row.")
    return rows


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

    def fail(self, key: Key, failure: Failure, **more: Any) -> None:
        """Record that a unit failed."""
        self.append({"key": list(key), "error": failure.reason, "passing": failure.passing, **more})

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
            except ValueError as error:
                raise DataFileError(
                    f"{self.path} expects a JSON object a line, but line {number}: {error}. Delete that line to ask "
                    "for it again."
                ) from error
            if number == 1:
                self._check(entry)
            else:
                self._take(entry)
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
