"""Stream many short pairs through a big job, and report its speed and memory; a benchmark, no part of the tests.

    PYTHONPATH=.:tests python tests/benchmarks/bench_jobs.py 100000  # a tiny random judge
    PYTHONPATH=.:tests python tests/benchmarks/bench_jobs.py 10000 --judge embedded  # or a folder or Hub id

The pairs have --tokens tokens on average, as the judge reads them. Printed is JSON: the rows that were scored, pairs
and tokens a second of the whole job, with its two passes over the input and the writing of Parquet, and the process's
resident memory in MB when a tenth, a half and all of the rows were done, with the largest so far beside it. Memory that
does not grow with the rows is what is meant by streaming. On a busy machine give --threads 1: threads wait for each
other at every operation, and a tiny judge has thousands of them.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from support.models import aspect, chat_reading, config_of, feature, random_probes, tiny_config
from support.paths import TOKENIZER
from transformers import AutoModel, AutoTokenizer

from inspector_pipeline import InspectorModel, load_judge
from inspector_pipeline.jobs import score
from inspector_pipeline.jobs.score import ScoreJob, score_job

WORDS = ["yes", "no", "four", "five", "because", "so", "the", "answer", "is", "not", "of", "in", "a"]
SHARES = (0.1, 0.5, 1.0)
SAMPLE = 200


def judge_folder(name, folder):
    """Return what `load_judge` takes: a tiny random judge, made in the folder; None for the embedded one."""
    if name != "tiny":
        return None if name == "embedded" else name
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("llama")).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    config = config_of(folder / "backbone", [aspect("a", [feature(1)])], {"chat": chat_reading(tokenizer)})
    random_probes(InspectorModel(config)).save_pretrained(folder / "judge", fused=False)
    return folder / "judge"


def made_pair(chance, number, words):
    return {"question": f"What is {number}?", "prediction": " ".join(chance.choices(WORDS, k=words))}


def tokens_of(judge, words):
    """Return the mean number of tokens of pairs with so many words in the response."""
    chance = random.Random(1)
    pairs = [made_pair(chance, number, words) for number in range(SAMPLE)]
    return sum(max(len(one.input_ids) for one in judge.encode(pair).values()) for pair in pairs) / SAMPLE


def write_pairs(path, rows, judge, tokens):
    """Write pairs of 1 to 2 n - 1 words in the response, so that they have about so many tokens on average."""
    short, long = tokens_of(judge, 1), tokens_of(judge, 101)
    most = max(1, round(2 * (tokens - short) * 100 / (long - short)) + 1)
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"id": number, **made_pair(chance, number, chance.randint(1, most))}
            file.write(json.dumps(row) + "\n")


def memory_mb():
    """Return the process's resident memory and its largest so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    values = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(round(int(values[key].split()[0]) / 1024) for key in ("VmRSS", "VmHWM"))


class Watched(score.Progress):
    """Notes tokens and memory as a job goes."""

    memory = []
    tokens = 0

    def add(self, rows, tokens):
        super().add(rows, tokens)
        Watched.memory.append(memory_mb())
        Watched.tokens += tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, help="how many pairs")
    parser.add_argument("--judge", default="tiny", help="tiny (random, made here), embedded, or a folder or Hub id")
    parser.add_argument("--tokens", type=int, default=64, help="of a pair, on average (64)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    score.Progress = Watched
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = load_judge(judge_folder(args.judge, folder), device="cpu")
        write_pairs(folder / "in.jsonl", args.rows, judge, args.tokens)
        started = time.monotonic()
        counts = score_job(ScoreJob(str(folder / "in.jsonl"), str(folder / "out"), format="parquet"), judge)
        seconds = time.monotonic() - started
    at = [Watched.memory[max(0, int(len(Watched.memory) * share) - 1)] for share in SHARES]
    found = {
        "judge": args.judge,
        "dtype": str(judge.model.dtype),
        "threads": torch.get_num_threads(),
        **counts,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(args.rows / seconds, 1),
        "tokens_per_second": round(Watched.tokens / seconds),
        "tokens_per_pair": round(Watched.tokens / args.rows, 1),
        "memory_mb_at_10_50_100_percent": [now for now, _ in at],
        "largest_memory_mb_at_10_50_100_percent": [largest for _, largest in at],
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
