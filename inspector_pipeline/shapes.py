"""Rows of tools that nest what was asked and answered, laid flat: logs, batches of requests, labelling tools.

Each becomes a row of `question` or `messages`, `prediction` and where known `reference` and `context`, or of the
columns that a labelling tool was given, with the labels beside them; rows.py reads that as any other row.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .errors import DataFileError, PairError
from .label_tools import argilla_row, is_argilla, is_label_studio, label_studio_row
from .names import Row, opened_json

DOC_CHOICES = ("choices", "options", "endings")
ENVELOPES = (("request", "response"), ("modelInput", "modelOutput"), ("request_body", "response_body"))
DOC_QUESTIONS = ("question", "query", "problem", "prompt", "instruction", "input")


class Shape(NamedTuple):
    """One tool's rows.

    Attributes:
        name: What the tool is called.
        fits: Whether a row is one of its.
        lay_flat: Makes the flat row.
        origins: Of a row, key of the flat row -> where its value stands, for messages; none where the flat row has the
            columns that the tool was given.
        used: Keys of the tool's row that are not kept beside the flat row's.
    """

    name: str
    fits: Callable[[Row], bool]
    lay_flat: Callable[[Row], Row]
    origins: Callable[[Row], dict[str, str]]
    used: tuple[str, ...] = ()

    def flat(self, row: Row) -> Row:
        """Lay a row flat.

        Raises:
            PairError: It holds no answer, or a part of it is of another kind than the tool writes.
        """
        try:
            return self.lay_flat(row)
        except (AttributeError, KeyError, TypeError) as error:
            raise PairError(f"A row expects the parts of {self.name}, but one is of another kind: {error}.") from error


def _inside(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_object(row: Row, *keys: str) -> bool:
    return all(isinstance(row.get(key), Mapping) for key in keys)


def _are_objects(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(_inside(one, key), str) for one in value)


def _are_lists(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(_inside(one, key), list) for one in value)


def _lm_eval(row: Row) -> Row:
    answers = row["resps"]
    if isinstance(answers, list) and len(answers) == 1 and isinstance(answers[0], list):
        answers = answers[0]
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise PairError("A sample of lm-eval expects responses of text, but this task has log-likelihoods of choices.")
    question = doc_question(row)
    return {
        "question": row["doc"][question] if question else opened_json(_prompt(row.get("arguments"))),
        "prediction": answers,
        "reference": row.get("target"),
    }


def doc_question(row: Row) -> str | None:
    """Name the one column of a lm-eval document that holds its question.

    None where none or several may, or where there are choices beside it, which only the prompt has too.
    """
    if any(name.lower() in DOC_CHOICES for name in row["doc"]):
        return None
    found = [name for name in row["doc"] if name.lower() in DOC_QUESTIONS and isinstance(row["doc"][name], str)]
    exact = [name for name in found if name.lower() == DOC_QUESTIONS[0]]
    return (exact or found)[0] if exact or len(found) == 1 else None


def _prompt(arguments: Any) -> Any:
    """Return what the model was given: the first argument of the first request."""
    if isinstance(arguments, Mapping):
        return _inside(arguments, "gen_args_0", "arg_0")
    while isinstance(arguments, list) and arguments:
        arguments = arguments[0]
    return arguments


def _inspect(row: Row) -> Row:
    choices = row["output"].get("choices") or []
    answers = [_inside(choice, "message", "content") for choice in choices]
    if row.get("error") and not answers:
        raise PairError(f"A sample of inspect_ai expects an output, but failed: {_inside(row, 'error', 'message')!r}.")
    target = row.get("target")
    found = {"reference": "\n".join(map(str, target)) if isinstance(target, list) else target}
    messages = row.get("messages")
    if isinstance(messages, list) and messages and len(answers) < 2:  # the whole road of an agent, the answer last
        return {"messages": messages, **found}
    answers = [[{"role": "assistant", "content": answer}] for answer in answers]
    return {"question": row.get("input"), "prediction": answers, **found}


def _promptfoo(row: Row) -> Row:
    output = _inside(row, "response", "output")
    if output is None:
        said = row.get("error") or _inside(row, "response", "error")
        raise PairError(f"A result of promptfoo expects an output, but has none: {said!r:.120}.")
    prompt = row["prompt"]
    question = prompt.get("raw") if isinstance(prompt, Mapping) else prompt
    answer = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return {"question": opened_json(question), "prediction": answer, "context": _inside(row, "vars", "context")}


def _sides(row: Row) -> tuple[str, str] | None:
    """Name the keys of a request and its response, in a batch's envelope or in a log."""
    return next((keys for keys in ENVELOPES if _is_object(row, *keys)), None)


def _is_logged(row: Row) -> bool:
    """Whether a row is a request itself, with its response beside what was asked."""
    return isinstance(row.get("messages"), list) and bool(_inside(row.get("response"), "choices"))


def _gemini(content: Any) -> Row:
    """Return a turn of Gemini's as others write it."""
    parts = [
        {"type": "thinking" if part.get("thought") else "text", **part} if "text" in part else part
        for part in content.get("parts") or ()
    ]
    return {"role": content.get("role") or "user", "content": parts}


def _answers(answer: Any) -> list[Any]:
    """Return what an endpoint answered, one or several, each a text or turns."""
    if answer.get("choices") is not None:
        return [
            [one["message"]] if isinstance(one.get("message"), Mapping) else one.get("text")
            for one in answer["choices"]
        ]
    if answer.get("candidates") is not None:
        return [[_gemini(one["content"])] for one in answer["candidates"]]
    said = _inside(answer, "output", "message") or (answer if answer.get("role") and answer.get("content") else None)
    if said is not None:
        return [[said]]
    return [[one for one in answer.get("output") or () if one.get("type", "message") == "message"]]


def _request(row: Row) -> Row:
    """Lay flat a request to an endpoint with its response, with or without the envelope of batches."""
    keys = _sides(row)
    sides: list[Any] = [row[key] for key in keys] if keys else [row, row["response"]]
    asked, answer = (_inside(one, "body") or one for one in sides)
    if row.get("error") or _inside(row.get("response"), "status_code") not in (None, 200):
        raise PairError(
            f"A request expects a response, but failed: {row.get('error') or _inside(answer, 'error')!r:.120}."
        )
    question = next((asked[key] for key in ("messages", "input", "prompt") if asked.get(key)), None)
    system = asked.get("instructions") or asked.get("system")
    if isinstance(asked.get("contents"), list):
        question = [_gemini(content) for content in asked["contents"]]
        said = asked.get("systemInstruction") or asked.get("system_instruction")
        system = "".join(part["text"] for part in said["parts"]) if said else None
    if isinstance(system, str):
        turns = question if isinstance(question, list) else [{"role": "user", "content": question}]
        question = [{"role": "system", "content": system}, *turns]
    return {"question": question, "prediction": _answers(answer)}


SHAPES = (
    Shape(
        "a sample log of lm-eval",
        lambda row: _is_object(row, "doc") and "resps" in row,
        _lm_eval,
        lambda row: {
            "question": f"doc.{name}" if (name := doc_question(row)) else "the prompt in arguments",
            **{"prediction": "resps", "reference": "target"},
        },
        ("resps",),
    ),
    Shape(
        "a sample of inspect_ai",
        lambda row: (
            "input" in row and _is_object(row, "output") and {"choices", "completion"} & row["output"].keys() != set()
        ),
        _inspect,
        lambda row: {"question": "input", "prediction": "output.choices", "reference": "target"},
    ),
    Shape(
        "a result of promptfoo",
        lambda row: {"vars", "prompt"} <= row.keys() and bool({"response", "error"} & row.keys()),
        _promptfoo,
        lambda row: {"question": "prompt.raw", "prediction": "response.output", "context": "vars.context"},
    ),
    Shape(
        "a request with its response",
        lambda row: _sides(row) is not None or _is_logged(row),
        _request,
        lambda row: dict(zip(("question", "prediction"), _sides(row) or ("messages", "response"), strict=True)),
    ),
    Shape(
        "an output of vLLM",
        lambda row: "prompt" in row and _are_objects(row.get("outputs"), "text"),
        lambda row: {"question": row["prompt"], "prediction": [one["text"] for one in row["outputs"]]},
        lambda row: {"question": "prompt", "prediction": "outputs.text"},
        ("outputs",),
    ),
    Shape(
        "a preference for OpenAI's fine-tuning",
        lambda row: (
            bool(_inside(row.get("input"), "messages")) and {"preferred_output", "non_preferred_output"} <= row.keys()
        ),
        lambda row: {
            "prompt": row["input"]["messages"],
            "chosen": row["preferred_output"],
            "rejected": row["non_preferred_output"],
        },
        lambda row: {
            "prompt": "input.messages",
            "chosen": "preferred_output",
            "rejected": "non_preferred_output",
        },
        ("input", "preferred_output", "non_preferred_output"),
    ),
    Shape(
        "a task of Label Studio",
        is_label_studio,
        label_studio_row,
        lambda row: {},
        ("data",),
    ),
    Shape(
        "a record of Argilla",
        is_argilla,
        argilla_row,
        lambda row: {},
        ("fields",),
    ),
)


def refusal(row: Row) -> str | None:
    """Say what to do with rows that hold no pair; None where they may."""
    if "custom_id" in row and bool({"response", "result"} & row.keys()) and "request" not in row:
        return (
            "a batch's output holds responses without the questions. Join it with the requests: inspector peek OUTPUT "
            "--requests REQUESTS --output pairs.jsonl"
        )
    if "message_tree_id" in row:
        return (
            "OpenAssistant's messages stand one by one, or as a tree of replies. Write a row with the turns up to each "
            "reply as messages"
        )
    if isinstance(row.get("turns"), list) or _are_lists(row.get("choices"), "turns"):
        return (
            "MT-Bench keeps questions and answers in files of their own. Write rows of messages, with the turns of "
            "both one after the other"
        )
    if isinstance(row.get("judgment"), str) and "user_prompt" in row:
        return "a judge's judgments hold no response of their own. Give the answers that were judged"
    steps, labels = row.get("completions"), row.get("labels")
    if isinstance(steps, list) and isinstance(labels, list) and {type(one) for one in labels} == {bool}:
        return (
            "completions with labels of true and false are steps of one response (TRL's stepwise supervision). Write "
            "a row for each step that is judged, with the steps before it in the question"
        )
    if isinstance(row.get("segments"), list):
        return (
            "Axolotl's template-free segments say what is trained on, not what is asked and answered. Write question "
            "and prediction"
        )
    if isinstance(row.get("input_ids"), list):
        return "rows of token ids hold no text. Give the text that they were made from"
    return None


def requests_by_name(requests: Iterable[Row]) -> dict[str, Row]:
    """Return a batch's requests by their `custom_id`.

    Raises:
        DataFileError: One has none, or two have the same.
    """
    found: dict[str, Row] = {}
    for request in requests:
        name = request.get("custom_id")
        if not isinstance(name, str) or not name or found.get(name, request) != request:
            raise DataFileError(f"A batch's requests expect a custom_id of their own each, but got {name!r:.60}.")
        found[name] = request
    return found


def joined_request(row: Row, requests: Mapping[str, Row]) -> Row:
    """Put a batch's request beside its response.

    Raises:
        PairError: There is no request of its `custom_id`.
    """
    name = row.get("custom_id")
    if not isinstance(name, str) or name not in requests:
        raise PairError(f"A batch's output expects a request with its custom_id, but {name!r:.60} has none.")
    answer = row.get("response")
    result = row.get("result")  # Anthropic's
    if answer is None and isinstance(result, Mapping):
        said = _inside(result, "message", "content")
        answer = {"choices": [{"message": {"role": "assistant", "content": said}}]} if said else {}
    body = requests[name].get("body") or requests[name].get("params") or {}
    failed = row.get("error") or (_inside(result, "error") if result else None)
    return {**row, "request": body, "response": answer or {}, "error": failed}
