"""Damages to numbers: slips, carried or not, and givens that are contradicted.

A value is changed only where it can mean one thing: no other equation gives it, the question does not give it, no word
says it, and it is no common constant that later steps may bring in (60 minutes, 100 percent). After the change every
equation of the text that held before is read again: it must hold still, but for the slip.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from training.answers import mentions
from training.corruptions.damage import Damaged, Source
from training.corruptions.rationale import (
    NUMBER,
    Rationale,
    equalities,
    equations,
    evaluate,
    plain,
    replace_values,
    value_of,
    values,
    written,
)

CONSTANTS = frozenset(Fraction(n) for n in (1, 2, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000))
SMALL = (Fraction(1), Fraction(2), Fraction(-1), Fraction(-2))  # in units of the value's last digit that is not 0
PLAIN = (Fraction(7, 10), Fraction(13, 10), Fraction(14, 10), Fraction(3, 2), Fraction(6, 10))
GROSS = (Fraction(2), Fraction(3), Fraction(4), Fraction(5), Fraction(10), Fraction(1, 10))


@dataclass(frozen=True)
class Site:
    """Where an equation's result can slip: line, and place among the line's equations."""

    line: int
    place: int
    result: Fraction


def arithmetic_slip(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Make one result false; later steps use the right one."""
    rationale = source.rationale
    for site, new in _tries(rationale, degree, rng):
        later = rationale.lines[site.line + 1 :]
        line = rationale.lines[site.line]
        used_later = any(site.result in equation.operands for text in later for equation in equations(text))
        used_here = any(site.result in equation.operands for equation in equations(line))
        if not used_later or used_here or not _unique(source, site):
            continue
        changed = plain(replace_values(line, {site.result: new}))
        lines = [plain(text) for text in rationale.lines]
        lines[site.line] = changed
        if _broken(rationale, lines) == 1:
            return Damaged(tuple(lines), rationale.final, f"{written(site.result)} -> {written(new)}")
    return None


def arithmetic_slip_carried(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Make one result false and recompute all that follows from it, up to the final answer."""
    rationale = source.rationale
    for site, new in _tries(rationale, degree, rng):
        if not _unique(source, site):
            continue
        carried = carry(source, site.line, {site.result: new}, slip=site)
        if carried and _broken(rationale, carried[0]) == 1:
            lines, final = carried
            return Damaged(tuple(lines), final, f"{written(site.result)} -> {written(new)}, carried to {final}")
    return None


def contradicted_given(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Use other numbers than the question gives, and recompute all that follows: 1 a little, 2 grossly, 3 two numbers."""
    rationale = source.rationale
    operands = {value for line in rationale.lines for equation in equations(line) for value in equation.operands}
    results = {equation.result for line in rationale.lines for equation in equations(line)}
    asked = [value_of(number) for number in NUMBER.findall(source.question)]
    givens = sorted(v for v in operands - results - CONSTANTS if asked.count(v) == 1 and v / 100 not in operands)
    rng.shuffle(givens)
    if degree == 3:
        groups = [(a, b) for i, a in enumerate(givens) for b in givens[i + 1 :]]
    else:
        groups = [(a,) for a in givens]
    taken = values(source.question) | values(" ".join(rationale.lines))
    for group in groups:
        choices = [[new for new in _others(value, min(degree, 2), rng) if new not in taken] for value in group]
        for news in zip(*choices, strict=False):
            changes = dict(zip(group, news, strict=True))
            if len(set(news)) < len(news) or _in_words(rationale, set(group)):
                continue
            carried = carry(source, 0, changes)
            if carried and _broken(rationale, carried[0]) == 0:
                told = ", ".join(f"{written(old)} -> {written(new)}" for old, new in changes.items())
                return Damaged(tuple(carried[0]), carried[1], f"given {told}, carried to {carried[1]}")
    return None


def carry(
    source: Source, start: int, changes: dict[Fraction, Fraction], slip: Site | None = None
) -> tuple[list[str], str] | None:
    """Recompute a solution with other values.

    Args:
        source: Where the solution comes from.
        start: The first line to change.
        changes: Old value -> new value, known at the start.
        slip: The equation whose own result is not recomputed.

    Returns:
        The unmarked lines and the new final answer; None where a value has more than one meaning, a new one cannot be
        written, or the final answer does not change.
    """
    rationale, changes = source.rationale, dict(changes)
    for number, line in enumerate(rationale.lines[start:], start):
        for place, equation in enumerate(equations(line)):
            if slip and (number, place) <= (slip.line, slip.place):
                continue
            if not _recompute(source, Site(number, place, equation.result), equation.left, changes):
                return None
    final = evaluate(rationale.final)
    if final is None or final not in changes or evaluate(rationale.final) == changes[final]:
        return None
    if len(set(changes.values())) < len(changes):
        return None
    lines = [plain(line) for line in rationale.lines[:start]]
    lines += [plain(replace_values(line, changes)) for line in rationale.lines[start:]]
    return lines, replace_values(rationale.final, changes)


def _recompute(source: Source, site: Site, left: str, changes: dict[Fraction, Fraction]) -> bool:
    """Add an equation's new result to the changes; False where that would not be clear or not be writable."""
    new = evaluate(replace_values(left, changes).replace(",", ""))
    if new is None or not _writable(new, site.result):
        return False
    if new == changes.get(site.result, site.result):
        return True
    if site.result in changes or not _unique(source, site):
        return False
    changes[site.result] = new
    return True


def exact(rationale: Rationale) -> bool:
    """Whether a solution has marked equations, all of them exact, and a plain number as its answer."""
    found = [equation for line in rationale.lines for equation in equations(line)]
    return (
        bool(found)
        and all(evaluate(equation.left) == equation.result for equation in found)
        and evaluate(rationale.final) is not None
        and False not in [holds for line in rationale.lines for holds in equalities(plain(line))]
    )


def _tries(rationale: Rationale, degree: int, rng: random.Random) -> Iterator[tuple[Site, Fraction]]:
    """Yield equations with false results for them, in random order."""
    if not exact(rationale):
        return
    sites = [
        Site(number, place, equation.result)
        for number, line in enumerate(rationale.lines)
        for place, equation in enumerate(equations(line))
    ]
    rng.shuffle(sites)
    taken = values(" ".join(rationale.lines))
    for site in sites:
        for new in _others(site.result, degree, rng):
            if new not in taken:
                yield site, new


def _others(value: Fraction, degree: int, rng: random.Random) -> list[Fraction]:
    """Return values that differ from one by a little (1), plainly (2) or grossly (3), in random order."""
    if degree == 1:
        unit = Fraction(1, 100) if value.denominator > 1 else Fraction(1)
        while value.denominator == 1 and value and value % (unit * 10) == 0:
            unit *= 10
        found = [value + step * unit for step in SMALL]
    else:
        found = [_rounded(value * factor, value) for factor in (PLAIN if degree == 2 else GROSS)]
    found = [new for new in dict.fromkeys(found) if new != value and _writable(new, value)]
    rng.shuffle(found)
    return found


def _rounded(new: Fraction, old: Fraction) -> Fraction:
    return Fraction(round(new)) if old.denominator == 1 else Fraction(round(new * 100), 100)


def _writable(new: Fraction, old: Fraction) -> bool:
    """Whether a value can stand for another: positive, whole where that is, else of at most two decimals."""
    return new > 0 and (new.denominator == 1 if old.denominator == 1 else (new * 100).denominator == 1)


def _unique(source: Source, site: Site) -> bool:
    """Whether a result's value means only that result, from its line on."""
    lines = source.rationale.lines
    results = [equation.result for line in lines for equation in equations(line)]
    operands = {v for line in lines[site.line :] for equation in equations(line) for v in equation.operands}
    before = values(source.question + " " + " ".join(plain(line) for line in lines[: site.line]))
    return (
        results.count(site.result) == 1
        and site.result not in before
        and not (site.result in CONSTANTS and site.result in operands)
        and not _in_words(source.rationale, {site.result})
    )


def _in_words(rationale: Rationale, changed: set[Fraction]) -> bool:
    """Whether a solution says one of these values in words, where no digit would be changed."""
    words = NUMBER.sub(" ", " ".join(plain(line) for line in rationale.lines))
    return any(mentions(words, value) for value in changed)


def _broken(rationale: Rationale, lines: list[str]) -> int:
    """Count the equations of the text that held in a solution and do not in its damaged lines."""
    pairs = zip(rationale.lines, lines, strict=True)
    return sum(
        was is True and now is not True
        for old, new in pairs
        for was, now in zip(equalities(plain(old)), equalities(new), strict=True)
    )
