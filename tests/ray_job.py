"""Score a Parquet file on Ray with two actors, one of which is killed with SIGKILL in the middle, once.

`python ray_job.py JUDGE INPUT OUTPUT MARK`: before the kill it makes MARK.
"""

import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from inspector_pipeline.jobs.batch_scorer import InspectorBatchScorer
from inspector_pipeline.jobs.on_ray import score_dataset


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


if __name__ == "__main__":
    main(*sys.argv[1:])
