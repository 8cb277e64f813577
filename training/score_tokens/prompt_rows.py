"""LAGER's own rows: whole prompts with their rubrics within, and the scores that people gave."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_rows
from inspector_pipeline.files.text import jsonl_entries


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


@dataclass(frozen=True)
class PromptColumns:
    """Which keys of the rows hold what; LAGER's own names where nothing else is said.

    Attributes:
        prompt: Asks for the score alone, such as `prompt_answer_accuracy` in its instruction data.
        feedback: Asks for feedback first.
        score: The score that people gave, or several.
    """

    prompt: str = "user_prompt"
    feedback: str = "user_prompt_feedback"
    score: str = "score"


def read_prompt_table(path: str) -> list[Row]:
    """Read rows in any table format; a .json that holds an object a line, as LAGER's do, is read so.

    Raises:
        DataFileError: It cannot be read.
    """
    if Path(path).suffix.lower() != ".json":
        return read_rows(path)
    try:
        with open(path, "rb") as file:
            first = next((line for line in file if line.strip()), b"")
            if not first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
                return read_rows(path)
            file.seek(0)
            entries = list(jsonl_entries(Path(path), file))
    except OSError as error:
        raise DataFileError(f"{path} could not be read: {error.strerror}. Check the path.") from error
    for entry in entries:
        if entry.row is None or entry.fault is not None:
            raise DataFileError(f"{entry.place} {entry.fault}.")
    return [entry.row for entry in entries if entry.row is not None]


def read_prompt_rows(path: str, columns: PromptColumns | None = None) -> list[PromptRow]:
    """Read a file of `{"user_prompt", "user_prompt_feedback", "score"}`, in any table format; each row has a score.

    Args:
        path: The file.
        columns: Other names of these.

    Raises:
        DataFileError: See `prompt_rows`; or it cannot be read.
    """
    return prompt_rows(read_prompt_table(path), path, columns=columns)


def prompt_rows(
    rows: Sequence[Row], path: str, *, unscored: bool = False, columns: PromptColumns | None = None
) -> list[PromptRow]:
    """Check such rows.

    Args:
        rows: The rows.
        path: Their file, for the message.
        unscored: Whether rows may lack a score.
        columns: Other names of their keys.

    Raises:
        DataFileError: A row lacks a prompt, or a score that is a number or a list of numbers.
    """
    named = columns or PromptColumns()
    return [_prompt_row(row, f"{path}: row {i}", named, unscored=unscored) for i, row in enumerate(rows)]


def _prompt_row(row: Row, where: str, columns: PromptColumns, *, unscored: bool) -> PromptRow:
    prompt, feedback, score = (row.get(key) for key in (columns.prompt, columns.feedback, columns.score))
    for key, text in ((columns.prompt, prompt), (columns.feedback, feedback)):
        missing = text is None and key == columns.feedback and key != columns.prompt
        if not missing and (not isinstance(text, str) or len(text.strip()) < 2):
            raise DataFileError(f"{where} expects a prompt as {key}, but got {text!r:.80}.")
    given: list[Any] = score if isinstance(score, list) else [score]
    if score is None and unscored:
        return PromptRow(str(prompt), feedback, None)
    if not given or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in given):
        raise DataFileError(
            f"{where} expects a number, or a list of numbers, as {columns.score}, but got {score!r:.80}."
        )
    return PromptRow(str(prompt), feedback, float(np.mean(given)))
