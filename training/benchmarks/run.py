"""Run cases, each in a process of its own, which gives it its own peak memory and the same fresh start.

    python -m inspector_training.benchmarks.run case.json measured.json

is such a process: it measures the case that the first file holds and writes the second.
"""

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers.utils import logging as hf_logging

from inspector_pipeline.allocation import keep_freed_memory
from inspector_pipeline.api.load import ASSETS, judge_name
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import file_sha256, json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..runs.command import from_settings, run
from ..runs.manifest import Manifest
from . import cases, on_device, peers, reference
from .config import BenchmarkConfig, Case
from .inputs import Inputs
from .measure import Measurement

logger = logging.getLogger(__name__)

HERE, ENGINE = Path(__file__).parent, ASSETS.parent
BESIDE_JUDGE = ("reference", "plain", "encoder", "peer")  # groups that do not run the judge's own code
HOMES = {  # of the functions of groups that are not in cases.py
    **dict.fromkeys(("reference", "plain", "encoder"), reference),
    **dict.fromkeys(("device", "device_parity"), on_device),
    "peer": peers,
}
# Settings that matter to some groups of cases alone; any other change makes every case run again.
SETTINGS_OF = {
    "reference_pairs": ("reference",),
    "reference_repetitions": ("reference",),
    "long_pairs": ("ceiling", "profile"),
    "drift_pairs": ("drift",),
    "best_of_questions": ("best_of_8",),
    "growth_pairs": (),  # these and the lengths stand in the cases themselves
    "growth_lengths": (),
    "growth_dtype": ("growth",),
    "device_tokens": ("device",),
    "device_lengths": (),
    "other_judges": ("judge",),
    "output": (),
    "cases": (),
}


def described(config: BenchmarkConfig) -> Manifest:
    """Describe a run: beside its settings, the judges by what they hold, and the code that runs them."""
    manifest = Manifest.of("benchmark", config, (config.probing_set, config.questions))
    settings = {**manifest.settings, "engine": engine_sha256(), "judge": described_judge(config.judge)}
    settings["other_judges"] = [described_judge(name) for name in config.other_judges]
    return replace(manifest, settings=settings)


def described_judge(judge: str | None) -> str:
    """Name a judge, without this machine's path: a folder by its name and what its config and weights hash to."""
    judge = judge_name(judge)
    if not Path(judge).is_dir():
        return judge
    files = (Path(judge, name) for name in ("config.json", "model.safetensors"))
    return " ".join([Path(judge).resolve().name, *(file_sha256(path)[:16] for path in files if path.is_file())])


def engine_sha256() -> str:
    """Hash the source of what runs judges: the modules that ship with them, and what loads them here."""
    return _sources_sha256([*sorted(ENGINE.glob("*.py")), ENGINE / "api" / "load.py"])


def digest(config: BenchmarkConfig, case: Case, manifest: Manifest) -> str:
    """Name what a case's numbers come from: inputs, versions, the settings and the code that matter to it."""
    settings = {
        key: value for key, value in manifest.settings.items() if case.group in SETTINGS_OF.get(key, (case.group,))
    }
    settings["threads"] = config.threads or _cores()
    if case.group in BESIDE_JUDGE:
        del settings["engine"]
    own = [Path(str(HOMES.get(case.group, cases).__file__)).name, "inputs.py", "measure.py"]
    code = _sources_sha256(HERE / name for name in own)
    made_from = [manifest.inputs, manifest.versions, settings, asdict(case), code]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _sources_sha256(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def kept(path: Path, made_from: str) -> dict[str, Any] | None:
    """Read what an earlier run measured; None where there is nothing, or where it was made from something else."""
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found if found.pop("made_from", None) == made_from else None


def measure_case(config: BenchmarkConfig, case: Case, made_from: str, path: Path) -> None:
    """Run one case in a fresh process.

    Raises:
        DataFileError: The process ended without a measurement.
    """
    threads = config.threads or _cores()
    spec = {"config": asdict(config), "case": asdict(case), "made_from": made_from, "threads": threads}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with TemporaryDirectory() as scratch:
        given = Path(scratch, "case.json")
        given.write_text(json.dumps(spec), encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", __name__, str(given), str(path)], env=environment, check=False)
    if done.returncode or not path.is_file():
        raise DataFileError(
            f"{path} expects a measurement, but the process of {case.name} ended with exit code {done.returncode} "
            "(-9: out of memory, mostly). What is done is kept: run the same command again, or choose other --cases."
        )


def run_case(config: BenchmarkConfig, case: Case) -> dict[str, Any]:
    """Measure a case in this process.

    Returns:
        What its JSON holds: the case, when it ran, and its measurement.
    """
    function: Callable[..., Measurement]
    function = getattr(HOMES.get(case.group, cases), case.group)
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    measured = function(Inputs(config), **case.arguments).to_dict()
    load = os.getloadavg()[0]
    return {"case": case.name, "group": case.group, "began": began, "load_average": load, **measured}


def machine(config: BenchmarkConfig) -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": fields.get("model name") or platform.processor(),
        "threads": config.threads or _cores(),
        "device": _device_name(config.device),
        "matrix_extensions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE") if pages else None,
    }


def _device_name(device: str | None) -> str | None:
    """Name what a device is; None where the run is on the CPU alone."""
    return torch.cuda.get_device_name(device) if device and torch.device(device).type == "cuda" else device


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Read the case, run it, write its JSON."""
    keep_freed_memory()
    hf_logging.disable_progress_bar()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    config = from_settings(BenchmarkConfig, spec["config"], sys.argv[1])
    found = run_case(config, Case(**spec["case"]))
    write_atomically(Path(sys.argv[2]), json_text({"made_from": spec["made_from"], **found}))
    logger.info("%s: %.4g s", found["case"], found["median_seconds"])


if __name__ == "__main__":
    run(main)
