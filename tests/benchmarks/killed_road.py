"""Run a file of steps from an empty folder, kill it at random moments, and compare with a run that was not killed.

    python tests/benchmarks/killed_road.py work/killed --kills 2 -- --steps training/configs/lager_road.yaml \
        --variables.input vicuna_eval.json --variables.backbone ... --variables.revision ...

A check by hand, no part of the tests. The words behind -- are those of `python -m training make_judge`, but for
--variables.work. A first run into work/killed/whole is timed; a second into work/killed/killed gets SIGKILL at --kills
random moments of that time, and then runs to its end. Every file of the two folders is compared: JSON and JSON lines
within 1e-3 and but for what holds seconds, tables and tensors alike; pictures, manifests and classifiers (which hold
the seconds of their search, and whose numbers are in the judge that is made of them) are only asked to be there.
Prints JSON with the seconds, the moments of the kills, the most memory, and what differs.
"""

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TIMED = ("seconds", "seconds_of_all_folds", "seconds_per_pair", "machine", "threads", "versions", "outputs", "inputs")
SKIPPED = (".png", ".md", ".log", ".lock", ".pkl", ".skops")
OF_A_RUN = ("manifest", "cost", "stats")  # in the names of files that say what a run took, and how
TOLERANCE = 1e-3


def start(words, work):
    """Start the steps in a process of its own."""
    command = [sys.executable, "-m", "training", "make_judge", *words, "--variables.work", str(work)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(words, work):
    """Run to the end and return the seconds."""
    began = time.monotonic()
    assert start(words, work).wait() == 0, f"it failed; look into {work}"
    return time.monotonic() - began


def kill(words, work, seconds):
    """Kill a run after so many seconds and say whether it was not at its end."""
    process = start(words, work)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def alike(one, other):
    """Compare what was read of two files, numbers within a tolerance, but for what is timed."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = one.keys() | other.keys()
        return all(name in TIMED or alike(one.get(name), other.get(name)) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE or one != one and other != other
    return one == other


def read(path):
    """Read a file as far as it is compared."""
    if path.suffix == ".safetensors":
        return {name: tensor for name, tensor in load_file(path).items()}
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        return [json.loads(line) for line in (text.split("\n") if path.suffix == ".jsonl" else [text]) if line]
    return path.read_bytes()


def same(one, other):
    """Compare two files."""
    first, second = read(one), read(other)
    if one.suffix == ".safetensors":
        return first.keys() == second.keys() and all(np.allclose(first[n], second[n], atol=TOLERANCE) for n in first)
    return alike(first, second)


def main():
    """Run, kill, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    mark = sys.argv.index("--")
    args, words = parser.parse_args(sys.argv[1:mark]), sys.argv[mark + 1 :]
    whole, killed = args.work / "whole", args.work / "killed"
    args.work.mkdir(parents=True)
    seconds, chance = run(words, whole), random.Random(args.seed)
    moments = [round(chance.uniform(0.15, 0.7) * seconds, 1) for _ in range(args.kills)]
    hit = [kill(words, killed, moment) for moment in moments]
    rest = run(words, killed)
    names = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (whole, killed)]
    kept = [name for name in names[0] & names[1] if name.suffix not in SKIPPED]
    asked = sorted(name for name in kept if not any(word in name.name for word in OF_A_RUN))
    differing = [str(name) for name in asked if not same(whole / name, killed / name)]
    told = {"seconds": round(seconds, 1), "killed_after": moments, "killed": hit, "rest": round(rest, 1)}
    told |= {"files": len(names[0]), "missing": sorted(map(str, names[0] ^ names[1])), "compared": len(asked)}
    told |= {"differ": differing, "most_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    assert all(hit) and not differing and not told["missing"]


if __name__ == "__main__":
    main()
