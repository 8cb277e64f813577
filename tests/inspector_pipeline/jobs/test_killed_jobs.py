import json
import os
import random
import subprocess
import sys

import pytest
from support.fresh import run_fresh
from support.jobs import contents, made_rows, run
from support.models import aspect, feature
from support.paths import SUPPORT

from inspector_pipeline import load_judge

KILLS = 20


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def family():
    return "llama"


def test_jobs_killed_at_random_moments_write_what_one_run_writes(make_judge, tmp_path):
    folder = make_judge([aspect("a", [feature(1)])], max_length=96)
    lines = [json.dumps(row) for row in made_rows(1200)]
    for at in random.Random(0).sample(range(len(lines)), 30):
        lines[at] = '{"id": 1, "question": "q"}' if at % 2 else "{"
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines))
    script = SUPPORT / "killed_jobs.py"
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    (tmp_path / "killed").mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(source), str(tmp_path / "killed"), str(KILLS)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["killed"] == KILLS
    judge = load_judge(folder, device="cpu")
    for shape in ("jsonl", "parquet"):
        counts = run(judge, source, tmp_path / shape, format=shape, where="id != 7")
        assert counts["scored"] + counts["rejected"] == 1199
        expected = contents(tmp_path / shape)
        outputs = sorted((tmp_path / "killed").glob(f"{shape}-*"))
        assert outputs
        for output in outputs:
            assert contents(output) == expected


HELD_BY_THE_KILLED = """
import os, signal
from inspector_pipeline.progress import Progress, Tally
bar = Progress("shard 0/1", Tally(1, [1]))
bar.begin(1, 1)
if os.fork() == 0:
    bar.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
bar.passed(1)
"""


def test_a_process_that_is_killed_while_it_writes_its_bar_leaves_no_other_waiting(tmp_path):
    done = run_fresh(HELD_BY_THE_KILLED, env=os.environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
