r"""Bring questions, responses and labels of any source into rows that every later stage reads (training/records.py).

    python -m training data --dataset gsm8k --split train --output work/questions.jsonl
    python -m training data --dataset gsm8k --path copy/gsm8k_train.jsonl --output work/questions.jsonl
    python -m training data --path rated.csv --columns.question q --columns.prediction response \
        --columns.label.factuality stars --words.good 5 --words.bad 1 --output work/labelled.jsonl

The source is one of the named datasets (gsm8k, math, math-500, gpqa-main, gpqa-extended, gpqa-diamond), any other Hub
dataset, or a local copy: a .json, .jsonl, .csv or .parquet file, or a folder that `datasets` can load. A probing set,
a teacher's file or an evaluated file in the published formats is recognised and needs no column names.

An id names a question: the dataset's own id, its row for GSM8K (as in the published files), else the hash of its text.
Equal questions share it, and several responses to one question are its samples 0, 1, .... One id for two different
questions is an error. Rows that cannot be used are written with their reasons to OUTPUT.rejects.jsonl; in a named
dataset they are an error, but for questions that come again.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row

from ..rows.columns import Columns, UnusableRowError, map_row, other_columns
from ..rows.named_datasets import DATASETS, NamedDataset
from ..rows.records import question_id, response_key, write_records
from ..rows.sources import Source, read_dataset, read_file
from ..runs.manifest import Manifest
from .convert import READERS, detect

logger = logging.getLogger(__name__)

LABELLED_FORMATS = ("probing", "teacher", "evaluated")
REPEATED = "the question came before"
SHOWN = 3


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
        words: Label as it is written -> score, for labels that are no whole numbers.
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
    words: dict[str, int] = field(default_factory=dict)
    ids_from_text: bool = False
    limit: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used.

    Attributes:
        row: Its place in the source, from 0.
        reason: Why.
        source: The row as it was read.
    """

    row: int
    reason: str
    source: Row


def run(config: Config) -> None:
    """Run the stage: a source -> OUTPUT, OUTPUT.rejects.jsonl where rows were rejected, and the manifest.

    Raises:
        DataFileError: The settings or the source are not as expected, or a named dataset has an unusable row.
    """
    named = _checked(config)
    output = Path(config.output)
    is_file = config.path is not None and Path(config.path).is_file()
    source = _read(config, named)
    settings = config if is_file or not config.path else replace(config, path=Path(config.path).name)
    manifest = Manifest.of("data", settings, (config.path if is_file else None,))
    manifest = replace(manifest, inputs=manifest.inputs | source.inputs)
    if manifest.is_done(output):
        return
    rows, rejects = source.rows, list[Reject]()
    if not _published_format(config):
        rows, rejects = make_rows(source, config.columns, config.words, named)
    if config.ids_from_text:
        rows = [row | {"id": question_id(row["question"]), "source_id": row["id"]} for row in rows]
    rows = subset_of(number_samples(rows, source.name), config.limit, config.seed)
    if not rows:
        raise DataFileError(f"{source.name} expects usable rows, but none is: {_reasons(rejects)}.")
    rejected = output.with_name(f"{output.name}.rejects.jsonl")
    rejected.unlink(missing_ok=True)  # an older manifest stays: until it is replaced, it refuses the new rows
    write_records(rows, output)
    if rejects:
        write_records((vars(reject) for reject in rejects), rejected)
        logger.warning("Rejected %d rows (%s): see %s.", len(rejects), _reasons(rejects), rejected)
    manifest.write(output, [output, rejected] if rejects else [output])
    _log_summary(rows, output)


def make_rows(
    source: Source, columns: Columns, words: dict[str, int], named: NamedDataset | None = None
) -> tuple[list[Row], list[Reject]]:
    """Turn a source's rows into questions, responses or labelled rows.

    Args:
        source: The rows.
        columns: Which column holds what; for a named dataset, where a copy of it differs.
        words: Label as it is written -> score.
        named: The named dataset that these rows are of.

    Returns:
        The rows, with the source's other columns beside their own keys (of a named dataset, the useful ones), and
        those that cannot be used. A question without a response that comes again is among these.

    Raises:
        DataFileError: A column is missing, or a named dataset has an unusable row.
    """
    if named:
        changed = {key: value for key, value in vars(columns).items() if value != getattr(Columns(), key)}
        columns = replace(named.columns, **changed)
    found = columns.resolve(source.rows, source.name)
    taken = {*found.values(), *columns.label.values(), *found}
    origin = {"dataset": source.name} | ({"split": source.split} if source.split else {})
    rows: list[Row] = []
    rejects: list[Reject] = []
    seen: set[tuple[str, str]] = set()
    for i, given in enumerate(source.rows):
        try:
            row = map_row(given, found, columns.label, words)
            extra = other_columns(given, taken)
            if named:
                if named.ids_from_rows and "id" not in found:
                    row["id"] = i if source.split == "train" else f"{source.split}-{i}"
                row |= named.complete(row, given)
                extra = {key: extra[key] for key in named.keep if key in extra}
            key = (str(row["id"]), question_id(row["question"]))
            if "prediction" not in row and key in seen:
                raise UnusableRowError(REPEATED)
            seen.add(key)
            rows.append(row | {key: value for key, value in (origin | extra).items() if key not in row})
        except UnusableRowError as error:
            rejects.append(Reject(i, str(error), other_columns(given, set())))
    broken = [f"row {reject.row}: {reject.reason}" for reject in rejects if reject.reason != REPEATED]
    if named and broken:
        raise DataFileError(
            f"{source.name} expects usable rows only, but {len(broken)} are not: {'; '.join(broken[:SHOWN])}. Check "
            "that these rows are of the dataset that --dataset names."
        )
    return rows, rejects


def number_samples(rows: list[Row], source: str) -> list[Row]:
    """Count the responses of each question and generator from 0, where they carry no number of their own.

    Raises:
        DataFileError: An id names two different questions, or two responses carry the same number.
    """
    questions: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    keys: set[tuple[str, int, str]] = set()
    numbered = []
    for row in rows:
        name = str(row["id"])
        first = questions.setdefault(name, row["question"])
        if question_id(first) != question_id(row["question"]):
            raise DataFileError(
                f"{source} expects one question for every id, but {name!r} names {first[:60]!r} and "
                f"{row['question'][:60]!r}. Map another id column, or give --ids_from_text true."
            )
        if "prediction" in row:
            group = (name, str(row.get("generator") or ""))
            if row.get("sample") is None:
                row = row | {"sample": counts[group]}
                counts[group] += 1
            if response_key(row) in keys:
                raise DataFileError(
                    f"{source} expects different samples of one question, but the id {name!r} has sample "
                    f"{row['sample']} twice. Map another sample column, or none: they are counted from 0 then."
                )
            keys.add(response_key(row))
        numbered.append(row)
    return numbered


def subset_of(rows: list[Row], limit: int | None, seed: int | None) -> list[Row]:
    """Keep some questions with all their responses, in their order.

    Args:
        rows: The rows.
        limit: How many questions; None keeps all.
        seed: Which: those whose seed and id have the smallest hashes, so that rows added later change little; None
            takes the first.

    Returns:
        The rows of these questions.
    """
    ids = list(dict.fromkeys(str(row["id"]) for row in rows))
    if seed is not None:
        ids.sort(key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    kept = set(ids[:limit])
    return [row for row in rows if str(row["id"]) in kept]


def _checked(config: Config) -> NamedDataset | None:
    """Refuse settings that do not fit each other, and return the named dataset, if it is one.

    Raises:
        DataFileError: They do not fit.
    """
    named = DATASETS.get(config.dataset or "")
    if not config.output.endswith(".jsonl"):
        raise DataFileError(f"--output expects a .jsonl file, but got {config.output}.")
    if not config.path and not config.dataset:
        raise DataFileError("The data stage expects a source, but got none. Name one with --dataset or --path.")
    if config.path and not Path(config.path).exists():
        raise DataFileError(f"--path expects a file or folder, but there is none at {config.path}.")
    if not config.path and not named and "/" not in str(config.dataset):
        raise DataFileError(
            f"--dataset expects {', '.join(DATASETS)} or a Hub id such as org/name, but got {config.dataset!r}."
        )
    if named and config.split and config.split not in named.splits:
        raise DataFileError(f"{config.dataset} has the splits {', '.join(named.splits)}, but got {config.split!r}.")
    if config.limit is not None and config.limit < 1:
        raise DataFileError(f"--limit expects 1 or more, but got {config.limit}.")
    if config.seed is not None and config.limit is None:
        raise DataFileError("--seed expects a --limit, since it says which rows to keep. Give both or none.")
    return named


def _published_format(config: Config) -> str | None:
    """Name the published format of a labelled file that is read without naming columns."""
    if config.path and Path(config.path).is_file() and config.columns == Columns() and not config.words:
        kind = detect(config.path)
        return kind if kind in LABELLED_FORMATS else None
    return None


def _read(config: Config, named: NamedDataset | None) -> Source:
    split = config.split or (named.splits[0] if named else None)
    kind = _published_format(config)
    if config.path and kind:
        origin = {key: value for key, value in (("dataset", config.dataset), ("split", split)) if value}
        logger.info("%s is a %s file.", config.path, kind)
        rows = [row | origin for row in READERS[kind](config.path)]
        return Source(config.dataset or Path(config.path).stem, split, rows)
    if config.path and Path(config.path).is_file():
        return read_file(config.path, config.dataset, split)
    place = config.path or (named.hub_id if named else str(config.dataset))
    return read_dataset(
        place,
        config.dataset or Path(place).name,
        split or "train",
        named.subsets if named else (config.subset,),
        None if config.path else config.revision,
    )


def _reasons(rejects: list[Reject]) -> str:
    counts = Counter(reject.reason for reject in rejects)
    return ", ".join(f"{n} times {reason}" for reason, n in counts.most_common(SHOWN))


def _log_summary(rows: list[Row], output: Path) -> None:
    """Say how many rows there are, and how many lack a final answer or a label."""
    logger.info("Wrote %d rows of %d questions to %s.", len(rows), len({str(row["id"]) for row in rows}), output)
    unanswered = sum("final_answer" in row and row["final_answer"] is None for row in rows)
    if unanswered:
        logger.warning("%d gold solutions hold no final answer.", unanswered)
    labels = [(aspect, score) for row in rows for aspect, score in (row.get("scores") or {}).items()]
    for aspect, n in Counter(aspect for aspect, _ in labels).items():
        empty = sum(name == aspect and score is None for name, score in labels)
        logger.info("%s: %d labels, %d rows without one.", aspect, n - empty, empty)
