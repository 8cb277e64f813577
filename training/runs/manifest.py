"""Manifests: what a stage's files were made from, so that the next stage refuses what does not fit.

A folder's manifest is `manifest.json` in it; that of a file `x.jsonl` is `x.jsonl.manifest.json` beside it. It is
written last and vouches for the rest: without it, output is incomplete.
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import file_sha256, write_atomically

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "tokenizers", "scikit-learn", "numpy")
NOT_SETTINGS = ("output",)
FOLDERS_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Where a stage's output comes from.

    Attributes:
        stage: The stage's name.
        inputs: File name -> sha256 of each input.
        settings: The stage's config, without its output's path; other paths by their last part.
        versions: Package -> version.
        outputs: File name -> sha256 of each output; empty until the stage is done.
    """

    stage: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})
    outputs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, config: Any, inputs: Iterable[str | os.PathLike[str] | None]) -> "Manifest":
        """Describe a run before it starts.

        Args:
            stage: The stage's name.
            config: Its config dataclass, or settings by name.
            inputs: Paths of its input files; None is left out.

        Raises:
            DataFileError: An input is missing, or is not what its own manifest says.
        """
        paths = [Path(path) for path in inputs if path]
        hashes: dict[str, str] = {}
        for path in dict.fromkeys(paths):
            hashes[_free(_name(path), hashes)] = checked_sha256(path)
        names = {str(path): _name(path) for path in paths}
        names |= {str(path.parent): path.parent.name for path in paths if path.name == FOLDERS_MANIFEST}
        settings = json.loads(json.dumps(config, default=_plain))
        settings = {key: value for key, value in settings.items() if key not in NOT_SETTINGS}
        return cls(stage, hashes, _by_name(settings, names))

    def vouches_for(self, output: Path) -> bool:
        """Whether the output on disk is complete, unchanged, and was made from just these inputs and settings."""
        path = manifest_path(output)
        if not path.is_file():
            return False
        data = _object_in(path)
        if data.keys() != {one.name for one in fields(Manifest)} or not isinstance(data["outputs"], dict):
            return False
        found = Manifest(**data)
        same = Manifest(self.stage, self.inputs, self.settings, self.versions, found.outputs) == found
        paths = {_folder(output) / name: sha for name, sha in found.outputs.items()}
        return same and all(path.is_file() and file_sha256(path) == sha for path, sha in paths.items())

    def is_done(self, output: str | os.PathLike[str]) -> bool:
        """Whether a stage has nothing left to do; where so, the log says that the output is there.

            manifest = Manifest.of(STAGE, config, (config.rows,))
            if manifest.is_done(config.output):
                return

        Use `vouches_for` for files on the way, about which nothing need be said.
        """
        done = self.vouches_for(Path(output))
        if done:
            logger.info("%s is already there.", output)
        return done

    def write(self, output: Path, files: Iterable[Path] = ()) -> None:
        """Write it beside the output, once all of the output is there.

        Args:
            output: The stage's output file or folder.
            files: The output's files, in that folder or beside that file; their hashes go into the manifest.
        """
        done = Manifest(
            self.stage, self.inputs, self.settings, self.versions, {path.name: file_sha256(path) for path in files}
        )
        write_atomically(manifest_path(output), json.dumps(asdict(done), indent=2, sort_keys=True) + "\n")

    @classmethod
    def read(cls, output: Path, stage: str) -> "Manifest":
        """Read an output's manifest and check which stage wrote it.

        Raises:
            DataFileError: There is none, or another stage wrote it.
        """
        path = manifest_path(output)
        if not path.is_file():
            raise DataFileError(f"{path} expects a manifest, but there is none. Run python -m training {stage} first.")
        data = _object_in(path)
        if data.keys() != {one.name for one in fields(cls)} or data["stage"] != stage:
            raise DataFileError(
                f"{path} expects a manifest of the stage {stage!r}. Run python -m training {stage} first."
            )
        return cls(**data)


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output stands."""
    if output.is_dir() or not output.suffix:
        return output / FOLDERS_MANIFEST
    return output.with_name(f"{output.name}.manifest.json")


def checked_sha256(path: Path) -> str:
    """Hash an input, and refuse one that was changed after the stage that made it.

    Raises:
        DataFileError: It is missing, or its manifest names another hash.
    """
    if not path.is_file():
        raise DataFileError(f"Expected a file at {path}, but there is none. Check the path.")
    found = file_sha256(path)
    for manifest in {manifest_path(path), path.parent / FOLDERS_MANIFEST} - {path}:
        if not manifest.is_file():
            continue
        outputs = _object_in(manifest).get("outputs")
        expected = outputs.get(path.name, found) if isinstance(outputs, dict) else found
        if expected != found:
            raise DataFileError(
                f"{path} expects the sha256 {expected!s:.12}... that {manifest.name} names, but got {found[:12]}.... "
                "It was changed after it was made: make it again, or delete the manifest if the change is meant."
            )
    return found


def _object_in(path: Path) -> dict[str, Any]:
    """Read a manifest; what is called as one and holds something else, as a folder of strangers may, is empty."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _name(path: Path) -> str:
    """Name an input: a folder of a stage stands for itself by its manifest."""
    return f"{path.parent.name}/{path.name}" if path.name == FOLDERS_MANIFEST else path.name


def _free(name: str, taken: dict[str, str]) -> str:
    """Number inputs of one name, so that each counts."""
    numbered = (name if n == 1 else f"{name} ({n})" for n in count(1))
    return next(one for one in numbered if one not in taken)


def _folder(output: Path) -> Path:
    return output if output.is_dir() else output.parent


def _by_name(value: Any, names: dict[str, str]) -> Any:
    """Replace every path of an input by its last part, so that a manifest names no path of a machine."""
    if isinstance(value, dict):
        return {key: _by_name(entry, names) for key, entry in value.items()}
    if isinstance(value, list):
        return [_by_name(entry, names) for entry in value]
    return names.get(str(Path(value)), value) if isinstance(value, str) and value else value
