"""Whether a pair is like those that a judge was fitted on, and whether its question was among theirs.

A pair is unfamiliar where a plain statistic of its texts is out of its bounds, or where its hidden states lie further
from those of the fit's rows than a threshold. Both are set on rows that were held out (training/probing/familiarity.py)
and ship with the judge. Texts are measured when a pair is encoded, before truncation, and hidden states are those that
the judge reads anyway, so that neither costs a pass.
"""

import hashlib
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .errors import JudgeConfigError

Bounds = tuple[float | None, float | None]  # lowest and highest; None where there is none

# What is measured of a pair's texts -> how a reason names it. Lengths are in characters, all else are shares.
STATISTICS = {
    "characters": "the response has {}",
    "digits": "{} of the response's characters are digits",
    "letters": "{} of the response's characters are letters",
    "copied": "{} of the response repeats the question",
    "mentioned": "{} of the question's numbers and longer words stand in the response",
    "repeated": "{} of the response repeats itself",
    "new_words": "{} of the response's words are new",
    "question_characters": "the question has {}",
    "question_digits": "{} of the question's characters are digits",
    "question_new_words": "{} of the question's words are new",
}
LONGER = 5  # letters of a word that a response may be expected to take up
MEASURED_CHARACTERS = 100_000  # of a text, from its beginning; longer ones would take seconds and gigabytes
RUN = 4  # how many words in a row count as repeated

_WORD = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
_WORD_OR_NUMBER = re.compile(r"[^\W_]+")


def normal_text(text: str) -> str:
    """Collapse white space."""
    return " ".join(text.split())


def question_digest(question: str) -> bytes:
    """Return the sha256 of a question's text, white space and case aside."""
    return hashlib.sha256(normal_text(question).lower().encode("utf-8", "surrogatepass")).digest()


def question_number(question: str) -> int:
    """Name a question by the first 8 bytes of its digest, as an int64."""
    return int.from_bytes(question_digest(question)[:8], "big", signed=True)


def words_of(text: str) -> list[str]:
    """Return the words of a text, runs of letters, in lower case."""
    return _WORD.findall(text.lower())


def word_number(word: str) -> int:
    """Name a word by its crc32."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def text_statistics(question: str, response: str, known_words: Collection[int]) -> dict[str, float]:
    """Measure a pair's texts.

    Args:
        question: The question.
        response: The response; empty where a judge reads questions alone, and then not measured.
        known_words: Numbers of the words that are not new.

    Returns:
        Values of `STATISTICS`. Characters are counted without the white space around the text; all else is of its
        first `MEASURED_CHARACTERS`, where it is longer. Shares of characters are of those that are no white space. What
        repeats is a run of `RUN` words or numbers, or of all where the response has fewer; a response's word is new
        where the question does not hold it either.
    """
    lengths = [float(len(text.strip())) for text in (question, response)]
    question, response = question[:MEASURED_CHARACTERS], response[:MEASURED_CHARACTERS]
    asked = words_of(question)
    found = {
        "question_characters": lengths[0],
        "question_digits": _share_of_characters(_DIGITS.findall(question), question),
        "question_new_words": _share(word_number(word) not in known_words for word in asked),
    }
    if not response:
        return found
    words, in_question = words_of(response), frozenset(asked)
    answered, in_order = (_WORD_OR_NUMBER.findall(text.lower()) for text in (response, question))
    size = max(1, min(RUN, len(answered)))
    runs, runs_of_question = _runs(answered, size), frozenset(_runs(in_order, size))
    named = {word for word in in_order if len(word) >= LONGER or word.isdecimal()}
    if named:
        found["mentioned"] = len(named.intersection(answered)) / len(named)
    return {
        "characters": lengths[1],
        "digits": _share_of_characters(_DIGITS.findall(response), response),
        "letters": _share_of_characters(words, response),
        "copied": _share(run in runs_of_question for run in runs),
        "repeated": 1 - len(set(runs)) / len(runs) if runs else 0.0,
        "new_words": _share(word not in in_question and word_number(word) not in known_words for word in words),
        **found,
    }


def _share(holds: Iterable[bool]) -> float:
    values = list(holds)
    return sum(values) / len(values) if values else 0.0


def _share_of_characters(parts: list[str], text: str) -> float:
    n = sum(map(len, text.split()))
    return min(1.0, sum(map(len, parts)) / n) if n else 0.0


def _runs(words: list[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(size)), strict=False))


class PairFacts(NamedTuple):
    """What is known of a pair from its texts.

    Attributes:
        statistics: Values of `STATISTICS`; None where the judge has no bounds for them.
        seen: Whether the judge was fitted on this question; None where it does not say which it was fitted on.
    """

    statistics: dict[str, float] | None
    seen: bool | None


@dataclass(frozen=True)
class FactFinder:
    """Finds out what a judge wants to know of texts; can be sent to worker processes.

    Attributes:
        words: Numbers of the words that are not new; None where the judge has no bounds for statistics.
        questions: Numbers of the questions that it was fitted on; None where it does not say.
    """

    words: frozenset[int] | None
    questions: frozenset[int] | None

    def __call__(self, question: str, response: str) -> PairFacts:
        """Measure a pair's texts; the response is empty where the judge reads questions alone."""
        seen = None if self.questions is None else question_number(question) in self.questions
        return PairFacts(None if self.words is None else text_statistics(question, response, self.words), seen)


class Familiarity(nn.Module):
    """Where the hidden states of the fit's rows lie, and which words they hold.

    With x a pair's features, u = (x - center) / scale and z = u @ basis, the distance is the mean of two parts, each
    about 1 at a row of the fit: mean((z / deviation)^2) inside the subspace of the basis, whose columns are
    orthonormal, and (|u|^2 - |z|^2) / residual outside of it.

    Args:
        size: Numbers of all its features together.
        n_components: Columns of the basis.
        n_words: How many words are not new.
    """

    center: Tensor
    scale: Tensor
    basis: Tensor
    deviation: Tensor
    residual: Tensor
    words: Tensor

    def __init__(self, size: int, n_components: int, n_words: int) -> None:
        """Make the tensors, zero until loaded: float32 ones, and the words' numbers as int64, ascending."""
        super().__init__()
        shapes = {"center": (size,), "scale": (size,), "basis": (size, n_components), "deviation": (n_components,)}
        for name, shape in {**shapes, "residual": (1,)}.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("words", torch.zeros(n_words, dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        """Measure how far pairs lie from the fit's rows.

        Args:
            features: float32 (batch, features, hidden), in the config's order.

        Returns:
            float32 (batch,).
        """
        with torch.autocast(features.device.type, enabled=False):
            u = (features.flatten(1) - self.center) / self.scale
            z = u @ self.basis
            inside = (z / self.deviation).square().mean(dim=1)
            outside = (u.square().sum(dim=1) - z.square().sum(dim=1)).clamp_min(0) / self.residual
            return (inside + outside) / 2


def check_fitted_on(named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse tensors by which no pair could honestly be called familiar or seen.

    Raises:
        JudgeConfigError: One is not finite, not above 0 where it must be, or not in order.
    """
    for name, tensor in named:
        if tensor.device.type == "meta":
            continue
        if not tensor.isfinite().all():
            raise JudgeConfigError(f"A judge expects finite weights, but {name} has NaN or infinite values.")
        if name.endswith((".scale", ".deviation", ".residual")) and (tensor <= 0).any():
            raise JudgeConfigError(f"A judge expects {name} above 0, but its least is {tensor.min().item():g}.")
        if name.endswith(("words", "questions")) and (tensor.diff() <= 0).any():
            raise JudgeConfigError(f"A judge expects {name} ascending, each once, but they are not. Save it again.")


def why_unfamiliar(
    text: Mapping[str, Bounds], threshold: float, statistics: Mapping[str, float] | None, distance: float | None
) -> str | None:
    """Say in a few words why a pair is unlike those that a judge was fitted on; None where it is not.

    Args:
        text: Bounds of the texts' statistics.
        threshold: The largest familiar distance.
        statistics: The pair's, where its texts are known.
        distance: That of its hidden states, where it was measured.
    """
    for name, (low, high) in text.items():
        value = (statistics or {}).get(name)
        if value is None or (low is None or value >= low) and (high is None or value <= high):
            continue
        bound, side = (low, "at least") if low is not None and value < low else (high, "at most")
        limit = _shown(name, bound or 0.0)
        return f"{STATISTICS[name].format(_shown(name, value))}; {side} {limit} in what it was fitted on"
    if distance is not None and distance > threshold:
        return f"its hidden states are unlike what it was fitted on (distance {distance:.3g}; at most {threshold:.3g})"
    return None


def _shown(name: str, value: float) -> str:
    if "characters" in name:
        return f"{value:,.0f} character{'s' * (value != 1)}"
    return f"{100 * value:.3g} %"
