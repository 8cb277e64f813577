"""The mean score or pass rate of systems, from rows that a judge has scored and a few of them with labels."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.api.uncertain import ESCALATED, LABEL
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.names import CHOSEN, MESSAGES, NAMES, PAIR, PREDICTION, QUESTION
from inspector_pipeline.results import PROBABILITIES

from ..evaluation.metrics import Array
from ..evaluation.scored import Scored, read_scored, refuse_judges_column
from ..rows.reading import as_pairs
from ..rows.records import question_id
from ..rows.scales import BINARY_WORDS, is_blank, number_of
from .prediction_powered import MeanEstimate, estimate_mean

logger = logging.getLogger(__name__)

LEAST_QUESTIONS = 3
FEW_QUESTIONS = 30
FEW = 3  # reasons that are shown where nothing can be estimated
ALL = "all rows"


@dataclass(frozen=True)
class Estimates:
    """Means of systems.

    Attributes:
        field: What the judge says of a row that stands for its label.
        label: The column of the labels.
        systems: System -> its mean.
        warnings: What to know of them.
    """

    field: str
    label: str
    systems: dict[str, MeanEstimate]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        systems = {name: one.to_dict() for name, one in self.systems.items()}
        return {"field": self.field, "label": self.label, "systems": systems, "warnings": self.warnings}


def estimate(
    scored: Sequence[str | Path],
    labelled: str | Path | None = None,
    *,
    rank_by: str | None = None,
    label: str | None = None,
    by: str | None = None,
    pass_at: float | None = None,
    confidence: float = 0.95,
) -> Estimates:
    """Estimate the mean label of every system, with an interval.

    Rows that the judge abstains from count too: the labels say what it gets wrong, and without these rows another mean
    would be estimated.

    Args:
        scored: What `inspector score` wrote: files, or folders of jobs.
        labelled: A table of rows drawn at random from them, with labels; matched by question, response and system. None
            where the scored rows have the labels.
        rank_by: The field that stands for the label; what the rows name where it is None.
        label: The labels' column; `label_` and the aspect, `label`, or the aspect's name where it is None.
        by: The column that names the system; None where all rows are of one.
        pass_at: The label from which on a row passes; then the share that passes is estimated. None for the mean label.
        confidence: Of the intervals.

    Raises:
        DataFileError: A file is not as expected, a labelled row was not scored, or a label is no number.
    """
    if pass_at is not None and not isfinite(pass_at):
        raise DataFileError(f"pass_at expects a number, but got {pass_at}.")
    read = read_scored([Path(place) for place in scored], [], rank_by, keep_abstained=True)
    told = ", ".join(map(str, scored))
    nameless = sum(is_blank(row.get(by)) for row in read.rows) if by else 0
    if nameless:
        raise DataFileError(
            f"{told} expects the system of each scored row as {by!r}, but {nameless} of {len(read.rows)} have none."
        )
    pairs = _pairs(read.rows, told, by)
    table = pairs if labelled is None else read_rows(str(labelled))
    name = str(labelled or told)
    column = _label_column(name, table, read.field, label, is_scored=labelled is None)
    refuse_judges_column(table, column, name)
    rows = [row for row in table if not is_blank(row.get(column))]
    drawn = _pairs([row for row in rows if str(row.get(ESCALATED)).lower() != "true"], name, by)
    warnings = [f"{len(rows) - len(drawn)} labels are left out: their rows were chosen for doubt, not at random."]
    labels = np.array([_number(row[column], name) for row in drawn])
    if pass_at is not None:
        labels = (labels >= pass_at).astype(np.float64)
    places = np.array(_places(pairs, drawn, by, name), dtype=np.int64)
    systems = np.array([str(row[by]).strip() if by else ALL for row in pairs])
    question = np.array([question_id(str(row["question"])) for row in pairs])
    said = _said(read, pass_at)
    found: dict[str, MeanEstimate] = {}
    warnings = warnings if len(drawn) < len(rows) else []
    if pass_at is not None and len(labels) and np.ptp(labels) == 0:
        told = "All labels are" if labels[0] else "No label is"
        warnings.append(f"{told} {pass_at:g} or more: see that this is a mark of their scale.")
    for system in dict.fromkeys(systems.tolist()):
        is_own = systems[places] == system
        own, rest = places[is_own], np.setdiff1d(np.flatnonzero(systems == system), places)
        n_questions = len(np.unique(question[own]))
        if n_questions < FEW_QUESTIONS:
            least = n_questions >= LEAST_QUESTIONS
            what = (
                f"under {FEW_QUESTIONS} the interval is rough"
                if least
                else f"it needs {LEAST_QUESTIONS}, and is left out"
            )
            counted = f"{n_questions} question{'s' if n_questions != 1 else ''}"
            warnings.append(f"{system}: labels of {counted}; {what}.")
        if n_questions >= LEAST_QUESTIONS:
            clusters = {"question": question[own], "question_unlabelled": question[rest]}
            found[system] = estimate_mean(labels[is_own], said[own], said[rest], **clusters, confidence=confidence)
    if not found:
        raise DataFileError(
            f"An estimate expects labels of {LEAST_QUESTIONS} or more questions. {' '.join(warnings[:FEW])}"
        )
    return Estimates(read.field, column, found, warnings)


def _pairs(rows: list[Row], source: str, by: str | None) -> list[Row]:
    """Give rows the columns question and prediction, as the judge read them; of questions alone they stay as they are.

    The column that names the system, `by`, is no text of a pair, though it be called `system`.

    Raises:
        DataFileError: A row holds no pair or several.
    """
    said = {*NAMES[PREDICTION], *NAMES[MESSAGES], CHOSEN}
    columns = {name.casefold() for row in rows for name in row}
    if not rows or (QUESTION in columns and not said & columns):
        return rows
    found = as_pairs([{name: cell for name, cell in row.items() if name != by} for row in rows], {}, source, keys=PAIR)
    if len(found) != len(rows):
        raise DataFileError(
            f"{source} expects one response a row, but {len(rows)} rows hold {len(found)}. Give each a row of its own, "
            "with question and prediction."
        )
    return [
        {**pair, **({by: row[by]} if by is not None and by in row else {})}
        for row, pair in zip(rows, found, strict=True)
    ]


def _label_column(source: str, table: Sequence[Row], field: str, named: str | None, *, is_scored: bool) -> str:
    present = list(dict.fromkeys(name for row in table for name in row))
    aspect = field.rpartition("expected_")[2]
    is_scored = is_scored or field in present
    choices = [named] if named else [f"{LABEL}{aspect}", "label", *([] if is_scored else [aspect])]
    chosen = next((column for column in choices if column in present), None)
    if chosen is None:
        wanted = " or ".join(map(repr, choices))
        shown = ", ".join(map(repr, present)) or "no rows"
        raise DataFileError(f"{source} expects a column of labels, {wanted}, but has {shown}. Name it by --label.")
    return chosen


def _said(read: Scored, pass_at: float | None) -> Array:
    """Return what stands for each row's label: the field, or where rows are to pass the probability that they do."""
    prefix, _, aspect = read.field.rpartition("expected_")
    shares = [row.get(prefix + PROBABILITIES) for row in read.rows]
    if pass_at is None or not all(isinstance(one, Mapping) and isinstance(one.get(aspect), Mapping) for one in shares):
        return read.value
    own = [one[aspect] for one in shares if isinstance(one, Mapping)]
    if any(number_of(level, {}) is None for level in own[0]):  # words, whose expected score is as good
        return read.value
    return np.array([sum(p for score, p in classes.items() if float(score) >= pass_at) for classes in own])


def _places(scored: Sequence[Row], labelled: Sequence[Row], by: str | None, source: str) -> list[int]:
    """Find the scored row of each labelled one.

    Raises:
        DataFileError: One is not there, or they lack the systems' column.
    """
    waiting: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, row in enumerate(scored):
        waiting[_key(row, by)].append(place)
    found, missing = [], []
    for at, row in enumerate(labelled):
        if by and is_blank(row.get(by)):
            raise DataFileError(f"{source} expects the system of each labelled row as {by!r}, but a row has none.")
        places = waiting.get(_key(row, by))
        if places:
            found.append(places.pop(0))
        else:
            missing.append(at)
    again = [at for at in missing if _key(labelled[at], by) in waiting]
    if again:
        row = labelled[again[0]]
        raise DataFileError(
            f"{source} expects each scored row labelled once, but {len(again)} more labels are of rows that have one, "
            f"such as that of {str(row.get('question'))!r:.60}. Leave one of them, or their mean."
        )
    if missing:
        row = labelled[missing[0]]
        raise DataFileError(
            f"{source} expects labelled rows that were scored too, but {len(missing)} of {len(labelled)} are not among "
            f"the scored ones, such as {str(row.get('question'))!r:.60}. Score them with the others."
        )
    return found


def _key(row: Row, by: str | None) -> tuple[str, ...]:
    return tuple(str(row.get(name) or "").strip() for name in ("question", "prediction", *([by] if by else [])))


def _number(cell: Any, source: str) -> float:
    """Read a label: a number, also as text, or a truth value or yes and no, which are 1 and 0."""
    found = number_of(cell, BINARY_WORDS)
    if found is None:
        raise DataFileError(f"{source} expects numbers as labels, but a row has {cell!r:.60}.")
    return float(found)
