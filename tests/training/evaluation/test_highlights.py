"""Figures of highlights: by hand, and of a simulation whose truth is known."""

import json

import numpy as np
import pytest
import torch
from inspector_training.evaluation.highlights import chance_figures, evidence, marked, solution_figures
from inspector_training.score_tokens.surprisal import Surprisal
from inspector_training.stages import explain_check
from support.models import PAIRS, aspect, feature
from transformers import AutoConfig, AutoModelForCausalLM

from inspector_pipeline import load_judge
from inspector_pipeline.errors import DataFileError, SettingsError

STEPS = [
    {"id": i, "question": "How many?", "steps": ["One.", f"Two is {i}.", "So 3."], "first_mistake": 1} for i in range(6)
]


def test_figures_by_hand():
    steps = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    suspicion = np.array([0, 1, 9, 2, 3, 3, 3, 3.0])
    found = solution_figures(suspicion, steps, 1)
    assert found == {"first": 1.0, "tenth": 1.0, "step": 1.0, "auroc": pytest.approx((6 + 2) / 12)}
    tied = solution_figures(np.array([1, 0, 1, 0, 0, 0, 0, 0.0]), steps, 1)
    assert tied["first"] == 0.5  # of two that tie, one is in it
    assert chance_figures(steps, 1) == {"first": 0.25, "tenth": 0.25, "step": pytest.approx(1 / 3), "auroc": 0.5}
    assert np.isnan(solution_figures(suspicion, np.ones(8, int), 1)["first"])


def test_a_method_that_knows_is_told_from_one_that_does_not():
    generator = np.random.default_rng(0)
    rows = [{"id": i, "question": "?", "steps": list("abcdef"), "first_mistake": i % 6} for i in range(200)]
    solutions = []
    for one in marked(rows, "rows"):
        steps = np.repeat(np.arange(6), 5)
        noise = generator.normal(size=(2, 30))
        solutions.append((one, {"share": noise[0] + (steps == one.wrong), "surprisal": noise[1]}, steps))
    found = evidence(solutions, 300, 0)
    assert found["n"] == 200
    auroc = found["figures"]["auroc"]
    assert auroc["chance"] == 0.5 and auroc["surprisal"]["low"] < 0.5 < auroc["surprisal"]["high"]
    assert auroc["share"]["value"] == pytest.approx(0.7602, abs=0.03)  # Phi(1 / sqrt(2))
    assert auroc["share"]["low"] > 0.7 and auroc["share"]["gain_over_surprisal"]["low"] > 0.15
    assert found["figures"]["first"]["chance"] == pytest.approx(1 / 6, abs=1e-3)


def test_marks_are_those_of_the_rows_or_of_the_changed_line():
    (one,) = marked([{"id": 1, "question": "?", "steps": ["Ab", "cde"], "first_mistake": 1}], "rows")
    assert one.response == "Ab\ncde" and [one.response[a:b] for a, b in one.steps] == ["Ab", "cde"]
    assert one.steps_of([("A", 0), ("b", 0), ("\nc", 0), ("de", 0)]).tolist() == [0, 0, 1, 1]
    texts = {"worked": "a = 1\nb = 2\nc", "step": "a = 1\nb = 7\nc"}
    planted = [{"id": "x", "question": "?", "form": form, "prediction": text} for form, text in texts.items()]
    assert [(each.wrong, each.response) for each in marked(planted, "rows")] == [(1, texts["step"])]
    with pytest.raises(DataFileError, match="expects rows with steps and first_mistake"):
        marked([{"id": 1, "question": "?"}, {"id": 2, "question": "?", "steps": ["a"], "first_mistake": None}], "rows")
    with pytest.raises(DataFileError, match="row 0 expects first_mistake below 2"):
        marked([{"id": 1, "question": "?", "steps": ["a", "b"], "first_mistake": 2}], "rows")


@pytest.fixture
def language_model(backbone_dir, tokenizer, tmp_path):
    """The tiny backbone with an LM head of its own."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(backbone_dir)).eval()
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return model


@pytest.fixture
def judge_of_a_language_model(make_judge, language_model, tmp_path):
    aspects = [aspect("ok", [feature(2, "response_mean")], "ordinal"), aspect("low", [feature(1, "min")])]
    return make_judge(aspects, backbone_id=str(tmp_path / "lm"))


def test_surprisal_is_the_models_own_loss(judge_of_a_language_model, language_model):
    judge = load_judge(judge_of_a_language_model)
    surprisal = Surprisal(judge)
    pair = PAIRS[0]
    own = surprisal.of_tokens(pair["question"], pair["prediction"])
    ids = torch.tensor([judge.encode(pair)["chat"].input_ids])
    assert len(own) == ids.shape[1] and own[0] == 0
    with torch.inference_mode():
        loss = language_model(ids, labels=ids).loss
    assert sum(own) / (len(own) - 1) == pytest.approx(float(loss), abs=1e-4)
    pieces = judge(pair, explain=True)["explanation"]["ok"]["response"]
    start, end = judge.encode(pair)["chat"].response
    assert surprisal(pair["question"], pair["prediction"], pieces).sum() == pytest.approx(sum(own[start:end]), abs=1e-4)


def test_the_stage_writes_figures_and_a_table(judge_of_a_language_model, tmp_path):
    rows = tmp_path / "steps.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in STEPS))
    config = explain_check.Config((rows,), tmp_path / "out", str(judge_of_a_language_model), "ok", bootstraps=20)
    part = explain_check.run(config)
    assert (
        part["n"] == 6
        and part["aspect"] == "ok"
        and set(part["figures"]["first"])
        == {
            "chance",
            "share",
            "late",
            "surprisal",
        }
    )
    assert json.loads((tmp_path / "out" / "results.json").read_text())["highlights"] == part
    assert "| first: the most suspicious piece" in (tmp_path / "out" / "highlights.md").read_text()
    assert explain_check.run(config) == {}
    with pytest.raises(SettingsError, match="states pooled by min"):
        explain_check.run(explain_check.Config((rows,), tmp_path / "b", str(judge_of_a_language_model), "low"))
