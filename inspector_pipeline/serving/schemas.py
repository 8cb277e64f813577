"""What requests for scores hold, and what answers hold."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..pairs import PAIR_KEYS, QUESTION_KEYS
from ..rows import SAMPLE_ROWS, RowReader

QUESTION = "What is 6 x 7?"
RESPONSE = "6 x 7 = 42. The answer is 42."
ROW = {
    "type": "object",
    "title": "Row",
    "description": "A row as another tool writes it, with one response: messages, or what columns names.",
    "additionalProperties": True,
}


def _or_rows(schema: dict[str, Any]) -> None:
    """Say that a list takes rows of other tools too, which are read as pairs before the rest is checked."""
    schema["items"] = {"anyOf": [schema["items"], ROW]}


OF_PAIRS: dict[str, Any] = {"min_length": 1, "fail_fast": True, "json_schema_extra": _or_rows}


class Turn(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(strict=True)
    role: str
    content: str


class Question(BaseModel):
    """A question alone; further keys are ignored."""

    model_config = ConfigDict(strict=True)
    question: str
    question_turns: list[Turn] | None = None
    reference: str | None = None
    context: str | None = None


class Pair(Question):
    """A question with one response."""

    prediction: str


class QuestionsRequest(BaseModel):
    """Questions to score, for a judge that reads no response; see `ScoreRequest`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pairs": [{"question": QUESTION}]}]})
    pairs: Annotated[list[Question], Field(**OF_PAIRS)]
    columns: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        """Read rows as pairs."""
        return _as_pairs(data, QUESTION_KEYS)


class ScoreRequest(BaseModel):
    """Pairs to score, or rows as other tools write them, such as `messages`, with one response each.

    `columns` says which of their columns hold the texts where names do not: `{"question": "q", "prediction": "a"}`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pairs": [{"question": QUESTION, "prediction": RESPONSE}]},
                {"pairs": [{"q": QUESTION, "a": RESPONSE}], "columns": {"question": "q", "prediction": "a"}},
            ]
        }
    )
    pairs: Annotated[list[Pair], Field(**OF_PAIRS)]
    columns: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        """Read rows as pairs."""
        return _as_pairs(data, PAIR_KEYS)


def _as_pairs(data: Any, keys: tuple[str, ...]) -> Any:
    """Read a request's rows; what is none, or holds pairs already, stays as it is."""
    rows = data.get("pairs") if isinstance(data, dict) else None
    columns = data.get("columns") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return data
    if columns is not None and not (
        isinstance(columns, dict) and all(isinstance(one, str) for one in columns.values())
    ):
        return data
    reader = RowReader(columns, keys, where="The request", further=True, several=False)
    reader.settle(rows[:SAMPLE_ROWS], quiet=True)
    return data if reader.is_as_named else {**data, "pairs": [reader.read(row) for row in rows]}


class Result(BaseModel):
    """What a judge says of a pair; the keys of scores, expected and probabilities are its aspects."""

    scores: dict[str, int | float | str] = Field(description="The most probable level")
    total_score: int | float = Field(description="Sum of the scores that count")
    expected: dict[str, float] = Field(description="The mean level under the probabilities")
    expected_total: float | None = Field(description="Sum of the expected scores that count; null where none does")
    probabilities: dict[str, dict[str, float]] = Field(description="Of each level, written as text")
    truncated: bool = Field(description="Whether the pair was longer than the judge's limit, and was cut")
    unfamiliar: bool | None = Field(description="Whether it is unlike what the judge was fitted on; null: unknown")
    unfamiliar_reason: str | None
    seen: bool | None = Field(description="Whether the judge was fitted on its question; null: unknown")
    score_sets: dict[str, list[int | float | str]] | None = Field(
        None, description="Levels that hold the true one as often as was promised; of calibrated judges alone"
    )


class ScoreResponse(BaseModel):
    """One result a pair, in order."""

    results: list[Result]


class Health(BaseModel):
    """Whether the server serves."""

    status: str = Field(examples=["ok", "failed"])
    waiting: int = Field(description="Pairs that wait or are being scored")


class Ready(BaseModel):
    """Whether requests are taken."""

    ready: bool
