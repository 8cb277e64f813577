"""Repos beside a judge's: the labelled pairs that it was fitted on, and the metric's Space.

The same files give the same bytes, so a second push changes nothing.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_json, read_rows

from .cards import ProbingSetCard
from .evidence import DataSource
from .leaks import refuse_leaks
from .space_files import METRIC, OWN_NAME, REQUIREMENTS, check_space, copy_package
from .staging import PACKAGE, PROJECT_LICENSE, check_empty

logger = logging.getLogger(__name__)

ROWS_FILE = "train.jsonl"  # which `datasets` takes for the split `train`
CARD_KEYS = ("license", "teacher", "sources", "meanings", "notes")


@dataclass
class CountedRow:
    """A labelled pair, as far as its set's card counts it; see `cards.LabelledRow`."""

    id: int | str
    scores: dict[str, int] = field(default_factory=dict)
    generator: str | None = None
    auxiliary: bool = False


def stage_dataset(rows_file: Path, target: Path, *, repo_id: str, card_file: Path, audit: Path | None = None) -> Path:
    """Write the files of a dataset's repo: rows, card and nothing else.

    Args:
        rows_file: Labelled rows, in any table format: id, question, prediction, scores, and what else stands in them.
        target: A folder that is not there yet, or is empty.
        repo_id: Where it will stand.
        card_file: YAML or JSON with what only the maker knows: license (an SPDX id) and where known teacher, sources,
            meanings and notes.
        audit: audit.json of the audit stage.

    Returns:
        The target.

    Raises:
        DataFileError: The rows are no labelled rows, the card lacks a licence, or a file holds what must not be
            published.
    """
    check_empty(target)
    rows = read_rows(str(rows_file))
    counted = [_counted(row, f"{rows_file}: row {i}") for i, row in enumerate(rows)]
    if not any(one.scores for one in counted):
        raise DataFileError(f"{rows_file} expects labelled rows, with scores by aspect, but no row has a score.")
    known = _card_of(card_file)
    card = ProbingSetCard(counted, repo_id, audit=read_json(audit) if audit else None, **known)
    target.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (target / ROWS_FILE).write_text(lines, encoding="utf-8", newline="\n")
    (target / "README.md").write_text(card.render(), encoding="utf-8", newline="\n")
    found = DatasetCard.load(target / "README.md").data
    if found.license != known["license"] or read_rows(str(target / ROWS_FILE)) != rows:
        raise DataFileError(f"{target} expects rows and metadata to come back as they were written, but they differ.")
    refuse_leaks(target, [rows_file.parent, target])
    return target


def _counted(row: Row, where: str) -> CountedRow:
    missing = [key for key in ("id", "question", "prediction", "scores") if row.get(key) is None]
    scores = row.get("scores")
    if missing or not isinstance(scores, Mapping):
        lacks = f"lacks {missing[0]!r}" if missing else f"has scores {scores!r:.60}"
        raise DataFileError(f"{where} expects id, question, prediction and scores by aspect, but {lacks}.")
    known = {aspect: score for aspect, score in scores.items() if score is not None}
    return CountedRow(row["id"], known, row.get("generator"), bool(row.get("auxiliary")))


def _card_of(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataFileError(f"Expected YAML or JSON for the card at {path}, but: {error}.") from error
    unknown = sorted(found.keys() - set(CARD_KEYS)) if isinstance(found, dict) else ["no object"]
    if unknown:
        raise DataFileError(f"{path} expects an object of {', '.join(CARD_KEYS)}, but got {unknown[0]}.")
    if not isinstance(found.get("license"), str):
        raise DataFileError(
            f"{path} expects the labels' license, such as license: apache-2.0, but has none. Ask whoever made them."
        )
    names = {one.name for one in fields(DataSource)}
    sources, meanings = found.get("sources") or [], found.get("meanings") or {}
    is_named = isinstance(meanings, dict) and all(isinstance(own, dict) for own in meanings.values())
    if not isinstance(sources, list) or not is_named:
        raise DataFileError(f"{path} expects a list of sources, and meanings by aspect and score, but got others.")
    for source in sources:
        if not isinstance(source, dict) or "name" not in source or source.keys() - names:
            raise DataFileError(f"{path} expects sources of {', '.join(sorted(names))}, but one is another.")
    told = {name: {str(score): words for score, words in own.items()} for name, own in meanings.items()}
    known: dict[str, Any] = {**found, "sources": [DataSource(**one) for one in sources]}
    return known | {"meanings": told}


def stage_metric(target: Path) -> Path:
    """Write the files of the metric's Space: metric, page, card, the package that both import, and requirements.

    The package stands in the Space itself, so that its requirements are what an index has: those of the package, and
    what the metric and the page need beside it.

    Args:
        target: A folder that is not there yet, or is empty.

    Raises:
        DataFileError: The target holds files, or what is staged lacks a part.
    """
    check_empty(target)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(METRIC.glob("*")):
        if path.is_file() and path.name != REQUIREMENTS:
            shutil.copyfile(path, target / path.name)
    copy_package(target / PACKAGE.name)
    shutil.copyfile(PROJECT_LICENSE, target / "LICENSE")
    (target / REQUIREMENTS).write_text("\n".join(space_requirements()) + "\n", encoding="utf-8", newline="\n")
    check_space(target, "metric")
    refuse_leaks(target, [target])
    return target


def space_requirements() -> list[str]:
    """Return what the Space installs: the package's own requirements, and those of metric and page beside it."""
    own = [line for line in requires(OWN_NAME) or () if "extra ==" not in line]
    beside = (METRIC / REQUIREMENTS).read_text(encoding="utf-8").split()
    return sorted({*own, *(line for line in beside if line != OWN_NAME)})
