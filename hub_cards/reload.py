"""Compare a staged repo, loaded in a fresh process by its own code alone, with the judge that it was made of."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from inspector_pipeline.api.load import EXAMPLES
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_rows

from . import fresh_process
from .staging import Judge

TOLERANCE = 1e-4
N_PAIRS = 4


def check_reload(judge: Judge, folder: Path) -> str:
    """Load a staged repo in a fresh process, by its own code alone, and compare its scores with the judge's.

    Args:
        judge: The judge that was staged. Without its backbone, its code and probes are compared on a random backbone
            of the same depth and width.
        folder: The staged repo.

    Returns:
        What was compared, in words.

    Raises:
        DataFileError: The repo does not load, runs other code than its own, or scores otherwise.
    """
    pairs = [dict(row) for row in read_rows(str(EXAMPLES))[:N_PAIRS]] if judge.pipeline else []
    if judge.pipeline:
        expected = [list(result["expected"].values()) for result in judge.pipeline(pairs)]
        compared = f"{len(pairs)} example pairs"
    else:
        expected = fresh_process.scores_on_thin_backbone(judge.probes())
        compared = f"{len(expected)} random rows on a random backbone, for want of the real one"
    answer = _reload(folder, pairs, str(judge.pipeline.model.dtype).removeprefix("torch.") if judge.pipeline else None)
    foreign = [module for module in answer["modules"] if not module.startswith("transformers_modules")]
    if foreign:
        raise DataFileError(f"The staged repo expects to be run by its own code, but {foreign[0]} ran.")
    names = [aspect.name for aspect in judge.config.parsed_aspects]
    for i, (ours, theirs) in enumerate(zip(expected, answer["expected"], strict=True)):
        for name, a, b in zip(names, ours, theirs, strict=True):
            if not abs(a - b) <= TOLERANCE:
                raise DataFileError(
                    f"The staged repo expects {a:.6f} for {name} of example {i}, as the judge's own folder scores it, "
                    f"but gave {b:.6f}. Nothing was uploaded."
                )
    return compared


def _reload(folder: Path, pairs: list[dict[str, str]], dtype: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as elsewhere:
        dropped = ("PYTHONPATH", "PYTHONSTARTUP")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        env |= {"HF_MODULES_CACHE": elsewhere, "TOKENIZERS_PARALLELISM": "false"}
        if not pairs or InspectorConfig.from_pretrained(folder).fused:
            env["HF_HUB_OFFLINE"] = "1"  # such a repo needs no other
        done = subprocess.run(
            [sys.executable, "-P", fresh_process.__file__],
            input=json.dumps({"folder": str(folder.absolute()), "pairs": pairs, "dtype": dtype}),
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
