r"""Make degenerate answers: bare numbers, echoes, cuts, talk, noise.

Verified answers hold question, prediction, generator, final, answer (the right one) and correct. Each question with a
right and a wrong one gives the worked solutions and what must not stand above a right one; corruptions/degenerate.py
says which, and how they are labelled. For a fit the forms are auxiliary rows of a weight of their own, without the
worked solutions, which the fit has already.

With a judge, or rows that `inspector score` has scored, the output is a folder: the suite, and for each form how often
the judge ranks the worked right solution above it, beside a rule that reads no meaning (evaluation/degenerate.py), as a
table and as the part `degenerate` of results.json, which can go onto the judge's card.

Example:
    python -m training degenerate --rows verified/*.jsonl.gz --n-questions 300 --judge work/judge --output work/suite
    python -m training degenerate --rows verified/*.jsonl.gz --output suite.jsonl --n-questions 300
    python -m training degenerate --rows verified/*.jsonl.gz --output more.jsonl --n-questions 1000 --per-question 2 \
        --auxiliary --weight 0.3 --without-worked
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_cards.measured import degenerate_table
from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.entries import Row

from ..corruptions.degenerate import FORMS, WORKED, degenerate_rows
from ..evaluation.degenerate import degenerate_evidence, matched_to
from ..evaluation.evidence import today
from ..evaluation.scored import input_files, judged, read_scored
from ..rows.contrast import VERIFIED
from ..rows.correctness import CORRECTNESS
from ..rows.records import matching_files, read_records, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

SUITE, RESULTS, TABLE = "suite.jsonl", "results.json", "degenerate.md"


@dataclass(frozen=True)
class Config:
    """What to make, and what to judge it by.

    Attributes:
        rows: Files of verified answers, where those of one question may stand in several; or of rows that this stage
            has made, which are taken as they are.
        output: Labelled rows, JSON Lines; with a judge or scored rows a folder.
        n_questions: How many questions to take at most, drawn; all where it is not given.
        seed: Of all that is drawn, and of the resamples.
        forms: Which forms to make; all where none are named.
        per_question: How many forms a question gives at most, beside the worked solutions, drawn.
        without_worked: Whether to leave the worked solutions out.
        auxiliary: Whether to mark all rows but the worked solutions as auxiliary: for fits alone, never scored.
        weight: Weight of their labels in a fit; 1 where it is not given.
        judge: Folder or Hub id of a judge, to rank them by.
        scored: Files of these rows as `inspector score` has scored them, or its folders, to rank them by.
        rank_by: The field to rank by; the judge's own where it is not given.
        bootstraps: Resamples of the questions.
    """

    rows: tuple[Path, ...]
    output: Path
    n_questions: int | None = None
    seed: int = 0
    forms: tuple[str, ...] = ()
    per_question: int | None = None
    without_worked: bool = False
    auxiliary: bool = False
    weight: float | None = None
    judge: str | None = None
    scored: tuple[Path, ...] = ()
    rank_by: str | None = None
    bootstraps: int = 1000


def run(config: Config) -> dict[str, Any]:
    """Make the rows, rank them where a judge or their scores are given, and write all with a manifest.

    Returns:
        How many rows each form gave, and in how many questions one could not be made ("skipped FORM"); or the part
        `degenerate`. Empty where the output was there already.

    Raises:
        DataFileError: A file cannot be read or lacks keys, no question has a right and a wrong worked answer, or a row
            was not scored.
    """
    _check(config)
    files, places = matching_files(config.rows), matching_files(config.scored)
    manifest = Manifest.of("degenerate", config, [*files, *input_files(places, config.judge)])
    if manifest.is_done(config.output):
        return {}
    rows, counts = _rows(files, config)
    if config.judge is None and not config.scored:
        write_records(rows, config.output)
        manifest.write(config.output, [config.output])
        logger.info("%s: %d rows; %s", config.output, len(rows), dict(sorted(counts.items())))
        return counts
    if config.scored:
        scored = matched_to(read_scored(places, ("question", "prediction"), config.rank_by), rows)
    else:
        scored = judged(load_judge(config.judge), rows, config.rank_by)
    found = {"date": today(), **degenerate_evidence(scored, config.bootstraps, config.seed)}
    table = f"{degenerate_table(found)}\n"
    outputs = [config.output / name for name in (SUITE, RESULTS, TABLE)]
    config.output.mkdir(parents=True, exist_ok=True)
    values = zip(rows, scored.value.tolist(), scored.unfamiliar, strict=True)
    write_records([row | {scored.field: value, "unfamiliar": flag} for row, value, flag in values], outputs[0])
    write_atomically(outputs[1], json_text({"degenerate": found}))
    write_atomically(outputs[2], table)
    manifest.write(config.output, outputs)
    logger.info("%s", table)
    return found


def _check(config: Config) -> None:
    for name in ("n_questions", "per_question"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise DataFileError(f"{name} expects at least 1, but got {value}.")
    if config.weight is not None and not 0 < config.weight < float("inf"):
        raise DataFileError(f"weight expects a number above 0, but got {config.weight}.")
    if config.judge is not None and config.scored:
        raise DataFileError("The suite expects a judge or scored rows to rank by, but got both. Leave one out.")
    ranks = config.judge is not None or bool(config.scored)
    if ranks == bool(config.output.suffix):
        told = "a folder, as it is ranked" if ranks else "a file such as suite.jsonl, as nothing ranks it"
        raise DataFileError(f"output expects {told}, but got {config.output}.")


def _rows(files: list[Path], config: Config) -> tuple[list[Row], Counter[str]]:
    """Read rows that were made before, or make them."""
    read = [row for path in files for row in read_records(path, ("question", "prediction"))]
    if read and all(row.get("form") for row in read):
        kept = [row for row in read if not config.forms or row["form"] in config.forms]
        return kept, Counter(str(row["form"]) for row in kept)
    told = ", ".join(map(str, files))
    for i, row in enumerate(read):
        if lacking := [key for key in (*VERIFIED, "answer") if row.get(key) is None]:
            raise DataFileError(f"{told}: row {i} expects {', '.join(VERIFIED)} and answer, but lacks {lacking[0]!r}.")
    forms = [form for form in config.forms or FORMS if not (config.without_worked and form in WORKED)]
    rows, counts = degenerate_rows(
        read,
        told,
        n_questions=config.n_questions,
        seed=config.seed,
        forms=forms,
        per_question=config.per_question,
    )
    for row in rows:
        if row["form"] not in WORKED:
            row |= {"auxiliary": True} if config.auxiliary else {}
            row |= {"weights": {CORRECTNESS: config.weight}} if config.weight is not None else {}
    return rows, counts
