"""Score a Parquet file on Ray by the module's own command with two actors, one of which is killed in the middle, once.

`python ray_job.py INPUT OUTPUT MARK OPTIONS`: before the kill, by SIGKILL, it makes MARK. Then the command is given
again, which is refused, since OUTPUT is there.
"""

import os
import runpy
import signal
import sys
from functools import partial
from pathlib import Path

import ray

from inspector_pipeline.engines import ray as engine
from inspector_pipeline.engines.batch_scorer import InspectorBatchScorer


class KilledOnce(InspectorBatchScorer):
    def __init__(self, *args, mark, **kwargs):
        super().__init__(*args, **kwargs)
        self.mark = mark

    def __call__(self, batch):
        if batch["id"][0].as_py() >= 256 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def main(source, output, mark, *options):
    # Two CPUs for the actors and one for what reads and writes.
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    engine.score_dataset = partial(engine.score_dataset, scorer=KilledOnce, mark=mark)
    command = [source, "--output", output, "--actors", "2", *options]
    engine.main(command)
    sys.argv = ["on_ray", *command]
    runpy.run_module("inspector_pipeline.engines.ray", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
