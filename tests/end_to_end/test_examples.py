import json
from pathlib import Path

import pytest
import torch
from inspector_training.runs.command import main
from inspector_training.stages.rank_responses import Config as RankConfig
from inspector_training.stages.rank_responses import run as rank_responses
from support.models import PAIRS, aspect, feature
from support.paths import ROOT
from support.results import mark_pairs
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
    return rank_responses(RankConfig(first, second, str(folder), n_resamples=999))


def test_the_better_file_wins_and_equal_ones_do_not(folder, files, tmp_path):
    worse, better = files
    report = compare(folder, worse, better)
    assert report["winner"] == "second" and report["n_questions"] == 8 and report["n_left_out"] == 0
    total = report["aspects"]["total"]
    assert total == report["aspects"]["a"]  # b does not count
    assert 0 < total["low"] <= total["difference"] <= total["high"]
    assert total["difference"] == pytest.approx(total["second"] - total["first"])
    assert total["p"] == pytest.approx(2 / 2**8)  # of all sign flips, none and all are as extreme
    assert compare(folder, better, worse)["winner"] == "first"
    same = compare(folder, worse, worse)
    assert same["winner"] is None and same["aspects"]["total"]["p"] == 1.0


def test_the_winner_is_by_the_field_ranked_by_and_not_by_unfamiliar_responses(folder, files, tmp_path, monkeypatch):
    worse, better = files
    config = RankConfig(worse, better, str(folder), n_resamples=999, rank_by="expected_b")
    report = rank_responses(config)
    compared = report["aspects"]["b"]
    assert report["rank_by"] == "expected_b" and report["unfamiliar"] is None and report["notes"] == []
    assert report["winner"] == ("second" if compared["low"] > 0 else "first" if compared["high"] < 0 else None)
    mark_pairs(monkeypatch, unfamiliar="What is 0", seen="What is 1")
    report = compare(folder, worse, better)
    assert report["winner"] == "second" and report["unfamiliar"]["first"] == 1 == report["seen"]["second"]
    assert report["unfamiliar"]["n_questions"] == 7 and report["unfamiliar"]["winner"] == "second"
    assert "1 responses of the first and 1 of the second are unlike what" in report["notes"][0]
    assert all("without them the result is the same" in note for note in report["notes"])
    mark_pairs(monkeypatch, unfamiliar="What", seen="is")
    report = compare(folder, worse, better)
    assert report["winner"] is None and report["unfamiliar"]["without"] is None
    assert "the comparison rests on them: without them fewer than two questions are left, and no" in report["notes"][0]
    assert "to questions that the judge was fitted on, and the comparison rests on them" in report["notes"][1]


def test_rows_are_joined_by_id_and_repeated_ones_averaged(folder, files, tmp_path):
    worse, better = files
    rows = [json.loads(line) for line in Path(better).read_text().splitlines()]
    twice = write(tmp_path / "twice.jsonl", [*reversed(rows[:6]), *rows[:6], {**rows[7], "id": 99}])
    report = compare(folder, worse, twice)
    assert report["n_questions"] == 6 and report["n_left_out"] == 3
    six = [json.loads(line) for line in Path(worse).read_text().splitlines()][:6]
    expected = compare(folder, write(tmp_path / "six.jsonl", six), write(tmp_path / "best.jsonl", rows[:6]))
    assert report["aspects"]["total"]["difference"] == pytest.approx(expected["aspects"]["total"]["difference"])


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
    assert json.loads(captured.out)["winner"] == "second"
    assert "8 questions" in captured.err and "total" in captured.err


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
