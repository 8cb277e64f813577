"""The five aspects' rubrics as readings, in this project's own words.

A probe of the published form reads a pair inside its aspect's rubric. The rubrics that published classifiers were
fitted in stand in their labels' file and are read from there; the own ones are made of what a teacher is told here.
"""

from inspector_pipeline.template import PREDICTION_MARK, QUESTION_MARK, PairTemplate

from .rubrics import FIVE_LEVELS, Rubric

OWN = "own"


def own_readings() -> dict[str, PairTemplate]:
    """Return the five aspects' rubrics in this project's own words, in plain text, in published order."""
    return {name: rubric_reading(rubric) for name, rubric in FIVE_LEVELS.items()}


def rubric_reading(rubric: Rubric) -> PairTemplate:
    """Put a rubric around a pair: what is looked at, what deserves each score, the pair, and what is wanted."""
    levels = "\n".join(f"{score}: {words}" for score, words in sorted(rubric.levels.items(), reverse=True))
    name = rubric.name.replace("_", " ")
    return PairTemplate.from_template(
        f"Here are a question and a response to it. One aspect of the response is scored: its {name}.\n"
        f"{rubric.description}\n{levels}\n\n"
        f"Question:\n{QUESTION_MARK}\n\nResponse:\n{PREDICTION_MARK}\n\n"
        f"Score of the response's {name}, {rubric.form}:"
    )
