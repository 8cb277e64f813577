"""Read scored rows for a page: the numbers of all of them, and the texts of those that are shown."""

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Entry, Row
from inspector_pipeline.files.sources import find_sources
from inspector_pipeline.jobs.flags import Flags
from inspector_pipeline.jobs.manifest import MANIFEST, check_finished, read_manifest
from inspector_pipeline.jobs.output import REJECTS
from inspector_pipeline.results import EXPLANATION, PUBLISHED_TOTAL, RANK_BY, SEEN, TOTAL, UNFAMILIAR

from ..evaluation.scored import judge_prefixes
from .scored import Asked, Scored, text_columns

ABSTAINED = "abstained"
TRUNCATED = "truncated"
PROBABILITIES = "probabilities"
NO_GROUP = "(none)"  # of rows without a value in the column of groups


def read_scored(place: Path, asked: Asked) -> Scored:
    """Read the numbers of a scored file or a job's folder, row by row.

    Args:
        place: The file or folder.
        asked: What to read beside the scores.

    Raises:
        DataFileError: It cannot be read, is not finished, or its rows are not scored or lack a column that was asked
            for.
    """
    check_finished(place)
    names = _first_names(place)
    prefix = _prefix(place, names, asked.prefix)
    aspects = _aspects(place, prefix)
    _check_columns(place, names, aspects, asked)
    manifest = read_manifest(place / MANIFEST) if (place / MANIFEST).is_file() else {}
    question, _ = text_columns(manifest)
    read = _Numbers(place, prefix, aspects, asked, question)
    for entry in _entries(place, _columns(names, prefix, asked, question)):
        read.add(entry)
    if not read.flags.rows:
        raise DataFileError(f"{place} expects scored rows, but holds none.")
    rejects = place / REJECTS
    files = rejects.glob("*.jsonl") if rejects.is_dir() else ()
    return read.scored(sum(file.read_bytes().count(b"\n") for file in files), manifest)


def shown_rows(scored: Scored, limit: int) -> list[int]:
    """Choose the rows whose texts are shown: all, or as many of the best, the worst and the least certain.

    Returns:
        Positions, ascending.
    """
    if scored.rows <= limit:
        return list(range(scored.rows))
    order = np.argsort(-scored.ranked, kind="stable")
    ways = (order, order[::-1], np.argsort(-scored.doubt, kind="stable"))
    chosen: dict[int, None] = {}
    for places in zip(*ways, strict=True):
        chosen |= dict.fromkeys(int(place) for place in places)
        if len(chosen) >= limit:
            break
    return sorted(list(chosen)[:limit])


def texts_of(scored: Scored, positions: Sequence[int], asked: Asked) -> Iterator[tuple[int, Row]]:
    """Read the chosen rows again, whole."""
    wanted = set(positions)
    for position, entry in enumerate(_entries(scored.place, None)):
        if position in wanted and entry.row is not None:
            yield position, entry.row


def number(value: Any) -> float:
    """Return a cell as a number; NaN where it is none. Text in CSV."""
    try:
        return math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        return math.nan


def level(value: Any) -> Any:
    """Return a score as the judge gives it: a whole number as such, which is text in CSV, another one, or a word."""
    found = number(value)
    return value if math.isnan(found) else int(found) if found.is_integer() else found


def label_of(value: Any) -> float:
    """Return a label as a whole number, where yes and no are 1 and 0; NaN where it is none."""
    said = flag(value)
    found = number(value) if said is None else float(said)
    return found if found.is_integer() else math.nan


def group_name(value: Any) -> str:
    """Name the group of a cell's value, whatever the cell holds; the same in every format."""
    if is_blank(value):
        return NO_GROUP
    nests = isinstance(value, (bool, dict, list))
    return json.dumps(value, ensure_ascii=False, default=str) if nests else str(value)


def is_blank(value: Any) -> bool:
    """Say whether a cell holds nothing; NaN is what some tables have for that."""
    return value is None or value == "" or value != value


def flag(value: Any) -> bool | None:
    """Return a cell as yes, no or None."""
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())


def nested(value: Any, where: str) -> dict[str, Any]:
    """Return a cell that holds an object, which is text in CSV; an empty one where it holds none.

    Raises:
        DataFileError: It holds something else.
    """
    try:
        found = json.loads(value) if isinstance(value, str) and value else value or {}
    except (ValueError, RecursionError):
        found = value
    if not isinstance(found, dict):
        raise DataFileError(f"{where} expects an object, as `inspector score` writes it, but got {value!r:.80}.")
    return found


def _shares(value: Any, where: str) -> dict[str, dict[str, float]]:
    """Return a row's probabilities: aspect -> score -> share."""
    found = nested(value, where)
    if not all(isinstance(own, (dict, type(None))) for own in found.values()):
        raise DataFileError(f"{where} expects each aspect's scores with their shares, but got {found!r:.60}.")
    return found


class _Numbers:
    """Collects the numbers of rows."""

    def __init__(self, place: Path, prefix: str, aspects: list[str], asked: Asked, question: str) -> None:
        self.place, self.prefix, self.aspects, self.asked = place, prefix, aspects, asked
        self.question = question
        self.flags = Flags(prefix)
        self.scores: dict[str, list[Any]] = {name: [] for name in aspects}
        self.expected = {name: array("d") for name in aspects}
        self.labels = {name: array("d") for name in asked.labels}
        self.unread = dict.fromkeys(asked.labels, 0)
        self.shares: dict[str, list[dict[str, float]]] = {name: [] for name in asked.labels}
        self.ranked, self.doubt, self.questions = array("d"), array("d"), array("q")
        self.groups: list[str] = []
        self.field: str | None = None
        self.abstained: int | None = None
        self._known: dict[str, int] = {}
        self._groups: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        row, at = entry.row, self.prefix
        if row is None or entry.fault is not None:
            raise DataFileError(f"{entry.place} {entry.fault}.")
        self.flags.add({name: flag(value) if name in self._flag_columns() else value for name, value in row.items()})
        for name in self.aspects:
            score, expected = level(row.get(at + name)), number(row.get(f"{at}expected_{name}"))
            if score in (None, "") or not math.isfinite(expected):
                raise DataFileError(f"{entry.place} expects a score and an expected score of {name!r}, but has none.")
            self.scores[name].append(score)
            self.expected[name].append(expected)
        shares = _shares(row.get(at + PROBABILITIES), f"{entry.place}, {at + PROBABILITIES},")
        field = self.field = self.field or self._ranked_by(row)
        self.ranked.append(number(row.get(field)))
        own = [name for name in self.aspects if field in (at + name, f"{at}expected_{name}")] or self.aspects
        self.doubt.append(math.sqrt(sum(_variance(shares.get(name) or {}) for name in own)))
        abstained = flag(row.get(at + ABSTAINED))
        if abstained is not None:
            self.abstained = (self.abstained or 0) + abstained
        for name, column in self.asked.labels.items():
            label = label_of(row.get(column))
            self.unread[name] += math.isnan(label) and not is_blank(row.get(column))
            self.labels[name].append(label)
            self.shares[name].append(shares.get(name) or {})
        group = "" if self.asked.group is None else group_name(row.get(self.asked.group))
        self.groups.append(self._groups.setdefault(group, group))
        question = str(row.get(self.question, row.get("id", len(self.ranked))))
        self.questions.append(self._known.setdefault(question, len(self._known)))

    def _flag_columns(self) -> tuple[str, ...]:
        return tuple(self.prefix + name for name in (TRUNCATED, UNFAMILIAR, SEEN))

    def _ranked_by(self, row: Row) -> str:
        named = row.get(self.prefix + RANK_BY)
        usual = (self.prefix + TOTAL, self.prefix + PUBLISHED_TOTAL)
        fields = [named, *usual, *(f"{self.prefix}expected_{name}" for name in self.aspects)]
        found = next((str(one) for one in fields if one and not math.isnan(number(row.get(str(one))))), None)
        if found is None:
            raise DataFileError(f"{self.place} expects rows with a total or an expected score, but one has none.")
        return found

    def scored(self, rejected: int, manifest: dict[str, Any]) -> Scored:
        odd = [name for name, rows in self.shares.items() if not all(_is_whole(c) for own in rows for c in own)]
        if odd:
            raise DataFileError(f"--label expects an aspect whose scores are whole numbers, but got {odd[0]!r}.")
        for name, n in self.unread.items():
            if n and np.isnan(self.labels[name]).all():
                column = self.asked.labels[name]
                raise DataFileError(
                    f"{self.place} expects labels that are whole numbers, or true and false, in the column {column!r}, "
                    f"but none of {n} is one. Write them as the judge's scores."
                )
        classes = {name: sorted({int(c) for own in rows for c in own}) for name, rows in self.shares.items()}
        good = {
            name: {c: np.array([number(own.get(str(c), 0.0)) for own in self.shares[name]]) for c in found}
            for name, found in classes.items()
        }
        return Scored(
            self.place,
            self.prefix,
            self.aspects,
            str(self.field),
            self.scores,
            {name: np.asarray(own) for name, own in self.expected.items()},
            np.asarray(self.ranked),
            np.asarray(self.doubt),
            good,
            {name: np.asarray(own) for name, own in self.labels.items()},
            self.groups,
            np.asarray(self.questions),
            self.flags,
            self.abstained,
            rejected,
            manifest,
            self.unread,
        )


def _is_whole(score: Any) -> bool:
    return number(score).is_integer()


def _variance(shares: Mapping[str, float]) -> float:
    values = [number(score) for score in shares]
    values = [float(place) for place in range(len(values))] if any(map(math.isnan, values)) else values  # words
    scores = [(value, share or 0.0) for value, share in zip(values, shares.values(), strict=True)]
    mean = math.fsum(score * share for score, share in scores)
    return math.fsum(share * (score - mean) ** 2 for score, share in scores)


def _entries(place: Path, columns: Sequence[str] | None) -> Iterator[Entry]:
    for source in find_sources(str(place)):
        yield from source.entries(columns)


def _first_names(place: Path) -> list[str]:
    sources = find_sources(str(place))
    if sources[0].schema is not None:
        return list(sources[0].schema.names)
    return next((list(entry.row) for entry in _entries(place, None) if entry.row), [])


def _prefix(place: Path, names: Sequence[str], asked: str | None) -> str:
    """Find what the judge's columns begin with."""
    found = [end for end in judge_prefixes(names) if end + TRUNCATED in names and end + PROBABILITIES in names]
    found = found if asked is None else [end for end in found if end == asked]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataFileError(
            f"A report expects rows of one judge, but {place} has those of several, whose columns begin with "
            f"{', '.join(map(repr, found))}. Name one by --prefix."
        )
    raise DataFileError(
        f"{place} expects rows that `inspector score` wrote, with total_score, truncated and probabilities, but has "
        f"{', '.join(names)!r:.200}. Score them first."
    )


def _aspects(place: Path, prefix: str) -> list[str]:
    """Name the judge's aspects, in its order: those of the first row's probabilities."""
    column = prefix + PROBABILITIES
    cells = ((entry.place, (entry.row or {}).get(column)) for entry in _entries(place, [column]))
    shares = (_shares(cell, f"{at}, {column},") for at, cell in cells)
    return next((list(found) for found in shares if found), [])


def _check_columns(place: Path, names: Sequence[str], aspects: Sequence[str], asked: Asked) -> None:
    unknown = sorted(set(asked.labels) - set(aspects))
    if unknown:
        raise DataFileError(f"--label expects an aspect of {', '.join(aspects)}, but got {unknown[0]!r}.")
    columns = [*asked.labels.values(), *([asked.group] if asked.group is not None else [])]
    missing = [column for column in columns if column not in names]
    if missing:
        raise DataFileError(f"{place} expects the column {missing[0]!r}, but has {', '.join(names)!r:.300}.")


def _columns(names: Sequence[str], prefix: str, asked: Asked, question: str) -> list[str]:
    """Name the columns that are read of all rows: the judge's but explanations, and those that were asked for."""
    own = (
        [name for name in names if name.startswith(prefix) and name != prefix + EXPLANATION] if prefix else list(names)
    )
    wanted = {*own, *asked.labels.values(), asked.group, question, "id"} - {None}
    return [name for name in names if name in wanted]
