"""Measure what a judge costs, beside the published procedure and others.

    python -m training benchmark --probing-set probing.json --questions gsm8k_train.jsonl --output work/benchmark

    python -m training benchmark --device cuda --output work/gpu

measures the embedded judge on a GPU, with no file but the package: pairs/s, tokens/s, share of the peak, memory, and
how far its scores are from those of float32 on the CPU. It takes a few minutes, and prints the tables.

Every case reads the same pairs with the same weights, in a process of its own, so that its peak memory is its own. A
case that is done is kept in `cases/`, so a run that was killed goes on; `--cases judge plain` runs some of them. The
machine should do nothing else meanwhile. The default settings take about 25 minutes on 2 cores and 16 GB of memory, of
which the published procedure takes half.

Written are benchmark.json (every number), benchmark.md (the tables) and benchmark.png. How operations are counted
stands in training/evaluation/cost.py; what is left out of the published procedure in training/benchmarks/reference.py.
"""

import logging
from pathlib import Path

from ..benchmarks.config import BenchmarkConfig as Config
from ..benchmarks.config import all_cases, chosen_cases
from ..benchmarks.on_device import check_device
from ..benchmarks.report import write_report
from ..benchmarks.run import described, digest, kept, machine, measure_case

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Run the stage: measure what is not measured yet, then write tables and plot from all that is.

    Raises:
        SettingsError: A case is unknown, or the device is not there.
        DataFileError: An input cannot be read, or a case's process ended without a measurement.
    """
    folder, chosen, manifest = Path(config.output), chosen_cases(config), described(config)
    if manifest.is_done(folder):
        return
    if config.device is not None:
        check_device(config.device)
    cases = folder / "cases"
    cases.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(chosen, start=1):
        path, made_from = cases / f"{case.name}.json", digest(config, case, manifest)
        is_kept = kept(path, made_from) is not None
        logger.info("[%d/%d] %s%s", number, len(chosen), case.name, " is already there." if is_kept else "")
        if not is_kept:
            measure_case(config, case, made_from, path)
    found = {case.name: kept(cases / f"{case.name}.json", digest(config, case, manifest)) for case in all_cases(config)}
    measured = {name: one for name, one in found.items() if one is not None}
    files = write_report(folder, measured, manifest, machine(config), config.batch_size)
    manifest.write(folder, files)
    if config.device is not None:
        logger.info("%s", next(path for path in files if path.suffix == ".md").read_text(encoding="utf-8"))
