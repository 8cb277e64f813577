"""Make a judge from a table of labels, in one call: the stages of configs/own_data.yaml."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.encoded import CHECKS
from inspector_pipeline.errors import JudgeConfigError, SettingsError
from inspector_pipeline.files.tables import Row, read_rows
from inspector_pipeline.names import PREDICTION, QUESTION
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.results import TOTAL, column_kinds
from inspector_pipeline.sums import wrong_sums
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from .probing.settings import SearchConfig
from .rows.columns import other_columns
from .rows.reading import (
    are_nested,
    as_comparisons,
    as_pairs,
    column_of_responses,
    hold_turns,
    with_ids_of_questions,
    with_inner_columns,
)
from .rows.records import write_records
from .rows.understood import understand_comparisons, understand_labels, understand_ranks
from .runs.steps import read_steps, run_steps

logger = logging.getLogger(__name__)

STEPS = Path(__file__).parent / "configs" / "own_data.yaml"
WORDS = {"yes": 1, "Yes": 1, "no": 0, "No": 0}
TABLE = "The table"  # in messages
CHOSEN = ("chosen", "rejected")  # columns of preferences, as trainers name them
CHAT, EVALUATE = "chat", "evaluate"  # what reads the pairs alone; the stage of the evidence
ALL = "all"  # layers up to the depth
MENTIONED_ROWS, MENTIONED_SHARE = 3, 0.01  # of responses with wrong sums, from which on they are mentioned
DEPTHS = 5  # depths to choose from are fifths of the backbone's layers, but for all of them


def make_judge(
    rows: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    output: str | os.PathLike[str],
    labels: Mapping[str, str] | Sequence[str] | None = None,
    question: str = "question",
    prediction: str = "prediction",
    words: Mapping[str, float] | None = None,
    scales: Mapping[str, str] | None = None,
    good: Mapping[str, Any] | None = None,
    allow_unreadable: bool = False,
    generator: str | None = None,
    domain: str | None = None,
    context: str | None = None,
    reference: str | None = None,
    responses: Sequence[str] | None = None,
    said: Mapping[str, str] | None = None,
    ranks: Mapping[str, str] | None = None,
    backbone: str | os.PathLike[str] = EMBEDDED_BACKBONE_ID,
    revision: str | None = None,
    max_length: int = 1024,
    dtype: str = "float32",
    work: str | os.PathLike[str] | None = None,
    rank_by: str | None = None,
    checks: Sequence[str] = (),
) -> InspectorPipeline:
    """Make a judge from labelled responses, evaluate it, and save it with its evidence.

    Args:
        rows: A table file (.csv, .jsonl, .json, .parquet), a list of dicts, a `datasets.Dataset` or a pandas DataFrame;
            one row for each response.
        output: The judge's folder: config, probes, results.json, card, plots.
        labels: Aspect -> column of its labels (of several raters, their columns joined by `+`), or the columns, each an
            aspect of its name. None takes every column that looks like scores of 0 to 10, halves too, or yes and no.
            Rows of one question and response are several raters' labels of it.
        question: Column of the questions.
        prediction: Column of the responses.
        words: Label as it is written -> score; yes and no stand for 1 and 0 where none are given.
        scales: Aspect -> its scale, in which the judge gives scores: words in their order (`bad<fair<good`), a range
            (`0..10`) or `real`; where not given, what the labels look like.
        good: Aspect -> the level from which on labels are good; where not given, 1 of 0 and 1, 4 of 1 to 5, else the
            upper quarter of the scale.
        allow_unreadable: Whether more than 2 % of an aspect's labels may be unreadable.
        generator: Column of what wrote the response, where it is not called so.
        domain: Column of what the question is about, where it is not called so.
        context: Column of what a response should rest on. The judge then reads it before the question, and its evidence
            stands beside that of the same judge without it; rows where it is blank are left out, and told.
        reference: Column of a right answer, likewise; the judge reads it after the response.
        responses: Columns of two responses that each row compares; `labels` are then of who is better, and without any
            the first is the chosen one. Columns called chosen and rejected are taken so where there is no `prediction`.
        ranks: Aspect -> column of a response's rank among those to its question, 1 for the best. These are compared.
        said: What such a label says -> first, second or tie; beside A, B, 1, 2, left, right, tie, 0 and the like.
        backbone: Hub id or folder of the small language model that reads the pairs; the embedded one by default.
        revision: Its revision.
        max_length: Tokens of a pair; longer ones are cut, in the question first.
        dtype: Of the backbone's computation, float32, bfloat16 or float16.
        work: Folder of what is made on the way: rows, audit, features, fit. By default OUTPUT.work. The same call goes
            on there where an earlier one was stopped.
        rank_by: The field that the judge ranks responses by: `expected_total`, or `expected_` and an aspect. None is
            the expected total.
        checks: What probes read of the responses' texts beside hidden states, of `inspector_pipeline.encoded.CHECKS`:
            `wrong_sums`, whether a written sum is wrong, which a small model does not see.

    Returns:
        The judge, loaded.

    Raises:
        DataFileError: The table is not as expected, or has too few labels.
        JudgeConfigError: It cannot rank by that field; the message lists the choices.
        InspectorError: What a stage raises, such as BackboneError.

    Example:
        >>> from inspector_training import make_judge
        >>> judge = make_judge("training/examples/support_replies.csv", prediction="reply", output="my-judge")
        >>> judge({"question": "Are you open on Sunday?", "prediction": "Yes, from ten to four."})["scores"]
        {'helpfulness': 4, 'polite': 1}
    """
    table = _rows_of(rows)
    preferred = {*CHOSEN} <= {*next(iter(table), {})} and not ranks and not any(prediction in row for row in table)
    sides = responses or (CHOSEN if preferred else ())
    if sides and (hold_turns(table, [question]) or are_nested(table, sides)):
        table, question, responses = as_comparisons(table, question, sides, TABLE), QUESTION, CHOSEN
    else:
        table = as_pairs(table, {QUESTION: question, PREDICTION: prediction}, TABLE, answered=responses is None)
        question = QUESTION if hold_turns(table, [question]) else question
        prediction = PREDICTION if hold_turns(table, [prediction]) else column_of_responses(table, prediction)
    asked = labels.values() if isinstance(labels, Mapping) else labels or ()
    table = with_inner_columns(with_ids_of_questions(table, question), (*asked, *filter(None, (generator, domain))))
    columns: Row = {"question": question}
    columns |= {name: own for name, own in (("generator", generator), ("domain", domain)) if own}
    slots = {name: own for name, own in (("context", context), ("reference", reference)) if own}
    columns |= {**slots, "needed": list(slots)} if slots else {}
    if responses is None and not any(prediction in row for row in table) and {*CHOSEN} <= {*next(iter(table), {})}:
        responses = CHOSEN
    if ranks:
        found = understand_ranks(columns, prediction, ranks)
    elif responses is not None:
        found = understand_comparisons(columns, responses, labels, said or {})
    else:
        words = dict(WORDS if words is None else words)
        found = understand_labels(table, columns, prediction, labels, words, scales or {}, good or {})
    _check_rank_by(rank_by, found.aspects, total=responses is None and not ranks)
    if isinstance(checks, str) or not set(checks) <= set(CHECKS):
        raise SettingsError(f"checks expects a list of some of {', '.join(CHECKS)}, but got {checks!r}.")
    beside = "".join(f"{name}s from {column!r}, " for name, column in slots.items())
    logger.info("%d rows; questions from %r, %s%s.", len(table), question, beside, found.told)
    if not checks:
        _tell_of_wrong_sums([row.get(prediction) for row in table])
    data = {**found.data, "allow_unreadable": allow_unreadable}
    if backbone == EMBEDDED_BACKBONE_ID:
        revision = revision or EMBEDDED_BACKBONE_REVISION
    work = Path(work or f"{os.fspath(output).rstrip('/')}.work")
    write_records(table, work / "table.jsonl")
    extract: Row = {"backbone_id": os.fspath(backbone), "backbone_revision": revision}
    extract |= {"max_length": max_length, "dtype": dtype}
    reading = "_".join(slots)
    extract |= {"readings": [reading, CHAT]} if slots else {}
    features = _features_folder(work, [table, data, extract])
    export: Row = {"output": os.fspath(output), "rank_by": rank_by}
    changes = {"data": data, "extract": {**extract, "output": features}, "export": export}
    depths = _depths(os.fspath(backbone), revision)
    steps = read_steps(str(STEPS), {"table": str(work / "table.jsonl"), "work": str(work)})
    for step in steps:
        step |= changes.get(step["stage"], {})
        if "search" in step:
            chosen = {"depths": depths, "good": found.good}
            chosen |= {"layers": [ALL]} if "compared" in data else {}  # one alone was not measured there
            pooled = step["search"].get("poolings", SearchConfig().poolings)
            chosen |= {"poolings": [[*own, *dict.fromkeys(checks)] for own in pooled]} if checks else {}
            step |= {"features": [features], "search": {**step["search"], **chosen}}
            step |= _with_slots(step, reading) if slots else {}
    run_steps(steps, STEPS.name)
    return load_judge(output)


def _tell_of_wrong_sums(texts: Sequence[Any]) -> None:
    """Say how many responses hold a wrong sum, where the judge would gain by reading that."""
    n = sum(bool(wrong_sums(text)) for text in texts if isinstance(text, str))
    if n >= max(MENTIONED_ROWS, MENTIONED_SHARE * len(texts)):
        message = "%d of %d responses hold a sum that is wrong; --checks wrong_sums lets the judge read that."
        logger.info(message, n, len(texts))


def _with_slots(step: Row, reading: str) -> Row:
    """Make a step that searches read what stands beside the pairs, and evaluate the same without it, too."""
    search = {**step["search"], "readings": [reading]}
    if step["stage"] != EVALUATE:
        return {"search": search}
    return {"search": search, "rival": {**search, "readings": [CHAT]}, "unseen": True}


def _check_rank_by(rank_by: str | None, aspects: Iterable[str], *, total: bool = True) -> None:
    """Refuse, before hours of work, names that a result's columns have, and a field that there will not be.

    Raises:
        JudgeConfigError: No aspect gives that field.
        SettingsError: An aspect is called as one of a result's own columns.
    """
    column_kinds(list(aspects))
    choices = (*((TOTAL,) if total else ()), *(f"expected_{name}" for name in aspects))
    if rank_by is not None and rank_by not in choices:
        raise JudgeConfigError(f"rank_by expects one of {', '.join(choices)}, but got {rank_by!r}.")


def _rows_of(rows: Any) -> list[Row]:
    """Return rows as JSON can hold them, whatever holds them now."""
    if isinstance(rows, (str, os.PathLike)):
        rows = read_rows(os.fspath(rows))
    elif hasattr(rows, "itertuples"):  # pandas; a DataFrame iterates over its columns' names
        rows = rows.to_dict("records")
    return [other_columns(row, set()) for row in rows]


def _depths(backbone: str, revision: str | None) -> list[int]:
    """Choose depths to search: four, evenly over the backbone's layers."""
    location, pinned = backbone_location(backbone, revision, None)
    layers = AutoConfig.from_pretrained(location, **pinned).get_text_config().num_hidden_layers
    return sorted({max(1, round(layers * part / DEPTHS)) for part in range(1, DEPTHS)})


def _features_folder(work: Path, made_from: Any) -> str:
    """Name the folder of features by what they are made from, and delete those of another table or other settings."""
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    for old in work.glob("features-*"):
        if old.name != f"features-{digest}":
            shutil.rmtree(old)
    return str(work / f"features-{digest}")
