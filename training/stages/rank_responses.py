"""Compare two systems on the same questions with a judge, by a paired test.

    python -m training rank_responses --first a.jsonl --second b.jsonl --judge org/inspector-gsm8k-multi

Rows of the two files are joined by their id; several responses to one question are averaged first. For each aspect and
the total, the expected scores' mean difference (second - first) comes with a 95 % percentile bootstrap interval over
questions and the p-value of a sign-flip permutation test. The winner is that of the field that the judge ranks by. The
table goes to standard error, JSON to standard output.

Responses that are unfamiliar to the judge, and questions that it was fitted on, are counted, and the field that is
ranked by is compared without them too. A winner that wins only with unfamiliar responses is not named.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from inspector_cli.printable import printable
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row
from inspector_pipeline.results import SEEN, UNFAMILIAR, own_rank_field, rank_field, ranked_value
from inspector_pipeline.results import TOTAL as EXPECTED_TOTAL

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
        rank_by: The field that the winner is chosen by; the judge's own where it is not given.
    """

    first: str
    second: str
    judge: str | None = None
    batch_size: int | None = None
    n_resamples: int = 9999
    seed: int = 0
    rank_by: str | None = None


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


Scored = list[tuple[str, dict[str, Any]]]  # (id, the judge's result) of each response of a file


def run(config: Config) -> dict[str, Any]:
    """Run the stage: score both files, compare them, and print what was found.

    Returns:
        `n_questions` that both files answer, `n_left_out` that only one does, `rank_by`, the field that decides (None
        where the judge has none), `winner` (first or second; None where that field's interval holds zero or the winner
        is another without unfamiliar responses), `aspects`: name or `total` -> `Comparison`, `unfamiliar` and `seen`
        (see `_apart`), and `notes` on these.

    Raises:
        DataFileError: The files share too few questions, or give one id to different questions.
        SettingsError: The judge has no such field to rank by.
    """
    files = [read_records(path, ("id", "question", "prediction")) for path in (config.first, config.second)]
    questions = [_questions(rows) for rows in files]
    both = questions[0].keys() & questions[1].keys()
    if len(both) < 2:
        raise DataFileError(
            f"A comparison expects two questions or more that both files answer, but {config.first} and "
            f"{config.second} share {len(both)} ids. Give both files the ids of the data set."
        )
    differing = [key for key in sorted(both) if questions[0][key] != questions[1][key]]
    if differing:
        raise DataFileError(f"Both files expect one question for an id, but differ on id {differing[0]}.")
    judge = load_judge(config.judge)
    own = judge.model.config
    field = rank_field(own, config.rank_by) if config.rank_by or own_rank_field(own) else None
    scored: list[Scored] = []
    for rows in files:
        kept = [row for row in rows if str(row["id"]) in both]
        results = judge([{k: row[k] for k in ("question", "prediction")} for row in kept], batch_size=config.batch_size)
        scored.append([(str(row["id"]), result) for row, result in zip(kept, results, strict=True)])
    names = [aspect.name for aspect in judge.model.aspects]
    tables = _tables(scored, lambda result: [*result["expected"].values(), result[EXPECTED_TOTAL] or 0.0])
    if any(aspect.counts_in_total for aspect in judge.model.aspects):
        names.append(TOTAL)
    compared = {name: _compare(tables[0][:, i], tables[1][:, i], config) for i, name in enumerate(names)}
    winner = None if field is None else _winner(_compare_field(scored, field, config))
    apart = {flag: _apart(scored, flag, field, config) if field else None for flag in (UNFAMILIAR, SEEN)}
    report = {
        "n_questions": len(both),
        "n_left_out": len(questions[0].keys() ^ questions[1].keys()),
        "rank_by": field,
        "winner": winner if (apart[UNFAMILIAR] or {"winner": winner})["winner"] == winner else None,
        "aspects": {name: asdict(comparison) for name, comparison in compared.items()},
        **apart,
        "notes": [note for flag, found in apart.items() if found for note in _notes(flag, found, winner)],
    }
    show(report, Console(stderr=True))
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return report


def _questions(rows: list[Row]) -> dict[str, str]:
    return {str(row["id"]): normal_text(row["question"]) for row in rows}


def _tables(files: Sequence[Scored], values: Callable[[dict[str, Any]], list[float]]) -> list[Any]:
    """Average each question's responses in both files: (questions, values) of each, of the questions that both have."""
    means: list[dict[str, Any]] = []
    for scored in files:
        by_id: dict[str, list[list[float]]] = {}
        for key, result in scored:
            by_id.setdefault(key, []).append(values(result))
        means.append({key: np.mean(rows, axis=0) for key, rows in by_id.items()})
    shared = sorted(means[0].keys() & means[1].keys())
    return [np.array([by_id[key] for key in shared]) for by_id in means]


def _compare_field(files: Sequence[Scored], field: str, config: Config) -> Comparison | None:
    """Compare the field that is ranked by; None where fewer than two questions are left."""
    first, second = _tables(files, lambda result: [ranked_value(result, field)])
    return _compare(first[:, 0], second[:, 0], config) if len(first) >= 2 else None


def _winner(compared: Comparison | None) -> str | None:
    if compared is None:
        return None
    return "second" if compared.low > 0 else "first" if compared.high < 0 else None


def _apart(files: Sequence[Scored], flag: str, field: str, config: Config) -> dict[str, Any] | None:
    """Compare without the responses that are flagged.

    Returns:
        `first` and `second`, how many responses of each file are flagged; and of the rest `n_questions`, `without`, the
        comparison of the field (None where fewer than two questions are left), and its `winner`. None where the judge
        cannot say of any.
    """
    if all(result[flag] is None for scored in files for _, result in scored):
        return None
    rest = [[(key, result) for key, result in scored if not result[flag]] for scored in files]
    counts = [len(scored) - len(kept) for scored, kept in zip(files, rest, strict=True)]
    compared = _compare_field(rest, field, config)
    return {
        **dict(zip(("first", "second"), counts, strict=True)),
        "n_questions": len({key for key, _ in rest[0]} & {key for key, _ in rest[1]}),
        "without": compared and asdict(compared),
        "winner": _winner(compared),
    }


def _notes(flag: str, found: dict[str, Any], winner: str | None) -> Iterator[str]:
    """Say how many responses are flagged, and whether the comparison rests on them."""
    if not found["first"] + found["second"]:
        return
    what = "unlike what the judge was fitted on" if flag == UNFAMILIAR else "to questions that the judge was fitted on"
    note = f"{found['first']} responses of the first and {found['second']} of the second are {what}"
    if found["winner"] == winner and found["without"] is not None:
        yield f"{note}; without them the result is the same."
        return
    rest = f"{found['winner'] or 'neither'} wins" if found["without"] else "fewer than two questions are left"
    named = ", and no winner is named" if flag == UNFAMILIAR and winner else ""
    yield f"{note}, and the comparison rests on them: without them {rest}{named}."


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


def _title(report: dict[str, Any]) -> str:
    won = f"{report['winner']} wins" if report["winner"] else "no winner"
    return f"{report['n_questions']} questions; {won} by {report['rank_by'] or 'no field'}"


def show(report: dict[str, Any], console: Console) -> None:
    """Print a comparison as a table."""
    table = Table("aspect", "first", "second", "difference (95 %)", "p", title=_title(report))
    for name, c in report["aspects"].items():
        difference = f"{c['difference']:+.3f} ({c['low']:+.3f} to {c['high']:+.3f})"
        table.add_row(Text(printable(name)), f"{c['first']:.3f}", f"{c['second']:.3f}", difference, f"{c['p']:.4f}")
    console.print(table)
    for note in report["notes"]:
        console.print(note, highlight=False)
