"""Engines that run the judge on many workers give what a single process gives, also where a worker is killed."""

import json
import os
import pickle
import subprocess
import sys
from copy import deepcopy
from decimal import Decimal

import dill
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.logging import logger
from support.jobs import ADDED, made_rows, parts, rejects, run, write_lines
from support.models import aspect, feature
from support.paths import SUPPORT
from support.results import alike

from inspector_pipeline import load_judge
from inspector_pipeline.batches import WINDOW_ROWS
from inspector_pipeline.engines.batch_scorer import InspectorBatchScorer
from inspector_pipeline.engines.datatrove import InspectorAnnotator, InspectorFilter, InspectorReader
from inspector_pipeline.engines.ray import main as score_on_ray
from inspector_pipeline.errors import SettingsError

WITHIN = 400  # seconds
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_USAGE_STATS_ENABLED": "0"}
ENVIRONMENT["RAY_raylet_start_wait_time_s"] = "120"  # as long as a busy machine may need


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(1)]), aspect("b", [feature(1, "last")])], max_length=96)


@pytest.fixture
def judge(folder):
    return load_judge(folder, device="cpu")


def test_a_batch_gets_the_job_s_columns(judge, tmp_path):
    rows = made_rows(WINDOW_ROWS + 30)
    rows[5]["prediction"] = None
    run(judge, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out")
    expected = parts(tmp_path / "out")
    scorer = InspectorBatchScorer(judge)
    table = scorer(pa.Table.from_pylist(rows))
    found = table.to_pylist()
    assert "expects a string for 'prediction', but got NoneType" in found[5].pop("score_error")
    assert [{key: value for key, value in row.items() if key != "score_error"} for row in found if row["a"]] == expected
    assert found[5]["a"] is None and table.schema.field("a").type == pa.int64()
    batch = {name: np.array([row[name] for row in rows], object) for name in rows[0]}
    columns = scorer(batch)
    assert columns["total_score"] == table["total_score"].to_pylist() and columns["id"] is batch["id"]


def test_a_batch_with_other_names(judge):
    batch = {"q": ["2 + 2?"], "prediction": ["4"], "a": [1]}
    scorer = InspectorBatchScorer(judge, columns={"question": "q"}, prefix="judge_")
    expected = judge({"question": "2 + 2?", "prediction": "4"})
    assert scorer(batch)["judge_a"] == [expected["scores"]["a"]]
    with pytest.raises(SettingsError, match="lacks 'question'"):
        InspectorBatchScorer(judge)(batch)
    with pytest.raises(SettingsError, match="expects question or prediction before the =, but got 'answer'"):
        InspectorBatchScorer(judge, columns={"answer": "q"})
    with pytest.raises(SettingsError, match="has 'a'"):
        InspectorBatchScorer(judge, columns={"question": "q"})(batch)


def test_datatrove_gives_what_one_process_gives_though_workers_are_killed(folder, judge, tmp_path):
    rows = [*made_rows(WINDOW_ROWS * 4 + 9), {"question": "q"}]
    source = write_lines(tmp_path / "in.jsonl", rows)
    script, mark, out = SUPPORT / "trove_job.py", tmp_path / "mark", tmp_path / "trove"
    mark.touch()
    command = [sys.executable, str(script), str(folder), source, str(out), str(mark)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, errors="replace", timeout=WITHIN)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stderr.split("-- again --")
    assert "task 1 was ended by SIGKILL (out of memory, mostly) for the 3. time. Each one's log" in first
    assert "Task 1 was ended by SIGKILL" in second and mark.read_bytes() == b"...."
    between = json.loads((out / "between.json").read_text())
    assert between["kills"] == 3 and between["done"] == ["00000", "00002"]
    assert (out / "kept" / "00000.jsonl").stat().st_mtime_ns == between["written"]
    statistics = json.loads((out / "log" / "stats.json").read_text())
    assert [step["name"] for step in statistics][0].endswith("Inspector")

    documents = [json.loads(line) for path in out.glob("*/*.jsonl") for line in path.read_text().splitlines()]
    found = {int(one["id"]): one for one in documents}
    assert len(found) == len(documents) == len(rows)
    run(judge, source, tmp_path / "plain")
    for row in parts(tmp_path / "plain"):
        document = found.pop(row["id"])
        expected = {key: value for key, value in row.items() if key != "prediction"}
        assert document["text"] == row["prediction"]
        assert {key: document["metadata"][key] for key in expected} == expected
        assert ("filter_reason" in document["metadata"]) == (row["a"] < 2)
    (refused,) = rejects(tmp_path / "plain")
    (left,) = found.values()
    assert left["metadata"]["score_error"] == refused["reason"] and left["metadata"]["filter_reason"] == "no_score"


def test_datatrove_s_executors_for_clusters_carry_the_steps_to_their_nodes(folder, judge, tmp_path):
    rows = [*made_rows(20), {"question": "q"}]
    source = write_lines(tmp_path / "in.jsonl", rows)
    run(judge, source, tmp_path / "plain")

    def steps(name):
        kept, dropped = (JsonlWriter(str(tmp_path / name / kind), compression=None) for kind in ("kept", "dropped"))
        annotator = InspectorAnnotator(str(folder), device="cpu")
        return [InspectorReader(source), annotator, InspectorFilter("a", 2, dropped), kept]

    log = str(tmp_path / "log")
    array = SlurmPipelineExecutor(steps("slurm"), 1, "01:00:00", "gpu", logging_dir=log)
    sent = {"slurm": dill.loads(dill.dumps(deepcopy(array), fmode=dill.CONTENTS_FMODE))}  # as it goes into a job's file
    sent["ray"] = pickle.loads(pickle.dumps(RayPipelineExecutor(steps("ray"), tasks=1, logging_dir=log)))
    for name, executor in sent.items():
        LocalPipelineExecutor(executor.pipeline, logging_dir=str(tmp_path / name / "log")).run()
        lines = [line for path in tmp_path.glob(f"{name}/*/00000.jsonl") for line in path.read_text().splitlines()]
        found = {int(one["id"]): one["metadata"] for one in map(json.loads, lines)}
        assert sorted(found) == list(range(21)) and "'prediction'" in found.pop(20)["score_error"]
        for row in parts(tmp_path / "plain"):
            assert {key: found[row["id"]][key] for key in ADDED} == {key: row[key] for key in ADDED}


def test_ray_gives_what_one_process_gives_though_an_actor_is_killed(folder, judge, tmp_path):
    n = WINDOW_ROWS * 2 + 9
    rows = [{"q" if name == "question" else name: value for name, value in row.items()} for row in made_rows(n)]
    rows[300]["prediction"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=150)
    script, mark, output = SUPPORT / "ray_job.py", tmp_path / "mark", tmp_path / "out"
    options = ["--column", "question=q", "--prefix", "judge_", "--judge", str(folder), "--device", "cpu"]
    command = [sys.executable, str(script), str(tmp_path / "in.parquet"), str(output), str(mark), *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=WITHIN)
    refusal = f"on_ray: --output expects a new folder, but {output} exists. Choose another, or delete it."
    assert done.returncode == 1 and refusal in done.stderr, done.stderr[-3000:]
    assert mark.exists()  # so an actor was killed
    run(judge, tmp_path / "in.parquet", tmp_path / "plain", columns={"question": "q"}, prefix="judge_")
    # Once, though the command was given twice; what Ray runs again after a kill may come later than its place.
    found = sorted(pq.read_table(output).to_pylist(), key=lambda row: row["id"])
    assert [row["id"] for row in found] == list(range(n))
    errors = [row.pop("judge_score_error") for row in found]
    assert errors.pop(300) == rejects(tmp_path / "plain")[0]["reason"] and found.pop(300)["judge_a"] is None
    assert errors == [None] * (n - 1) and alike(found, parts(tmp_path / "plain"))


def trove(tmp_path, source, folder, **settings):
    steps = [
        InspectorReader(source),
        InspectorAnnotator(str(folder), device="cpu", **settings),
        JsonlWriter(str(tmp_path / "kept"), compression=None),
    ]
    return LocalPipelineExecutor(steps, logging_dir=str(tmp_path / "log"))


def test_datatrove_s_reader_names_the_files_that_it_does_not_read(tmp_path):
    write_lines(tmp_path / "in.jsonl", made_rows(3))
    (tmp_path / "notes\x1b.txt").write_text("mine")
    told = []
    number = logger.add(told.append, format="{message}")
    try:
        for rank in range(2):  # the first task speaks for all
            list(InspectorReader(str(tmp_path)).run(rank=rank, world_size=2))
    finally:
        logger.remove(number)
    (line,) = told
    assert "files that were not read" in line and r"notes\x1b.txt" in line


def test_a_folder_of_which_ray_would_read_a_part_is_refused(tmp_path):
    for name in ("a.csv", "b.csv.gz", "_SUCCESS", "c.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=f"alone, but holds {tmp_path}/c.jsonl too. Name the files"):
        score_on_ray([str(tmp_path), "--output", f"{tmp_path}/out", "--kind", "csv"])


def test_a_row_that_cannot_be_scored_is_written_with_its_reason(folder, tmp_path):
    rows = [*made_rows(1), {"question": "q", "prediction": "p", "id": 2**70}, {"question": "q", "prediction": "\ud83d"}]
    rows += [{"question": "\udc80"}, *made_rows(1)]
    trove(tmp_path, write_lines(tmp_path / "in.jsonl", rows), folder).run()
    lines = (tmp_path / "kept" / "00000.jsonl").read_text().splitlines()
    found = [json.loads(line)["metadata"] for line in lines]
    assert [row["score_error"] is None for row in found] == [True, False, False, False, True]
    assert found[1]["id"] == str(2**70) and found[0]["total_score"] == found[4]["total_score"]


def test_values_that_no_json_holds_are_written_as_text(folder, tmp_path):
    odd = {
        "price": pa.array([Decimal("1.50")]),
        "raw": pa.array([[b"\xff\x00"]]),
        "when": pa.array([10**18 + 1], pa.timestamp("ns")),
        "took": pa.array([1], pa.duration("s")),
        "pairs": pa.array([[("k", Decimal("2"))]], pa.map_(pa.string(), pa.decimal128(3))),
    }
    pq.write_table(pa.table({"question": ["q"], "prediction": ["p"], **odd}), tmp_path / "in.parquet")
    trove(tmp_path, str(tmp_path / "in.parquet"), folder).run()
    found = json.loads((tmp_path / "kept" / "00000.jsonl").read_text())["metadata"]
    assert found["score_error"] is None and found["a"] is not None
    assert found["price"] == "1.50" and found["raw"] == ["/wA="] and found["took"] == "0:00:01"
    assert found["when"].startswith("2001-09-09") and found["pairs"] == [["k", "2"]]


@pytest.mark.parametrize("name", ["a", "total_score", "expected_a", "place", "score_error"])
def test_a_row_s_own_columns_are_not_written_over(folder, tmp_path, name):
    source = write_lines(tmp_path / "in.jsonl", [{**made_rows(1)[0], name: "mine"}])
    with pytest.raises(SettingsError, match=f"has '{name}'"):
        trove(tmp_path, source, folder).run()
