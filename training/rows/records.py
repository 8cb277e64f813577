"""The rows that pass from stage to stage, as JSON Lines.

A row is a plain object. Every stage keeps the keys it does not know, so that a row can be followed by its id:

- a *question*: id, question, and where known answer (the gold solution), final_answer, dataset, split;
- a *response*: a question plus sample (0, 1, ...), prediction (None where generation failed), generator, error;
- a *labelled row*: a response (or, where questions are read alone, a question) plus scores (aspect -> number, or None
  where there is no label), reasons (aspect -> why there is none), justifications, weights (aspect -> weight of the
  label in a fit), ratings (aspect -> what several raters said), raw_labels (aspect -> the number that a level stands
  for), comparisons (see rows/compared.py), domain (what the question is about), and auxiliary (True for rows that are
  made for training only, such as damaged gold solutions).

An id names the question. It is the dataset's own where there is one, else the hash of the question's text, so it does
not depend on a row's place in a file. (id, sample, generator) names a response.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.familiarity import normal_text as normal_text
from inspector_pipeline.familiarity import question_digest
from inspector_pipeline.files.disk import write_atomically
from inspector_pipeline.files.entries import finite
from inspector_pipeline.files.tables import Row, read_rows
from inspector_pipeline.pairs import is_blank

BESIDE = ("reference", "context", "question_turns")  # what a reading may hold besides question and response
FORM = "form"  # which rule a row was made by, as evidence is told apart by it
OPTIONAL = ("weights", "sample", "generator", "auxiliary", "comparisons", FORM, "domain", *BESIDE)
FILLED = ("comparisons", FORM, "domain", *BESIDE)  # that are written where there is something
POSITIVE_SCORE = 4  # the published binary labels are score >= 4
LONGEST_USUAL = 5


@dataclass
class LabelledPair:
    """One question with one response, and the labels that it carries.

    Attributes:
        id: The question's id.
        question: The question.
        prediction: The response; empty where questions are read alone.
        scores: Aspect -> label, an int or a float. Most pairs carry one aspect only.
        weights: Aspect -> weight of that label in a fit; 1 where absent.
        sample: Which of the question's responses.
        generator: What wrote the response.
        auxiliary: Whether the row serves training only, and is never scored in an evaluation.
        comparisons: With other responses to the question; see rows/compared.py.
        form: Which rule the row was made by, where it was.
        domain: What the question is about, where that is said.
        reference: A right answer, for readings with a slot for it.
        context: What the response should rest on, for readings with a slot for it.
        question_turns: The question as a conversation, where it is one.
    """

    id: int | str
    question: str
    prediction: str
    scores: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    sample: int = 0
    generator: str | None = None
    auxiliary: bool = False
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    form: str | None = None
    domain: str | None = None
    reference: str | None = None
    context: str | None = None
    question_turns: list[dict[str, str]] | None = None

    @property
    def texts(self) -> dict[str, Any]:
        """What a `PairTokenizer` takes: question, response, the turns before it, and what fills slots."""
        turns = self.question_turns or ()
        further = {name: own for name in BESIDE[:2] if (own := getattr(self, name)) is not None}
        return {"question": self.question, "prediction": self.prediction, "turns": turns, **further}


def question_id(question: str) -> str:
    """Name a question by its text: 12 hexadecimal digits of the sha256, white space and case aside."""
    return question_digest(question).hex()[:12]


def response_key(row: Row) -> tuple[str, int, str]:
    """Name a response: its question's id, its sample and its generator.

    Raises:
        DataFileError: The sample is no whole number.
    """
    sample = row.get("sample") or 0
    if not str(sample).isdecimal():  # a number in JSON, its digits in CSV
        raise DataFileError(f"The row with id {row['id']!r} expects a whole number as sample, but got {sample!r:.60}.")
    return str(row["id"]), int(sample), str(row.get("generator") or "")


def read_records(path: str | os.PathLike[str], required: Iterable[str] = ("id", "question")) -> list[Row]:
    """Read rows of any supported format and check their keys.

    Raises:
        DataFileError: The file cannot be read, or a row lacks a key.
    """
    rows = read_rows(str(path))
    for i, row in enumerate(rows):
        missing = [key for key in required if row.get(key) is None]
        if missing:
            raise DataFileError(f"{path}: row {i} expects the keys {', '.join(required)}, but lacks {missing[0]!r}.")
    return rows


def matching_files(names: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files that names, perhaps with * as in a file of steps, stand for.

    Raises:
        DataFileError: A name with * matches none.
    """
    found: list[Path] = []
    for name in map(str, names):
        # The manifests that stages write beside their files are none of them.
        every = [path for path in sorted(glob(name)) if not path.endswith(".manifest.json")]
        matched = every if set(name) & set("*?") else [name]
        if not matched:
            raise DataFileError(f"rows expects files, but {name!r} matches none. Check the folder.")
        found += map(Path, matched)
    return found


def checked_rows(path: str, rows: list[Row], key: Callable[[Row], Hashable], texts: Iterable[str]) -> list[Row]:
    """Refuse rows that answers could not be joined to, or that could not be sent.

    Args:
        path: Where they come from.
        rows: Questions or responses.
        key: What names a row.
        texts: Keys whose values are texts, or None.

    Raises:
        DataFileError: Two rows have one name, a text is none or not valid Unicode, or a question is blank.
    """
    seen: set[Hashable] = set()
    for i, row in enumerate(rows):
        if key(row) in seen:
            raise DataFileError(f"{path}: row {i} expects a name of its own, but {key(row)} occurs twice. Remove one.")
        seen.add(key(row))
        for name in texts:
            text = row.get(name)
            if text is not None and (not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text)):
                raise DataFileError(f"{path}: row {i} expects Unicode text as {name}, but got {text!r:.60}.")
        if is_blank(row.get("question") or ""):
            raise DataFileError(f"{path}: row {i} expects a question, but it is blank. Remove the row.")
    return rows


def labelled_pairs(rows: Iterable[Row], *, unlabelled: bool = False, question_only: bool = False) -> list[LabelledPair]:
    """Take from rows what a fit needs; rows without a response are left out, and so are those without any label.

    Args:
        rows: Labelled rows, or responses.
        unlabelled: Whether to keep responses without a label, as a judge's transfer to other data needs them.
        question_only: Whether the questions are read alone. Rows need no response then, and one that is there is
            dropped: what the judge does not read, no baseline beside it may know.
    """
    pairs = []
    for row in rows:
        scores = {aspect: score for aspect, score in (row.get("scores") or {}).items() if score is not None}
        prediction = "" if question_only else row.get("prediction") or ""
        if (scores or unlabelled) and (question_only or prediction):
            kept = {key: row[key] for key in OPTIONAL if row.get(key) is not None}
            if "domain" in kept:
                kept["domain"] = str(kept["domain"]).strip() or None
            pairs.append(LabelledPair(row["id"], row["question"], prediction, scores, **kept))
    return pairs


def binary_rows(rows: Iterable[Row], threshold: int, source: str) -> list[Row]:
    """Turn scores into two classes: 1 for those of the threshold or more, 0 for others; a total of them goes.

    Args:
        rows: Labelled rows.
        threshold: Lowest score that becomes 1; published binary labels have 4 of 1 to 5.
        source: Where the rows come from, for messages.

    Raises:
        DataFileError: No row is labelled, or an aspect has no score above 1: it has two classes already, or one.
    """
    rows = list(rows)
    highest: dict[str, int] = {}
    for row in rows:
        for aspect, score in (row.get("scores") or {}).items():
            highest[aspect] = max(highest.get(aspect, 0), score or 0)
    short = [aspect for aspect, score in highest.items() if score <= 1]
    if short or not highest:
        found = f"{short[0]} has none above 1" if short else "no row has a label"
        raise DataFileError(f"{source} expects scores of a longer scale than 0 and 1 to make binary, but {found}.")
    made = []
    for row in rows:
        scores = {
            name: score if score is None else int(score >= threshold)
            for name, score in (row.get("scores") or {}).items()
        }
        made.append({key: value for key, value in row.items() if key != "total_score"} | {"scores": scores})
    return made


def number_samples(rows: Iterable[Row], source: str) -> list[Row]:
    """Count the responses of each question and generator from 0, where they carry no number of their own.

    Args:
        rows: Questions, responses or labelled rows.
        source: Where they come from, for messages.

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
                f"{row['question'][:60]!r}. Map another id column, or give --ids-from-text."
            )
        if "prediction" in row:
            if row.get("sample") is None:
                group = (name, str(row.get("generator") or ""))
                row = row | {"sample": counts[group]}
                counts[group] += 1
            key = response_key(row)
            if key in keys:
                raise DataFileError(
                    f"{source} expects different samples of one question, but the id {name!r} has sample "
                    f"{row['sample']} twice. Map another sample column, or none: they are counted from 0 then."
                )
            keys.add(key)
        numbered.append(row)
    return numbered


def subset_of(rows: list[Row], limit: int | None, seed: int | None) -> list[Row]:
    """Keep some questions with all their responses, in their order.

    Args:
        rows: The rows.
        limit: How many questions; None keeps all.
        seed: Which: those whose seed and id have the smallest hashes, so that rows added later change little; None
            takes the first.
    """
    ids = list(dict.fromkeys(str(row["id"]) for row in rows))
    if seed is not None:
        ids.sort(key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    kept = set(ids[:limit])
    return [row for row in rows if str(row["id"]) in kept]


def labelled_rows(pairs: Iterable[LabelledPair]) -> list[Row]:
    """Write pairs as labelled rows."""
    rows = (asdict(pair) for pair in pairs)
    return [{key: value for key, value in row.items() if key not in FILLED or value} for row in rows]


def write_records(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON Lines, whole or not at all."""
    write_atomically(path, json_lines(rows))


def json_lines(rows: Iterable[Row]) -> str:
    """Return rows as JSON Lines; NaN and infinities, which JSON lacks, as null."""
    return "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)


class Levels(list[Any]):
    """The levels of an aspect's labels that occur, ascending: a list of numbers that may say which are good.

    Attributes:
        good: From which level on; None leaves it to the usual rule.
    """

    def __init__(self, levels: Iterable[float] = (), good: float | None = None) -> None:
        """Keep both."""
        super().__init__(levels)
        self.good = good


def is_good(labels: NDArray[Any], classes: list[Any]) -> NDArray[np.bool_]:
    """Say which labels are good: as the levels say, else 4 and 5 on a scale of 1 to 5, 1 where the labels are 0 and 1.

    On a longer scale, which the labels show by one above 5, as many of its steps up as 4 is of 5: 7 to 9 of 1 to 9.
    """
    good = classes.good if isinstance(classes, Levels) else None
    highest = max(classes)
    if good is None and highest > LONGEST_USUAL:
        good = 1 + (highest - 1) * (POSITIVE_SCORE - 1) / (LONGEST_USUAL - 1)
    elif good is None:
        good = 1 if highest <= 1 else POSITIVE_SCORE
    found: NDArray[np.bool_] = labels >= good
    return found
