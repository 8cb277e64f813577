"""Where rows come from: a file, a folder, the Hub or a dataset that is known by a short name; and how they are read."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import datasets

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row

from .answers import last_boxed
from .columns import Columns, UnusableRowError, is_blank, map_row, other_columns
from .rated import LabelReader
from .records import question_id

COMMIT = re.compile("[0-9a-f]{40}")
GSM8K_MARK = "####"
CALCULATION = re.compile(r"<<[^<>]*>>")
GPQA_CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
REPEATED = "the question came before"
SHOWN = 3


@dataclass(frozen=True)
class Source:
    """Rows as they were read.

    Attributes:
        name: What messages and the rows' `dataset` call it.
        split: Its split, if it has one.
        rows: The rows.
        inputs: What the manifest says of a source that is no file: name -> sha256 of its rows.
    """

    name: str
    split: str | None
    rows: list[Row]
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedDataset:
    """A dataset of questions on the Hub.

    Attributes:
        hub_id: Its Hub id.
        subsets: Its subsets (Hub "configs"), all of which are read, in this order; None is the only one.
        splits: Its splits, the default first.
        columns: Its columns.
        complete: Takes a question and the dataset's own row, and returns what else the question gets or changes.
        keep: Further columns to keep, by their own names.
        ids_from_rows: Whether a question's id is its row in the split: 0, 1, ... in `train`, `test-0`, ... elsewhere.
    """

    hub_id: str
    subsets: tuple[str | None, ...]
    splits: tuple[str, ...]
    columns: Columns
    complete: Callable[[Row, Row], Row] = lambda row, source: {}
    keep: tuple[str, ...] = ()
    ids_from_rows: bool = False


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


def read_dataset(
    place: str, name: str, split: str, subsets: tuple[str | None, ...] = (None,), revision: str | None = None
) -> Source:
    """Read a split of a Hub dataset, or of a local folder in the shape of one.

    Args:
        place: Hub id or folder.
        name: What to call it.
        split: The split.
        subsets: The subsets (Hub "configs") to read, one after the other; None is the only one.
        revision: Commit, branch or tag; None is the newest.

    Returns:
        The rows. Their inputs name the commit that was loaded, where it came from the Hub, and hash each subset.

    Raises:
        DataFileError: It cannot be loaded.
    """
    rows: list[Row] = []
    inputs = {}
    for subset in subsets:
        part, commit = _load(place, subset, split, revision)
        described = "/".join(filter(None, (f"{name}@{commit}" if commit else name, subset, split)))
        inputs[described] = hashlib.sha256(json.dumps(part, default=str).encode()).hexdigest()
        rows += part
    return Source(name, split, rows, inputs)


def _load(place: str, subset: str | None, split: str, revision: str | None) -> tuple[list[Row], str | None]:
    """Load one subset, as `datasets.load_dataset` does, and say which commit it is of, where it is from the Hub."""
    try:
        builder: Any = datasets.load_dataset_builder(place, subset, revision=revision)
        builder.download_and_prepare()
        loaded: Any = builder.as_dataset(split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataFileError(
            f"The split {split!r} of {place} could not be loaded: {str(error).rstrip('.')}. Check its name; for a "
            "gated dataset, accept its terms on the Hub and log in with `hf auth login`; without the Hub, name a local "
            "copy with --path."
        ) from error
    commit = builder.hash if COMMIT.fullmatch(builder.hash or "") else None
    if revision and COMMIT.fullmatch(revision) and commit != revision:  # offline, any cached revision is taken
        raise DataFileError(
            f"{place} expects the revision {revision}, but {commit or 'another one'} is cached and the Hub is out of "
            "reach. Load it once with the Hub in reach."
        )
    return loaded.to_list(), commit


def make_rows(
    source: Source, columns: Columns, named: NamedDataset | None = None, labels: LabelReader | None = None
) -> tuple[list[Row], list[Reject]]:
    """Turn a source's rows into questions, responses or rows whose labels were read.

    Args:
        source: The rows.
        columns: Which column holds what; for a named dataset, where a copy of it differs.
        named: The named dataset that these rows are of.
        labels: Reads the labels; each row gets what it gives.

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
    taken = {*found.values(), *columns.label_columns(name for row in source.rows for name in row), *found}
    origin = {"dataset": source.name} | ({"split": source.split} if source.split else {})
    rows: list[Row] = []
    rejects: list[Reject] = []
    seen: set[tuple[str, str]] = set()
    for i, given in enumerate(source.rows):
        try:
            row = map_row(given, found, columns.needed) | (labels.read(given, i) if labels else {})
            extra = other_columns(given, taken)
            if named:
                if named.ids_from_rows and row["id"] is None:
                    row["id"] = i if source.split == "train" else f"{source.split}-{i}"
                row |= named.complete(row, given)
                extra = {key: extra[key] for key in named.keep if key in extra}
            if row["id"] is None:
                row["id"] = question_id(row["question"])
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


def gsm8k_final_answer(answer: str) -> str | None:
    """Take the number after the last `####` of a GSM8K solution, without the commas between thousands."""
    _, mark, final = answer.rpartition(GSM8K_MARK)
    return final.strip().replace(",", "") or None if mark else None


def plain_rationale(answer: str) -> str:
    r"""Return a gold solution as a person would write it, for stages that need it as a response.

    GSM8K's calculator notes (`<<48/2=24>>`) go, and its last line `#### 72` becomes `The answer is 72.`; a solution
    without either comes back as it is.

    Example:
        >>> plain_rationale("She sold 48/2 = <<48/2=24>>24 clips.\n#### 24")
        'She sold 48/2 = 24 clips.\nThe answer is 24.'
    """
    steps, mark, final = CALCULATION.sub("", answer).rpartition(GSM8K_MARK)
    return f"{steps.rstrip()}\nThe answer is {final.strip()}.".lstrip() if mark else final


def _lettered_choices(row: Row, source: Row) -> Row:
    """Add GPQA's choices to the question. Their order hangs on the row's id alone, so it never changes.

    Raises:
        UnusableRowError: A choice is blank.
    """
    blank = [name for name in GPQA_CHOICES if is_blank(source.get(name))]
    if blank:
        raise UnusableRowError(f"the choice {blank[0]!r} is blank")
    choices = sorted(GPQA_CHOICES, key=lambda name: hashlib.sha256(f"{row['id']}\n{name}".encode()).digest())
    options = [str(source[name]).strip() for name in choices]
    lines = [f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True)]
    return {
        "question": "\n".join([row["question"].strip(), "", *lines]),
        "final_answer": lines[choices.index(GPQA_CHOICES[0])],
        "options": options,
    }


DATASETS = {
    "gsm8k": NamedDataset(
        "openai/gsm8k",
        ("main",),
        ("train", "test"),
        Columns(answer="answer"),
        lambda row, source: {"final_answer": gsm8k_final_answer(row.get("answer", ""))},
        ids_from_rows=True,
    ),
    "math": NamedDataset(
        "EleutherAI/hendrycks_math",
        (
            *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
            *("number_theory", "prealgebra", "precalculus"),
        ),
        ("train", "test"),
        Columns(question="problem", answer="solution"),
        lambda row, source: {"final_answer": last_boxed(row.get("answer", ""))},
        keep=("level", "type"),
    ),
    "math-500": NamedDataset(
        "HuggingFaceH4/MATH-500",
        (None,),
        ("test",),
        Columns(question="problem", answer="solution", final_answer="answer", id="unique_id"),
        keep=("subject", "level"),
    ),
} | {
    f"gpqa-{subset}": NamedDataset(
        "Idavidrein/gpqa",
        (f"gpqa_{subset}",),
        ("train",),
        Columns(question="Question", answer="Explanation", id="Record ID"),
        _lettered_choices,
        keep=("High-level domain", "Subdomain"),
    )
    for subset in ("main", "extended", "diamond")
}
