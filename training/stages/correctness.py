r"""Label responses by whether their final answer is right: `correctness`, from gold answers, with no teacher.

Responses meet their questions by id, never by position, and the question's text must be the same. What a response
states is found by training/answers.py; math-verify decides whether it equals the gold answer. The label is 1 or 0 where
that is certain, else null with its reason:

- a stated answer is right or wrong;
- a response without a stated answer is wrong (0) where the gold answer stands nowhere in it: it cannot have stated it;
- where the gold answer does stand in it, but not clearly as the final answer, the label is null;
- a response of another question, one that failed, and a gold answer that cannot be read give null.

Example:
    python -m training correctness --responses rows.jsonl --questions questions.jsonl --output labelled.jsonl
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from math_verify import parse as parse_math
from math_verify import verify
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_json

from ..rows.answers import final_answer, mentions, number_value, stated_answer
from ..rows.probing_set import read_probing_set
from ..rows.records import normal_text, question_id, read_records, write_records
from ..runs.manifest import Manifest

ASPECT = "correctness"
TIMEOUT = 5  # seconds for one parse or comparison; math-verify uses a signal, so this runs in a main thread only
_LETTER = re.compile(r"\(?([A-J])\)?[.:]?")
_STATED_LETTER = re.compile(
    r"(?i:answer|option|choice)(?:\s+is)?\s*:?\s*(?:option\s+)?\**\s*\(?([A-J])\)?(?![\w'])|\\boxed\{\s*(?:\\text\{)?\(?([A-J])\)?\}?\s*\}"
)
_PLAIN = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to label.

    Attributes:
        responses: Rows with id, question and prediction (JSON Lines, results JSON), or a probing set.
        questions: Rows with id, question and final_answer, or answer, the gold solution.
        output: Labelled rows, JSON Lines.
        join: Which key of a response names its question: id, or question for files whose ids are another dataset's.
    """

    responses: Path
    questions: Path
    output: Path
    join: str = "id"


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


def run(config: Config) -> Counter[str]:
    """Label every response and write the rows.

    Returns:
        How many rows got which label or reason.

    Raises:
        DataFileError: A file cannot be read, lacks keys, or two questions share an id.
    """
    if config.join not in ("id", "question"):
        raise DataFileError(f"join expects id or question, but got {config.join!r}. Choose one.")
    manifest = Manifest.of(ASPECT, config, [config.responses, config.questions])
    if manifest.is_done(config.output):
        return Counter()
    questions = _questions(read_records(config.questions), config.join)
    rows = [
        _labelled(row, questions.get(_key(row, config.join)), config.join)
        for row in hf_logging.tqdm(read_responses(config.responses), desc=ASPECT)
    ]
    write_records(rows, config.output)
    manifest.write(config.output, [config.output])
    counts = Counter(str(row["scores"][ASPECT]) for row in rows)
    reasons = Counter(row["reasons"][ASPECT] for row in rows if row.get("reasons", {}).get(ASPECT))
    logger.info("%s: %s; reasons: %s", config.output, dict(counts), dict(reasons))
    return counts + reasons


def read_responses(path: Path) -> list[Row]:
    """Read responses: rows of any supported format, or a probing set, whose pairs keep their labels.

    Raises:
        DataFileError: The file cannot be read, or a row lacks id or question.
    """
    if path.suffix.lower() == ".json" and isinstance(read_json(path), dict):
        return [asdict(pair) for pair in read_probing_set(path)[0]]
    return read_records(path)


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
    gold_math = f"${gold}$" if "\\" in gold else gold
    if not parse_math(gold_math, parsing_timeout=TIMEOUT):
        return Verdict(None, "the gold answer cannot be read")
    stated = stated_answer(response, question)
    if stated is None:
        value = _number(gold)
        if value is not None and not mentions(response, value):
            return Verdict(0, "no final answer is stated, and the gold answer stands nowhere")
        return Verdict(None, "no final answer was found for certain")
    return Verdict(int(same_answer(gold, stated.text)), stated=stated.text)


def same_answer(gold: str, stated: str) -> bool:
    """Whether two answers are equal for math-verify: 0.5 and 1/2, 1,200 and 1200, $18 and 18, 50% and 50."""
    texts = (f"${text}$" if "\\" in text else text for text in (gold, stated))
    parsed = [parse_math(text, parsing_timeout=TIMEOUT) for text in texts]
    return bool(verify(*parsed, timeout_seconds=TIMEOUT))


def _judge_letter(response: str, gold: str) -> Verdict:
    """Judge a multiple-choice answer by the last letter that is stated as one."""
    alone = _LETTER.fullmatch(response.strip())
    letters = [alone[1]] if alone else [a or b for a, b in _STATED_LETTER.findall(response)]
    if not letters:
        return Verdict(None, "no letter is stated as the final answer")
    return Verdict(int(letters[-1] == gold), stated=letters[-1])


def _number(text: str) -> Fraction | None:
    plain = text.strip().removeprefix("$").removesuffix("%")
    return number_value(plain) if _PLAIN.fullmatch(plain) else None


def _key(row: Row, join: str) -> str:
    return str(row["id"]) if join == "id" else question_id(row["question"])


def _questions(rows: Iterable[Row], join: str) -> dict[str, Row]:
    """Look questions up by id; the same question twice is one.

    Raises:
        DataFileError: Two different questions share an id.
    """
    found: dict[str, Row] = {}
    for row in rows:
        other = found.setdefault(_key(row, join), row)
        if normal_text(other["question"]).lower() != normal_text(row["question"]).lower():
            raise DataFileError(f"The questions expect one text an id, but {row['id']!r} names two. Remove one.")
    return found


def _labelled(row: Row, question: Row | None, join: str) -> Row:
    """Return a row with its label; labels of other aspects are kept."""
    verdict = _verdict(row, question, join)
    scores = {**(row.get("scores") or {}), ASPECT: verdict.score}
    reasons = {key: reason for key, reason in (row.get("reasons") or {}).items() if key != ASPECT}
    if verdict.reason:
        reasons[ASPECT] = verdict.reason
    return {**row, "scores": scores, "reasons": reasons, "stated_answer": verdict.stated}


def _verdict(row: Row, question: Row | None, join: str) -> Verdict:
    if question is None:
        return Verdict(None, f"no question has this {join}")
    if normal_text(row["question"]) != normal_text(question["question"]):
        return Verdict(None, "the question with this id has another text")
    if not (row.get("prediction") or "").strip():
        return Verdict(None, "there is no response")
    gold = question.get("final_answer") or final_answer(question.get("answer") or "")
    if not gold:
        return Verdict(None, "the question has no gold answer")
    return judge_answer(row["prediction"], str(gold), row["question"])
