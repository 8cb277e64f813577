"""The published study's road by its file of steps: raw questions in an empty folder, two kills, all that it makes."""

import json
import random
import time
from pathlib import Path

import pytest
import yaml
from inspector_training.judges.classifiers import load_classifiers
from inspector_training.rows.probing_set import ASPECTS, read_probing_set
from inspector_training.stages.make_judge import Config as MakeJudgeConfig
from inspector_training.stages.make_judge import run as make_judge
from support.causal import save_causal
from support.fault_server import Answer, FaultServer, start, user_text
from support.paths import ROOT

from inspector_pipeline import load_judge

STEPS = ROOT / "training" / "configs" / "inspector_road.yaml"
SCORES = (2, 4, 5)
WORDS = {2: "Perhaps the sum is", 4: "So the sum is", 5: "Adding both, the sum is exactly"}
NAME = "made-up_gsm8k"
N = 18


def script(body, times):
    """Answer as the generator, or as a teacher that knows a response by its words."""
    text = user_text(body)
    if body["model"] == "generator":
        number = int(text.split()[3])
        return Answer(f"{WORDS[SCORES[number % 3]]} {number}.\n#### {number}")
    text = " ".join(message["content"] for message in body["messages"])  # a repair's last one is not the response
    score = next(score for score, words in WORDS.items() if words in text)
    if "the sum is 15." in text and "fluency" in body["messages"][0]["content"]:
        return Answer("I cannot say.")
    return Answer(json.dumps({"justification": "as its words say", "score": score}))


def write_questions(path, first, n):
    rows = [{"question": f"How much is {i} and 0?", "answer": f"It is {i}.\n#### {i}"} for i in range(first, first + n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def road(tmp_path, backbone_dir, tokenizer):
    """Make the road's config: the shipped file, but for a tiny student's sizes and fewer poolings and aspects."""

    def make(url):
        steps = STEPS.read_text()
        changes = {
            "steps: 30": "steps: 2",
            "warmup_steps: 3": "warmup_steps: 1",
            "max_new_tokens: 256": "max_new_tokens: 8",
            "max_tokens: 2048": "max_tokens: 64",
        }
        changes["  share: 0.2"] = "  share: 0.2\n  arms: [top]"
        changes["  teacher: ${teacher}"] = "  teacher: ${teacher}\n  aspects: [logicality, fluency]"
        for old, new in changes.items():
            assert steps.count(old) == 1
            steps = steps.replace(old, new)
        steps = steps.replace("  backbone_id: ${backbone}", "  backbone_id: ${backbone}\n  max_length: 512")
        steps = steps.replace("settings: {task: binary}", "settings: {task: binary, poolings: [last]}")
        steps = steps.replace("multi_clfs\n  output", "multi_clfs\n  settings: {poolings: [mean]}\n  output", 1)
        (tmp_path / "steps.yaml").write_text(steps)
        variables = {
            "work": str(tmp_path / "work"),
            "questions": write_questions(tmp_path / "train.jsonl", 0, N),
            "test_questions": write_questions(tmp_path / "test.jsonl", 100, 3),
            "name": NAME,
            "llm": "tiny",
            "backbone": str(backbone_dir),
            "revision": "null",
            "student": str(save_causal(tmp_path / "student", "llama", tokenizer)),
            "student_revision": "null",
        }
        variables |= {who: who for who in ("generator", "teacher")} | dict.fromkeys(
            ("generator_url", "teacher_url"), url
        )
        return MakeJudgeConfig(str(tmp_path / "steps.yaml"), variables)

    return make


def kill_when(reached, config):
    process = start(make_judge, config)
    while not reached() and process.is_alive():
        time.sleep(0.005)
    time.sleep(random.Random(7).uniform(0, 0.05))
    process.kill()
    process.join()
    assert process.exitcode == -9


def test_from_raw_questions_to_the_filtered_set_and_the_student_with_two_kills(road, tmp_path):
    work = tmp_path / "work"
    with FaultServer(script) as server:
        config = road(server.url)
        kill_when(lambda: len(server.requests) > N + 20, config)
        kill_when(lambda: (work / "features" / "fingerprint.json").is_file(), config)
        assert len(server.requests) <= N + 2 * N + 1 + 16  # a repair, and what was in flight at the kill
        make_judge(config)
        asked = len(server.requests)
        make_judge(config)
        assert len(server.requests) == asked

    pairs, readings = read_probing_set(work / f"{NAME}_roscoe5dim_probing.json")
    assert set(readings) == {"logicality", "fluency"} and len(pairs) == N
    teacher = [json.loads(line) for line in (work / f"{NAME}_results_roscoe5dim.jsonl").read_text().splitlines()]
    assert sum(row["roscoe5dim_score"]["fluency"]["score"] is None for row in teacher) == 1
    for kind, classes in (("multi", SCORES), ("binary", (0, 1))):
        found = json.loads((work / f"{kind}.json").read_text())
        assert set(found) == {"logicality", "fluency"} and found["logicality"]["settings"]["task"] == kind
        assert (work / f"{kind}_layers.png").read_bytes().startswith(b"\x89PNG")
        assert f"## fluency, {kind}" in (work / f"{kind}_pooling.md").read_text()
        clfs = work / f"{NAME}_{kind}_clfs"
        for folder in (clfs, clfs / "skops"):
            loaded = load_classifiers(folder, allow_pickle=True)
            assert {name: one.metadata.layers[0] for name, one in loaded.items()} == {
                name: entry["layer"] for name, entry in found.items()
            }
        card = (work / f"judge_{kind}" / "README.md").read_text()
        assert "optimistic" in card and f"| fluency | {found['fluency']['cv_macro_f1']:.3f}" in card
        evaled = json.loads((work / f"{NAME}_results_tiny_{kind}_evaled.json").read_text())
        assert len(evaled) == N and all(row["logicality"] in classes for row in evaled)
        assert all(row["total_score"] == row["logicality"] + row["fluency"] for row in evaled)
        judge = load_judge(clfs, device="cpu", rubrics=work / f"{NAME}_roscoe5dim_probing.json")
        assert [row["scores"]["fluency"] for row in judge(evaled[:4])] == [row["fluency"] for row in evaled[:4]]
    filtered = json.loads((work / f"{NAME}_results_tiny_binary_filtered.json").read_text())
    assert len(filtered) == N
    ablation = json.loads((work / "ablation" / "results.json").read_text())
    assert ablation["ranked_by"] == "total_score" and "top" in (work / "ablation" / "table.md").read_text()
    assert not list(work.glob("*.parts-*"))


def test_the_steps_name_every_published_file():
    steps = yaml.safe_load(STEPS.read_text())
    written = {Path(step["output"]).name for step in steps}
    assert {"${name}_results.json", "${name}_results_roscoe5dim.jsonl", "${name}_roscoe5dim_probing.json"} <= written
    assert {f"${{name}}_results_${{llm}}_{kind}_evaled.json" for kind in ("multi", "binary")} <= written
    assert len(ASPECTS) == 5 and "aspects" not in {key for step in steps for key in step}
