"""Equations in a response whose arithmetic is wrong, as in "54 / 8 = 6".

What cannot be read for certain is left alone: algebra, powers, remainders, sums of different units, code and so on. A
text is cut into tokens, tokens into clauses, which end with a line or at punctuation, and clauses at their equals signs
into parts. Of neighbouring parts, the arithmetic that ends the first is compared with that which begins the second. It
takes time linear in the text's length.

What is found is part of saved judges, by the name of their check: a rule that finds others takes another name.
"""

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from .sum_tokens import Token, numbers_of, tokenized, unit_of, words_of

READ_CHARACTERS = 10_000  # of a text, from its beginning
DEEPEST = 20  # parentheses within one another
MOST_DIGITS = 15  # of a number; a float holds no more
UNIT_WORDS = 4  # how many words may follow a number as what it counts
COMMENT_WORDS = 6  # of a remark in parentheses, as in "$30 (shoes) + $40 (jacket) = $70"
ROUNDED = 0.01  # relative error where decimals or a division may have been rounded on the way

NEAR = 40  # characters of a line before and after an equation, where a word may deny it
SENTENCE = 200  # characters of a sentence, where a word may name another arithmetic

_REMAINDER = re.compile(
    r"\b(?:remainder|mod\b|round|nearest|approx|left ?over|with [0-9]|to the|and \(?[0-9]+/|out of [0-9])",
    re.IGNORECASE,
)
_CUT = re.compile(r"\b(?:full|whole|complete|entire|change|left|remain|over\b)", re.IGNORECASE)  # of a quotient
_CARRIED = re.compile(r"\W*(?:\w+ )?carry(?:ing)? (?:the )?[0-9]", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:wrong|incorrect|mistake|error|untrue|not true|false|not equal|contradict|puzzle)|[≠❌✗✘]|~~", re.IGNORECASE
)
_SUPPOSED = re.compile(r"\b(?:suppose|supposing|assume|assuming|imagine|pretend)(?: that)? \Z", re.IGNORECASE)
_ASKED = re.compile(r"[^\n.,;:!?=0-9]{0,20}\?")
_OTHER_ARITHMETIC = re.compile(
    r"\b(?:binary|hex(?:adecimal)?\b|octal|boolean|[bp]?mod(?:ul(?:o|us|ar))?\b|clock\b"
    r"|base[- ](?:[0-9]|two\b|eight\b|sixteen\b)|integer division)|Z\}?_",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?]\s|\n")
_HYPHEN = re.compile(r"[0-9]-[0-9]")
_LONG_HYPHEN = re.compile(r"(?<![0-9])[0-9]{4,}-[0-9]{4}")
_RANGE = re.compile(r"\b(?:pages?|ranges?|records?|call|phone|zip|id|between)\b[^\n=]{0,9}\Z", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:://|\bwww\.|[?&]\w{1,20}=)\S*\Z|[0-9]\.\Z")  # of a page, or a network
_POINT = re.compile(r"(?<![0-9.])([1-9][0-9]{0,2})\.(?=[0-9]{3}(?![0-9]))")  # of thousands


_ODD = words_of(  # about a number, they make it another one
    """half halves quarter third thirds than dozen dozens hundred hundreds thousand thousands million millions billion
    bn mn lakh lakhs crore crores gross percent plus minus times squared cubed divided multiplied remainder base
    degrees ratio am pm log sin cos tan ln gcd lcm matrix matrices january february march april june july august
    september october november december"""
)
_CHANGING = _ODD | words_of(  # before arithmetic, they make it a part of something larger
    """twice thrice double triple root by from average mean over factorial less per and or subtract choose equation
    day days week weeks year years step case"""
)
_ODD_FIRST = words_of("of tens ones")  # right after a number
_CHANGING_OF = _CHANGING | words_of("number product difference")  # with "of" before it
_JOINING = words_of("and or gives give is are because so then to we where which since if means")


class WrongSum(NamedTuple):
    """An equation whose sides differ: text[start:end], and what its left side comes to."""

    start: int
    end: int
    value: float


def wrong_sums(text: str) -> list[WrongSum]:
    """Find the equations in a text whose arithmetic is wrong.

    Args:
        text: A response; its first `READ_CHARACTERS` are read.

    Returns:
        They in order; empty where none is wrong or none can be read for certain.

    Example:
        >>> wrong_sums("He fills 54 / 8 = 6 boxes.")
        [WrongSum(start=9, end=19, value=6.75)]
    """
    if "=" not in text and "equal" not in text:
        return []
    text = _beginning(text)
    found = []
    for parts in _clauses(text):
        for left, right in pairwise(parts):
            one = _last_side(left)
            other = _first_side(right) if one else None
            if one and other and _differ(one, other) and not _excused(text, one, other):
                found.append(WrongSum(one.start, other.end, one.value))
    return found


def _beginning(text: str) -> str:
    """Return what is read of a text, without a sentence that the limit would cut in two."""
    if len(text) <= READ_CHARACTERS:
        return text
    return text[: 1 + max(text.rfind(end, 0, READ_CHARACTERS) for end in ("\n", ". ", "! ", "? "))]


def _clauses(text: str) -> Iterator[list[list[Token]]]:
    """Yield the parts of each clause that has an equals sign."""
    parts: list[list[Token]] = [[]]
    for token in tokenized(text):
        if token.kind == "=":
            parts.append([])
        elif token.kind not in ("stop", "line"):
            parts[-1].append(token)
        else:
            if len(parts) > 1:
                yield [_matched(part) for part in parts]
            parts = [[]]


def _matched(part: list[Token]) -> list[Token]:
    """Mark parentheses without a partner as what ends arithmetic, and a part that is too deep as bad."""
    opened: list[int] = []
    part = list(part)
    for i, token in enumerate(part):
        if token.kind == "(":
            opened.append(i)
        elif token.kind == ")" and opened:
            opened.pop()
        elif token.kind == ")":
            part[i] = token._replace(kind="end")
        if len(opened) > DEEPEST:
            return [token._replace(kind="bad")]
    for i in opened:
        part[i] = part[i]._replace(kind="end")
    return part


def _first_side(part: list[Token]) -> "_Side | None":
    """Read the arithmetic that a part begins with."""
    side = _Side(part, 0)
    if not side.begins(0):
        return None
    side.read()
    kinds = [token.kind for token in part[side.at : side.at + UNIT_WORDS]]
    timed = side.units and kinds[:1] == ["word"] and "number" in kinds[1:3]  # 5 hours and 30 minutes
    return None if timed or "bad" in kinds or kinds[:1] and kinds[0] in "+-*/(" else side


def _last_side(part: list[Token]) -> "_Side | None":
    """Read the arithmetic that a part ends with."""
    at = len(part) if any(token.kind == "bad" for token in part) else 0
    while at < len(part):
        side = _Side(part, at)
        if side.begins(at) and (part[at].kind != "-" or at == 0 or part[at - 1].kind == "end"):
            side.read()
            if side.at == len(part):
                known = side.operators - {"."} and not math.isnan(side.value)
                alone = _goes_on(part, at) or _stands_alone(part[max(0, at - 4) : at + 1])
                return side if known and alone else None
        at = max(side.at, at + 1)
    return None


def _goes_on(part: list[Token], at: int) -> bool:
    """Say whether arithmetic begins with the result before it, as in 5 * 12 = 60 and 60 - 7 = 53."""
    return at == 2 and part[1].text == "and" and part[0].text == part[2].text


def _stands_alone(tokens: list[Token]) -> bool:
    """Say whether arithmetic is no part of something larger, by the tokens before it and its first."""
    *before, first = tokens
    if not before or before[-1].kind == "end":
        return True
    words = [token.text.lower() if token.kind == "word" else token.kind for token in before]
    if first.kind == "(" and "number" in words or words[-1] in _CHANGING:
        return False
    return before[-1].kind == "word" and (words[-1] != "of" or _CHANGING_OF.isdisjoint(words))


class _Side:
    """Arithmetic, read from a part's tokens; its value is nan where it cannot be read for certain."""

    def __init__(self, tokens: list[Token], at: int) -> None:
        self.tokens, self.at = tokens, at
        self.start = self.end = tokens[at].start if at < len(tokens) else 0
        self.value = math.nan
        self.first = self.last = math.nan  # its first number, and what is added or subtracted last
        self.decimals = 0  # of its last number
        self.percent = self.odd = False
        self.operators: set[str] = set()  # of + - * /, and . where a number has decimals
        self.units: set[str] = set()
        self.counted: list[set[str]] = []  # what each of its numbers counts

    def kind(self, at: int) -> str:
        """Return a token's kind, and nothing after the last."""
        return self.tokens[at].kind if at < len(self.tokens) else ""

    def begins(self, at: int) -> bool:
        """Say whether an operand begins with this token."""
        return self.kind(at + (self.kind(at) == "-")) in ("number", "(")

    def read(self) -> None:
        """Read as much as there is."""
        value = self.sum()
        mixed = self.percent and not self.operators.isdisjoint("+-")
        self.value = math.nan if self.odd or mixed or not math.isfinite(value) else value

    def sum(self) -> float:
        """Read products that are added or subtracted."""
        value = self.last = self.product()
        while self.kind(self.at) in ("+", "-") and self.begins(self.at + 1):
            sign = self.sign()
            self.last = self.product()
            value = value + self.last if sign == "+" else value - self.last
        return value

    def sign(self) -> str:
        """Read an operator."""
        self.at += 1
        self.operators.add(self.kind(self.at - 1))
        return self.kind(self.at - 1)

    def product(self) -> float:
        """Read operands that are multiplied or divided; nan where they follow each other without a sign."""
        value, sign = self.operand(), ""
        while (kind := self.kind(self.at)) in ("number", "(") or (kind in ("*", "/") and self.begins(self.at + 1)):
            unclear = kind in ("number", "(") or kind == sign == "/"  # 60 / 3/4
            if self.tokens[self.at].text == "of":
                unclear = not (self.tokens[self.at - 1].text.endswith("%") or self.operators == {"/"})
                self.percent = True
            sign = "" if kind in ("number", "(") else self.sign()
            other = self.operand()
            unclear = unclear or (sign == "/" and not other)
            value = math.nan if unclear else value / other if sign == "/" else value * other
        return value

    def operand(self) -> float:
        """Read a number or parentheses, with the unit after it."""
        if self.kind(self.at) == "-":
            self.at += 1
            return -self.operand()
        self.at += 1
        token = self.tokens[self.at - 1]
        value = self.number(token.text) if token.kind == "number" else self.inside()
        self.end = self.tokens[self.at - 1].end
        self.step_over_units()
        return value

    def inside(self) -> float:
        """Read what stands in parentheses, up to where they close."""
        value = self.sum() if self.begins(self.at) else math.nan
        value = value if self.kind(self.at) == ")" else math.nan
        depth = 1
        while depth:
            depth += {"(": 1, ")": -1}.get(self.kind(self.at), 0)
            self.at += 1
        return value

    def number(self, written: str) -> float:
        """Read a number, or a fraction of two, and note how it is written."""
        numbers = [number.replace(",", "") for number in numbers_of(written)]
        self.odd = self.odd or max(map(len, numbers)) > MOST_DIGITS
        self.decimals = len(numbers[-1].partition(".")[2])
        self.operators.update("." * (self.decimals > 0) + "/" * (len(numbers) - 1))
        self.percent = self.percent or written.endswith("%")
        self.units.update({"dollar"} if written.strip("\\")[0] in "$€£" else ())
        below = 100.0 if written.endswith("%") else float(numbers[1]) if numbers[1:] else 1.0
        value = math.nan if self.odd or not below else float(numbers[0]) / below
        self.first = value if math.isnan(self.first) else self.first
        return value

    def step_over_units(self) -> None:
        """Step over what a number counts, unless it turns out to belong to what follows."""
        at = self.at
        words: list[str] = []
        while len(words) < UNIT_WORDS and self.kind(at) in ("word", "("):
            end = at + 1
            while self.kind(at) == "(" and self.kind(end) == "word" and end <= at + COMMENT_WORDS:
                end += 1
            if self.kind(at) == "(" and (self.kind(end) != ")" or end == at + 1):
                break
            words += [token.text.lower() for token in self.tokens[at:end] if token.kind == "word"]
            at = end + (self.kind(at) == "(")
        whole = self.kind(at) in ("", ")", "end") or (self.kind(at) in ("+", "-", "*", "/") and self.begins(at + 1))
        whole = whole and _JOINING.isdisjoint(words)
        self.at = at if whole else self.at
        words = words if whole else words[:2]
        self.odd = self.odd or not _ODD.isdisjoint(words) or not _ODD_FIRST.isdisjoint(words[:1])
        self.units.update(word.removesuffix("s") for word in words if unit_of(word))
        of = words.index("of") if "of" in words else len(words)  # 2 boxes of eggs are boxes
        self.counted.append({word.removesuffix("s") for word in words[:of]})


def _differ(left: _Side, right: _Side) -> bool:
    """Say whether what two sides come to differs by more than rounding may explain."""
    if math.isnan(right.value) or _converts(left, right):
        return False
    shown = right.value * 100 if right.percent else right.value
    values = [left.value, -left.value]  # many write differences either way
    rounded = not (left.operators | right.operators).isdisjoint("./")
    if rounded or left.percent or right.percent:
        values += [100 * left.value, left.value / 100 if left.percent else left.value]
    if "dollar" in right.units - left.units:
        values.append(left.value / 100)  # 20 * 45 = $9
    allowed = 1e-14 * abs(left.value)
    if rounded:
        written = 10.0**-right.decimals if right.decimals else 0.5
        allowed = max(ROUNDED * abs(left.value), 0.0 if right.operators - {"."} else written)
    goes_on = right.operators - {"."} and abs(left.value - right.first) <= allowed  # 5 + 3 = 8 + 2 = 10
    aside = left.operators >= {"+", "*"} and left.last == right.value  # 9 * 2 = 18 + 6 * 1 = 6
    if goes_on or aside:
        return False
    return all(abs(value - shown) > allowed + 1e-9 for value in values)


def _converts(left: _Side, right: _Side) -> bool:
    """Say whether an equation has to do with more than one unit of time, length and so on."""
    both = left.units | right.units
    several = len({unit_of(unit) for unit in both}) < len(both)
    priced = right.operators - {"."} and ("dollar" in left.units) < ("dollar" in right.units)
    return (
        bool(priced)
        or several
        and (not left.operators <= {"*", "."} or not right.units <= left.units)
        or _regroups(left, right)
    )


def _regroups(left: _Side, right: _Side) -> bool:
    """Say whether a sum counts several things and its result one of them, as in 3 pairs + 1 shoe = 7 shoes."""
    result = right.counted[0]
    return (
        left.operators <= {"+", "-", "."}
        and right.operators <= {"."}
        and all(left.counted)
        and len({not words.isdisjoint(result) for words in left.counted}) == 2
    )


def _excused(text: str, left: _Side, right: _Side) -> bool:
    """Say whether the text around an equation whose sides differ tells why they may."""
    start, end = left.start, right.end
    written = text[start:end]
    before = text[max(0, start - NEAR) : start].rpartition("\n")[2]
    after = text[end : end + NEAR].partition("\n")[0]
    denied = _DENIED.search(before) or _DENIED.search(after) or _ASKED.match(after) or _SUPPOSED.search(before)
    cut = "/" in left.operators and abs(left.value - right.value) < 1 and _CUT.search(after)
    carried = right.value == left.value % 10 and _CARRIED.match(after)
    joined = _LONG_HYPHEN.search(written) or (_HYPHEN.search(written) and _RANGE.search(before))
    return bool(
        denied
        or (cut or carried or _REMAINDER.search(text, end, end + 30))
        or (joined or _ADDRESS.search(before) or (text[end : end + 1] == "!" and _factorial(left, right)))
        or _OTHER_ARITHMETIC.search(_sentence(text, start, end))
        or (_POINT.search(written) and not wrong_sums(_POINT.sub(r"\1", written)))
    )


def _factorial(left: _Side, right: _Side) -> bool:
    """Say whether the mark after an equation may be a factorial's, as in 2 * 3 * 4 = 4!, rather than an exclamation."""
    whole = right.value in range(MOST_DIGITS)
    return not right.operators <= {"."} or (whole and left.value == math.factorial(int(right.value)))


def _sentence(text: str, start: int, end: int) -> str:
    """Return the sentence around text[start:end]."""
    before = _SENTENCE_END.split(text[max(0, start - SENTENCE) : start])[-1]
    return before + text[start:end] + _SENTENCE_END.split(text[end : end + SENTENCE], maxsplit=1)[0]
