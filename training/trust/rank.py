"""Rank systems by a judge's scores of their responses to the same prompts: the report of `inspector rank`.

Example:
    >>> from inspector_training.trust.rank import rank
    >>> report = rank(["a.jsonl", "b.jsonl"], judge="org/my-judge")  # doctest: +SKIP
    >>> report["order"], report["groups"]  # doctest: +SKIP
"""

import os
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from inspector_cli.info import file_of
from inspector_cli.printable import printable
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from inspector_pipeline.api.load import EVIDENCE, evidence_path, judge_name, load_judge
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.results import SEEN, TOTAL, UNFAMILIAR

from ..evaluation.between import rank_correlation
from ..evaluation.metrics import Array, rounded
from .ranking import LEAST_LABELLED, NEVER, JudgeError, bounded, judge_error, means_of, rank_systems
from .systems import Systems, check_labelled, read_systems, scorer

BY = ("means", "wins")
MOST_PAIRS = 10  # systems whose pairs are reported for every aspect, and rows of pairs that are shown


def rank(
    files: Sequence[str | os.PathLike[str]],
    judge: Any = None,
    *,
    names: Sequence[str] = (),
    system: str | None = None,
    rank_by: str | None = None,
    label: str | None = None,
    level: float = 0.95,
    sd: float | None = None,
    batch_size: int | None = None,
    load: Callable[[], Any] | None = None,
    revision: str | None = None,
    by: str = "means",
) -> dict[str, Any]:
    """Rank systems.

    Args:
        files: Responses, one file or folder of `inspector score` a system; such as are not scored yet are scored.
        judge: Id, folder or pipeline; the embedded one where it is None and rows are to be scored.
        names: The systems' names; the files' where they are not given.
        system: The column that names each row's system; files are then taken together.
        rank_by: The field to rank by; the judge's own where it is None.
        label: A column with the truth of some rows, drawn at random.
        level: Of the intervals, all at once.
        sd: The judge's error between systems, where its evidence does not say it: a standard deviation on the scale of
            what is ranked by.
        batch_size: Pairs of a batch.
        load: Loads the judge; `load_judge` where it is None.
        revision: Of a judge on the Hub, whose evidence alone is read.
        by: `means` of scores; or `wins`, Bradley-Terry strengths of who is higher at each prompt, without labels.

    Returns:
        `order`, `groups` that cannot be told apart, `winner` (None where the best is not told apart from all others),
        `systems` and `pairs` with intervals that hold the judge's own error, `length`, `aspects` and `notes`.

    Raises:
        DataFileError: A file cannot be read, or there are too few systems or prompts.
        SettingsError: A setting is out of range, or there is no such field.
    """
    if not 0.5 <= level < 1:
        raise SettingsError(f"level expects a share from 0.5 to below 1, such as 0.95, but got {level}.")
    if sd is not None and not 0 <= sd < inf:
        raise SettingsError(f"The judge's error expects a standard deviation, 0 or more, but got {sd}.")
    if by not in BY or (by == "wins" and label is not None):
        raise SettingsError(f"by expects one of {', '.join(BY)}, with labels means, but got {by!r}. Leave one out.")
    loaded: list[Any] = []

    def load_once() -> Any:
        loaded[:] = loaded or [load() if load else load_judge(judge)]
        return loaded[0]

    paths = [Path(path) for path in files]
    systems = read_systems(
        paths,
        scorer(load_once, batch_size),
        names=names,
        system=system,
        rank_by=rank_by,
        label=label,
        least_labelled=LEAST_LABELLED,
    )
    if systems.labels is not None:
        check_labelled(
            dict(zip(systems.names, (~np.isnan(systems.labels)).sum(axis=0).tolist(), strict=True)), LEAST_LABELLED
        )
    known = judge is not None or loaded
    results = results_of(loaded[0] if loaded else judge, revision) if known else {}
    error = JudgeError(sd, inf, "what was given") if sd is not None else judge_error(results, systems.field)
    return ranking_report(systems, error, results, level, by)


def results_of(judge: Any, revision: str | None = None) -> dict[str, Any]:
    """Read the results.json of a loaded judge, or of one that is named; empty where it has none."""
    loaded = getattr(judge, "model", None)
    found = file_of(judge_name(judge), EVIDENCE, revision) if loaded is None else evidence_path(loaded)
    return dict(read_json(found)) if found else {}


def ranking_report(
    systems: Systems, error: JudgeError | None, results: Mapping[str, Any], level: float, by: str = "means"
) -> dict[str, Any]:
    """Rank systems by a judge, beside their length.

    Args:
        systems: The systems.
        error: The judge's between systems, of the field that is ranked by; None where nothing says it.
        results: The judge's results.json, for the errors of the other fields.
        level: Of the intervals.
        by: `means` or `wins`, for what is ranked by; other aspects are told by means.

    Returns:
        The report, as JSON would hold it; docs/systems.md says what stands where.
    """
    names, field, labelled = systems.names, systems.field, systems.labels is not None
    flagged = systems.flags[UNFAMILIAR]
    values = systems.values[field]
    found = rank_systems(
        values, error, labels=systems.labels, flagged=None if flagged is None else flagged > 0, level=level, by=by
    )
    counts = {flag: None if table is None else table.sum(axis=0).tolist() for flag, table in systems.flags.items()}
    length = systems.length.mean(axis=0)
    means = [one["mean"] for one in found["systems"]]
    by_length = (np.argsort(np.argsort(-length, kind="stable")) + 1).tolist()
    entries = {
        name: {
            **_rounded(one),
            "responses": systems.responses[i],
            "characters": round(float(length[i]), 1),
            "rank_by_length": by_length[i],
            **{flag: None if own is None else own[i] for flag, own in counts.items()},
            **({"labelled": int((~np.isnan(systems.labels[:, i])).sum())} if systems.labels is not None else {}),
        }
        for i, (name, one) in enumerate(zip(names, found["systems"], strict=True))
    }
    order = sorted(range(len(names)), key=lambda i: -means[i])
    best = order[0]
    beaten = [pair["better"] == best for pair in found["pairs"] if best in (pair["first"], pair["second"])]
    return {
        "rank_by": field,
        "by": by,
        "level": level,
        "n_prompts": len(values),
        "n_left_out": systems.n_left_out,
        "labelled": labelled,
        "judge_error": None if error is None or labelled else vars(error),
        "winner": names[best] if all(beaten) else None,
        "order": [names[i] for i in order],
        "groups": [[names[i] for i in group] for group in found["groups"]],
        "groups_by": "all errors" if error or labelled else "sampling alone",
        "systems": {names[i]: entries[names[i]] for i in order},
        "pairs": [_named(pair, names) for pair in found["pairs"]],
        "length": {
            "order": [names[i] for i in np.argsort(-length, kind="stable")],
            "spearman": rank_correlation(np.array(means), length),
            "within_prompts": rounded(_within(values, systems.length)),
        },
        "aspects": {} if labelled else _aspects(systems, results, level),
        "notes": _notes(systems, found["pairs"], error, labelled),
    }


def _rounded(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: rounded(value) if isinstance(value, float) else value for key, value in one.items()}


def _named(pair: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    given = {key: pair[key] for key in ("first", "second", "better", "beyond_sampling")}
    return {**_rounded(pair), **{key: None if at is None else names[at] for key, at in given.items()}}


def _aspects(systems: Systems, results: Mapping[str, Any], level: float) -> dict[str, Any]:
    """Give every other field's means, and for a few systems the pairs."""
    found = {}
    for field, values in systems.values.items():
        if field == systems.field:
            continue
        error = judge_error(results, field)
        few = len(systems.names) <= MOST_PAIRS
        own = rank_systems(values, error, level=level) if few else {"systems": bounded(means_of(values), error, level)}
        pairs = [_named(pair, systems.names) for pair in own.get("pairs", [])]
        found[field.removeprefix("expected_") if field != TOTAL else "total"] = {
            "judge_error": error and vars(error),
            "systems": {name: _rounded(one) for name, one in zip(systems.names, own["systems"], strict=True)},
            "pairs": pairs,
        }
    return found


def _within(values: Array, length: Array) -> float:
    """Correlate scores and lengths of responses to the same prompts."""
    one, other = (table - table.mean(axis=1, keepdims=True) for table in (values, length))
    spread = np.sqrt(np.sum(one**2) * np.sum(other**2))
    return float(np.sum(one * other) / spread) if spread > 0 else float("nan")


def _notes(systems: Systems, pairs: Sequence[Mapping[str, Any]], error: JudgeError | None, labelled: bool) -> list[str]:
    notes = []
    if systems.n_left_out:
        counted = f"{systems.n_left_out} prompt{'s' if systems.n_left_out > 1 else ''}"
        notes.append(f"Left out, as not all systems answer: {counted}.")
    if systems.labels is not None:
        notes.append("The labels take the judge's error between systems out, if they were drawn at random.")
        alike = [name for name, own in zip(systems.names, np.transpose(systems.labels), strict=True) if _alike(own)]
        if alike:
            told = ", ".join(alike[:MOST_PAIRS]) + (", ..." if len(alike) > MOST_PAIRS else "")
            notes.append(f"All labels are the same of {told}: such intervals are too narrow. Label more.")
    elif error is None:
        notes.append(
            "Nothing says how much this judge prefers some systems at equal quality, so nothing is called better: "
            "differences are told from the chance of the prompts alone. Give the judge by --judge if its results.json "
            "says it, labels by --label, or its error by --judge-error."
        )
    elif not error.ranks:
        notes.append(
            f"The judge's error is in the intervals, but {error.source} does not show that better systems get higher "
            "scores: nothing is called better, however many prompts there are. Labels of some rows, by --label, take "
            "that error out."
        )
    if not any(pair["prompts_needed"] != NEVER for pair in pairs) and (labelled or error is None or error.ranks):
        differ = any(pair["difference"] for pair in pairs) and not labelled and error and error.sd > 0
        why = "the judge's own error is larger" if differ else "they do not differ"
        notes.append(f"No number of prompts would tell any of them apart: {why}.")
    for flag, what in (
        (UNFAMILIAR, "unlike what the judge was fitted on"),
        (SEEN, "to questions that it was fitted on"),
    ):
        table = systems.flags[flag]
        if table is not None and table.sum():
            told = ", ".join(
                f"{n} of {name}" for name, n in zip(systems.names, table.sum(axis=0).tolist(), strict=True) if n
            )
            notes.append(f"Responses {what}: {told}.")
    resting = [pair for pair in pairs if pair["rests_on_flagged"]]
    if resting:
        told = "; ".join(f"{systems.names[one['first']]} and {systems.names[one['second']]}" for one in resting[:5])
        notes.append(
            f"{len(resting)} comparison{'s rest' if len(resting) > 1 else ' rests'} on unfamiliar responses, and "
            f"neither is called better: {told}{'; ...' if len(resting) > 5 else ''}."
        )
    return notes


def _alike(labels: Array) -> bool:
    """Whether all labels that are known are one, so that their chance cannot be told from them."""
    return bool(np.nanmin(labels) == np.nanmax(labels))


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a ranking: the systems, the pairs of a few, and what to know of them."""
    certain = report["groups_by"] == "all errors"
    error = report["judge_error"]
    told = f"its error between systems {error['sd']:.3g} by {error['source']}" if error else "its own error not known"
    by = "labels and scores" if report["labelled"] else told
    level = f"{100 * report['level']:.3g} %"
    title = f"{report['n_prompts']} prompts, by {report['rank_by']}; {by}"
    letters = {
        name: "".join(_letter(i) if name in group else " " for i, group in enumerate(report["groups"]))
        for name in report["order"]
    }
    table = Table(
        Column("system", overflow="fold"),  # a name that is cut may be another's
        f"{'mean' if report['by'] == 'means' else 'strength'} ({level})",
        "places",
        "group",
        "characters",
        "by length",
        title=printable(title),
    )
    table.box = SIMPLE_HEAD
    for name, own in report["systems"].items():
        mean = f"{own['mean']:.3f} ({own['low']:.3f} to {own['high']:.3f})"
        places = "-".join(map(str, dict.fromkeys(own["ranks"])))
        shown = (places if certain else "", letters[name], f"{own['characters']:.0f}", str(own["rank_by_length"]))
        table.add_row(Text(printable(name)), mean, *shown)
    console.print(table)
    pairs = sorted(report["pairs"], key=lambda pair: -abs(pair["difference"]))[:MOST_PAIRS]
    verdict = "better" if certain else "differs by sampling alone"
    first, second, better = (Column(name, overflow="fold") for name in ("first", "second", verdict))
    table = Table(first, second, f"second - first ({level})", better, "prompts needed", box=SIMPLE_HEAD)
    for pair in pairs:
        difference = f"{pair['difference']:+.3f} ({pair['low']:+.3f} to {pair['high']:+.3f})"
        called = pair["better"] or "-" if certain else "yes" if pair["beyond_sampling"] else "no"
        needed = pair["prompts_needed"]
        names = (Text(printable(pair[key])) for key in ("first", "second"))
        table.add_row(*names, difference, Text(printable(called)), needed if needed == NEVER else f"{needed:,}")
    console.print(table)
    if len(report["pairs"]) > len(pairs):
        console.print(f"... and {len(report['pairs']) - len(pairs)} more pairs", highlight=False)
    length = report["length"]["spearman"]
    along = f"means and lengths {length['value']:+.2f}, " if length else ""
    within = report["length"]["within_prompts"]
    console.print(
        f"Correlation with length: {along}within prompts {'none' if within is None else f'{within:+.2f}'}. Systems "
        f"that share a letter are not told apart{'' if certain else ' by sampling'}.",
        highlight=False,
    )
    for note in report["notes"]:
        console.print(printable(note), highlight=False, markup=False)


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
