"""Responses made by damaging gold solutions: the kinds of damage, the labels that each determines, and how they look.

A label stands only where the damage decides it: an aspect that the damage leaves as the gold solution has it keeps 5,
an aspect that it breaks gets the level which the published rubrics describe, and an aspect on which its effect is a
matter of opinion has none (None). The exact level among the low ones is a convention; that it is low is not.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row

from . import arithmetic, steps
from .rationale import Damage, Damaged, Rationale, Source, read_rationale

ASPECTS = ("semantic_consistency", "logicality", "informativeness", "fluency", "factuality", "correctness")
DAMAGES: Mapping[str, Damage] = {
    "clean": steps.clean,
    "arithmetic_slip": arithmetic.arithmetic_slip,
    "arithmetic_slip_carried": arithmetic.arithmetic_slip_carried,
    "contradicted_given": arithmetic.contradicted_given,
    "invented_fact": steps.invented_fact,
    "dropped_step": steps.dropped_step,
    "reordered_steps": steps.reordered_steps,
    "garbled_language": steps.garbled_language,
    "answer_only": steps.answer_only,
    "truncated": steps.truncated,
    "off_topic": steps.off_topic,
}
WEIGHTS = {"answer_only": 0.5, "off_topic": 0.3, "truncated": 0.6}
"""How soon a kind is tried, against 1 for the rest: these always apply and are the easiest to tell."""


@dataclass(frozen=True)
class DamageLabels:
    """What one damage of one degree says about a response.

    Attributes:
        scores: Aspect -> 1 to 5, or None where the damage does not decide it; correctness, whether the stated final
            answer is right, is 1 or 0.
        reason: Why the labels are these.
    """

    scores: dict[str, int | None]
    reason: str


_WHY: dict[str, tuple[str, dict[int, tuple[int | None, int | None, int | None, int | None, int | None, int, str]]]] = {
    # kind: why, degree: semantic_consistency, logicality, informativeness, fluency, factuality, correctness, what
    "clean": ("", {0: (5, 5, 5, 5, 5, 1, "the gold solution")}),
    "arithmetic_slip": (
        "one result is false, the rest uses the right one: a small mistake in otherwise sound steps",
        {
            1: (5, 3, 5, 5, 4, 1, "the slip is small"),
            2: (5, 3, 5, 5, 3, 1, "the slip is plain"),
            3: (5, 2, 5, 5, 3, 1, "the slip is gross"),
        },
    ),
    "arithmetic_slip_carried": (
        "one result is false and all that follows builds on it, so the answer is false; givens and text are kept",
        {
            1: (5, 3, 5, 5, 3, 0, "the slip is small"),
            2: (5, 2, 5, 5, 2, 0, "the slip is plain"),
            3: (5, 2, 5, 5, 2, 0, "the slip is gross"),
        },
    ),
    "contradicted_given": (
        "numbers of the question are replaced and all is recomputed: the steps are valid, what they start from is not",
        {
            1: (2, 5, 5, 5, 2, 0, "one number, by a little"),
            2: (2, 5, 5, 5, 2, 0, "one number, grossly"),
            3: (1, 5, 5, 5, 1, 0, "two numbers"),
        },
    ),
    "invented_fact": (
        "a quantity that the question does not give is asserted; the steps themselves are kept",
        {
            1: (3, None, 5, 5, 3, 1, "one, which nothing uses"),
            2: (2, None, 5, 5, 2, 1, "two, which nothing uses"),
            3: (1, None, 5, 5, 1, 0, "the answer is computed with it"),
        },
    ),
    "dropped_step": (
        "steps that later ones need are missing; what is left is true and says the right answer",
        {
            1: (None, 3, 3, 5, 5, 1, "one step"),
            2: (None, 2, 2, 5, 5, 1, "two steps"),
            3: (None, 2, 2, 5, 5, 1, "three steps"),
        },
    ),
    "reordered_steps": (
        "steps use results before they are derived; each sentence is kept as it was",
        {
            1: (5, 3, None, None, 5, 1, "two neighbours change places"),
            2: (5, 2, None, None, 5, 1, "shuffled"),
            3: (5, 1, None, None, 5, 1, "reversed"),
        },
    ),
    "garbled_language": (
        "words are misspelt, missing or shuffled; numbers and the answer are kept",
        {
            1: (None, None, None, 3, None, 1, "typos in some words"),
            2: (None, None, None, 2, None, 1, "typos, little words missing"),
            3: (None, None, None, 1, None, 1, "words in random order"),
        },
    ),
    "answer_only": (
        "",
        {
            1: (None, None, 1, None, None, 1, "a sentence with the answer, no derivation"),
            2: (None, None, 1, None, None, 1, "the bare answer, no derivation"),
        },
    ),
    "truncated": (
        "the text ends before the answer is derived or stated; what is there is right as far as it goes",
        {
            1: (None, None, 3, None, None, 0, "the end is missing"),
            2: (None, None, 2, None, None, 0, "the second half is missing"),
            3: (None, None, 2, None, None, 0, "most is missing"),
        },
    ),
    "off_topic": ("", {1: (1, None, 1, 5, None, 0, "the solution of another question")}),
}
LABELS = {
    (kind, degree): DamageLabels(dict(zip(ASPECTS, scores, strict=True)), f"{why}; {what}" if why else what)
    for kind, (why, degrees) in _WHY.items()
    for degree, (*scores, what) in degrees.items()
}
"""(kind, degree), degrees ascending -> the labels that the damage determines."""

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
    """How a response is laid out: one of many forms, so that no form goes with a label.

    Attributes:
        separator: What stands between steps.
        numbered: Whether steps are numbered.
        lead: What comes before the steps; may be empty.
        closing: The sentence that states the answer, with a {} for it.
    """

    separator: str
    numbered: bool
    lead: str
    closing: str


def random_style(rng: random.Random) -> Style:
    """Choose a form."""
    separator = rng.choice(_SEPARATORS)
    numbered = separator != " " and rng.random() < 0.25
    return Style(separator, numbered, rng.choice(_LEADS), rng.choice(_CLOSINGS))


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
    cut_off = len(damaged.lines) if answer is None else 0  # the last line then ends as it stands
    lines = [
        line if i == cut_off or _ENDING.search(line) else f"{line}." for i, line in enumerate(damaged.lines, start=1)
    ]
    if style.numbered:
        lines = [f"{i}. {line}" for i, line in enumerate(lines, start=1)]
    return style.separator.join([*([style.lead] if style.lead else []), *lines, *closing])


def corrupted_rows(
    questions: Iterable[Row], n_questions: int, per_question: int, seed: int
) -> tuple[list[Row], Counter[str]]:
    """Make damaged responses of questions.

    Args:
        questions: Question rows.
        n_questions: How many to take; a smaller number takes a part of a larger one's.
        per_question: Responses a question.
        seed: The seed.

    Returns:
        Labelled rows; and how many rows each kind and degree gave ("kind:degree"), and how often a kind did not apply
        ("skipped kind").

    Raises:
        DataFileError: Two questions share an id, or none has a gold solution.
    """
    read: dict[str, tuple[Row, Rationale | None]] = {}
    for row in questions:
        if str(row["id"]) in read:
            raise DataFileError(f"The questions expect one row an id, but {row['id']!r} names two. Remove one.")
        read[str(row["id"])] = row, read_rationale(row)
    usable = {name: (row, rationale) for name, (row, rationale) in read.items() if rationale}
    if not usable:
        raise DataFileError("Expected questions with an answer, the gold solution, but none has one.")
    counts = Counter({"skipped question without gold solution": len(read) - len(usable)})
    ranked = sorted(usable, key=lambda name: _digest(seed, name))
    rows: list[Row] = []
    for name in hf_logging.tqdm(ranked[:n_questions], desc="corrupt"):
        row, rationale = usable[name]
        _, donor = usable[ranked[_digest(seed, name, "donor") % len(ranked)]]
        source, made = Source(row["question"], rationale, donor), 0
        for kind in _kinds(seed, name):
            if made == per_question:
                break
            damaged = damaged_row(row, source, kind, seed)
            if damaged is None:
                counts[f"skipped {kind}"] += 1
                continue
            rows.append({**damaged, "sample": made})
            counts[f"{kind}:{damaged['damage']['degree']}"] += 1
            made += 1
    return rows, counts


def damaged_row(question: Row, source: Source, kind: str, seed: int) -> Row | None:
    """Damage one gold solution.

    Args:
        question: The question's row.
        source: Its gold solution, and another question's.
        kind: One of DAMAGES.
        seed: The seed.

    Returns:
        A labelled row, its sample number 0; None where the kind applies in no degree or would change nothing.
    """
    rng = random.Random(f"{seed}:{question['id']}:{kind}")
    style = random_style(rng)
    degrees = [degree for name, degree in LABELS if name == kind]
    rng.shuffle(degrees)
    undamaged = render(steps.clean(source, 0, rng), style)
    for degree in degrees:
        damaged = DAMAGES[kind](source, degree, rng)
        if damaged is None or (kind != "clean" and render(damaged, style) == undamaged):
            continue
        return {
            **{key: value for key, value in question.items() if key != "answer"},
            "sample": 0,
            "prediction": render(damaged, style),
            "generator": f"corrupt:{kind}:{degree}",
            "auxiliary": True,
            "scores": LABELS[kind, degree].scores,
            "damage": {"kind": kind, "degree": degree, "detail": damaged.detail},
        }
    return None


def _kinds(seed: int, name: str) -> list[str]:
    """Return the kinds in the order in which a question tries them: first clean, then all others at random."""
    rng = random.Random(f"{seed}:{name}")
    rank = {kind: rng.random() ** (1 / WEIGHTS.get(kind, 1.0)) for kind in DAMAGES}
    return ["clean", *sorted((kind for kind in DAMAGES if kind != "clean"), key=rank.__getitem__, reverse=True)]


def _digest(seed: int, *parts: str) -> int:
    return int.from_bytes(hashlib.sha256(":".join([str(seed), *parts]).encode()).digest()[:8], "big")
