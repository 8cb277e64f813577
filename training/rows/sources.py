"""Read a source's rows as they are: from a local file, a local folder or the Hub."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_rows

COMMIT = re.compile("[0-9a-f]{40}")


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


def read_file(path: str, name: str | None = None, split: str | None = None) -> Source:
    """Read a local file of rows.

    Args:
        path: A .json, .jsonl, .csv or .parquet file.
        name: What to call it; None takes the file's name.
        split: Its split.

    Raises:
        DataFileError: It cannot be read.
    """
    return Source(name or Path(path).stem, split, read_rows(path))


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
