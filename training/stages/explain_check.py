"""Check highlights: do tokens that lower a score fall into the wrong step?

Rows are solutions with a marked step (id, question, steps, first_mistake from 0); gold solutions (question, answer), of
which one result is made false here; or the worked solutions of the degenerate stage with those in which it changed a
number (forms worked and step). Questions that the judge was fitted on are left out. The judge explains its score of
each; of each file the figures, their chance and three rivals (surprisal and attention of the judge's backbone, and
place in the response) go to OUTPUT/results.json as the part `highlights`, which can go onto the judge's page, and as
tables to OUTPUT/highlights.md. See evaluation/highlights.py.

Beside that it says how far the shares and the constant of an explanation lay from the decision value at most (`sums`);
of rows that `inspector score --explain` wrote it says only that.

Example:
    python -m training explain_check --rows steps/*.jsonl.gz gsm8k.jsonl --judge work/judge --output work/highlights
    python -m training degenerate --rows verified/*.jsonl.gz --forms worked step --output planted.jsonl
    python -m training explain_check --rows planted.jsonl --output work/planted
    python -m training explain_check --scored scored.jsonl --output work/sums
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.batches import windows
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.familiarity import question_number
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.results import EXPLANATION, own_rank_field

from ..evaluation.highlights import FIGURES, METHODS, Marked, evidence, marked, sum_errors, sums, usual_place_told
from ..evaluation.metrics import Array, Index
from ..evaluation.rivals import Rivals
from ..evaluation.scored import input_files, read_entries
from ..rows.records import matching_files, read_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

RESULTS, TABLE = "results.json", "highlights.md"
WINDOW = 32
Errors = list[tuple[float, float]]


@dataclass(frozen=True)
class Config:
    """What to check.

    Attributes:
        output: Folder.
        rows: Files of solutions, a set each.
        scored: Files or folders of explained rows.
        judge: Folder or Hub id; the embedded one where it is not given.
        aspect: Whose highlights; that of the field that the judge ranks by where it is not given, or its first.
        n_rows: How many solutions of each file to take at most, drawn; all where it is not given.
        without_rivals: Whether to leave surprisal and attention out, which take a second pass, of all layers.
        bootstraps: Resamples of the questions.
        seed: Of all that is drawn.
    """

    output: Path
    rows: tuple[Path, ...] = ()
    scored: tuple[Path, ...] = ()
    judge: str | None = None
    aspect: str | None = None
    n_rows: int | None = None
    without_rivals: bool = False
    bootstraps: int = 1000
    seed: int = 0


def run(config: Config) -> dict[str, Any]:
    """Explain the solutions, or read explained rows, and write the figures.

    Returns:
        The part `highlights`; empty where the output was there already.

    Raises:
        DataFileError: A file cannot be read, or holds no solution with a marked step, or no explained row.
        SettingsError: The judge has no such aspect, or no shares of it; two files have one name; or there are both
            solutions and explained rows, or none.
    """
    if bool(config.rows) == bool(config.scored):
        raise SettingsError(f"explain_check expects rows or scored, but got {'both' if config.rows else 'none'}.")
    files = matching_files(config.rows)
    named = {path.name.partition(".")[0]: path for path in files}
    if len(named) < len(files):
        raise SettingsError(f"rows expects files of different names, but got {', '.join(map(str, files))}.")
    judge = config.judge if config.rows else None
    manifest = Manifest.of("explain_check", config, [*files, *input_files(config.scored, judge)])
    if manifest.is_done(config.output):
        return {}
    part = _highlights(named, config) if config.rows else {"sums": sums(_scored_errors(config.scored))}
    table = highlights_table(part)
    config.output.mkdir(parents=True, exist_ok=True)
    outputs = [config.output / name for name in (RESULTS, TABLE)]
    write_atomically(outputs[0], json_text({"highlights": part}))
    write_atomically(outputs[1], table)
    manifest.write(config.output, outputs)
    logger.info("%s", table)
    return part


def highlights_table(part: dict[str, Any]) -> str:
    """Write the figures as tables in Markdown."""
    own = part["sums"]
    error = "none" if own["largest_error"] is None else f"{own['largest_error']:.2g}"
    told = (
        f"Shares and constants of {own['values']} decision values of {own['pairs']} pairs lie from the values by at "
        f"most {error}.\n"
    )
    return "\n".join([*(_set_table(name, one, part["aspect"]) for name, one in part.get("sets", {}).items()), told])


def _scored_errors(scored: tuple[Path, ...]) -> list[Errors]:
    found = (row[EXPLANATION] for row in read_entries(scored, [EXPLANATION]))
    return [sum_errors(json.loads(one) if isinstance(one, str) else one) for one in found]


def _highlights(named: dict[str, Path], config: Config) -> dict[str, Any]:
    judge = load_judge(config.judge)
    aspect = _aspect(judge, config.aspect)
    rivals = None if config.without_rivals else Rivals(judge)
    checked: list[Errors] = []
    sets = {name: _of_file(path, judge, aspect, rivals, config, checked) for name, path in named.items()}
    return {"aspect": aspect, "sets": sets, "sums": sums(checked)}


def _set_table(name: str, found: dict[str, Any], aspect: str) -> str:
    methods = [method for method in METHODS if method in found["figures"]["first"]]
    lines = [
        f"{name}: {found['n']} solutions with a marked step, of questions that the judge was not fitted on; "
        f"highlights of {aspect}",
        "",
        f"| | chance | {' | '.join(methods)} |",
        f"|---|---|{'---|' * len(methods)}",
    ]
    for figure, values in found["figures"].items():
        cells = [_interval(values[method]) for method in methods]
        lines.append(f"| {figure}: {FIGURES[figure]} | {values['chance']:.3f} | {' | '.join(cells)} |")
    lines += ["", usual_place_told(found["usual_place"])]
    return "\n".join(lines) + "\n"


def _interval(found: dict[str, Any]) -> str:
    ends = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['value']:.3f}{ends}"


def _of_file(
    path: Path,
    judge: InspectorPipeline,
    aspect: str,
    rivals: Rivals | None,
    config: Config,
    checked: list[Errors],
) -> dict[str, Any]:
    found = marked(read_records(path, ("question",)), str(path), config.seed)
    questions = judge.model.seen_questions
    fitted_on = frozenset(() if questions is None else questions.tolist())
    new = [one for one in found if question_number(one.question) not in fitted_on]
    if not new:
        raise DataFileError(f"{path} expects questions that the judge was not fitted on, but it was on all of them.")
    solutions = []
    for window in windows(_drawn(new, config), WINDOW):
        explained = [result[EXPLANATION] for result in judge([_pair(one) for one in window], explain=True)]
        checked += map(sum_errors, explained)
        solutions += [_explained(one, own[aspect], rivals) for one, own in zip(window, explained, strict=True)]
    return {"n_seen": len(found) - len(new), **evidence(solutions, config.bootstraps, config.seed)}


def _drawn(found: list[Marked], config: Config) -> list[Marked]:
    def place(one: Marked) -> bytes:
        return hashlib.sha256(f"{config.seed}:{one.name}".encode()).digest()

    return sorted(found, key=place)[: config.n_rows] if config.n_rows is not None else found


def _aspect(judge: Any, asked: str | None) -> str:
    names = [aspect.name for aspect in judge.model.aspects]
    ranked = str(own_rank_field(judge.model.config)).removeprefix("expected_")
    aspect = asked or (ranked if ranked in names else names[0])
    if aspect not in names:
        raise SettingsError(f"aspect expects one of {', '.join(names)}, but got {aspect!r}.")
    return aspect


def _pair(one: Marked) -> dict[str, str]:
    return {"question": one.question, "prediction": one.response}


def _explained(one: Marked, own: dict[str, Any], rivals: Rivals | None) -> tuple[Marked, dict[str, Array], Index]:
    """Say how suspicious each piece of a response is, and in which step it lies; pieces that were cut are left out."""
    if "why_not" in own:
        raise SettingsError(f"A check of highlights expects an aspect that has them, but {own['why_not']}.")
    pieces = own["response"]
    read = np.array([share is not None for _, share in pieces], dtype=np.bool_)
    steps = one.steps_of(pieces)
    suspicion = {
        "share": -np.array([share or 0.0 for _, share in pieces], dtype=np.float64),
        "late": np.arange(len(pieces), dtype=np.float64),
    }
    if rivals is not None:
        suspicion |= rivals(one.question, one.response, pieces)
    kept = read & (steps >= 0)
    return one, {name: values[kept] for name, values in suspicion.items()}, steps[kept]
