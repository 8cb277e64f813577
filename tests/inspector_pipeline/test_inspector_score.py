import doctest
import importlib.util
import json
from pathlib import Path

import pytest
from support.models import PAIRS, aspect, feature
from support.results import mark_pairs

import inspector_pipeline
from inspector_pipeline import PairError, load_judge
from inspector_pipeline.api.mean_scores import mean_scores

METRIC = Path(inspector_pipeline.__file__).parent / "inspector_score"
QUESTIONS = [pair["question"] for pair in PAIRS]
PREDICTIONS = [pair["prediction"] for pair in PAIRS]


@pytest.fixture(scope="session")
def family():
    return "llama"  # means know nothing of the backbone


@pytest.fixture
def folder(make_judge):
    # One aspect has the name of a key of the report.
    return make_judge([aspect("n", [feature(3, "last", "rms_normed")]), aspect("b", [feature(2)], counts=False)])


@pytest.fixture
def metric(tmp_path):
    import evaluate

    return evaluate.load(str(METRIC), cache_dir=str(tmp_path / "cache"))


def test_means_are_those_of_the_pairs(folder):
    report = mean_scores(PREDICTIONS, QUESTIONS, folder, return_pairs=True)
    results = load_judge(folder, device="cpu")(PAIRS)
    assert report["n"] == 3 and report["truncated"] == 0
    for kind in ("scores", "expected"):
        for name in ("n", "b"):
            values = [result[kind][name] for result in results]
            entry = report[kind][name]
            assert entry["mean"] == pytest.approx(sum(values) / 3, abs=1e-4)
            assert min(values) - 1e-4 <= entry["low"] <= entry["mean"] <= entry["high"] <= max(values) + 1e-4
    assert report["total_score"] == report["scores"]["n"]
    assert [pair["scores"] for pair in report["pairs"]] == [result["scores"] for result in results]
    json.dumps(report["scores"])


def test_unfamiliar_and_seen_pairs_are_reported_apart(make_judge, monkeypatch, caplog):
    aspects = [aspect("n", [feature(3)]), aspect("b", [feature(2)], counts=False)]
    judge = load_judge(make_judge(aspects, rank_by="expected_b"), device="cpu")
    plain = mean_scores(PREDICTIONS, QUESTIONS, judge)
    assert plain["unfamiliar"] is None is plain["seen"] and plain["ranked"]["without_seen"] is None
    assert plain["ranked"]["field"] == "expected_b" and plain["ranked"]["mean"] == plain["expected"]["b"]["mean"]
    assert plain["expected_total"] == plain["expected"]["n"]
    mark_pairs(monkeypatch, unfamiliar="Lena", seen="?")
    report = mean_scores(PREDICTIONS, QUESTIONS, judge, return_pairs=True, rank_by="expected_total")
    assert (report["unfamiliar"], report["seen"]) == (1, 3) and "1 of 3 pairs are unfamiliar" in caplog.text
    kept = [pair["expected"]["n"] for pair in report["pairs"] if not pair["unfamiliar"]]
    assert report["ranked"]["without_unfamiliar"]["mean"] == pytest.approx(sum(kept) / 2)
    assert report["ranked"]["without_unfamiliar"]["n"] == 2 and report["ranked"]["without_seen"] is None


def test_the_bootstrap_is_that_of_scipy(folder):
    import numpy as np
    from scipy import stats

    from inspector_pipeline.api.mean_scores import _intervals

    values = np.random.default_rng(5).normal(3, 1, (60, 2))
    ours = _intervals(values, 4000, seed=0)
    for column, entry in zip(values.T, ours, strict=True):
        theirs = stats.bootstrap((column,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
        assert entry["low"] == pytest.approx(theirs.low, abs=0.02)
        assert entry["high"] == pytest.approx(theirs.high, abs=0.02)
    assert ours == _intervals(values, 4000, seed=0) != _intervals(values, 4000, seed=1)


def test_what_has_no_score_is_an_error(folder):
    with pytest.raises(PairError, match="Pair 1 expects text for 'prediction', but got a blank string"):
        mean_scores(["a", " "], ["q", "q"], folder)
    with pytest.raises(PairError, match="a question for each prediction, but got 2 and 1"):
        mean_scores(["a"], ["q", "q"], folder)
    with pytest.raises(PairError, match="at least one pair"):
        mean_scores([], [], folder)


def test_the_metric_gives_what_the_function_gives(metric, folder):
    expected = mean_scores(PREDICTIONS, QUESTIONS, folder, 2, return_pairs=True)
    arguments = {"judge": str(folder), "batch_size": 2, "return_pairs": True}
    assert metric.compute(predictions=PREDICTIONS, questions=QUESTIONS, **arguments) == expected
    metric.add_batch(predictions=PREDICTIONS[:2], questions=QUESTIONS[:2])
    metric.add(predictions=PREDICTIONS[2], questions=QUESTIONS[2])
    assert metric.compute(**arguments) == expected
    loaded = load_judge(folder)
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho.", "tool_calls": []}]
    turns = [QUESTIONS[0], [*turns, {"role": "user", "content": QUESTIONS[1]}], '[{"role": "user", "content": "x"}]']
    expected = mean_scores(PREDICTIONS, turns, loaded, return_pairs=True)
    assert metric.compute(predictions=PREDICTIONS, questions=turns, judge=loaded, return_pairs=True) == expected


def test_blank_predictions_are_named_by_the_metric(metric, folder):
    with pytest.raises(PairError, match="Pair 2 expects text for 'prediction'"):
        metric.compute(predictions=["a", "b", ""], questions=["q"] * 3, judge=str(folder))
    with pytest.raises(ValueError, match="Module inputs don't match the expected format"):  # evaluate's own
        metric.compute(predictions=[None], questions=["q"], judge=str(folder))


def test_the_card_is_a_space_that_evaluate_lists():
    import yaml

    _, front, _ = (METRIC / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["sdk"] == "gradio" and card["app_file"] == "app.py" and {"evaluate", "metric"} <= set(card["tags"])
    assert (METRIC / card["app_file"]).is_file()


def load_app():
    spec = importlib.util.spec_from_file_location("inspector_space", METRIC / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_spaces_page_scores(folder, monkeypatch):
    app = load_app()
    monkeypatch.setattr(app, "load_judge", lambda: load_judge(folder, device="cpu"))
    result = app.score(**{"question": "q", "response": "a"})
    assert json.loads(json.dumps(result)) == result and set(result["scores"]) == {"n", "b"}
    with pytest.raises(PairError, match="blank"):
        app.score("q", "")


@pytest.mark.slow
def test_the_card_runs_as_it_stands():
    failed, tried = doctest.testfile(str(METRIC / "README.md"), module_relative=False)
    assert tried >= 10 and failed == 0
