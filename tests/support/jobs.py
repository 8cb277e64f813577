"""Runs of jobs, and what they leave."""

import json
import random

from inspector_pipeline.batches import WINDOW_ROWS
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.jobs.score import ScoreJob, score_job

ADDED = ["a", "b", "total_score", "expected_a", "expected_b", "expected_total", "probabilities", "truncated"]
ADDED += ["unfamiliar", "unfamiliar_reason", "seen", "rank_by"]


def made_rows(n, seed=0):
    chance = random.Random(seed)
    words = ["yes", "no", "four", "naïve", "因为", "5"]
    return [
        {"id": i, "question": f"What is {i}?", "prediction": " ".join(chance.choices(words, k=chance.randint(1, 12)))}
        for i in range(n)
    ]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def parts(folder):
    return [row for path in sorted(folder.glob("part-*")) for row in read_rows(str(path))]


def rejects(folder):
    return [row for path in sorted(folder.glob("_rejects/*")) for row in read_rows(str(path))]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(judge, source, output, **settings):
    return score_job(ScoreJob(str(source), str(output), part_rows=WINDOW_ROWS, **settings), judge)


def cheapened(judge):
    """Let a judge score by the tokens of a pair, without its backbone; everything else of it stays."""
    aspects = judge.model.config.parsed_aspects

    def forward(inputs):
        numbers = [sum(sum(encoded.input_ids) for encoded in pair.values()) for pair in inputs["pairs"]]
        return {
            "distance": [None] * len(numbers),
            "scores": [[one.classes[number % len(one.classes)] for one in aspects] for number in numbers],
            "finite": [True] * len(numbers),
            "expected": [[number / 7] * len(aspects) for number in numbers],
            "probabilities": [[[0.0] * len(one.classes)] * len(numbers) for one in aspects],
        }

    judge.forward = forward
    return judge
