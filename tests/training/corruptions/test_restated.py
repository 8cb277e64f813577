"""Answers whose final number no rule finds: what they say stays, whichever form they have."""

from fractions import Fraction

import pytest
from inspector_training.corruptions.restated import FORMS, in_words, restated_rows
from inspector_training.evaluation.methods.beside import exactly_matches, verified
from inspector_training.rows.records import write_records
from inspector_training.stages.restate import Config, run

from inspector_pipeline.errors import DataFileError

WORK = "She has 16 - 3 - 4 = 9 eggs left.\nShe makes 9 * 2 = {0} dollars a day.\nThe answer is {0}."


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (18, "eighteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (1218, "one thousand two hundred eighteen"),
        (2_000_005, "two million five"),
        (Fraction(-9, 2), "minus four point five"),
        (Fraction(401, 100), "four point zero one"),
        (Fraction(1, 3), None),
        (10**12, None),
    ],
)
def test_numbers_are_written_in_words(value, words):
    assert in_words(Fraction(value)) == words


def rows(n=8):
    """Right and wrong answers of two generators to n questions."""
    kinds = [(1, "18"), (0, "17")]
    return [
        {
            **{"id": f"q{i}", "question": f"Eggs {i}?", "prediction": WORK.format(final), "generator": generator},
            **{"sample": 0, "final": final, "answer": "18", "scores": {"correctness": label}},
        }
        for i in range(n)
        for generator, (label, final) in zip("ab", kinds, strict=True)
    ]


def test_each_form_keeps_the_label_and_hides_the_answer_from_the_rules():
    made = restated_rows(rows(), tuple(FORMS), per_row=3, seed=1)
    assert {(row["form"], row["scores"]["correctness"]) for row in made} == {
        (form, label) for form in ("plain", *FORMS) for label in (0, 1)
    }
    assert all(row["reference"] == "18" for row in made)
    for row in made:
        right, text = bool(row["scores"]["correctness"]), row["prediction"]
        if row["form"] == "plain":
            assert exactly_matches(text, "18") == verified(text, "18") == right
        elif row["form"] == "rephrased":
            assert ("eighteen" if right else "seventeen") in text and row["final"] not in text
            assert not exactly_matches(text, "18")
        elif row["form"] == "unextractable":
            assert f"= {row['final']}" in text and "answer" not in text
            assert not verified(text, "18") and not exactly_matches(text, "18")
        else:
            assert text.startswith(WORK.format(row["final"])) and ("17" if right else "18") in text[-60:]
            rules = exactly_matches(text, "18"), verified(text, "18")
            assert rules == (not right, not right), "the number that is named last is the rejected one"
    assert made == restated_rows(rows(), tuple(FORMS), per_row=3, seed=1)
    few = restated_rows(rows(), tuple(FORMS), per_row=1, seed=1)
    assert len(few) == 2 * len(rows()) and all(row in made for row in few)
    single = restated_rows(rows(), tuple(FORMS), per_row=None, seed=1)
    assert len(single) == len(rows()) and all(row in made for row in single)
    assert {row["form"] for row in restated_rows(rows(40), tuple(FORMS), None, 1)} == {"plain", *FORMS}


def test_units_signs_and_answers_that_are_no_numbers():
    text = "That is $1,200 or 50% of it. So the answer is **1200**."
    row = {**rows(1)[0], "prediction": text, "final": "1200", "answer": "1200"}
    plain, made = restated_rows([row], ("rephrased",), 1, 0)
    assert made["prediction"].startswith("That is one thousand two hundred dollars or 50% of it.")
    assert plain["prediction"] == text
    letters = {**row, "final": "B", "answer": "B"}
    assert [one["form"] for one in restated_rows([letters], tuple(FORMS), 3, 0)] == ["plain"]


def test_the_stage_numbers_its_rows_and_refuses_unknown_forms(tmp_path):
    write_records(rows(), tmp_path / "matched.jsonl")
    config = Config((str(tmp_path / "matched.jsonl"),), tmp_path / "restated.jsonl", per_row=3)
    counts = run(config)
    assert counts["plain:0"] == counts["plain:1"] == 8 and sum(counts.values()) == 64
    assert not run(config), "it is done"
    with pytest.raises(DataFileError, match="forms expects some of rephrased, unextractable, planted, but got odd"):
        run(Config((str(tmp_path / "matched.jsonl"),), tmp_path / "x.jsonl", forms=("odd",)))
