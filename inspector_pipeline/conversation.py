"""Conversations as chat tools write them, and as a judge reads them.

Turns come as OpenAI's `messages` (role and content, which may be parts), as ShareGPT's `conversations` (from and
value), and as logs of evaluations have them. A judge reads them as `question_turns`: at most one system turn, then the
user's and the assistant's in turn, the user's last; what tools were asked and what they said is text of these. Where
nothing but one user turn comes before the response, the pair is a plain question.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from os.path import commonprefix
from typing import Any

from .errors import PairError
from .names import (
    ASSISTANT,
    CHOSEN,
    NAMES,
    NO_TEXTS,
    PREDICTION,
    QUESTION_TURNS,
    REJECTED,
    ROLES,
    SYSTEM,
    TEXT_KEYS,
    TOOL,
    USER,
    has,
    holds,
    is_turn,
    is_turns,
    opened,
    opened_json,
    role_key,
    value_at,
)

Turn = dict[str, str]

TEXT_PARTS = ("text", "input_text", "output_text")
TEXT_MARKS = re.compile(r"(?:^|\n\n)(Human|Assistant):")
MARKED_PARTS = 5  # of a text with two turns: what is before, and role and text of each
THOUGHTS = ("reasoning", "thinking", "redacted_thinking")  # parts that a reader is not shown


def plain_turns(value: Sequence[Any]) -> list[tuple[str, str]]:
    """Read turns as (role, text), each role one of system, user, assistant and tool.

    Raises:
        PairError: A turn has an unknown role or no text, or holds what no judge reads, such as an image.
    """
    return [_plain_turn(turn, f"Turn {number}") for number, turn in enumerate(value)]


def _plain_turn(turn: Any, where: str) -> tuple[str, str]:
    key = role_key(turn) if isinstance(turn, Mapping) else None
    if key is None:
        raise PairError(f"{where} of a conversation expects a role and a text, but got {turn!r:.80}.")
    role = ROLES.get(turn[key].lower())
    if role is None:
        raise PairError(f"{where} expects a role of {', '.join(dict.fromkeys(ROLES))}, but got {turn[key]!r:.40}.")
    shown = next((name for name in NO_TEXTS if holds(turn.get(name))), None)
    if shown:
        raise PairError(f"{where} holds {shown!r}, of which a judge reads nothing. Leave such rows out.")
    content = next((turn[name] for name in TEXT_KEYS if turn.get(name) is not None), None)
    texts = [text_of(content, where)] if content not in (None, "") else []
    if turn[key] == "function_call":
        texts = [f"Tool call: {text}" for text in texts]
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if not isinstance(calls, (list, tuple)):
        raise PairError(f"{where} expects a list of calls of tools, but got {calls!r:.80}.")
    texts += [_call(call, where) for call in calls]
    text = "\n\n".join(texts)
    if not text.strip():
        raise PairError(f"{where}, the {role}'s, expects text, but has none. Leave such rows out.")
    if role == TOOL:
        name = turn.get("name") or turn.get("function")
        text = f"Tool result{f' ({name})' if isinstance(name, str) else ''}: {text}"
    return role, text


def text_of(content: Any, where: str) -> str:
    """Return a text, which may come in parts.

    Raises:
        PairError: It holds something else than text; the message says what.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise PairError(f"{where} expects text, but got {type(content).__name__}: {content!r:.80}.")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str) or (kind in TEXT_PARTS and isinstance(part.get("text"), str)):
            texts.append(part if isinstance(part, str) else part["text"])
        elif kind not in THOUGHTS:
            held = f"of the type {kind!r}" if kind and kind not in TEXT_PARTS else f"{part!r:.80}"
            raise PairError(f"{where} holds a part {held}, of which a judge reads nothing. Leave such rows out.")
    return "".join(texts)


def _call(call: Any, where: str) -> str:
    """Write what a tool was asked as text, in OpenAI's shape or in that of inspect_ai."""
    own = call if isinstance(call, Mapping) else {}
    inner = own.get("function", own)
    named = inner if isinstance(inner, Mapping) else {"name": inner, "arguments": own.get("arguments")}
    name, arguments = named.get("name"), named.get("arguments")
    if not isinstance(name, str):
        raise PairError(f"{where} expects calls of tools with a name and arguments, but got {call!r:.80}.")
    try:
        if not isinstance(arguments, str):
            arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False, default=str)
    except (RecursionError, ValueError) as error:
        raise PairError(f"{where} expects arguments of a tool that can be written, but they are too deep.") from error
    return f"Tool call: {name}({arguments})"


def divided(turns: Sequence[tuple[str, str]], what: str = "A conversation") -> tuple[list[tuple[str, str]], str]:
    """Divide a conversation into what comes before the assistant's last turn, and that turn's text.

    Raises:
        PairError: It does not end with the assistant's turn.
    """
    start = len(turns)
    while start and turns[start - 1][0] == ASSISTANT:
        start -= 1
    if start == len(turns):
        ends = f"ends with the {turns[-1][0]}'s" if turns else "has no turns"
        raise PairError(f"{what} expects to end with the assistant's turn, which is judged, but {ends}.")
    return list(turns[:start]), "\n\n".join(text for _, text in turns[start:])


def asked(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return what a judge reads before a response: `question`, and `question_turns` where it is more than one turn.

    Raises:
        PairError: There is no user's turn.
    """
    system = "\n\n".join(text for _, text in _leading(turns, SYSTEM))
    rest = turns[len(_leading(turns, SYSTEM)) :]
    opening = _leading(rest, ASSISTANT)  # a greeting: templates begin with the user, so it goes along with that turn
    runs = [(is_reply, list(run)) for is_reply, run in groupby(rest[len(opening) :], lambda turn: turn[0] == ASSISTANT)]
    if not runs or runs[-1][0] or not any(role == USER for role, _ in rest):
        raise PairError("A conversation expects a user's turn before the response, but has none.")
    runs[0][1][:0] = opening
    found: list[Turn] = [{"role": SYSTEM, "content": system}] if system else []
    for is_reply, run in runs:
        labelled = not is_reply and any(role in (SYSTEM, ASSISTANT) for role, _ in run)
        texts = [f"{role.capitalize()}: {text}" if labelled and role != TOOL else text for role, text in run]
        found.append({"role": ASSISTANT if is_reply else USER, "content": "\n\n".join(texts)})
    if len(found) == 1:
        return {"question": found[0]["content"]}
    return {"question": flat(found), QUESTION_TURNS: found}


def _leading(turns: Sequence[tuple[str, str]], role: str) -> list[tuple[str, str]]:
    at = next((i for i, turn in enumerate(turns) if turn[0] != role), len(turns))
    return list(turns[:at])


def flat(turns: Sequence[Turn]) -> str:
    """Write turns as plain text with plain labels, for readings that are no chat."""
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)


def turns_of_text(text: str) -> list[tuple[str, str]] | None:
    """Read a conversation that stands in one text, as Anthropic's preferences have it; None where it is none."""
    parts = TEXT_MARKS.split(text)
    if parts[0].strip() or len(parts) < MARKED_PARTS:
        return None
    roles = [USER if name == "Human" else ASSISTANT for name in parts[1::2]]
    return [(role, said.strip()) for role, said in zip(roles, parts[2::2], strict=True)]


def answers_of(value: Any, names: Sequence[str]) -> list[tuple[list[tuple[str, str]], Any, int | None]]:
    """Read responses: a text, an assistant's turns, or a list of either.

    Args:
        value: The cell.
        names: What a response is called where it stands in an object of a list.

    Returns:
        Turns between question and response, the response, and which of a list it is, None where there is no list.

    Raises:
        PairError: The list is empty, or turns do not end with the assistant's.
    """
    if is_turns(value) or is_turn(value):
        return [(*divided(plain_turns(value if isinstance(value, list) else [value]), "A response"), None)]
    if not isinstance(value, (list, tuple)):
        return [([], value, None)]
    if not value:
        raise PairError("A row expects responses, but its list of them is empty.")
    found: list[tuple[list[tuple[str, str]], Any, int | None]] = []
    for part, one in enumerate(value):
        if isinstance(one, Mapping) and not is_turn(one):
            one = next((one[name] for name in names if isinstance(one.get(name), str)), one)
        between, text, _ = answers_of(one, names)[0] if not isinstance(one, list) or is_turns(one) else ([], one, None)
        found.append((between, text, part))
    return found


def preferred(
    prompt: Sequence[tuple[str, str]], values: Sequence[Any], names: Sequence[str]
) -> list[tuple[dict[str, Any], str]]:
    """Read responses of which one is preferred as pairs of one question, which may stand before each in its own cell.

    Args:
        prompt: The turns that were asked; none where they stand in the cells.
        values: The cells.
        names: What the cells are called.

    Raises:
        PairError: There is no question, or a cell holds no response.
    """
    read = list(values)
    if not prompt and all(isinstance(value, str) for value in values):
        if any(opened_json(value) is not value for value in values):
            raise PairError(
                "A row expects chosen and rejected as texts or turns, but has turns as JSON text. Write JSON Lines."
            )
        talks = [turns_of_text(value) for value in values]
        read = talks if all(talks) else read
    if not prompt and all(isinstance(value, str) for value in read):
        # As TRL's implicit prompts: what both begin with, up to a whole word.
        shared = str(commonprefix([*map(str, read)]))
        shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
        if not shared.strip():
            raise PairError("A row expects a prompt beside chosen and rejected, or that both begin with it.")
        prompt, read = [(USER, shared.strip())], [value[len(shared) :] for value in read]
    found = []
    for value, name in zip(read, names, strict=True):
        if isinstance(value, str):
            before, text = list(prompt), value
        else:
            raw = value if isinstance(value, list) else [value]
            turns = raw if raw and isinstance(raw[0], tuple) else plain_turns(raw)
            before, text = divided(turns, f"The cell {name}")
            told = {(role, said.strip()) for role, said in before}  # a whole conversation holds its prompt already
            before = [*((role, said) for role, said in prompt if (role, said.strip()) not in told), *before]
        found.append(({**asked(before), "prediction": text}, name))
    return found


def cell(row: Mapping[str, Any], name: str) -> Any:
    """Return a column's value.

    Raises:
        PairError: The row has no such column.
    """
    if not has(row, name):
        raise PairError(f"A row expects the column {name!r}, but has {sorted(map(str, row))!r:.200}.")
    return value_at(row, name)


def asked_turns(row: Mapping[str, Any], question: Sequence[str]) -> list[tuple[str, str]]:
    """Read the columns of a question: texts are joined by a blank line, turns stand before them.

    Raises:
        PairError: They hold neither text nor turns.
    """
    turns: list[tuple[str, str]] = []
    texts = []
    for number, name in enumerate(question):
        value = opened(name, cell(row, name) if not number else value_at(row, name))
        if is_turns(value):
            turns += plain_turns(value)
        elif not isinstance(value, (str, type(None))):
            raise PairError(f"A row expects text or turns in {name!r}, but got {type(value).__name__}: {value!r:.80}.")
        elif value and value.strip():
            texts.append(value)
    if question and not texts and not turns:
        raise PairError(
            f"A row expects text for the question in {question[0]!r}, but it is blank. Leave such rows out."
        )
    return [*turns, *([(USER, "\n\n".join(texts))] if texts else [])]


def earlier_turns(
    row: Mapping[str, Any], system: str | None = None, history: str | None = None
) -> list[tuple[str, str]]:
    """Read a system's text, and earlier rounds as pairs of question and reply.

    Raises:
        PairError: The rounds are none.
    """
    said = value_at(row, system) if system else None
    turns = [(SYSTEM, said)] if isinstance(said, str) and said.strip() else []
    rounds = (value_at(row, history) if history else None) or ()
    if not isinstance(rounds, (list, tuple)):
        raise PairError(f"A row expects pairs of question and reply in {history!r}, but got {rounds!r:.80}.")
    for one in rounds:
        if not (isinstance(one, (list, tuple)) and len(one) == 2 and all(isinstance(text, str) for text in one)):
            raise PairError(f"A row expects pairs of question and reply in {history!r}, but got {one!r:.80}.")
        turns += [(USER, one[0]), (ASSISTANT, one[1])]
    return turns


Pairs = list[tuple[dict[str, Any], Any]]  # each with which part of the row it is, None where it is all


def pairs_of_columns(
    row: Mapping[str, Any],
    question: Sequence[str],
    prediction: str | None,
    system: str | None = None,
    history: str | None = None,
) -> Pairs:
    """Read a row with columns of a question and of one or several responses.

    Args:
        row: The row.
        question: The columns of the question.
        prediction: The column of the responses; None where none is needed.
        system: The column of a system's text.
        history: The column of earlier rounds.

    Raises:
        PairError: It holds no pair.
    """
    turns = [*earlier_turns(row, system, history), *asked_turns(row, question)]
    if prediction is None:
        return [(asked(turns), None)]
    answers = answers_of(cell(row, prediction), NAMES[PREDICTION])
    return [({**asked([*turns, *between]), PREDICTION: text}, part) for between, text, part in answers]


def pairs_of_talk(row: Mapping[str, Any], name: str, system: str | None = None, *, answered: bool = True) -> Pairs:
    """Read a row with a whole conversation, which may be JSON, as in cells of CSV.

    Args:
        row: The row.
        name: The conversation's column.
        system: The column of a system's text.
        answered: Whether it must end with a reply.

    Raises:
        PairError: It holds no conversation, or none that ends so.
    """
    talk = opened_json(cell(row, name))
    if not isinstance(talk, list):
        raise PairError(f"A row expects turns in {name!r}, but got {talk!r:.80}.")
    turns = [*earlier_turns(row, system), *plain_turns(talk)]
    if not answered and turns and turns[-1][0] != ASSISTANT:
        return [(asked(turns), None)]
    before, text = divided(turns)
    return [({**asked(before), PREDICTION: text}, None)]


def pairs_of_preference(
    row: Mapping[str, Any],
    question: Sequence[str],
    answers: Sequence[str],
    system: str | None = None,
    history: str | None = None,
) -> Pairs:
    """Read a row with a chosen and a rejected response, in the columns `answers`.

    Raises:
        PairError: It holds no pair.
    """
    prompt = [*earlier_turns(row, system, history), *asked_turns(row, question)]
    sides = dict(zip((CHOSEN, REJECTED), (cell(row, name) for name in answers), strict=True))
    if not any(map(_are_texts, sides.values())):
        return list(preferred(prompt, list(sides.values()), list(sides)))
    several = {side: value if _are_texts(value) else [value] for side, value in sides.items()}
    found = {f"{side}.{number}": one for side, own in several.items() for number, one in enumerate(own)}
    return list(preferred(prompt, list(found.values()), list(found)))


def _are_texts(value: Any) -> bool:
    """Whether a cell lists several responses, as sets for comparing reward models do."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
