"""LAGER's own rows, which are whole prompts with their rubrics within, and the judge that reads them as they are."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_rows
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PREDICTION_MARK, QUESTION_MARK, PairTemplate

from .judge import Asked, BackboneSpec, ScoreStates, build_lager
from .logits import Unembedding
from .prompts import ANSWER, score_reading, task_reading

PROMPT = "prompt"  # the aspect that whole prompts are read as


@dataclass(frozen=True)
class PromptRow:
    """A row of LAGER's own files: a whole prompt, its rubric within, and the score that people gave.

    Attributes:
        user_prompt: Asks for the score alone.
        user_prompt_feedback: Asks for feedback first; None where the row has none.
        score: The score, the mean where several people gave one; None where nobody did.
    """

    user_prompt: str
    user_prompt_feedback: str | None
    score: float | None

    def as_pair(self, *, feedback: bool = False) -> tuple[str, str]:
        """Cut a prompt into two texts, for a reading that puts them together again."""
        prompt = (self.user_prompt_feedback or "") if feedback else self.user_prompt
        half = len(prompt) // 2
        return prompt[:half], prompt[half:]


def read_prompt_rows(path: str | Path, *, unscored: bool = False) -> list[PromptRow]:
    """Read a file of `{"user_prompt", "user_prompt_feedback", "score"}`, in any table format.

    Args:
        path: The file.
        unscored: Whether rows may lack a score.

    Raises:
        DataFileError: It cannot be read, or a row lacks a prompt or a score that is a number or a list of numbers.
    """
    return prompt_rows(read_rows(str(path)), path, unscored=unscored)


def prompt_rows(rows: Sequence[Row], path: str | Path, *, unscored: bool = False) -> list[PromptRow]:
    """Do the same for rows that were read already."""
    return [_prompt_row(row, f"{path}: row {i}", unscored=unscored) for i, row in enumerate(rows)]


def _prompt_row(row: dict[str, Any], where: str, *, unscored: bool) -> PromptRow:
    prompt, feedback, score = (row.get(key) for key in ("user_prompt", "user_prompt_feedback", "score"))
    for key, text in (("user_prompt", prompt), ("user_prompt_feedback", feedback)):
        blank = not isinstance(text, str) or len(text.strip()) < 2
        if blank and not (text is None and key == "user_prompt_feedback"):
            raise DataFileError(f"{where} expects a prompt as {key}, but got {text!r:.80}.")
    if score is None and unscored:
        return PromptRow(cast(str, prompt), feedback, None)
    given: list[Any] = score if isinstance(score, list) else [score]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in given) or not given:
        raise DataFileError(f"{where} expects a number, or a list of numbers, as score, but got {score!r:.80}.")
    return PromptRow(cast(str, prompt), feedback, float(np.mean(given)))


def prompt_reading(tokenizer: PreTrainedTokenizerBase, answer: str | None = None) -> PairTemplate:
    """Read a whole prompt, in two halves, as the user's turn.

    Args:
        tokenizer: The backbone's.
        answer: What the reply begins with; by default the score itself, after "Score: " where there is no chat
            template.
    """
    if answer is None:
        answer = "" if tokenizer.chat_template else ANSWER
    return task_reading(f"{QUESTION_MARK}{PREDICTION_MARK}", tokenizer, answer)


def prompt_judge(
    backbone: BackboneSpec,
    states: ScoreStates,
    scores: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    unembedding: Unembedding,
    *,
    written: Sequence[str] = (),
    answer: str | None = None,
) -> InspectorPipeline:
    """Make a judge of whole prompts, with uniform layer weights and its backbone.

    Args:
        backbone: Which backbone.
        states: Which states are read.
        scores: The scale, ascending.
        tokenizer: The backbone's.
        unembedding: The backbone's.
        written: What the prompts write each score as, where it is not its number.
        answer: What the reply begins with; see `prompt_reading`.

    Raises:
        ReadingError: Scores cannot be told apart by their first token.
    """
    asked = score_reading(prompt_reading(tokenizer, answer), tokenizer, written or scores)
    model = build_lager(backbone, [Asked(PROMPT, list(scores), asked)], states, unembedding)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, fused=False)
        return load_judge(folder)
