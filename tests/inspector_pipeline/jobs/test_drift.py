"""Rows beside those of a judge's fit: like ones are no drift, others are, and a judge that says nothing is silent."""

import json
import random

import pytest
from inspector_cli.main import main as cli
from inspector_training.evaluation.fitted_on import fitted_on
from inspector_training.evaluation.metrics import Predictions
from inspector_training.probing.table import Labels
from support.made_up import make_pairs
from support.models import aspect, feature

from inspector_pipeline.jobs.drift import SHARES, Drift, drift_told

FIT = {
    "rows": 500,
    "characters": {"question": [20, 40, 60, 80, 100], "prediction": [100, 200, 300, 400, 500]},
    "levels": {"a": {"1": 0.5, "2": 0.3, "5": 0.2}},
}


def evidence(folder, **parts):
    path = folder / "results.json"
    path.write_text(json.dumps({"fitted_on": FIT, "unfamiliar": {"unfamiliar": 0.01}, **parts}))
    return path


def rows(n, seed=0, *, response=(50, 550), level=(1, 1, 1, 1, 1, 2, 2, 2, 5, 5), unfamiliar=0.01):
    rng = random.Random(seed)
    for _ in range(n):
        texts = {"question": "q" * rng.randint(10, 110), "prediction": f" {'x' * rng.randint(*response)}\n"}
        yield {**texts, "a": rng.choice(level), "unfamiliar": rng.random() < unfamiliar}


def compared(tmp_path, found):
    drift = Drift.of(evidence(tmp_path))
    for row in found:
        drift.add(row)
    return drift.report()


def test_rows_like_those_of_the_fit_are_none(tmp_path):
    report = compared(tmp_path, rows(3000))
    assert drift_told(report) is None and report["rows"] == 3000
    assert list(report["characters"]["prediction"]["shares"].values()) == pytest.approx(SHARES, abs=0.06)
    assert report["levels"]["a"]["distance"] < 0.05 and 280 < report["characters"]["prediction"]["median"] < 320
    assert sum(drift_told(compared(tmp_path, rows(8, seed))) is not None for seed in range(100)) <= 5


def test_each_way_of_being_another_is_told(tmp_path):
    told = drift_told(compared(tmp_path, rows(40, unfamiliar=0.6)))
    assert "these rows are not what the judge was fitted on:" in told and "(1 % of its fit's)" in told
    assert "responses of" not in told and "scores" not in told
    told = drift_told(compared(tmp_path, rows(40, response=(900, 1500))))
    assert "responses of 1," in told and "characters in the middle (300)" in told and "unfamiliar" not in told
    assert "other scores of a" in drift_told(compared(tmp_path, rows(40, level=(5,))))


def test_a_judge_that_says_nothing_of_its_fit_compares_nothing(tmp_path):
    assert Drift.of(None) is None
    (tmp_path / "results.json").write_text("{}")
    assert Drift.of(tmp_path / "results.json") is None
    assert Drift.of(evidence(tmp_path, calibration={"aspects": {"a": {}}})).columns == ["prediction", "question"]


def test_what_a_fit_was_like_is_measured_on_labelled_rows_alone():
    pairs = make_pairs(40, auxiliary=5)
    labels = Labels.of(pairs, ())
    predictions = Predictions.blank(1, len(labels.score))
    predictions.score[0] = labels.score
    found = fitted_on(pairs, labels, predictions)
    own = [pair for pair in pairs if pair.scores and not pair.auxiliary]
    assert found["rows"] == len(own) and sum(found["levels"]["logic"].values()) == pytest.approx(1, abs=1e-3)
    assert found["levels"]["correctness"].keys() <= {"0", "1"}
    lengths = sorted(len(pair.prediction) for pair in own)
    low, *_, high = found["characters"]["prediction"]
    assert lengths[0] <= low < high <= lengths[-1]


@pytest.mark.parametrize("kind", ["file", "jsonl", "parquet"])
def test_scoring_ends_with_a_line_and_a_job_keeps_the_figures(make_judge, tmp_path, capsys, kind):
    folder = make_judge([aspect("a", [feature(1)])])
    evidence(folder)
    source = tmp_path / "in.jsonl"
    own = [{"question": f"What is {i}?", "answer": "a " * 400} for i in range(24)]
    source.write_text("".join(json.dumps(row) + "\n" for row in own))
    if kind == "file":
        source.write_text(source.read_text().replace("answer", "prediction"))
        options = ["--output", str(tmp_path / "out.jsonl"), "--format", "none", "--top-percent", "0.5"]
    else:
        options = ["--output", f"{tmp_path}/out/", "--column", "prediction=answer", "--output-format", kind]
    assert cli(["score", str(source), "--judge", str(folder), *options]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "not what the judge was fitted on:" in told
    assert "responses of 799 characters in the middle (300)" in told
    if kind != "file":
        report = json.loads((tmp_path / "out" / "_summary.json").read_text())["drift"]
        assert report["rows"] == 24 and report["characters"]["prediction"]["far"]
        assert report["characters"]["question"]["median"] == 11 and report["levels"]["a"]["shares"].keys() >= {"1"}
