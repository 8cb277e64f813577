"""Damages to the wording: typos, missing little words, shuffled words. Whatever carries mathematics is left alone."""

import random
import re

from .damage import Damaged, Source
from .rationale import plain

_WORD = re.compile(r"[A-Za-z]{2,}[.,;:!?]?")  # no digit, operator or LaTeX
_FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "is", "are", "was", "were", "be", "of", "to", "in", "on", "at", "for", "from", "by", "with")
    + ("and", "so", "that", "this", "there", "it", "he", "she", "they", "has", "have", "had", "will", "each", "her")
)
_FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]")
_TYPOS = {1: 0.25, 2: 0.4, 3: 0.4}  # share of the words that get a typo
_MISSING = {1: 0.0, 2: 0.5, 3: 0.5}  # share of the function words that go
MIN_WORDS = 6  # a solution of fewer words, formulas aside, is too short to garble


def garbled_language(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Garble the words of every step: 1 typos, 2 more of them and little words missing, 3 in random order as well."""
    lines = [plain(line) for line in source.rationale.lines]
    if sum(_is_word(token) for line in lines for token in _tokens(line)) < MIN_WORDS:
        return None
    garbled = [_garble(line, degree, rng) for line in lines]
    if garbled == lines:
        return None
    return Damaged(
        tuple(garbled), source.rationale.final, ("typos", "typos, words missing", "words shuffled")[degree - 1]
    )


def _garble(line: str, degree: int, rng: random.Random) -> str:
    kept = [token for token in _tokens(line) if not (_is_function_word(token) and rng.random() < _MISSING[degree])]
    places = [i for i, token in enumerate(kept) if _is_word(token)]
    words = [_typo(kept[i], rng) if rng.random() < _TYPOS[degree] else kept[i] for i in places]
    if degree == 3:
        rng.shuffle(words)
    for place, word in zip(places, words, strict=True):
        kept[place] = word
    return " ".join(kept)


def _typo(word: str, rng: random.Random) -> str:
    """Swap, drop or double a letter inside a word; its first letter stays."""
    letters = re.sub(r"\W", "", word)
    if len(letters) < 3:
        return word
    at = rng.randrange(1, len(letters) - 1)
    change = rng.choice(("swap", "drop", "double"))
    if change == "swap" and letters[at] != letters[at + 1]:
        garbled = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
    elif change == "drop":
        garbled = letters[:at] + letters[at + 1 :]
    else:
        garbled = letters[: at + 1] + letters[at:]
    return garbled + word[len(letters) :]


def _tokens(line: str) -> list[str]:
    """Split a line at white space, formulas whole."""
    formulas = iter(_FORMULA.findall(line) if "\\" in line else [])
    text = _FORMULA.sub("\0", line) if "\\" in line else line
    return [re.sub("\0", lambda _: next(formulas), token) for token in text.split()]


def _is_word(token: str) -> bool:
    return bool(_WORD.fullmatch(token))


def _is_function_word(token: str) -> bool:
    return token.lower() in _FUNCTION_WORDS
