"""The first score from a warm cache: what it takes beyond importing torch and transformers."""

import json
import subprocess
import sys
from statistics import median

from inspector_pipeline.errors import BackboneError

from .inputs import Inputs
from .measure import Measurement, Work

STAGES = (
    "import torch, transformers",
    "the parts of transformers that any pipeline imports",
    "import inspector_pipeline",
    "load the judge",
    "first score",
)
IMPORTS = 2  # how many of them are torch's and transformers' own; `import transformers` alone imports next to nothing
_SCRIPT = """
import json, sys, time
times = [time.perf_counter()]
import torch, transformers
times.append(time.perf_counter())
from transformers import AutoModel, pipeline
times.append(time.perf_counter())
import inspector_pipeline
times.append(time.perf_counter())
judge = inspector_pipeline.load_judge(sys.argv[1])
times.append(time.perf_counter())
judge(json.loads(sys.argv[2]))
times.append(time.perf_counter())
print(json.dumps(times))
"""


def start(inputs: Inputs) -> Measurement:
    """Start a fresh Python, time each step up to the first score, and do so several times.

    `seconds` are those beyond the import of torch and transformers.
    """
    pair = inputs.pairs[0]
    _steps(inputs, pair)  # warms the caches of the file system and of the Hub
    runs = [_steps(inputs, pair) for _ in range(inputs.config.repetitions)]
    (n_tokens,) = inputs.chat_lengths([pair])
    work = Work("", pairs=1, tokens=n_tokens, chat_tokens=n_tokens, flops=0)
    steps = {stage: median(run[i] for run in runs) for i, stage in enumerate(STAGES)}
    return Measurement(work, [sum(run[IMPORTS:]) for run in runs], 0, 0, details={"steps": steps})


def _steps(inputs: Inputs, pair: dict[str, str]) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, inputs.judge_id, json.dumps(pair)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackboneError(f"A fresh Python expects to load {inputs.judge_id}, but it ended with:\n{done.stderr}")
    times = json.loads(done.stdout.splitlines()[-1])
    return [after - before for before, after in zip(times, times[1:], strict=False)]
