"""Rubrics and pairs are taken out of the published format, filler is dropped, and bad files are refused."""

import json

import numpy as np
import pytest
from inspector_training.rows.probing_set import (
    drop_foreign,
    find_rubric,
    read_probing_set,
    read_questions,
    split_prompt,
)

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.template import PairTemplate

RUBRICS = {
    "logicality": "Judge the logic.\n5 - sound\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
    "fluency": "Judge the language.\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
}


def labels_of(pairs, aspect):
    return {pair.scores[aspect] for pair in pairs if aspect in pair.scores}


def made_up_pair(i):
    words = ["apple", "sum", "total", "river", "because", "then", "four", "nine"]
    rng = np.random.default_rng(i)
    question = f"Question {i}: " + " ".join(rng.choice(words, 6)) + "?"
    return question, " ".join(rng.choice(words, 5 + i % 9)) + "\n" * (i % 2) + " end"


@pytest.fixture(scope="module")
def probing_set(tmp_path_factory):
    """60 pairs, each with one label, some with two; the label follows the text's length, with noise."""
    rows = {name: [] for name in RUBRICS}
    for i in range(60):
        question, prediction = made_up_pair(i)
        for name in ["logicality"] if i % 3 else ["logicality", "fluency"]:
            prompt = PairTemplate.from_template(RUBRICS[name]).text(question, prediction)
            rows[name].append({"id": i, "eval_prompt": prompt, "score": [2, 3, 4, 5][(i % 9) // 2 % 4]})
    rows["fluency"].append(
        {"id": 99, "eval_prompt": PairTemplate.from_template(RUBRICS["fluency"]).text("Alien?", "x"), "score": 1}
    )
    folder = tmp_path_factory.mktemp("data")
    (folder / "probing.json").write_text(json.dumps(rows))
    questions = [json.dumps({"question": made_up_pair(i)[0], "answer": ""}) for i in range(60)]
    (folder / "questions.jsonl").write_text("\n".join(questions) + "\n")
    return folder


def test_rubrics_and_pairs_are_taken_out_of_the_prompts(probing_set):
    pairs, readings = read_probing_set(probing_set / "probing.json")
    assert readings == {name: PairTemplate.from_template(text) for name, text in RUBRICS.items()}
    assert [(pair.question, pair.prediction) for pair in pairs[:60]] == [made_up_pair(i) for i in range(60)]
    assert pairs[3].scores.keys() == set(RUBRICS) and pairs[1].scores.keys() == {"logicality"}


def test_filler_is_dropped_by_its_question_and_takes_its_classes_along(probing_set):
    pairs, _ = read_probing_set(probing_set / "probing.json")
    kept, foreign = drop_foreign(pairs, read_questions(probing_set / "questions.jsonl"))
    assert [pair.id for pair in foreign] == [99] and len(kept) == 60
    assert 1 in labels_of(pairs, "fluency") and 1 not in labels_of(kept, "fluency")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["fluency"][0].pop("score"), r"fluency\[0\] expects the keys id, eval_prompt and score"),
        (lambda rows: rows["fluency"].append({**rows["fluency"][0], "score": 9}), "two labels for fluency"),
        (lambda rows: rows.update(fluency=[]), "non-empty lists by aspect"),
    ],
)
def test_bad_probing_sets_are_refused(probing_set, tmp_path, change, message):
    rows = json.loads((probing_set / "probing.json").read_text())
    change(rows)
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    with pytest.raises(DataFileError, match=message):
        read_probing_set(tmp_path / "bad.json")


def test_prompts_without_a_common_rubric_are_refused():
    with pytest.raises(DataFileError, match="share none"):
        find_rubric(["abc", "xyz"])
    with pytest.raises(DataFileError, match="follows its aspect's rubric"):
        split_prompt("other", PairTemplate("a", "b", "c"))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataFileError, match="gone.json"):
        read_probing_set(tmp_path / "gone.json")
    with pytest.raises(DataFileError, match="gone.jsonl"):
        read_questions(tmp_path / "gone.jsonl")


def test_the_supplied_data_is_read_and_its_filler_found(data_dir):
    path = data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
    pairs, readings = read_probing_set(path)
    kept, foreign = drop_foreign(pairs, read_questions(data_dir / "gsm8k_train.jsonl"))
    assert (len(pairs), len(kept), len(foreign)) == (851, 811, 40)
    assert sum(len(pair.scores) for pair in foreign) == 93 and all(pair.id > 7472 for pair in foreign)
    assert labels_of(kept, "fluency") == {3, 4, 5}
    raw = json.loads(path.read_text())
    for name, reading in readings.items():
        prompts = {row["eval_prompt"] for row in raw[name]}
        assert {reading.text(p.question, p.prediction) for p in pairs if name in p.scores} == prompts
