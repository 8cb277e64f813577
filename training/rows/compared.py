"""Comparisons of responses to one question: chosen and rejected ones, A or B or a tie, and rankings of several.

A row of responses carries `comparisons`, each with another response to its question: aspect, `against` (the digest of
the other's text), `won` (the share of raters who preferred this one, a tie counting half), `votes` (for this one, ties,
for the other) and `weight`. Of a ranking every two responses are compared, with weights so that each response counts as
much as in one comparison.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.names import QUESTION_TURNS

from .columns import Columns, UnusableRowError, map_row, other_columns
from .labels import agreement
from .records import question_id
from .scales import MOST_UNREADABLE, SHOWN, cells_of, is_blank, number_of, rater_columns
from .sources import Reject, Source, make_rows

KIND = "comparisons"
PREFERENCE = "preference"
FIRST, TIE, SECOND = "first", "tie", "second"
SIDES = (FIRST, TIE, SECOND)
SAID = {  # what raters write -> whom they prefer
    **dict.fromkeys(("a", "1", "first", "left", "model_a", "response_a", "response1", "response_1", "chosen"), FIRST),
    **dict.fromkeys(("b", "2", "second", "right", "model_b", "response_b", "response2", "response_2"), SECOND),
    **dict.fromkeys(("tie", "0", "=", "equal", "same", "both", "neither", "draw", "none"), TIE),
    **dict.fromkeys(("tie (bothbad)", "bothbad", "both_bad", "tie (both bad)"), TIE),  # of arenas
}
NEGATIVE, POSITIVE = "negative", "positive"  # how `said` names the signs of numbers
SAME_TEXT = "both responses are the same text"
MOST_RANKED = 50  # responses to one question


@dataclass(frozen=True)
class Compared:
    """Which columns hold comparisons.

    Attributes:
        first: The first response: the chosen one, where no outcome is named.
        second: The second response, or the rejected one.
        outcome: Aspect -> column that says which is better, or several raters' columns joined by `+`.
        said: What the outcome says -> first, second or tie; beside A, B, 1, 2, left, right, tie, 0 and the like. Of
            numbers below and above 0 `negative` and `positive` say it.
        first_generator: What wrote the first.
        second_generator: What wrote the second.
        rank: Aspect -> column of a response's rank among those to its question, 1 for the best; the rows are responses
            then, and equal ranks are ties.
    """

    first: str | None = None
    second: str | None = None
    outcome: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    first_generator: str | None = None
    second_generator: str | None = None
    rank: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there are comparisons."""
        return bool(self.first or self.rank)

    def check(self, present: Iterable[str], source: str) -> None:
        """Refuse settings that do not fit each other or the table.

        Raises:
            DataFileError: A column is missing, or too few or too many are named.
        """
        there = set(present)
        named = [self.first, self.second, self.first_generator, self.second_generator, *self.rank.values()]
        named += [name for column in self.outcome.values() for name in rater_columns(column, there)]
        missing = [name for name in named if name and name not in there]
        if missing:
            raise DataFileError(
                f"{source} expects the column {missing[0]!r}, but has {', '.join(map(repr, sorted(there)))}."
            )
        if bool(self.first) != bool(self.second) or (self.rank and self.first):
            raise DataFileError(
                f"{source} expects a first and a second response, or ranks, but got {self.first!r}, {self.second!r} "
                f"and {self.rank!r}."
            )
        unknown = sorted(set(self.said.values()) - set(SIDES))
        if unknown:
            raise DataFileError(f"said expects {', '.join(SIDES)}, but got {unknown[0]!r}.")


@dataclass
class Votes:
    """What became of the outcomes of one aspect.

    Attributes:
        column: Where they stand.
        n_read: Votes that could be read.
        blank: Comparisons without any.
        unused: Why others are not used -> count.
        examples: The first unreadable ones.
        found: (question's id, digest of one response, of the other) -> votes for the one, ties, and for the other.
    """

    column: str
    n_read: int = 0
    blank: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    found: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)

    def add(self, name: str, keys: Sequence[str], cast: Sequence[str]) -> None:
        """Count votes on two responses, whichever of them stood first."""
        one, other = keys
        is_turned = (name, other, one) in self.found
        own = self.found.setdefault((name, other, one) if is_turned else (name, one, other), [0, 0, 0])
        for side in cast:
            own[2 - SIDES.index(side) if is_turned else SIDES.index(side)] += 1

    def read(self, source: Row, said: Mapping[str, str], number: int) -> list[str]:
        """Read the votes of one row; each that says nothing known is counted."""
        cells = outcomes_of(source, self.column) if self.column else [FIRST]
        cells = [_signed(cell, said) for cell in cells]
        wrong = [cell for cell in cells if cell and cell not in said]
        self.unused["says neither first, second nor tie"] += len(wrong)
        self.examples += [f"row {number}: {cell[:40]!r}" for cell in wrong][: SHOWN - len(self.examples)]
        self.blank += not any(cells)
        cast = [said[cell] for cell in cells if cell in said]
        self.n_read += len(cast)
        return cast

    def check(self, aspect: str, allow_unreadable: bool) -> None:
        """Refuse more unreadable votes than by a few slips.

        Raises:
            DataFileError: More than 2 % cannot be read.
        """
        wrong = self.unused.total()
        if not allow_unreadable and wrong > MOST_UNREADABLE * (wrong + self.n_read):
            raise DataFileError(
                f"{aspect} expects first, second or tie, but {wrong} of {wrong + self.n_read} outcomes say something "
                f"else: {'; '.join(self.examples)}. Say what they stand for, or leave them out with --allow-unreadable."
            )

    def to_dict(self) -> dict[str, Any]:
        """Write it for results.json and the card."""
        several = [unit for unit in self.found.values() if sum(unit) > 1]
        alpha = agreement(([side for side, n in enumerate(unit) for _ in range(n)] for unit in several), "nominal")
        return {
            "column": self.column,
            "kind": KIND,
            "scale": "first, tie or second",
            "good": "the response that is preferred",
            "n": len(self.found),
            "ties": sum(majority(unit) == TIE for unit in self.found.values()),
            "blank": self.blank,
            "unused": {reason: n for reason, n in self.unused.items() if n},
            "examples": self.examples,
            "raters": {
                "most": max(map(sum, several), default=1),
                "rated_twice": len(several),
                "alpha": None if alpha is None else round(alpha, 4),
                "metric": "nominal",
            },
        }


def spoken(cell: Any) -> str:
    """Return what an outcome says, so that 1, "1" and 1.0 are the same; nothing for a blank one."""
    number = None if is_blank(cell) else number_of(cell, {})
    return "" if is_blank(cell) else str(cell if number is None else number).strip().casefold()


def outcomes_of(source: Row, column: str) -> list[str]:
    """Return what all raters of a row say, in a list or in columns joined by `+`."""
    return [spoken(cell) for name in rater_columns(column, source) for cell in cells_of(source.get(name))]


def _signed(cell: str, said: Mapping[str, str]) -> str:
    """Return the sign of a number where signs say who is better, else what is said."""
    number = number_of(cell, {}) if {NEGATIVE, POSITIVE} & said.keys() else None
    return cell if not number else NEGATIVE if number < 0 else POSITIVE


def majority(votes: Sequence[float]) -> str:
    """Return what most raters say; a tie where as many are for the one as for the other, or most say so."""
    one, tie, other = votes
    return TIE if one == other or tie > max(one, other) else FIRST if one > other else SECOND


def text_digest(text: str) -> str:
    """Name a response by its text: 12 hexadecimal digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def compared_rows(
    source: Source, columns: Columns, compared: Compared, *, allow_unreadable: bool = False
) -> tuple[list[Row], list[Reject], dict[str, Votes]]:
    """Make rows of responses, which carry their comparisons, out of a table of comparisons or of rankings.

    Args:
        source: The table.
        columns: Which column holds the question, its id and domain, and what is needed beside it.
        compared: Which columns hold the responses and outcomes, or the ranks.
        allow_unreadable: Whether more than a few outcomes may be unreadable.

    Raises:
        DataFileError: The settings do not fit the table, or outcomes cannot be read.
    """
    compared.check((name for row in source.rows for name in row), source.name)
    if compared.rank:
        rows, rejects = make_rows(source, columns)
        if rows and "prediction" not in rows[0]:
            raise DataFileError(f"{source.name} expects responses beside their ranks. Name them: --columns.prediction.")
        votes = {aspect: _ranked(rows, column) for aspect, column in compared.rank.items()}
        keep = [row | {"sample": None} for row in rows]
        found = {(str(row["id"]), text_digest(row["prediction"])): row for row in reversed(keep)}
        responses = dict(reversed(found.items()))
    else:
        responses, rejects, votes = _read_outcomes(source, columns, compared)
    for aspect, own in votes.items():
        own.check(aspect, allow_unreadable)
    counts: Counter[str] = Counter()
    for (name, _), row in responses.items():
        row |= {"sample": counts[name], "comparisons": []}
        counts[name] += 1
    for aspect, own in votes.items():
        others = Counter((name, key) for name, *keys in own.found for key in keys)
        for (name, one, other), cast in own.found.items():
            won, weight = (cast[0] + cast[1] / 2) / sum(cast), 1 / others[name, one] if compared.rank else 1.0
            entry = {
                "aspect": aspect,
                "against": other,
                "won": round(won, 6),
                "votes": cast,
                "weight": round(weight, 6),
            }
            responses[name, one]["comparisons"].append(entry)
    return list(responses.values()), rejects, votes


def _read_outcomes(
    source: Source, columns: Columns, compared: Compared
) -> tuple[dict[tuple[str, str], Row], list[Reject], dict[str, Votes]]:
    """Read a table whose rows compare two responses."""
    places = columns.resolve(source.rows, source.name)
    kept = {name: column for name, column in places.items() if name in ("question", "id", "domain", *columns.needed)}
    said = {**SAID, **{spoken(key): side for key, side in compared.said.items()}}
    votes = {aspect: Votes(column) for aspect, column in (compared.outcome or {PREFERENCE: ""}).items()}
    _check_sides(source.rows, compared)
    responses: dict[tuple[str, str], Row] = {}
    rejects: list[Reject] = []
    for number, given in enumerate(source.rows):
        try:
            row = map_row(given, kept, columns.needed)
            row |= {QUESTION_TURNS: given[QUESTION_TURNS]} if given.get(QUESTION_TURNS) else {}
            sides = [(compared.first, compared.first_generator), (compared.second, compared.second_generator)]
            texts = [map_row(given, {"question": kept["question"], "prediction": str(side)}) for side, _ in sides]
            one, other = (text["prediction"] for text in texts)
            if one == other:
                raise UnusableRowError(SAME_TEXT)
        except UnusableRowError as error:
            rejects.append(Reject(number, str(error), other_columns(given, set())))
            continue
        if row["id"] is None:  # one question over two contexts is two
            row["id"] = question_id("\n\n".join(row[name] for name in (*columns.needed, "question")))
        keys = [text_digest(text) for text in (one, other)]
        for key, text, (_, generator) in zip(keys, (one, other), sides, strict=True):
            made = responses.setdefault((str(row["id"]), key), {**row, "prediction": text, "generator": None})
            _add_generator(made, given.get(generator) if generator else None)
        for own in votes.values():
            if cast := own.read(given, said, number):
                own.add(str(row["id"]), keys, cast)
    return responses, rejects, votes


def _check_sides(rows: Sequence[Row], compared: Compared) -> None:
    """Refuse 0 and 1 alone, which may be two sides, or a tie and a side; and numbers whose sign is the side.

    Raises:
        DataFileError: Nobody said which they are.
    """
    for aspect, column in compared.outcome.items():
        found = {cell for row in rows for cell in outcomes_of(row, column)}
        signs = [cell for cell in found if cell.startswith("-") and number_of(cell, {}) is not None]
        if signs and not {NEGATIVE, *signs} & {*map(spoken, compared.said)}:
            raise DataFileError(
                f"The outcomes of {aspect} expect to tell the first from the second, but hold {min(signs)}. Say which "
                "is which: negative=first positive=second, or negative=second positive=first."
            )
        if "0" in found and "1" in found and "2" not in found and not {"0", "1"} & {*map(spoken, compared.said)}:
            raise DataFileError(
                f"The outcomes of {aspect} expect to tell the first from the second, but are 0 and 1. Say which is "
                "which: 0=first 1=second, or 1=first 0=second."
            )


def _add_generator(row: Row, generator: Any) -> None:
    """Name what wrote a response; one text may be several generators'."""
    names = [] if row["generator"] is None else row["generator"].split(" / ")
    if generator is not None and str(generator) not in names:
        row["generator"] = " / ".join([*names, str(generator)])


def _ranked(rows: Sequence[Row], column: str) -> Votes:
    """Compare every two ranked responses to a question."""
    votes, of_question = Votes(column), dict[str, list[tuple[float, str]]]()
    for number, row in enumerate(rows):
        cell = row.get(column)
        rank = None if is_blank(cell) else number_of(cell, {})
        if rank is not None:
            of_question.setdefault(str(row["id"]), []).append((rank, text_digest(row["prediction"])))
            votes.n_read += 1
        elif is_blank(cell):
            votes.blank += 1
        else:
            votes.unused["is no rank"] += 1
            votes.examples += [f"row {number}: {str(cell)[:40]!r}"][: SHOWN - len(votes.examples)]
    for name, ranked in of_question.items():
        for (rank, one), (other_rank, other) in combinations(ranked[:MOST_RANKED], 2):
            if one != other:
                cast = TIE if rank == other_rank else FIRST if rank < other_rank else SECOND
                votes.add(name, (one, other), [cast])
    return votes
