"""A task of inspect_ai whose scorer is a judge: a model answers open questions, the judge scores its answers.

    inspect eval training/examples/harness/inspect_judged.py --model hf/MODEL -T judge=org/inspector-gsm8k-multi

Written for inspect_ai 0.3.285. Without a judge the embedded one scores; without questions, the package's are asked. A
blank answer has no score, which inspect_ai leaves out of the mean and counts.
"""

import asyncio

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from inspector_pipeline.api.load import EXAMPLES, load_judge
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.pairs import is_blank


@scorer(metrics=[mean(), stderr()])
def inspector(judge: str | None = None) -> Scorer:
    """Score an answer by the total of a judge's expected scores; every aspect's stands in the sample's metadata."""
    loaded = load_judge(judge)

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        if is_blank(answer):
            return Score.unscored(reason="a blank answer")
        result = await asyncio.to_thread(loaded, {"question": state.input_text, "prediction": answer})
        return Score(value=result["expected_total"], answer=answer, metadata=result["expected"])

    return score


@task
def judged(judge: str | None = None, questions: str | None = None) -> Task:
    """Ask each of a file's questions once."""
    distinct = dict.fromkeys(row["question"] for row in read_rows(questions or str(EXAMPLES)))
    return Task(dataset=MemoryDataset([Sample(input=text) for text in distinct]), scorer=inspector(judge))
