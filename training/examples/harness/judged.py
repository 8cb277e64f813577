"""What `inspector_judged.yaml` calls: its questions, and a judge as its metric."""

import os
from functools import lru_cache
from typing import Any

import datasets

from inspector_pipeline.api.load import EXAMPLES, load_judge
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.pairs import is_blank
from inspector_pipeline.pipeline_inspector import InspectorPipeline

JUDGE_VARIABLE = "INSPECTOR_JUDGE"

Item = tuple[str, str] | None


@lru_cache(maxsize=1)
def judge() -> InspectorPipeline:
    """Load the judge that the environment names, once."""
    return load_judge(os.environ.get(JUDGE_VARIABLE) or None)


def load_questions(questions: str | None = None, **metadata: Any) -> dict[str, datasets.Dataset]:
    """Read the questions to ask, each once.

    Args:
        questions: File of rows with `question`; None for the package's examples.
        **metadata: Ignored; the harness passes the task's own.

    Returns:
        The split `test`.
    """
    rows = read_rows(questions or str(EXAMPLES))
    distinct = dict.fromkeys(row["question"] for row in rows)
    return {"test": datasets.Dataset.from_dict({"question": list(distinct)})}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Hand on a question with the model's answer; a blank answer has no score and is counted instead.

    Args:
        doc: A row with `question`.
        results: The one answer.

    Returns:
        What is aggregated, by metric.
    """
    (answer,) = results
    blank = is_blank(answer)
    return {"expected_total": None if blank else (doc["question"], answer), "blank": float(blank)}


def mean_expected_total(items: list[Item]) -> float:
    """Score all answers in one go, and average the totals of their expected scores.

    Args:
        items: A (question, answer) for each document, None where the answer was blank.

    Returns:
        The mean; NaN where every answer was blank.
    """
    pairs = [{"question": item[0], "prediction": item[1]} for item in items if item is not None]
    if not pairs:
        return float("nan")
    counting = [aspect.name for aspect in judge().model.aspects if aspect.counts_in_total]
    totals: list[float] = [sum(result["expected"][name] for name in counting) for result in judge()(pairs)]
    return sum(totals) / len(totals)
