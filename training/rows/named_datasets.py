"""The datasets that are known by a short name: where they are, their columns, and how their final answers are found."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from inspector_pipeline.files.tables import Row

from .answers import last_boxed
from .columns import Columns, UnusableRowError, is_blank

GSM8K_MARK = "####"
CALCULATION = re.compile(r"<<[^<>]*>>")
GPQA_CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
LETTERS = "ABCD"


@dataclass(frozen=True)
class NamedDataset:
    """A dataset of questions on the Hub.

    Attributes:
        hub_id: Its Hub id.
        subsets: Its subsets (Hub "configs"), all of which are read, in this order; None is the only one.
        splits: Its splits, the default first.
        columns: Its columns.
        complete: Takes a question and the dataset's own row, and returns what else the question gets or changes.
        keep: Further columns to keep, by their own names.
        ids_from_rows: Whether a question's id is its row in the split: 0, 1, ... in `train`, `test-0`, ... elsewhere.
    """

    hub_id: str
    subsets: tuple[str | None, ...]
    splits: tuple[str, ...]
    columns: Columns
    complete: Callable[[Row, Row], Row]
    keep: tuple[str, ...] = ()
    ids_from_rows: bool = False


def gsm8k_final_answer(answer: str) -> str | None:
    """Take the number after the last `####` of a GSM8K solution, without the commas between thousands."""
    _, mark, final = answer.rpartition(GSM8K_MARK)
    return final.strip().replace(",", "") or None if mark else None


def plain_rationale(answer: str) -> str:
    r"""Return a gold solution as a person would write it, for stages that need it as a response.

    GSM8K's calculator notes (`<<48/2=24>>`) go, and its last line `#### 72` becomes `The answer is 72.`; a solution
    without either comes back as it is.

    Example:
        >>> plain_rationale("She sold 48/2 = <<48/2=24>>24 clips.\n#### 24")
        'She sold 48/2 = 24 clips.\nThe answer is 24.'
    """
    steps, mark, final = CALCULATION.sub("", answer).rpartition(GSM8K_MARK)
    return f"{steps.rstrip()}\nThe answer is {final.strip()}.".lstrip() if mark else final


def _gsm8k(row: Row, source: Row) -> Row:
    return {"final_answer": gsm8k_final_answer(row.get("answer", ""))}


def _math(row: Row, source: Row) -> Row:
    return {"final_answer": last_boxed(row.get("answer", ""))}


def _math_500(row: Row, source: Row) -> Row:
    return {}


def _gpqa(row: Row, source: Row) -> Row:
    """Add the lettered choices to the question. Their order hangs on the row's id alone, so it never changes.

    Raises:
        UnusableRowError: A choice is blank.
    """
    blank = [name for name in GPQA_CHOICES if is_blank(source.get(name))]
    if blank:
        raise UnusableRowError(f"the choice {blank[0]!r} is blank")
    choices = sorted(GPQA_CHOICES, key=lambda name: hashlib.sha256(f"{row['id']}\n{name}".encode()).digest())
    options = [str(source[name]).strip() for name in choices]
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return {
        "question": "\n".join([row["question"].strip(), "", *lines]),
        "final_answer": lines[choices.index(GPQA_CHOICES[0])],
        "options": options,
    }


def _gpqa_dataset(subset: str) -> NamedDataset:
    columns = Columns(question="Question", answer="Explanation", id="Record ID")
    keep = ("High-level domain", "Subdomain")
    return NamedDataset("Idavidrein/gpqa", (f"gpqa_{subset}",), ("train",), columns, _gpqa, keep)


MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
DATASETS = {
    "gsm8k": NamedDataset(
        "openai/gsm8k", ("main",), ("train", "test"), Columns(answer="answer"), _gsm8k, ids_from_rows=True
    ),
    "math": NamedDataset(
        "EleutherAI/hendrycks_math",
        MATH_SUBJECTS,
        ("train", "test"),
        Columns(question="problem", answer="solution"),
        _math,
        keep=("level", "type"),
    ),
    "math-500": NamedDataset(
        "HuggingFaceH4/MATH-500",
        (None,),
        ("test",),
        Columns(question="problem", answer="solution", final_answer="answer", id="unique_id"),
        _math_500,
        keep=("subject", "level"),
    ),
    "gpqa-main": _gpqa_dataset("main"),
    "gpqa-extended": _gpqa_dataset("extended"),
    "gpqa-diamond": _gpqa_dataset("diamond"),
}
