"""Tables as other tools wrote them, brought to the columns that stages read: question and prediction."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from inspector_pipeline.errors import DataFileError, PairError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.label_tools import with_plain_labels
from inspector_pipeline.names import (
    CHOSEN,
    NAMES,
    PAIR,
    PREDICTION,
    QUESTION,
    QUESTION_TURNS,
    REJECTED,
    Read,
    has,
    is_turn,
    is_turns,
    normal,
    value_at,
)
from inspector_pipeline.rows import SAMPLE_ROWS, SOURCE_PART, SOURCE_ROW, RowReader

from .records import question_id

logger = logging.getLogger(__name__)

SHOWN = 3  # reasons
SIDES = (CHOSEN, REJECTED)
BY_OPTION = "To train, say it by --question and --prediction (of the data stage, --columns.question and the like)."


def as_pairs(
    rows: list[Row],
    columns: Mapping[str, str | None],
    where: str,
    *,
    gold: bool = False,
    keys: Sequence[str] | None = None,
    answered: bool = True,
) -> list[Row]:
    """Give rows of any usual layout the columns `question` and `prediction`; rows that have them stay as they are.

    A row with several responses becomes several; without `keys`, one with a chosen and a rejected response keeps both,
    as texts, and labels in cells of labelling tools get columns of their own names.

    Args:
        rows: The rows as they were read.
        columns: Text -> column, where it is named; a question's other name leaves all rows as they are.
        where: What to call the rows in messages.
        gold: Whether a column `answer` is a gold solution.
        keys: The texts that a judge needs of every row; None takes what there is.
        answered: Whether a response is looked for, as where it is not known which columns hold two.

    Returns:
        The rows; without `keys`, one of which no pair can be read has None as its question, and is told.

    Raises:
        DataFileError: The rows may be meant in several ways; the message lists them.
        PairError: A row holds no pair, and a judge needs it.
    """
    rows = with_plain_labels(rows) if keys is None else rows
    present = {name for row in rows for name in row}
    named = {key: column for key, column in columns.items() if column not in (None, key)}
    is_whole = bool(keys) and all(row.get(key) is not None for row in rows for key in keys or ())
    asked = str(named.get(QUESTION, QUESTION))
    if is_whole or (keys is None and (QUESTION in present or QUESTION in named) and not hold_turns(rows, [asked])):
        return rows
    given = {key: str(column) for key, column in named.items()}
    reader = _reader(rows, given, where, gold, keys, answered)
    return rows if reader is None else _read_all(reader, rows, where, keys)


def as_comparisons(rows: list[Row], question: str, responses: Sequence[str], where: str) -> list[Row]:
    """Give rows whose two responses, or what comes before them, are turns the columns question, chosen and rejected.

    Args:
        rows: The rows.
        question: The column of the questions, which whole conversations need not have.
        responses: The columns of the first and the second response.
        where: What to call the rows in messages.

    Returns:
        The rows, with the first response as `chosen` and the second as `rejected`, whichever is better; one of which no
        two responses to the same turns can be read has None as its question, and is told.

    Raises:
        DataFileError: No row holds such.
    """
    given = {QUESTION: question} if any(question in row for row in rows) else {}
    reader = RowReader({**given, CHOSEN: responses[0], REJECTED: responses[1]}, where=where)
    logger.info("%s: %s", where, reader.settle(rows[:SAMPLE_ROWS], quiet=True).told)
    found = _read_all(reader, rows, where, None)
    if not any(CHOSEN in row for row in found):
        raise DataFileError(
            f"{where} expects two responses to the same turns, but none of its {len(rows)} rows holds such. Give those "
            "of one turn, or whose earlier turns are the same."
        )
    return found


def hold_turns(rows: Sequence[Row], columns: Sequence[str]) -> bool:
    """Say whether a column holds a conversation, in any row."""
    return any(is_turns(row.get(name)) or is_turn(row.get(name)) for row in rows for name in columns)


def column_of_responses(rows: Sequence[Row], prediction: str) -> str:
    """Return the column of the responses: the named one, or where there is none the one that is usually called so.

    Args:
        rows: The rows.
        prediction: The named column.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    if prediction != PREDICTION or prediction in names or names.keys() >= {CHOSEN, REJECTED}:
        return prediction
    usual = [name for name in names if normal(name) in NAMES[PREDICTION]]
    is_text = len(usual) == 1 and all(isinstance(row.get(usual[0]), (str, type(None))) for row in rows)
    return usual[0] if is_text else prediction


def with_inner_columns(rows: list[Row], columns: Iterable[str]) -> list[Row]:
    """Give rows a column for each path into their objects, such as `scores.match.value` of a log, that is asked for."""
    names = {name for row in rows for name in row}
    inner = [name for name in columns if name not in names and "." in name and any(has(row, name) for row in rows)]
    return [{**row, **{name: value_at(row, name) for name in inner}} for row in rows] if inner else rows


def with_ids_of_questions(rows: list[Row], question: str) -> list[Row]:
    """Rename a column `id` that numbers rows: rows of one question have several, and would be several questions.

    Args:
        rows: The rows.
        question: The column of the questions.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        if isinstance(row.get(question), str):
            found.setdefault(question_id(row[question]), set()).add(str(row.get("id")))
    repeated = sum(len(ids) > 1 for ids in found.values())
    if not repeated:
        return rows
    logger.warning(
        "The column 'id' numbers rows: %d questions come again under another one. Questions are told apart by their "
        "text, and it is kept as 'row_id'.",
        repeated,
    )
    return [{"row_id" if key == "id" else key: value for key, value in row.items()} for row in rows]


def are_nested(rows: Sequence[Row], columns: Sequence[str]) -> bool:
    """Say whether a column holds turns or a list of texts, in any row."""
    return any(isinstance(row.get(name), (list, dict)) for row in rows for name in columns)


def _read_all(reader: RowReader, rows: Sequence[Row], where: str, keys: Sequence[str] | None) -> list[Row]:
    """Read all rows; without `keys`, one without a pair keeps its columns, and is told.

    Raises:
        PairError: A row holds no pair, and a judge needs it.
    """
    found: list[Row] = []
    faults: Counter[str] = Counter()
    for number, row in enumerate(rows):
        try:
            reads = reader.reads(row, number)
            taken = reader.layout.used if reader.layout else ()
            found += _joined(reads, row, taken) if keys is None else [_with_texts(one, keys) for one in reads]
        except PairError as error:
            if keys is not None:
                raise PairError(f"{where}: row {number}: {error}") from error
            faults[str(error)] += 1
            found.append({QUESTION: None, **row})
    for reason, count in faults.most_common(SHOWN):
        logger.warning("%s: %d rows hold no pair: %s", where, count, reason)
    return found


def _reader(
    rows: Sequence[Row], given: Mapping[str, str], where: str, gold: bool, keys: Sequence[str] | None, answered: bool
) -> RowReader | None:
    """Return what reads the rows; None where they stay as they are."""
    if keys is not None:
        reader = RowReader(given, keys, where=where)
        reader.settle(rows[:SAMPLE_ROWS])
        return reader
    wanted = (PAIR, PAIR[:1]) if answered else (PAIR[:1],)
    readers = [RowReader(given, some, where=where, further=True, gold=gold) for some in wanted]
    try:
        found = next((one for one in readers if not _stays(one, rows)), None)
    except DataFileError as error:
        raise DataFileError(f"{error} {BY_OPTION}" if "Say which" in str(error) else str(error)) from error
    if found is not None:
        logger.info("%s: %s", where, found.layout and found.layout.told)
    return found


def _with_texts(one: Read, keys: Sequence[str]) -> Row:
    turns = {QUESTION_TURNS: one.pair[QUESTION_TURNS]} if QUESTION_TURNS in one.pair else {}
    return {**one.row, **{key: one.pair.get(key) for key in keys}, **turns}


def _stays(reader: RowReader, rows: Sequence[Row]) -> bool:
    reader.settle(rows[:SAMPLE_ROWS], quiet=True)
    return reader.is_as_named


def _beside(source: Row, taken: Sequence[str], read: Read) -> Row:
    """Return what stands beside a response in an object of a list of them, such as its rating or what wrote it.

    What the row has a column of the same name for gets the list's name before its own (`completions.model`).
    """
    part = read.row.get(SOURCE_PART)
    lists = ((name, source[name]) for name in taken if isinstance(source.get(name), list))
    name, answers = next(lists, ("", []))
    one = answers[part] if isinstance(part, int) and part < len(answers) else None
    if not isinstance(one, Mapping) or is_turn(one):
        return {}
    text = next((key for key in NAMES[PREDICTION] if isinstance(one.get(key), str)), None)
    held = {*read.row, *read.pair}
    return {f"{name}.{key}" if key in held else key: value for key, value in one.items() if key != text}


def _joined(reads: Sequence[Read], source: Row, taken: Sequence[str]) -> list[Row]:
    """Put a row's pairs beside its own columns; two of which one is preferred are one row.

    Raises:
        PairError: They follow different turns, and so answer different questions.
    """
    parts = [str(one.row.get(SOURCE_PART)).partition(".")[0] for one in reads]
    rows: list[dict[str, Any]] = [{**_beside(source, taken, one), **one.row, **one.pair} for one in reads]
    for row in rows:  # which nothing takes for labels then; a question's responses are numbered anyway
        row.pop(SOURCE_ROW, None)
        row.pop(SOURCE_PART, None)
    if {*parts} != {CHOSEN, REJECTED}:
        return rows
    if len({row[QUESTION] for row in rows}) > 1:
        raise PairError(
            "Responses that are compared expect the same turns before them, but these follow different ones"
        )
    texts = [row.pop(PREDICTION) for row in rows]
    chosen, rejected = ([text for text, part in zip(texts, parts, strict=True) if part == side] for side in SIDES)
    return [{**rows[0], CHOSEN: one, REJECTED: other} for one in chosen for other in rejected]
