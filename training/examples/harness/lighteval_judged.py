"""A task of lighteval whose metric is a judge: a model answers open questions, the judge scores its answers.

    INSPECTOR_JUDGE=org/inspector-gsm8k-multi INSPECTOR_QUESTIONS=FOLDER lighteval accelerate model_name=MODEL \
        inspector_judged --custom-tasks training/examples/harness/lighteval_judged.py

Written for lighteval 0.13.0. Without a judge the embedded one scores. FOLDER is a dataset, on the Hub or here, with
`question` in its split `train`. Blank answers have no score: the mean is of the others.
"""

import os
from typing import Any

from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod
from numpy import nanmean

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.pairs import is_blank


class ExpectedTotal(SampleLevelComputation):
    """The total of a judge's expected scores, of all answers in one go."""

    def compute(self, responses: list[Any], docs: list[Doc], **_kwargs: Any) -> list[float]:
        """Return a number for each answer, NaN for a blank one."""
        answers = [response.final_text[0] for response in responses]
        pairs = [{"question": doc.query, "prediction": answer} for doc, answer in zip(docs, answers, strict=True)]
        judge, asked = load_judge(os.environ.get("INSPECTOR_JUDGE") or None), [not is_blank(text) for text in answers]
        results = iter(judge([pair for pair, is_asked in zip(pairs, asked, strict=True) if is_asked]))
        return [next(results)["expected_total"] if is_asked else float("nan") for is_asked in asked]


def ask(line: dict[str, Any], task_name: str) -> Doc:
    """Ask a row's question."""
    return Doc(query=line["question"], choices=[""], gold_index=0, task_name=task_name)


METRIC = SampleLevelMetric(
    metric_name="expected_total",
    higher_is_better=True,
    category=SamplingMethod.GENERATIVE,
    sample_level_fn=ExpectedTotal(),
    corpus_level_fn=nanmean,
    batched_compute=True,
)
TASKS_TABLE = [
    LightevalTaskConfig(
        name="inspector_judged",
        prompt_function=ask,
        hf_repo=os.environ.get("INSPECTOR_QUESTIONS", "."),
        hf_subset="default",
        evaluation_splits=["train"],
        metrics=[METRIC],
        generation_size=512,
        stop_sequence=[],
    )
]
