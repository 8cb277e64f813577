"""Run a datatrove pipeline: `python trove_job.py JUDGE INPUT FOLDER [MARK]`.

Where a MARK is named, the worker of one task is killed with SIGKILL in the middle of it, once: it makes MARK before.
"""

import os
import signal
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import JsonlWriter

from inspector_pipeline.jobs.trove import InspectorAnnotator, InspectorFilter, InspectorReader

TASKS = 3
KILLED_TASK = 1


class Kill(PipelineStep):
    name = "kill"
    type = "test"

    def __init__(self, mark):
        super().__init__()
        self.mark = mark

    def run(self, data, rank=0, world_size=1):
        for number, document in enumerate(data):
            if rank == KILLED_TASK and number == 100 and not Path(self.mark).exists():
                Path(self.mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield document


def main(judge, source, folder, *mark):
    steps = [
        InspectorReader(source),
        InspectorAnnotator(judge, device="cpu"),
        *(Kill(one) for one in mark),
        InspectorFilter("a", 2, exclusion_writer=JsonlWriter(f"{folder}/dropped", compression=None)),
        JsonlWriter(f"{folder}/kept", compression=None),
    ]
    LocalPipelineExecutor(steps, tasks=TASKS, workers=2, logging_dir=f"{folder}/log", start_method="fork").run()


if __name__ == "__main__":
    main(*sys.argv[1:])
