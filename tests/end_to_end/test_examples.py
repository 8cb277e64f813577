import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from inspector_cli.main import main as cli
from inspector_training.runs.command import main
from inspector_training.stages.rank_responses import Config as RankConfig
from inspector_training.stages.rank_responses import run as rank_responses
from support.models import PAIRS, aspect, feature
from support.paths import ROOT
from support.results import alike, mark_pairs
from transformers import AutoModelForCausalLM

from inspector_pipeline import load_judge
from inspector_pipeline.errors import DataFileError

HARNESS = ROOT / "training" / "examples" / "harness"


@pytest.fixture(scope="session")
def family():
    return "llama"  # comparisons know nothing of the backbone


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(3, "last", "rms_normed")]), aspect("b", [feature(2)], counts=False)])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path, folder):
    """Two files of which the second is better on every question, by the judge's own scores."""
    judge = load_judge(folder, device="cpu")
    candidates = [f"{text} {end}" for text in ("yes", "no", "It is 4.", "I do not know") for end in ("", ".", "!", "?")]
    rows = []
    for i in range(8):
        pairs = [{"question": f"What is {i}?", "prediction": text} for text in candidates]
        ranked = sorted(pairs, key=lambda pair: judge(pair)["expected"]["a"])
        rows.append(({"id": i, **ranked[0]}, {"id": i, **ranked[-1]}))
    worse, better = zip(*rows, strict=True)
    return write(tmp_path / "worse.jsonl", worse), write(tmp_path / "better.jsonl", better)


def compare(folder, first, second):
    return rank_responses(RankConfig(first, second, str(folder), judge_error=0.0))


def test_the_better_file_wins_and_equal_ones_do_not(folder, files):
    worse, better = files
    report = compare(folder, worse, better)
    assert report["winner"] == "second" and report["n_prompts"] == 8 and report["n_left_out"] == 0
    (pair,) = report["pairs"]
    assert report["rank_by"] == "expected_total" and pair["better"] == "second" and pair["wins"] == 1.0
    assert 0 < pair["low"] <= pair["difference"] <= pair["high"] and 2 < pair["prompts_needed"] <= 8
    means = {name: one["mean"] for name, one in report["systems"].items()}
    assert pair["difference"] == pytest.approx(means["second"] - means["first"], abs=2e-4)
    assert report["aspects"]["a"]["pairs"][0]["difference"] == pair["difference"]  # b does not count
    assert report["aspects"]["b"]["judge_error"] is None and report["aspects"]["b"]["pairs"][0]["better"] is None
    assert compare(folder, better, worse)["winner"] == "first" and '"p"' not in json.dumps(report)
    same = compare(folder, worse, worse)
    assert same["winner"] is None and same["pairs"][0]["difference"] == 0 and same["groups"] == [["first", "second"]]


def test_without_evidence_of_the_judges_error_nobody_is_called_better(folder, files):
    report = rank_responses(RankConfig(*files, str(folder)))
    assert report["winner"] is None and report["judge_error"] is None
    assert report["pairs"][0]["beyond_sampling"] == "second" and report["groups_by"] == "sampling alone"
    assert "Nothing says how much this judge prefers some systems" in report["notes"][0]
    between = {"sd": {"value": 50.0}, "df": 21, "n_generators": 23, "slope": {"value": 1, "low": 1, "from": "answers"}}
    results = {"aspects": {"a": {}}, "matched": {"a": {"between_generators": between}}}
    (folder / "results.json").write_text(json.dumps(results))
    report = rank_responses(RankConfig(*files, str(folder)))
    assert report["winner"] is None and report["judge_error"]["sd"] == 50
    assert report["pairs"][0]["prompts_needed"] == "never" and "judge's own error is larger" in report["notes"][0]


def test_the_winner_is_by_the_field_ranked_by_and_not_by_unfamiliar_responses(folder, files, monkeypatch):
    worse, better = files
    report = rank_responses(RankConfig(worse, better, str(folder), rank_by="expected_b", judge_error=0.0))
    (compared,) = report["pairs"]
    assert report["rank_by"] == "expected_b" and report["systems"]["first"]["unfamiliar"] is None
    assert report["winner"] == ("second" if compared["low"] > 0 else "first" if compared["high"] < 0 else None)
    mark_pairs(monkeypatch, unfamiliar="What is 0", seen="What is 1")
    report = compare(folder, worse, better)
    first, second = (report["systems"][name] for name in ("first", "second"))
    assert report["winner"] == "second" and first["unfamiliar"] == 1 == second["seen"]
    assert "Responses unlike what the judge was fitted on: 1 of first, 1 of second." in report["notes"]
    mark_pairs(monkeypatch, unfamiliar="What", seen="is")
    report = compare(folder, worse, better)
    assert report["winner"] is None and report["pairs"][0]["rests_on_flagged"]
    assert "1 comparison rests on unfamiliar responses, and neither is called better" in report["notes"][-1]
    assert "Responses to questions that it was fitted on: 8 of first, 8 of second." in report["notes"]


def test_rows_are_joined_by_id_and_repeated_ones_averaged(folder, files, tmp_path):
    worse, better = files
    rows = [json.loads(line) for line in Path(better).read_text().splitlines()]
    twice = write(tmp_path / "twice.jsonl", [*reversed(rows[:6]), *rows[:6], {**rows[7], "id": 99}])
    report = compare(folder, worse, twice)
    assert report["n_prompts"] == 6 and report["n_left_out"] == 3
    assert report["notes"][0] == "Left out, as not all systems answer: 3 prompts."
    six = [json.loads(line) for line in Path(worse).read_text().splitlines()][:6]
    expected = compare(folder, write(tmp_path / "six.jsonl", six), write(tmp_path / "best.jsonl", rows[:6]))
    assert report["pairs"][0]["difference"] == pytest.approx(expected["pairs"][0]["difference"])


def test_files_that_cannot_be_compared_are_refused(folder, files, tmp_path):
    worse, _ = files
    other = write(tmp_path / "other.jsonl", [{"id": 77, **PAIRS[0]}])
    with pytest.raises(DataFileError, match="share 0 ids"):
        compare(folder, worse, other)
    changed = write(tmp_path / "changed.jsonl", [{"id": i, **PAIRS[0]} for i in range(8)])
    with pytest.raises(DataFileError, match="one question for an id, but differ on id 0"):
        compare(folder, worse, changed)


def test_the_command_prints_json_and_a_table(folder, files, capsys):
    worse, better = files
    main(["rank_responses", "--first", worse, "--second", better, "--judge", str(folder), "--n-resamples", "99"])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["order"] == ["second", "first"]
    assert "8 prompts" in captured.err and "expected_total" in captured.err


def test_files_that_were_scored_are_ranked_as_they_are_and_by_a_column_too(folder, files, tmp_path, capsys):
    scored = []
    for place in files:
        scored.append(str(tmp_path / f"scored-{Path(place).name}"))
        assert cli(["score", place, "--judge", str(folder), "--output", scored[-1], "--format", "none"]) == 0
    assert cli(["rank", *scored, "--judge-error", "0", "--output", str(tmp_path / "ranked.json")]) == 0
    report = json.loads((tmp_path / "ranked.json").read_text())
    fresh = compare(folder, *files)
    assert report["winner"] == "scored-better" and alike(
        report["pairs"][0]["difference"], fresh["pairs"][0]["difference"], 1e-3
    )
    rows = [
        {**json.loads(line), "system": name, "right": int(name == "better") if i < 10 else None}
        for name in ("worse", "better")
        for i, line in enumerate((tmp_path / f"scored-{name}.jsonl").read_text().splitlines() * 2)
    ]
    for i, row in enumerate(rows):  # twice as many prompts, so that ten of each have a label
        row |= {"id": None, "question": f"{row['question']} {i % 16}"}
    together = write(tmp_path / "together.jsonl", rows)
    capsys.readouterr()
    assert cli(["rank", together, "--system", "system", "--label", "right"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["labelled"] and report["n_prompts"] == 16 and report["systems"]["better"]["labelled"] == 10
    assert report["winner"] == "better" and report["systems"]["better"]["mean"] == 1
    assert "take the judge's error between systems out" in " ".join(captured.err.split())
    assert cli(["rank", together, "--label", "right"]) == 1
    assert "A ranking expects 2 to 100 systems, but got 1" in capsys.readouterr().err


def test_the_harness_runs_a_task_whose_metric_is_a_judge(folder, full_model, tokenizer, tmp_path, monkeypatch):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(full_model.config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("INSPECTOR_JUDGE", str(folder))
    questions = write(tmp_path / "questions.jsonl", [*PAIRS, PAIRS[0]])
    manager = TaskManager(include_path=str(HARNESS), include_defaults=False, metadata={"questions": questions})
    report = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tmp_path / "model"), "max_length": 256},
        tasks=["inspector_judged"],
        task_manager=manager,
        gen_kwargs={"max_gen_toks": 8},
        batch_size=3,
        device="cpu",
        log_samples=True,
    )
    metrics = report["results"]["inspector_judged"]
    samples = report["samples"]["inspector_judged"]
    assert [sample["doc"]["question"] for sample in samples] == [pair["question"] for pair in PAIRS]
    answered = [(s["doc"]["question"], s["resps"][0][0]) for s in samples if s["resps"][0][0].strip()]
    assert answered
    results = load_judge(folder, device="cpu")([{"question": q, "prediction": a} for q, a in answered])
    expected = sum(result["expected"]["a"] for result in results) / len(results)
    assert metrics["expected_total,none"] == pytest.approx(expected, abs=1e-4)
    assert metrics["blank,none"] == pytest.approx(1 - len(answered) / 3)


def expected_mean(folder, pairs):
    """The mean total of a judge over the pairs with an answer."""
    results = load_judge(folder, device="cpu")([pair for pair in pairs if pair["prediction"].strip()])
    return sum(result["expected"]["a"] for result in results) / len(results)


def test_inspect_ai_scores_by_a_judge(folder, tmp_path):
    """Beside `test`'s own extras: pip install inspect_ai."""
    inspect_ai = pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    from inspect_ai.model import ModelOutput, get_model

    spec = importlib.util.spec_from_file_location("inspect_judged", HARNESS / "inspect_judged.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pairs = [*PAIRS, {"question": "And then?", "prediction": " "}]
    model = get_model(
        "mockllm/model", custom_outputs=[ModelOutput.from_content("m", pair["prediction"]) for pair in pairs]
    )
    task = module.judged(str(folder), write(tmp_path / "questions.jsonl", [*pairs, PAIRS[0]]))
    (log,) = inspect_ai.eval(task, model, log_dir=str(tmp_path / "logs"), display="none", max_samples=1)
    assert log.status == "success", log.error
    assert len(log.samples) == 4
    (scored,) = log.results.scores
    assert scored.metrics["mean"].value == pytest.approx(expected_mean(folder, pairs), abs=1e-4)
    assert (scored.scored_samples, scored.unscored_samples) == (3, 1)


def test_lighteval_scores_by_a_judge(folder, full_model, tokenizer, tmp_path):
    """Beside `test`'s own extras: pip install lighteval."""
    pytest.importorskip("lighteval", reason="lighteval is not installed")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(full_model.config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "questions").mkdir()
    write(tmp_path / "questions" / "train.jsonl", [{"question": pair["question"]} for pair in PAIRS])
    command = [sys.executable, "-m", "lighteval", "accelerate", f"model_name={tmp_path / 'model'},batch_size=3"]
    command += ["inspector_judged", "--custom-tasks", str(HARNESS / "lighteval_judged.py")]
    command += ["--output-dir", str(tmp_path / "out"), "--save-details"]
    named = {"INSPECTOR_JUDGE": str(folder), "INSPECTOR_QUESTIONS": str(tmp_path / "questions"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env={**os.environ, **named}, check=True)
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["inspector_judged:0"]
    (details,) = (tmp_path / "out").rglob("details_*.parquet")
    from datasets import Dataset

    rows = Dataset.from_parquet(str(details))
    pairs = [{"question": r["doc"]["query"], "prediction": r["model_response"]["text"][0]} for r in rows]
    assert [pair["question"] for pair in pairs] == [pair["question"] for pair in PAIRS]
    assert found["expected_total"] == pytest.approx(expected_mean(folder, pairs), abs=1e-3)
