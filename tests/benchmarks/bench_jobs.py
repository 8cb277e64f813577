"""Stream many short pairs through a big job, and report its speed and memory; a benchmark, no part of the tests.

    PYTHONPATH=.:tests python tests/benchmarks/bench_jobs.py 100000  # a tiny random judge
    PYTHONPATH=.:tests python tests/benchmarks/bench_jobs.py 10000 --judge embedded  # or a folder or Hub id
    PYTHONPATH=.:tests python tests/benchmarks/bench_jobs.py --scale 20 --judge embedded  # cores, lengths, workers

The pairs have --tokens tokens on average, as the judge reads them. Printed is JSON: the rows that were scored, pairs
and tokens a second of the whole job, with its two passes over the input and the writing of Parquet, and the process's
resident memory in MB when a tenth, a half and all of the rows were done, with the largest so far beside it. Memory that
does not grow with the rows is what is meant by streaming. On a busy machine give --threads 1: threads wait for each
other at every operation, and a tiny judge has thousands of them.

With --scale it measures something else: pairs a second of pairs of 64 to 2,048 tokens, and of eight responses to each
question, scored by one thread, by one process of all cores (--threads), and by as many forked workers of one thread
each; each so many pairs as one thread does in about so many seconds. `workers_gain`, the last over the one before, is
what `jobs.workers.WORKERS_GAIN` should hold: its geometric mean over lengths. It takes about 20 times these seconds,
and wants an idle machine.
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import geometric_mean

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
LENGTHS = (64, 128, 256, 512, 1024, 2048)  # tokens
SHARED = 256  # tokens of a question that eight responses answer
BEST_OF = 8
FIRST = 8  # pairs that tell how many one thread does in the seconds


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
    """Notes tokens and memory as a job goes, window by window."""

    memory = []
    tokens = 0

    def begin(self, pairs, tokens):
        super().begin(pairs, tokens)
        Watched.memory.append(memory_mb())
        Watched.tokens += tokens


def pairs_of(judge, tokens, count):
    """Make unrelated pairs of about so many tokens each, that share nothing but the template."""
    short, long = tokens_of(judge, 1), tokens_of(judge, 101)
    words, chance = max(1, round((tokens - short) * 100 / (long - short))), random.Random(tokens)
    return [made_pair(chance, number, words) for number in range(count)]


def best_of(judge, count):
    """Make pairs of which eight each answer one question."""
    asked = pairs_of(judge, SHARED, -(-count // BEST_OF))
    chance = random.Random(0)
    pairs = [
        {"question": one["prediction"], "prediction": " ".join(chance.choices(WORDS, k=64))}
        for one in asked
        for _ in range(BEST_OF)
    ]
    return pairs[:count]


def timed(judge, pairs, threads):
    """Return the seconds in which one process scores pairs."""
    torch.set_num_threads(threads)
    judge(pairs[:1])  # makes its reader, outside of what is measured
    started = time.perf_counter()
    judge(pairs)
    return time.perf_counter() - started


def timed_apart(judge, pairs, workers):
    """Return the seconds in which forked workers of one thread each score every n-th pair."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=timed, args=(judge, pairs[number::workers], 1), daemon=True) for number in range(workers)
    ]
    started = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def scale(judge, seconds, cores):
    """Measure one thread, one process of all cores, and workers; returns rows of a table."""
    kinds = {str(length): partial(pairs_of, judge, length) for length in LENGTHS}
    kinds[f"best of {BEST_OF}"] = partial(best_of, judge)
    found = []
    for name, make in kinds.items():
        count = max(FIRST * cores, round(FIRST * seconds / timed(judge, make(FIRST), 1)))
        pairs = make(count)
        one, together, apart = timed(judge, pairs, 1), timed(judge, pairs, cores), timed_apart(judge, pairs, cores)
        tokens = sum(len(own.input_ids) for pair in pairs for own in judge.encode(pair).values())
        row = {
            "pairs": count,
            "tokens_per_pair": round(tokens / count, 1),
            "one_thread": round(count / one, 3),
            "one_process": round(count / together, 3),
            "workers": round(count / apart, 3),
            "tokens_per_second": [round(tokens / one), round(tokens / together), round(tokens / apart)],
            "workers_gain": round(together / apart, 3),
        }
        sys.stderr.write(f"{name}: {row}\n")
        found.append({"kind": name, **row})
    return found


def show_scale(args):
    cores = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        judge = load_judge(judge_folder(args.judge, Path(name)), device="cpu")
        found = scale(judge, args.scale, cores)
    gain = round(geometric_mean(row["workers_gain"] for row in found), 3)
    table = {"judge": args.judge, "dtype": str(judge.model.dtype), "cores": cores, "workers_gain": gain, "kinds": found}
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=10_000, help="how many pairs (10000)")
    parser.add_argument("--judge", default="tiny", help="tiny (random, made here), embedded, or a folder or Hub id")
    parser.add_argument("--tokens", type=int, default=64, help="of a pair, on average (64)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--workers", type=int, default=1, help="processes that score parts (1)")
    parser.add_argument("--scale", type=float, metavar="S", help="measure cores, lengths and workers, S seconds each")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.scale:
        show_scale(args)
        return
    score.Progress = Watched
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = load_judge(judge_folder(args.judge, folder), device="cpu")
        write_pairs(folder / "in.jsonl", args.rows, judge, args.tokens)
        started = time.monotonic()
        job = ScoreJob(str(folder / "in.jsonl"), str(folder / "out"), format="parquet", workers=args.workers)
        counts = score_job(job, judge)
        seconds = time.monotonic() - started
    if args.workers > 1:  # whose passes are theirs
        counts["children_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
        Watched.memory.append(memory_mb())
    at = [Watched.memory[max(0, int(len(Watched.memory) * share) - 1)] for share in SHARES]
    found = {
        "judge": args.judge,
        "dtype": str(judge.model.dtype),
        "threads": torch.get_num_threads(),
        **counts,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(args.rows / seconds, 1),
        "workers": args.workers,
        "tokens_per_second": round(Watched.tokens / seconds) or None,
        "tokens_per_pair": round(Watched.tokens / args.rows, 1) or None,
        "memory_mb_at_10_50_100_percent": [now for now, _ in at],
        "largest_memory_mb_at_10_50_100_percent": [largest for _, largest in at],
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
