"""Find a job's input: a file, a folder, a glob or a split of a `datasets` id."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataFileError
from .arrow import arrow_batches, arrow_schema, parquet_batches, parquet_schema, table_entries
from .entries import Entry
from .text import csv_entries, json_entries, jsonl_entries

TEXT_FILES: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": jsonl_entries,
    ".json": json_entries,
    ".csv": csv_entries,
}
ARROW_FILES: dict[str, tuple[Callable[[Path], pa.Schema], Callable[[Path], Iterator[Any]]]] = {
    ".parquet": (parquet_schema, parquet_batches),
    ".arrow": (arrow_schema, arrow_batches),
}
SUFFIXES = (*TEXT_FILES, *ARROW_FILES)
HIDDEN = (".", "_")  # as Spark and Arrow do: what begins so in a folder is no data
OF_SAVED_DATASETS = ("dataset_info.json", "state.json")


@dataclass(frozen=True)
class Source:
    """A part of a job's input.

    Attributes:
        name: What places and the manifest call it.
        sha256: Of its bytes.
        schema: Its columns; None for text, whose columns are known only once it was read.
        entries: Reads its rows. Of Arrow rows only the named columns become Python values; None takes all.
    """

    name: str
    sha256: str
    schema: pa.Schema | None
    entries: Callable[[Iterable[str] | None], Iterator[Entry]]


def find_sources(place: str, split: str | None = None, subset: str | None = None) -> list[Source]:
    """Find the parts of an input, in the order in which they are read.

    Args:
        place: A file, a folder, a glob, or with a split the id of a dataset.
        split: A split of a dataset, as `datasets.load_dataset` takes it.
        subset: A subset (Hub "config") of the dataset.

    Raises:
        DataFileError: There is none, it cannot be read, or it is of several kinds.
    """
    if split is not None:
        return [_dataset(place, split, subset)]
    paths = [_checked(path) for path in _paths(place)]
    kinds = sorted({path.suffix.lower() for path in paths})
    if len(kinds) > 1:
        raise DataFileError(f"{place} expects files of one kind, but got {', '.join(kinds)}. Name them by a glob.")
    return [_file(path, place) for path in paths]


def is_many(place: str) -> bool:
    """Say whether a place names more than one file: a folder or a glob."""
    return Path(place).is_dir() or (glob.has_magic(place) and not Path(place).exists())


def _paths(place: str) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if _is_data(file.relative_to(path)) and file.is_file()]
    elif path.exists() or not glob.has_magic(place):
        return [path]
    else:
        found = [Path(file) for file in sorted(glob.glob(place, recursive=True)) if os.path.isfile(file)]
    if not found:
        raise DataFileError(f"{place} expects files of {', '.join(SUFFIXES)}, but there is none. Check the path.")
    return found


def _is_data(path: Path) -> bool:
    shown = not any(part.startswith(HIDDEN) for part in path.parts)
    return shown and path.suffix.lower() in SUFFIXES and path.name not in OF_SAVED_DATASETS


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        hint = "" if path.exists() else " For the id of a dataset, give --split too."
        raise DataFileError(
            f"{path} expects a suffix of {', '.join(SUFFIXES)}, but got {path.suffix or 'none'!r}.{hint}"
        )
    return path


def _file(path: Path, place: str) -> Source:
    name = path.relative_to(place).as_posix() if Path(place).is_dir() else path.name
    suffix = path.suffix.lower()
    try:
        digest = _sha256(path)
    except OSError as error:
        raise DataFileError(f"{path} could not be read: {error.strerror or error}. Check the path.") from error
    if suffix in TEXT_FILES:
        return Source(name, digest, None, lambda _: TEXT_FILES[suffix](path))
    read_schema, batches = ARROW_FILES[suffix]
    schema = read_schema(path)
    if len(set(schema.names)) < len(schema.names):
        raise DataFileError(f"{path} expects to name every column once, but has {', '.join(schema.names)}.")
    return Source(name, digest, schema, lambda columns: table_entries(batches(path), name, columns))


def _sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dataset(place: str, split: str, subset: str | None) -> Source:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataFileError(
            f"The split {split!r} of {place} expects the package datasets. Run pip install 'inspector-pipeline[jobs]'."
        ) from error
    try:
        loaded: Any = datasets.load_dataset(place, subset, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataFileError(
            f"The split {split!r} of {place} could not be loaded: {str(error).rstrip('.')}. Check its name; for a "
            "gated dataset, accept its terms on the Hub and log in with `hf auth login`."
        ) from error
    name = "/".join(filter(None, (place, subset, split)))
    files = [_sha256(file["filename"]) for file in loaded.cache_files]
    digest = hashlib.sha256(" ".join([split, str(len(loaded)), *files]).encode()).hexdigest()

    def batches() -> Iterator[Any]:
        yield from loaded.with_format("arrow").iter(batch_size=256)

    return Source(name, digest, loaded.data.schema, lambda columns: table_entries(batches(), name, columns))
