"""What a judge is asked to look at: rubrics of five aspects and of seven criteria, and of any that a config adds."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from inspector_pipeline.errors import SettingsError


@dataclass(frozen=True)
class Rubric:
    """One aspect and its scale.

    Attributes:
        name: The aspect's name.
        description: What is looked at, in a sentence or two.
        lowest: Lowest score.
        highest: Highest score.
        levels: Score -> what deserves it; not every score needs an entry.
        values: Every score of a scale with gaps, ascending, such as 0, 25, 50, 75 and 100; lowest and highest are then
            its ends. None of them: every whole number from lowest to highest.
    """

    name: str
    description: str
    lowest: int = 1
    highest: int = 5
    levels: dict[int, str] = field(default_factory=dict)
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Take the ends from the values; refuse a scale of one score, and levels outside it.

        Raises:
            SettingsError: The rubric is none.
        """
        if self.values:
            if list(self.values) != sorted(set(self.values)):
                raise SettingsError(f"The rubric of {self.name} expects ascending values, but got {self.values}.")
            object.__setattr__(self, "lowest", self.values[0])
            object.__setattr__(self, "highest", self.values[-1])
        if not self.name.strip() or not self.lowest < self.highest:
            raise SettingsError(
                f"A rubric expects a name and lowest < highest, but got {self.name!r}, {self.lowest} and "
                f"{self.highest}."
            )
        outside = [score for score in self.levels if score not in self.scores]
        if outside:
            where = f"at {self.form}" if self.values else f"from {self.lowest} to {self.highest}"
            raise SettingsError(f"The rubric of {self.name} expects levels {where}, but got {outside[0]}.")

    @property
    def scores(self) -> list[int]:
        """Every score of the scale, ascending."""
        return list(self.values or range(self.lowest, self.highest + 1))

    @property
    def form(self) -> str:
        """What a score is, for those who are asked for one."""
        if self.values:
            return f"one of {', '.join(map(str, self.values))}"
        return f"integer from {self.lowest} to {self.highest}"


_ASPECTS = {
    # aspect: (what is looked at, what deserves 1 to 5, what deserves 0 and 1)
    "semantic_consistency": (
        "Does every step of the response stay with what the question says and asks, and with the steps before "
        "it? Look for quantities, names or conditions that change their meaning on the way, and for another "
        "question being answered than the one asked. Whether outside facts are right does not matter here.",
        (
            "Has little to do with the question, or contradicts it from the start.",
            "Takes up the question but misreads a central quantity or condition.",
            "Follows the main line; a condition is lost or a quantity changes its meaning on the way.",
            "Consistent but for a slip that changes nothing of substance.",
            "Every statement agrees with the question and with all the others.",
        ),
        (
            "Somewhere the response departs from the question or from itself in a way that matters.",
            "It does so nowhere.",
        ),
    ),
    "logicality": (
        "Does each step follow from the question and the steps before it? Look for wrong inferences, wrong "
        "arithmetic, missing steps that the conclusion needs, contradictions, and a conclusion that the steps "
        "do not support.",
        (
            "No recognisable line of reasoning, or one that is wrong throughout.",
            "Some steps hold, but a serious error carries the conclusion.",
            "Sound in outline, with an error or a gap that a reader must repair.",
            "Every step that matters is sound; a minor one is loose or skipped.",
            "Each step follows and together they lead to the conclusion.",
        ),
        (
            "A step that matters is wrong, missing or does not follow.",
            "All steps that matter are there and follow.",
        ),
    ),
    "informativeness": (
        "Does the response give what a reader needs to follow the solution and use its answer, and little else?"
        " Look for missing reasons or a missing answer on the one side, and repetition and padding on the "
        "other.",
        (
            "Gives nothing that helps: empty, off the subject or endless repetition.",
            "Gives a fragment; most of what is needed is missing or buried.",
            "Gives the main points, but leaves out something useful or pads a lot.",
            "Gives all that is needed, slightly too short or too long.",
            "Gives all that is needed, in full and without waste.",
        ),
        (
            "Something needed is missing, or it is lost in padding.",
            "What is needed is there, without much waste.",
        ),
    ),
    "fluency": (
        "Is the response well-formed, readable text in its language, with clear sentences and correct notation?"
        " Judge the writing only: a wrong answer may be written fluently.",
        (
            "Cannot be read as text.",
            "Hard to read: broken sentences or notation in most places.",
            "Understandable, with frequent errors or clumsy passages.",
            "Reads well, with a rare error.",
            "Clear, correct and natural throughout.",
        ),
        (
            "Errors in the writing get in the reader's way.",
            "It reads well.",
        ),
    ),
    "factuality": (
        "Are the statements of the response true: the facts it takes from the question, the general knowledge "
        "and formulas it uses, the results it computes, and its final answer?",
        (
            "Nearly everything stated is false.",
            "A central statement or the final answer is false, and so is much that leads to it.",
            "True and false statements are mixed; the final answer is false or cannot be relied on.",
            "The final answer is right; a side statement is inexact.",
            "Every statement that can be checked is true, the final answer too.",
        ),
        (
            "A statement that matters, or the final answer, is false.",
            "All statements that matter, and the final answer, are true.",
        ),
    ),
}
FIVE_LEVELS = {
    name: Rubric(name, description, 1, 5, dict(enumerate(five, start=1)))
    for name, (description, five, _) in _ASPECTS.items()
}
TWO_LEVELS = {
    name: Rubric(name, description, 0, 1, dict(enumerate(two))) for name, (description, _, two) in _ASPECTS.items()
}
# The seven criteria by which LAGER's study selects instruction data, on its nine levels; the words are this project's.
_CRITERIA = {
    # criterion: (what is looked at, what deserves 1, 5 and 9)
    "answer_accuracy": (
        "Is what the response says right, and does it do what the instruction asks for?",
        ("Wrong, or it does something else.", "Right in part, with a flaw that matters.", "Right in every point."),
    ),
    "logical_consistency": (
        "Do the statements of the response fit each other and follow from one another, without a gap or contradiction?",
        ("It contradicts itself or cannot be followed.", "It hangs together, with a gap.", "Every step follows."),
    ),
    "relevance": (
        "Does the response keep to what the instruction is about, and leave out what has no part in it?",
        (
            "Off the subject.",
            "On the subject, with parts that have nothing to do with it.",
            "All of it serves it.",
        ),
    ),
    "fluency_and_clarity": (
        "Is the response well written and easy to understand: its sentences, its order, its notation?",
        ("Hard to read at all.", "Understandable, and clumsy in places.", "Clear and natural throughout."),
    ),
    "length_appropriateness": (
        "Is the response as long as the instruction calls for, neither cut short nor drawn out?",
        ("Far too short or far too long.", "Somewhat too short or too long.", "Just as long as it should be."),
    ),
    "diversity": (
        "How varied is what can be learnt from instruction and response together: in words, forms, views, kinds "
        "of content? What has been said a thousand times in the same way deserves little.",
        ("A stock phrase.", "Usual matter in usual words, with some variety.", "Rich, and unlike the usual."),
    ),
    "instruction_difficulty": (
        "How much knowledge, care or reasoning does it take to answer well? The response itself does not count.",
        ("Anyone answers it at once.", "It takes some knowledge or a few steps.", "It is hard for an expert."),
    ),
}
CRITERIA = {
    name: Rubric(name, description, 1, 9, dict(zip((1, 5, 9), words, strict=True)))
    for name, (description, words) in _CRITERIA.items()
}
Scale = Literal["1-5", "0-1", "1-9"]
SCALES: dict[Scale, dict[str, Rubric]] = {"1-5": FIVE_LEVELS, "0-1": TWO_LEVELS, "1-9": CRITERIA}


def chosen_rubrics(names: Iterable[str], scale: Scale, custom: Iterable[Rubric]) -> list[Rubric]:
    """Collect the rubrics that a config names.

    Args:
        names: Of the five aspects, or of the seven criteria.
        scale: Theirs: `1-5` or `0-1` of aspects, `1-9` of criteria.
        custom: Further rubrics.

    Raises:
        SettingsError: A name is unknown or doubled, or there is no rubric at all.
    """
    known = SCALES[scale]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(
            f"aspects expects names out of {', '.join(known)}, but got {unknown[0]!r}. Describe other aspects in "
            "custom_aspects."
        )
    rubrics = [*(known[name] for name in names), *custom]
    doubled = {rubric.name for rubric in rubrics if sum(other.name == rubric.name for other in rubrics) > 1}
    if doubled or not rubrics:
        raise SettingsError(f"aspects and custom_aspects expect distinct aspects, but got {sorted(doubled) or 'none'}.")
    return rubrics
