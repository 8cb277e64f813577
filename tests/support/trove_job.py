"""Run a datatrove pipeline and run it again: `python trove_job.py JUDGE INPUT FOLDER MARK`.

The process of one task is killed with SIGKILL in the middle of it: three times, as often as it is tried, so that the
first run fails, and once in the second. MARK gets a byte at each kill; between.json says what stands in between.
"""

import json
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


def run(judge, source, folder, mark, kills):
    steps = [
        InspectorReader(source),
        InspectorAnnotator(judge, device="cpu"),
        Kill(mark, kills),
        InspectorFilter("a", 2, exclusion_writer=JsonlWriter(f"{folder}/dropped", compression=None)),
        JsonlWriter(f"{folder}/kept", compression=None),
    ]
    RestartingExecutor(steps, tasks=TASKS, workers=2, logging_dir=f"{folder}/log", start_method="fork").run()


def main(judge, source, folder, mark):
    try:
        run(judge, source, folder, mark, kills=3)
    except InspectorError as error:
        sys.stderr.write(f"{error}\n-- again --\n")
    else:
        sys.exit("the first run expects to fail")
    done = sorted(path.name for path in Path(folder, "log", "completions").glob("*"))
    written = Path(folder, "kept", "00000.jsonl").stat().st_mtime_ns
    between = {"kills": Path(mark).stat().st_size, "done": done, "written": written}
    Path(folder, "between.json").write_text(json.dumps(between))
    run(judge, source, folder, mark, kills=4)


if __name__ == "__main__":
    main(*sys.argv[1:])
