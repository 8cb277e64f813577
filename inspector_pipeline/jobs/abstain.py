"""Mark the rows of a finished job that its judge abstains from: exact, in a second pass over what was written.

The pass reads the probabilities of all rows, nine bytes of memory for each, and then writes part by part again with the
mark. What it reads it never changes, so a killed pass starts anew and gives the same.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ..api.uncertain import Mask, abstained_rows, expected_errors
from ..files.entries import Row
from ..files.sources import find_sources
from ..results import ABSTAINED, FlatColumns, scales_of
from .manifest import check_finished
from .output import Parts, whole_file


def judged_scales(columns: FlatColumns, config: Any) -> dict[str, dict[str, float]]:
    """Return the scales of the field that rows are ranked by; of all aspects where there is none."""
    return scales_of(config, columns.rank_by and columns.rank_by.removeprefix(columns.prefix))


def scored_rows(folder: Path) -> Iterator[Row]:
    """Read a job's rows, in order."""
    for source in find_sources(str(folder)):
        yield from (entry.row for entry in source.entries(None) if entry.row is not None)


def mark_abstained(parts: Parts, columns: FlatColumns, config: Any, share: float) -> int:
    """Write into every row whether the judge abstains from it.

    Args:
        parts: The job's folder.
        columns: The judge's columns.
        config: Its config.
        share: Of the scored rows.

    Returns:
        From how many it abstains.

    Raises:
        DataFileError: The job is not finished, or rows have no probabilities.
    """
    check_finished(parts.folder)
    errors = expected_errors(scored_rows(parts.folder), judged_scales(columns, config), columns.prefix)
    marks, at = abstained_rows(*errors, share), 0
    for index, path in enumerate(sorted(parts.folder.glob(f"part-*{parts.suffix}"))):
        parts.forget_checksum(index)
        write = _mark_lines if parts.suffix == ".jsonl" else _mark_table
        at += write(path, columns.prefix + ABSTAINED, marks[at:])
        parts.seal(index)
    return int(marks.sum())


def _mark_lines(path: Path, name: str, marks: Mask) -> int:
    """Add the mark at the end of each line; all else stays to the byte."""
    key, rows = f", {json.dumps(name)}: ".encode(), 0
    old = re.compile(re.escape(key) + rb"(true|false)}\n$")
    with path.open("rb") as source, whole_file(path) as target:
        for rows, line in enumerate(source, start=1):
            kept = old.sub(b"", line).removesuffix(b"}\n")
            target.write(kept + key + (b"true}\n" if marks[rows - 1] else b"false}\n"))
    return rows


def _mark_table(path: Path, name: str, marks: Mask) -> int:
    rows = 0
    with pyarrow.parquet.ParquetFile(path) as source, whole_file(path) as target:
        fields = [field for field in source.schema_arrow if field.name != name]
        with pyarrow.parquet.ParquetWriter(target, pa.schema([*fields, pa.field(name, pa.bool_())])) as writer:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group, columns=[field.name for field in fields])
                own = pa.array(marks[rows : rows + len(table)], pa.bool_())
                writer.write_table(table.append_column(name, own), row_group_size=max(1, len(table)))
                rows += len(table)
    return rows
