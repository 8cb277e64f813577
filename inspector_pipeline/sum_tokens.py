"""The tokens of a text that may hold equations, for `sums.py`: numbers, signs, words, and what cannot be read."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_DIGITS = r"(?:[0-9](?:[0-9]|(?:,|\{,\}|,\\!)(?=[0-9]))*(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
_TOKEN = re.compile(
    rf"""(?P<line>(?:\A|\n|\\\\)[ \t]*(?:>[ \t]+)?(?:(?:[-*+•✓✔✅]|\#{{1,6}})[ \t]+)?(?:\*\*)?
        (?:(?:[0-9]{{1,2}}[.)]|\(?[A-Za-z]\))(?=[ \t*]))?)
    | (?P<skip><<[^<>\n]{{0,100}}>>|\\[,;:!()]|\\[ ]|\((?:s|es)\)|(?<=[0-9])-(?=[^\W\d_])|&(?!&)
        |\\(?:left|right|text|math(?:rm|bf)|textbf|boxed|q?quad|displaystyle)\b)
    | (?P<equals>(?<![-+*/:<>=!])=(?![=>])|\b(?:equals(?:\ to)?|(?:is|are)\ equal\ to)\b)
    | (?P<pause>(?<=[0-9])(?:!|…|\.\.\.)(?=[ \t]*(?:\n|\Z|[^\W\d_])))
    | (?P<bad>[-+*/:<>=!]=+|=>|(?<=[0-9)])(?:\*\*(?=[0-9(])|[!:](?=[0-9(])|!)|\.\.+|//+|\\[{{}}|]|\x0c|\times
        |(?<=[0-9]),[ ]{{1,2}}(?=[0-9]{{3}}(?![0-9]))|\\sqrt(?:\[[^\[\]\n]{{0,9}}\])?)
    | (?P<plain>\*\*+|(?<=[a-z0-9])/(?=[a-z]{{3}})|[{{}}])
    | (?P<number>(?:(?:\\?\$|[€£])[ ]?)?{_DIGITS}(?:[ ]?\\?%)?
        |\\[dt]?frac[ ]?\{{{_DIGITS}\}}[ ]?\{{{_DIGITS}\}})
    | (?P<stop>\\(?:begin|end)\{{[a-z]{{1,12}}\*?\}}|\\(?:approx|implies|therefore|to|[Rr]ightarrow)\b|\\[\[\]]
        |-+>|(?<![^ \t\n])\|(?![^ \t\n]|[ \t]*[-+*/=])|[.,;:!?"“”`—→≈~\[\]])
    | (?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*|¢)
    | (?P<operator>[-−–+*·×÷/]|\\(?:times|cdot|div)\b)
    | (?P<parenthesis>[()])
    | (?P<other>\\[A-Za-z]+|[^\s$€£\\])""",
    re.VERBOSE,
)
_WRITTEN = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]*(?:\.[0-9]+)?")
_SIGNS = {"−": "-", "–": "-", "·": "*", "×": "*", "÷": "/", "\\times": "*", "\\cdot": "*", "\\div": "/"}
_DIMENSIONS = (
    "second sec minute min hour hr day week month year decade century centurie",
    "inch inche foot feet yard mile mm cm km meter metre centimeter kilometer millimeter",
    "ounce oz pound lb ton gram kg kilogram mg milligram",
    "cup pint quart gallon liter litre ml milliliter teaspoon tsp tablespoon tbsp",
    "cent ¢ dollar penny pennie nickel dime euro",
    "hz khz mhz ghz",
    "byte kb mb gb tb",
)
_UNITS = {name: i for i, names in enumerate(_DIMENSIONS, 1) for name in names.split()}


class Token(NamedTuple):
    """A piece of the text, text[start:end], and what it is to arithmetic."""

    kind: str  # number, word, bad, end, stop, line, or the sign itself: = ( ) + - * /
    start: int
    end: int
    text: str


def words_of(text: str) -> frozenset[str]:
    """Return words that are written with spaces between them."""
    return frozenset(text.split())


def tokenized(text: str) -> Iterator[Token]:
    """Yield tokens, without the ends of lines that an equals sign follows."""
    matches = [match for match in _TOKEN.finditer(text) if match.lastgroup not in ("skip", "plain")]
    tokens = [Token(_kind(match), match.start(), match.end(), match.group()) for match in matches]
    tokens = [*(token for token in tokens if token.text), Token("line", len(text), len(text), "")]
    for before, token, after in zip([tokens[-1], *tokens], tokens, tokens[1:], strict=False):
        if token.kind == "line" and after.kind in ("line", "="):
            continue
        yield token._replace(kind=_kind_among(before, token, after))
    yield tokens[-1]


def _kind(match: re.Match[str]) -> str:
    name, written = match.lastgroup or "", match.group()
    if name == "number":
        return "number" if all(map(_WRITTEN.fullmatch, numbers_of(written))) else "bad"
    if name == "word" and not all(c.isalpha() or c in "'’-¢" for c in written):
        return "bad"
    if name in ("operator", "parenthesis"):
        return _SIGNS.get(written, written)
    return {"equals": "=", "other": "bad", "pause": "stop"}.get(name, name)


def _kind_among(before: Token, token: Token, after: Token) -> str:
    """Tell x as a sign from x as a variable, and variables and functions from words."""
    follows = before.end == token.start
    if token.kind == "number":
        letter = follows and before.kind in ("word", "number") and before.text not in ("x", "X")
        return "bad" if letter else "number"
    if token.kind != "word":
        return token.kind
    if token.text == "of" and before.kind in ("number", ")") and after.kind in ("number", "("):
        return "*"  # of a share, as in 20% of 50 or 3/4 of 8; of anything else, it cannot be read
    if token.text in ("x", "X") and before.kind in ("number", ")", "word") and after.kind in ("number", "("):
        return "*" if after.kind == "number" or before.kind != "word" else "bad"
    single = (
        len(token.text) == 1 and token.text != "¢" and (token.text not in "aAI" or after.kind not in ("word", "number"))
    )
    name = len(token.text) < 3 or token.text[0].isupper()
    product = follows and before.kind == "number" and name and unit_of(token.text) is None
    return "bad" if single or product or (after.kind == "(" and after.start == token.end) else "word"


def numbers_of(written: str) -> list[str]:
    """Return a number, or both of a fraction, without signs around them."""
    plain = written.replace("{,}", ",").replace(",\\!", ",")
    return [part.strip("\\$€£%} ") for part in plain.split("{")[1 if "frac" in plain else 0 :]]


def unit_of(word: str) -> int | None:
    """Return which dimension a unit measures; none where the word is no unit."""
    return _UNITS.get(word.lower(), _UNITS.get(word.lower().removesuffix("s")))
