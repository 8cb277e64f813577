"""Edits do what they say, and an audit finds what a judge was made to fall for, beside what quality moves."""

import json
import random

import numpy as np
import pytest
from inspector_cli.main import main as cli
from inspector_training.corruptions.edits import ASKING, EDITS, SAME, WORSE, edited, reworded
from inspector_training.rows.answers import find_numbers
from inspector_training.rows.records import write_records
from inspector_training.trust.judge_audit import audit_judge
from support.models import aspect, feature
from support.verified import verified_answers

from inspector_pipeline.errors import DataFileError, SettingsError

QUESTION = "Ada and Ben meet on Monday. How many pens does Ada have if Ben has 4?"
RESPONSE = "We look at what we know. Then Ada has 2 * 4 = 8 pens, because Ben has 4.\nThe answer is 8."
DONOR = "Another answer to something else, which is 5."


def made(name, question=QUESTION, response=RESPONSE):
    return edited(name, question, response, DONOR, 0)


def test_each_edit_does_what_it_says():
    for name, edit in EDITS.items():
        pair = made(name)
        assert pair not in (None, (QUESTION, RESPONSE)) and pair == made(name), name
        if edit.kind == ASKING:
            assert RESPONSE in pair[1] and len(pair[1]) < len(RESPONSE) + 110
        if edit.kind == SAME and name not in ("answer alone", "spelling"):
            values = {found.value for found in find_numbers(pair[1])}
            assert values == {found.value for found in find_numbers(RESPONSE)}, name
    assert {edit.kind for edit in EDITS.values()} == {SAME, ASKING, WORSE}
    assert made("answer alone")[1] == "8" and made("repeated")[1].count("The answer is 8.") == 2
    assert made("shorter")[1] == "Then Ada has 2 * 4 = 8 pens, because Ben has 4. The answer is 8."
    assert made("one line")[1] == RESPONSE.replace("\n", " ") and "\n- " in made("markdown")[1]
    question, response = made("other names")
    assert not {"Ada", "Ben"} & {*question.split(), *response.split()} or "Ada and" in question
    assert "Monday" in question and "Ben" not in question + response
    assert made("other response")[1] == DONOR and sorted(made("shuffled")[1].split()) == sorted(RESPONSE.split())
    other = made("other number")[1]
    assert "is 8" not in other and "= 8" not in other and "2 * 4" in other
    assert len(made("longer")[1]) > len(RESPONSE) + 100 and len(made("cut")[1]) < len(RESPONSE) / 2


def test_other_words_say_the_same_and_can_be_turned_back():
    text = "Therefore we do not stop. First, find what it is, because each day counts."
    assert reworded(text) == "Thus we don't stop. To begin with, work out what it's, since every day counts."
    assert reworded(reworded(text)) == text and reworded("Sofia begins.") == "Sofia begins."


def test_what_does_not_apply_is_left_out():
    assert made("other names", "What is 2?") is None and made("shuffled", response="8") is None
    assert made("answer alone", response="8") is None and made("one line", response="a b") is None
    assert made("other number", response="none") is None and made("cut", response="8") is None


class Planted:
    """A judge whose first aspect is a function of the pair; the model is the tiny one's."""

    def __init__(self, judge, value):
        self.model, self.value = judge.model, value

    def __call__(self, pairs, **_):
        results = []
        for pair in pairs:
            value = float(self.value(pair))
            expected = {one.name: value for one in self.model.aspects}
            flag = "professor" in pair["prediction"]
            results.append({"scores": {}, "expected": expected, "expected_total": value, "unfamiliar": flag})
        return results


@pytest.fixture
def rows():
    rows = verified_answers(24, ("a", "b", "c", "d", "e"))
    noise = random.Random(0)
    return [{**row, "noise": noise.gauss(0, 0.05)} for row in rows]


def test_an_audit_finds_what_moves_a_judge_beside_quality(judge, rows):
    noise = {row["prediction"]: row["noise"] for row in rows}
    wrong = {row["prediction"] for row in rows if not row["correct"]}

    def value(pair):
        text = pair["prediction"]
        found = 1.0 * (text not in wrong) + noise.get(text, 0) + 0.6 * ("professor" in text) + 0.2 * ("says e." in text)
        return found - 0.9 * ("correct" in text)

    report = audit_judge(Planted(judge, value), rows, label="correct", generator="generator", n_edited=20)
    quality = report["quality"]["fields"][report["field"]]
    assert "better against a worse" in report["quality"]["by"] and quality["value"] == pytest.approx(1, abs=0.1)
    assert quality["low"] < 1.0 < quality["high"] and report["n_edited"] == 20 and report["n_rows"] == 120
    edits = {name: one["fields"][report["field"]] for name, one in report["edits"].items() if "fields" in one}
    right = [row for row in rows if row["correct"]]
    assert (
        len(right) == 60 and report["edits"]["authority"]["n"] == 20 and report["edits"]["authority"]["unfamiliar"] == 1
    )
    assert edits["authority"]["value"] - edits["checked"]["value"] == pytest.approx(0.6, abs=1e-3)
    assert edits["claim"]["value"] - edits["checked"]["value"] == pytest.approx(-0.9, abs=1e-3)
    assert edits["authority"]["low"] < edits["authority"]["value"] < edits["authority"]["high"]
    assert edits["authority"]["of_quality"] == pytest.approx(edits["authority"]["value"] / quality["value"], abs=1e-3)
    assert report["notes"][0].startswith("Moves it by a quarter or more of what quality does:")
    assert "authority (+" in report["notes"][0]
    preferred = report["generators"][report["field"]]["by_generator"]
    assert preferred["e"]["error"] == pytest.approx(0.16, abs=0.03) and preferred["a"]["error"] < 0


def test_without_labels_damage_stands_for_quality(judge, rows):
    report = audit_judge(Planted(judge, lambda pair: len(pair["prediction"])), rows[:30], n_edited=6)
    assert report["quality"]["by"] == "the damage of middling effect" and report["generators"] is None
    assert report["quality"]["fields"][report["field"]]["edit"] in EDITS
    one = audit_judge(Planted(judge, lambda pair: 1.0), rows[:30], n_edited=6, edits=["longer", "cut"])
    assert (
        list(one["edits"]) == ["longer", "cut"] and one["edits"]["longer"]["fields"]["expected_fluency"]["value"] == 0
    )
    assert "not shown here that quality moves this judge" in one["notes"][0]
    with pytest.raises(SettingsError, match="edits expects some of reworded, .*, but got magic"):
        audit_judge(judge, rows, edits=["magic"])
    with pytest.raises(DataFileError, match="expects rows with question and prediction"):
        audit_judge(judge, [])
    with pytest.raises(DataFileError, match="label expects a column with numbers, but 'truth' is empty"):
        audit_judge(Planted(judge, lambda pair: 1.0), rows, label="truth")
    with pytest.raises(DataFileError, match="names who wrote, but 'author' is empty or missing"):
        audit_judge(Planted(judge, lambda pair: 1.0), rows, label="correct", generator="author")


def test_the_commands_write_json_and_show_tables(make_judge, rows, tmp_path, capsys):
    folder = make_judge([aspect("a", [feature(1)]), aspect("b", [feature(2, "last")], counts=False)])
    source = tmp_path / "rows.jsonl"
    write_records(
        [{key: row[key] for key in ("question", "prediction", "generator", "correct")} for row in rows[:12]], source
    )
    options = ["--label", "correct", "--generator", "generator", "--edited-rows", "3", "--rows", "10"]
    assert cli(["audit-judge", str(folder), str(source), *options, "--output", str(tmp_path / "audit.json")]) == 0
    told = capsys.readouterr().err
    assert "of 12 rows the first 10 are read" in told and "quality" in told and "flattery" in told
    report = json.loads((tmp_path / "audit.json").read_text())
    assert set(report["edits"]) == set(EDITS) and report["n_edited"] == 3
    assert set(report["edits"]["longer"]["fields"]) == {"expected_total", "expected_a", "expected_b"}
    scores = tmp_path / "labelled.csv"
    generator = np.random.default_rng(0)
    truth = generator.integers(1, 6, 40)
    raters = np.clip(truth[:, None] + generator.integers(-1, 2, (40, 3)), 1, 5)
    lines = [
        f"q{i},{a},{b},{c},{t}.0" for i, ((a, b, c), t) in enumerate(zip(raters.tolist(), truth.tolist(), strict=True))
    ]
    scores.write_text("\n".join(["question,ada,ben,cleo,judge", *lines]))
    assert cli(["agreement", str(scores), "--raters", "ada", "ben", "cleo", "--scores", "judge"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["alternative_annotator_test"]["may_replace"]
    assert "may replace an annotator" in captured.err and "Krippendorff's alpha (interval)" in captured.err
    assert cli(["agreement", str(scores), "--raters", "ada", "ben", "cleo"]) == 1
    assert "expects the judge's scores, but its rows name none" in capsys.readouterr().err
    assert cli(["agreement", str(scores), "--raters", "ada", "ben", "dan", "--scores", "judge"]) == 1
    assert "has no 'dan'" in capsys.readouterr().err
