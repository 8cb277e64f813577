"""Baselines that read what stands beside a pair: words that it shares with its context, its answer against a reference.

They stand beside judges whose readings hold a context or a reference: what anybody would try first.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from math_verify import parse as parse_math
from math_verify import verify
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ...rows.answers import as_number, find_numbers, last_boxed, mentions
from ...rows.correctness import TIMEOUT
from ...rows.records import LabelledPair
from ..metrics import Predictions
from .fitting import Baseline, fitted_both, predictions_of

_WORD = re.compile(r"\w+")
_STATED = re.compile(r"\banswer is:?\s*(\S.*?)(?:[.,](?=\s|$)|\n|$)", re.IGNORECASE)
LONG_WORD = 5  # letters; shorter ones stand in any text
LAST = 2  # numbers of a response that are compared with the reference


@dataclass(frozen=True)
class Overlap:
    """Shares of words, word pairs and numbers that the response has from its context, and where its reference stands.

    With squares and products, in L2-regularised logistic regressions, as `Length` has them; the lengths of response and
    context are among the features, so that this baseline knows what `Length` knows of the response.
    """

    name: str = "overlap"
    description: str = "logistic regressions on the words and numbers that the response shares with what stands beside"

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says."""
        train, test = (
            np.array([overlap(p.prediction, p.context or "", p.reference or "") for p in own])
            for own in (train_pairs, test_pairs)
        )
        squares = PolynomialFeatures(2, include_bias=False)
        model = make_pipeline(StandardScaler(), squares, LogisticRegression(C=0.1, max_iter=2000))
        return predictions_of(*fitted_both(model, train, train_scores, test, classes), classes)


class _AgainstReference:
    """Gives a response the best score where a rule finds its reference in it, else the worst; nothing is fitted."""

    def holds(self, response: str, reference: str) -> bool:
        """Whether the rule finds it."""
        raise NotImplementedError

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says; nothing is learnt of the pairs to fit on, and P(good) is not said."""
        found = np.array([self.holds(pair.prediction, pair.reference or "") for pair in test_pairs], dtype=np.float64)
        score = np.where(found > 0, max(classes), min(classes))
        return Predictions(score.astype(np.float64), found, np.full(len(found), np.nan), score)


@dataclass(frozen=True)
class ExactMatch(_AgainstReference):
    """The answer that a response writes is, as text, its reference."""

    name: str = "exact_match"
    description: str = "whether the written final answer is the reference, letter by letter; nothing is fitted"

    def holds(self, response: str, reference: str) -> bool:
        """Whether it is."""
        return exactly_matches(response, reference)


@dataclass(frozen=True)
class MathVerify(_AgainstReference):
    """Math-verify, left to itself, finds its reference in a response."""

    name: str = "math_verify"
    description: str = "whether math-verify takes the response for equal to the reference; nothing is fitted"

    def holds(self, response: str, reference: str) -> bool:
        """Whether it does."""
        return verified(response, reference)


@lru_cache(maxsize=100_000)
def exactly_matches(response: str, reference: str) -> bool:
    """Whether what a response writes as its answer is the reference, letter by letter, white space, $ and commas aside.

    That is what stands in its last box, else after its last "answer is", else its last number.
    """
    numbers = find_numbers(response)
    last = response[numbers[-1].start : numbers[-1].end] if numbers else ""
    written = last_boxed(response) or next(reversed(_STATED.findall(response)), last)
    return bool(written) and _plain(written) == _plain(reference)


def _plain(text: str) -> str:
    return re.sub(r"[\s$,*]", "", text).rstrip(".")


@lru_cache(maxsize=100_000)
def verified(response: str, reference: str) -> bool:
    """Whether math-verify takes a response for equal to a reference; it looks for the answer by itself."""
    wanted = f"${reference}$" if "\\" in reference else reference
    parsed = [parse_math(text, parsing_timeout=TIMEOUT) for text in (wanted, response)]
    return bool(all(parsed) and verify(*parsed, timeout_seconds=TIMEOUT))


@lru_cache(maxsize=100_000)
def overlap(response: str, context: str, reference: str) -> tuple[float, ...]:
    """Count what a response shares with what stands beside it; all 0 for what does not stand there.

    Args:
        response: The response.
        context: What it should rest on.
        reference: A right answer.

    Returns:
        Logarithms of the words of response and context; shares of the response's words, long words, pairs of words and
        numbers that are the context's, of the context's words that are the response's, and of the response in the
        longest run of words that it has from there; whether the reference, a number, stands in the response, and
        whether each of its last two numbers is it.
    """
    said, given = (_WORD.findall(text.lower()) for text in (response, context))
    run = longest_run(said, given)
    return (
        float(np.log1p(len(said))),
        float(np.log1p(len(given))),
        _share(said, given),
        _share([word for word in said if len(word) >= LONG_WORD], given),
        _share(zip(said, said[1:], strict=False), zip(given, given[1:], strict=False)),
        _share([word for word in said if word.isdigit()], given),
        _share(given, said),
        run / max(1, len(said)),
        *_reference_places(response, reference),
    )


def _reference_places(response: str, reference: str) -> list[float]:
    value = as_number(reference) if reference else None
    if value is None:
        return [float(bool(reference) and reference in response), *[0.0] * LAST]
    last = [number.value for number in find_numbers(response)][-LAST:]
    return [float(mentions(response, value)), *(float(one == value) for one in [*[None] * LAST, *last][-LAST:])]


def _share(own: Iterable[Any], other: Iterable[Any]) -> float:
    """Share of what is in one text that is also in another; 0 where there is nothing."""
    items, known = list(own), set(other)
    return sum(item in known for item in items) / max(1, len(items))


def longest_run(said: Sequence[str], given: Sequence[str]) -> int:
    """Count the words of the longest run that two texts share.

    Example:
        >>> longest_run("the cat sat down".split(), "a cat sat there".split())
        2
    """
    longest, ends = 0, [0] * (len(given) + 1)
    for word in said:
        ends = [0, *(before + 1 if word == other else 0 for other, before in zip(given, ends, strict=False))]
        longest = max(longest, *ends)
    return longest


def beside_baselines(slots: Iterable[str]) -> tuple[Baseline, ...]:
    """Choose the baselines of what a judge's readings hold beside a pair.

    Args:
        slots: Of the readings: context, reference, both or none.
    """
    held = set(slots)
    against: tuple[Baseline, ...] = (ExactMatch(), MathVerify()) if "reference" in held else ()
    return (Overlap(), *against) if held else ()
