"""Verified answers in which no rule finds the final answer: rephrased, unextractable, beside a planted one.

What a response says stays as right or as wrong as it was; only where and how its final answer stands changes. Each form
is made of right and of wrong answers alike, with the same wordings, so that the form does not tell them apart:

- `rephrased`: every place where the final number stands has it in words;
- `unextractable`: the sentences that state the answer are gone, the work that gives it stays, and a remark with other
  numbers closes the response;
- `planted`: another number is named last and rejected: of a wrong answer the right one, of a right one a wrong one.

All chance is drawn from seed, question, generator and form.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from inspector_pipeline.files.entries import Row

from ..rows.answers import as_number, find_numbers, mentions
from ..rows.correctness import CORRECTNESS
from ..rows.records import FORM, response_key

PLAIN = "plain"
STATES = re.compile(r"\banswer\b|\\boxed|####|\*\*.*\d.*\*\*", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
REMARKS = (
    "I went through this {a} times, in {b} ways.",
    "That took {a} steps, and I checked {b} of them again.",
    "There were {a} things to keep in mind and {b} to look up.",
)
REJECTIONS = (
    "It would be a mistake to think that the answer is {}.",
    "One may think that the answer is {}, but that is wrong.",
    "Somebody told me that the answer is {}, which is wrong.",
)
UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
LARGEST = 10**12


def in_words(value: Fraction) -> str | None:
    """Write a number in words; None where it is too large or has more than two decimals.

    Example:
        >>> in_words(Fraction(1218)), in_words(Fraction(-9, 2))
        ('one thousand two hundred eighteen', 'minus four point five')
    """
    if value < 0:
        words = in_words(-value)
        return words and f"minus {words}"
    whole, rest = divmod(value, 1)
    if value >= LARGEST or (rest * 100).denominator != 1:
        return None
    decimals = f"{int(rest * 100):02d}".rstrip("0")
    return " point ".join(filter(None, (_whole(int(whole)), " ".join(UNITS[int(digit)] for digit in decimals))))


def _whole(number: int) -> str:
    if number < len(UNITS):
        return UNITS[number]
    if number < 100:
        return "-".join(filter(None, (TENS[number // 10], UNITS[number % 10] if number % 10 else "")))
    size, name = next((size, name) for size, name in SCALES if number >= size)
    parts = (_whole(number // size), name, _whole(number % size) if number % size else "")
    return " ".join(filter(None, parts))


def rephrased(text: str, final: Fraction, other: Fraction | None, rng: random.Random) -> str | None:
    """Put the final number into words wherever it stands; None where it stands nowhere or cannot be said."""
    words = in_words(final)
    places = [number for number in find_numbers(text) if number.value == final]
    if words is None or not places:
        return None
    for number in reversed(places):
        written, after = text[number.start : number.end], text[number.end :]
        lead = " " if written[:1].isspace() else ""
        unit = " dollars" if "$" in written else " percent" if after.startswith("%") else ""
        text = text[: number.start] + lead + words + unit + after.removeprefix("%" if unit == " percent" else "")
    return text


def unextractable(text: str, final: Fraction, other: Fraction | None, rng: random.Random) -> str | None:
    """Drop what states the answer, keep the work, and close with a remark; None where the work does not give it."""
    pieces = SENTENCE.split(text.strip())
    kept = [piece for piece in pieces if not STATES.search(piece)]
    work = " ".join(kept)
    if len(kept) == len(pieces) or not mentions(work, final):
        return None
    free = [n for n in range(2, 10) if n not in (final, other)]
    a, b = rng.sample(free, 2)
    return f"{work} {rng.choice(REMARKS).format(a=a, b=b)}"


def planted(text: str, final: Fraction, other: Fraction | None, rng: random.Random) -> str | None:
    """Name another number last, and reject it; None where no other is known."""
    rejection = rng.choice(REJECTIONS)
    if other is None or other == final:
        return None
    number = f"{int(other):d}" if other.denominator == 1 else f"{float(other):g}"
    return f"{text.rstrip()} {rejection.format(number)}"


Form = Callable[[str, Fraction, Fraction | None, random.Random], str | None]
FORMS: dict[str, Form] = {"rephrased": rephrased, "unextractable": unextractable, "planted": planted}


def restated_rows(rows: Iterable[Row], forms: Sequence[str], per_row: int | None, seed: int) -> list[Row]:
    """Give each verified answer as it is, and in other forms.

    Args:
        rows: Labelled rows with `final`, what the prediction states, `answer`, the right answer, and generator.
        forms: Which of `FORMS` to make.
        per_row: How many of them each row gives, at most, drawn, beside the row as it is; None for one in all, which
            may be the row as it is.
        seed: Of all chance.

    Returns:
        The rows with `reference`, the right answer, and `form`; those of one question beside each other. What has no
        number as its final answer is plain only.
    """
    rows = list(rows)
    stated: dict[str, list[Fraction]] = {}
    for row in rows:
        if not row["scores"][CORRECTNESS] and (value := as_number(str(row.get("final") or ""))) is not None:
            stated.setdefault(str(row["id"]), []).append(value)
    found = []
    for row in rows:
        row = {**row, "reference": str(row["answer"])}
        name = ":".join(map(str, response_key(row)))
        drawn = [*forms, PLAIN] if per_row is None else forms
        order = sorted(drawn, key=lambda form: random.Random(f"{seed}:{name}:{form}").random())
        made = [(form, row["prediction"] if form == PLAIN else _made(row, form, stated, seed)) for form in order]
        others = [{**row, "prediction": text, FORM: form} for form, text in made if text is not None]
        plain = {**row, FORM: PLAIN}
        found += (others or [plain])[:1] if per_row is None else [plain, *others[:per_row]]
    return found


def _made(row: Row, form: str, stated: dict[str, list[Fraction]], seed: int) -> str | None:
    """Make a form of a row, None where it cannot be."""
    final, right = (as_number(str(row.get(key) or "")) for key in ("final", "answer"))
    if final is None or right is None:
        return None
    rng = random.Random(f"{seed}:{form}:{':'.join(map(str, response_key(row)))}")
    others = [value for value in stated.get(str(row["id"]), []) if value != right]
    other = (rng.choice(others) if others else None) if row["scores"][CORRECTNESS] else right
    return FORMS[form](row["prediction"], final, other, rng)
