"""A user's own labelled rows, with what a judge says of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector_pipeline.api.uncertain import ESCALATED, LABEL
from inspector_pipeline.configuration_inspector import Aspect
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.results import PROBABILITIES, SEEN, SETS, level_kind

from ..evaluation.scored import check_row, judge_prefixes, pair_of, refuse_judges_column
from ..rows.records import question_id
from ..rows.scales import BINARY_WORDS, Level, is_blank, number_of
from .level_maps import Slice

CHECKED = 3  # rows of a scored file that are scored again, to see that this judge scored them
NEAR = 0.02  # of the scale, which half precision stays within


@dataclass(frozen=True)
class Labelled:
    """Rows with labels.

    Attributes:
        rows: The rows, each with question and prediction where the judge reads both.
        labels: Aspect -> row -> label, one of its classes, of those that have one.
    """

    rows: list[Row]
    labels: dict[str, dict[int, Level]]


def labelled_rows(
    tables: Iterable[tuple[str, Sequence[Row]]],
    aspects: Sequence[Aspect],
    named: Mapping[str, str] | None = None,
    keys: Sequence[str] = (),
) -> Labelled:
    """Find the labels in tables, and check them.

    Labels of an aspect stand in the column that is named for it, or in `label_` and its name, or, in a table without
    scores of a judge, in its name, or, where the judge has one aspect, in `label`. A row with a blank cell has none.

    Args:
        tables: (name, rows).
        aspects: The judge's.
        named: Aspect -> column; other aspects then get no labels.
        keys: The texts that the judge needs of rows with labels.

    Raises:
        DataFileError: No column or no label is found, or a label is none of the aspect's classes.
        PairError: A row with a label has a text that cannot be scored, or lacks it.
    """
    rows: list[Row] = []
    labels: dict[str, dict[int, Level]] = {aspect.name: {} for aspect in aspects}
    unknown = sorted(set(named or {}) - labels.keys())
    if unknown:
        raise DataFileError(f"--labels expects aspects of the judge ({', '.join(labels)}), but got {unknown[0]!r}.")
    for source, table in tables:
        columns = _label_columns(source, table, aspects, named or {})
        for place, row in enumerate(table):
            found = {
                aspect.name: _label(source, place, row[columns[aspect.name]], aspect)
                for aspect in aspects
                if aspect.name in columns and not is_blank(row.get(columns[aspect.name]))
            }
            for name, label in found.items():
                labels[name][len(rows)] = label
            if found:
                check_row(row, keys, source, place)
                rows.append(row)
    if not rows:
        raise DataFileError("Calibration expects rows with labels, but all cells of labels are blank. Fill them in.")
    return Labelled(rows, {name: own for name, own in labels.items() if own})


def _label_columns(source: str, table: Sequence[Row], aspects: Sequence[Aspect], named: Mapping[str, str]) -> Row:
    if not table:
        raise DataFileError(f"{source} expects rows with labels, but has none.")
    present = list(dict.fromkeys(name for row in table for name in row))
    asked = [aspect.name for aspect in aspects if not named or aspect.name in named]
    found = {}
    for name in asked:
        is_scored = any(column.endswith(f"expected_{name}") for column in present)
        choices = [f"{LABEL}{name}", *([] if is_scored or named else [name])]
        choices += ["label"] if len(aspects) == 1 and not named else []
        chosen = next((column for column in [named.get(name), *choices] if column in present), None)
        if chosen is not None:
            refuse_judges_column(table, chosen, source)
            found[name] = chosen
    if not found:
        shown = ", ".join(map(repr, present)) or "none"
        wanted = " or ".join(repr(named.get(name, f"{LABEL}{name}")) for name in asked)
        raise DataFileError(
            f"{source} expects a column of labels, {wanted}, but has {shown}. Name it by --labels ASPECT=COLUMN; in a "
            "table that a judge has scored, the column with an aspect's name holds the judge's scores, no labels."
        )
    return found


def _label(source: str, place: int, cell: Any, aspect: Aspect) -> Level:
    """Read a label as one of the aspect's classes; of real numbers, whose classes are means, the nearest."""
    words = {word.casefold(): aspect.number(word) for word in aspect.words}
    found = words.get(str(cell).strip().casefold()) if words else number_of(cell, BINARY_WORDS)
    classes = list(aspect.classes)
    if found is not None and level_kind(aspect) is float:
        ends = 2 * classes[0] - classes[1], 2 * classes[-1] - classes[-2]
        nearest = min(classes, key=lambda level: abs(level - found))
        found = nearest if ends[0] <= found <= ends[1] else None
    if found is None or found not in classes:
        raise DataFileError(
            f"{source}, row {place} expects as label of {aspect.name} one of {', '.join(map(str, aspect.levels))}, "
            f"the scores that the judge knows, but got {cell!r:.60}. Leave the column out by --labels, or train a "
            "judge on it: inspector train."
        )
    return found


def said_before(row: Row, aspects: Sequence[Aspect]) -> Row | None:
    """Return aspect -> probabilities that an uncalibrated judge gave a row, (classes,); None where it has no scores.

    Raises:
        DataFileError: They are of other classes, or of a judge that was calibrated.
    """
    prefix = _prefix(row)
    shares = row.get(prefix + PROBABILITIES)
    if isinstance(shares, str):  # CSV
        shares = json.loads(shares) if shares.startswith("{") else None
    if not isinstance(shares, Mapping):
        return None
    if prefix + SETS in row:
        raise DataFileError(
            "Calibration expects rows with the scores of a judge that was not calibrated, but these have score sets. "
            "Leave the columns of scores out, and the rows are scored."
        )
    found = {}
    for aspect in aspects:
        own = shares.get(aspect.name)
        names = [str(level) for level in aspect.levels]
        if not isinstance(own, Mapping) or set(own) != set(names):
            raise DataFileError(
                f"A scored row expects probabilities of {aspect.name} for {', '.join(names)}, but has {own!r:.60}. It "
                "was scored by another judge."
            )
        found[aspect.name] = [float(own[name]) for name in names]
    return found


def _prefix(row: Row) -> str:
    return next(iter(judge_prefixes(row)), "")


def judge_says(judge: Any, rows: Sequence[Row], batch_size: int | None = None) -> tuple[list[Row], list[bool]]:
    """Return each row's aspect -> probabilities, from its own columns or by one run of the judge, and if it was seen.

    Args:
        judge: A loaded judge without calibration.
        rows: With its keys; those that it has scored already are not scored again, but for a few as a check.
        batch_size: As in a call of the judge.

    Returns:
        (rows,) probabilities, and whether the judge was fitted on the question, as far as it can say.

    Raises:
        DataFileError: Another judge has scored the rows.
        PairError: A row cannot be scored.
    """
    aspects = judge.model.config.parsed_aspects
    known = [said_before(row, aspects) for row in rows]
    blank = [place for place, one in enumerate(known) if one is None]
    checked = [place for place, one in enumerate(known) if one is not None][:CHECKED]
    pairs = [pair_of(rows[place], judge.encode.keys) for place in (*blank, *checked)]
    results = judge(pairs, batch_size=batch_size) if pairs else []
    fresh = [{name: list(own.values()) for name, own in result[PROBABILITIES].items()} for result in results]
    for place, found in zip(checked, fresh[len(blank) :], strict=True):
        _check_same(known[place] or {}, found, aspects)
    said = dict(zip(blank, fresh, strict=False))
    seen = [str(row.get(_prefix(row) + SEEN)).lower() == "true" for row in rows]
    for place, result in zip(blank, results, strict=False):
        seen[place] = bool(result[SEEN])
    return [said[place] if one is None else one for place, one in enumerate(known)], seen


def _check_same(before: Row, now: Row, aspects: Sequence[Aspect]) -> None:
    for aspect in aspects:
        scale = np.array(aspect.classes)
        one, other = (float(np.dot(shares[aspect.name], scale)) for shares in (before, now))
        if abs(one - other) > NEAR * float(np.ptp(scale)):
            raise DataFileError(
                f"Calibration expects rows that this judge has scored, but it expects {other:.3f} of {aspect.name} and "
                f"the rows say {one:.3f}. Leave the columns of scores out, and it scores them."
            )


def slice_of(labelled: Labelled, said: Sequence[Row], aspect: Aspect) -> tuple[Slice, list[int]]:
    """Return one aspect's labels with what the judge says, and which rows they are of."""
    places = list(labelled.labels[aspect.name])
    shares = np.array([said[place][aspect.name] for place in places], dtype=np.float64)
    rows = [labelled.rows[place] for place in places]
    label = np.array([aspect.classes.index(labelled.labels[aspect.name][place]) for place in places], dtype=np.int64)
    expected = (shares.astype(np.float32) * np.array(aspect.classes, np.float32)).sum(axis=1).astype(np.float64)
    question = np.array([question_id(str(row["question"])) for row in rows])
    drawn = np.array([str(row.get(ESCALATED)).lower() != "true" for row in rows])
    return Slice(aspect.classes, expected, shares, label, question, drawn), places
