"""A local executor for datatrove that survives a killed worker: the task is run again, and the job ends by itself.

datatrove's own `LocalPipelineExecutor` waits for ever for the task of a worker that was killed, by the system for want
of memory, say. This one takes its place:

    from inspector_pipeline.engines.datatrove_executor import RestartingExecutor

    if __name__ == "__main__":
        RestartingExecutor([...], tasks=8, workers=2, logging_dir="log/").run()
"""

import json
import signal
import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import multiprocess  # type: ignore[import-untyped]
from datatrove.executor import LocalPipelineExecutor
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats
from multiprocess.connection import wait  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from ..errors import DataFileError

PRELOADED = ["__main__", "inspector_pipeline.engines.datatrove"]  # so that a process starts in no time


class RestartingExecutor(LocalPipelineExecutor):
    """Runs every task in a process of its own, and again where that was killed.

    A task's writers begin their files anew, so what a killed process left is overwritten. A task that raises is not
    run again, since it would raise again. In both cases the other tasks are run to their end, and a later run of the
    same pipeline does only what is left.
    """

    def __init__(self, *args: Any, attempts: int = 3, **kwargs: Any) -> None:
        """Prepare.

        Args:
            *args: Those of `LocalPipelineExecutor`.
            attempts: How often a task is run whose process is killed.
            **kwargs: Those of `LocalPipelineExecutor`.
        """
        super().__init__(*args, **kwargs)
        self.attempts = attempts

    def run(self) -> Any:
        """Run the tasks that are not completed.

        Returns:
            Their statistics; None where there was nothing to do.

        Raises:
            DataFileError: A task raised, or its process was killed as often as it may be.
        """
        if self.depends is not None and not self.depends._launched:
            self.depends.run()
        if self.depends is not None and self.depends.get_incomplete_ranks(skip_completed=True):
            raise DataFileError(
                "depends expects a pipeline whose tasks are all completed, but some are not. Run it first."
            )
        self._launched = True
        ranks = self.get_incomplete_ranks(range(self.local_rank_offset, self.local_rank_offset + self.local_tasks))
        if not ranks:
            logger.info(f"All {self.local_tasks} tasks were completed before.")
            return None
        self.save_executor_as_json()
        failed = self._run_tasks(ranks)
        if failed:
            raise DataFileError(
                f"{self.logging_dir.path} expects all tasks to be completed, but {'; '.join(failed)}. Each one's log "
                "stands in logs/ there. Run the same pipeline again: completed tasks are skipped."
            )
        return self._merged_stats(ranks)

    def _run_tasks(self, ranks: Sequence[int]) -> list[str]:
        """Run tasks, so many at a time as there are workers; says of each that failed how."""
        context = multiprocess.get_context(self.start_method)
        if self.start_method == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        waiting, free = deque(ranks), list(range(self.workers))
        running: dict[int, tuple[Any, int, int]] = {}  # a slot is the place that a task takes among the workers
        deaths: Counter[int] = Counter()
        failed = []
        try:
            while waiting or running:
                while waiting and free:
                    rank, slot = waiting.popleft(), free.pop(0)
                    process = context.Process(target=self._run_alone, args=(rank, slot))
                    process.start()
                    running[process.sentinel] = process, rank, slot
                for sentinel in wait(list(running)):
                    process, rank, slot = running.pop(sentinel)
                    free.append(slot)
                    process.join()
                    code = process.exitcode
                    deaths[rank] += code < 0
                    if code < 0 and deaths[rank] < self.attempts:
                        logger.warning(f"Task {rank} was ended by {_name(code)}, and is run again.")
                        waiting.append(rank)
                    elif code < 0:
                        failed.append(f"task {rank} was ended by {_name(code)} for the {self.attempts}. time")
                    elif code > 0:
                        failed.append(f"task {rank} failed with exit code {code}")
        finally:
            for process, _, _ in running.values():
                process.terminate()
                process.join()
        return failed

    def _run_alone(self, rank: int, slot: int) -> None:
        """Run a task in this process; the lock of its bars is its own, as a killed one gives no shared lock back."""
        tqdm.set_lock(threading.RLock())
        self._run_for_rank(rank, slot)

    def _merged_stats(self, ranks: Sequence[int]) -> Any:
        found = [json.loads(self.logging_dir.read_text(f"stats/{rank:05d}.json")) for rank in ranks]
        merged = sum(map(PipelineStats.from_json, found), start=PipelineStats())
        with self.logging_dir.open("stats.json", "wt") as file:
            merged.save_to_disk(file)
        logger.success(merged.get_repr(f"All {self.local_tasks} tasks"))
        return merged


def _name(code: int) -> str:
    return f"{signal.Signals(-code).name}{' (out of memory, mostly)' if -code == signal.SIGKILL else ''}"
