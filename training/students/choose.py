"""What an ablation's arms are trained on (the best scored rows, as many at random, or all), and tested on."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.tables import Row
from inspector_pipeline.jobs.filter import rank
from inspector_pipeline.pairs import is_blank

from ..rows.answers import final_answer
from ..rows.correctness import judge_answer
from ..rows.records import question_id, read_records

ARMS = ("random", "top", "all")
NO_RESPONSE = "there is no response"
NO_NUMBER = "there is no number to rank by"


@dataclass(frozen=True)
class Pool:
    """The rows that arms choose from.

    Attributes:
        rows: In input order.
        scores: float64 (rows,), what they are ranked by.
        left_out: Reason -> how many rows were left out for it.
    """

    rows: list[Row]
    scores: NDArray[np.float64]
    left_out: Mapping[str, int]

    def without(self, unfit: Mapping[int, str]) -> "Pool":
        """Leave out further rows.

        Args:
            unfit: Index of a row -> why it is left out.
        """
        kept = [i for i in range(len(self.rows)) if i not in unfit]
        left_out = Counter(self.left_out) + Counter(unfit.values())
        return Pool([self.rows[i] for i in kept], self.scores[kept], left_out)

    def choose(self, arm: str, share: float, seed: int) -> NDArray[np.int64]:
        """Choose an arm's rows.

        Args:
            arm: `top` for the best share, ties in input order; `random` for as many, drawn without replacement; `all`.
            share: Of the rows, rounded down.
            seed: Of the draw.

        Returns:
            int64 (chosen,), indices in input order.

        Raises:
            SettingsError: The share is of less than one row.
        """
        if arm == "all":
            return np.arange(len(self.rows))
        best = np.sort(rank(self.scores, None, share, None).kept)
        if not len(best):
            raise SettingsError(
                f"share expects to keep a row at least, but {share:g} of {len(self.rows)} is less. Raise it."
            )
        if arm == "top":
            return best
        drawn = np.random.default_rng(seed).choice(len(self.rows), len(best), replace=False)
        return np.sort(drawn)

    def described(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """Say what was chosen: how many rows, their mean score, and how many rows stand at the lowest one.

        Where many rows share the lowest score that was kept, `top` is in part the input's order and not the judge's.

        Args:
            chosen: int64 (chosen,), indices.
        """
        lowest = self.scores[chosen].min()
        return {
            "rows": len(chosen),
            "mean_score": round(float(self.scores[chosen].mean()), 4),
            "lowest_score": round(float(lowest), 4),
            "at_lowest": {
                "kept": int((self.scores[chosen] == lowest).sum()),
                "of": int((self.scores == lowest).sum()),
            },
        }


def read_pool(path: str, by: str) -> Pool:
    """Read scored rows.

    Args:
        path: Rows with question and prediction, as `inspector score` writes them.
        by: The key to rank by, such as total_score or expected_correctness.

    Raises:
        DataFileError: The file cannot be read, or no row has a number under that key.
    """
    rows = read_records(path, ("question",))
    numbers = [_number(row.get(by)) for row in rows]
    if all(map(math.isnan, numbers)):
        raise DataFileError(
            f"{path} expects a number as {by!r} in its rows, but none has one; its first row has the keys "
            f"{', '.join(rows[0]) if rows else 'of no row'}. Score the rows with inspector score, or name another key "
            "with --by."
        )
    unfit = {i: NO_NUMBER for i, number in enumerate(numbers) if math.isnan(number)}
    replies = [row.get("prediction") for row in rows]
    unfit |= {i: NO_RESPONSE for i, one in enumerate(replies) if not isinstance(one, str) or is_blank(one)}
    return Pool(rows, np.array(numbers), {}).without(unfit)


def read_gold(path: str) -> list[Row]:
    """Read test questions and their gold answers.

    Returns:
        Rows of id, question and final_answer.

    Raises:
        DataFileError: The file cannot be read or is empty, two questions share an id, or a question has no gold
            answer, or one that math-verify cannot read.
    """
    rows = read_records(path)
    if not rows or len({str(row["id"]) for row in rows}) < len(rows):
        raise DataFileError(
            f"{path} expects questions, each with an id of its own, but has none, or one id twice. Make the ids with "
            "python -m training data."
        )
    golds = [str(row.get("final_answer") or final_answer(row.get("answer") or "") or "") for row in rows]
    found = [
        {"id": row["id"], "question": row["question"], "final_answer": gold}
        for row, gold in zip(rows, golds, strict=True)
    ]
    bad = [
        row["id"] for row in found if judge_answer(f"\\boxed{{{row['final_answer']}}}", row["final_answer"]).score != 1
    ]
    if bad:
        raise DataFileError(
            f"{path} expects a gold answer in every row, as final_answer or in a solution as answer, but {len(bad)} of "
            f"{len(rows)} have none that can be read, such as that with id {bad[0]!r}. Add it, or leave the row out."
        )
    return found


def refuse_leaks(pool: Pool, questions: Sequence[Row]) -> None:
    """Refuse test questions that are trained on.

    Raises:
        DataFileError: A question, white space and case aside, stands in both.
    """
    trained = {question_id(row["question"]) for row in pool.rows}
    leaked = [row for row in questions if question_id(row["question"]) in trained]
    if leaked:
        raise DataFileError(
            f"The test expects questions that no row to train on has, but {len(leaked)} of {len(questions)} are among "
            f"those rows, such as {leaked[0]['question']!r:.80}. Take them out of one of the two files."
        )


def _number(value: Any) -> float:
    """Read a score; NaN where it is none. A number may be text, as CSV gives it."""
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
