"""How the audit reads texts, how alike two of them are, and which pairs of many are worth a look.

Words are cut to their stems, and numbers read by their value.

Candidates share rare words, word pairs or runs of four letters; they are found with a sparse product, in which what
stands in many texts takes no part, so that the work stays nearly linear. The comparison then looks at all of both
texts: runs of three letters of every word, weighted by rarity, without regard to order; and the numbers.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

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
CANDIDATE_COSINE = 0.25  # of the rare shingles
COMMON_COUNT = 100  # a shingle in more texts than this, and than COMMON_SHARE of them, finds no candidates
COMMON_SHARE = 0.01
CHUNK = 512  # rows of one sparse product
PAIR_CHUNK = 4096

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Likeness:
    """How alike the texts of each pair are; every array is (pairs,), 0 to 1.

    Attributes:
        dice: Shared weight over the mean weight of both.
        contained: Shared weight over the lighter one's.
        ratio: The lighter one's weight over the heavier one's.
        numbers: Dice of the numbers, or of the runs in the string of all digits, whichever is more: numbers may move,
            and stripped punctuation may join them. 1 where neither text has any.
        numbers_contained: Share of the numbers of the text with fewer that the other has too.
    """

    dice: NDArray[np.float64]
    contained: NDArray[np.float64]
    ratio: NDArray[np.float64]
    numbers: NDArray[np.float64]
    numbers_contained: NDArray[np.float64]


def candidate_pairs(texts: Sequence[str], first: int | None = None) -> Pairs:
    """Find pairs of texts that share a good part of their rare shingles.

    Args:
        texts: Distinct texts.
        first: If given, only pairs of one of the first so many texts with one of the rest.

    Returns:
        Indices (later, earlier) of each pair.
    """
    shingles = _counts(texts, _shingles, min_df=2)
    if shingles is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    shingles.data[:] = 1
    spread = np.asarray(shingles.sum(axis=0)).ravel()
    common = spread > max(COMMON_COUNT, COMMON_SHARE * len(texts))
    weighted = sparse.csr_matrix(shingles @ sparse.diags(np.where(common, 0, np.log((len(texts) + 1) / spread))))
    weighted.eliminate_zeros()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    unit = sparse.csr_matrix(sparse.diags(1 / np.where(length > 0, length, 1)) @ weighted)
    others = unit[:first].T.tocsr() if first is not None else unit.T.tocsr()
    later, earlier = [], []
    for start in range(first or 0, len(texts), CHUNK):
        cosines = sparse.coo_matrix(unit[start : start + CHUNK] @ others)
        kept = (cosines.data >= CANDIDATE_COSINE) & (cosines.col < cosines.row + start)
        later.append(cosines.row[kept].astype(np.int64) + start)
        earlier.append(cosines.col[kept].astype(np.int64))
    return np.concatenate(later or [np.zeros(0, np.int64)]), np.concatenate(earlier or [np.zeros(0, np.int64)])


def compare(texts: Sequence[str], pairs: Pairs) -> Likeness:
    """Compare the texts of each pair."""
    letters = _counts(texts, _trigrams)
    values = _counts(texts, numbers)
    streams = _counts(texts, _digit_runs)
    if letters is not None:
        spread = np.bincount(letters.indices, minlength=letters.shape[1])
        letters = sparse.csr_matrix(letters @ sparse.diags(np.log((len(texts) + 1) / spread)))
    dice, contained, ratio = _overlap(letters, pairs)
    number_dice, numbers_contained, _ = _overlap(values, pairs)
    number_dice = np.maximum(number_dice, _overlap(streams, pairs)[0])
    same = _same(texts, pairs)
    return Likeness(*(np.where(same, 1.0, f) for f in (dice, contained, ratio, number_dice, numbers_contained)))


def _same(texts: Sequence[str], pairs: Pairs) -> NDArray[np.bool_]:
    """Whether texts are one letter for letter; signs that differ make them two, signs that one has lost do not."""
    forms = [squashed(text) for text in texts]
    letters = [forms[a][0] == forms[b][0] for a, b in zip(*pairs, strict=True)]
    signs = [not forms[a][1] or not forms[b][1] or forms[a][1] == forms[b][1] for a, b in zip(*pairs, strict=True)]
    same: NDArray[np.bool_] = np.array(letters, dtype=bool) & np.array(signs, dtype=bool)
    return same


def _overlap(counts: sparse.csr_matrix | None, pairs: Pairs) -> tuple[NDArray[np.float64], ...]:
    """Return Dice, containment and ratio of the rows of each pair; 1 where both are empty."""
    ones = np.ones(len(pairs[0]))
    if counts is None or not len(ones):
        return ones, ones, ones
    weights = np.asarray(counts.sum(axis=1)).ravel()
    shared = np.concatenate(
        [
            np.asarray(counts[a].minimum(counts[b]).sum(axis=1)).ravel()
            for a, b in zip(_chunks(pairs[0]), _chunks(pairs[1]), strict=True)
        ]
    )
    light, heavy = np.minimum(weights[pairs[0]], weights[pairs[1]]), np.maximum(weights[pairs[0]], weights[pairs[1]])
    dice = np.divide(2 * shared, light + heavy, out=ones.copy(), where=heavy > 0)
    contained = np.divide(shared, light, out=ones.copy(), where=light > 0)
    return dice, contained, np.divide(light, heavy, out=ones.copy(), where=heavy > 0)


def _chunks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [indices[start : start + PAIR_CHUNK] for start in range(0, len(indices), PAIR_CHUNK)]


def _counts(texts: Sequence[str], analyzer: Callable[[str], list[str]], min_df: int = 1) -> sparse.csr_matrix | None:
    """Count what an analyzer finds in each text; None where it finds nothing in any."""
    found = [analyzer(text) for text in texts]
    if not any(found):
        return None
    counts = sparse.csr_matrix(CountVectorizer(analyzer=list, dtype=np.float64).fit_transform(found))
    if min_df > 1:
        counts = counts[:, np.bincount(counts.indices, minlength=counts.shape[1]) >= min_df]
    return sparse.csr_matrix(counts) if counts.shape[1] else None


def _shingles(text: str) -> list[str]:
    words = tokens(text)
    pairs = [f"{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    return sorted({*words, *pairs, *(f"~{run}" for word in words for run in _runs(word, 4))})


def _trigrams(text: str) -> list[str]:
    return [run for word in plain(text).split() for run in _runs(word, 3)]


def _digit_runs(text: str) -> list[str]:
    stream = number_stream(text)
    return _runs(stream, 4) if stream else []


def _runs(word: str, length: int) -> list[str]:
    padded = f" {word} "
    return [padded[i : i + length] for i in range(max(1, len(padded) - length + 1))]


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
    ending = next((e for e in ENDINGS if token.endswith(e) and len(token) - len(e) >= MIN_STEM), "")
    token = token.removesuffix(ending)
    return token[:-1] if len(token) > MIN_STEM and token[-1] in "ey" else token
