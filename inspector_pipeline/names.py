"""What columns of a pair's texts are usually called, how a value is found in a row, and what a row is read as."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Row = dict[str, Any]

QUESTION, PREDICTION, REFERENCE, CONTEXT = "question", "prediction", "reference", "context"
MESSAGES, CHOSEN, REJECTED = "messages", "chosen", "rejected"
SYSTEM, HISTORY = "system", "history"
QUESTION_TURNS = "question_turns"  # of a pair: its question as a conversation
PAIR = (QUESTION, PREDICTION)
OPTIONAL = (REFERENCE, CONTEXT)
COLUMN_KEYS = (*PAIR, *OPTIONAL, MESSAGES, CHOSEN, REJECTED)
NAMES: dict[str, tuple[str, ...]] = {  # as they are usual; the first one, where it is there, is what is meant
    QUESTION: (
        QUESTION,
        "prompt",
        "instruction",
        "query",
        "problem",
        "input",
        "user_input",
        "user_prompt",
        "user_query",
    ),
    PREDICTION: (
        *(PREDICTION, "response", "output", "answer", "completion", "generation", "reply", "generated_text"),
        *("model_output", "model_answer", "model_response", "generated_answer", "llm_output"),
    ),
    REFERENCE: (
        *(REFERENCE, "reference_answer", "ground_truth", "gold_answer", "gold", "expected_output", "expected_answer"),
        *("correct_answer", "target", "ideal"),
    ),
    CONTEXT: (CONTEXT, "contexts", "retrieved_contexts", "passage", "passages", "document", "documents", "source_text"),
    MESSAGES: (MESSAGES, "conversations", "conversation", "dialog", "dialogue", "chat"),
    CHOSEN: (CHOSEN,),
    REJECTED: (REJECTED,),
    SYSTEM: (SYSTEM, "system_prompt", "system_message"),
    HISTORY: (HISTORY,),
}


def normal(name: str) -> str:
    """Return a column's name as it is compared: without capitals, and one `_` for spaces, hyphens and dots."""
    return re.sub(r"[\s\-_]+", "_", name.strip().lower()) if isinstance(name, str) else ""


def has(row: Mapping[str, Any], path: str) -> bool:
    """Say whether a row has a column, or a place within one."""
    return path in row or value_at(row, path) is not None


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Return a row's value by a column's name, or by a path into objects and lists, as `choices.0.text`."""
    if path in row:
        return row[path]
    value: Any = row
    for key in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def opened_json(value: Any) -> Any:
    """Return the turns that a text holds as JSON, as prompts of logs and cells of tables do; else the value itself."""
    if isinstance(value, str) and value[:9].lstrip().startswith("[{") and value[-9:].rstrip().endswith("]"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


class Read(NamedTuple):
    """A pair of a row.

    Attributes:
        pair: What a judge reads.
        row: What stands beside its scores: the row's own columns, with `question` and `prediction` as they were read.
    """

    pair: Row
    row: Row


class Layout(NamedTuple):
    """What was taken for what.

    Attributes:
        told: It, in words; None where the columns are called as a pair's texts.
        plain: Text -> column, where each is the text of one column, and rows stay as they are; else None.
        read: Reads a row as (pair, part of the row or None); none where rows are plain.
        used: Columns that are not kept beside what was read from them.
        base: Gives the columns that are kept.
    """

    told: str | None
    plain: dict[str, str] | None
    read: Callable[[Row], list[tuple[Row, Any]]] | None = None
    used: tuple[str, ...] = ()
    base: Callable[[Row], Row] = dict


def as_text(value: Any) -> Any:
    """Return a reference or a context as text: passages of a list one after the other, a number as it is written."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
        return "\n\n".join(value)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
