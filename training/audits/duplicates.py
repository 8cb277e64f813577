"""Duplicates among pairs, within and across splits, questions under two ids, and questions of another dataset.

Two rows are near duplicates if a reader would call one an edited copy of the other:

- their responses are the same but for edits, and their questions alike; or
- their questions are the same but for edits, whatever the responses. Questions of one form with other numbers are other
  questions: the numbers must agree. Where a question stands in several rows, its responses decide.

Several responses to one question are what a best-of-N set is made of. Between samples of one id only responses that are
the same but for a few words and have the same numbers count; rows of one id, sample and generator are compared as rows
of different ids are.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from .items import Item
from .similarity import Likeness, Pairs, candidate_pairs, compare, numbers, plain

SAME_RESPONSE = 0.75  # Dice of responses that are one but for edits
SAME_NUMBERS = 0.75  # Dice of the numbers that goes with it: an edit may hit a digit
ALIKE_QUESTION = 0.62  # Dice of questions that is enough beside the same response
CLOSE_RESPONSE = 0.8  # Dice of responses and of their numbers that is asked where the questions' numbers differ
SAME_QUESTION = 0.7  # Dice of questions with equal numbers that are one but for edits, whatever the responses
SAME_PLAIN_QUESTION = 0.85  # the same for questions with fewer than TELLING_NUMBERS numbers
TELLING_NUMBERS = 2
RELATED_RESPONSE = 0.6  # Dice of responses that such questions need besides: much is asked in nearly the same words
CONTAINED = 0.92  # share of a text that stands in a longer one, which then has a text added
CONTAINED_RATIO = 0.5  # and how short it may be beside the longer one
TELLING_RESPONSE = 40  # characters: a shorter response says nothing about where it came from
SAME_SAMPLE = 0.9  # Dice of two samples' responses to one question
SAME_SHORT_SAMPLE = 0.97  # the same for responses shorter than TELLING_RESPONSE
EDITED = 0.6  # Dice of a question with one of the dataset that has just its numbers
EDITED_NUMBER = 0.85  # the same where an edit may have hit a number
EDITED_SAME_NUMBERS = 0.7  # and the Dice of the numbers that goes with it
DATASETS_CONTAINED = 0.9  # share of a question of the dataset that stands in a longer one, with all its numbers


@dataclass(frozen=True)
class Duplicate:
    """A later item that repeats an earlier one; positions are those of the items.

    Attributes:
        item: The later one.
        other: The earlier one, which stays.
        question: Dice of the questions, 1 for the same.
        response: Dice of the responses.
        why: What was compared, in words.
    """

    item: int
    other: int
    question: float
    response: float
    why: str


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` finds.

    Attributes:
        exact: Items whose texts are an earlier one's.
        near: Items that are an edited copy of an earlier one.
        repeated_questions: Items with an earlier one's question, under another id or in another split, and another
            response.
        groups: Question group of each item, (items,): the same number for questions that are one but for edits.
    """

    exact: list[Duplicate]
    near: list[Duplicate]
    repeated_questions: list[Duplicate]
    groups: NDArray[np.int64]


def find_duplicates(items: Sequence[Item]) -> Duplicates:
    """Find what stands twice.

    Args:
        items: In the order of precedence: what comes first stays.
    """
    exact = _exact(items)
    gone = {duplicate.item for duplicate in exact}
    near, groups = _near(items, [i for i in range(len(items)) if i not in gone])
    gone |= {duplicate.item for duplicate in near}
    return Duplicates(exact, near, _repeated_questions(items, gone), groups)


def _exact(items: Sequence[Item]) -> list[Duplicate]:
    first: dict[tuple[str, str], int] = {}
    found = []
    for i, item in enumerate(items):
        earlier = first.setdefault((item.question, item.prediction), i)
        if earlier != i and item.question and item.prediction:
            found.append(Duplicate(i, earlier, 1.0, 1.0, "the same question and response, letter by letter"))
    return found


def _repeated_questions(items: Sequence[Item], gone: set[int]) -> list[Duplicate]:
    first: dict[str, int] = {}
    found = []
    for i, item in enumerate(items):
        text = plain(item.question)
        earlier = first.setdefault(text, i)
        other = items[earlier]
        if text and i not in gone and (str(other.id) != str(item.id) or other.split != item.split):
            where = "in another split" if other.split != item.split else "under another id"
            found.append(Duplicate(i, earlier, 1.0, 0.0, f"the same question {where}, with another response"))
    return found


def _near(items: Sequence[Item], rows: Sequence[int]) -> tuple[list[Duplicate], NDArray[np.int64]]:
    """Find near duplicates among some items, and the groups of all items' questions."""
    questions, question_of = _distinct(item.question for item in items)
    responses, response_of = _distinct(item.prediction for item in items)
    later, earlier = _row_pairs(rows, question_of, response_of, questions, responses)
    question = compare(questions, (question_of[later], question_of[earlier]))
    response = compare(responses, (response_of[later], response_of[earlier]))
    number_counts = np.array([len(numbers(text)) for text in questions], dtype=np.int64)[question_of]
    verdicts = _Verdicts(items, (later, earlier), question, response, number_counts, question_of)
    linked = (question_of[later[verdicts.near]], question_of[earlier[verdicts.near]])
    links = sparse.coo_matrix((np.ones(len(linked[0])), linked), shape=(len(questions), len(questions)))
    groups: NDArray[np.int64] = connected_components(links, directed=False)[1]
    best: dict[int, Duplicate] = {}
    for pair in np.flatnonzero(verdicts.near):
        found = Duplicate(
            int(later[pair]),
            int(earlier[pair]),
            round(float(question.dice[pair]), 3),
            round(float(response.dice[pair]), 3),
            verdicts.why(int(pair)),
        )
        known = best.get(found.item)
        if known is None or found.question + found.response > known.question + known.response:
            best[found.item] = found
    return [best[i] for i in sorted(best)], groups[question_of]


class _Verdicts:
    """Which of the pairs of rows are near duplicates; arrays are (pairs,)."""

    def __init__(
        self,
        items: Sequence[Item],
        pairs: Pairs,
        question: Likeness,
        response: Likeness,
        number_counts: NDArray[np.int64],
        question_of: NDArray[np.int64],
    ) -> None:
        later, earlier = pairs
        lengths = np.array([len(plain(item.prediction)) for item in items])
        telling = np.minimum(lengths[later], lengths[earlier]) >= TELLING_RESPONSE
        same = (question_of[later] == question_of[earlier]) | (question.dice == 1)
        added = (
            (question.contained >= CONTAINED) & (question.ratio >= CONTAINED_RATIO) & (question.numbers_contained == 1)
        )
        few = np.minimum(number_counts[later], number_counts[earlier]) < TELLING_NUMBERS
        alike = question.dice >= np.where(few, SAME_PLAIN_QUESTION, SAME_QUESTION)
        held = np.bincount(question_of)[question_of]
        one_each = np.maximum(held[later], held[earlier]) == 1
        alike &= ~few | (response.dice >= RELATED_RESPONSE)
        self.question = ~same & one_each & ((alike & (question.numbers == 1)) | (added & ~few))
        copied = (response.dice >= SAME_RESPONSE) & (response.numbers >= SAME_NUMBERS)
        longer = (response.contained >= CONTAINED) & (response.ratio >= CONTAINED_RATIO)
        copied |= longer & (response.numbers_contained >= SAME_NUMBERS)
        akin = (question.dice >= ALIKE_QUESTION) | (question.contained >= CONTAINED)
        moved = (question.numbers < 1) & ~((response.dice >= CLOSE_RESPONSE) & (response.numbers >= CLOSE_RESPONSE))
        self.both = copied & telling & akin & ~moved
        short = ~telling & (np.minimum(lengths[later], lengths[earlier]) > 0)
        self.both |= copied & short & same & (response.dice >= SAME_PLAIN_QUESTION) & (response.numbers == 1)
        samples = [
            str(items[i].id) == str(items[j].id) and items[i].key != items[j].key
            for i, j in zip(later, earlier, strict=True)
        ]
        repeated = response.dice >= np.where(telling, SAME_SAMPLE, SAME_SHORT_SAMPLE)
        honest = np.array(samples, dtype=bool) & same & ~(repeated & (response.numbers == 1))
        self.near = (self.question | self.both) & ~honest
        self.layout = (question.dice == 1) & (response.dice == 1)

    def why(self, pair: int) -> str:
        """Say in words what a pair's verdict rests on."""
        if self.layout[pair]:
            return "the same but for case, white space or punctuation"
        if self.both[pair]:
            return "the same response but for edits, and a question alike"
        return "the same question but for edits"


def _row_pairs(
    rows: Sequence[int],
    question_of: NDArray[np.int64],
    response_of: NDArray[np.int64],
    questions: Sequence[str],
    responses: Sequence[str],
) -> Pairs:
    """Find the pairs of rows whose questions or responses are alike, each as (later, earlier)."""
    by_question, by_response = _members(rows, question_of), _members(rows, response_of)
    found: set[tuple[int, int]] = set()
    for texts, members in ((questions, by_question), (responses, by_response)):
        for a, b in zip(*candidate_pairs(texts), strict=True):
            found.update((max(i, j), min(i, j)) for i in members[int(a)] for j in members[int(b)])
    for same in by_response.values():  # a chain: each repeats the one before it, or the first
        found.update((j, i) for i, j in pairwise(same))
        found.update((j, same[0]) for j in same[1:])
    ordered = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _members(rows: Sequence[int], label_of: NDArray[np.int64]) -> defaultdict[int, list[int]]:
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i in rows:
        members[int(label_of[i])].append(i)
    return members


def _distinct(texts: Iterable[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts but for case, white space and punctuation, and which of them each text is."""
    first: dict[str, tuple[int, str]] = {}
    labels = [first.setdefault(plain(text), (len(first), text))[0] for text in texts]
    return [text for _, text in first.values()], np.array(labels, dtype=np.int64)


def find_foreign(
    items: Sequence[Item], dataset: Sequence[str], copies: Iterable[Duplicate]
) -> dict[int, tuple[str | None, float]]:
    """Find the items whose question is neither in the dataset nor an edited copy of one of its questions.

    Args:
        items: All pairs.
        dataset: The dataset's questions.
        copies: Near duplicates among the items: an edited copy belongs where its original belongs.

    Returns:
        Position of the item -> the dataset's question that is most like its own, None where none shares enough to be
        compared, and the Dice of the two, 0 where there is none.
    """
    known = {plain(question) for question in dataset}
    asked = dict.fromkeys(item.question for item in items if item.question)
    nearest = _nearest([question for question in asked if plain(question) not in known], list(dataset))
    found = {
        i: nearest[item.question][:2]
        for i, item in enumerate(items)
        if item.question in nearest and not nearest[item.question][2]
    }
    for copy in copies:  # in the items' order of precedence; the edited one of the two may stand first
        if copy.item not in found or copy.other not in found:
            found.pop(copy.item, None)
            found.pop(copy.other, None)
    return found


def _nearest(unknown: list[str], dataset: list[str]) -> dict[str, tuple[str | None, float, bool]]:
    """Return for each unknown question the dataset's nearest, their Dice, and whether one is an edited copy."""
    nearest: dict[str, tuple[str | None, float, bool]] = {question: (None, 0.0, False) for question in unknown}
    texts = [*dataset, *unknown]
    pairs = candidate_pairs(texts, first=len(dataset))
    likeness = compare(texts, pairs)
    copies = (likeness.dice >= EDITED) & (likeness.numbers == 1)
    copies |= (likeness.dice >= EDITED_NUMBER) & (likeness.numbers >= EDITED_SAME_NUMBERS)
    copies |= (likeness.contained >= DATASETS_CONTAINED) & (likeness.numbers_contained == 1) & (likeness.ratio >= 1 / 2)
    for pair in np.argsort(likeness.dice, kind="stable"):
        question = texts[pairs[0][pair]]
        copied = bool(copies[pair]) or nearest[question][2]
        nearest[question] = (texts[pairs[1][pair]], round(float(likeness.dice[pair]), 3), copied)
    return nearest
