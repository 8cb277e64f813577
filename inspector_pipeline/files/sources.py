"""Find a job's input: a file, a folder, a glob or a split of a `datasets` id."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from .compressed import kind_of
from .disk import file_sha256
from .entries import Entry
from .tables import SUFFIXES, Source, file_source, is_readable

HIDDEN = (".", "_")  # as Spark and Arrow do: what begins so in a folder is no data
OF_SAVED_DATASETS = ("dataset_info.json", "state.json", "dataset_dict.json")
OF_JOBS = "_manifest.json"  # beside it, what is hidden is the job's own


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
    paths, _ = _paths(place)
    kinds = sorted({kind_of(path)[0] for path in paths})
    if len(kinds) > 1:
        raise DataFileError(f"{place} expects files of one kind, but got {', '.join(kinds)}. Name them by a glob.")
    folder = Path(place)
    return [file_source(path, path.relative_to(folder).as_posix() if folder.is_dir() else path.name) for path in paths]


def skipped_files(place: str) -> list[str]:
    """Name what a folder or a glob holds and `find_sources` does not read: other kinds of files, links, hidden data."""
    return _paths(place)[1]


def _paths(place: str) -> tuple[list[Path], list[str]]:
    """Find the files of a place that are read, and those that are not."""
    path = Path(place)
    if path.is_dir():
        found, skipped = _of_folder(path)
    elif path.exists() or not glob.has_magic(place):
        if not path.exists() and not is_readable(path):
            raise DataFileError(
                f"{place} expects a file or a folder, but there is none. For the id of a dataset, give --split too."
            )
        return [path], []
    else:
        matched = [Path(one) for one in sorted(glob.glob(place, recursive=True))]
        linked = (
            {folder for one in matched for folder in one.parents if folder.is_symlink()} if "**" in place else set()
        )
        outer = {*Path(place.partition("**")[0] + "x").parents}  # as given, so followed
        linked -= outer  # others may lead back, and then every row would be read many times
        matched = [one for one in matched if not linked.intersection(one.parents)]
        found = [one for one in matched if one.is_file()]
        within = {folder for one in found for folder in one.parents}
        skipped = [str(one) for one in matched if not one.is_file() and one not in within and one not in linked]
        skipped += sorted(str(one) for one in linked if not linked.intersection(one.parents))
    if not found:
        left_out = f" It holds {', '.join(skipped[:3])}." if skipped else ""
        raise DataFileError(
            f"{place} expects files of {', '.join(SUFFIXES)}, but there is none.{left_out} Check the path."
        )
    return found, skipped


def _of_folder(folder: Path) -> tuple[list[Path], list[str]]:
    files = sorted(one for one in folder.rglob("*") if not one.is_dir() or one.is_symlink())
    is_saved = any(one.suffix.lower() == ".arrow" for one in files)
    is_job = (folder / OF_JOBS).is_file()
    found, skipped = [], []
    for file in files:
        is_hidden = any(part.startswith(HIDDEN) for part in file.relative_to(folder).parts)
        if is_readable(file) and file.is_file() and not is_hidden:
            if not (is_saved and file.name in OF_SAVED_DATASETS):
                found.append(file)
        elif not is_hidden or (is_readable(file) and not is_job):
            skipped.append(str(file))
    closed = [one for one in folder.rglob("*") if one.is_dir() and not os.access(one, os.R_OK | os.X_OK)]
    return found, skipped + [str(one) for one in closed if not one.is_symlink()]


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
