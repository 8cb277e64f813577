"""Degenerate answers: each form is what its name says, with a label that is true; the suite runs on any judge."""

import gzip
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from inspector_cli.main import main as cli
from inspector_training.corruptions.degenerate import FORMS, answer_places, degenerate_rows, differs
from inspector_training.evaluation.degenerate import degenerate_evidence, rule_value
from inspector_training.evaluation.scored import Scored
from inspector_training.rows.answers import as_number
from inspector_training.rows.correctness import CORRECTNESS, judge_answer
from inspector_training.rows.records import labelled_pairs, question_id, read_records, write_records
from inspector_training.stages.degenerate import Config, run
from support.results import alike
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
    run(Config((tmp_path / "*.jsonl.*",), output, auxiliary=True))  # as a file of steps names them
    assert {row["form"] for row in read_records(output) if not row.get("auxiliary")} == {"worked", "worked_wrong"}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"correct": "maybe"}, {}, r"row 0 expects .*correct.* \(0 or 1\), but has correct = 'maybe'"),
        ({"answer": None}, {}, "row 0 expects question, .* and answer, but lacks 'answer'"),
        ({"correct": 1}, {}, "expect a question with a worked right and a worked wrong answer"),
        ({}, {"forms": ("eco",)}, "forms expects some of .*echo.*, but got eco"),
        ({}, {"n_questions": 0}, "n_questions expects at least 1, but got 0"),
        ({}, {"judge": "a", "scored": ("b",)}, "expects a judge or scored rows to rank by, but got both"),
        ({}, {"weight": -1.0}, "weight expects a number above 0, but got -1.0"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, change, settings, message):
    write_records([{**row, **change} for row in verified_answers(2)], tmp_path / "rows.jsonl")
    with pytest.raises(DataFileError, match=message):
        run(Config((tmp_path / "rows.jsonl",), tmp_path / "out.jsonl", **settings))


def suite():
    return degenerate_rows(verified_answers(12), "made up", seed=1)[0]


def scored(rows, value, flag=None):
    return Scored(rows, "expected_total", np.array([value(row) for row in rows], dtype=float), [flag] * len(rows), [])


def test_the_evidence_counts_questions_in_which_the_better_one_stands_above():
    rows = suite()
    knows = degenerate_evidence(scored(rows, lambda row: row["scores"][CORRECTNESS]), 50)
    wrong = {form: entry for form, entry in knows["forms"].items() if entry.get("upper") == "worked"}
    assert set(wrong) == {form for form, (label, _) in FORMS.items() if not label}
    assert all(entry["above"] == {"value": 1.0, "low": 1.0, "high": 1.0} for entry in wrong.values())
    assert knows["n_questions"] == 12 and knows["n_seen"] is None and knows["forms"]["worked"] == {"unfamiliar": None}
    terse = knows["forms"]["terse_right"]
    assert (terse["upper"], terse["lower"], terse["n"]) == ("terse_right", "worked_wrong", 12)
    blind = degenerate_evidence(scored(rows, lambda row: 0.5, True), 50)["forms"]
    assert all(entry["above"]["value"] == 0.5 and entry["unfamiliar"] == 1 for entry in blind.values() if "n" in entry)
    half = {row["id"] for row in rows[: 20 * 3]}  # of three of the twelve questions
    low = degenerate_evidence(scored(rows, lambda row: row["form"] == "worked" and row["id"] not in half), 50)["forms"]
    assert low["echo"]["above"]["value"] == (9 + 3 / 2) / 12
    assert low["echo"]["above"]["low"] < low["echo"]["above"]["value"] < low["echo"]["above"]["high"]
    with pytest.raises(DataFileError, match="expects one echo of each question, but .* has two"):
        degenerate_evidence(scored([*rows, rows[7]], len), 50)


def test_forms_that_a_rule_of_length_and_surface_solves_are_marked():
    forms = degenerate_evidence(scored(suite(), lambda row: 0.0), 50)["forms"]
    marked = {form for form, entry in forms.items() if entry.get("solved_by_rule")}
    assert marked >= {"bare_wrong", "sentence_wrong", "echo", "cut", "empty_talk", "master_key", "repetition", "noise"}
    assert not marked & {"exchanged", "step", "other_answer", "worked_wrong", "shuffled_question", "terse_right"}
    assert all(lower <= 4 for lower in (rule_value("What is 2 + 2?", "2 + 2 = 4"), rule_value("", "")))


def test_the_stage_ranks_by_a_judge_as_by_rows_that_were_scored(tmp_path, judge, one_thread):
    folder = tmp_path / "judge"
    write_records(verified_answers(3), tmp_path / "verified.jsonl")
    forms = ("worked", "worked_wrong", "bare_wrong", "echo")
    config = Config((tmp_path / "verified.jsonl",), tmp_path / "suite", forms=forms, judge=str(folder), bootstraps=20)
    found = run(config)
    assert json.loads((tmp_path / "suite" / "results.json").read_text()) == {"degenerate": found}
    assert found["field"] == "expected_total" and set(found["forms"]) == set(forms)
    assert "| worked | echo | 3 |" in (tmp_path / "suite" / "degenerate.md").read_text()
    assert run(config) == {}, "it is already there"
    run(replace(config, judge=None, output=tmp_path / "rows.jsonl"))
    assert cli(["score", str(tmp_path / "rows.jsonl"), "--judge", str(folder), "--output", f"{tmp_path}/scored/"]) == 0
    again = replace(config, rows=(tmp_path / "rows.jsonl",), judge=None, scored=(tmp_path / "scored",))
    assert alike(run(replace(again, output=tmp_path / "second")), found)
    total = run(replace(again, output=tmp_path / "third", rank_by="expected_fluency"))
    assert total["field"] == "expected_fluency"
    few = replace(again, rows=config.rows, forms=(*forms, "noise"), output=tmp_path / "fourth")
    with pytest.raises(DataFileError, match="expect every row of the suite, but lack noise of"):
        run(few)
    with pytest.raises(DataFileError, match="output expects a folder, as it is ranked, but got .*x.jsonl"):
        run(replace(again, output=tmp_path / "x.jsonl"))
    with pytest.raises(DataFileError, match="expects rows that were scored by one judge"):
        run(replace(again, scored=(tmp_path / "rows.jsonl",), output=tmp_path / "fifth"))
