"""Degenerate answers: each form is what its name says, with a label that is true; the suite runs on any judge."""

import gzip
import json
import logging
import re

import pyarrow as pa
import pytest
from inspector_training.corruptions.degenerate import FORMS, answer_places, as_number, degenerate_rows, differs
from inspector_training.rows.correctness import CORRECTNESS, judge_answer
from inspector_training.rows.records import labelled_pairs, question_id, read_records, write_records
from inspector_training.stages.degenerate import Config, run
from support.verified import option_answers, verified_answers

from inspector_pipeline.errors import DataFileError

RIGHT = ("worked", "bare_right", "sentence_right", "terse_right")


def forms_of(rows):
    found = {}
    for row in rows:
        found.setdefault(row["id"], {})[row["form"]] = row
    return found


def answers_of(rows):
    return {question_id(row["question"]): row["answer"] for row in rows}


def test_each_question_gives_every_form_with_a_label_that_is_true():
    verified = verified_answers(8)
    rows, counts = degenerate_rows(verified, "made up", seed=3)
    answers, texts = answers_of(verified), {row["question"] for row in verified}
    assert counts == dict.fromkeys(FORMS, 8)
    for name, forms in forms_of(rows).items():
        answer, worked = answers[name], forms["worked"]["prediction"]
        texts_of = {form: row["prediction"] for form, row in forms.items()}
        for form, row in forms.items():
            assert row["scores"] == {CORRECTNESS: int(form in RIGHT)} and row["generator"] == f"form:{form}"
            assert (row["question"] in texts) == (form != "shuffled_question")
            stated = judge_answer(row["prediction"], answer, row["question"]).stated
            if form not in ("shuffled_question", "shuffled_words", "step") and stated is not None:
                assert (as_number(stated) == as_number(answer)) == (form in RIGHT), row
        assert as_number(texts_of["bare_wrong"]) not in (None, as_number(answer))
        assert re.sub(r"\d+", "", texts_of["sentence_wrong"]) == re.sub(r"\d+", "", texts_of["sentence_right"])
        assert worked.startswith(texts_of["cut"]) and len(texts_of["cut"]) <= len(worked) / 3
        assert worked[len(texts_of["cut"])].isspace() and not answer_places(texts_of["cut"], answer)
        start = worked.index("The answer is")
        assert texts_of["exchanged"].startswith(worked[:start]) and texts_of["exchanged"] != worked
        changed = [(a, b) for a, b in zip(worked.split(), texts_of["step"].split(), strict=True) if a != b]
        assert len(changed) == 1 and worked[start:] in texts_of["step"]
        assert texts_of["terse_right"].startswith(f"{worked.split('leaves ')[1].split(' =')[0]} = {answer}")
        assert len(set(texts_of["repetition"].split(". "))) <= 2 and len(texts_of["repetition"]) > len(worked) / 2
        assert sorted(texts_of["shuffled_words"].split()) == sorted(worked.split()) != worked.split()
        asked = forms["shuffled_question"]["question"]
        assert texts_of["shuffled_question"] == worked and question_id(asked) != name
        assert sorted(asked.split()) == sorted(forms["echo"]["prediction"].split())
        other = next(row for row in verified if row["prediction"] == texts_of["other_answer"])
        assert other["correct"] == 1 and other["answer"] != answer


def test_options_are_exchanged_for_other_options_of_the_question():
    rows, counts = degenerate_rows(option_answers(), "made up")
    assert counts["skipped step"] == 2, "no number stands in them"
    for forms in forms_of(rows).values():
        right, wrong = forms["bare_right"]["prediction"], forms["bare_wrong"]["prediction"]
        assert right != wrong and f"\n{wrong}. " in forms["worked"]["question"]
        assert f"The answer is ({right})" in forms["worked"]["prediction"]
        assert f"({right})" not in forms["exchanged"]["prediction"].split("The answer")[1]
        assert forms["worked"]["domain"] == "science"


def test_answers_of_another_kind_are_those_of_verified_wrong_answers():
    rows = verified_answers(2)
    for row in rows:
        row |= {"answer": "[1, 2]", "final": "[1,2]" if row["correct"] else "[2, 1]"}
        row["prediction"] = row["prediction"].split("The answer")[0] + f"The answer is {row['final']}"
    made = forms_of(degenerate_rows(rows, "made up")[0])
    assert {forms["bare_wrong"]["prediction"] for forms in made.values()} == {"[2, 1]"}
    assert not differs("[1,2]", "[1, 2]") and not differs("$1,200.0", "1200") and differs("'a'", "b")
    for row in rows:
        row["final"] = row["final"].replace(" ", "")
        row["answer"] = "[1,2]" if row["correct"] else row["final"]
    assert "skipped other_answer" in degenerate_rows(rows[:2], "made up")[1], "there is no other question"


def test_a_row_depends_on_its_seed_question_and_form_alone():
    verified = verified_answers(8)
    whole = degenerate_rows(verified, "made up", seed=5)[0]
    assert degenerate_rows(verified[::-1], "made up", seed=5)[0] == whole
    few = degenerate_rows(verified, "made up", seed=5, n_questions=3, forms=("noise", "step"))[0]
    assert len(few) == 6 and all(row in whole for row in few)
    assert degenerate_rows(verified, "made up", seed=6, n_questions=3, forms=("noise", "step"))[0] != few
    drawn, counts = degenerate_rows(verified, "made up", per_question=2)
    assert len(drawn) == 4 * 8 and counts["worked"] == counts["worked_wrong"] == 8


def test_the_stage_reads_compressed_files_and_marks_rows_for_a_fit(tmp_path, caplog):
    verified, source, output = verified_answers(4), tmp_path / "a.jsonl.gz", tmp_path / "rows.jsonl"
    lines = ["".join(json.dumps(row) + "\n" for row in part).encode() for part in (verified[::2], verified[1::2])]
    source.write_bytes(gzip.compress(lines[0]))
    with pa.CompressedOutputStream(str(tmp_path / "b.jsonl.zst"), "zstd") as file:
        file.write(lines[1])
    files = (source, tmp_path / "b.jsonl.zst")
    run(Config(files, output, auxiliary=True, weight=0.3, without_worked=True))
    rows = read_records(output)
    assert {row["form"] for row in rows} == FORMS.keys() - {"worked", "worked_wrong"}
    pairs = labelled_pairs(rows)
    assert all(pair.auxiliary and pair.weights == {CORRECTNESS: 0.3} for pair in pairs) and len(pairs) == len(rows)
    with caplog.at_level(logging.INFO):
        run(Config(files, output, auxiliary=True, weight=0.3, without_worked=True))
    assert "already there" in caplog.text
    run(Config(files, output, auxiliary=True))
    assert {row["form"] for row in read_records(output) if not row.get("auxiliary")} == {"worked", "worked_wrong"}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"correct": "maybe"}, {}, r"row 0 expects .*correct.* \(0 or 1\), but has correct = 'maybe'"),
        ({"answer": None}, {}, "row 0 expects the keys .*answer, but lacks 'answer'"),
        ({"correct": 1}, {}, "expect a question with a worked right and a worked wrong answer"),
        ({}, {"forms": ("eco",)}, "forms expects some of .*echo.*, but got eco"),
        ({}, {"n_questions": 0}, "n_questions expects at least 1, but got 0"),
        ({}, {"weight": -1.0}, "weight expects a number above 0, but got -1.0"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, change, settings, message):
    write_records([{**row, **change} for row in verified_answers(2)], tmp_path / "rows.jsonl")
    with pytest.raises(DataFileError, match=message):
        run(Config((tmp_path / "rows.jsonl",), tmp_path / "out.jsonl", **settings))
