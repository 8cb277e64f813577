"""The labels that each damage determines, as data.

A label stands only where the damage decides it: an aspect that the damage leaves as the gold solution has it keeps 5,
an aspect that it breaks gets the level which the published rubrics describe, and an aspect on which its effect is a
matter of opinion has none (None). The exact level among the low ones is a convention; that it is low is not.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class DamageLabels:
    """What one damage of one degree says about a response.

    Attributes:
        semantic_consistency: 1-5, or None where the damage does not decide it; so for the next four.
        logicality: 1-5.
        informativeness: 1-5.
        fluency: 1-5.
        factuality: 1-5.
        correctness: 1 or 0: whether the stated final answer is right.
        reason: Why the labels are these.
    """

    semantic_consistency: int | None
    logicality: int | None
    informativeness: int | None
    fluency: int | None
    factuality: int | None
    correctness: int
    reason: str

    def scores(self) -> dict[str, int | None]:
        """Return the labels by aspect."""
        return {aspect: getattr(self, aspect) for aspect in ASPECTS}


ASPECTS = ("semantic_consistency", "logicality", "informativeness", "fluency", "factuality", "correctness")

_SLIP = "one result is false, the rest uses the right one: a small mistake in otherwise sound steps"
_CARRIED = "one result is false and all that follows builds on it, so the answer is false; givens and text are kept"
_GIVEN = "numbers of the question are replaced and all is recomputed: the steps are valid, what they start from is not"
_INVENTED = "a quantity that the question does not give is asserted; the steps themselves are kept"
_DROPPED = "steps that later ones need are missing; what is left is true and says the right answer"
_REORDERED = "steps use results before they are derived; each sentence is kept as it was"
_GARBLED = "words are misspelt, missing or shuffled; numbers and the answer are kept"
_TRUNCATED = "the text ends before the answer is derived or stated; what is there is right as far as it goes"

LABELS = MappingProxyType(
    {
        # (kind, degree): semantic_consistency, logicality, informativeness, fluency, factuality, correctness, reason
        ("clean", 0): DamageLabels(5, 5, 5, 5, 5, 1, "the gold solution"),
        ("arithmetic_slip", 1): DamageLabels(5, 3, 5, 5, 4, 1, f"{_SLIP}; the slip is small"),
        ("arithmetic_slip", 2): DamageLabels(5, 3, 5, 5, 3, 1, f"{_SLIP}; the slip is plain"),
        ("arithmetic_slip", 3): DamageLabels(5, 2, 5, 5, 3, 1, f"{_SLIP}; the slip is gross"),
        ("arithmetic_slip_carried", 1): DamageLabels(5, 3, 5, 5, 3, 0, f"{_CARRIED}; the slip is small"),
        ("arithmetic_slip_carried", 2): DamageLabels(5, 2, 5, 5, 2, 0, f"{_CARRIED}; the slip is plain"),
        ("arithmetic_slip_carried", 3): DamageLabels(5, 2, 5, 5, 2, 0, f"{_CARRIED}; the slip is gross"),
        ("contradicted_given", 1): DamageLabels(2, 5, 5, 5, 2, 0, f"{_GIVEN}; one number, by a little"),
        ("contradicted_given", 2): DamageLabels(2, 5, 5, 5, 2, 0, f"{_GIVEN}; one number, grossly"),
        ("contradicted_given", 3): DamageLabels(1, 5, 5, 5, 1, 0, f"{_GIVEN}; two numbers"),
        ("invented_fact", 1): DamageLabels(3, None, 5, 5, 3, 1, f"{_INVENTED}; one, which nothing uses"),
        ("invented_fact", 2): DamageLabels(2, None, 5, 5, 2, 1, f"{_INVENTED}; two, which nothing uses"),
        ("invented_fact", 3): DamageLabels(1, None, 5, 5, 1, 0, f"{_INVENTED}; the answer is computed with it"),
        ("dropped_step", 1): DamageLabels(None, 3, 3, 5, 5, 1, f"{_DROPPED}; one step"),
        ("dropped_step", 2): DamageLabels(None, 2, 2, 5, 5, 1, f"{_DROPPED}; two steps"),
        ("dropped_step", 3): DamageLabels(None, 2, 2, 5, 5, 1, f"{_DROPPED}; three steps"),
        ("reordered_steps", 1): DamageLabels(5, 3, None, None, 5, 1, f"{_REORDERED}; two neighbours change places"),
        ("reordered_steps", 2): DamageLabels(5, 2, None, None, 5, 1, f"{_REORDERED}; shuffled"),
        ("reordered_steps", 3): DamageLabels(5, 1, None, None, 5, 1, f"{_REORDERED}; reversed"),
        ("garbled_language", 1): DamageLabels(None, None, None, 3, None, 1, f"{_GARBLED}; typos in some words"),
        ("garbled_language", 2): DamageLabels(None, None, None, 2, None, 1, f"{_GARBLED}; typos, little words missing"),
        ("garbled_language", 3): DamageLabels(None, None, None, 1, None, 1, f"{_GARBLED}; words in random order"),
        ("answer_only", 1): DamageLabels(None, None, 1, None, None, 1, "a sentence with the answer, no derivation"),
        ("answer_only", 2): DamageLabels(None, None, 1, None, None, 1, "the bare answer, no derivation"),
        ("truncated", 1): DamageLabels(None, None, 3, None, None, 0, f"{_TRUNCATED}; the end is missing"),
        ("truncated", 2): DamageLabels(None, None, 2, None, None, 0, f"{_TRUNCATED}; the second half is missing"),
        ("truncated", 3): DamageLabels(None, None, 2, None, None, 0, f"{_TRUNCATED}; most is missing"),
        ("off_topic", 1): DamageLabels(1, None, 1, 5, None, 0, "the solution of another question"),
    }
)

KINDS = tuple(dict.fromkeys(kind for kind, _ in LABELS))


def degrees(kind: str) -> list[int]:
    """Return the degrees that a kind has, ascending."""
    return sorted(degree for name, degree in LABELS if name == kind)
