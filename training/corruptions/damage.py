"""What a damage takes and gives."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from .rationale import Rationale


@dataclass(frozen=True)
class Source:
    """What a response is made from.

    Attributes:
        question: The question's text.
        rationale: Its gold solution.
        donor: The gold solution of another question.
    """

    question: str
    rationale: Rationale
    donor: Rationale


@dataclass(frozen=True)
class Damaged:
    """A damaged solution.

    Attributes:
        lines: Its steps, without marks; empty for a bare answer.
        final: The final answer that it states; None where it states none.
        detail: What was done, for people.
        bare: Whether the final answer stands alone, without a sentence.
    """

    lines: tuple[str, ...]
    final: str | None
    detail: str
    bare: bool = False


Damage = Callable[[Source, int, random.Random], Damaged | None]
"""Damages a solution to a degree; None where that is not possible."""
