"""Find a job's input: a file, a folder, a glob or a split of a `datasets` id."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from .disk import file_sha256
from .entries import Entry
from .tables import SUFFIXES, Source, file_source

HIDDEN = (".", "_")  # as Spark and Arrow do: what begins so in a folder is no data
OF_SAVED_DATASETS = ("dataset_info.json", "state.json")


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
    paths = _paths(place)
    kinds = sorted({path.suffix.lower() for path in paths})
    if len(kinds) > 1:
        raise DataFileError(f"{place} expects files of one kind, but got {', '.join(kinds)}. Name them by a glob.")
    folder = Path(place)
    return [file_source(path, path.relative_to(folder).as_posix() if folder.is_dir() else path.name) for path in paths]


def _paths(place: str) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if _is_data(file.relative_to(path)) and file.is_file()]
    elif path.exists() or not glob.has_magic(place):
        if not path.exists() and path.suffix.lower() not in SUFFIXES:
            raise DataFileError(
                f"{place} expects a file or a folder, but there is none. For the id of a dataset, give --split too."
            )
        return [path]
    else:
        found = [Path(file) for file in sorted(glob.glob(place, recursive=True)) if os.path.isfile(file)]
    if not found:
        raise DataFileError(f"{place} expects files of {', '.join(SUFFIXES)}, but there is none. Check the path.")
    return found


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith(HIDDEN) for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.name not in OF_SAVED_DATASETS


def _dataset(place: str, split: str, subset: str | None) -> Source:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataFileError(
            f"The split {split!r} of {place} expects the package datasets. Run pip install 'inspector-pipeline[jobs]'."
        ) from error

    from .arrow import table_entries

    try:
        loaded: Any = datasets.load_dataset(place, subset, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataFileError(
            f"The split {split!r} of {place} could not be loaded: {str(error).rstrip('.')}. Check its name; for a "
            "gated dataset, accept its terms on the Hub and log in with `hf auth login`."
        ) from error
    name = "/".join(filter(None, (place, subset, split)))

    def sha256() -> str:
        files = [file_sha256(file["filename"]) for file in loaded.cache_files]
        return hashlib.sha256(" ".join([split, str(len(loaded)), *files]).encode()).hexdigest()

    def entries(columns: Iterable[str] | None) -> Iterator[Entry]:
        return table_entries(loaded.with_format("arrow").iter(batch_size=256), name, columns)

    return Source(name, sha256, loaded.data.schema, entries)
