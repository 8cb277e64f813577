"""Run a job in forked processes, kill them with SIGKILL at random moments, and let each job be finished at last.

A script, so that the process that forks has one thread, and is warm: `python killed_jobs.py JUDGE INPUT FOLDER KILLS`.
Half of the kills come after a random time, half at a random event of the file system (an open, a rename, a removal).
It prints, as JSON, how many runs were killed, and how many jobs were finished.
"""

import json
import os
import random
import signal
import sys
import time

import torch

from inspector_pipeline import load_judge
from inspector_pipeline.jobs.score import ScoreJob, score_job

EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir")
MOST_EVENTS = 60
MOST_SECONDS = 0.5
KILLS_OF_A_JOB = 5


def kill_at_event(count):
    left = [count]

    def hook(event, args):
        if event in EVENTS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run_once(job, judge, chance):
    """Run the job in a child that is killed; returns whether it was killed before it was done."""
    event = chance.randint(1, MOST_EVENTS) if chance.random() < 0.5 else None
    child = os.fork()
    if child == 0:
        if event is not None:
            kill_at_event(event)
        score_job(job, judge)
        os._exit(0)
    if event is None:
        time.sleep(chance.uniform(0, MOST_SECONDS))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main(judge_folder, source, folder, kills):
    torch.set_num_threads(1)
    judge = load_judge(judge_folder, device="cpu")
    chance = random.Random(int(kills))
    killed = finished = 0
    while killed < int(kills):
        shape = ("jsonl", "parquet")[finished % 2]
        job = ScoreJob(source, f"{folder}/{shape}-{finished}", format=shape, part_rows=256, where="id != 7")
        for _ in range(min(KILLS_OF_A_JOB, int(kills) - killed)):
            if not run_once(job, judge, chance):
                break
            killed += 1
        score_job(job, judge)
        finished += 1
    sys.stdout.write(json.dumps({"killed": killed, "finished": finished}))


if __name__ == "__main__":
    main(*sys.argv[1:])
