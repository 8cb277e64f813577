"""What columns of a pair's texts are usually called, how a value is found in a row, and what it looks like."""

import json
import re
from collections.abc import Mapping, Sized
from functools import lru_cache
from typing import Any, NamedTuple

Row = dict[str, Any]

QUESTION, PREDICTION, REFERENCE, CONTEXT = "question", "prediction", "reference", "context"
MESSAGES, CHOSEN, REJECTED = "messages", "chosen", "rejected"
SYSTEM, HISTORY = "system", "history"
QUESTION_TURNS = "question_turns"  # of a pair: its question as a conversation
PAIR = (QUESTION, PREDICTION)
OPTIONAL = (REFERENCE, CONTEXT)
COLUMN_KEYS = (*PAIR, *OPTIONAL, MESSAGES, CHOSEN, REJECTED, SYSTEM)
SOURCE_ROW, SOURCE_PART = "source_row", "source_part"  # of a pair from a row with several
SAMPLE_ROWS = 256  # by which it is settled what is what
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
        "inputs",
    ),
    PREDICTION: (
        *(PREDICTION, "response", "output", "answer", "completion", "generation", "reply", "generated_text"),
        *("model_output", "model_answer", "model_response", "generated_answer", "llm_output", "actual_output"),
    ),
    REFERENCE: (
        *(REFERENCE, "reference_answer", "ground_truth", "gold_answer", "gold", "expected_output", "expected_answer"),
        *("correct_answer", "target", "ideal"),
    ),
    CONTEXT: (
        CONTEXT,
        "contexts",
        "retrieved_contexts",
        "retrieval_context",
        "passage",
        "passages",
        "document",
        "documents",
        "source_text",
    ),
    MESSAGES: (MESSAGES, "conversations", "conversation", "dialog", "dialogue", "chat"),
    CHOSEN: (CHOSEN,),
    REJECTED: (REJECTED,),
    SYSTEM: (SYSTEM, "system_prompt", "system_message"),
    HISTORY: (HISTORY,),
}
USER, ASSISTANT, TOOL = "user", "assistant", "tool"
ROLES = {
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("user", "human", "prompter", "customer"), USER),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "ai", "bing", "bard", "function_call"), ASSISTANT),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response"), TOOL),
}
ROLE_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("content", "value", "text")
NO_TEXTS = ("image", "images", "video", "videos", "audio", "audios")  # of which no judge reads anything
TOOLS = ("tools", "functions")
TURNS_AS_JSON = re.compile(r"\s*\[\s*\{")


@lru_cache(maxsize=4096)
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
    """Return the turns that a text holds as JSON, as prompts of logs and cells of tables do; else the value itself.

    Only for what a tool writes so: in the text of a question or a response, roles are text.
    """
    if isinstance(value, str) and TURNS_AS_JSON.match(value) and value[-64:].rstrip().endswith("]"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def opened(name: str, value: Any) -> Any:
    """Return a cell's value; of a column that is called as conversations are, also one that holds turns as JSON."""
    return opened_json(value) if normal(name) in NAMES[MESSAGES] else value


def holds(value: Any) -> bool:
    """Say whether a cell holds anything: no None, NaN, blank text, or empty list or object."""
    if isinstance(value, str):
        return bool(value.strip())
    return len(value) > 0 if isinstance(value, Sized) else value is not None and bool(value == value)


class Read(NamedTuple):
    """A pair of a row.

    Attributes:
        pair: What a judge reads.
        row: What stands beside its scores: the row's own columns, with `question` and `prediction` as they were read.
    """

    pair: Row
    row: Row


def as_text(value: Any) -> Any:
    """Return a reference or a context as text: passages of a list one after the other, a number as it is written."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
        return "\n\n".join(value)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def is_turns(value: Any) -> bool:
    """Say whether a value is a list of turns: objects with a role and a text, or with what stands in a text's place."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) and role_key(one) for one in value)


def role_key(turn: Mapping[str, Any]) -> str | None:
    """Return the key of a turn's role; None where it is no turn."""
    known = (key for key in ROLE_KEYS if isinstance(turn.get(key), str))
    has_text = any(key in turn for key in (*TEXT_KEYS, "tool_calls", "function_call"))
    return next(known, None) if has_text else None


def is_reply(turn: Mapping[str, Any]) -> bool:
    """Say whether a turn is the assistant's."""
    return ROLES.get(str(turn[role_key(turn) or ""]).lower()) == ASSISTANT


def is_turn(value: Any) -> bool:
    """Say whether a value is one turn."""
    return is_turns([value])


def is_asked(value: Any) -> bool:
    """Say whether a value may be a question: a text, or turns."""
    return isinstance(value, str) or is_turns(value)


def is_answer(value: Any) -> bool:
    """Say whether a value may be a response, or several."""
    return isinstance(value, str) or is_turns(value) or is_turn(value) or is_answers(value)


def is_answers(value: Any) -> bool:
    """Whether a value is a list of responses, one of which may be missing."""
    if not isinstance(value, (list, tuple)) or not value or is_turns(value):
        return False
    named = NAMES[PREDICTION]
    return all(
        isinstance(one, (str, type(None))) or is_turns(one) or (isinstance(one, Mapping) and any(map(one.get, named)))
        for one in value
    )
