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

from .columns import Columns, Layout, Wanted
from .columns import check_columns as check_columns
from .columns import missing_column as missing_column
from .conversation import pairs_of_columns, pairs_of_preference, pairs_of_talk
from .errors import DataFileError, PairError
from .names import (
    CHOSEN,
    HISTORY,
    MESSAGES,
    PAIR,
    PREDICTION,
    QUESTION,
    REJECTED,
    SYSTEM,
    Read,
    Row,
    as_text,
    has,
    is_answers,
    value_at,
)
from .names import SAMPLE_ROWS as SAMPLE_ROWS
from .names import SOURCE_PART as SOURCE_PART
from .names import SOURCE_ROW as SOURCE_ROW
from .shapes import SHAPES, Shape, refusal

logger = logging.getLogger(__name__)


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
        self.wanted = Wanted(self.columns, tuple(keys), strict, where, further, several, gold)
        self.said: set[str] = set() if said is None else said
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
            logger.warning("%s: %s", self.wanted.where, found.told)
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
            if taken := next((name for name in origin if name in kept), None):
                raise PairError(
                    f"A row with several responses expects no column {taken!r}, where its place is written. Rename it."
                )
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
        if self.layout:
            self.layout.late.check(row)
        if self.is_as_named:
            return dict(row)
        columns = (self.layout.plain if self.layout else None) or {}
        missing = missing_column(row, {key: column for key, column in columns.items() if key in self.wanted.keys})
        if missing:
            raise PairError(f"A row {missing}.")
        return {key: row[column] for key, column in columns.items() if column in row}

    def _layout(self, rows: list[Row], names: list[str]) -> Layout:
        wanted = self.wanted
        flat, shape = rows, None
        if not self.columns and all(key in names for key in wanted.keys if key in PAIR):
            answers = [row.get(PREDICTION) for row in rows]
            is_list = wanted.several and bool(answers) and all(map(is_answers, answers))
            if all(key in names for key in wanted.keys) and not is_list and not wanted.further:
                notes = Columns(wanted, rows, names).notes()
                return Layout("; ".join(notes) or None, {key: key for key in wanted.keys})
        elif not self.columns.keys() - {SYSTEM}:
            shape = next((one for one in SHAPES if 2 * sum(map(one.fits, rows)) > len(rows)), None)
            reason = None if shape or not rows else refusal(rows[0])
            if reason:
                raise DataFileError(f"{wanted.where} cannot be read: {reason}.")
            if shape:
                flat = [own for row in rows if (own := _flat_or_none(shape, row))]
                names = list(dict.fromkeys(name for row in flat for name in row))
            if shape and not flat:  # each row is told why
                return Layout(f"{shape.name}, none of which can be read", None, lambda row: [(shape.flat(row), None)])
        ways = _Ways(wanted, flat, names, shape, next(iter(rows), {}))
        found = ways.settle()
        notes = [*([found.told] if found.told else []), *ways.notes()]
        return found._replace(told="; ".join(notes) or None)


def _flat_or_none(shape: Shape, row: Row) -> Row | None:
    try:
        return shape.flat(row)
    except PairError:
        return None


class _Ways(Columns):
    """The ways in which columns may be meant, of which one must be left."""

    def __init__(self, wanted: Wanted, rows: list[Row], names: list[str], shape: Shape | None, first: Row) -> None:
        """Look at the first rows, which a shape has laid flat; `first` is one as it was."""
        super().__init__(wanted, rows, names, shape.name if shape else None, shape.origins(first) if shape else {})
        self.shape = shape

    def settle(self) -> Layout:
        """Choose the one way.

        Raises:
            DataFileError: There are several.
        """
        if MESSAGES in self.given:
            return self._conversation(self.given[MESSAGES])
        questions, predictions = self.questions(), self.predictions()
        if CHOSEN in self.given or REJECTED in self.given:
            return self._preference([self.given.get(key, key) for key in (CHOSEN, REJECTED)], questions)
        ways: dict[str, Callable[[], Layout]] = {}
        if not self.given and not self.is_exact:
            pair = [next(iter(self.named(key)), "") for key in (CHOSEN, REJECTED)]
            talks = [name for name in self.talks() if not (all(pair) and self.values(name) == self.values(pair[0]))]
            ways = {f"--column {MESSAGES}={name}": partial(self._conversation, name) for name in talks}
            if all(pair) and self.needs_prediction:
                ways[f"--column {CHOSEN}={pair[0]}"] = partial(self._preference, pair, questions)
        for question in questions:
            for prediction in predictions if self.needs_prediction else [None]:
                told = [f"{QUESTION}={'+'.join(question)}", *([f"{PREDICTION}={prediction}"] if prediction else [])]
                ways[" ".join(f"--column {one}" for one in told)] = partial(self._columns, question, prediction)
        if len(ways) > 1:
            raise DataFileError(
                f"{self.wanted.where} may be meant in several ways. Say which: {' or '.join(ways)}. It has the columns "
                f"{', '.join(self.names)}."
            )
        if not ways and not predictions:
            self.check_two_responses()
        return next(iter(ways.values()))() if ways else self._as_named()

    def _as_named(self) -> Layout:
        """Read columns by the names of a pair's texts; rows without them are told so one by one."""
        plain = {key: self.given.get(key, key) for key in self.wanted.keys} | self.optional
        self.taken.update(plain.values())
        return Layout(None, plain, late=self.late(is_text=True))

    def _columns(self, question: tuple[str, ...], prediction: str | None) -> Layout:
        before = [*self.extra(SYSTEM), *self.extra(HISTORY)]
        self.taken.update(question)
        self.texts = () if self.is_exact else (*question, *([prediction] if prediction else []))
        parts = {QUESTION: " + ".join(map(self._origin, (*before, *question)))}
        parts |= {PREDICTION: self._origin(prediction)} if prediction else {}
        single = {QUESTION: question[0], **({PREDICTION: prediction} if prediction else {}), **self.optional}
        is_flat = not self.shape and not before and len(question) == 1
        if is_flat and not any(map(self.is_structured, single.values())):
            plain = {key: single.get(key, key) for key in self.wanted.keys} | self.optional
            told = self._told(parts) if any(key != name for key, name in plain.items()) else None
            return Layout(told, plain, late=self.late(is_text=True))
        system, history = (next(iter(self.extra(key)), None) for key in (SYSTEM, HISTORY))

        read = partial(pairs_of_columns, question=question, prediction=prediction, system=system, history=history)
        several = prediction and all(is_answers(value) for value in self.values(prediction))
        return self._layout(parts, read, (prediction,) if several and prediction else ())

    def _conversation(self, name: str) -> Layout:
        system = next(iter(self.extra(SYSTEM)), None)
        self.taken.add(name)
        what = " + ".join(map(self._origin, filter(None, (system, name))))
        parts = {QUESTION: f"{what} up to the last reply", PREDICTION: "that reply"}

        return self._layout(parts, partial(pairs_of_talk, name=name, system=system, answered=self.needs_prediction))

    def _preference(self, answers: Sequence[str], questions: list[tuple[str, ...]]) -> Layout:
        if len(questions) > 1:
            choices = " or ".join(f"--column {QUESTION}={'+'.join(one)}" for one in questions)
            raise DataFileError(f"{self.wanted.where} may have its question in several columns. Say which: {choices}.")
        question = questions[0] if questions else ()
        before = [*self.extra(SYSTEM), *self.extra(HISTORY)]
        self.taken.update((*question, *answers))
        self.texts = question
        as_json = next((name for name in answers if self.are_turns_as_json(self.values(name))), None)
        if as_json:
            raise DataFileError(f"{self.wanted.where} has turns as JSON text in {as_json!r}. Write it as JSON Lines.")
        system, history = (next(iter(self.extra(key)), None) for key in (SYSTEM, HISTORY))
        what = " + ".join((*before, *question)) or "what both begin with"
        parts = {QUESTION: what, PREDICTION: ", then ".join(answers)}

        read = partial(pairs_of_preference, question=question, answers=answers, system=system, history=history)
        return self._layout(parts, read, tuple(answers))

    def _origin(self, name: str) -> str:
        return str(self.origins.get(name, name))

    def _told(self, parts: Mapping[str, str]) -> str:
        named = {key: self._origin(name) for key, name in self.optional.items()}
        words = "; ".join(f"{key} = {what}" for key, what in {**parts, **named}.items())
        return f"{self.tool}: {words}" if self.tool else words

    def _layout(
        self, parts: Mapping[str, str], read: Callable[[Row], list[tuple[Row, Any]]], used: tuple[str, ...] = ()
    ) -> Layout:
        """Make the way of rows whose texts are put together, with the optional texts beside them."""
        shape, optional, late = self.shape, self.optional, self.late()

        def whole(row: Row) -> list[tuple[Row, Any]]:
            flat = shape.flat(row) if shape else row
            late.check(flat)
            beside = {key: as_text(value_at(flat, name)) for key, name in optional.items() if has(flat, name)}
            return [({**pair, **beside}, part) for pair, part in read(flat)]

        base = shape.flat if shape and not self.origins else dict
        return Layout(self._told(parts), None, whole, (*used, *(shape.used if shape else ())), base, late)


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
