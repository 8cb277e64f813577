"""Manifests: what a stage's files were made from, so that the next stage refuses what does not fit."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import DataFileError
from training.data import read_json

PACKAGES = ("torch", "transformers", "tokenizers", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Manifest:
    """Where a stage's output comes from.

    Attributes:
        stage: The stage's name.
        inputs: File name -> sha256 of each input.
        settings: The stage's config.
        versions: Package -> version.
    """

    stage: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path, stage: str) -> "Manifest":
        """Read a manifest and check which stage wrote it.

        Raises:
            DataFileError: There is none, or another stage wrote it.
        """
        data = read_json(path)
        if not isinstance(data, dict) or data.get("stage") != stage:
            raise DataFileError(
                f"{path} expects a manifest of the stage {stage!r}. Run python -m training.{stage} first."
            )
        return cls(**data)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
