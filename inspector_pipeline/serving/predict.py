"""`POST /predict` and `POST /`: requests and answers as text-embeddings-inference and `text-classification` have them.

A client of a classifier sends `inputs` and gets labels with scores. Here a label is an aspect, and its score the
expected score, from 0, the aspect's lowest class, to 1, its highest; with `raw_scores` it is the expected score itself.
Labels stand as those clients expect them, the highest first.

    {"inputs": ["question", "response"]}                          -> [{"label": ..., "score": ...}, ...]
    {"inputs": {"text": "question", "text_pair": "response"}}     -> the same
    {"inputs": [["question", "response"], [...]]}                 -> a list of such lists, one for each pair
    {"inputs": [{"text": ..., "text_pair": ...}, ...]}            -> the same

A judge that reads the question alone takes a text in the place of a pair: "question", and for several of them
[["question"], [...]] or ["question", ...]. At `/`, where huggingface_hub's InferenceClient asks, the answer to one pair
is a list of one list, as that client expects it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import PairError
from ..files.entries import Row
from .schemas import QUESTION, RESPONSE

EXPECTED = 'inputs expects ["question", "response"], {"text": ..., "text_pair": ...}, or a list of such pairs'


class TextPair(BaseModel):
    """A question and its response, as `text-classification` calls them."""

    model_config = ConfigDict(strict=True)
    text: str
    text_pair: str | None = None


class Parameters(BaseModel):
    """What clients of `text-classification` ask for; further keys are ignored."""

    function_to_apply: Literal["none"] | None = Field(
        None, description="none gives expected scores as raw_scores does; a judge has no logits for another function"
    )
    top_k: int | None = Field(None, ge=1, description="How many labels to give, the highest first; null is all")


class PredictRequest(BaseModel):
    """What to score; further keys, such as truncation_direction, are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"inputs": [QUESTION, RESPONSE]},
                {"inputs": [[QUESTION, RESPONSE], [QUESTION, "42"]], "raw_scores": True},
                {"inputs": {"text": QUESTION, "text_pair": RESPONSE}, "parameters": {"top_k": 1}},
            ]
        },
    )
    inputs: str | TextPair | list[str] | list[list[str]] | list[TextPair | str] = Field(description=EXPECTED)
    raw_scores: bool = Field(False, description="Whether scores are the expected ones, and not between 0 and 1")
    truncate: bool | None = Field(
        None, description="false refuses pairs longer than the judge's limit; they are cut otherwise"
    )
    parameters: Parameters | None = None

    @property
    def is_raw(self) -> bool:
        """Whether scores are wanted as expected."""
        return self.raw_scores or (self.parameters is not None and self.parameters.function_to_apply == "none")


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


def check_untruncated(request: PredictRequest, results: Sequence[Row], max_length: int) -> None:
    """Refuse pairs that were cut where the request says that none may be.

    Raises:
        PairError: There is one.
    """
    cut = [index for index, result in enumerate(results) if result["truncated"]]
    if request.truncate is False and cut:
        raise PairError(
            f"inputs expects pairs of at most {max_length} tokens, but pair {cut[0]} is longer. Send truncate: true."
        )


def predictions(
    result: Row, bounds: Mapping[str, tuple[float, float] | None], request: PredictRequest
) -> list[dict[str, Any]]:
    """Return a pair's labels with their scores, the highest first.

    Args:
        result: The judge's.
        bounds: Aspect -> its lowest and its highest class; None for a preference, whose probability is taken.
        request: Says how many, and whether scores are those expected, and not between 0 and 1.
    """
    most = request.parameters.top_k if request.parameters is not None else None
    found = []
    for name, expected in result["expected"].items():
        own = bounds[name]
        share = (
            [*result["probabilities"][name].values()][-1] if own is None else (expected - own[0]) / (own[1] - own[0])
        )
        found.append({"label": name, "score": expected if request.is_raw else share})
    return sorted(found, key=lambda one: -one["score"])[:most]


def _pair(item: Any, alone: bool) -> Row:
    texts = [item] if isinstance(item, str) else [item.text, item.text_pair] if isinstance(item, TextPair) else item
    texts = [text for text in texts if text is not None]
    if len(texts) != (1 if alone else 2):
        given = "one text" if len(texts) == 1 else f"{len(texts)} texts"
        reads = "a question alone: one text each" if alone else "a question and its response: two texts each"
        raise PairError(f"{EXPECTED}, but got {given} for a pair. This judge reads {reads}.")
    return dict(zip(("question", "prediction"), texts, strict=False))
