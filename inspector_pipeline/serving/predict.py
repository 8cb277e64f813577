"""`POST /predict`: requests and answers as text-embeddings-inference and `text-classification` have them.

A client of a classifier sends `inputs` and gets labels with scores. Here a label is an aspect, and its score the
expected score, from 0, the aspect's lowest class, to 1, its highest; with `raw_scores` it is the expected score itself.
Labels stand as those clients expect them, the highest first.

    {"inputs": ["question", "response"]}                          -> [{"label": ..., "score": ...}, ...]
    {"inputs": {"text": "question", "text_pair": "response"}}     -> the same
    {"inputs": [["question", "response"], [...]]}                 -> a list of such lists, one for each pair
    {"inputs": [{"text": ..., "text_pair": ...}, ...]}            -> the same

A judge that reads the question alone takes a text in the place of a pair.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import PairError
from ..files.entries import Row

EXPECTED = 'inputs expects ["question", "response"], {"text": ..., "text_pair": ...}, or a list of such pairs'


class TextPair(BaseModel):
    """A question and its response, as `text-classification` calls them."""

    model_config = ConfigDict(strict=True)
    text: str
    text_pair: str | None = None


class PredictRequest(BaseModel):
    """What to score; other keys (truncate, parameters, ...) are taken and ignored, since a judge cuts and says so."""

    model_config = ConfigDict(extra="ignore")
    inputs: str | TextPair | list[str] | list[list[str]] | list[TextPair | str] = Field(description=EXPECTED)
    raw_scores: bool = False


class Prediction(BaseModel):
    """An aspect with its score."""

    label: str
    score: float


def pairs_of(inputs: Any, keys: Sequence[str]) -> tuple[list[Row], bool]:
    """Read a request's pairs.

    Args:
        inputs: The request's.
        keys: The texts that a pair needs.

    Returns:
        The pairs, and whether they came as a list.

    Raises:
        PairError: There is none, or one has another number of texts.
    """
    alone = "prediction" not in keys
    if not inputs:
        raise PairError(f"{EXPECTED}, but got none.")
    if isinstance(inputs, (str, TextPair)):
        return [_pair(inputs, alone)], False
    if not alone and inputs and all(isinstance(one, str) for one in inputs):
        return [_pair(inputs, alone)], False  # the two texts of one pair
    return [_pair(one, alone) for one in inputs], True


def predictions(result: Row, bounds: Mapping[str, tuple[float, float] | None], raw: bool) -> list[dict[str, Any]]:
    """Return a pair's labels with their scores, the highest first.

    Args:
        result: The judge's.
        bounds: Aspect -> its lowest and its highest class; None for a preference, whose probability is taken.
        raw: Whether scores are those expected, and not between 0 and 1.
    """
    found = []
    for name, expected in result["expected"].items():
        own = bounds[name]
        share = (
            [*result["probabilities"][name].values()][-1] if own is None else (expected - own[0]) / (own[1] - own[0])
        )
        found.append({"label": name, "score": expected if raw else share})
    return sorted(found, key=lambda one: -one["score"])


def _pair(item: Any, alone: bool) -> Row:
    texts = [item] if isinstance(item, str) else [item.text, item.text_pair] if isinstance(item, TextPair) else item
    texts = [text for text in texts if text is not None]
    if len(texts) != (1 if alone else 2):
        raise PairError(f"{EXPECTED}{' of a text each' if alone else ''}, but got {len(texts)} texts in one.")
    return dict(zip(("question", "prediction"), texts, strict=False))
