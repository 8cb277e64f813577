"""From steps to a response, in one of many forms, so that no form goes with a label."""

import random
import re
from dataclasses import dataclass

from .damage import Damaged

_LEADS = ("", "", "", "Let's solve this step by step.", "Let's break it down.", "Here is the solution.")
_CLOSINGS = (
    "The answer is {}.",
    "So the answer is {}.",
    "Therefore, the answer is {}.",
    "The final answer is {}.",
    "Answer: {}",
    "Final answer: {}",
    "#### {}",
    "The answer is \\boxed{{{}}}.",
)
_SEPARATORS = ("\n", "\n", "\n\n", " ")
_ENDING = re.compile(r"[.!?:,;]$")


@dataclass(frozen=True)
class Style:
    """How a response is laid out.

    Attributes:
        lead: What comes before the steps; may be empty.
        separator: What stands between steps.
        numbered: Whether steps are numbered.
        closing: The sentence that states the answer, with a {} for it.
    """

    lead: str
    separator: str
    numbered: bool
    closing: str


def random_style(rng: random.Random) -> Style:
    """Choose a form."""
    separator = rng.choice(_SEPARATORS)
    numbered = separator != " " and rng.random() < 0.25
    return Style(rng.choice(_LEADS), separator, numbered, rng.choice(_CLOSINGS))


def render(damaged: Damaged, style: Style) -> str:
    """Write steps and answer as a response."""
    answer = damaged.final
    if answer is not None and "\\" in answer and "boxed" not in style.closing:
        answer = f"${answer}$"
    if answer is not None and damaged.bare:
        return answer
    closing = [] if answer is None else [style.closing.format(answer)]
    if not damaged.lines:
        return "".join(closing)
    cut = answer is None
    lines = [line if _ENDING.search(line) else f"{line}." for line in damaged.lines[:-1]]
    last = damaged.lines[-1]
    lines.append(last if cut or _ENDING.search(last) else f"{last}.")
    if style.numbered:
        lines = [f"{i}. {line}" for i, line in enumerate(lines, 1)]
    return style.separator.join([*([style.lead] if style.lead else []), *lines, *closing])
