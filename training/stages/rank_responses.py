"""Compare two systems on the same questions with a judge, by a paired test.

    python -m training rank_responses --first a.jsonl --second b.jsonl --judge org/inspector-gsm8k-multi

Rows of the two files are joined by their id; several responses to one question are averaged first. For each aspect and
the total, the expected scores' mean difference (second - first) comes with a 95 % percentile bootstrap interval over
questions and the p-value of a sign-flip permutation test. The table goes to standard error, JSON to standard output.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row

from ..rows.records import normal_text, read_records

TOTAL = "total"


@dataclass(frozen=True)
class Config:
    """Settings of the rank_responses stage.

    Attributes:
        first: File of rows with id, question and prediction.
        second: File of responses to the same questions.
        judge: Hub id or folder of a judge; the embedded one where it is not given.
        batch_size: Pairs of a batch; by default batches fill up to a token budget.
        n_resamples: Bootstrap samples, and sign flips of the permutation test.
        seed: Of both.
    """

    first: str
    second: str
    judge: str | None = None
    batch_size: int | None = None
    n_resamples: int = 9999
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """How two systems compare on one aspect.

    Attributes:
        first: Mean expected score of the first.
        second: Of the second.
        difference: second - first.
        low: Lower end of the difference's 95 % interval.
        high: Upper end.
        p: Two-sided p-value of no difference.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def run(config: Config) -> dict[str, Any]:
    """Run the stage: score both files, compare them, and print what was found.

    Returns:
        `n_questions` that both files answer, `n_left_out` that only one does, `winner` (first or second; None where the
        total's interval holds zero), and `aspects`: name or `total` -> `Comparison`.

    Raises:
        DataFileError: The files share too few questions, or give one id to different questions.
    """
    files = [read_records(path, ("id", "question", "prediction")) for path in (config.first, config.second)]
    questions = [_questions(rows) for rows in files]
    shared = sorted(questions[0].keys() & questions[1].keys())
    if len(shared) < 2:
        raise DataFileError(
            f"A comparison expects two questions or more that both files answer, but {config.first} and "
            f"{config.second} share {len(shared)} ids. Give both files the ids of the data set."
        )
    differing = [key for key in shared if questions[0][key] != questions[1][key]]
    if differing:
        raise DataFileError(f"Both files expect one question for an id, but differ on id {differing[0]}.")
    judge = load_judge(config.judge)
    means = []
    for rows in files:
        kept = [row for row in rows if str(row["id"]) in questions[0].keys() & questions[1].keys()]
        results = judge([{k: row[k] for k in ("question", "prediction")} for row in kept], batch_size=config.batch_size)
        means.append(_means_by_question(kept, results, judge.model.aspects))
    names = [aspect.name for aspect in judge.model.aspects] + [TOTAL]
    tables = [np.array([by_id[key] for key in shared]) for by_id in means]
    compared = {name: _compare(tables[0][:, i], tables[1][:, i], config) for i, name in enumerate(names)}
    total = compared[TOTAL]
    winner = "second" if total.low > 0 else "first" if total.high < 0 else None
    report = {
        "n_questions": len(shared),
        "n_left_out": len(questions[0].keys() ^ questions[1].keys()),
        "winner": winner,
        "aspects": {name: asdict(comparison) for name, comparison in compared.items()},
    }
    show(report, Console(stderr=True))
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return report


def _questions(rows: list[Row]) -> dict[str, str]:
    return {str(row["id"]): normal_text(row["question"]) for row in rows}


def _means_by_question(rows: list[Row], results: list[dict[str, Any]], aspects: Any) -> dict[str, Any]:
    """Average the expected scores of each question's responses; the last number is their total."""
    by_id: dict[str, list[list[float]]] = {}
    for row, result in zip(rows, results, strict=True):
        expected = result["expected"]
        total = sum(expected[aspect.name] for aspect in aspects if aspect.counts_in_total)
        by_id.setdefault(str(row["id"]), []).append([*expected.values(), total])
    return {key: np.mean(values, axis=0) for key, values in by_id.items()}


def _compare(first: Any, second: Any, config: Config) -> Comparison:
    differences = second - first
    shared = {"n_resamples": config.n_resamples, "vectorized": True}
    if np.ptp(differences) == 0:  # a bootstrap of equal numbers is no distribution
        low = high = differences[0]
    else:
        interval = stats.bootstrap(
            (differences,), np.mean, method="percentile", rng=np.random.default_rng(config.seed), **shared
        ).confidence_interval
        low, high = interval.low, interval.high
    flipped = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", rng=np.random.default_rng(config.seed), **shared
    )
    numbers = (first.mean(), second.mean(), differences.mean(), low, high, flipped.pvalue)
    return Comparison(*map(float, numbers))


def show(report: dict[str, Any], console: Console) -> None:
    """Print a comparison as a table."""
    table = Table("aspect", "first", "second", "difference (95 %)", "p", title=f"{report['n_questions']} questions")
    for name, c in report["aspects"].items():
        difference = f"{c['difference']:+.3f} ({c['low']:+.3f} to {c['high']:+.3f})"
        table.add_row(name, f"{c['first']:.3f}", f"{c['second']:.3f}", difference, f"{c['p']:.4f}")
    console.print(table)
