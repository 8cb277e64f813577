"""The one reading layer of every door: rows as people have them, read as pairs.

A pair is `question` and `prediction`, and where they are known `reference` and `context`; a conversation before the
response stands in `question_turns` too. Which columns hold these is settled once, from the names of the columns and the
values of the first rows, and said; where it could be meant in several ways, it is an error that lists them.

    question = instruction + input; prediction = output
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .conversation import (
    ASSISTANT,
    answers_of,
    asked,
    asked_turns,
    cell,
    divided,
    earlier_turns,
    is_answer,
    is_answers,
    is_asked,
    is_reply,
    is_turns,
    plain_turns,
    preferred,
)
from .errors import DataFileError, PairError, SettingsError
from .names import (
    CHOSEN,
    COLUMN_KEYS,
    HISTORY,
    MESSAGES,
    NAMES,
    OPTIONAL,
    PAIR,
    PREDICTION,
    QUESTION,
    REJECTED,
    SYSTEM,
    Layout,
    Read,
    Row,
    as_text,
    has,
    normal,
    opened_json,
    value_at,
)
from .shapes import SHAPES, Shape, refusal

logger = logging.getLogger(__name__)

SOURCE_ROW, SOURCE_PART = "source_row", "source_part"
SAMPLE_ROWS = 256


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse other names for what no judge reads.

    Raises:
        SettingsError: A key is none of `COLUMN_KEYS`.
    """
    unknown = sorted(set(columns) - set(COLUMN_KEYS))
    if unknown:
        raise SettingsError(
            f"--column expects question or prediction before the =, but got {unknown[0]!r}. It also takes "
            f"{', '.join(COLUMN_KEYS[2:])}."
        )


class RowReader:
    """Reads rows as pairs; what is taken for what is settled by the first rows that it is shown.

    Args:
        columns: What `--column` said: text -> the rows' column, also within an object (`response.text`); `messages` is
            a whole conversation, `chosen` and `rejected` are two responses.
        keys: The texts that the judge needs.
        strict: Whether a reference or a context that the judge does not read is an error.
        where: What the rows are called in messages.
        said: What was said of other rows already.
        further: Whether a reference and a context are read where they are, though the judge needs none.
        several: Whether a row may hold several responses; rows that are called as pairs are read as such otherwise.
        gold: Whether a column `answer` is a gold solution, and so no response.

    Raises:
        SettingsError: `columns` has another key.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        keys: Sequence[str] = PAIR,
        *,
        strict: bool = False,
        where: str = "The input",
        said: set[str] | None = None,
        further: bool = False,
        several: bool = True,
        gold: bool = False,
    ) -> None:
        """Keep the settings."""
        self.columns = dict(columns or {})
        check_columns(self.columns)
        self.keys = tuple(keys)
        self.strict = strict
        self.where = where
        self.said: set[str] = set() if said is None else said
        self.further = further
        self.several = several
        self.gold = gold
        self.layout: Layout | None = None

    def settle(self, sample: Iterable[Mapping[str, Any]], names: Sequence[str] = (), *, quiet: bool = False) -> Layout:
        """Find out what is what, and say it.

        Args:
            sample: The first rows.
            names: The columns, where they are known without any row.
            quiet: Whether nothing is said.

        Raises:
            DataFileError: It may be meant in several ways, or the rows hold no pairs; the message says what to do.
            SettingsError: A reference or a context is not read, and `strict`.
        """
        rows = [dict(row) for row in sample if isinstance(row, Mapping)]
        found = self._layout(rows, list(dict.fromkeys([*names, *(name for row in rows for name in row)])))
        self.layout = found
        if found.told and found.told not in self.said and not quiet:
            self.said.add(found.told)
            logger.warning("%s: %s", self.where, found.told)
        return found

    def reads(self, row: Mapping[str, Any], number: int = 0) -> list[Read]:
        """Read a row's pairs, one a response, after `settle`.

        Args:
            row: The row.
            number: Its place in its source, from 0; the pairs of a row with several carry it as `source_row`.

        Raises:
            PairError: It holds none that a judge could read.
        """
        layout = self.layout or self.settle([row])
        if layout.read is None:
            return [Read(self.plain_pair(row), dict(row))]
        found = []
        pairs = layout.read(dict(row))
        kept = {name: value for name, value in layout.base(dict(row)).items() if name not in layout.used}
        for pair, part in pairs:
            origin = {} if part is None else {SOURCE_ROW: number, SOURCE_PART: part}
            texts = {key: pair[key] for key in PAIR if key in pair}
            found.append(Read(pair, {**texts, **kept, **origin}))
        return found

    def read(self, row: Mapping[str, Any]) -> Row:
        """Read a row that must hold one pair, as where a door gives one result a row.

        Raises:
            PairError: It holds none, or several.
        """
        found = self.reads(row)
        if len(found) != 1:
            raise PairError(
                f"A row expects one response here, but holds {len(found)}. Divide it by "
                "read_pairs(rows), which gives a pair for each."
            )
        return found[0].pair

    def read_all(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[Row]]:
        """Settle and read all rows: what stands beside the scores, and the pairs, in the same order.

        Raises:
            DataFileError: See `settle`.
            PairError: A row holds no pair; the message says which row.
        """
        self.settle(rows[:SAMPLE_ROWS])
        if self.is_as_named:
            return list(rows), list(rows)  # type: ignore[arg-type]
        found = []
        for number, row in enumerate(rows):
            try:
                found += self.reads(row, number)
            except PairError as error:
                raise PairError(f"Row {number}: {error}") from error
        return [one.row for one in found], [one.pair for one in found]

    @property
    def is_plain(self) -> bool:
        """Whether each text is a column's, so that rows stay as they are."""
        return self.layout is not None and self.layout.plain is not None

    @property
    def text_columns(self) -> tuple[str, str]:
        """The columns that hold question and prediction once rows are read."""
        plain = (self.layout.plain if self.layout else None) or {}
        return plain.get(QUESTION, QUESTION), plain.get(PREDICTION, PREDICTION)

    @property
    def is_as_named(self) -> bool:
        """Whether rows are pairs already, by the names of their columns."""
        plain = self.layout.plain if self.layout else None
        return plain is not None and all(key == column for key, column in plain.items())

    def plain_pair(self, row: Mapping[str, Any]) -> Row:
        """Take a pair's texts from a row as they are.

        Raises:
            PairError: A column is missing.
        """
        if self.is_as_named:
            return dict(row)
        columns = (self.layout.plain if self.layout else None) or {}
        missing = missing_column(row, {key: column for key, column in columns.items() if key in self.keys})
        if missing:
            raise PairError(f"A row {missing}.")
        return {key: row[column] for key, column in columns.items() if column in row}

    def _layout(self, rows: list[Row], names: list[str]) -> Layout:
        flat, shape = rows, None
        if not self.columns and all(key in names for key in self.keys if key in PAIR):
            answers = [row.get(PREDICTION) for row in rows]
            is_list = self.several and bool(answers) and all(map(is_answers, answers))
            if all(key in names for key in self.keys) and not is_list and not self.further:
                notes = _Ways(self, rows, names, None, {}).ignored()
                return Layout("; ".join(notes) or None, {key: key for key in self.keys})
        elif not self.columns:
            shape = next((one for one in SHAPES if rows and all(map(one.fits, rows))), None)
            reason = None if shape or not rows else refusal(rows[0])
            if reason:
                raise DataFileError(f"{self.where} cannot be read: {reason}.")
            if shape:
                flat = [own for row in rows if (own := _flat_or_none(shape, row))]
                names = list(dict.fromkeys(name for row in flat for name in row))
            if shape and not flat:  # each row is told why
                return Layout(
                    f"{shape.name}, none of which can be read", None, lambda row: [(shape.lay_flat(row), None)]
                )
        ways = _Ways(self, flat, names, shape, shape.origins(rows[0]) if shape else {})
        found = ways.settle()
        notes = [*([found.told] if found.told else []), *ways.ignored()]
        return found._replace(told="; ".join(notes) or None)


def _flat_or_none(shape: Shape, row: Row) -> Row | None:
    try:
        return shape.lay_flat(row)
    except PairError:
        return None


class _Ways:
    """The ways in which columns may be meant."""

    def __init__(
        self, reader: RowReader, rows: list[Row], names: list[str], shape: Shape | None, origins: dict[str, str]
    ) -> None:
        self.reader = reader
        self.rows = rows
        self.names = names
        self.shape = shape
        self.origins = origins
        self.given = reader.columns
        self.needs_prediction = PREDICTION in reader.keys
        own = {normal(name) for name in names}
        self.is_exact = QUESTION in own and (PREDICTION in own or not self.needs_prediction)
        self.optional = {key: name for key in OPTIONAL if (name := self._optional(key))}

    def settle(self) -> Layout:
        """Choose the one way.

        Raises:
            DataFileError: There are several.
        """
        if MESSAGES in self.given:
            return self._conversation(self.given[MESSAGES])
        questions, predictions = self._questions(), self._predictions()
        if CHOSEN in self.given or REJECTED in self.given:
            return self._preference([self.given.get(key, key) for key in (CHOSEN, REJECTED)], questions)
        ways: dict[str, Callable[[], Layout]] = {}
        if not self.given and not self.is_exact:
            ways = {f"--column {MESSAGES}={name}": partial(self._conversation, name) for name in self._talks()}
            pair = [next(iter(self._named(key)), "") for key in (CHOSEN, REJECTED)]
            if all(pair) and self.needs_prediction:
                ways[f"--column {CHOSEN}={pair[0]}"] = partial(self._preference, pair, questions)
        for question in questions:
            for prediction in predictions if self.needs_prediction else [None]:
                told = [f"{QUESTION}={'+'.join(question)}", *([f"{PREDICTION}={prediction}"] if prediction else [])]
                ways[" ".join(f"--column {one}" for one in told)] = partial(self._columns, question, prediction)
        if len(ways) > 1:
            raise DataFileError(
                f"{self.reader.where} may be meant in several ways. Say which: {' or '.join(ways)}. It has the columns "
                f"{', '.join(self.names)}."
            )
        return next(iter(ways.values()))() if ways else self._as_named()

    def ignored(self) -> list[str]:
        """Say what the judge does not read.

        Raises:
            SettingsError: It should be an error.
        """
        named = {normal(name) for name in self.names if not self.rows or self._values(name)}
        there = [key for key in OPTIONAL if key in self.given or key in named]
        unread = [key for key in there if key not in self.reader.keys and not self.reader.further]
        if unread and self.reader.strict:
            raise SettingsError(
                f"{self.reader.where} has a {unread[0]}, but this judge's reading has no {{{unread[0]}}}. Take a judge "
                "that reads it, or leave --strict out."
            )
        return [f"{key} is not read, as this judge's reading has no {{{key}}}" for key in unread]

    def _named(self, key: str) -> list[str]:
        """Return the columns that are usually called so; where one has the first of these names, that one alone."""
        found = [name for name in self.names if normal(name) in NAMES[key]]
        exact = [name for name in found if normal(name) == NAMES[key][0]]
        return [key] if key in exact else exact or found

    def _values(self, name: str) -> list[Any]:
        values = [opened_json(value_at(row, name)) for row in self.rows]
        return [value for value in values if value is not None and value != ""]

    def _optional(self, key: str) -> str | None:
        if key not in self.reader.keys and not self.reader.further:
            return None
        given = self.given.get(key)
        found = [given] if given else [name for name in self._named(key) if not self.rows or self._values(name)]
        if key not in self.reader.keys and not given:
            return next((name for name in found if normal(name) == key), None)
        if len(found) > 1:
            choices = " or ".join(f"--column {key}={name}" for name in found)
            raise DataFileError(f"{self.reader.where} may have its {key} in several columns. Say which: {choices}.")
        return next(iter(found), None)

    def _questions(self) -> list[tuple[str, ...]]:
        given = self.given.get(QUESTION)
        if given:
            return [(given,) if given in self.names else tuple(given.split("+"))]
        found = [name for name in self._named(QUESTION) if not self.rows or any(map(is_asked, self._values(name)))]
        by_name = {normal(name): name for name in found}
        if {"instruction", "input"} <= by_name.keys():
            joined = (by_name.pop("instruction"), by_name.pop("input"))
            return [joined, *((name,) for name in by_name.values())]
        if by_name.keys() == {"instruction"}:  # its input may be blank in all of the first rows
            return [(*found, *(name for name in self.names if normal(name) == "input"))]
        talks = [name for name in self._named(MESSAGES) if self._values(name) and not self._is_talk(name)]
        return [(name,) for name in found or talks]

    def _predictions(self) -> list[str]:
        given = self.given.get(PREDICTION)
        if given or not self.needs_prediction:
            return [given] if given else []
        own = [name for name in self._named(PREDICTION) if not (self.reader.gold and normal(name) == "answer")]
        found = [name for name in own if not self.rows or any(map(is_answer, self._values(name)))]
        if any(normal(name) == PREDICTION for name in found):
            return found
        lists = {f"{name}s" for name in NAMES[PREDICTION]}
        several = [name for name in self.names if normal(name) in lists and any(map(is_answers, self._values(name)))]
        empty = [name for name in self.names if normal(name) in lists and [] in self._values(name)]
        return [*found, *several] or empty

    def _talks(self) -> list[str]:
        return [name for name in self._named(MESSAGES) if self._is_talk(name)]

    def _is_talk(self, name: str) -> bool:
        """Whether a column holds whole conversations: some end with a reply, or no other column could be it."""
        talks = [value for value in self._values(name) if is_turns(value)]
        replies = any(is_reply(talk[-1]) for talk in talks)
        return bool(talks) and (replies or not (self._named(PREDICTION) or self._named(CHOSEN)))

    def _extra(self, key: str) -> list[str]:
        """Return the column of a system's turn, or of earlier rounds, where rows have some."""
        return [name for name in self._named(key) if not self.is_exact and self._values(name)][:1]

    def _as_named(self) -> Layout:
        """Read columns by the names of a pair's texts; rows without them are told so one by one."""
        return Layout(None, {key: self.given.get(key, key) for key in self.reader.keys} | self.optional)

    def _columns(self, question: tuple[str, ...], prediction: str | None) -> Layout:
        before = [*self._extra(SYSTEM), *self._extra(HISTORY)]
        parts = {QUESTION: " + ".join(map(self._origin, (*before, *question)))}
        parts |= {PREDICTION: self._origin(prediction)} if prediction else {}
        single = {QUESTION: question[0], **({PREDICTION: prediction} if prediction else {}), **self.optional}
        is_flat = not self.shape and not before and len(question) == 1
        if is_flat and not any(map(self._is_structured, single.values())):
            plain = {key: single.get(key, key) for key in self.reader.keys} | self.optional
            return Layout(self._told(parts) if any(key != name for key, name in plain.items()) else None, plain)
        system, history = (next(iter(self._extra(key)), None) for key in (SYSTEM, HISTORY))

        def read(row: Row) -> list[tuple[Row, Any]]:
            turns = [*earlier_turns(row, system, history), *asked_turns(row, question)]
            if prediction is None:
                return [(asked(turns), None)]
            found = []
            for between, text, part in answers_of(opened_json(cell(row, prediction)), NAMES[PREDICTION]):
                found.append(({**asked([*turns, *between]), PREDICTION: text}, part))
            return found

        several = prediction and all(is_answers(value) for value in self._values(prediction))
        return self._layout(parts, read, (prediction,) if several and prediction else ())

    def _is_structured(self, name: str) -> bool:
        values = self._values(name)
        return bool(values) and (name not in self.names or all(isinstance(one, (list, dict)) for one in values))

    def _conversation(self, name: str) -> Layout:
        system = next(iter(self._extra(SYSTEM)), None)
        what = " + ".join(map(self._origin, filter(None, (system, name))))
        parts = {QUESTION: f"{what} up to the last reply", PREDICTION: "that reply"}

        def read(row: Row) -> list[tuple[Row, Any]]:
            talk = opened_json(cell(row, name))
            if not isinstance(talk, list):
                raise PairError(f"A row expects turns in {name!r}, but got {talk!r:.80}.")
            turns = [*earlier_turns(row, system), *plain_turns(talk)]
            if not self.needs_prediction and turns and turns[-1][0] != ASSISTANT:
                return [(asked(turns), None)]
            before, text = divided(turns)
            return [({**asked(before), PREDICTION: text}, None)]

        return self._layout(parts, read)

    def _preference(self, answers: Sequence[str], questions: list[tuple[str, ...]]) -> Layout:
        if len(questions) > 1:
            choices = " or ".join(f"--column {QUESTION}={'+'.join(one)}" for one in questions)
            raise DataFileError(f"{self.reader.where} may have its question in several columns. Say which: {choices}.")
        question = questions[0] if questions else ()
        before = [*self._extra(SYSTEM), *self._extra(HISTORY)]
        system, history = (next(iter(self._extra(key)), None) for key in (SYSTEM, HISTORY))
        what = " + ".join((*before, *question)) or "what both begin with"
        parts = {QUESTION: what, PREDICTION: ", then ".join(answers)}

        def read(row: Row) -> list[tuple[Row, Any]]:
            prompt = [*earlier_turns(row, system, history), *asked_turns(row, question)]
            values = [opened_json(cell(row, name)) for name in answers]
            return list(preferred(prompt, values, (CHOSEN, REJECTED)))

        return self._layout(parts, read, tuple(answers))

    def _origin(self, name: str) -> str:
        return self.origins.get(name, name)

    def _told(self, parts: Mapping[str, str]) -> str:
        named = {key: self._origin(name) for key, name in self.optional.items()}
        words = "; ".join(f"{key} = {what}" for key, what in {**parts, **named}.items())
        return f"{self.shape.name}: {words}" if self.shape else words

    def _layout(
        self, parts: Mapping[str, str], read: Callable[[Row], list[tuple[Row, Any]]], used: tuple[str, ...] = ()
    ) -> Layout:
        """Make the way of rows whose texts are put together, with the optional texts beside them."""
        shape, optional = self.shape, self.optional

        def whole(row: Row) -> list[tuple[Row, Any]]:
            flat = shape.lay_flat(row) if shape else row
            beside = {key: as_text(value_at(flat, name)) for key, name in optional.items() if has(flat, name)}
            return [({**pair, **beside}, part) for pair, part in read(flat)]

        base = shape.lay_flat if shape and not self.origins else dict
        return Layout(self._told(parts), None, whole, (*used, *(shape.used if shape else ())), base)


def missing_column(row: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Say which column of a pair's texts a row lacks; None where it has all."""
    missing = next(((key, name) for key, name in columns.items() if name not in row), None)
    if missing is None:
        return None
    return f"expects the column {missing[1]!r} for the {missing[0]}, but has {sorted(map(str, row))!r:.200}"


def read_pairs(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str] | None = None, keys: Sequence[str] = PAIR
) -> list[Row]:
    r"""Read rows of any usual layout as pairs that a judge takes, one for each response.

    Args:
        rows: Rows as a tool wrote them: messages, prompt and completion, chosen and rejected, logs, ....
        columns: Text -> column, where the names do not say it: `{"question": "q", "prediction": "a"}`.
        keys: The texts that are needed.

    Raises:
        DataFileError: The rows may be meant in several ways, or hold no pairs; the message lists the choices.
        PairError: A row holds nothing that a judge could read.

    Example:
        >>> read_pairs([{"instruction": "Add.", "input": "2 + 2", "output": "4"}])
        [{'question': 'Add.\n\n2 + 2', 'prediction': '4'}]
    """
    own = list(rows)
    reader = RowReader(columns, keys, where="The rows")
    reader.settle(own[:SAMPLE_ROWS])
    pairs = [one.pair for number, row in enumerate(own) for one in reader.reads(row, number)]
    for pair in pairs:
        if missing := missing_column(pair, {key: key for key in keys}):
            raise PairError(f"A row {missing}. Name its columns, as in {{'question': 'q', 'prediction': 'a'}}.")
    return pairs
