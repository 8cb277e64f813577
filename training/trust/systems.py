"""Systems to rank: their responses to the same prompts, read from files, and scored where they are not.

A file that `inspector score` has written is taken as it is; any other is scored first. Rows are joined by `id` where
every row has one, else by the text of the question; several responses of a system to one prompt are averaged, and
prompts that not all systems answer are left out and counted.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from inspector_cli.arguments import READABLE
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.names import PAIR
from inspector_pipeline.results import RANK_BY, SEEN, SETS, UNFAMILIAR, FlatColumns

from ..evaluation.metrics import Array
from ..evaluation.scored import (
    as_flag,
    check_row,
    judge_prefixes,
    numbers,
    pair_of,
    read_entries,
    refuse_judges_column,
    without_abstained,
)
from ..rows.reading import as_pairs
from ..rows.records import normal_text
from ..rows.scales import BINARY_WORDS, is_blank, number_of

FEWEST, MOST = 2, 100
TRUTH = "\0truth"  # of a row; no column is called so


@dataclass(frozen=True)
class Systems:
    """Responses of several systems to the same prompts.

    Attributes:
        names: The systems.
        n_left_out: Prompts that not all of them answer.
        values: Field -> (prompts, systems) scores, the mean over a system's responses to a prompt.
        field: What is ranked by.
        length: (prompts, systems) characters of the responses.
        flags: `unfamiliar` and `seen` -> (prompts, systems) how many responses are; None where nothing says so.
        responses: (systems,) how many.
        labels: (prompts, systems) the truth, NaN where it is not known; None without labels.
    """

    names: list[str]
    n_left_out: int
    values: dict[str, Array]
    field: str
    length: Array
    flags: dict[str, NDArray[np.int64] | None]
    responses: list[int]
    labels: Array | None


def read_systems(
    files: Sequence[Path],
    score: Callable[[list[Row]], list[Row]],
    *,
    names: Sequence[str] = (),
    system: str | None = None,
    rank_by: str | None = None,
    label: str | None = None,
    least_labelled: int = 1,
) -> Systems:
    """Read systems' responses, score those that are not, and put them side by side.

    Args:
        files: One a system; or, with `system`, any.
        score: Adds a judge's columns to rows.
        names: The systems', one a file; the files' where they are not given.
        system: The column that names each row's system.
        rank_by: The column to rank by; what the judge names where it is None.
        label: A column with the truth, empty where it is not known.
        least_labelled: Labels of each system, without which nothing is scored.

    Raises:
        DataFileError: A file cannot be read, there are too few systems or prompts, or one id stands for two questions.
    """
    rows = {path: _read(path, label) for path in files}
    if system is None:
        taken = names or names_of(files)
        by_system = dict(zip(taken, (rows[path] for path in files), strict=True))
    else:
        by_system = defaultdict(list)
        for path, row in ((path, row) for path, own in rows.items() for row in own):
            if is_blank(row.get(system)):
                raise DataFileError(f"{path} expects rows with {system!r}, the system's name, but one lacks it.")
            by_system[str(row[system]).strip()].append(row)
    if not FEWEST <= len(by_system) <= MOST:
        told = f"Give a file a system, or name the column of the systems by --system; {MOST} are the most."
        raise DataFileError(f"A ranking expects {FEWEST} to {MOST} systems, but got {len(by_system)}. {told}")
    if label is not None and not any(label in row for own in rows.values() for row in own):
        raise DataFileError(f"label expects a column with the truth of some rows, but no row has {label!r}.")
    if label is not None:  # before anything is scored
        check_labelled(
            {name: sum(row[TRUTH] == row[TRUTH] for row in own) for name, own in by_system.items()}, least_labelled
        )
    fresh = [name for name, own in by_system.items() if not _is_scored(own)]
    if fresh:
        together = iter(score([row for name in fresh for row in by_system[name]]))
        by_system = {**by_system, **{name: [next(together) for _ in by_system[name]] for name in fresh}}
    sure = {name: without_abstained(own, name, _prefix(own) or "") for name, own in by_system.items()}
    return _side_by_side(sure, rank_by, label)


def _read(path: Path, label: str | None) -> list[Row]:
    """Read rows; their labels are kept apart, as a judge may have an aspect that is called like them."""
    rows = as_pairs(read_entries([path], ()), {}, str(path), keys=PAIR)
    if not rows:
        raise DataFileError(f"{path} expects rows with {' and '.join(PAIR)}, but has none.")
    for number, row in enumerate(rows):
        check_row(row, PAIR, str(path), number)
    if label is None:
        return rows
    refuse_judges_column(rows, label, str(path))
    truth = truth_of(rows, label, str(path)).tolist()
    return [{**row, TRUTH: value} for row, value in zip(rows, truth, strict=True)]


def check_labelled(counts: Mapping[str, int], least: int) -> None:
    """Refuse labels that are too few, system -> how many, by the name of the one that lacks most.

    Raises:
        DataFileError: A system has fewer than `least`.
    """
    name = min(counts, key=counts.__getitem__)
    if counts[name] < least:
        raise DataFileError(
            f"A ranking with labels expects {least} labelled prompts of each system or more, but {name} has "
            f"{counts[name]}. Label more, drawn at random, or leave the labels out."
        )


def scorer(judge: Callable[[], Any], batch_size: int | None = None) -> Callable[[list[Row]], list[Row]]:
    """Return what adds the columns of a judge, which is loaded once they are asked for."""

    def score(rows: list[Row]) -> list[Row]:
        loaded = judge()
        columns = FlatColumns(loaded.model.config)
        results = loaded([pair_of(row) for row in rows], batch_size=batch_size)
        return [{**row, **columns.values(result)} for row, result in zip(rows, results, strict=True)]

    return score


def names_of(files: Sequence[Path]) -> list[str]:
    """Name systems by their files, without folders and endings where these tell them apart."""
    stems = [_stem(path.name) for path in files]
    for found in (stems, [str(path) for path in files]):
        if len(set(found)) == len(found):
            return found
    raise DataFileError(f"A ranking expects different files, but got {', '.join(map(str, files))}. Name each once.")


def _stem(name: str) -> str:
    """Take the ending of a kind of file off a name, and no more of it: Llama-3.1-8B.jsonl.gz is Llama-3.1-8B."""
    ending = max((one for one in READABLE if name.lower().endswith(one)), key=len, default="")
    return name.removesuffix(name[len(name) - len(ending) :]) or name


def _is_scored(rows: Sequence[Row]) -> bool:
    prefix = _prefix(rows)
    return prefix is not None and any(key.startswith(f"{prefix}expected_") for key in rows[0])


def _prefix(rows: Sequence[Row]) -> str | None:
    """Return what the names of a judge's columns begin with; None where there are none."""
    return next((found for row in rows[:1] for found in judge_prefixes(row)), None)


def _side_by_side(by_system: dict[str, list[Row]], rank_by: str | None, label: str | None) -> Systems:
    prompts = _prompts(by_system)
    answered = {name: set(keys) for name, keys in prompts.items()}
    shared = sorted(set.intersection(*answered.values()))
    if len(shared) < FEWEST:
        raise DataFileError(
            f"A comparison expects two prompts or more that all systems answer, but these share {len(shared)} ids or "
            "questions. Give the files the ids of one data set."
        )
    shape = (len(shared), len(by_system))
    columns: dict[str, Array] = defaultdict(lambda: np.full(shape, np.nan))
    fields, flags, counts = set[str](), {name: np.zeros(shape, dtype=np.int64) for name in (UNFAMILIAR, SEEN)}, []
    said = dict.fromkeys(flags, False)
    for at, (name, rows) in enumerate(by_system.items()):
        prefix = _prefix(rows) or ""
        own = _rank_field(rows, name, prefix, rank_by)
        fields.add(own)
        place = {key: i for i, key in enumerate(shared)}
        kept = [(place[key], row) for key, row in zip(prompts[name], rows, strict=True) if key in place]
        at_prompt, kept_rows = np.array([i for i, _ in kept]), [row for _, row in kept]
        counts.append(len(kept))
        named = {key: prefix + key for key in _expected(rows, prefix) | {own}}
        for key, column in named.items():
            columns[key][:, at] = _averaged(numbers(kept_rows, column, name), at_prompt, len(shared))
        lengths = np.array([len(str(row["prediction"])) for row in kept_rows], dtype=np.float64)
        columns["length"][:, at] = _averaged(lengths, at_prompt, len(shared))
        if label is not None:
            columns["label"][:, at] = _averaged(np.array([row[TRUTH] for row in kept_rows]), at_prompt, len(shared))
        for flag, table in flags.items():
            found = [as_flag(row.get(prefix + flag)) for row in kept_rows]
            said[flag] |= any(one is not None for one in found)
            np.add.at(table[:, at], at_prompt, np.array([bool(one) for one in found], dtype=np.int64))
    if len(fields) > 1:
        raise DataFileError(
            f"A ranking expects systems scored by one judge, but their rows name {', '.join(sorted(fields))} to rank "
            "by. Score them by one judge, or give --rank-by."
        )
    _check_one_scale(by_system)
    length, labels = columns.pop("length"), columns.pop("label", None)
    whole = {key: table for key, table in columns.items() if not np.isnan(table).any()}
    return Systems(
        list(by_system),
        len(set.union(*answered.values())) - len(shared),
        whole,
        fields.pop(),
        length,
        {flag: table if said[flag] else None for flag, table in flags.items()},
        counts,
        labels,
    )


def _check_one_scale(by_system: Mapping[str, Sequence[Row]]) -> None:
    """Refuse systems of which some alone were scored by a calibrated judge: its scores are on another scale."""
    said = {(_prefix(rows) or "") + SETS in rows[0]: name for name, rows in by_system.items()}
    if len(said) > 1:
        raise DataFileError(
            f"A ranking expects systems scored by one judge, but {said[True]} has score sets, of a calibrated one, and "
            f"{said[False]} has none. Score them by the same."
        )


def _prompts(by_system: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Name each row's prompt, by its id where all have one."""
    everything = [row for rows in by_system.values() for row in rows]
    if any(row.get("id") is None for row in everything):
        return {name: [normal_text(row["question"]) for row in rows] for name, rows in by_system.items()}
    asked: dict[str, str] = {}
    for row in everything:
        if asked.setdefault(_id(row), normal_text(row["question"])) != normal_text(row["question"]):
            raise DataFileError(f"The files expect one question for an id, but differ on id {row['id']}.")
    return {name: [_id(row) for row in rows] for name, rows in by_system.items()}


def _id(row: Row) -> str:
    """Return a row's id as text; 1.0, as some tools write 1, is 1."""
    found = row["id"]
    return str(int(found) if isinstance(found, float) and found.is_integer() else found)


def _rank_field(rows: Sequence[Row], name: str, prefix: str, rank_by: str | None) -> str:
    own = rows[0].get(prefix + RANK_BY) if rank_by is None else None
    field = str(own).removeprefix(prefix) if own else rank_by
    if field is None:
        raise SettingsError(
            f"{name} expects rows whose judge names what it ranks by, but it names nothing. Give --rank-by."
        )
    if prefix + field not in rows[0]:
        found = ", ".join(sorted(_expected(rows, prefix))) or "none"
        raise SettingsError(f"rank_by expects a column of the judge's, such as {found}, but got {field!r}.")
    return field


def _expected(rows: Sequence[Row], prefix: str) -> set[str]:
    return {
        key.removeprefix(prefix)
        for key, value in rows[0].items()
        if key.startswith(f"{prefix}expected_") and value not in (None, "")
    }


def truth_of(rows: Sequence[Row], column: str, source: str) -> Array:
    """Read labels, (rows,): numbers, truth values, or yes and no; NaN where there is none.

    Raises:
        DataFileError: A label is none of them.
    """
    known = [i for i, row in enumerate(rows) if not is_blank(row.get(column))]
    values = np.full(len(rows), np.nan)
    for i in known:
        found = number_of(rows[i][column], BINARY_WORDS)
        if found is None:
            raise DataFileError(f"{source} expects a number as {column!r}, but row {i} has {rows[i][column]!r:.60}.")
        values[i] = found
    return values


def _averaged(values: Array, prompt: NDArray[np.int64], n: int) -> Array:
    """Average what is known of each prompt's responses, (n,); NaN where nothing is."""
    known = ~np.isnan(values)
    totals, counts = np.bincount(prompt[known], values[known], n), np.bincount(prompt[known], minlength=n)
    return np.asarray(np.divide(totals, counts, out=np.full(n, np.nan), where=counts > 0))
