"""Whether a response's final answer is right: `correctness`, from gold answers, with no teacher.

What a response states is found by rows/answers.py; math-verify decides whether it equals the gold answer. The label is
1 or 0 where that is certain, else None with its reason:

- a stated answer is right or wrong;
- a response without a stated answer is wrong (0) where the gold answer stands nowhere in it: it cannot have stated it;
- where the gold answer does stand in it, but not clearly as the final answer, the label is None;
- a response of another question, one that failed, and a gold answer that cannot be read give None.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from math_verify import parse as parse_math
from math_verify import verify

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.pairs import is_blank

from .answers import final_answer, mentions, number_value, stated_answer
from .records import normal_text, question_id

CORRECTNESS = "correctness"
TIMEOUT = 5  # seconds for one parse or comparison; math-verify uses a signal, so this runs in a main thread only
_LETTER = re.compile(r"\(?([A-J])\)?[.:]?")
_STATED_LETTER = re.compile(
    r"(?i:answer|option|choice)(?:\s+is)?\s*:?\s*(?:option\s+)?\**\s*\(?([A-J])\)?(?![\w'])|\\boxed\{\s*(?:\\text\{)?\(?([A-J])\)?\}?\s*\}"
)
_PLAIN = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?")


@dataclass(frozen=True)
class Verdict:
    """Whether a response's final answer is right.

    Attributes:
        score: 1, 0, or None where it is not certain.
        reason: Why there is no label, or why a response without a stated answer is wrong.
        stated: The answer that was found in the response.
    """

    score: int | None
    reason: str | None = None
    stated: str | None = None


def judge_answer(response: str, gold: str, question: str = "") -> Verdict:
    """Say whether a response's final answer is right.

    Args:
        response: Free text.
        gold: The gold final answer: a number, LaTeX, or the letter of a choice.
        question: The question's text.

    Returns:
        The verdict.
    """
    if letter := _LETTER.fullmatch(gold.strip()):
        return _judge_letter(response, letter[1])
    if not parse_math(_as_math(gold), parsing_timeout=TIMEOUT):
        return Verdict(None, "the gold answer cannot be read")
    if stated := stated_answer(response, question):
        return Verdict(int(same_answer(gold, stated.text)), stated=stated.text)
    plain = gold.strip().removeprefix("$").removesuffix("%")
    if _PLAIN.fullmatch(plain) and not mentions(response, number_value(plain)):
        return Verdict(0, "no final answer is stated, and the gold answer stands nowhere")
    return Verdict(None, "no final answer was found for certain")


def same_answer(gold: str, stated: str) -> bool:
    """Whether two answers are equal for math-verify: 0.5 and 1/2, 1,200 and 1200, $18 and 18, 50% and 50."""
    parsed = [parse_math(_as_math(text), parsing_timeout=TIMEOUT) for text in (gold, stated)]
    return bool(verify(*parsed, timeout_seconds=TIMEOUT))


def _as_math(text: str) -> str:
    return f"${text}$" if "\\" in text else text


def _judge_letter(response: str, gold: str) -> Verdict:
    """Judge a multiple-choice answer by the last letter that is stated as one."""
    alone = _LETTER.fullmatch(response.strip())
    letters = [alone[1]] if alone else [a or b for a, b in _STATED_LETTER.findall(response)]
    if not letters:
        return Verdict(None, "no letter is stated as the final answer")
    return Verdict(int(letters[-1] == gold), stated=letters[-1])


def join_key(row: Row, join: str) -> str:
    """Name a row's question by its `id`, or by its text where the ids are another dataset's (`question`)."""
    return str(row["id"]) if join == "id" else question_id(row["question"])


def questions_by_key(rows: Iterable[Row], join: str) -> dict[str, Row]:
    """Look questions up by what responses name them by; the same question twice is one.

    Raises:
        DataFileError: Two different questions share an id.
    """
    found: dict[str, Row] = {}
    for row in rows:
        other = found.setdefault(join_key(row, join), row)
        if normal_text(other["question"]).lower() != normal_text(row["question"]).lower():
            raise DataFileError(f"The questions expect one text an id, but {row['id']!r} names two. Remove one.")
    return found


def label_row(row: Row, question: Row | None, join: str) -> Row:
    """Return a response with its label; labels of other aspects are kept.

    Args:
        row: The response.
        question: Its question; None where there is none of that name.
        join: What names it, `id` or `question`.
    """
    verdict = _verdict(row, question, join)
    reasons = {key: reason for key, reason in (row.get("reasons") or {}).items() if key != CORRECTNESS}
    if verdict.reason:
        reasons[CORRECTNESS] = verdict.reason
    scores = {**(row.get("scores") or {}), CORRECTNESS: verdict.score}
    return {**row, "scores": scores, "reasons": reasons, "stated_answer": verdict.stated}


def _verdict(row: Row, question: Row | None, join: str) -> Verdict:
    if question is None:
        return Verdict(None, f"no question has this {join}")
    if normal_text(row["question"]) != normal_text(question["question"]):
        return Verdict(None, "the question with this id has another text")
    if is_blank(row.get("prediction") or ""):
        return Verdict(None, "there is no response")
    gold = question.get("final_answer") or final_answer(question.get("answer") or "")
    if not gold:
        return Verdict(None, "the question has no gold answer")
    return judge_answer(row["prediction"], str(gold), row["question"])
