"""Check highlights: do tokens that lower a score fall into the wrong step?

Rows are solutions with a marked step (id, question, steps, first_mistake from 0), or the worked solutions of the
degenerate stage with those in which it changed a number (forms worked and step), for planted errors. The judge explains
its score of each; the figures, their chance and two rivals (surprisal under the judge's backbone, and place in the
response) go to OUTPUT/results.json as the part `highlights`, and as a table to OUTPUT/highlights.md. See
evaluation/highlights.py.

Example:
    python -m training explain_check --rows steps/*.jsonl.gz --judge work/judge --output work/highlights
    python -m training degenerate --rows verified/*.jsonl.gz --forms worked step --output planted.jsonl
    python -m training explain_check --rows planted.jsonl --output work/planted
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.engine import windows
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.results import EXPLANATION, own_rank_field

from ..evaluation.highlights import FIGURES, METHODS, Marked, evidence, marked
from ..evaluation.metrics import Array, Index
from ..evaluation.scored import input_files
from ..rows.records import matching_files, read_records
from ..runs.manifest import Manifest
from ..score_tokens.surprisal import Surprisal

logger = logging.getLogger(__name__)

RESULTS, TABLE = "results.json", "highlights.md"
WINDOW = 32


@dataclass(frozen=True)
class Config:
    """What to check.

    Attributes:
        rows: Files of solutions with a marked step.
        output: Folder.
        judge: Folder or Hub id; the embedded one where it is not given.
        aspect: Whose highlights; that of the field that the judge ranks by where it is not given, or its first.
        n_rows: How many solutions to take at most, drawn; all where it is not given.
        without_surprisal: Whether to leave the language model's rival out, which takes a second pass of all layers.
        bootstraps: Resamples of the questions.
        seed: Of all that is drawn.
    """

    rows: tuple[Path, ...]
    output: Path
    judge: str | None = None
    aspect: str | None = None
    n_rows: int | None = None
    without_surprisal: bool = False
    bootstraps: int = 1000
    seed: int = 0


def run(config: Config) -> dict[str, Any]:
    """Explain the solutions and write the figures.

    Returns:
        The part `highlights`; empty where the output was there already.

    Raises:
        DataFileError: A file cannot be read, or holds no solution with a marked step.
        SettingsError: The judge has no such aspect, or no shares of it.
    """
    files = matching_files(config.rows)
    manifest = Manifest.of("explain_check", config, [*files, *input_files([], config.judge)])
    if manifest.is_done(config.output):
        return {}
    rows = [row for path in files for row in read_records(path)]
    found = _drawn(marked(rows, ", ".join(map(str, files))), config)
    judge = load_judge(config.judge)
    aspect = _aspect(judge, config.aspect)
    surprise = None if config.without_surprisal else Surprisal(judge)
    solutions = [
        _explained(one, result[EXPLANATION][aspect], surprise)
        for window in windows(found, WINDOW)
        for one, result in zip(window, judge([_pair(one) for one in window], explain=True), strict=True)
    ]
    part = {"aspect": aspect, **evidence(solutions, config.bootstraps, config.seed)}
    table = highlights_table(part)
    config.output.mkdir(parents=True, exist_ok=True)
    outputs = [config.output / name for name in (RESULTS, TABLE)]
    write_atomically(outputs[0], json_text({"highlights": part}))
    write_atomically(outputs[1], table)
    manifest.write(config.output, outputs)
    logger.info("%s", table)
    return part


def highlights_table(part: dict[str, Any]) -> str:
    """Write the figures as a table in Markdown."""
    methods = [name for name in METHODS if name in part["figures"]["first"]]
    lines = [
        f"{part['n']} solutions with a marked step; highlights of {part['aspect']}",
        "",
        f"| | chance | {' | '.join(methods)} |",
        f"|---|---|{'---|' * len(methods)}",
    ]
    for name, figures in part["figures"].items():
        cells = (
            f"{figures[m]['value']:.3f} ({figures[m]['low']:.3f} to {figures[m]['high']:.3f})"
            if figures[m]["low"] is not None
            else f"{figures[m]['value']:.3f}"
            for m in methods
        )
        lines.append(f"| {name}: {FIGURES[name]} | {figures['chance']:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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


def _explained(
    one: Marked, own: dict[str, Any], surprise: Callable[[str, str, Sequence[tuple[str, Any]]], Array] | None
) -> tuple[Marked, dict[str, Array], Index]:
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
    if surprise is not None:
        suspicion["surprisal"] = surprise(one.question, one.response, pieces)
    kept = read & (steps >= 0)
    return one, {name: values[kept] for name, values in suspicion.items()}, steps[kept]
