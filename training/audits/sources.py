"""Read the files of an audit as pairs, and write them again without the rows that were found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import Row, read_json, read_rows, write_rows

from ..rows.probing_set import is_probing_set, read_probing_set, split_prompt
from .items import Item, Place


@dataclass(frozen=True)
class Source:
    """One file of the audit.

    Attributes:
        split: Its name.
        path: Where it stands.
        rows: Its rows; None for a probing set.
        items: Its pairs, in the file's order.
    """

    split: str
    path: Path
    rows: list[Row] | None
    items: list[Item]

    def write_without(self, dropped: set[Place], target: Path) -> int:
        """Write the file again, in its own form, without some rows.

        Returns:
            How many rows were written.

        Raises:
            DataFileError: Nothing would be left, or the target cannot be written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.rows is not None:
            kept = [row for i, row in enumerate(self.rows) if Place(self.split, i) not in dropped]
            write_rows(kept, str(target))
            return len(kept)
        data: dict[str, list[Row]] = read_json(self.path)
        left = {
            aspect: [row for i, row in enumerate(rows) if Place(self.split, i, aspect) not in dropped]
            for aspect, rows in data.items()
        }
        write_atomically(target, json_text({aspect: rows for aspect, rows in left.items() if rows}))
        return sum(map(len, left.values()))


def read_sources(rows: str | Mapping[str, str]) -> list[Source]:
    """Read the files of an audit.

    Args:
        rows: One path, or split -> path.

    Raises:
        DataFileError: A file cannot be read, holds no row, or its rows are not objects with text.
    """
    named = {"": rows} if isinstance(rows, str) else rows
    return [_read_source(split, Path(path)) for split, path in named.items()]


def _read_source(split: str, path: Path) -> Source:
    if is_probing_set(path):
        return Source(split, path, None, _probing_items(split, path))
    rows = read_rows(str(path))
    if not rows:
        raise DataFileError(f"{path} expects rows to audit, but holds none. Check the path.")
    return Source(split, path, rows, [_item(row, Place(split, i), path) for i, row in enumerate(rows)])


def _probing_items(split: str, path: Path) -> list[Item]:
    """Read a probing set as one item a pair, in order of first appearance."""
    pairs, rubrics = read_probing_set(path)
    places: dict[tuple[Any, str, str], list[Place]] = {}
    for aspect, rows in read_json(path).items():
        for i, row in enumerate(rows):
            key = (row["id"], *split_prompt(row["eval_prompt"], rubrics[aspect]))
            places.setdefault(key, []).append(Place(split, i, aspect))
    return [
        Item(
            tuple(places[pair.id, pair.question, pair.prediction]), pair.id, pair.question, pair.prediction, pair.scores
        )
        for pair in pairs
    ]


def _item(row: Row, place: Place, path: Path) -> Item:
    for key in ("question", "prediction"):
        if not isinstance(row.get(key), str | None):
            raise DataFileError(f"{path}: row {place.index} expects text as {key}, but got {row[key]!r:.60}.")
    scores = row.get("scores") or {}
    if not isinstance(scores, dict):
        raise DataFileError(f"{path}: row {place.index} expects an object as scores, but got {scores!r:.60}.")
    return Item(
        (place,),
        row.get("id"),
        row.get("question") or "",
        row.get("prediction") or "",
        {aspect: score for aspect, score in scores.items() if score is not None},
        int(row.get("sample") or 0),
        row.get("generator"),
        row.get("split") or place.split,
    )
