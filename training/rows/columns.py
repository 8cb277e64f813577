"""The columns of a source of rows, and how one of its rows becomes a row of rows/records.py."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.names import as_text

from .scales import is_blank as is_blank
from .scales import parse_label as parse_label
from .scales import rater_columns

logger = logging.getLogger(__name__)

TEXTS = ("answer", "final_answer")
BESIDE = ("reference", "context")
HALF_SURROGATE = re.compile("[\ud800-\udfff]")


class UnusableRowError(DataFileError):
    """A row has no usable question, response or id; the message says which and why."""


@dataclass(frozen=True)
class Columns:
    """Which column of the source holds what. None, and "question", stand for the column of that very name, if any.

    Attributes:
        question: The question; columns joined by `+`, such as instruction+input, are its paragraphs.
        answer: Its gold solution; a column `gold_answer` is taken where there is no `answer`.
        final_answer: The final answer alone.
        id: The question's id; without one, the hash of the question's text is its id.
        prediction: The response. With it, the rows are responses.
        sample: Which of the question's responses; without it, they are counted from 0.
        generator: What wrote the response.
        domain: What the question is about.
        reference: A right answer, for a reading with a slot for it.
        context: What the response should rest on, for a reading with a slot for it.
        needed: Which of reference and context every row must have; rows without are left out, and told.
        label: Aspect -> column of its labels, made by people or by anything else; of several raters, their columns
            joined by `+`. With it, the rows are labelled.
        question_only: Whether the labels are of the questions themselves; there is no response then.
    """

    question: str = "question"
    answer: str | None = None
    final_answer: str | None = None
    id: str | None = None
    prediction: str | None = None
    sample: str | None = None
    generator: str | None = None
    domain: str | None = None
    reference: str | None = None
    context: str | None = None
    needed: tuple[Literal["reference", "context"], ...] = ()
    label: dict[str, str] = field(default_factory=dict)
    question_only: bool = False

    def resolve(self, rows: list[Row], source: str) -> dict[str, str]:
        """Find which columns the rows really have.

        Args:
            rows: The source's rows.
            source: Its name, for messages.

        Returns:
            Field of a row (question, answer, ..., but not label) -> column.

        Raises:
            DataFileError: There are no rows, a named column is in none of them, or labels come without responses.
        """
        if not rows:
            raise DataFileError(f"{source} expects rows, but has none.")
        present = {name for row in rows for name in row}
        if self.question_only and self.prediction:
            raise DataFileError(f"{source} expects columns.question_only or columns.prediction, but got both.")
        no_columns = {"label", "needed", "question_only", *(["prediction"] if self.question_only else [])}
        named = {name: column for name, column in vars(self).items() if name not in no_columns}
        parts = (part for column in named.values() if column for part in rater_columns(column, present))
        for column in (*parts, *self.label_columns(present)):
            if column and column not in present:
                raise DataFileError(
                    f"{source} expects the column {column!r}, but has {', '.join(map(repr, sorted(present)))}. "
                    "Name its columns with --columns.question, --columns.answer, ...."
                )
        found = {name: column or name for name, column in named.items() if column or name in present}
        if "answer" not in found and "gold_answer" in present:
            found["answer"] = "gold_answer"
        for name in (found.keys() & present) - {*found.values(), *self.label_columns(present)}:
            logger.warning(
                "%s: the column %r is left out, since %r is read as the %s.", source, name, found[name], name
            )
        if self.label and "prediction" not in found and not self.question_only:
            raise DataFileError(
                f"{source} expects a response beside its labels. Name it with --columns.prediction, or give "
                "--columns.question-only where the labels are of the questions."
            )
        return found

    def label_columns(self, present: Iterable[str]) -> list[str]:
        """Return all columns that labels stand in."""
        return [name for column in self.label.values() for name in rater_columns(column, present)]


def map_row(source: Row, columns: Mapping[str, str], needed: Sequence[str] = ()) -> Row:
    """Turn a row of a source into a question or a response.

    Args:
        source: The row as it was read.
        columns: Field -> column, as `Columns.resolve` finds it.
        needed: Which of reference and context it must have.

    Returns:
        The row, without the source's other columns and its labels; its id is None where the source has no column of
        ids.

    Raises:
        UnusableRowError: The row has no usable question, response or id, or lacks what is needed.
    """
    row: Row = {"id": None, "question": _text(source, columns["question"], "question")}
    if "id" in columns:
        row["id"] = _id(source.get(columns["id"]))
    for name in TEXTS:
        if name in columns and not is_blank(source.get(columns[name])):
            row[name] = _text(source, columns[name], name, numbers=True)
    row |= _beside(source, columns, needed)
    if "prediction" in columns:
        if "sample" in columns:
            row["sample"] = _sample(source.get(columns["sample"]))
        row["prediction"] = _text(source, columns["prediction"], "prediction")
        for name in ("generator", "domain"):
            if name in columns:
                row[name] = source.get(columns[name])
    return row


def _beside(source: Row, columns: Mapping[str, str], needed: Sequence[str]) -> Row:
    """Return what stands beside the pair, as text where it is named or is some."""
    row: Row = {}
    for name in BESIDE:
        if name in columns and not is_blank(source.get(columns[name])):
            value = as_text(source[columns[name]])
            named = columns[name] != name or name in needed  # what only happens to be called so may be of any kind
            row[name] = _text({name: value}, name, name) if named or isinstance(value, str) else _plain(value)
        elif name in needed:
            raise UnusableRowError(f"the {name} is blank")
    return row


def other_columns(source: Row, taken: set[str]) -> Row:
    """Return the columns of a source that nothing is made of, as JSON can hold them."""
    return {name: _plain(value) for name, value in source.items() if name not in taken}


def _text(source: Row, column: str, name: str, numbers: bool = False) -> str:
    value = source.get(column)
    if column not in source and "+" in column:
        parts = [_text(source, part, name) for part in rater_columns(column, source) if not is_blank(source.get(part))]
        value = "\n\n".join(parts)
    if numbers and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if is_blank(value):
        raise UnusableRowError(f"the {name} is blank")
    if not isinstance(value, str):
        raise UnusableRowError(f"the {name} is {type(value).__name__}, not text")
    if HALF_SURROGATE.search(value):
        raise UnusableRowError(f"the {name} holds half of a surrogate pair, which no file can store")
    return value


def _id(value: Any) -> int | str:
    if isinstance(value, float) and value.is_integer():  # Parquet and pandas store whole numbers beside blanks so
        return int(value)
    if is_blank(value) or isinstance(value, bool) or not isinstance(value, (int, str)):
        raise UnusableRowError(f"the id is {str(value)[:80]!r}, not a text or a whole number")
    return value


def _sample(value: Any) -> int:
    sample, _ = parse_label(value)
    if sample is None or sample < 0:
        raise UnusableRowError(f"the sample is {str(value)[:80]!r}, not 0 or a higher whole number")
    return sample


def _plain(value: Any) -> Any:
    """Return a cell as JSON can hold it: dates and the like as text, NaN as null, half a surrogate pair as `?`."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return json.loads(json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace"))
