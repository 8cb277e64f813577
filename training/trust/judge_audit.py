"""Audit a judge: what moves its scores beside quality, on a user's own rows.

Every edit (corruptions/edits.py) is held against the unedited pair, question by question, in every field, and beside
what a true change of quality moves: a right against a wrong answer to the same question where labels are given, else
what damage moves. A bias that moves a score by as much as quality does decides as much as quality does.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from inspector_cli.printable import printable
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from scipy import stats

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.names import PAIR
from inspector_pipeline.results import TOTAL, UNFAMILIAR, rank_field, ranked_value

from ..corruptions.edits import EDITS, WORSE, edited
from ..evaluation.between import LEAST_GENERATORS, LEAST_ROWS, between_generators
from ..evaluation.metrics import Array, rounded
from ..evaluation.scored import check_row, refuse_judges_column
from ..rows.records import question_id
from ..rows.scales import is_blank
from .systems import truth_of

LEAST_QUESTIONS = 3  # below, a change has no interval worth printing
WIDE = 120  # columns of a terminal, from where on the table says what each edit is
LARGE = 0.25  # of what quality moves; from there on an edit counts
DAMAGE = "the damage of middling effect"
NO_ANSWERS = (
    f"By the labels fewer than {LEAST_QUESTIONS} questions have a better and a worse answer: damage stands for quality."
)
NO_PREFERENCES = (
    f"Which generators it prefers at equal quality cannot be said: that needs --label, with labels that differ, and "
    f"{LEAST_GENERATORS} generators or more of {LEAST_ROWS} labelled rows each."
)


class Said(NamedTuple):
    """What a judge says of pairs.

    Attributes:
        values: Field -> (pairs,).
        unfamiliar: (pairs,) whether it calls them unfamiliar; NaN where it cannot say.
    """

    values: dict[str, Array]
    unfamiliar: Array


def audit_judge(
    judge: Any,
    rows: Sequence[Row],
    *,
    label: str | None = None,
    generator: str | None = None,
    edits: Sequence[str] = (),
    n_edited: int = 40,
    rank_by: str | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how far edits move a judge, beside quality.

    Args:
        judge: A loaded judge.
        rows: With question and prediction.
        label: The column with the truth, a number, larger for better; rows without it are left out of what needs it.
        generator: The column that names who wrote the response.
        edits: Which of `EDITS`; all where none are named.
        n_edited: How many rows to edit at most, of different questions first, drawn by seed and text.
        rank_by: The field that is read first; the judge's own where it is None.
        level: Of the intervals.
        seed: Of all chance.

    Returns:
        `field`; `quality`, what a true change moves: its name and field -> change; `edits`, each with `kind`, `told`,
        `n`, share `unfamiliar` and field -> change, with interval, `size`, its mean without sign, share `raised`, and
        `of_quality`, its share of what quality moves, where that is known; `generators`, the judge's preferences at
        equal quality, field -> the part `between_generators` of its evidence (None where labels or generators are too
        few); and `notes`.

    Raises:
        DataFileError: There are no rows.
        SettingsError: An edit or a field is unknown.
    """
    unknown = set(edits) - EDITS.keys()
    if unknown:
        raise SettingsError(f"edits expects some of {', '.join(EDITS)}, but got {', '.join(sorted(unknown))}.")
    if not rows:
        raise DataFileError("An audit expects rows with question and prediction, but got none.")
    if generator is not None and all(is_blank(row.get(generator)) for row in rows):
        raise DataFileError(f"generator expects a column that names who wrote, but {generator!r} is empty or missing.")
    field = rank_field(judge.model.config, rank_by)
    truth = _truth(rows, label)
    for number, row in enumerate(rows):
        check_row(row, PAIR, "The file", number)
    base = _said(judge, rows, field)
    questions = [question_id(str(row["question"])) for row in rows]
    at = _drawn(rows, questions, n_edited, seed)
    made = _edited(rows, at, edits or tuple(EDITS), seed)
    scored = _said(judge, [row for _, _, row in made], field) if made else Said({}, np.empty(0))
    changes: dict[str, Any] = {}
    for name in edits or tuple(EDITS):
        own = np.array([i for i, (of, _, _) in enumerate(made) if of == name], dtype=np.int64)
        before = np.array([made[i][1] for i in own.tolist()], dtype=np.int64)
        edit = EDITS[name]
        changes[name] = {"kind": edit.kind, "told": edit.told, "n": len(own)}
        if len(own):
            asked = [questions[i] for i in before.tolist()]
            flagged = scored.unfamiliar[own]
            changes[name]["unfamiliar"] = None if np.isnan(flagged).any() else rounded(flagged.mean())
            changes[name]["fields"] = {
                key: _change(scored.values[key][own] - base.values[key][before], asked, level) for key in base.values
            }
    quality = _quality(base, truth, questions, changes, level)
    for entry in changes.values():
        for key, change in entry.get("fields", {}).items():
            whole = quality["fields"].get(key, {}).get("value")
            known = whole and quality["fields"][key].get("low", 0) > 0
            change["of_quality"] = rounded(change["value"] / whole) if known else None
    preferred = _generators(base, truth, rows, questions, generator)
    return {
        "field": field,
        "level": level,
        "n_rows": len(rows),
        "n_edited": len(at),
        "quality": quality,
        "edits": changes,
        "generators": preferred,
        "notes": [
            *_notes(field, quality, changes),
            *([NO_ANSWERS] if truth is not None and quality["by"] == DAMAGE else []),
            *([NO_PREFERENCES] if generator and not preferred else []),
        ],
    }


def _said(judge: Any, rows: Sequence[Row], field: str) -> Said:
    results = judge([{key: row[key] for key in ("question", "prediction")} for row in rows])
    names = [field, *(f"expected_{aspect.name}" for aspect in judge.model.aspects)]
    if any(aspect.counts_in_total for aspect in judge.model.aspects):
        names.append(TOTAL)
    values = {name: np.array([ranked_value(one, name) for one in results]) for name in dict.fromkeys(names)}
    flags = [np.nan if one[UNFAMILIAR] is None else float(one[UNFAMILIAR]) for one in results]
    return Said(values, np.array(flags, dtype=np.float64))


def _drawn(rows: Sequence[Row], questions: Sequence[str], n: int, seed: int) -> list[int]:
    """Draw rows to edit: one of each question in turn."""

    def digest(i: int) -> bytes:
        return hashlib.sha256(
            f"{seed}:{questions[i]}:{rows[i]['prediction']}".encode("utf-8", "surrogatepass")
        ).digest()

    turn: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, int, int]] = []
    for i in sorted(range(len(rows)), key=digest):
        ranked.append((turn[questions[i]], len(ranked), i))
        turn[questions[i]] += 1
    return sorted(i for _, _, i in sorted(ranked)[:n])


def _edited(rows: Sequence[Row], at: Sequence[int], edits: Sequence[str], seed: int) -> list[tuple[str, int, Row]]:
    """Edit rows: (edit, row, the edited pair), those of a row beside each other."""
    found = []
    for place, i in enumerate(at):
        question, response = str(rows[i]["question"]), str(rows[i]["prediction"])
        donors = (rows[j] for j in (*at[place + 1 :], *at[:place]))
        donor = next((str(row["prediction"]) for row in donors if str(row["question"]) != question), "")
        for name in edits:
            pair = edited(name, question, response, donor, seed)
            if pair is not None:
                found.append((name, i, dict(zip(("question", "prediction"), pair, strict=True))))
    return found


def _change(differences: Array, questions: Sequence[str], level: float) -> dict[str, Any]:
    """Average differences over questions, with a t-interval of as many as there are."""
    _, place = np.unique(np.array(questions, dtype=np.str_), return_inverse=True)
    means = np.bincount(place, differences) / np.bincount(place)
    raised, size = float(np.mean(differences > 0)), float(np.abs(differences).mean())
    found = {"value": rounded(means.mean()), "size": rounded(size), "raised": rounded(raised), "n": len(means)}
    if len(means) < LEAST_QUESTIONS:
        return found
    reach = stats.t.ppf(0.5 + level / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return {**found, "low": rounded(means.mean() - reach), "high": rounded(means.mean() + reach)}


def _truth(rows: Sequence[Row], label: str | None) -> Array | None:
    """Read labels, (rows,), NaN where there is none."""
    if label is None:
        return None
    refuse_judges_column(rows, label, "The file")
    truth = truth_of(rows, label, "The file")
    if np.isnan(truth).all():
        raise DataFileError(f"label expects a column with numbers, but {label!r} is empty or missing.")
    return truth


def _quality(
    base: Said, truth: Array | None, questions: Sequence[str], changes: Mapping[str, Any], level: float
) -> dict[str, Any]:
    """Say what a true change of quality moves: a better answer to a question, else a damage of middling effect."""
    if truth is not None:
        by_question: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(questions):
            if not np.isnan(truth[i]):
                by_question[name].append(i)
        pairs = [(i, j) for own in by_question.values() for i in own for j in own if truth[i] > truth[j]]
        if pairs:
            better, worse = map(list, zip(*pairs, strict=True))
            asked = [questions[i] for i in better]
            fields = {key: _change(own[better] - own[worse], asked, level) for key, own in base.values.items()}
            if next(iter(fields.values()))["n"] >= LEAST_QUESTIONS:
                return {"by": "a better against a worse answer to the same question", "fields": fields}
    known = {name: one["fields"] for name, one in changes.items() if one["kind"] == WORSE and "fields" in one}
    fields = {}
    for key in base.values if known else ():
        name = sorted(known, key=lambda one: -known[one][key]["value"])[(len(known) - 1) // 2]
        own = known[name][key]
        turned = {"value": -own["value"], "n": own["n"], "edit": name}
        ends = {"low": -own["high"], "high": -own["low"]} if "low" in own else {}
        fields[key] = {**turned, **ends}
    return {"by": DAMAGE, "fields": fields}


def _generators(
    base: Said, truth: Array | None, rows: Sequence[Row], questions: Sequence[str], generator: str | None
) -> dict[str, Any] | None:
    if truth is None or generator is None:
        return None
    kept = np.flatnonzero(~np.isnan(truth))
    asked = np.array(questions, dtype=np.str_)[kept]
    wrote = np.array([str(rows[i].get(generator) or "") for i in kept.tolist()], dtype=np.str_)
    found = {key: between_generators(own[kept], truth[kept], asked, wrote) for key, own in base.values.items()}
    return found if any(found.values()) else None


def _notes(field: str, quality: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    whole = quality["fields"].get(field, {})
    if not whole or whole.get("low", -1) <= 0:
        yield (
            "It is not shown here that quality moves this judge at all, so no edit can be held against it; give more "
            "rows, or right and wrong answers to the same questions with --label."
        )
        return
    moved = {name: one["fields"][field] for name, one in changes.items() if one["kind"] != WORSE and "fields" in one}
    large = {
        name: change["of_quality"]
        for name, change in moved.items()
        if abs(change["of_quality"] or 0) >= LARGE and change.get("low", -1) * change.get("high", 1) > 0
    }
    told = ", ".join(
        f"{name} ({100 * share:+.0f} %)" for name, share in sorted(large.items(), key=lambda x: -abs(x[1]))
    )
    yield f"Moves it by a quarter or more of what quality does: {told or 'nothing that was tried'}."


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print an audit: each edit's change of the field that the judge ranks by, beside quality's."""
    field, quality = report["field"], report["quality"]
    whole = quality["fields"].get(field)
    console.print(f"{field}, {report['n_edited']} of {report['n_rows']} rows edited", highlight=False)
    is_wide = console.width >= WIDE
    table = Table(
        Column("edit", overflow="fold"),
        *(["what"] if is_wide else []),
        "rows",
        f"change ({100 * report['level']:.3g} %)",
        "of quality",
        "moved by",
        "raised",
        "unfamiliar",
    )
    table.box = SIMPLE_HEAD
    if whole:
        share = "100 %" if whole.get("low", -1) > 0 else "not shown"
        by = [Text(quality["by"])] if is_wide else []
        table.add_row("quality", *by, str(whole["n"]), _interval(whole), share, "", "", "", end_section=True)
    for name, entry in report["edits"].items():
        what = [entry["told"]] if is_wide else []
        if "fields" not in entry:
            table.add_row(name, *what, "0", "", "", "", "", "")
            continue
        change = entry["fields"][field]
        share, raised, unfamiliar = map(_percent, (change["of_quality"], change["raised"], entry["unfamiliar"]))
        cells = (_interval(change), share, f"{change['size']:.3f}", raised, unfamiliar)
        table.add_row(name, *what, str(entry["n"]), *cells)
    console.print(table)
    if not is_wide:
        named = {"quality": quality["by"]} if whole else {}
        named |= {name: entry["told"] for name, entry in report["edits"].items()}
        told = "; ".join(f"{name}: {one}" for name, one in named.items())
        console.print(told, highlight=False, markup=False)
    preferred = (report["generators"] or {}).get(field)
    if preferred:
        generator = Column("generator", overflow="fold")
        table = Table(generator, "rows", "true mean", "judged mean", "at equal quality", box=SIMPLE_HEAD)
        for name, own in sorted(preferred["by_generator"].items(), key=lambda pair: -pair[1]["error"]):
            error = f"{own['error']:+.3f} ± {1.96 * own['se']:.3f}"
            means = (f"{own[kind] + 0.0:.3f}" for kind in ("true", "judged"))  # of -0.0 too
            table.add_row(Text(printable(name)), str(own["rows"]), *means, error)
        console.print(table)
    for note in report["notes"]:
        console.print(note, highlight=False, markup=False)


def _interval(change: Mapping[str, Any]) -> str:
    ends = f" ({change['low']:+.3f} to {change['high']:+.3f})" if "low" in change else ""
    return f"{change['value']:+.3f}{ends}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
