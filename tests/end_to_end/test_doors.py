"""Every door gives the same result, under the same names, and every row says what its judge ranks by."""

import json

import pytest
from inspector_cli.main import main
from support.models import PAIRS, aspect, familiar, feature, fill_known
from support.results import alike
from support.server import ask, serving

from inspector_pipeline import evaluate_samples, load_judge
from inspector_pipeline.engines.batch_scorer import InspectorBatchScorer
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.handler import EndpointHandler
from inspector_pipeline.results import FlatColumns

READ = [feature(2), feature(1, "last")]


@pytest.fixture(scope="session")
def family():
    return "llama"  # doors know nothing of the backbone


@pytest.fixture
def folder(make_judge):
    aspects = [aspect("a", READ), aspect("b", [feature(1)], counts=False)]
    known = familiar(READ, text={"characters": [3, None]}, words=("prime",)) | {"n_seen_questions": 1}
    return fill_known(make_judge(aspects, rank_by="expected_b", **known), ("prime",), (PAIRS[0]["question"],))


def test_every_door_gives_one_result(folder, tmp_path):
    judge = load_judge(folder, device="cpu")
    results = judge(PAIRS)
    assert [(one["unfamiliar"], one["seen"]) for one in results] == [(False, True), (True, False), (False, False)]
    as_json = json.loads(json.dumps(results))
    assert alike(EndpointHandler(str(folder))({"inputs": PAIRS}), results)
    with serving(judge) as (port, _):
        assert alike(ask(port, "/score", {"pairs": PAIRS})[1]["results"], as_json)
    columns = FlatColumns(judge.model.config)
    rows = [{**pair, **columns.values(result)} for pair, result in zip(PAIRS, results, strict=True)]
    assert list(rows[0])[2:] == [
        *("a", "b", "total_score", "expected_a", "expected_b", "expected_total", "probabilities", "truncated"),
        *("unfamiliar", "unfamiliar_reason", "seen", "rank_by"),
    ]
    assert {row["rank_by"] for row in rows} == {"expected_b"}
    assert alike(evaluate_samples(PAIRS, judge), rows)
    (tmp_path / "in.json").write_text(json.dumps(PAIRS))
    command = ["score", str(tmp_path / "in.json"), "--judge", str(folder), "--device", "cpu", "--format", "none"]
    for name in ("out.json", "out.jsonl", "out.parquet"):
        assert main([*command, "--output", str(tmp_path / name)]) == 0
        assert alike(read_rows(str(tmp_path / name)), rows), name
    assert main([*command[:-2], "--output", f"{tmp_path}/folder/"]) == 0
    assert alike(read_rows(str(tmp_path / "folder" / "part-000000.jsonl")), rows)
    batch = {key: [pair[key] for pair in PAIRS] for key in PAIRS[0]}
    scored = InspectorBatchScorer(judge)(batch)
    assert alike([{name: scored[name][i] for name in rows[0]} for i in range(3)], rows)
    filtered = tmp_path / "best.json"
    assert main(["filter", f"{tmp_path}/folder", "--best", "2", "--drop-unfamiliar", "--output", str(filtered)]) == 0
    best = sorted((row for row in rows if not row["unfamiliar"]), key=lambda row: -row["expected_b"])
    assert alike(read_rows(str(filtered)), best)
