"""Measure what a judge costs, beside the published procedure and others.

    python -m training benchmark --probing-set probing.json --questions gsm8k_train.jsonl --output work/benchmark

Every case reads the same pairs with the same weights, in a process of its own, so that its peak memory is its own. A
case that is done is kept in `cases/`, so a run that was killed goes on; `--cases '["judge"]'` runs some of them. The
machine should do nothing else meanwhile. The default settings take about 25 minutes on 2 cores and 16 GB of memory, of
which the published procedure takes half.

Written are benchmark.json (every number), benchmark.md (the tables) and benchmark.png. How operations are counted
stands in training/evaluation/cost.py; what is left out of the published procedure in reference_procedure.py there.
"""

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import inspector_pipeline
from inspector_pipeline.api.load import judge_name
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import file_sha256, json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..benchmarks.config import BenchmarkConfig as Config
from ..benchmarks.config import Case, all_cases, chosen_cases
from ..benchmarks.report import comparisons, draw, markdown
from ..judges.plots import write_png
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

STAGE = "benchmark"
ROOT = Path(__file__).parents[2]
CASES = "cases"
RESULTS, TABLES, PLOT = "benchmark.json", "benchmark.md", "benchmark.png"

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
    "other_judges": ("judge",),
    "output": (),
    "cases": (),
}
WITHOUT_ENGINE = ("reference", "plain", "encoder")  # groups that do not run the judge's own code


def run(config: Config) -> None:
    """Run the stage: measure what is not measured yet, then write tables and plot from all that is.

    Raises:
        SettingsError: A case is unknown.
        DataFileError: An input cannot be read, or a case's process ended without a measurement.
    """
    folder = Path(config.output)
    chosen = chosen_cases(config)
    manifest = Manifest.of(STAGE, config, (config.probing_set, config.questions))
    settings = {**manifest.settings, "engine": engine_sha256(), "judge": described_judge(config.judge)}
    settings["other_judges"] = [described_judge(name) for name in config.others]
    manifest = replace(manifest, settings=settings)
    if manifest.is_done(folder):
        return
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(chosen, start=1):
        path = folder / CASES / f"{case.name}.json"
        made_from = digest(config, case, manifest)
        if _is_done(path, made_from):
            logger.info("[%d/%d] %s is already there.", number, len(chosen), case.name)
            continue
        logger.info("[%d/%d] %s", number, len(chosen), case.name)
        measure_case(config, case, made_from, path)
    files = write_report(config, manifest)
    manifest.write(folder, files)


def described_judge(judge: str | None) -> str:
    """Name a judge, without this machine's path: a folder by its name and what its config and weights hash to."""
    judge = judge_name(judge)
    if not Path(judge).is_dir():
        return judge
    files = (Path(judge, name) for name in ("config.json", "model.safetensors"))
    return " ".join([Path(judge).resolve().name, *(file_sha256(path)[:16] for path in files if path.is_file())])


def measure_case(config: Config, case: Case, made_from: str, path: Path) -> None:
    """Run one case in a fresh process.

    Raises:
        DataFileError: The process ended without a measurement.
    """
    threads = config.threads or _cores()
    spec = {"config": asdict(config), "case": asdict(case), "made_from": made_from, "threads": threads}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with TemporaryDirectory() as scratch:
        given = Path(scratch, "case.json")
        given.write_text(json.dumps(spec), encoding="utf-8")
        command = [sys.executable, "-m", "inspector_training.benchmarks.case", str(given), str(path)]
        done = subprocess.run(command, env=environment, check=False)
    if done.returncode or not path.is_file():
        raise DataFileError(
            f"{path} expects a measurement, but the process of {case.name} ended with exit code {done.returncode} "
            "(-9: out of memory, mostly). What is done is kept: run the same command again, or choose other --cases."
        )


def write_report(config: Config, manifest: Manifest) -> list[Path]:
    """Write benchmark.json, tables and plot from every case that is there and fits these settings.

    Returns:
        The files.
    """
    folder = Path(config.output)
    found: dict[str, dict[str, Any]] = {}
    for case in all_cases(config):
        path = folder / CASES / f"{case.name}.json"
        if _is_done(path, digest(config, case, manifest)):
            found[case.name] = {key: value for key, value in read_json(path).items() if key != "made_from"}
    results = {
        "machine": machine(config),
        "settings": manifest.settings,
        "versions": manifest.versions,
        "cases": found,
        "comparisons": comparisons(found, config.batch_size),
    }
    write_atomically(folder / RESULTS, json_text(results))
    write_atomically(folder / TABLES, markdown(results))
    write_png(draw(results), folder / PLOT)
    return [folder / RESULTS, folder / TABLES, folder / PLOT]


def digest(config: Config, case: Case, manifest: Manifest) -> str:
    """Name what a case's numbers come from: inputs, versions, the settings and the code that matter to it."""
    settings = {
        key: value for key, value in manifest.settings.items() if case.group in SETTINGS_OF.get(key, (case.group,))
    }
    settings["threads"] = config.threads or _cores()
    if case.group in WITHOUT_ENGINE:
        del settings["engine"]
    own = _sources_sha256([ROOT / "training" / "benchmarks" / f"{case.module}.py"])
    made_from = [manifest.inputs, manifest.versions, settings, asdict(case), own]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def engine_sha256() -> str:
    """Hash the source of what runs judges."""
    return _sources_sha256(sorted(Path(inspector_pipeline.__file__).parent.glob("*.py")))


def _sources_sha256(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _is_done(path: Path, made_from: str) -> bool:
    return path.is_file() and read_json(path).get("made_from") == made_from


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(config: Config) -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": fields.get("model name") or platform.processor(),
        "threads": config.threads or _cores(),
        "matrix_extensions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE") if pages else None,
    }
