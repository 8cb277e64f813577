"""Send pairs through every door by every published judge at the size that it was published for; no part of the tests.

    PYTHONPATH=.:tests python tests/benchmarks/full_size.py --reference reference --output full_size.json

`reference` holds some of the six folders {gsm8k,math,gpqa}_{binary,multi}_clfs; those that are not there are made of
classifiers fitted on noise. The backbone has Qwen3-1.7B's shape and random weights, so the scores mean nothing: what
is asked is whether they are the same through pipeline, metric, command, server and Ray, and what memory that takes.
Each judge has a process of its own (and its Ray actor another), which may take its weights in float32 and --beside
more: the checkpoint is mapped while it is read. Rubrics are short here, since a pass costs by its tokens; --rubrics
takes a probing set with the published ones. What is done stands in the output and is not done again.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import evaluate
import pyarrow.parquet as pq
import ray
import torch
from inspector_training.judges.folder import judge_of_folder
from inspector_training.rows.probing_set import ASPECTS
from inspector_training.stages.publish_family import FAMILY, QWEN3_1_7B
from support.generated_classifiers import write_clfs
from support.paths import ROOT, TOKENIZER
from support.server import ask, serving
from transformers import AutoModel, AutoTokenizer, Qwen3Config, pipeline

from inspector_pipeline.engines.ray import score_dataset
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.template import PREDICTION_MARK, QUESTION_MARK, PairTemplate

METRIC = ROOT / "inspector_pipeline" / "inspector_score"
PAIRS = [
    {"question": "What is 6 x 7?", "prediction": "6 x 7 = 42. The answer is 42."},
    {"question": "Is nine a prime?", "prediction": "Yes, since it is odd."},
]
TOLERANCE = 1e-3  # of an expected score, between doors that make batches of their own
LAYER = 2048 * (2 * 2048 + 2 * 1024 + 3 * 6144)  # weights of one
GB = 1e9


def write_backbone(folder):
    """Write Qwen3-1.7B's shape with random weights, once, in bfloat16."""
    if not (folder / "tokenizer.json").is_file():  # written last
        torch.manual_seed(0)
        AutoModel.from_config(Qwen3Config(**QWEN3_1_7B), dtype=torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    return folder


def short_rubrics(path):
    """Write a reading of few tokens for each aspect."""
    texts = {name: f"{name}? {QUESTION_MARK} {PREDICTION_MARK} Score:" for name in ASPECTS}
    path.write_text(json.dumps({name: PairTemplate.from_template(text).to_dict() for name, text in texts.items()}))
    return path


def peak():
    """Return the most memory that this process and its children that ended have held, in GB."""
    return {
        name: resource.getrusage(which).ru_maxrss * 1024 / GB
        for name, which in (("process", resource.RUSAGE_SELF), ("children", resource.RUSAGE_CHILDREN))
    }


def in_this_process(judge, scratch):
    """Yield the pairs' expected scores by the doors that share one loaded judge."""
    loaded = pipeline("inspector-judge", model=str(judge), device="cpu", dtype=torch.float32)
    yield "pipeline", [result["expected"] for result in loaded(PAIRS)]
    texts = {f"{key}s": [pair[key] for pair in PAIRS] for key in PAIRS[0]}
    metric = evaluate.load(str(METRIC), cache_dir=str(scratch / "cache"))
    found = metric.compute(**texts, judge=loaded, return_pairs=True)
    yield "metric", [result["expected"] for result in found["pairs"]]
    with serving(loaded) as (port, _):
        yield "server", [one["expected"] for one in ask(port, "/score", {"pairs": PAIRS})[1]["results"]]


def in_others(clfs, judge, named, scratch):
    """Yield the same by the command, of the folder of classifiers itself, and by a Ray actor."""
    (scratch / "in.json").write_text(json.dumps(PAIRS))
    command = [sys.executable, "-m", "inspector_cli.main", "score", scratch / "in.json", "--judge", clfs, *named]
    command += ["--device", "cpu", "--dtype", "float32", "--format", "none", "--output", scratch / "out.json"]
    subprocess.run(command, check=True)
    yield "command", [expected_of(row) for row in read_rows(str(scratch / "out.json"))]
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    scored = score_dataset(ray.data.from_items(PAIRS), str(judge), device="cpu", dtype="float32")
    scored.write_parquet(str(scratch / "ray"))
    ray.shutdown()
    rows = {row["question"]: row for row in pq.read_table(scratch / "ray").to_pylist()}  # what ran again comes later
    assert len(rows) == len(PAIRS)
    yield "ray", [expected_of(rows[pair["question"]]) for pair in PAIRS]


def expected_of(row):
    """Take the aspects' expected scores out of a row of flat columns."""
    named = {name: row.get(f"expected_{name}") for name in ASPECTS}
    return {name: value for name, value in named.items() if value is not None}


def run_judge(name, args):
    """Send the pairs through every door by one judge and return what is told of it."""
    folder, work = FAMILY[name].folder, Path(args.work)
    clfs = Path(args.reference) / folder
    generated = not clfs.is_dir()
    if generated:
        clfs = work / folder
        if not clfs.is_dir():
            write_clfs(clfs, ASPECTS)
    backbone = write_backbone(work / "backbone")
    rubrics = Path(args.rubrics) if args.rubrics else short_rubrics(work / "rubrics.json")
    named = ["--backbone", backbone, "--rubrics", rubrics]
    doors, seconds, start = {}, {}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scratch, judge = Path(folder), Path(folder, "judge")
        judge_of_folder(str(clfs), str(judge), rubrics, backbone)
        for asked in (in_this_process(judge, scratch), in_others(clfs, judge, named, scratch)):
            for door, results in asked:
                doors[door], seconds[door] = results, round(time.perf_counter() - start, 1)
                start = time.perf_counter()
            gc.collect()
        depth = json.loads((judge / "config.json").read_text())["depth"]
    first = doors["pipeline"]
    apart = {door: distance(first, results) for door, results in doors.items()}
    told = {"generated": generated, "depth": depth, "aspects": len(first[0]), "seconds": seconds, "apart": apart}
    return {**told, "peak_gb": peak(), "expected": first}


def distance(first, other):
    """Return the largest difference of two doors' expected scores; they name the same aspects."""
    assert [one.keys() for one in first] == [one.keys() for one in other]
    return max(abs(one[name] - two[name]) for one, two in zip(first, other, strict=True) for name in one)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder of the published folders")
    parser.add_argument("--output", required=True, help="JSON to write, and to go on with")
    parser.add_argument("--work", default="full_size", help="folder of the backbone and of generated classifiers")
    parser.add_argument("--rubrics", help="probing set or JSON of readings (short ones)")
    parser.add_argument("--beside", type=float, default=4.5, help="GB that a judge may take beside its weights (4.5)")
    parser.add_argument("--judge", choices=FAMILY, help=argparse.SUPPRESS)
    args = parser.parse_args()
    output = Path(args.output)
    if args.judge:
        told = run_judge(args.judge, args)
        output.with_name(f"{output.name}.{args.judge}").write_text(json.dumps(told))
        return
    Path(args.work).mkdir(parents=True, exist_ok=True)
    done = json.loads(output.read_text()) if output.is_file() else {}
    for name in FAMILY.keys() - done.keys():
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--judge", name], check=True)
        one = output.with_name(f"{output.name}.{name}")
        done[name] = json.loads(one.read_text())
        one.unlink()
        output.write_text(json.dumps(done, indent=1))
    for name, told in sorted(done.items()):
        weights = 4 * (told["depth"] * LAYER + QWEN3_1_7B["vocab_size"] * QWEN3_1_7B["hidden_size"]) / GB
        worst, most = max(told["apart"].values()), max(told["peak_gb"].values())
        line = f"{name}: {told['depth']} layers, doors {worst:.1e} apart, {most:.1f} GB of {weights:.1f} of weights\n"
        sys.stdout.write(line)
        assert worst < TOLERANCE and most < weights + args.beside, name


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
