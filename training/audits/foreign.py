"""Rows whose question does not stand in the dataset that they are said to come from."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspector_pipeline.errors import DataFileError

from .duplicates import Duplicate
from .items import Item
from .similarity import candidate_pairs, compare
from .text import plain

EDITED = 0.6  # Dice of a question with one of the dataset that has just its numbers
EDITED_NUMBER = 0.85  # the same where an edit may have hit a number
SAME_NUMBERS = 0.7
CONTAINED = 0.9  # share of a question of the dataset that stands in a longer one, with all its numbers


@dataclass(frozen=True)
class Foreign:
    """An item whose question is not the dataset's.

    Attributes:
        item: Its position.
        nearest: The dataset's question that is most like it; None where none shares enough to be compared.
        likeness: Dice of the two, 0 where there is none.
    """

    item: int
    nearest: str | None
    likeness: float


def read_dataset(path: str) -> list[str]:
    """Read a dataset's distinct questions from JSON Lines with a `question` each, in order.

    Raises:
        DataFileError: The file cannot be read or a line has no question.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        questions = [json.loads(line)["question"] for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(f"Expected JSON Lines with a question each at {path}, but got: {error!r}.") from error
    if not questions or not all(isinstance(question, str) for question in questions):
        raise DataFileError(f"{path} expects a question of text in every line. Is it the dataset's file?")
    return list(dict.fromkeys(questions))


def find_foreign(items: Sequence[Item], dataset: Sequence[str], copies: Iterable[Duplicate]) -> list[Foreign]:
    """Find the items whose question is neither in the dataset nor an edited copy of one of its questions.

    Args:
        items: All pairs.
        dataset: The dataset's questions.
        copies: Near duplicates among the items: an edited copy belongs where its original belongs.
    """
    known = {plain(question) for question in dataset}
    unknown = list(
        dict.fromkeys(item.question for item in items if item.question and plain(item.question) not in known)
    )
    nearest = _nearest(unknown, list(dataset))
    found = {
        i: Foreign(i, *nearest[item.question][:2])
        for i, item in enumerate(items)
        if item.question in nearest and not nearest[item.question][2]
    }
    for copy in copies:  # in the items' order of precedence; the edited one of the two may stand first
        if copy.item not in found or copy.other not in found:
            found.pop(copy.item, None)
            found.pop(copy.other, None)
    return list(found.values())


def _nearest(unknown: list[str], dataset: list[str]) -> dict[str, tuple[str | None, float, bool]]:
    """Return for each unknown question the dataset's nearest, their Dice, and whether one is an edited copy."""
    nearest: dict[str, tuple[str | None, float, bool]] = {question: (None, 0.0, False) for question in unknown}
    texts = [*dataset, *unknown]
    pairs = candidate_pairs(texts, first=len(dataset))
    likeness = compare(texts, pairs)
    copies = (likeness.dice >= EDITED) & (likeness.numbers == 1)
    copies |= (likeness.dice >= EDITED_NUMBER) & (likeness.numbers >= SAME_NUMBERS)
    copies |= (likeness.contained >= CONTAINED) & (likeness.numbers_contained == 1) & (likeness.ratio >= 1 / 2)
    for pair in np.argsort(likeness.dice, kind="stable"):
        question = texts[pairs[0][pair]]
        copied = bool(copies[pair]) or nearest[question][2]
        nearest[question] = (texts[pairs[1][pair]], round(float(likeness.dice[pair]), 3), copied)
    return nearest
