"""Put more rows than memory holds into a given order: blocks on disk, each of which is ordered in memory."""

import json
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..tables import Row
from .arrow_files import rows_of
from .entries import Entry, json_line

BLOCK_ROWS = 20_000
MOST_BLOCKS = 200  # each holds a file open
BUFFER_ROWS = 256


class Block(Protocol):
    """Rows whose places in the output follow each other."""

    def add(self, entry: Entry) -> None:
        """Take a row, in input order."""

    def rows(self, order: Sequence[int]) -> Iterator[tuple[Row, Any]]:
        """Give the rows in an order, as Python values and, where they came from Arrow, as a table of one row."""


class JsonBlock:
    """A block of rows of text files."""

    def __init__(self, path: Path) -> None:
        """Spill to a file."""
        self._path = path
        self._file = path.open("wb")

    def add(self, entry: Entry) -> None:
        """Take a row."""
        self._file.write(json_line(entry.row))

    def rows(self, order: Sequence[int]) -> Iterator[tuple[Row, Any]]:
        """Give the rows in an order."""
        self._file.close()
        lines = self._path.read_bytes().splitlines()
        for at in order:
            yield json.loads(lines[at]), None


class ArrowBlock:
    """A block of rows of Parquet or Arrow files."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Spill to a file, in the schema of all sources."""
        self._path = path
        self._schema = schema
        self._writer = pa.ipc.new_stream(str(path), schema)
        self._buffer: list[pa.Table] = []

    def add(self, entry: Entry) -> None:
        """Take a row."""
        if entry.cells is not None:
            table, at = entry.cells
            self._buffer.append(table.slice(at, 1))
        if len(self._buffer) >= BUFFER_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            table = pa.concat_tables([self._schema.empty_table(), *self._buffer], promote_options="permissive")
            self._writer.write_table(table.select(self._schema.names).cast(self._schema).combine_chunks())
            self._buffer = []

    def rows(self, order: Sequence[int]) -> Iterator[tuple[Row, Any]]:
        """Give the rows in an order."""
        self._flush()
        self._writer.close()
        with pa.memory_map(str(self._path)) as data:
            table = pa.ipc.open_stream(data).read_all()
            for start in range(0, len(order), BUFFER_ROWS):
                piece = table.take(pa.array(order[start : start + BUFFER_ROWS]))
                for at, row in enumerate(rows_of(piece)):
                    yield row, piece.slice(at, 1)


class Spill:
    """Takes rows in input order, each with its place in the output, and gives them by that place."""

    def __init__(self, rows: int, schema: pa.Schema | None) -> None:
        """Prepare for so many rows.

        Args:
            rows: How many will be added.
            schema: Of Arrow rows; None for rows of text files.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="inspector-")
        self._size = max(BLOCK_ROWS, rows // MOST_BLOCKS + 1)
        paths = [Path(self._folder.name) / str(number) for number in range(-(-rows // self._size))]
        self._blocks: list[Block] = [JsonBlock(path) if schema is None else ArrowBlock(path, schema) for path in paths]
        self._places = [array("q") for _ in paths]

    def add(self, place: int, entry: Entry) -> None:
        """Take a row that will be at this place, from 0."""
        self._blocks[place // self._size].add(entry)
        self._places[place // self._size].append(place)

    def __iter__(self) -> Iterator[tuple[Row, Any]]:
        """Give all rows by their places."""
        with self._folder:
            for block, places in zip(self._blocks, self._places, strict=True):
                yield from block.rows(np.argsort(np.asarray(places)).tolist())
