"""Stages that make their output in one go lose and double nothing when SIGKILL meets them at random moments.

A killed run is the stage's own command in a process of its own. It is forked where all imports are done, so that the
kill falls into the work, not into the start; the last run of one stage is a plain `python -m training STAGE`.
test_collect.py, test_label.py and test_extract.py kill the stages that keep what they have.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from inspector_training.rows.records import read_records, response_key
from inspector_training.runs.command import main as command
from inspector_training.runs.manifest import checked_sha256, manifest_path
from inspector_training.stages.make_judge import Config as MakeJudgeConfig
from inspector_training.stages.make_judge import run as make_judge
from support.chain import write_chain
from support.fault_server import start
from support.paths import ROOT

from inspector_pipeline.errors import DataFileError

ROWS = "rows.jsonl"
LONG = 6000  # characters that make a row heavy, so that its file takes a while to write
TIMES = 4  # kills at moments between start and end
TIMES_IN_CHAIN = 2  # of each of its stages
WRITES = 2  # kills that leave a half-written file
TRIES = 10  # at such a kill: on a busy machine it comes too late now and then
LONGEST = 600  # seconds; a run that takes longer hangs
CHAIN = ("audit", "extract", "fit", "evaluate", "export")
MEASURED = "stats.json"  # holds seconds


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """Have the fork server import everything, so that no run is measured with it."""
    start(time.sleep, 0).join(LONGEST)


def finish(stage, config):
    """Run to the end in a process of its own, and say how many seconds it took."""
    began = time.monotonic()
    process = start(stage, config)
    process.join(LONGEST)
    assert process.exitcode == 0
    return time.monotonic() - began


def kill(reached, stage, config):
    """Kill a run when something is reached, and say whether it was not at its end before."""
    process = start(stage, config)
    while not reached() and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    return process.exitcode == -9


def random_kills(seconds, rng, stage, config, times=TIMES):
    """Kill runs at moments between start and end, and yield of each whether it was not at its end before."""
    for k in range(times):
        share = (k + rng.random()) / times
        killed = kill(after(share * seconds), stage, config)
        yield killed
        if not killed:  # a run is faster than the one that was measured
            seconds *= share


def after(seconds):
    """Reached so long after now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def writing(folder, size):
    """Reached when a file that was not there before, or was another one, has this size."""
    before = {path: path.stat().st_size for path in folder.iterdir()}

    def reached():
        try:
            found = {path: path.stat().st_size for path in folder.iterdir()}
        except FileNotFoundError:  # it was renamed since it was listed
            return True
        return any(now >= size and before.get(path) != now for path, now in found.items())

    return reached


def replaced(path):
    """Reached when a file is another one."""
    before = path.stat().st_ino
    return lambda: path.stat().st_ino != before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def restore(folder, old):
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in old.items():
        (folder / name).write_bytes(data)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sum_of(i):
    return f"Question {i}: what is {i} + {i % 7}?"


def make_data(folder, n):
    """Rated replies, three to a question; every hundredth row lacks its reply."""
    rows = [
        {"text": sum_of(i // 3), "reply": f"Reply {i}. {'so ' * (LONG // 3)}" if i % 100 else None, "stars": 1 + i % 5}
        for i in range(n)
    ]
    columns = ["--columns.question", "text", "--columns.prediction", "reply", "--columns.label.quality", "stars"]
    return ["--path", str(write(folder / f"rated-{n}.jsonl", rows)), *columns]


def check_data(rows, n):
    used = [i for i in range(n) if i % 100]
    assert [(row["question"], row["prediction"].split(".")[0], row["scores"]["quality"]) for row in rows] == [
        (sum_of(i // 3), f"Reply {i}", 1 + i % 5) for i in used
    ]
    assert len({response_key(row) for row in rows}) == len(used)


def make_corrupt(folder, n):
    """Gold solutions of sums, each with a long source, which its damaged copies keep."""
    rows = [
        {
            "id": i,
            "question": f"Lena has {i + 3} pens and buys {i + 5} more, then gives {i} away. How many has she?",
            "answer": f"Lena has {i + 3} + {i + 5} = <<{i + 3}+{i + 5}={2 * i + 8}>>{2 * i + 8} pens after she bought "
            f"some.\nThen she has {2 * i + 8} - {i} = <<{2 * i + 8}-{i}={i + 8}>>{i + 8} pens.\n#### {i + 8}",
            "source": "y" * 3 * LONG,
        }
        for i in range(n)
    ]
    return ["--questions", str(write(folder / f"gold-{n}.jsonl", rows)), "--per-question", "3"]


def check_corrupt(rows, n):
    assert sorted((row["id"], row["sample"]) for row in rows) == [(i, sample) for i in range(n) for sample in range(3)]
    assert all((row["sample"] == 0) == (row["generator"] == "corrupt:clean:0") for row in rows)
    assert len({(row["id"], row["prediction"]) for row in rows}) == len(rows)


def refused_or_whole(folder, old, whole):
    """Whether a kill left the old output, new rows that no stage will read yet, or all of the new output."""
    left = contents(folder)
    shown = {name: data for name, data in left.items() if name[0] != "."}
    assert all(name.endswith(".tmp") for name in left.keys() - shown.keys())
    manifest = manifest_path(folder / ROWS).name
    if shown[manifest] == whole[manifest]:
        restore(folder, old)  # so that the next kill meets work again
        return shown == whole
    if shown[ROWS] == old[ROWS]:
        checked_sha256(folder / ROWS)
        return shown[manifest] == old[manifest]
    with pytest.raises(DataFileError, match="It was changed after it was made"):
        checked_sha256(folder / ROWS)
    return (shown[ROWS], shown[manifest]) == (whole[ROWS], old[manifest])


def half_written(folder, whole):
    return any(path.stat().st_size < len(whole[ROWS]) for path in folder.glob(f".{ROWS}.[0-9]*.tmp"))


STAGES = {
    "data": (make_data, check_data, 3000),
    "corrupt": (make_corrupt, check_corrupt, 250),
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment_a_stage_leaves_nothing_that_passes_for_its_output(tmp_path, stage):
    make, check, n = STAGES[stage]
    inputs, first, second = (tmp_path / name for name in ("inputs", "whole", "killed"))
    for folder in (inputs, first, second):
        folder.mkdir()
    new = make(inputs, n)
    finish(command, [stage, *make(inputs, 10), "--output", str(second / ROWS)])  # what is there from an older run
    seconds = finish(command, [stage, *new, "--output", str(first / ROWS)])
    old, whole = contents(second), contents(first)
    check(read_records(first / ROWS), n)
    rng = random.Random(f"731 {stage}")
    arguments = [stage, *new, "--output", str(second / ROWS)]
    kills, halves, tries = 0, 0, 0
    for killed in random_kills(seconds, rng, command, arguments):
        kills += killed
        assert refused_or_whole(second, old, whole)
    while halves < WRITES and tries < TRIES:
        kill(writing(second, rng.uniform(0, 0.5) * len(whole[ROWS])), command, arguments)
        halves += half_written(second, whole)
        tries += 1
        assert refused_or_whole(second, old, whole)
    assert kills and halves
    kill(replaced(second / ROWS), command, arguments)
    assert refused_or_whole(second, old, whole)
    if stage == "data":
        subprocess.run([sys.executable, "-m", "training", *arguments], cwd=ROOT, check=True, timeout=LONGEST)
    else:
        finish(command, arguments)
    assert contents(second) == whole


def write_small_chain(folder, backbone):
    """A chain for one aspect: an evaluation's time goes to the baselines of each."""
    chain = write_chain(folder, backbone)
    rows = read_records(folder / ROWS)
    write(folder / ROWS, [{**row, "scores": {"logic": row["scores"]["logic"]}} for row in rows])
    return chain


def only(chain, stage):
    """A chain of one of its stages."""
    steps = [step for step in yaml.safe_load(Path(chain.steps).read_text()) if step["stage"] == stage]
    path = Path(chain.steps).with_name(f"{stage}.yaml")
    path.write_text(yaml.safe_dump(steps))
    return MakeJudgeConfig(str(path), chain.variables)


def made(folder):
    """Contents of all that a chain made."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml" and path.name != MEASURED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def judge_files(folder):
    """Config and weights of a judge; None where there is no config, and so no judge."""
    config, weights = folder / "judge" / "config.json", folder / "judge" / "model.safetensors"
    return (config.read_bytes(), weights.read_bytes()) if config.is_file() else None


@pytest.mark.parametrize("family", ["qwen3"])
def test_a_chain_that_is_killed_in_every_stage_makes_the_same_judge(tmp_path, backbone_dir):
    whole, killed = (write_small_chain(tmp_path / name, backbone_dir) for name in ("whole", "killed"))
    (tmp_path / "killed" / "judge").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "killed" / "judge" / name).write_text("an older judge's")
    old = judge_files(tmp_path / "killed")
    rng = random.Random(732)
    kills = dict.fromkeys(CHAIN, 0)
    for stage in CHAIN:
        seconds = finish(make_judge, only(whole, stage))
        for was_killed in random_kills(seconds, rng, make_judge, only(killed, stage), TIMES_IN_CHAIN):
            kills[stage] += was_killed
            assert judge_files(tmp_path / "killed") in (old, None, judge_files(tmp_path / "whole"))
        finish(make_judge, only(killed, stage))
    assert all(kills.values()), kills
    assert made(tmp_path / "killed") == made(tmp_path / "whole")
    # An export that ends between its files, here at one that cannot be replaced, leaves no judge.
    (tmp_path / "killed" / "judge" / "results.json").unlink()
    (tmp_path / "killed" / "judge" / "results.json" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="results.json"):
        make_judge(only(killed, "export"))
    assert judge_files(tmp_path / "killed") is None
    shutil.rmtree(tmp_path / "killed" / "judge" / "results.json")
    make_judge(only(killed, "export"))
    assert made(tmp_path / "killed") == made(tmp_path / "whole")
