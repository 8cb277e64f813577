"""A judge's folder: read to be published, and compared with its staged repo, loaded anew by that repo's own code."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector_pipeline.api.load import EXAMPLES, load_judge
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json, read_rows
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from . import fresh_process
from .evidence import evidence_gaps

TOLERANCE = 1e-4
N_PAIRS = 4


@dataclass(frozen=True)
class SavedJudge:
    """A judge's folder, read.

    Attributes:
        folder: Where it stands.
        config: Its config.
        results: Its results.json; empty where it has none.
        pipeline: The loaded judge; None where its backbone is not at hand.
    """

    folder: Path
    config: InspectorConfig
    results: dict[str, Any]
    pipeline: InspectorPipeline | None

    @classmethod
    def read(cls, folder: Path, *, with_backbone: bool = True, allow_unevaluated: bool = False) -> "SavedJudge":
        """Read a judge's folder.

        Args:
            folder: Where it stands.
            with_backbone: Whether to load it with its backbone.
            allow_unevaluated: Whether a judge without evidence may pass.

        Raises:
            DataFileError: There is no judge, or no evidence for it.
        """
        if not (folder / "config.json").is_file():
            raise DataFileError(f"{folder} expects a judge's folder with a config.json, but has none.")
        config = InspectorConfig.from_pretrained(folder)
        results = read_json(folder / "results.json") if (folder / "results.json").is_file() else {}
        gaps = evidence_gaps(config, results)
        if gaps and not allow_unevaluated:
            raise DataFileError(
                f"A judge expects evidence for every aspect (intervals, with the surface baseline beside), but "
                f"{folder / 'results.json'} has none for {', '.join(gaps)}. Run python -m training evaluate, or pass "
                "--allow-unevaluated, and the card will say so."
            )
        return cls(folder, config, results, load_judge(folder, device="cpu", dtype="stored") if with_backbone else None)

    def probes(self) -> InspectorModel:
        """Build the judge without a backbone.

        Raises:
            DataFileError: Its weights are not there.
        """
        if not (self.folder / "model.safetensors").is_file():
            raise DataFileError(f"{self.folder} expects the judge's weights in model.safetensors, but has none.")
        config = InspectorConfig.from_pretrained(self.folder)
        config.fused = False
        model: InspectorModel = fresh_process.load_probes(InspectorModel(config), self.folder)
        return model

    def check_reload(self, repo: Path) -> str:
        """Load a staged repo in a fresh process, by its own code alone, and compare its scores with this judge's.

        Without this judge's backbone, code and probes are compared on a random one of the same depth and width.

        Args:
            repo: The staged repo.

        Returns:
            What was compared, in words.

        Raises:
            DataFileError: The repo does not load, runs other code than its own, or scores otherwise.
        """
        pairs: list[dict[str, Any]] = []
        if self.pipeline:
            rows = read_rows(str(EXAMPLES))[:N_PAIRS]
            # Examples have no reference and no context: the response itself fills such slots, only to be compared.
            pairs = [{key: row.get(key, row["prediction"]) for key in self.pipeline.encode.keys} for row in rows]
            expected = [list(result["expected"].values()) for result in self.pipeline(pairs)]
            compared = f"{len(pairs)} example pairs"
        else:
            expected = fresh_process.scores_on_thin_backbone(self.probes())
            compared = f"{len(expected)} random rows on a random backbone, for want of the real one"
        dtype = str(self.pipeline.model.dtype).removeprefix("torch.") if self.pipeline else None
        answer = _scores_of_stranger(repo, pairs, dtype)
        foreign = [module for module in answer["modules"] if not module.startswith("transformers_modules")]
        if foreign:
            raise DataFileError(f"The staged repo expects to be run by its own code, but {foreign[0]} ran.")
        names = [aspect.name for aspect in self.config.parsed_aspects]
        for i, (ours, theirs) in enumerate(zip(expected, answer["expected"], strict=True)):
            for name, a, b in zip(names, ours, theirs, strict=True):
                if not abs(a - b) <= TOLERANCE:
                    raise DataFileError(
                        f"The staged repo expects {a:.6f} for {name} of example {i}, as the judge's own folder scores "
                        f"it, but gave {b:.6f}. Nothing was uploaded."
                    )
        return compared


def _scores_of_stranger(repo: Path, pairs: list[dict[str, Any]], dtype: str | None) -> dict[str, Any]:
    """Ask a process that has nothing of this project but the staged repo; see `fresh_process`."""
    with tempfile.TemporaryDirectory() as elsewhere:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSTARTUP")}
        env |= {"HF_MODULES_CACHE": elsewhere, "TOKENIZERS_PARALLELISM": "false"}
        if not pairs or InspectorConfig.from_pretrained(repo).fused:
            env["HF_HUB_OFFLINE"] = "1"  # such a repo needs no other
        done = subprocess.run(
            [sys.executable, "-P", fresh_process.__file__],
            input=json.dumps({"folder": str(repo.absolute()), "pairs": pairs, "dtype": dtype}),
            capture_output=True,
            text=True,
            env=env,
            cwd=elsewhere,
            check=False,
        )
    if done.returncode:
        raise DataFileError(
            f"The staged repo expects to load in a fresh process, but it failed there:\n{done.stderr.strip()[-2000:]}"
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
