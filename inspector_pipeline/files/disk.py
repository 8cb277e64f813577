"""Files on the disk: hashed by their bytes, written whole or not at all."""

import glob
import hashlib
import json
import os
from pathlib import Path

from .entries import finite


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode("utf-8"))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one, never half of one.

    What a killed run left beside it is removed.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*.tmp"):
        leftover.unlink(missing_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def json_text(data: object) -> str:
    """Write JSON as every stage does: indented, with a final newline; NaN and infinities, which JSON lacks, as null."""
    try:
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
