"""Score a Parquet file on Ray with two actors, one of which is killed with SIGKILL in the middle, once.

`python ray_job.py JUDGE INPUT OUTPUT MARK`: before the kill it makes MARK. Then the module's own command scores the
input again on the same Ray, with other names of columns, into the folder OUTPUT.command.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from inspector_pipeline.engines.batch_scorer import InspectorBatchScorer
from inspector_pipeline.engines.ray import score_dataset


class KilledOnce(InspectorBatchScorer):
    def __init__(self, *args, mark, **kwargs):
        super().__init__(*args, **kwargs)
        self.mark = mark

    def __call__(self, batch):
        if batch["id"][0].as_py() >= 256 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def main(judge, source, output, mark):
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    dataset = ray.data.read_parquet(source)
    scored = score_dataset(dataset, judge, actors=2, scorer=KilledOnce, mark=mark, device="cpu")
    pq.write_table(pa.concat_tables(ray.get(scored.to_arrow_refs())), output)
    command(judge, source, f"{output}.command")


def command(judge, source, output):
    table = pq.read_table(source).slice(0, 20)
    pq.write_table(table.rename_columns(["id", "q", "prediction"]), f"{output}.renamed.parquet")
    names = ["--column", "question=q", "--prefix", "judge_", "--judge", judge, "--device", "cpu"]
    sys.argv = ["on_ray", f"{output}.renamed.parquet", "--output", output, *names]
    runpy.run_module("inspector_pipeline.engines.ray", run_name="__main__")
    runpy.run_module("inspector_pipeline.engines.ray", run_name="__main__")  # refused: the folder is there


if __name__ == "__main__":
    main(*sys.argv[1:])
