"""Figures of highlights: by hand, and of a simulation whose truth is known."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from inspector_training.evaluation import rivals
from inspector_training.evaluation.highlights import (
    chance_figures,
    evidence,
    marked,
    solution_figures,
    sums,
    usual_place,
    usual_place_told,
)
from inspector_training.evaluation.rivals import Rivals
from inspector_training.rows.records import question_id
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


def test_where_the_wrong_step_usually_stands():
    rows = [
        {"id": i, "question": "?", "steps": ["a"] * n, "first_mistake": wrong}
        for i, (n, wrong) in enumerate([(3, 1), (4, 2), (5, 3), (5, 1)])
    ]
    found = usual_place(marked(rows, "rows"))
    assert found == {"place": -2, "share": 0.75}
    assert "most often step 2 from the end: always naming it hits 0.750." in usual_place_told(found)
    assert "most often step 1: always naming it hits 0.500." in usual_place_told({"place": 0, "share": 0.5})
    assert "most often step 1 from the end:" in usual_place_told({"place": -1, "share": 0.5})
    assert sums([[], []]) == {"pairs": 2, "values": 0, "largest_error": None, "largest_value": None}
    (unnamed,) = marked([{"question": "Q?", "steps": ["a", "b"], "first_mistake": 1}], "rows")
    assert unnamed.name == question_id("Q?")


def test_marks_are_those_of_the_rows_or_of_the_changed_line():
    (one,) = marked([{"id": 1, "question": "?", "steps": ["Ab", "cde"], "first_mistake": 1}], "rows")
    assert one.response == "Ab\ncde" and [one.response[a:b] for a, b in one.steps] == ["Ab", "cde"]
    assert one.steps_of([("A", 0), ("b", 0), ("\nc", 0), ("de", 0)]).tolist() == [0, 0, 1, 1]
    texts = {"worked": "1. a = 1. So b = 2.\nb = 3", "step": "1. a = 1. So b = 7.\nb = 3"}
    planted = [{"id": "x", "question": "?", "form": form, "prediction": text} for form, text in texts.items()]
    (one,) = marked(planted, "rows")
    assert [one.response[a:b] for a, b in one.steps] == ["1. a = 1.", "So b = 7.", "b = 3"] and one.wrong == 1
    for right, wrong, steps in (
        ("\nA 1.\nB 2.", "\nA 1.\nB 3.", ["A 1.", "B 3."]),
        ("A.\n1", "A.\n2", ["A.", "2"]),
        ("A.\n1 b", "A.\n2 b", ["A.", "2 b"]),
    ):
        pair = zip(("worked", "step"), (right, wrong), strict=True)
        (one,) = marked([{"id": "x", "question": "?", "form": form, "prediction": text} for form, text in pair], "rows")
        assert [one.response[a:b] for a, b in one.steps] == steps and one.wrong == 1
    gold = {"question": "How many?", "answer": "It is 2+3=<<2+3=5>>5.\nSo 5*2=<<5*2=10>>10.\n#### 10"}
    (one,) = marked([gold, {"question": "?", "answer": "Nobody knows.\n#### 1"}], "rows")
    lines = one.response.split("\n")
    assert len(lines) == 3 and lines[2].startswith("The answer is ")
    assert [line for line in lines[: one.wrong]] == ["It is 2+3=5.", "So 5*2=10."][: one.wrong]
    assert "2+3=5." not in lines[0] or "5*2=10." not in lines[1]
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


def test_rivals_are_the_models_own_loss_and_its_own_attention(judge_of_a_language_model, language_model):
    judge = load_judge(judge_of_a_language_model)
    own_rivals = Rivals(judge)
    pair = PAIRS[0]
    own = own_rivals.of_tokens(pair["question"], pair["prediction"])
    ids = torch.tensor([judge.encode(pair)["chat"].input_ids])
    assert len(own["surprisal"]) == ids.shape[1] and own["surprisal"][0] == 0
    assert {type(one) for values in own.values() for one in values} == {float}
    language_model.set_attn_implementation("eager")
    with torch.inference_mode():
        told = language_model(ids, labels=ids, output_attentions=True)
    assert sum(own["surprisal"]) / (ids.shape[1] - 1) == pytest.approx(float(told.loss), abs=1e-4)
    expected = torch.stack([layer[0, :, -1].mean(dim=0) for layer in told.attentions]).mean(dim=0)
    assert own["attention"] == pytest.approx(expected.tolist(), abs=1e-6) and sum(own["attention"]) == pytest.approx(1)
    pieces = judge(pair, explain=True)["explanation"]["ok"]["response"]
    start, end = judge.encode(pair)["chat"].response
    for name, found in own_rivals(pair["question"], pair["prediction"], pieces).items():
        assert found.sum() == pytest.approx(sum(own[name][start:end]), abs=1e-4)


def test_rivals_read_the_whole_backbone_of_the_judge_where_the_judge_is(monkeypatch):
    asked, device = [], torch.device("meta")
    monkeypatch.setattr(rivals, "load_backbone", lambda *place, **options: asked.append((place, options)) or Backbone())
    monkeypatch.setattr(
        rivals, "load_unembedding", lambda *place: (torch.zeros(5, 3, dtype=torch.float64), torch.ones(5))
    )

    class Backbone:
        def to(self, where):
            asked.append(where)
            return self

        def __call__(self, ids, **options):
            asked.append((tuple(ids.shape), ids.device, options))
            raise InterruptedError

    class Encoder:
        def __call__(self, question, response, *, keep_places=False):
            return SimpleNamespace(input_ids=[1, 2, 3], places=None)

    config = SimpleNamespace(backbone_id="b", backbone_revision="r")
    encode = SimpleNamespace(encoders={"first": Encoder(), "second": None})
    found = Rivals(SimpleNamespace(model=SimpleNamespace(config=config), encode=encode, device=device))
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    assert asked == [(("b", "r", None), options), device]
    assert (found.weight.device, found.weight.dtype, found.bias.device) == (device, torch.float32, device)
    monkeypatch.setattr(rivals, "reduced_weights", lambda *_: nullcontext({}))
    with pytest.raises(InterruptedError):
        found.of_tokens("Q?", "x")
    assert asked[2] == ((1, 3), device, {"use_cache": False})
    monkeypatch.setattr(Rivals, "of_tokens", lambda *_: {"surprisal": [1.0, 2.0, 3.0]})
    read = found("Q?", "abc", [("ab", 0.0), ("c", 0.0)])["surprisal"]
    assert read.tolist() == [0.0, 0.0] and read.dtype == np.float64
    parts = [("response", 0, 0), ("response", 0, 1), ("question", 0, 9), ("response", 1, 2), ("response", 2, 3)]
    of_tokens = [SimpleNamespace(part=part, start=start, end=end) for part, start, end in parts]
    found.encoder = lambda *_, **asked: SimpleNamespace(places=SimpleNamespace(of_tokens=of_tokens), asked=asked)
    monkeypatch.setattr(Rivals, "of_tokens", lambda *_: {"attention": [1.0, 2.0, 4.0, 8.0, 16.0]})
    assert found("Q?", "abc", [("ab", 0.0), ("c", 0.0), ("", 0.0)])["attention"].tolist() == [10.0, 16.0, 0.0]
    weights = torch.arange(24.0, dtype=torch.float64).reshape(1, 2, 3, 4)
    assert rivals._of_last(weights).tolist() == [[14.0, 15.0, 16.0, 17.0]]
    assert rivals._of_last(weights).dtype == torch.float32


def test_the_stage_writes_figures_and_tables(judge_of_a_language_model, tmp_path):
    rows = tmp_path / "steps.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in STEPS))
    gold = {"question": "How many?", "answer": "She has 2 + 3 = <<2+3=5>>5 of them.\n#### 5"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(gold) + "\n")
    config = explain_check.Config(
        tmp_path / "out", (rows, tmp_path / "gold.jsonl"), judge=str(judge_of_a_language_model), bootstraps=20
    )
    found = explain_check.run(config)
    part = found["sets"]["steps"]
    assert part["usual_place"] == {"place": 1, "share": 1.0}
    assert part["n"] == 6 and found["aspect"] == "ok" and found["sets"]["gold"]["n"] == 1
    assert set(part["figures"]["first"]) == {"chance", "share", "late", "surprisal", "attention"}
    assert found["sums"]["values"] == 7 and found["sums"]["largest_error"] < 1e-5
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {"highlights": found}
    table = (tmp_path / "out" / "highlights.md").read_text()
    assert "The wrong step is most often step 2: always naming it hits 1.000." in table
    assert "| first: the most suspicious piece" in table and "7 decision values of 7 pairs" in table
    assert explain_check.run(config) == {}
    with pytest.raises(SettingsError, match="states pooled by min"):
        explain_check.run(replace(config, aspect="low", output=tmp_path / "b"))
    with pytest.raises(SettingsError, match="expects rows or scored, but got both"):
        explain_check.run(replace(config, scored=(rows,)))


def test_explained_rows_add_up_and_those_that_do_not_are_told(tmp_path):
    own = {
        "value": 1.0,
        "constant": 0.5,
        "question": [],
        "response": [["a", 0.25], ["b", None]],
        "template": [["c", 0.25]],
    }
    rows = [{"explanation": {"ok": own, "low": {"why_not": "min"}}}, {"explanation": {"ok": {**own, "value": -2.0}}}]
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = explain_check.run(explain_check.Config(tmp_path / "sums", scored=(path,)))
    assert found == {"sums": {"pairs": 2, "values": 2, "largest_error": 3.0, "largest_value": 2.0}}
