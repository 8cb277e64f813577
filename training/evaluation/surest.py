"""Of what a judge is surest: the highest rows, and the decisions between two answers to a question by their margin."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .metrics import Array, Index, Mask, Ties

SURE = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))


def top_right(value: Array, right: Array | Mask, weights: Array, shares: Sequence[float]) -> Array:
    """Return the share right among the highest, (resamples, shares); of those tied at the border a share counts.

    Args:
        value: (rows,).
        right: (rows,) 0 to 1.
        weights: (resamples, rows).
        shares: Of all rows, by weight.
    """
    ties = Ties.of(-value)
    mass, good = ties.mass(weights), ties.mass(weights * right)
    before, total = mass.cumsum(axis=1) - mass, mass.sum(axis=1)
    columns = []
    for share in shares:
        taken = np.clip(share * total[:, None] - before, 0, mass)
        columns.append((taken * good / np.where(mass > 0, mass, 1)).sum(axis=1) / (share * total))
    return np.column_stack(columns)


class Decisions(NamedTuple):
    """All pairs of a right and a wrong answer to one question.

    Attributes:
        question: (pairs,) a place in the questions.
        won: (pairs,) 1 where the right one is higher, 0.5 where they are equal, else 0.
        margin: (pairs,) the size of the difference.
    """

    question: Index
    won: Array
    margin: Array


def decisions(question: Index, right: Mask, value: Array) -> Decisions:
    """Compare every right answer to a question with every wrong one.

    Args:
        question: (rows,) a place in the questions.
        right: (rows,) whether the answer is right.
        value: (rows,) what the higher answer is chosen by.
    """
    places, differences = [], []
    for place, rows in enumerate(rows_of(question)):
        own = right[rows]
        differences.append(np.subtract.outer(value[rows][own], value[rows][~own]).ravel())
        places.append(np.full(differences[-1].size, place))
    difference = np.concatenate(differences)
    won = (difference > 0) + (difference == 0) / 2
    return Decisions(np.concatenate(places), won, np.abs(difference))


def rows_of(question: Index) -> list[Index]:
    """Return the rows of each question, from the first place on."""
    order = np.argsort(question, kind="stable")
    return np.split(order, np.cumsum(np.bincount(question))[:-1])
