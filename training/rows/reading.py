"""Tables as other tools wrote them, brought to the columns that stages read: question and prediction."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from inspector_pipeline.errors import PairError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.names import CHOSEN, PAIR, PREDICTION, QUESTION, REJECTED, Read
from inspector_pipeline.rows import SAMPLE_ROWS, SOURCE_PART, SOURCE_ROW, RowReader

logger = logging.getLogger(__name__)

SHOWN = 3  # reasons


def as_pairs(rows: list[Row], columns: Mapping[str, str | None], where: str, *, gold: bool = False) -> list[Row]:
    """Give rows of any usual layout the columns `question` and `prediction`; rows that have them stay as they are.

    A row with several responses becomes several; one with a chosen and a rejected response keeps both, as texts.

    Args:
        rows: The rows as they were read.
        columns: Text -> column, where it is named; a question's other name leaves all rows as they are.
        where: What to call the rows in messages.
        gold: Whether a column `answer` is a gold solution.

    Returns:
        The rows; one of which no pair can be read has None as its question, and is told.

    Raises:
        DataFileError: The rows may be meant in several ways; the message lists them.
    """
    present = {name for row in rows for name in row}
    named = {key: column for key, column in columns.items() if column not in (None, key)}
    if QUESTION in present or QUESTION in named:
        return rows
    given = {key: str(column) for key, column in named.items()}
    readers = [RowReader(given, keys, where=where, further=True, gold=gold) for keys in (PAIR, PAIR[:1])]
    reader = next((one for one in readers if not _stays(one, rows)), None)
    if reader is None:
        return rows
    logger.info("%s: %s", where, reader.layout and reader.layout.told)
    found: list[Row] = []
    faults: Counter[str] = Counter()
    for number, row in enumerate(rows):
        try:
            found += _joined(reader.reads(row, number))
        except PairError as error:
            faults[str(error)] += 1
            found.append({QUESTION: None, **row})
    for reason, count in faults.most_common(SHOWN):
        logger.warning("%s: %d rows hold no pair: %s", where, count, reason)
    return found


def _stays(reader: RowReader, rows: Sequence[Row]) -> bool:
    reader.settle(rows[:SAMPLE_ROWS], quiet=True)
    return reader.is_as_named


def _joined(reads: Sequence[Read]) -> list[Row]:
    """Put a row's pairs beside its own columns; two of which one is preferred are one row."""
    parts = [one.row.get(SOURCE_PART) for one in reads]
    rows: list[dict[str, Any]] = [{**one.row, **one.pair} for one in reads]
    for row in rows:  # which nothing takes for labels then; a question's responses are numbered anyway
        row.pop(SOURCE_ROW, None)
        row.pop(SOURCE_PART, None)
    if parts != [CHOSEN, REJECTED]:
        return rows
    texts = {str(part): row.pop(PREDICTION) for part, row in zip(parts, rows, strict=True)}
    return [{**rows[0], **texts}]
