"""How the audit reads a text: words cut to their stems, and numbers by their value."""

import re
import unicodedata

# fmt: off
UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]
TENS = ["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# these make another problem of the same sentence, as a number does
FACTOR_WORDS = frozenset([
    "once", "twice", "thrice", "half", "halves", "third", "quarter", "double", "doubled", "triple", "tripled", "dozen",
    "hundred", "thousand", "million", "more", "less", "fewer",
])
# fmt: on
NUMBER_WORDS = {word: str(value) for value, word in enumerate(UNITS)} | {
    word: str(value) for value, word in zip(range(30, 100, 10), TENS, strict=True)
}
ENDINGS = ("ing", "edly", "ed", "es", "ly", "s")
MIN_STEM = 3

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3})")
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator notes repeat the numbers beside them


def fold(text: str) -> str:
    """Fold compatibility characters and case, and take out calculator notes and the commas in numbers."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _GROUPED.sub("", _ANNOTATION.sub("", folded))


def tokens(text: str) -> list[str]:
    """Cut a text into words and numbers, each in one form, punctuation left out.

    Number words become digits, and a letter of a script without case is a word like any other.
    """
    return [_one_form(token) for token in _TOKEN.findall(fold(text))]


def plain(text: str) -> str:
    """Return the text's words and symbols without regard to white space, case and punctuation.

    Symbols that carry a meaning of their own (`+`, `=`, `%`, ...) stay: `7 + 8` is not `7 - 8`.
    """
    return " ".join(re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+|[^\w\s.,;:!?'\"()\[\]{}*_`#…“”‘’–—]", fold(text)))


def numbers(text: str) -> list[str]:
    """Return the text's numbers by value, with words such as twice and half, which make another problem too."""
    return [_one_form(token) for token in _TOKEN.findall(fold(text)) if is_number(token)]


def number_stream(text: str) -> str:
    """Return the text's digits and number words in one string, which stays the same when punctuation is stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(NUMBER_WORDS.get(token, token) for token in re.findall(r"\d+|[^\W\d_]+", folded) if is_number(token))


def squashed(text: str) -> tuple[str, str]:
    """Return the text's letters and digits in one string, and its arithmetic signs in another."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(re.findall(r"[^\W_]+", folded)), "".join(re.findall(r"[+*/÷×^<>=%-]", folded))


def is_number(token: str) -> bool:
    """Whether a token stands for a quantity."""
    return token[0].isdigit() or token in NUMBER_WORDS or token in FACTOR_WORDS


def _one_form(token: str) -> str:
    if token[0].isdigit():
        return token.rstrip("0").rstrip(".") if "." in token else token
    if token in NUMBER_WORDS:
        return NUMBER_WORDS[token]
    for ending in ENDINGS:
        if token.endswith(ending) and len(token) - len(ending) >= MIN_STEM:
            token = token[: -len(ending)]
            break
    return token[:-1] if len(token) > MIN_STEM and token[-1] in "ey" else token
