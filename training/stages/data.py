r"""Bring questions, responses and labels of any source into rows for all stages.

    python -m training data --dataset gsm8k --split train --output work/questions.jsonl
    python -m training data --dataset gsm8k --path copy/gsm8k_train.jsonl --output work/questions.jsonl
    python -m training data --path rated.csv --columns.question q --columns.prediction response \
        --columns.label.factuality stars --words.good 5 --words.bad 1 --output work/labelled.jsonl
    python -m training data --path pairs.jsonl --columns.question prompt --compared.first chosen \
        --compared.second rejected --output work/compared.jsonl

The source is one of the named datasets (gsm8k, math, math-500, gpqa-main, gpqa-extended, gpqa-diamond), any other Hub
dataset, or a local copy: a .json, .jsonl, .csv or .parquet file, or a folder that `datasets` can load. A file without
a column `question` is read as the tool wrote it that it is of (inspector_pipeline/rows.py). A probing set,
a teacher's file or an evaluated file in the published formats is recognised and needs no column names.

An id names a question: the dataset's own id, its row for GSM8K (as in the published files), else the hash of its text.
Equal questions share it, and several responses to one question are its samples 0, 1, .... One id for two different
questions is an error. Rows that cannot be used are written with their reasons to OUTPUT.rejects.jsonl; in a named
dataset they are an error, but for questions that come again.

Labels are of any scale (rows/scales.py): what was taken for what, which labels are good, and every label that is not
used, by its reason, is logged and written to OUTPUT.labels.json, which the evaluate stage puts on the judge's card.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import Row, read_rows

from ..rows.columns import Columns
from ..rows.compared import Compared, compared_rows
from ..rows.published import READERS, detect
from ..rows.rated import LabelReader, Reported, label_lines, label_report
from ..rows.reading import as_pairs
from ..rows.records import number_samples, question_id, subset_of, write_records
from ..rows.sources import DATASETS, SHOWN, Reject, Source, make_rows, read_dataset
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

LABELLED_FORMATS = ("probing", "teacher", "evaluated")


@dataclass(frozen=True)
class Config:
    """Settings of the data stage.

    Attributes:
        output: File of rows to write (.jsonl).
        dataset: gsm8k, math, math-500, gpqa-main, gpqa-extended, gpqa-diamond, or the Hub id of another dataset.
        path: Local file or folder to read in place of the Hub; with a named dataset, a copy of that dataset.
        split: Split to read; None is the named dataset's first, else train. Of a local file, what it is called.
        subset: Subset (Hub "config") of a dataset that is none of the named ones.
        revision: Commit, branch or tag of the Hub dataset; None is its newest state. The manifest names the commit.
        columns: Which column holds what; the named datasets know theirs.
        compared: Which columns hold comparisons of responses, chosen and rejected ones or rankings; the rows are the
            responses then, and carry the comparisons.
        words: Label as it is written -> score, for labels that are no numbers.
        scales: Aspect -> its scale: words in their order (bad<fair<good), a range (0..10) or real; without one,
            what the labels look like.
        good: Aspect -> the level from which on its labels are good; without one, 1 of 0 and 1, 4 of 1 to 5, else the
            upper quarter of the scale.
        allow_unreadable: Whether more than 2 % of an aspect's labels may be unreadable; they are left out then.
        merge_raters: Whether rows of one question and response are several raters' labels of it.
        ids_from_text: Make the hash of its text every question's id and keep the source's as `source_id`: for files in
            which one id stands for different questions, such as the published probing set of GPQA.
        limit: Keep this many questions, with all their responses; None keeps all.
        seed: Choose them by the hash of seed and id; None takes the first.
    """

    output: str
    dataset: str | None = None
    path: str | None = None
    split: str | None = None
    subset: str | None = None
    revision: str | None = None
    columns: Columns = Columns()
    compared: Compared = Compared()
    words: dict[str, float] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)
    good: dict[str, str] = field(default_factory=dict)
    allow_unreadable: bool = False
    merge_raters: bool = False
    ids_from_text: bool = False
    limit: int | None = None
    seed: int | None = None


def run(config: Config) -> None:
    """Run the stage: a source -> OUTPUT, OUTPUT.rejects.jsonl where rows were rejected, and the manifest.

    Raises:
        DataFileError: The settings or the source are not as expected, or a named dataset has an unusable row.
    """
    _check(config)
    output = Path(config.output)
    is_file = config.path is not None and Path(config.path).is_file()
    published = _published_format(config) if is_file else None
    source = _read(config, published)
    settings = config if is_file or not config.path else replace(config, path=Path(config.path).name)
    manifest = Manifest.of("data", settings, (config.path if is_file else None,))
    manifest = replace(manifest, inputs=manifest.inputs | source.inputs)
    if manifest.is_done(output):
        return
    made = Made(source.rows) if published else _make_rows(source, config)
    rows, rejects = made.rows, made.rejects
    if config.ids_from_text:
        rows = [row | {"id": question_id(row["question"]), "source_id": row["id"]} for row in rows]
    rows = subset_of(number_samples(rows, source.name), config.limit, config.seed)
    counts = Counter(reject.reason for reject in rejects).most_common(SHOWN)
    reasons = ", ".join(f"{n} times {reason}" for reason, n in counts)
    if not rows:
        raise DataFileError(f"{source.name} expects usable rows, but none is: {reasons}.")
    rejects_file = output.with_name(f"{output.name}.rejects.jsonl")
    rejects_file.unlink(missing_ok=True)  # an older manifest stays: until it is replaced, it refuses the new rows
    write_records(rows, output)
    outputs = [output]
    if rejects:
        write_records((vars(reject) for reject in rejects), rejects_file)
        outputs.append(rejects_file)
        logger.warning("Rejected %d rows (%s): see %s.", len(rejects), reasons, rejects_file)
    if made.accounts:
        outputs.append(output.with_name(f"{output.name}.labels.json"))
        rejected = Counter(reject.reason for reject in rejects)
        _report_labels(label_report(made.accounts, rows, rejected, made.warnings), outputs[-1])
    manifest.write(output, outputs)
    _log_summary(rows, output)


class Made(NamedTuple):
    """What a source's rows became.

    Attributes:
        rows: The rows.
        rejects: Those that cannot be used.
        accounts: Aspect -> what became of its labels.
        warnings: What looks as if columns were swapped.
    """

    rows: list[Row]
    rejects: Sequence[Reject] = ()
    accounts: Mapping[str, Reported] = {}
    warnings: Sequence[str] = ()


def _make_rows(source: Source, config: Config) -> Made:
    """Turn a source's rows into rows, and settle their labels or comparisons."""
    if config.compared:
        options = {"allow_unreadable": config.allow_unreadable}
        return Made(*compared_rows(source, config.columns, config.compared, **options))
    labels = None
    if config.columns.label:
        labels = LabelReader(source.rows, config.columns.label, config.words, config.scales, config.good)
    rows, rejects = make_rows(source, config.columns, DATASETS.get(config.dataset or ""), labels)
    if labels is None:
        return Made(rows, rejects)
    rows = labels.settle(rows, merge=config.merge_raters, allow_unreadable=config.allow_unreadable)
    return Made(rows, rejects, labels.accounts, labels.warnings)


def _report_labels(report: Row, path: Path) -> None:
    """Write what became of the labels, and say it."""
    write_atomically(path, json_text(report))
    for line in label_lines(report):
        logger.info(line)
    for warning in report["warnings"]:
        logger.warning(warning)


def _check(config: Config) -> None:
    """Refuse settings that do not fit each other.

    Raises:
        DataFileError: They do not fit.
    """
    named = DATASETS.get(config.dataset or "")
    place = Path(config.path) if config.path else None
    splits = named.splits if named else (config.split,)
    mistakes = [
        (not config.output.endswith(".jsonl"), f"--output expects a .jsonl file, but got {config.output}."),
        (
            not config.path and not config.dataset,
            "The data stage expects a source, but got none. Name one with --dataset or --path.",
        ),
        (place and not place.exists(), f"--path expects a file or folder, but there is none at {config.path}."),
        (
            not config.path and not named and "/" not in str(config.dataset),
            f"--dataset expects {', '.join(DATASETS)} or a Hub id such as org/name, but got {config.dataset!r}.",
        ),
        (
            config.split and config.split not in splits,
            f"{config.dataset} has the splits {', '.join(map(str, splits))}, but got {config.split!r}.",
        ),
        (config.limit is not None and config.limit < 1, f"--limit expects 1 or more, but got {config.limit}."),
        (
            config.seed is not None and config.limit is None,
            "--seed expects a --limit, since it says which rows to keep. Give both or none.",
        ),
    ]
    for wrong, message in mistakes:
        if wrong:
            raise DataFileError(message)


def _published_format(config: Config) -> str | None:
    """Name the published format of a labelled file that is read without naming columns."""
    kind = detect(str(config.path)) if config.columns == Columns() and not config.words else None
    return kind if kind in LABELLED_FORMATS else None


def _read(config: Config, published: str | None) -> Source:
    """Read the source's rows as they are; of a published format, as rows."""
    named = DATASETS.get(config.dataset or "")
    split = config.split or (named.splits[0] if named else None)
    if config.path and Path(config.path).is_file():
        name = config.dataset or Path(config.path).stem
        if not published:
            rows, named_columns = read_rows(config.path), config.columns
            texts = {"question": named_columns.question, "prediction": named_columns.prediction}
            return Source(name, split, rows if named else as_pairs(rows, texts, config.path, gold=True))
        logger.info("%s is a %s file.", config.path, published)
        origin = {key: value for key, value in (("dataset", config.dataset), ("split", split)) if value}
        return Source(name, split, [row | origin for row in READERS[published](config.path)])
    place = config.path or (named.hub_id if named else str(config.dataset))
    return read_dataset(
        place,
        config.dataset or Path(place).name,
        split or "train",
        named.subsets if named else (config.subset,),
        None if config.path else config.revision,
    )


def _log_summary(rows: list[Row], output: Path) -> None:
    """Say how many rows there are, and how many lack a final answer or a label."""
    logger.info("Wrote %d rows of %d questions to %s.", len(rows), len({str(row["id"]) for row in rows}), output)
    unanswered = sum("final_answer" in row and row["final_answer"] is None for row in rows)
    if unanswered:
        logger.warning("%d gold solutions hold no final answer.", unanswered)
    labels = [(aspect, score) for row in rows for aspect, score in (row.get("scores") or {}).items()]
    empty = Counter(aspect for aspect, score in labels if score is None)
    for aspect, n in Counter(aspect for aspect, _ in labels).items():
        logger.info("%s: %d labels, %d rows without one.", aspect, n - empty[aspect], empty[aspect])
