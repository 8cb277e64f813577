"""Gold solutions as steps with equations, and what a damage takes and gives.

GSM8K marks its arithmetic, as in `48/2 = <<48/2=24>>24`: the marks say where the equations are, and are taken out of
the text that a judge sees. A line without marks gets them where it says `a op b = c`.
"""

import ast
import operator
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from inspector_pipeline.files.entries import Row

from ..rows.answers import final_answer

NUMBER = re.compile(r"(?<![\d])(?<!\d[.,])(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")
MARK = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_TERM = r"[(\s]*-?\$?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)%?(?:(?:\s+|/\s?)(?!x\b)[A-Za-z]+){0,4}[)\s]*"
_EXPRESSION = rf"{_TERM}(?:[-+*/x×÷−–]{_TERM})*"
_BEFORE = re.compile(rf"(?<![\w.]){_EXPRESSION}$")
_AFTER = re.compile(_EXPRESSION)
_SIGNS = tuple("-+*/×÷−–")
_PLAIN_RESULT = re.compile(r"(?<==)\s*\$?\s*(?=\d)")
_HASHES = re.compile(r"\s*####.*", re.DOTALL)
_BOX = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_TIMES = re.compile(r"(?<=[\d\s).])[x×](?=[\s(\d.$])")
_UNKNOWN = re.compile(r"(?<![A-Za-z'’.])(?:[B-HJ-Zb-fi-km-z]|(?<!\d)(?<!\d )[ghl])(?![A-Za-z'’.])")
_SAID = (
    (re.compile(r"\bequals\b|\bis equal to\b"), "="),
    (re.compile(r"\bdivided by\b"), "/"),
    (re.compile(r"\b(?:times|multiplied by)\b"), "*"),
    (re.compile(r"\bplus\b"), "+"),
    (re.compile(r"\bminus\b"), "-"),
)
_AS_PYTHON = (
    (re.compile(r"(?<=\d),(?=\d{3})|\$"), ""),
    (_TIMES, "*"),
    (re.compile("÷"), "/"),
    (re.compile("[−–]"), "-"),
    (re.compile(r"(?:/\s?)?[A-Za-z]+"), " "),
    (re.compile(r"([\d.]+)\s*%"), r"(\1/100)"),
    (re.compile(r"(?<![\d.])0+(?=\d)"), ""),
)
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Equation:
    """One marked equation of a line.

    Attributes:
        left: Its left-hand side, as the mark writes it.
        result: What the mark says that it gives.
    """

    left: str
    result: Fraction

    @property
    def operands(self) -> set[Fraction]:
        """The numbers of the left-hand side."""
        return values(self.left)

    @property
    def computes(self) -> bool:
        """Whether the left-hand side is more than a number; GSM8K has marks such as `<<15=15>>`."""
        return bool(re.search(r"\d\s*[-+*/]", self.left))


@dataclass(frozen=True)
class Rationale:
    """A gold solution.

    Attributes:
        lines: Its steps, one a line, with the arithmetic marked.
        final: Its final answer.
    """

    lines: tuple[str, ...]
    final: str

    @property
    def plain_lines(self) -> list[str]:
        """Its steps without marks."""
        return [plain(line) for line in self.lines]


@dataclass(frozen=True)
class Source:
    """What a response is made from.

    Attributes:
        question: The question's text.
        rationale: Its gold solution.
        donor: The gold solution of another question.
    """

    question: str
    rationale: Rationale
    donor: Rationale


@dataclass(frozen=True)
class Damaged:
    """A damaged solution.

    Attributes:
        lines: Its steps, without marks; empty for a bare answer.
        final: The final answer that it states; None where it states none.
        detail: What was done, for people.
        bare: Whether the final answer stands alone, without a sentence.
    """

    lines: tuple[str, ...]
    final: str | None
    detail: str
    bare: bool = False


Damage = Callable[[Source, int, random.Random], Damaged | None]
"""Damages a solution to a degree; None where that is not possible."""


def read_rationale(question: Row) -> Rationale | None:
    """Read a question's gold solution; None where it has no steps or no final answer."""
    answer = question.get("answer") or ""
    final = question.get("final_answer") or final_answer(answer)
    text = _BOX.sub(r"\1", _HASHES.sub("", answer))  # the closing sentence states it
    lines = [line.strip() for line in text.split("\n") if re.search(r"\w", line)]
    if not lines or not final:
        return None
    return Rationale(tuple(line if "<<" in line else _mark(line) for line in lines), str(final).strip())


def plain(line: str) -> str:
    """Take the marks out of a line."""
    return MARK.sub("", line).replace("<<", "").replace(">>", "")


@lru_cache(maxsize=4096)
def equations(line: str) -> tuple[Equation, ...]:
    """Return a line's marked equations, in order; marks that are not plain arithmetic are left out."""
    found = [(left, evaluate(left), evaluate(result)) for left, result in MARK.findall(line)]
    return tuple(Equation(left, result) for left, value, result in found if value is not None and result is not None)


def all_equations(lines: Iterable[str]) -> list[Equation]:
    """Return the marked equations of lines, in order."""
    return [equation for line in lines for equation in equations(line)]


def has_unknowns(rationale: Rationale) -> bool:
    """Whether a solution does algebra, with letters for numbers, where no mark says what follows from what."""
    return any("=" in line and _UNKNOWN.search(_TIMES.sub("*", plain(line))) for line in rationale.lines)


def evaluate(expression: str) -> Fraction | None:
    """Evaluate plain arithmetic exactly; None where it is something else.

    Args:
        expression: Numbers with + - * / x ×, ÷, brackets, $, % (a hundredth) and words as units.
    """
    try:
        return _value(ast.parse(_rewritten(expression, _AS_PYTHON).strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


@lru_cache(maxsize=4096)
def equalities(line: str) -> tuple[bool | None, ...]:
    """Say of every "=" or "equals" of an unmarked line whether it holds; None where a side is no arithmetic."""
    return tuple(_equalities(_rewritten(line, _SAID)))


def _equalities(line: str) -> list[bool | None]:
    found: list[bool | None] = []
    for _, left, right in _sides(line):
        if left is None or right is None:
            found.append(None)
        else:
            percent = (right * 100, right / 100) if "%" in line else ()  # "1/4 = 25", "1/4 x 100 = 25%"
            found.append(left in (right, *percent))
    return found


def calculations(text: str) -> list[tuple[str, Fraction]]:
    """Return the calculations of an unmarked text that hold: what computes, as it is written, and the result."""
    found = ((before, left, right) for line in text.split("\n") for before, left, right in _sides(line))
    return [
        (before.strip(), right)
        for before, left, right in found
        if right is not None and left == right and re.search(r"\d\s*[-+*/x×÷]", before)
    ]


def _sides(line: str) -> Iterator[tuple[str, Fraction | None, Fraction | None]]:
    """Yield for every "=" of a line the expression before it, and the values of that and of the one behind."""
    for sign in re.finditer("=", line):
        before, after = _before(line[: sign.start()]), _AFTER.match(line[sign.end() :])
        left, right = (evaluate(side[0]) if side else None for side in (before, after))
        yield before[0] if before else "", left, right


def all_values(text: str) -> list[Fraction]:
    """Return the values of all numbers of a text, in order."""
    return [value_of(number) for number in NUMBER.findall(text)]


def values(text: str) -> set[Fraction]:
    """Return the different values of all numbers of a text."""
    return set(all_values(text))


def value_of(number: str) -> Fraction:
    """Return the value of a number as NUMBER matches it."""
    return Fraction(number.replace(",", ""))


def replace_values(text: str, changes: Mapping[Fraction, Fraction]) -> str:
    """Write other values where a text has certain ones, in the same style (commas, cents)."""

    def restyled(found: re.Match[str]) -> str:
        new = changes.get(value_of(found[0]))
        return found[0] if new is None else written(new, found[0])

    return NUMBER.sub(restyled, text)


def written(value: Fraction, like: str = "") -> str:
    """Write a value of at most two decimals, with commas and cents where the number it replaces has them."""
    comma, cents = "," if "," in like else "", re.search(r"\.\d\d$", like)
    if value.denominator == 1 and not cents:
        return f"{int(value):{comma}}"
    text = f"{float(value):{comma}.2f}"
    return text if cents else text.rstrip("0").rstrip(".")


def _rewritten(text: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no plain arithmetic")


def _before(text: str) -> re.Match[str] | None:
    """Find the whole arithmetic expression that a text ends with; None where it goes on in what is no arithmetic."""
    found = _BEFORE.search(text)
    return None if found is None or text[: found.start()].rstrip().endswith(_SIGNS) else found


def _mark(line: str) -> str:
    """Mark the equations of a line whose text says `a op b = c`, c a number."""
    marked, position = "", 0
    for sign, holds in zip(re.finditer("=", line), _equalities(line), strict=True):
        before = _before(line[: sign.start()])
        result = _PLAIN_RESULT.match(line, sign.end())
        number = NUMBER.match(line, result.end()) if result else None
        if not holds or before is None or result is None or number is None or "%" in before[0]:
            continue
        left = re.sub(r"/?[A-Za-z]+|[$\s]", "", re.sub(r"(?<=[\d\s)])[x×](?=[\s(\d$])", "*", before[0]))
        left = re.sub("[−–]", "-", left.replace("÷", "/"))
        if "," not in left and evaluate(left) == evaluate(number[0]) and re.search(r"[-+*/]", left):
            marked += line[position : result.end()] + f"<<{left}={number[0].replace(',', '')}>>"
            position = result.end()
    return marked + line[position:]
