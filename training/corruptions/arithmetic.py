"""Damages to numbers: slips, carried or not, and givens that are contradicted.

A result is changed only where its value can mean one thing from there on: it stands there once, or no other equation,
earlier line or the question gives it and it is no common constant that later steps bring in (60 minutes, 100 percent).
After the change every equation of the text that held before is read again: it must hold still, but for the slip.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product

from inspector_pipeline.files.entries import Row

from ..rows.answers import mentions
from .rationale import (
    NUMBER,
    Damaged,
    Equation,
    Rationale,
    Source,
    all_equations,
    all_values,
    equalities,
    equations,
    evaluate,
    has_unknowns,
    plain,
    read_rationale,
    replace_values,
    values,
    written,
)

CONSTANTS = frozenset(Fraction(n) for n in (1, 2, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000))
SMALL = (1, 2, -1, -2)  # units of the last digit that is not 0
FACTORS = {
    2: (Fraction(7, 10), Fraction(13, 10), Fraction(14, 10), Fraction(3, 2), Fraction(6, 10)),  # plainly another
    3: (Fraction(2), Fraction(3), Fraction(4), Fraction(5), Fraction(10), Fraction(1, 10)),  # grossly
}


@dataclass(frozen=True)
class Site:
    """Where an equation's result can slip: line, and place among the line's equations."""

    line: int
    place: int
    result: Fraction


def arithmetic_slip(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Make one result false; later steps use the right one."""
    rationale = source.rationale
    for site, new in _slips(rationale, degree, rng):
        line, later = rationale.lines[site.line], rationale.lines[site.line + 1 :]
        used_later = any(site.result in equation.operands for equation in all_equations(later))
        once = all_values(plain(line)).count(site.result) == 1
        if used_later and (once or _means_one_thing(source, site)):
            lines = rationale.plain_lines
            lines[site.line] = plain(replace_values(line, {site.result: new}))
            if _broken(rationale, lines) == 1:
                return Damaged(tuple(lines), rationale.final, f"{written(site.result)} -> {written(new)}")
    return None


def arithmetic_slip_carried(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Make one result false and recompute all that follows from it, up to the final answer."""
    if has_unknowns(source.rationale):
        return None
    for site, new in _slips(source.rationale, degree, rng):
        carried = carry(source, {}, (site, new))
        if carried and _broken(source.rationale, carried[0]) == 1:
            lines, final = carried
            return Damaged(tuple(lines), final, f"{written(site.result)} -> {written(new)}, carried to {final}")
    return None


def planted_slip(question: Row, seed: int) -> tuple[list[str], int] | None:
    """Make one result of a gold solution false, carried on or not.

    Args:
        question: With question and answer, the gold solution.
        seed: Which slip is tried first depends on it and on the question's text.

    Returns:
        The steps, of which the last states the answer, and which of them is false; None where no slip is possible.
    """
    rationale = read_rationale(question)
    if rationale is None:
        return None
    rng = random.Random(f"{seed}:{question['question']}")
    source = Source(str(question["question"]), rationale, rationale)
    tried = list(product((arithmetic_slip, arithmetic_slip_carried), (1, 2, 3)))
    rng.shuffle(tried)
    for slip, degree in tried:
        damaged = slip(source, degree, rng)
        if damaged is not None:
            pairs = zip(damaged.lines, rationale.plain_lines, strict=True)
            wrong = next(i for i, (line, right) in enumerate(pairs) if line != right)
            return [*damaged.lines, f"The answer is {damaged.final}."], wrong
    return None


def contradicted_given(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Use other numbers than the question gives and recompute all: 1 one by a little, 2 one grossly, 3 two."""
    rationale = source.rationale
    if has_unknowns(rationale) or not exact(rationale):
        return None
    taken = values(source.question) | values(" ".join(rationale.lines))
    for group in _givens(source, 2 if degree == 3 else 1, rng):
        choices = [[new for new in other_values(value, min(degree, 2), rng) if new not in taken] for value in group]
        for news in product(*choices):
            if len(set(news)) < len(news):
                continue
            changes = dict(zip(group, news, strict=True))
            carried = carry(source, changes)
            if carried and _broken(rationale, carried[0]) == 0:
                lines, final = carried
                told = ", ".join(f"{written(old)} -> {written(new)}" for old, new in changes.items())
                return Damaged(tuple(lines), final, f"given {told}, carried to {final}")
    return None


def carry(
    source: Source, changes: Mapping[Fraction, Fraction], slip: tuple[Site, Fraction] | None = None
) -> tuple[list[str], str] | None:
    """Recompute a solution with other values, line by line.

    Args:
        source: Where the solution comes from.
        changes: Old value -> new value, from the start on.
        slip: An equation, and the false result that it gives instead of the one that it should.

    Returns:
        The unmarked lines and the new final answer; None where a value has more than one meaning, a new one cannot be
        written, or the final answer does not change.
    """
    known, lines = dict(changes), []
    for number, line in enumerate(source.rationale.lines):
        for place, equation in enumerate(equations(line)):
            site = Site(number, place, equation.result)
            new = slip[1] if slip and slip[0] == site else _recomputed(source, equation, known)
            if new is None or not _writable(new, site.result):
                return None
            if new == known.get(site.result, site.result):
                continue
            if site.result in known or not _means_one_thing(source, site):
                return None
            known[site.result] = new
        lines.append(plain(replace_values(line, known)))
    if evaluate(source.rationale.final) not in known or len(set(known.values())) < len(known):
        return None
    return lines, replace_values(source.rationale.final, known)


def _recomputed(source: Source, equation: Equation, known: Mapping[Fraction, Fraction]) -> Fraction | None:
    """Return what an equation gives with the values known so far; None where its mark does not say how."""
    if equation.computes or not known:
        return evaluate(replace_values(equation.left, known).replace(",", ""))
    return equation.result if equation.result in values(source.question) and equation.result not in known else None


def _givens(source: Source, size: int, rng: random.Random) -> list[tuple[Fraction, ...]]:
    """Return groups of numbers that the question gives once and the solution computes with, in random order."""
    found = all_equations(source.rationale.lines)
    operands = {value for equation in found for value in equation.operands}
    asked = all_values(source.question)
    givens = [
        value
        for value in sorted(operands - {equation.result for equation in found} - CONSTANTS)
        if asked.count(value) == 1 and value / 100 not in operands and not _in_words(source.rationale.lines, value)
    ]
    groups = list(combinations(givens, size))
    rng.shuffle(groups)
    return groups


def exact(rationale: Rationale) -> bool:
    """Whether a solution has marked equations, all of them exact, and a plain number as its answer."""
    found = all_equations(rationale.lines)
    return (
        bool(found)
        and all(evaluate(equation.left) == equation.result for equation in found)
        and evaluate(rationale.final) is not None
        and False not in [holds for line in rationale.plain_lines for holds in equalities(line)]
    )


def _slips(rationale: Rationale, degree: int, rng: random.Random) -> Iterator[tuple[Site, Fraction]]:
    """Yield equations with false results for them, in random order."""
    if not exact(rationale):
        return
    sites = [
        Site(number, place, equation.result)
        for number, line in enumerate(rationale.lines)
        for place, equation in enumerate(equations(line))
        if equation.computes
    ]
    rng.shuffle(sites)
    taken = values(" ".join(rationale.lines))
    for site in sites:
        yield from ((site, new) for new in other_values(site.result, degree, rng) if new not in taken)


def other_values(value: Fraction, degree: int, rng: random.Random) -> list[Fraction]:
    """Return values that differ from one by a little (1), plainly (2) or grossly (3), in random order."""
    parts = 1 if value.denominator == 1 else 100
    if degree == 1:
        unit = Fraction(1, parts)
        while parts == 1 and value >= unit * 100 and value % (unit * 10) == 0:
            unit *= 10
        found = [value + step * unit for step in SMALL]
    else:
        found = [Fraction(round(value * factor * parts), parts) for factor in FACTORS[degree]]
    found = [new for new in dict.fromkeys(found) if new != value and _writable(new, value)]
    rng.shuffle(found)
    return found


def _writable(new: Fraction, old: Fraction) -> bool:
    """Whether a value can stand for another: positive, whole where that is, else of at most two decimals."""
    return new > 0 and (new.denominator == 1 if old.denominator == 1 else (new * 100).denominator == 1)


def _means_one_thing(source: Source, site: Site) -> bool:
    """Whether a result's value means only that result, from its line on."""
    lines, onwards = source.rationale.lines, source.rationale.lines[site.line :]
    if _in_words(onwards, site.result):
        return False
    if [value for line in onwards for value in all_values(plain(line))].count(site.result) == 1:
        return True
    results = [equation.result for equation in all_equations(lines)]
    before = values(" ".join([source.question, *map(plain, lines[: site.line])]))
    constant = site.result in CONSTANTS and any(site.result in found.operands for found in all_equations(onwards))
    return results.count(site.result) == 1 and site.result not in before and not constant


def _in_words(lines: Iterable[str], value: Fraction) -> bool:
    """Whether lines say a value in words, where no digit would be changed."""
    return mentions(NUMBER.sub(" ", " ".join(map(plain, lines))), value)


def _broken(rationale: Rationale, lines: list[str]) -> int:
    """Count the equations of the text that held in a solution and do not in its damaged lines."""
    return sum(
        was is True and now is not True
        for old, new in zip(rationale.plain_lines, lines, strict=True)
        for was, now in zip(equalities(old), equalities(new), strict=True)
    )
