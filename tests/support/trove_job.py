"""Run a datatrove pipeline: `python trove_job.py JUDGE INPUT FOLDER MARK KILLS`.

The process of one task is killed with SIGKILL in the middle of it, until MARK holds a byte for each of so many kills.
"""

import os
import signal
import sys
from pathlib import Path

from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import JsonlWriter

from inspector_pipeline.engines.datatrove import InspectorAnnotator, InspectorFilter, InspectorReader
from inspector_pipeline.engines.datatrove_executor import RestartingExecutor
from inspector_pipeline.errors import InspectorError

TASKS = 3
KILLED_TASK = 1


class Kill(PipelineStep):
    name = "kill"
    type = "test"

    def __init__(self, mark, kills):
        super().__init__()
        self.mark = mark
        self.kills = kills

    def run(self, data, rank=0, world_size=1):
        for number, document in enumerate(data):
            if rank == KILLED_TASK and number == 100 and Path(self.mark).stat().st_size < self.kills:
                with Path(self.mark).open("ab") as file:
                    file.write(b".")
                os.kill(os.getpid(), signal.SIGKILL)
            yield document


def main(judge, source, folder, mark, kills):
    steps = [
        InspectorReader(source),
        InspectorAnnotator(judge, device="cpu"),
        Kill(mark, int(kills)),
        InspectorFilter("a", 2, exclusion_writer=JsonlWriter(f"{folder}/dropped", compression=None)),
        JsonlWriter(f"{folder}/kept", compression=None),
    ]
    executor = RestartingExecutor(steps, tasks=TASKS, workers=2, logging_dir=f"{folder}/log", start_method="fork")
    try:
        executor.run()
    except InspectorError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
