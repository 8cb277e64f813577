"""Stream many short pairs through a job with a tiny random judge, and report speed and memory; no part of the tests.

`python tests/bench_jobs.py 100000` writes, as JSON, the pairs a second and the process's largest memory (MB) after a
tenth, a half and all of the parts. Memory that does not grow with the parts is what is meant by streaming.
"""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from conftest import TOKENIZER, aspect, chat_reading, config_of, feature, random_probes, tiny_config
from transformers import AutoModel, AutoTokenizer

from inspector_pipeline import InspectorModel, load_judge
from inspector_pipeline.jobs import score
from inspector_pipeline.jobs.score import ScoreJob, score_job

WORDS = ["yes", "no", "four", "five", "because", "so", "the", "answer", "is", "not", "of", "in", "a"]


def tiny_judge(folder):
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("llama")).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    config = config_of(folder / "backbone", [aspect("a", [feature(1)])], {"chat": chat_reading(tokenizer)})
    random_probes(InspectorModel(config)).save_pretrained(folder / "judge", fused=False)
    return load_judge(folder / "judge", device="cpu")


def write_pairs(path, rows):
    chance = random.Random(0)
    with path.open("w") as file:
        for number in range(rows):
            prediction = " ".join(chance.choices(WORDS, k=chance.randint(3, 20)))
            file.write(json.dumps({"id": number, "question": f"What is {number}?", "prediction": prediction}) + "\n")


class Peaks(score.Progress):
    """Notes the largest memory as the job goes."""

    seen = []

    def add(self, rows, tokens):
        super().add(rows, tokens)
        self.seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(rows):
    score.Progress = Peaks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = tiny_judge(folder)
        write_pairs(folder / "in.jsonl", rows)
        started = time.monotonic()
        counts = score_job(ScoreJob(str(folder / "in.jsonl"), str(folder / "out"), format="parquet"), judge)
        seconds = time.monotonic() - started
    peaks = [round(Peaks.seen[int(len(Peaks.seen) * share) - 1]) for share in (0.1, 0.5, 1.0)]
    found = {**counts, "pairs_per_second": round(rows / seconds), "peak_mb_at_10_50_100_percent": peaks}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
