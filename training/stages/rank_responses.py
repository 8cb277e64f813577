"""Rank systems on the same prompts by a judge, as `inspector rank` does.

    python -m training rank_responses --first a.jsonl --second b.jsonl --judge org/inspector-gsm8k-multi

Rows are joined by their id; several responses to one question are averaged first. The difference of each pair comes
with an interval that holds the judge's own error between systems (trust/ranking.py), and no system is called better
beyond it. The table goes to standard error, JSON to standard output.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from inspector_pipeline.errors import SettingsError

from ..trust.rank import rank, show


@dataclass(frozen=True)
class Config:
    """Settings of the rank_responses stage.

    Attributes:
        first: File of rows with id, question and prediction.
        second: File of responses to the same questions.
        judge: Hub id or folder of a judge; the embedded one where it is not given.
        batch_size: Pairs of a batch; by default batches fill up to a token budget.
        n_resamples: Not used any more: intervals are by formula.
        seed: Not used any more.
        rank_by: The field that the winner is chosen by; the judge's own where it is not given.
        more: Files of further systems.
        level: Of the intervals, all at once.
        judge_error: The judge's error between systems, a standard deviation, where its evidence does not say it.
        label: A column with the truth of some rows.
    """

    first: str
    second: str
    judge: str | None = None
    batch_size: int | None = None
    n_resamples: int = 9999
    seed: int = 0
    rank_by: str | None = None
    more: tuple[str, ...] = ()
    level: float = 0.95
    judge_error: float | None = None
    label: str | None = None


def run(config: Config) -> dict[str, Any]:
    """Run the stage: score the files, rank their systems, and print what was found.

    Returns:
        The report of `trust.rank.rank`; the systems of the first two files are called `first` and `second`.

    Raises:
        DataFileError: The files share too few questions, or give one id to different questions.
        SettingsError: The judge has no such field to rank by.
    """
    if len(set(config.more)) < len(config.more):
        raise SettingsError(f"more expects different files, but got {', '.join(config.more)}.")
    report = rank(
        [config.first, config.second, *config.more],
        config.judge,
        names=("first", "second", *config.more),
        rank_by=config.rank_by,
        label=config.label,
        level=config.level,
        sd=config.judge_error,
        batch_size=config.batch_size,
    )
    show(report, Console(stderr=True))
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return report
