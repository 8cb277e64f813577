"""A job's manifest: what its output was made from, so that no run goes on with another job's output."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..batches import WINDOW_ROWS
from ..devices import token_budget
from ..errors import DataFileError
from ..files.disk import json_text
from ..files.tables import Source
from ..int8 import is_int8
from ..pipeline_inspector import InspectorPipeline
from .input import Survey
from .output import BusyFileError, Parts, whole_file

MANIFEST = "_manifest.json"
WAIT_S = 0.1
OWN = "inspector-pipeline"
PACKAGES = (OWN, "torch", "transformers", "tokenizers", "pyarrow")
# Where things are; shards of one job share their folder; and rows are marked once all are scored.
NOT_SETTINGS = ("input", "output", "shard", "strict", "abstain", "workers")
ADDED_SETTINGS = ("explain",)  # to the first ones: left out where they are off, so that older jobs go on
NO_WEIGHTS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


def job_manifest(
    job: Any, judge: InspectorPipeline, sources: Sequence[Source], survey: Survey, columns: Sequence[str] | None
) -> dict[str, Any]:
    """Describe a job before it starts.

    Args:
        job: Its dataclass.
        judge: The loaded judge.
        sources: Its input.
        survey: What the input holds.
        columns: Those that are added; None for a job of before they were written down.
    """
    settings = {key: value for key, value in asdict(job).items() if key not in NOT_SETTINGS}
    settings = {key: value for key, value in settings.items() if value or key not in ADDED_SETTINGS}
    budget = token_budget(judge.model.device, is_int8(judge.model.loaded_backbone))
    return {
        "format": 1,
        "judge": judge_fingerprint(judge),
        "input": [{"name": source.name, "sha256": source.sha256()} for source in sources],
        "rows": survey.rows,
        "columns_as_json": list(survey.as_json),
        "columns": columns and list(columns),
        "settings": {**settings, "window_rows": WINDOW_ROWS, "token_budget": budget},
        "versions": {name: version(name) for name in PACKAGES},
        "threads": torch.get_num_threads() if judge.device.type == "cpu" else None,
    }


def judge_fingerprint(judge: InspectorPipeline) -> dict[str, Any]:
    """Describe a loaded judge by what its scores depend on."""
    model = judge.model
    config = {key: value for key, value in model.config.to_dict().items() if key not in NO_WEIGHTS}
    return {
        "name": Path(model.name_or_path).name if os.path.isdir(model.name_or_path) else model.name_or_path,
        "revision": model.commit or model.revision,
        "weights_sha256": _weights_sha256(model),
        "config_sha256": _text_sha256(json.dumps(config, sort_keys=True, default=str)),
        "tokenizer_sha256": _text_sha256(judge.tokenizer.backend_tokenizer.to_str()),
        "dtype": str(model.dtype),
        "device": judge.device.type,
    }


def _weights_sha256(model: Any) -> str:
    """Hash the weights as they are loaded, backbone and probes, whichever files they came from."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def settle_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a job's manifest into its folder, or check the one that is there.

    Raises:
        DataFileError: The folder is of another job, or holds something else.
    """
    path = folder / MANIFEST
    expected = json.loads(json.dumps(manifest))
    while not path.exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith((".", "_"))]
        if others:
            raise DataFileError(f"{folder} expects an empty or new folder, but holds {others[0]}. Choose another one.")
        try:
            write_json(path, expected)
        except BusyFileError:  # another shard of this job begins too
            time.sleep(WAIT_S)
    found = read_manifest(path)
    found["versions"] = {OWN: version(OWN), **found.get("versions", {})}  # older jobs do not say it
    changed = _differences(found, expected)
    if found.get("threads") != expected["threads"]:  # a sum depends, in its last digits, on how many threads divide it
        changed.append(f"set OMP_NUM_THREADS={found.get('threads')} to go on")
    if changed:
        raise DataFileError(
            f"{folder} expects to go on with the job that it holds, but these differ: {'; '.join(changed)}. Choose "
            "another folder, or delete this one."
        )


def _differences(found: Any, expected: Any, name: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted({*found, *expected})
        pairs = [(found.get(key), expected.get(key), f"{name}.{key}" if name else key) for key in keys]
        return [line for one, other, path in pairs for line in _differences(one, other, path)]
    return [] if found == expected else [f"{name} was {found!r:.80}, is {expected!r:.80}"]


def is_older_job(folder: Path) -> bool:
    """Say whether a folder holds a job of before its columns were written down, which goes on with those of then.

    Raises:
        DataFileError: Its manifest is none.
    """
    path = folder / MANIFEST
    return path.is_file() and "columns" not in read_manifest(path)


def threads_of(folder: Path) -> int | None:
    """Return the threads of torch that a folder's job was begun with; None where it holds none, or does not say it.

    Raises:
        DataFileError: Its manifest is none.
    """
    path = folder / MANIFEST
    return read_manifest(path).get("threads") if path.is_file() else None


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a job's manifest.

    Raises:
        DataFileError: The file is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        numbers = found["rows"], found["settings"]["part_rows"]
        if all(type(number) is int and number >= least for number, least in zip(numbers, (0, 1), strict=True)):
            return dict(found)
        fault = f"it names {numbers[0]!r} rows in parts of {numbers[1]!r}"
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        fault = repr(error)
    raise DataFileError(f"{path} expects a job's manifest, but: {fault:.200}. Choose another folder.")


def check_finished(folder: Path) -> None:
    """Refuse a job's folder that lacks parts; any other folder or file passes.

    Raises:
        DataFileError: The job was stopped, not all of its shards were run, or a part was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return
    manifest = read_manifest(path)
    expected = max(1, -(-manifest["rows"] // manifest["settings"]["part_rows"]))
    found = len(list(folder.glob("part-*")))
    if found < expected:
        raise DataFileError(
            f"{folder} expects {expected} parts, but holds {found}. Give the command that scores it again, or run the "
            "other shards."
        )
    parts = Parts(folder, next(folder.glob("part-*")).suffix)
    parts.check_names(expected)
    for index in range(expected):
        parts.check(index)


def write_json(path: Path, data: Any) -> None:
    """Write a small JSON file whole or not at all."""
    with whole_file(path) as file:
        file.write(json_text(data).encode("utf-8", "backslashreplace"))
