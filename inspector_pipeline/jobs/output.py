"""The output of a job: a folder of parts, each of which is either whole or not there."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet

from ..errors import DataFileError
from ..files.arrow import rows_of
from ..files.disk import file_sha256
from ..files.entries import Entry, Row, json_line
from .flags import Flags
from .input import CONFLICTS, Survey

REJECTS = "_rejects"
CHECKSUMS = "_checksums"


class BusyFileError(DataFileError):
    """Another process is writing the same file."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that it appears only once all of it is on the disk, whenever the process is killed.

    Raises:
        BusyFileError: Another process is writing it.
        DataFileError: What it is first written into is there, and no file.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    with _own_file(scratch) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyFileError(f"{path} is being written by another process. Give each its own --shard.") from error
        if not scratch.exists() or os.fstat(file.fileno()).st_ino != scratch.stat().st_ino:
            raise BusyFileError(f"{path} was written by another process. Give each its own --shard.")
        file.truncate(0)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            scratch.unlink()
            raise
        os.replace(scratch, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the name survives a power cut
    finally:
        os.close(folder)


def _own_file(path: Path) -> BinaryIO:
    """Open a file to append to it; in a folder of strangers, a link in its place could lead to any file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "ab")
        os.close(descriptor)
    raise DataFileError(f"{path} expects to be a file that a stopped run has left, but is a link or a pipe. Delete it.")


class JsonlWriter:
    """Writes a part as JSON Lines."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to an open file."""
        self._file = file

    def misfits(self, entries: Sequence[Entry]) -> list[str | None]:
        """Say of each row why it cannot be written: nothing, as JSON holds whatever was read."""
        return [None] * len(entries)

    def write(self, entries: Sequence[Entry], scores: Sequence[Row]) -> None:
        """Append rows with their scores."""
        for entry, added in zip(entries, scores, strict=True):
            self._file.write(json_line({**(entry.row or {}), **added}))

    def close(self) -> None:
        """Do nothing: every line is written."""


class ParquetWriter:
    """Writes a part as Parquet, one row group a window."""

    def __init__(self, file: BinaryIO, survey: Survey, score_schema: pa.Schema) -> None:
        """Write to an open file.

        Args:
            file: The file.
            survey: The input's columns.
            score_schema: The columns that are added.
        """
        self._as_json = survey.as_json
        self._schema = pa.schema([_in_parquet(field) for field in survey.schema])
        self._score_schema = score_schema
        self._writer = pyarrow.parquet.ParquetWriter(file, pa.schema([*self._schema, *score_schema]))

    def misfits(self, entries: Sequence[Entry]) -> list[str | None]:
        """Say of each row why it cannot be written: its values do not fit the columns' types."""
        try:
            if entries:
                self._table(entries)
        except CONFLICTS as error:
            if len(entries) == 1:
                return [f"expects values that fit the columns' types in Parquet, but: {error}"]
            return [self.misfits([entry])[0] for entry in entries]
        return [None] * len(entries)

    def write(self, entries: Sequence[Entry], scores: Sequence[Row]) -> None:
        """Append rows with their scores."""
        if entries:
            table = self._table(entries)
            added = pa.Table.from_pylist(list(scores), self._score_schema)
            for field, column in zip(self._score_schema, added.itercolumns(), strict=True):
                table = table.append_column(field, column)
            self._writer.write_table(table, row_group_size=len(entries))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def _table(self, entries: Sequence[Entry]) -> pa.Table:
        if entries[0].cells is None:
            return pa.Table.from_pylist([self._flat(entry.row or {}) for entry in entries], self._schema)
        pieces = [table.slice(at, 1) for table, at in (entry.cells for entry in entries if entry.cells)]
        return joined(pieces, self._schema)

    def _flat(self, row: Row) -> Row:
        return {**row, **{name: json_line(row[name]).decode().rstrip() for name in self._as_json if name in row}}


def _in_parquet(field: pa.Field) -> pa.Field:
    """Return a column as Parquet holds it: it has no times in seconds, and a date too far away fits no other unit."""
    is_seconds = pa.types.is_timestamp(field.type) and field.type.unit == "s"
    return field.with_type(pa.timestamp("ms", field.type.tz)) if is_seconds else field


def joined(pieces: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join tables of some of a schema's columns into one that has all of them, in its types."""
    missing = pa.schema([field for field in schema if field.name not in pieces[0].column_names])
    table = pa.concat_tables([*pieces, missing.empty_table()], promote_options="permissive")
    return table.select(schema.names).cast(schema).combine_chunks()


@dataclass(frozen=True)
class Parts:
    """A folder of parts.

    Attributes:
        folder: The folder.
        suffix: `.jsonl` or `.parquet`.
    """

    folder: Path
    suffix: str

    def path(self, index: int) -> Path:
        """Return where a part stands; it is there once it is whole, and its rejects before it."""
        return self.folder / f"part-{index:06d}{self.suffix}"

    def rejects_path(self, index: int) -> Path:
        """Return where the rows of a part that could not be scored stand, if there are any."""
        return self.folder / REJECTS / f"part-{index:06d}.jsonl"

    def _checksum_path(self, index: int) -> Path:
        return self.folder / CHECKSUMS / f"part-{index:06d}.sha256"

    def _checksum(self, index: int) -> bytes:
        paths = [path for path in (self.path(index), self.rejects_path(index)) if path.is_file()]
        return "".join(f"{file_sha256(path)}  {path.relative_to(self.folder)}\n" for path in paths).encode()

    def check(self, index: int) -> None:
        """Refuse a whole part that was changed since; parts of older jobs, without a checksum, pass.

        Raises:
            DataFileError: It, or its rejects, are not what was written.
        """
        path = self._checksum_path(index)
        if path.is_file() and path.read_bytes() != self._checksum(index):
            raise DataFileError(
                f"{self.path(index)} expects to be as it was written, but it or its rejects were changed. Delete it "
                "and run again."
            )

    def check_names(self, number: int) -> None:
        """Refuse what is called as a part, and is none of the job's.

        Args:
            number: How many parts the job has, in all its shards.

        Raises:
            DataFileError: There is such a file.
        """
        own = {self.path(index) for index in range(number)}
        foreign = sorted(path.name for path in self.folder.glob("part-*") if path not in own or path.is_dir())
        if foreign:
            raise DataFileError(
                f"{self.folder} expects the {number} parts of its job, but holds {foreign[0]} too. Take it away."
            )

    def seal(self, index: int) -> None:
        """Write the checksum of a whole part, where there is none: a killed run may have left it out."""
        path = self._checksum_path(index)
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            with whole_file(path) as file:
                file.write(self._checksum(index))

    def forget(self, index: int) -> None:
        """Remove the checksum and the rejects of a part that is scored again."""
        self.forget_checksum(index)
        self.rejects_path(index).unlink(missing_ok=True)

    def forget_checksum(self, index: int) -> None:
        """Remove the checksum of a part whose rows are marked."""
        self._checksum_path(index).unlink(missing_ok=True)

    def counts(self, index: int, rows: int, flags: Flags) -> dict[str, int]:
        """Count the `scored` and the `rejected` rows of a whole part.

        Args:
            index: Which part.
            rows: How many rows of the input it stands for.
            flags: Gets the rows that were scored.

        Raises:
            DataFileError: It cannot be read, or rows are missing.
        """
        path, rejects = self.path(index), self.rejects_path(index)
        before = flags.rows
        try:
            for row in _columns(path, flags.columns):
                flags.add(row)
        except (OSError, ValueError, KeyError, TypeError, NotImplementedError, RecursionError) as error:
            raise DataFileError(f"{path} expects a whole part, but: {error}. Delete it and run again.") from error
        scored = flags.rows - before
        n_rejected = rejects.read_bytes().count(b"\n") if rejects.is_file() else 0
        if scored + n_rejected != rows:
            raise DataFileError(
                f"{path} expects a whole part, but: it and its rejects hold {scored + n_rejected} of {rows} rows. "
                "Delete it and run again."
            )
        return {"scored": scored, "rejected": n_rejected}


def _columns(path: Path, names: list[str]) -> Iterator[Row]:
    """Read some columns of a part; those of older jobs have not all of them."""
    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(columns=names):
                yield from batch.to_pylist()
        return
    with path.open("rb") as file:
        yield from map(json.loads, file)


def reject_row(entry: Entry) -> dict[str, Any]:
    """Describe a row that was not scored; the row itself comes along, so that nothing is lost."""
    found: dict[str, Any] = {"number": entry.number, "place": entry.place, "reason": entry.fault}
    if entry.cells is not None:  # whose row may hold some of the columns only
        table, at = entry.cells
        return {**found, "row": rows_of(table.slice(at, 1))[0]}
    if entry.row is not None:
        return {**found, "row": entry.row}
    return found if entry.raw is None else {**found, "raw": entry.raw}
