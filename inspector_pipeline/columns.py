"""What the columns of rows may hold, found out by their names and the values of the first rows; see rows.py."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .errors import DataFileError, PairError, SettingsError
from .names import (
    CHOSEN,
    COLUMN_KEYS,
    HISTORY,
    MESSAGES,
    NAMES,
    NO_TEXTS,
    OPTIONAL,
    PREDICTION,
    QUESTION,
    REJECTED,
    SAMPLE_ROWS,
    SYSTEM,
    TOOLS,
    Row,
    holds,
    is_answer,
    is_answers,
    is_asked,
    is_reply,
    is_turn,
    is_turns,
    normal,
    opened,
    opened_json,
    value_at,
)

ASKED = (QUESTION, MESSAGES, CHOSEN, REJECTED)  # where something is asked that no judge would see
SIDES = (("a", "b"), ("A", "B"), ("1", "2"), ("0", "1"))  # how columns of two responses end
RESPONSES = (
    "response",
    "output",
    "answer",
    "completion",
    "conversation",
    "reply",
    "human_ref",
)  # how columns of two begin
MOST_NAMED = 20  # columns
NO_COLUMN = "none"  # what `--column system=` says where a column is no system's text
NAME = re.compile(r"[\w.@/:+() -]{0,59}[\w)]")  # ends as no sentence does
NAME_WORDS = 3
SHOWN_NAMES = 3
BESIDE = (*NAMES[SYSTEM], *NAMES[HISTORY], *NO_TEXTS)


def are_names(values: Sequence[Any]) -> bool:
    """Say whether texts may be names of systems, such as `gpt-4o` or `Llama 3 8B`, and no sentence to one.

    Example:
        >>> are_names(["gpt-4o", "Llama 3 8B"]), are_names(["Be brief."]), are_names(["You are a helpful assistant"])
        (True, False, False)
    """
    texts = [value.strip() for value in values if isinstance(value, str)]
    return bool(texts) and all(NAME.fullmatch(text) and len(text.split()) <= NAME_WORDS for text in texts)


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


class Wanted(NamedTuple):
    """What rows are read for; the attributes are arguments of `RowReader`."""

    columns: dict[str, str]
    keys: tuple[str, ...]
    strict: bool
    where: str
    further: bool
    several: bool
    gold: bool


class Late(NamedTuple):
    """Columns that would be read, of which the rows by which it was settled hold nothing.

    Attributes:
        watched: How they are called.
        known: Columns called so of which those rows hold something.
    """

    watched: frozenset[str]
    known: frozenset[str]

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row that holds something in such a column.

        Raises:
            PairError: It does.
        """
        if not self.watched:
            return
        for name, value in row.items():
            if name not in self.known and normal(name) in self.watched and holds(value):
                if normal(name) in NO_TEXTS:
                    raise PairError(f"A row holds {name!r}, of which a judge reads nothing. Leave such rows out.")
                raise PairError(
                    f"A row has {name!r}, but the first {SAMPLE_ROWS} rows, by which it was settled what is read, have "
                    "nothing there. Put such a row first, or score these rows apart."
                )


class Layout(NamedTuple):
    """What was taken for what.

    Attributes:
        told: It, in words; None where the columns are called as a pair's texts.
        plain: Text -> column, where each is the text of one column, and rows stay as they are; else None.
        read: Reads a row as (pair, part of the row or None); none where rows are plain.
        used: Columns that are not kept beside what was read from them.
        base: Gives the columns that are kept.
        late: Columns of which the first rows hold nothing.
    """

    told: str | None
    plain: dict[str, str] | None
    read: Callable[[Row], list[tuple[Row, Any]]] | None = None
    used: tuple[str, ...] = ()
    base: Callable[[Row], Row] = dict
    late: Late = Late(frozenset(), frozenset())


class Columns:
    """What the columns of the first rows may hold."""

    def __init__(
        self, wanted: Wanted, rows: list[Row], names: list[str], tool: str | None = None, origins: Any = ()
    ) -> None:
        """Look at the first rows.

        Args:
            wanted: What they are read for.
            rows: The rows, laid flat where a tool nested them.
            names: Their columns.
            tool: What wrote them, where they were laid flat.
            origins: Key of a flat row -> where its value stands, for messages.
        """
        self.wanted = wanted
        self.rows = rows
        self.names = names
        self.tool = tool
        self.origins = dict(origins)
        self.given = {key: name for key, name in wanted.columns.items() if key != SYSTEM}
        self.needs_prediction = PREDICTION in wanted.keys
        own = {normal(name) for name in names}
        self.is_exact = QUESTION in own and (PREDICTION in own or not self.needs_prediction)
        self.taken: set[str] = set()  # columns that are read
        self.texts: tuple[str, ...] = ()  # columns whose texts are taken as they stand
        self.optional = {key: name for key in OPTIONAL if (name := self._optional(key))}

    def notes(self) -> list[str]:
        """Say what the judge does not read.

        Raises:
            SettingsError: It is a reference or a context, which should be an error.
        """
        own = {normal(name) for name in self.names if not self.rows or self.values(name)}
        there = [key for key in OPTIONAL if key in self.given or key in own]
        unread = [key for key in there if key not in self.wanted.keys and not self.wanted.further]
        if unread and self.wanted.strict:
            raise SettingsError(
                f"{self.wanted.where} has a {unread[0]}, but this judge's reading has no {{{unread[0]}}}. Take a judge "
                "that reads it, or leave --strict out."
            )
        told = [f"{key} is not read, as this judge's reading has no {{{key}}}" for key in unread]
        beside = [name for name in self.names if normal(name) in (*BESIDE, *TOOLS) and name not in self.taken]
        told += [f"{name} is not read" for name in beside if any(map(holds, self.values(name)))]
        as_json = [name for name in self.texts if self.are_turns_as_json(self.values(name))]
        return told + [f"{name} holds turns as JSON, which are read as text" for name in as_json]

    def late(self, *, is_text: bool = False) -> Late:
        """Return the columns of which the first rows hold nothing, but a later one may.

        Args:
            is_text: Whether rows are columns of texts, of which images and the like are only said.
        """
        if self.is_exact or not self.rows:
            return Layout(None, None).late
        keys = () if self.given else ASKED
        watched = frozenset({*BESIDE, *(name for key in keys for name in NAMES[key])})
        known = {name for name in self.names if normal(name) in watched and any(map(holds, self.values(name)))}
        return Late(watched, frozenset(self.taken | {one for one in known if is_text or normal(one) not in NO_TEXTS}))

    def named(self, key: str) -> list[str]:
        """Return the columns that are usually called so; where one has the first of these names, that one alone."""
        found = [name for name in self.names if normal(name) in NAMES[key]]
        exact = [name for name in found if normal(name) == NAMES[key][0]]
        return [key] if key in exact else exact or found

    def values(self, name: str) -> list[Any]:
        """Return what the first rows hold in a column."""
        found = [opened(name, value_at(row, name)) for row in self.rows]
        return [value for value in found if value is not None and value != ""]

    def _optional(self, key: str) -> str | None:
        if key not in self.wanted.keys and not self.wanted.further:
            return None
        given, asked = self.given.get(key), {self.given.get(other) for other in ASKED}
        named = [name for name in self.named(key) if name not in asked and (not self.rows or self.values(name))]
        found = [given] if given else named
        if key not in self.wanted.keys and not given:
            return next((name for name in found if normal(name) == key), None)
        if len(found) > 1:
            choices = " or ".join(f"--column {key}={name}" for name in found)
            raise DataFileError(f"{self.wanted.where} may have its {key} in several columns. Say which: {choices}.")
        return next(iter(found), None)

    def questions(self) -> list[tuple[str, ...]]:
        """Return the columns that a question may be put together from, one tuple a way."""
        given = self.given.get(QUESTION)
        if given:
            return [(given,) if given in self.names else tuple(given.split("+"))]
        found = [name for name in self.named(QUESTION) if not self.rows or any(map(is_asked, self.values(name)))]
        by_name = {normal(name): name for name in found}
        if {"instruction", "input"} <= by_name.keys():
            joined = (by_name.pop("instruction"), by_name.pop("input"))
            return [joined, *((name,) for name in by_name.values())]
        if by_name.keys() == {"instruction"}:  # its input may be blank in all of the first rows
            return [(*found, *(name for name in self.names if normal(name) == "input"))]
        talks = [name for name in self.named(MESSAGES) if self.values(name) and not self._is_talk(name)]
        return [(name,) for name in found or talks]

    def predictions(self) -> list[str]:
        """Return the columns that may hold the responses."""
        given = self.given.get(PREDICTION)
        if given or not self.needs_prediction:
            return [given] if given else []
        own = [name for name in self.named(PREDICTION) if not (self.wanted.gold and normal(name) == "answer")]
        found = [name for name in own if not self.rows or any(map(is_answer, self.values(name)))]
        if any(normal(name) == PREDICTION for name in found):
            return found
        lists = {f"{name}s" for name in NAMES[PREDICTION]}
        several = [name for name in self.names if normal(name) in lists and any(map(is_answers, self.values(name)))]
        empty = [name for name in self.names if normal(name) in lists and [] in self.values(name)]
        return [*found, *several] or empty

    def check_two_responses(self) -> None:
        """Refuse rows that hold no response but two, to be compared, as a DataFileError that says what takes them."""
        first = self.rows[0] if self.rows and self.needs_prediction and not self.given and not self.is_exact else {}
        sides = two_sides(first)
        if not sides or not all(is_answer(first[name]) and normal(name).startswith(RESPONSES) for name in sides):
            return
        key = MESSAGES if is_turns(first[sides[0]]) else PREDICTION
        raise DataFileError(
            f"{self.wanted.where} has two responses a row. Learn which is better: inspector train FILE --responses "
            f"{' '.join(sides)}. Or name the one to score: --column {key}={sides[0]}."
        )

    def are_turns_as_json(self, values: Sequence[Any]) -> bool:
        """Whether all of some values are turns, written as JSON."""
        return bool(values) and all(opened_json(value) is not value for value in values)

    def talks(self) -> list[str]:
        """Return the columns that hold whole conversations."""
        return [name for name in self.named(MESSAGES) if self._is_talk(name)]

    def _is_talk(self, name: str) -> bool:
        """Whether a column holds whole conversations: some end with a reply, or no other column could be it."""
        talks = [value for value in self.values(name) if is_turns(value)]
        replies = any(is_reply(talk[-1]) for talk in talks)
        return bool(talks) and (replies or not (self.named(PREDICTION) or self.named(CHOSEN)))

    def extra(self, key: str) -> list[str]:
        """Return the column of a system's turn, or of earlier rounds, where rows have some.

        Raises:
            DataFileError: It is called `system` and may as well hold systems' names, and nobody said which.
        """
        given = self.wanted.columns.get(key)
        if given is None:
            found = [name for name in self.named(key) if not self.is_exact and self.values(name)][:1]
            self._check_names(found)
        else:
            found = [given] if given != NO_COLUMN or given in self.names else []
            if self.rows and not all(map(self.values, found)):
                raise DataFileError(f"{self.wanted.where} has nothing in {given!r}, which --column names as {key}.")
        self.taken.update(found)
        return found

    def _check_names(self, found: Sequence[str]) -> None:
        """Refuse names of systems, or what may be such, in a column that is called as what a system was told."""
        if not found or normal(found[0]) != SYSTEM or not are_names(self.values(found[0])):
            return
        shown = list(dict.fromkeys(map(repr, self.values(found[0]))))
        more = ", ..." if len(shown) > SHOWN_NAMES else ""
        raise DataFileError(
            f"{self.wanted.where} has {', '.join(shown[:SHOWN_NAMES])}{more} in {found[0]!r}, which may be what a "
            f"system was told or which system it was. Say which: --column {SYSTEM}={found[0]} reads it before the "
            f"question, --column {SYSTEM}={NO_COLUMN} leaves it aside."
        )

    def is_structured(self, name: str) -> bool:
        """Whether a column holds lists or turns in some rows, or objects in all, or is a place within one."""
        values = self.values(name)
        parts = [isinstance(one, list) or is_turn(one) for one in values]
        return bool(values) and (name not in self.names or any(parts) or all(isinstance(one, dict) for one in values))


def advice(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say how to name the columns of rows of which none is called as a question or a response is; None where some are.

    Args:
        rows: The first rows.
    """
    row = rows[0] if rows else {}
    if not row or any(name in one for one in rows for name in (QUESTION, PREDICTION)):
        return None
    inner = [f"{name}.{key}" for name, value in row.items() if isinstance(value, Mapping) for key in value]
    places = [*(name for name in row if not isinstance(row[name], Mapping)), *inner]
    sides = two_sides(row)
    shown = ", ".join(places[:MOST_NAMED]) + (", ..." if len(places) > MOST_NAMED else "")
    named = "Say which: --column question=... --column prediction=..."
    told = f"no columns are called as a question and a response are; there are {shown}. {named}"
    return told + (f"; inspector train takes two by --responses {' '.join(sides)}" if sides else "")


def two_sides(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name the two columns that hold responses to be compared, by how their names end; the longest texts are meant."""
    both = [(name, f"{name[:-1]}{other}") for name in row for one, other in SIDES if name[-1:] == one]
    return max((pair for pair in both if pair[1] in row), key=lambda pair: len(str(row[pair[0]])), default=None)


def missing_column(row: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Say which column of a pair's texts a row lacks; None where it has all."""
    missing = next(((key, name) for key, name in columns.items() if name not in row), None)
    if missing is None:
        return None
    return f"expects the column {missing[1]!r} for the {missing[0]}, but has {sorted(map(str, row))!r:.200}"
