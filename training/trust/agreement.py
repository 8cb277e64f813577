"""Whether a judge may stand in for an annotator: the alternative annotator test, kappa and alpha.

*Alternative annotator test* (Calderon, Reichart and Dror, 2025): each annotator is left out in turn, and on every row
that they labelled, the judge and they are held against the others' labels. The judge's advantage over annotator j is
the share of rows at which it agrees with the others at least as well; that it is not more than epsilon below the
annotator's own is tested, by a paired t-test (Wilcoxon's below 30 rows), and all annotators' p-values are adjusted
by Benjamini and Yekutieli. The winning rate omega is the share of annotators over whom that is shown: from .5 on, the
judge may replace one. The advantage probability rho is the mean advantage.

*Cohen's kappa* of two, also with disagreement weighed by its square on the scale; *Krippendorff's alpha* of any number,
with labels missing, by its coincidences (Krippendorff, 2011).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from inspector_cli.printable import printable
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.results import RANK_BY

from ..evaluation.metrics import Array, cohen_kappa, interval, quadratic_kappa, resamples, rounded, shown
from ..evaluation.scored import read_entries
from ..rows.alpha import krippendorff_alpha
from ..rows.scales import is_blank, number_of

FEWEST_RATERS = 3
FEW_QUESTIONS = 10  # below, an interval over them is told to say little
FEW_ROWS = 30  # below, ranks are tested in the place of means
FDR = 0.05
MEASURES = ("accuracy", "rmse")


def alternative_annotator_test(
    judge: Array, raters: Array, *, measure: str = "rmse", epsilon: float = 0.2, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Test whether a judge may replace an annotator.

    Args:
        judge: (rows,) its scores; NaN where it has none.
        raters: (rows, m) labels of m annotators, 3 or more; NaN where there is none.
        measure: How agreement with the others is measured: accuracy, the share of them with the same label, or rmse.
        epsilon: What an annotator's agreement may be better by, as it costs more: .2 for experts, .15 for skilled
            annotators, .1 for a crowd.
        names: The annotators', for messages.

    Returns:
        `winning_rate` and whether the judge `may_replace` one; `advantage`, the mean; and of each annotator by place
        `advantage`, `annotator`, their own, `n`, `p` adjusted, and whether the judge `wins`.

    Raises:
        DataFileError: There are fewer than three annotators, or one has no row with others' labels.
    """
    n, m = raters.shape
    if m < FEWEST_RATERS:
        raise DataFileError(f"The test expects labels of {FEWEST_RATERS} annotators or more, but got {m}.")
    if not 0 <= epsilon < 1:
        raise SettingsError(f"epsilon expects a share from 0 to below 1, such as 0.2, but got {epsilon}.")
    if measure not in MEASURES:
        raise SettingsError(f"measure expects {' or '.join(MEASURES)}, but got {measure!r}.")
    found, raw = [], []
    for j in range(m):
        others = np.delete(raters, j, axis=1)
        kept = ~np.isnan(raters[:, j]) & ~np.isnan(judge) & (~np.isnan(others)).any(axis=1)
        if kept.sum() < 2:
            who = names[j] if names else f"annotator {j + 1}"
            raise DataFileError(
                f"The test expects 2 rows or more that {who}, another annotator and the judge have labelled, but got "
                f"{int(kept.sum())}."
            )
        ours, theirs = (_alignment(one[kept], others[kept], measure) for one in (judge, raters[:, j]))
        wins, losses = (ours >= theirs).astype(float), (theirs >= ours).astype(float)
        raw.append(_p_value(losses - wins, epsilon))
        found.append({"advantage": float(wins.mean()), "annotator": float(losses.mean()), "n": int(kept.sum())})
    adjusted = stats.false_discovery_control(raw, method="by")
    for one, p in zip(found, adjusted.tolist(), strict=True):
        one |= {"p": p, "wins": p < FDR}
    rate = float(np.mean([one["wins"] for one in found]))
    return {
        "measure": measure,
        "epsilon": epsilon,
        "n_rows": n,
        "winning_rate": rate,
        "may_replace": rate >= 0.5,
        "advantage": float(np.mean([one["advantage"] for one in found])),
        "annotators": found,
    }


def _alignment(one: Array, others: Array, measure: str) -> Array:
    """Say how well labels agree with those of others, (rows,); more is better."""
    difference = others - one[:, None]
    if measure == "accuracy":
        return np.asarray(np.nanmean(np.where(np.isnan(difference), np.nan, difference == 0), axis=1))
    return np.asarray(-np.sqrt(np.nanmean(difference**2, axis=1)))


def _p_value(differences: Array, epsilon: float) -> float:
    """Test that the annotator's advantage is by less than epsilon above the judge's."""
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] < epsilon else 1.0
    if len(differences) < FEW_ROWS:
        return float(stats.wilcoxon(differences - epsilon, alternative="less", method="approx").pvalue)
    return float(stats.ttest_1samp(differences, epsilon, alternative="less").pvalue)


def agreement(
    judge: Array,
    raters: Mapping[str, Array],
    question: Sequence[str],
    *,
    measure: str = "rmse",
    level: str = "interval",
    epsilon: float = 0.2,
    bootstraps: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Say how annotators and a judge agree, and whether it may replace one of them.

    Args:
        judge: (rows,) its scores; NaN where it has none.
        raters: Name -> (rows,) labels, three or more; NaN where there is none.
        question: (rows,) of each row, for the intervals.
        measure: accuracy or rmse, see `alternative_annotator_test`.
        level: Of alpha: nominal, ordinal or interval.
        epsilon: What an annotator's agreement may be better by.
        bootstraps: Resamples of the questions.
        seed: Of the resamples.

    Returns:
        `alternative_annotator_test`, with annotators by name; `alpha` of the `annotators`, and of these and the
        `judge`; `kappa`, each two -> `n`, `kappa` and `weighted`, with intervals; the judge's scores are rounded to the
        nearest label there, and where `measure` is accuracy; and `notes`, where there are too few questions.
    """
    table = np.column_stack(list(raters.values()))
    scale = np.unique(table[~np.isnan(table)])
    if len(scale) < 2:
        raise DataFileError("Agreement expects labels that differ, but all are the same.")
    on_scale = _to_scale(judge, scale)
    if not (~np.isnan(judge)).any():
        raise DataFileError("Agreement expects rows that the judge has scored, but got none.")
    options: dict[str, Any] = {"measure": measure, "epsilon": epsilon, "names": tuple(raters)}
    test = alternative_annotator_test(on_scale if measure == "accuracy" else judge, table, **options)
    named = [{key: _short(value) for key, value in one.items()} for one in test.pop("annotators")]
    test = {key: _short(value) for key, value in test.items()} | {"annotators": dict(zip(raters, named, strict=True))}
    names = np.array(question, dtype=np.str_)
    n_questions = len(np.unique(names))
    weights = resamples(names, bootstraps, seed).weights(names)
    with_judge = np.column_stack([table, judge if level == "interval" else on_scale])
    notes = []
    if n_questions < FEW_QUESTIONS:  # as many are drawn, again and again
        told = f"{n_questions} questions are" if n_questions > 1 else "One question is"
        notes.append(f"{told} too few for intervals over questions: those of kappa and alpha say little.")
    return {
        "n_questions": n_questions,
        "alternative_annotator_test": test,
        "alpha": {
            "level": level,
            "annotators": interval(krippendorff_alpha(table, level, weights)),
            "judge": interval(krippendorff_alpha(with_judge, level, weights)),
        },
        "kappa": _kappas({**raters, "judge": on_scale}, weights),
        "notes": notes,
    }


def _short(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value


def _to_scale(judge: Array, scale: Array) -> Array:
    """Put every score on the nearest label."""
    nearest = scale[np.argmin(np.abs(judge[:, None] - scale), axis=1)]
    return np.asarray(np.where(np.isnan(judge), np.nan, nearest))


def _kappas(columns: Mapping[str, Array], weights: Array) -> dict[str, Any]:
    found = {}
    for one, other in combinations(columns, 2):
        both = ~np.isnan(columns[one]) & ~np.isnan(columns[other])
        if not both.any():
            continue
        values, codes = np.unique(np.concatenate([columns[one][both], columns[other][both]]), return_inverse=True)
        first, second = np.split(codes, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = cohen_kappa(first, second, weights[:, both])
            squared = quadratic_kappa(first, second, weights[:, both], values)
        found[f"{one}, {other}"] = {"n": int(both.sum()), "kappa": interval(plain), "weighted": interval(squared)}
    return found


def as_labels(column: Sequence[Any], words: Mapping[str, float], name: str) -> NDArray[np.float64]:
    """Read labels, (rows,): numbers, or words that stand for numbers; NaN where there is none.

    Raises:
        DataFileError: A label is neither.
    """
    found: list[float] = []
    known = {"true": 1.0, "false": 0.0, **{word.casefold(): number for word, number in words.items()}}
    for i, value in enumerate(column):
        is_missing = is_blank(value) or str(value).strip().casefold() == "nan"
        label = None if is_missing else number_of(value, known)
        if label is None and not is_missing:
            raise DataFileError(
                f"{name} expects numbers as labels, but row {i} has {value!r:.60}. Leave cells without a label empty, "
                "or say what words stand for: --words yes=1 no=0."
            )
        found.append(float("nan") if label is None else float(label))
    return np.array(found)


def agreement_of_file(
    path: Path,
    raters: Sequence[str],
    scores: str | None = None,
    *,
    question: str = "question",
    words: Mapping[str, float] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Say how the annotators of a file and a judge agree; see `agreement`.

    Args:
        path: Rows with a column for each annotator and the judge's.
        raters: The annotators' columns.
        scores: The judge's column; what the rows' `rank_by` names where it is None.
        question: The column of the questions; each row is one where there is none.
        words: Labels that are words, and their numbers.
        settings: Of `agreement`.

    Raises:
        DataFileError: A column is missing, or holds something else.
    """
    rows = read_entries([path], ())
    if not rows:
        raise DataFileError(f"{path} expects rows, but has none.")
    column = scores or next((str(row[RANK_BY]) for row in rows[:1] if row.get(RANK_BY)), None)
    if column is None:
        raise DataFileError(
            f"{path} expects the judge's scores, but its rows name none. Score it by `inspector score`, or name the "
            "column by --scores."
        )
    missing = [name for name in (*raters, column) if not any(name in row for row in rows)]
    if missing or column in raters or len(set(raters)) < len(raters):
        told = f"has no {missing[0]!r}" if missing else f"got {', '.join((*raters, column))}"
        raise DataFileError(f"{path} expects different columns of annotators and of the judge, but {told}.")
    labels = {name: as_labels([row.get(name) for row in rows], words or {}, name) for name in raters}
    asked = [str(row.get(question, i)) for i, row in enumerate(rows)]
    judge = as_labels([row.get(column) for row in rows], words or {}, column)
    return {"scores": column, **agreement(judge, labels, asked, **settings)}


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print whether a judge may replace an annotator, and how well all agree."""
    test, alpha = report["alternative_annotator_test"], report["alpha"]
    table = Table("annotator", "rows", "judge at least as good", "they at least as good", "p", "", box=SIMPLE_HEAD)
    for name, one in test["annotators"].items():
        shares = (f"{one['advantage']:.3f}", f"{one['annotator']:.3f}")
        table.add_row(Text(printable(name)), str(one["n"]), *shares, f"{one['p']:.4f}", "wins" if one["wins"] else "")
    console.print(table)
    verdict = "may replace an annotator" if test["may_replace"] else "may not replace an annotator"
    console.print(
        f"Winning rate {test['winning_rate']:.2f} (epsilon {test['epsilon']}), advantage probability "
        f"{test['advantage']:.3f}: by this test {printable(report['scores'])} {verdict}.",
        highlight=False,
        markup=False,
    )
    table = Table("two of them", "rows", "kappa (95 %)", "weighted kappa (95 %)", box=SIMPLE_HEAD)
    for name, one in report["kappa"].items():
        table.add_row(Text(printable(name)), str(one["n"]), shown(one["kappa"]), shown(one["weighted"]))
    console.print(table)
    console.print(
        f"Krippendorff's alpha ({alpha['level']}): annotators {shown(alpha['annotators'])}, with the judge "
        f"{shown(alpha['judge'])}.",
        highlight=False,
    )
    for note in report["notes"]:
        console.print(note, highlight=False, markup=False)
