"""Bring rows that do not fit into memory into another order, by way of a file on the disk."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..files.arrow import rows_of
from ..files.entries import Entry, Row, cut, json_line
from .output import joined

BUFFER_ROWS = 256
LINE = pa.schema([("line", pa.large_binary())])  # rows of text files, as JSON


class RowsOnDisk:
    """Takes rows, and gives them in any order."""

    def __init__(self, file: Any, schema: pa.Schema | None) -> None:
        """Begin.

        Args:
            file: An empty file, open for writing, with a name.
            schema: Of Arrow rows; None for rows of text files.
        """
        self._file = file
        self._is_text = schema is None
        self._schema = LINE if schema is None else schema
        self._writer = pa.ipc.new_stream(file, self._schema)
        self._buffer: list[Any] = []

    def add(self, entry: Entry) -> None:
        """Take a row."""
        if entry.cells is not None:
            table, at = entry.cells
            self._buffer.append(table.slice(at, 1))
        else:
            self._buffer.append({"line": json_line(entry.row)})
        if len(self._buffer) >= BUFFER_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            join = pa.Table.from_pylist if self._is_text else joined
            self._writer.write_table(join(self._buffer, self._schema))
            self._buffer = []

    def in_order(self, order: NDArray[np.int64]) -> Iterator[tuple[Row, Any]]:
        """Give the rows, once all were taken: as Python values and, where they came from Arrow, as a table of one row.

        Args:
            order: int64 (rows,), indices into the rows as they were added.
        """
        self._flush()
        self._writer.close()
        self._file.flush()
        with pa.memory_map(self._file.name) as data:
            batches = list(pa.ipc.open_stream(data))  # they stay on the disk
            ends = np.cumsum([batch.num_rows for batch in batches])
            starts = ends - [batch.num_rows for batch in batches]
            places = np.searchsorted(ends, order, "right")
            for some in cut(zip(places, order, strict=True), BUFFER_ROWS):
                rows = [batches[at].slice(index - starts[at], 1) for at, index in some]
                table = pa.Table.from_batches(rows, self._schema)
                values = map(json.loads, table["line"].to_pylist()) if self._is_text else rows_of(table)
                for at, row in enumerate(values):
                    yield row, table.slice(at, 1)
