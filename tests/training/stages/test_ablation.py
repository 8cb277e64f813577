"""The ablation of data selection: which rows an arm gets, what is learnt from them, and what is said of the test."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from inspector_training.evaluation.metrics import resamples
from inspector_training.labelling.generate import Generated, LocalConfig
from inspector_training.rows.records import read_records
from inspector_training.runs.command import from_settings, parse
from inspector_training.stages import ablation as stage
from inspector_training.stages.ablation import Config as AblationConfig
from inspector_training.stages.ablation import run as ablation
from inspector_training.students.choose import Pool, read_gold, read_pool
from inspector_training.students.report import Outcome, accuracy, difference, grade, summarize, table
from inspector_training.students.train import StudentConfig, answer, make_trainer, student, train_student
from scipy.stats import binomtest
from support.causal import save_causal
from support.paths import ROOT

from inspector_pipeline.errors import BackboneError, DataFileError, SettingsError

CONFIGS = ROOT / "training" / "configs"
ANSWERED = {"stated": "7", "finish_reason": "stop"}
PROMPT = "{question}\nThink."
GOOD, BAD = "So the answer is 7.", "No idea, it is 3."
LOCAL = LocalConfig(dtype="float32", batch_size=4, device="cpu")
FAST = {"batch_size": 4, "accumulation": 1, "warmup_steps": 2, "validation": 0.0, "learning_rate": 2e-2, "rank": 8}
ALL_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    return str(save_causal(tmp_path_factory.mktemp("student"), "llama", tokenizer))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def scored_rows(n=30):
    """Every third row is good, and scored so."""
    return [
        {
            "question": f"How much is {i} and {i % 5}?",
            "prediction": BAD if i % 3 else GOOD,
            "total_score": i % 2 if i % 3 else 100 - i,
        }
        for i in range(n)
    ]


QUESTIONS = [
    {"id": i, "question": f"How much is {i + 500} and {i % 5}?", "answer": f"It is 7.\n#### {7 if i else 8}"}
    for i in range(6)
]


@pytest.fixture
def config(model, tmp_path):
    """Make a config with files of its own; settings of the training by name."""

    def make(rows=None, questions=None, output="out", training=None, **changes):
        settings = {
            "scored": write(tmp_path / "scored.jsonl", rows or scored_rows()),
            "questions": write(tmp_path / "questions.jsonl", questions or QUESTIONS),
            "output": str(tmp_path / output),
            "model": model,
            "share": 1 / 3,
            "prompt": PROMPT,
            "local": LOCAL,
            "max_new_tokens": 12,
            "bootstraps": 100,
        }
        trained = StudentConfig(**{**FAST, "steps": 3, **(training or {})})
        return AblationConfig(**{**settings, "training": trained, **changes})

    return make


def results_of(config):
    return json.loads((Path(config.output) / "results.json").read_text(encoding="utf-8"))


def pool_of(scores):
    return Pool([{"question": f"q{i}", "prediction": "p"} for i in range(len(scores))], np.array(scores, float), {})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0.01, 0.99), st.integers(0, 9))
def test_top_is_the_best_share_with_ties_in_input_order_and_random_as_many(scores, share, seed):
    pool = pool_of(scores)
    if math.floor(len(scores) * share) == 0:
        with pytest.raises(SettingsError, match="share expects to keep a row at least"):
            pool.choose("top", share, seed)
        return
    top, drawn = pool.choose("top", share, seed), pool.choose("random", share, seed)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[: math.floor(len(scores) * share)]
    assert top.tolist() == sorted(best)
    assert len(set(drawn.tolist())) == len(drawn) == len(top)
    assert drawn.tolist() == pool.choose("random", share, seed).tolist()
    assert pool.choose("all", share, seed).tolist() == list(range(len(scores)))


def test_random_depends_on_the_seed_alone():
    draws = {tuple(pool_of(range(50)).choose("random", 0.3, seed).tolist()) for seed in range(5)}
    assert len(draws) == 5
    assert draws == {tuple(pool_of(range(50)[::-1]).choose("random", 0.3, seed).tolist()) for seed in range(5)}


def test_ties_at_the_cut_are_told():
    pool = pool_of([1, 3, 2, 3, 2, 2])
    described = pool.described(pool.choose("top", 0.5, 0))
    assert described == {
        "rows": 3,
        "mean_score": pytest.approx(8 / 3, abs=1e-4),
        "lowest_score": 2.0,
        "at_lowest": {"kept": 1, "of": 3},
    }


def test_rows_without_a_score_or_a_response_are_left_out_and_counted(tmp_path):
    row = {"question": "q", "prediction": "p"}
    scores = [3, None, "2.5", "high", float("nan"), True, 1]
    rows = [row | {"total_score": score} for score in scores] + [row | {"prediction": " ", "total_score": 5}]
    pool = read_pool(write(tmp_path / "rows.jsonl", rows), "total_score")
    assert pool.scores.tolist() == [3, 2.5, 1]
    assert pool.left_out == {"there is no number to rank by": 4, "there is no response": 1}


def test_the_loss_covers_the_response_and_its_end_alone(model, tokenizer, tmp_path):
    rows = [{"question": "What is 2 + 2?", "prediction": "4"}, {"question": "And?", "prediction": "A longer one, 5."}]
    with student(model, LOCAL) as loaded:
        prompt_ids = {row["prediction"]: loaded.encode([{"role": "user", "content": row["question"]}]) for row in rows}
        trainer = make_trainer(loaded, rows, "{question}", StudentConfig(**FAST, steps=3), 1, tmp_path)
        (batch,) = trainer.get_train_dataloader()
    found = {}
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        own = tokenizer.decode(labels[labels != -100])
        found[own.partition("<|im_end|>")[0]] = ids[: (labels != -100).nonzero()[0, 0]].tolist()
        assert own.partition("<|im_end|>")[1:] == ("<|im_end|>", "\n")
    assert found == prompt_ids, "what comes before the response is just what the test asks with"


def test_only_adapters_are_trained_and_the_best_epoch_is_kept(model, tmp_path):
    rows = scored_rows(12)
    config = StudentConfig(**FAST | {"validation": 0.25, "modules": ALL_MAPS}, epochs=4)
    with student(model, LOCAL) as loaded:
        before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
        summary = train_student(loaded, rows, PROMPT, config, 1, tmp_path / "adapter")
        after = loaded.model.state_dict()
    plain = {name.replace(".base_layer", ""): tensor for name, tensor in after.items() if "lora_" not in name}
    assert plain.keys() == before.keys() and all((plain[name] == before[name]).all() for name in before)
    assert summary["rows"] == 9 and summary["held_out"] == 3
    assert summary["steps"] == config.n_steps(12) == 4 * 3 and summary["kept_step"] in (3, 6, 9, 12)
    assert math.isfinite(summary["validation_loss"]) and summary["train_loss"] > 0
    assert sorted(os.listdir(tmp_path / "adapter")) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    maps = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert maps == sorted(ALL_MAPS), "in one order, whatever a process's hashes are"


def test_what_the_best_rows_teach_shows_in_the_test(config):
    made = config(scored_rows(90), arms=("top",), training={"steps": 60, "modules": ALL_MAPS})
    ablation(made)
    results = results_of(made)
    untrained, top = results["runs"]
    assert untrained["training"] is None and untrained["test"]["right"] == 0
    assert top["selection"] | {"mean_score": None} == {
        "rows": 30,
        "mean_score": None,
        "lowest_score": 13.0,
        "at_lowest": {"kept": 1, "of": 1},
    }
    assert top["test"] | {"accuracy": None} == {"n": 6, "right": 5, "accuracy": None, "no_answer": 0, "cut_off": 0}
    assert results["arms"]["top"]["accuracy"] == top["test"]["accuracy"]
    gain = results["differences"]["top - untrained"]
    assert gain["value"] == pytest.approx(5 / 6, abs=1e-4) and (gain["better"], gain["worse"]) == (5, 0)
    assert gain["low"] > 0 and "60 optimiser steps" in results["held_equal"]
    text = (Path(made.output) / "table.md").read_text(encoding="utf-8")
    assert "| top | 731 | 30 | 60 | 5 of 6 |" in text
    assert "- It is not shown that top and untrained differ: sign test p = 0.062" in text, "of 5 questions"
    replies = read_records(Path(made.output) / "top-731" / "replies.jsonl")
    assert [row["reply"] for row in replies] == [GOOD] * 6 and [row["right"] for row in replies] == [0, 1, 1, 1, 1, 1]


def test_a_killed_run_goes_on_and_repeats_no_arm_that_is_done(config, monkeypatch):
    whole = config(output="whole", arms=("random", "all"))
    ablation(whole)
    made = config(arms=("random", "all"))
    train, begun = train_student, []

    def killed(loaded, rows, prompt, settings, seed, folder):
        begun.append(folder.parent.name)
        if len(begun) == 2:
            (folder / "checkpoints").mkdir(parents=True)
            raise KeyboardInterrupt
        return train(loaded, rows, prompt, settings, seed, folder)

    monkeypatch.setattr(stage, "train_student", killed)
    with pytest.raises(KeyboardInterrupt):
        ablation(made)
    assert begun == ["random-731", "all-731"] and not (Path(made.output) / "results.json").exists()
    done = [path for path in Path(made.output).rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in done}
    assert {path.parts[-3] for path in done if path.name == "adapter_model.safetensors"} == {"random-731"}
    ablation(made)
    assert begun[2:] == ["all-731"] and {path: path.stat().st_mtime_ns for path in done} == before
    assert results_of(made) == results_of(whole), "as if it had not been killed"
    ablation(made)
    assert len(begun) == 3


def test_a_changed_answer_length_tests_again_but_trains_no_more(config, monkeypatch):
    made = config(arms=("top",))
    ablation(made)
    monkeypatch.setattr(stage, "train_student", None)
    ablation(config(arms=("top",), max_new_tokens=2))
    assert all(run["test"]["cut_off"] == 6 for run in results_of(made)["runs"])


def test_arms_differ_in_steps_where_epochs_are_equal(config):
    made = config(training={"steps": None, "epochs": 1})
    ablation(made)
    results = results_of(made)
    assert [run["arm"] for run in results["runs"]] == ["untrained", "random", "top", "all"]
    assert [run["training"]["steps"] for run in results["runs"][1:]] == [3, 3, 8]
    assert list(results["differences"]) == ["top - random", "top - all", "top - untrained"]
    assert results["held_equal"].startswith("an epoch") and results["questions"] == 6
    random, top = (read_records(Path(made.output) / f"{arm}-731" / "replies.jsonl") for arm in ("random", "top"))
    assert [row["id"] for row in random] == [row["id"] for row in top] == [row["id"] for row in QUESTIONS]


def test_several_seeds_are_averaged_over_the_same_questions(config):
    made = config(arms=("random",), seeds=(1, 2))
    ablation(made)
    results = results_of(made)
    assert [(run["arm"], run["seed"]) for run in results["runs"]] == [("untrained", None), ("random", 1), ("random", 2)]
    assert results["arms"]["random"]["runs"] == 2 and results["differences"] == {}
    adapters = [Path(made.output) / f"random-{seed}" / "adapter" / "adapter_model.safetensors" for seed in (1, 2)]
    assert adapters[0].read_bytes() != adapters[1].read_bytes()


def test_rows_that_are_too_long_are_left_out_of_all_arms(config):
    rows = scored_rows()
    rows[0]["prediction"] = "word " * 200
    made = config(rows=rows, arms=("all",), training={"max_length": 100})
    ablation(made)
    results = results_of(made)
    assert results["rows"] == {"used": 29, "left_out": {"it has more than 100 tokens": 1}}
    assert results["runs"][1]["training"]["rows"] == 29


def test_answers_do_not_depend_on_the_batch(model):
    questions = ["Why?", "How much is 2 and 2 and then 5 more of the same?", "And what is " + "very " * 20 + "far?"]
    with student(model, LOCAL) as loaded:
        together = answer(loaded, questions, PROMPT, 8, 3)
        alone = [answer(loaded, [question], PROMPT, 8, 1)[0] for question in questions]
    assert together == alone


@pytest.mark.parametrize(
    ("reply", "right", "stated"),
    [("He has 3 + 4 = 7.", 1, True), ("So it is 8.", 0, True), ("Hello", 0, False), ("", 0, False)],
)
def test_a_reply_without_an_answer_is_wrong(reply, right, stated):
    row = grade({"id": 1, "question": "How many?", "final_answer": "7"}, Generated(reply, "stop", 3))
    assert row["right"] == right and (row["stated"] is not None) == stated


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_an_accuracy_is_wilsons(counts):
    right, n = counts
    found = accuracy(np.arange(n) < right)
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert [found["low"], found["high"]] == pytest.approx([expected.low, expected.high], abs=1e-4)


def test_a_paired_difference_needs_a_question_on_which_the_arms_differ():
    weights = resamples(np.array(list("abcd")), 200, 1).weights(np.array(list("abcd")))
    ours, theirs = np.array([1.0, 1, 0, 1]), np.array([0.0, 1, 0, 0.5])
    found = difference(ours, theirs, weights)
    assert found["value"] == pytest.approx(1.5 / 4) and (found["better"], found["worse"]) == (2, 0)
    assert found["low"] <= found["value"] <= found["high"]
    assert found["sign_test"] == 0.5, "two questions are not enough, whatever resampling says"
    same = difference(ours, ours, weights)
    assert same["value"] == 0 and same["low"] is None and "agree on every question" in same["reason"]


@pytest.mark.parametrize(
    ("better", "worse", "says"),
    [(8, 0, "- top is better than all on"), (0, 8, "- top is worse than all on"), (5, 1, "- It is not shown")],
)
def test_arms_are_said_to_differ_only_where_that_is_shown(better, worse, says):
    gains = [1] * better + [-1] * worse + [0] * 4
    right = {"top": [gain > 0 for gain in gains], "all": [gain < 0 for gain in gains]}
    outcomes = [
        Outcome(arm, 1, None, None, [{"id": i, "right": int(one)} | ANSWERED for i, one in enumerate(found)])
        for arm, found in right.items()
    ]
    results = summarize(outcomes, 200)
    found = results["differences"]["top - all"]
    assert (found["better"], found["worse"]) == (better, worse)
    head = {"student": {"model": "m", "dtype": "float32"}, "ranked_by": "s", "share": 0.5, "held_equal": "1 step"}
    assert says in table(results | head | {"rows": {"used": 9, "left_out": {}}})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"by": "score"}, DataFileError, "expects a number as 'score' in its rows, but none has one; .* total_score"),
        ({"questions": [{"id": 1, "question": "Why?"}]}, DataFileError, "gold answer in every row.* 1 of 1 .* id 1"),
        ({"questions": QUESTIONS[:1] * 2}, DataFileError, "each with an id of its own"),
        ({"questions": [QUESTIONS[0] | {"question": "how much is 0 and  0?"}]}, DataFileError, "1 of 1 are among"),
        ({"share": 0.0}, SettingsError, "share expects a number above 0 and below 1, but got 0"),
        ({"share": 20.0}, SettingsError, "share expects a number above 0 and below 1, but got 20"),
        ({"share": 0.01}, SettingsError, "share expects to keep a row at least, but 0.01 of 30"),
        ({"arms": ("top", "best")}, SettingsError, "arms expects some of random, top, all, but got top, best"),
        ({"seeds": ()}, SettingsError, "seeds expects different numbers"),
        ({"prompt": "Think."}, SettingsError, "prompt expects {question} in it"),
        ({"training": {"warmup_steps": 3}}, SettingsError, "warmup_steps expects fewer .* got 3 where .* takes 3"),
        ({"training": {"validation": 1.0}}, SettingsError, "validation expects a share"),
        ({"training": {"steps": 0}}, SettingsError, "1 at least"),
        ({"training": {"validation": 0.99}}, SettingsError, "beside those held out, but of 10 none is left"),
        ({"max_new_tokens": 10**6}, SettingsError, "max_new_tokens expects to leave room"),
    ],
)
def test_bad_inputs_are_errors_that_say_what_to_do(config, changes, error, message):
    with pytest.raises(error, match=message):
        ablation(config(**changes))


def test_a_student_without_a_chat_template_is_refused(config, model, tmp_path):
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(BackboneError, match="expects a chat template"):
        ablation(config(model=str(bare)))


def test_gold_answers_of_the_real_test_questions_are_read(data_dir, tmp_path):
    rows = read_records(data_dir / "gsm8k_test_300.jsonl", ("question", "answer"))[:40]
    path = write(tmp_path / "gold.jsonl", [row | {"id": i} for i, row in enumerate(rows)])
    found = read_gold(path)
    assert [row["final_answer"] for row in found] == [row["answer"].split("####")[1].strip() for row in rows]


@pytest.mark.parametrize("name", ["ablation.yaml", "ablation_small.yaml"])
def test_the_shipped_configs_are_understood(name):
    arguments = ["--config", str(CONFIGS / name), "--scored", "s.jsonl", "--questions", "q.jsonl", "--output", "o"]
    found = parse(AblationConfig, None, stage.STAGE, arguments)
    settings = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    assert found.training == from_settings(StudentConfig, settings["training"], name)
    assert found.prompt == "{question}\nLet's think step by step."


def test_the_full_size_is_the_published_one():
    arguments = ["--config", str(CONFIGS / "ablation.yaml"), "--scored", "s", "--questions", "q", "--output", "o"]
    found = parse(AblationConfig, None, stage.STAGE, arguments)
    n_rows = 7473  # of GSM8K's training set
    assert found.training.n_steps(n_rows) == 1688 and found.training.n_steps(math.floor(n_rows * found.share)) == 336
