"""Run one case in this process and write its JSON: `inspector_training.stages.benchmark` starts this, once for each case.

    python -m training benchmarks.case case.json measured.json

A process of its own gives each case its own peak memory, and the same fresh start.
"""

import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as hf_logging

from inspector_pipeline.files.disk import json_text, write_atomically

from ..runs.command import from_settings, run
from .config import BenchmarkConfig, Case
from .inputs import Inputs
from .measure import Measurement


def run_case(config: BenchmarkConfig, case: Case) -> dict[str, Any]:
    """Measure a case.

    Returns:
        What its JSON holds: the case, when it ran, and its measurement.
    """
    function: Callable[..., Measurement]
    function = getattr(importlib.import_module(f"training.benchmarks.{case.module}"), case.function)
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    measured = function(Inputs(config), **case.arguments).to_dict()
    load = os.getloadavg()[0]
    return {"case": case.name, "group": case.group, "began": began, "load_average": load, **measured}


def main() -> None:
    """Read the case, run it, write its JSON."""
    hf_logging.disable_progress_bar()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    config = from_settings(BenchmarkConfig, spec["config"], sys.argv[1])
    found = run_case(config, Case(**spec["case"]))
    write_atomically(Path(sys.argv[2]), json_text({"made_from": spec["made_from"], **found}))
    logging.getLogger(__name__).info("%s: %.4g s", found["case"], found["median_seconds"])


if __name__ == "__main__":
    run(main)
