"""Score the parts of a job in several processes of one thread each, forked from the one that has loaded the judge.

Each takes every n-th part, and tells the one that started them of its pairs and passes, which draws one bar of all. A
part holds the same bytes whoever writes it. They share the judge's weights, so memory grows by what a pass takes.
"""

import contextlib
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..errors import BackboneError, InspectorError
from ..progress import Progress, Tally

# Pairs a second of as many workers as there are cores, of one core each, over those of one process with all cores. The
# rule of `default_workers` follows from it: at 1 or less a job is one process. `tests/benchmarks/bench_jobs.py --scale`
# measures it, on an idle machine. See docs/speed.md.
WORKERS_GAIN = 0.95


def default_workers(parts: int, cores: int) -> int:
    """Say in how many processes a job is done the fastest.

    Args:
        parts: Those of the job, of which a process scores a whole one at a time.
        cores: Those that it may use.
    """
    workers = min(parts, cores)
    balance = parts / (cores * -(-parts // cores)) if parts else 0.0  # the share of cores' time that is not waited for
    return workers if workers == cores > 1 and WORKERS_GAIN * balance > 1 else 1


class Relay:
    """Tells another process what a `Progress` is told.

    Args:
        connection: To that process; where it has gone, so does this one at its next word.
    """

    def __init__(self, connection: Connection) -> None:
        """Keep the connection."""
        self.connection = connection

    def skip(self, pairs: int) -> None:
        """Pass it on."""
        self.connection.send(("skip", pairs))

    def begin(self, pairs: int, tokens: int) -> None:
        """Pass it on."""
        self.connection.send(("begin", pairs, tokens))

    def passed(self, tokens: int) -> None:
        """Pass it on."""
        self.connection.send(("passed", tokens))

    def end(self) -> None:
        """Pass it on."""
        self.connection.send(("end",))


def run_workers(work: Callable[[int, int, Relay], None], tallies: Sequence[Tally]) -> None:
    """Do the parts of a job in several processes, with one bar.

    Args:
        work: Given a worker's number, how many there are, and what to tell, does its parts.
        tallies: What each has to do.

    Raises:
        InspectorError: A worker has failed so.
        BackboneError: One has ended otherwise.
    """
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in tallies]
    processes = [
        context.Process(target=_worker, args=(work, number, pipes), daemon=True) for number in range(len(pipes))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads in this process, none of which is in the way
        for process in processes:
            process.start()
    for _, sender in pipes:
        sender.close()
    try:
        with Progress(f"{len(tallies)} workers", *tallies) as bar:
            _follow([receiver for receiver, _ in pipes], tallies, bar)
        for number, process in enumerate(processes):
            process.join()
            if process.exitcode:
                raise BackboneError(
                    f"Worker {number} expects to end well, but ended with {process.exitcode}. Run it again."
                )
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _follow(receivers: Sequence[Connection], tallies: Sequence[Tally], bar: Progress) -> None:
    """Draw what the workers tell, until all have ended.

    Raises:
        InspectorError: The one that a worker has failed with.
    """
    of = dict(zip(receivers, tallies, strict=True))
    while of:
        ready = wait([*of])
        for receiver in [one for one in of if one in ready]:
            try:
                told = receiver.recv()
            except EOFError:
                del of[receiver]
                continue
            if isinstance(told, InspectorError):
                raise told
            name, *values = told
            new = getattr(of[receiver], name)(*values)
            bar.moved(new or 0)


def _worker(work: Callable[[int, int, Relay], None], number: int, pipes: Sequence[tuple[Any, Connection]]) -> None:
    """Do one worker's parts; its own connection is all that it keeps of those to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a whole terminal: who started this one ends it
    for at, (receiver, sender) in enumerate(pipes):
        receiver.close()
        if at != number:
            sender.close()
    own = pipes[number][1]
    torch.set_num_threads(1)
    with contextlib.suppress(BrokenPipeError):
        try:
            work(number, len(pipes), Relay(own))
        except InspectorError as error:
            own.send(error)
    own.close()
