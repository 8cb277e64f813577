"""The published formats: each reader gives rows, and each writer undoes it."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspector_training.rows.probing_set import ASPECTS, read_rubrics
from inspector_training.rows.published import (
    detect,
    read_evaluated,
    read_probing_rows,
    read_results,
    read_teacher,
    write_evaluated,
    write_probing_set,
    write_results,
    write_teacher,
)
from inspector_training.rows.records import read_records, write_records
from inspector_training.runs.command import main
from inspector_training.stages.convert import Config as FormatsConfig
from inspector_training.stages.convert import filtered_path, write_filtered
from inspector_training.stages.convert import run as convert

from inspector_pipeline import DataFileError, PairTemplate
from inspector_pipeline.api.load import evaluate_samples

RUBRICS = {
    "logicality": PairTemplate("Judge the logic.\n\nQuestion:\n", "\n\nResponse:\n", "\n\nScore it.\n"),
    "fluency": PairTemplate("Judge the language.\n\nQuestion:\n", "\n\nResponse:\n", "\n\nScore it.\n"),
}
PROBING = "reference/Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"

within_tmp_path = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.sampled_from(ASPECTS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
published = st.fixed_dictionaries(
    {"id": st.integers(0) | texts, "question": texts, "gold_answer": texts, "prediction": texts | st.none()},
    optional={"final_answer": texts, "options": st.lists(texts, max_size=3)},
)
entries = (
    st.fixed_dictionaries({"score": st.integers(1, 5), "justification": texts})
    | st.fixed_dictionaries({}, optional={"score": json_values, "justification": json_values, "reason": json_values})
    | json_values
)
responses = st.fixed_dictionaries(
    {"id": st.integers(0) | texts, "question": texts, "prediction": texts | st.none(), "sample": st.integers(0, 3)},
    optional={"answer": texts, "final_answer": texts, "generator": texts, "weights": st.just({"fluency": 0.5})},
)


@st.composite
def labelled(draw):
    scores = draw(st.dictionaries(names, st.none() | st.integers(0, 5)))
    return draw(responses) | {
        "scores": scores,
        "reasons": {aspect: draw(texts.filter(bool)) for aspect, score in scores.items() if score is None},
        "justifications": draw(st.dictionaries(st.sampled_from(list(scores)), texts)) if scores else {},
    }


def as_json(rows):
    return json.dumps(rows, indent=4)


def as_json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@within_tmp_path
@given(st.lists(published, max_size=3))
def test_a_results_file_comes_back_byte_for_byte(tmp_path, rows):
    (tmp_path / "a_results.json").write_text(as_json(rows))
    read = read_results(tmp_path / "a_results.json")
    assert [row["answer"] for row in read] == [row["gold_answer"] for row in rows]
    write_results(read, tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == as_json(rows)


@within_tmp_path
@given(st.lists(published | st.builds(dict, published), max_size=3), st.data())
def test_a_teacher_file_comes_back_byte_for_byte_whatever_the_teacher_said(tmp_path, rows, data):
    scores = st.dictionaries(names | texts, entries, max_size=4) | json_values
    rows = [{**row, "roscoe5dim_score": data.draw(scores)} for row in rows]
    (tmp_path / "a.jsonl").write_text(as_json_lines(rows))
    read = read_teacher(tmp_path / "a.jsonl")
    for row in read:
        assert set(row["reasons"]) == {aspect for aspect, score in row["scores"].items() if score is None}
    write_teacher(read, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text() == as_json_lines(rows)


@within_tmp_path
@given(st.lists(labelled(), max_size=3))
def test_labelled_rows_come_back_from_a_teacher_file(tmp_path, rows):
    write_teacher(rows, tmp_path / "a.jsonl")
    assert read_teacher(tmp_path / "a.jsonl") == rows


@within_tmp_path
@given(st.lists(responses, max_size=3))
def test_responses_come_back_from_a_results_file(tmp_path, rows):
    write_results(rows, tmp_path / "a.json")
    assert read_results(tmp_path / "a.json") == rows


@within_tmp_path
@given(st.lists(published, max_size=3), st.data())
def test_an_evaluated_file_comes_back_byte_for_byte(tmp_path, rows, data):
    scores = st.fixed_dictionaries({aspect: st.integers(1, 5) | st.none() | texts for aspect in ASPECTS})
    rows = [{**row, **data.draw(scores), "total_score": data.draw(st.integers(5, 25) | st.none())} for row in rows]
    (tmp_path / "a_evaled.json").write_text(as_json(rows))
    write_evaluated(read_evaluated(tmp_path / "a_evaled.json"), tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == as_json(rows)


def test_what_the_teacher_failed_to_say_is_no_score(tmp_path):
    said = {
        "semantic_consistency": {"score": None, "justification": None},
        "logicality": "I would give it a 4.",
        "informativeness": {"score": 4.5, "justification": "between"},
        "fluency": {"justification": "fine"},
        "factuality": {"score": 2, "justification": "wrong sum"},
    }
    row = {"id": 3, "question": "Why?", "prediction": "So."}
    lines = [{**row, "roscoe5dim_score": said}, {**row, "id": 4, "roscoe5dim_score": "no JSON"}]
    (tmp_path / "a.jsonl").write_text(as_json_lines(lines))
    first, second = read_teacher(tmp_path / "a.jsonl")
    assert first["scores"] == {**dict.fromkeys(ASPECTS), "factuality": 2}
    assert first["reasons"] == {
        "semantic_consistency": "the label is blank",
        "logicality": "I would give it a 4. is not a whole number",
        "informativeness": "4.5 is not a whole number",
        "fluency": "the label is blank",
    }
    assert first["justifications"] == {"informativeness": "between", "fluency": "fine", "factuality": "wrong sum"}
    assert set(second["scores"].values()) == {None}
    assert second["reasons"]["fluency"] == "the teacher's scores are str, not an object"


def test_a_corrected_score_is_written_and_not_what_the_file_had_said(tmp_path):
    row = {"id": 3, "question": "Why?", "prediction": "So.", "roscoe5dim_score": {"fluency": "four", "logicality": "?"}}
    (tmp_path / "a.jsonl").write_text(as_json_lines([row]))
    (read,) = read_teacher(tmp_path / "a.jsonl")
    read["scores"]["fluency"] = 4
    write_teacher([read], tmp_path / "b.jsonl")
    (again,) = map(json.loads, (tmp_path / "b.jsonl").read_text().splitlines())
    assert again["roscoe5dim_score"] == {"fluency": {"score": 4, "justification": None}, "logicality": "?"}


def test_the_real_probing_set_comes_back_byte_for_byte(tmp_path, data_dir):
    path = data_dir / PROBING
    rows = read_probing_rows(path)
    assert len(rows) == 851
    random.Random(0).shuffle(rows)  # the file's order is that of the ids, not of the rows
    write_probing_set(rows, read_rubrics(path), tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == path.read_bytes()


def labelled_rows(n=60):
    draw = random.Random(1)
    return [
        {
            "id": i,
            "question": f"What is {i} + {i % 7}?",
            "prediction": f"It is {i + i % 7}.\nI counted to {i}.",
            "scores": {"logicality": draw.choice([1, 2, 2, 3, 3, 3]), "fluency": draw.choice([4, 5, 5, 5, None])},
        }
        for i in range(n)
    ]


def test_pairs_come_back_from_a_probing_set(tmp_path):
    write_probing_set(labelled_rows(), RUBRICS, tmp_path / "a.json")
    found = {row["id"]: row for row in read_probing_rows(tmp_path / "a.json")}
    for row in labelled_rows():
        scores = {aspect: score for aspect, score in row["scores"].items() if score is not None}
        assert found[row["id"]] == {**row, "scores": scores}


def test_a_balanced_probing_set_is_drawn_as_the_published_one(tmp_path):
    write_probing_set(labelled_rows(), RUBRICS, tmp_path / "a.json", balance_seed=731)
    made = json.loads((tmp_path / "a.json").read_text())
    assert list(made) == list(RUBRICS)
    for aspect, rows in made.items():
        by_score = {}
        for row in labelled_rows():
            if row["scores"][aspect] is not None:
                by_score.setdefault(row["scores"][aspect], []).append(row["id"])
        random.seed(731)
        n = min(map(len, by_score.values()))
        drawn = {(i, score) for score, ids in by_score.items() for i in random.sample(ids, n)}
        assert {(row["id"], row["score"]) for row in rows} == drawn and len(rows) == n * len(by_score)
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)


def test_a_probing_set_needs_a_rubric_for_each_label(tmp_path):
    with pytest.raises(DataFileError, match="a rubric for every aspect, but 'fluency' has none among 'logicality'"):
        write_probing_set(labelled_rows(), {"logicality": RUBRICS["logicality"]}, tmp_path / "a.json")


def test_a_filtered_file_is_what_evaluate_samples_keeps(tmp_path, pairs, make_judge):
    from support.models import aspect, feature

    judge = str(make_judge([aspect(name, [feature(2)]) for name in ASPECTS]))
    samples = [{"id": i, **pair} for i, pair in enumerate(pairs)]
    (tmp_path / "a_evaled.json").write_text(as_json(evaluate_samples(samples, judge)))
    convert(FormatsConfig(str(tmp_path / "a_evaled.json"), "filtered", top_percent=0.7))
    kept = json.loads((tmp_path / "a_filtered.json").read_text())
    assert kept == evaluate_samples(samples, judge, top_percent=0.7) and len(kept) == 2


def test_a_filter_needs_totals_and_a_share(tmp_path):
    row = {"id": 1, "question": "Why?", "prediction": "So.", "scores": {"fluency": None}}
    with pytest.raises(DataFileError, match="a total_score in every row, but row 0 has none"):
        write_filtered([row], tmp_path / "a.json", 0.5)
    with pytest.raises(DataFileError, match="a share from 0 to 1, but got 20"):
        write_filtered([row], tmp_path / "a.json", 20)
    assert filtered_path("x/a_Qwen3_multi_evaled.json").name == "a_Qwen3_multi_filtered.json"
    assert filtered_path("a.json").name == "a_filtered.json"


def test_formats_are_recognised_and_converted_to_each_other(tmp_path):
    row = {"id": 1, "question": "Why?", "answer": "So.", "prediction": "Since.", "sample": 0}
    row |= {"scores": dict.fromkeys(ASPECTS, 4), "reasons": {}, "justifications": {}}
    write_records([row], tmp_path / "records.jsonl")
    (tmp_path / "rubrics.json").write_text(json.dumps({aspect: RUBRICS["fluency"].to_dict() for aspect in ASPECTS}))
    files = {"teacher": "t.jsonl", "evaluated": "e.json", "probing": "p.json", "results": "r.json"}
    for to, file in files.items():
        rubrics = str(tmp_path / "rubrics.json")
        convert(FormatsConfig(str(tmp_path / "records.jsonl"), to, str(tmp_path / file), rubrics))
    assert detect(tmp_path / "records.jsonl") == "records"
    assert [detect(tmp_path / file) for file in list(files.values())[:3]] == ["teacher", "evaluated", "probing"]
    convert(FormatsConfig(str(tmp_path / "t.jsonl"), "records", str(tmp_path / "back.jsonl")))
    assert read_records(tmp_path / "back.jsonl") == [row]
    (evaluated,) = json.loads((tmp_path / "e.json").read_text())
    assert evaluated["total_score"] == 20 and evaluated["gold_answer"] == "So."
    del row["sample"]
    write_results([row], tmp_path / "r.json")
    assert detect(tmp_path / "r.json") == "results" and "scores" not in read_results(tmp_path / "r.json")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "xml"}, "--to expects records, results, .*, but got 'xml'"),
        ({"to": "probing"}, "expects each aspect's rubric"),
        ({"to": "results", "output": None}, "--to results expects an --output"),
        ({"to": "teacher"}, r"expects rows with scores, but .*a.json \(results\) has none"),
    ],
)
def test_conversions_that_cannot_be_made_are_refused(tmp_path, changes, message):
    (tmp_path / "a.json").write_text(as_json([{"id": 1, "question": "Why?", "prediction": "So."}]))
    options = {"input": str(tmp_path / "a.json"), "output": str(tmp_path / "b.json"), **changes}
    with pytest.raises(DataFileError, match=message):
        convert(FormatsConfig(**options))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "question": "Why?"}, "row 0 expects the keys id, question, prediction.*, but lacks 'prediction'"),
        ({"id": 1, "question": 5, "prediction": "So."}, "a question and a prediction that are texts, but one is not"),
    ],
)
def test_malformed_rows_are_named(tmp_path, row, message):
    (tmp_path / "a.json").write_text(as_json([row]))
    with pytest.raises(DataFileError, match=message):
        read_results(tmp_path / "a.json")


def test_evaluated_rows_without_any_aspect_are_refused(tmp_path):
    (tmp_path / "a.json").write_text(as_json([{"id": 1, "question": "?", "prediction": "!", "total_score": 3}]))
    with pytest.raises(DataFileError, match="row 0 expects scores of tone, but has none of them"):
        read_evaluated(tmp_path / "a.json", ["tone"])


def test_the_command(tmp_path, capsys):
    (tmp_path / "a.json").write_text(as_json([{"id": 1, "question": "Why?", "gold_answer": "Y", "prediction": "So."}]))
    main(["convert", f"--input={tmp_path / 'a.json'}", "--to=records", f"--output={tmp_path / 'b.jsonl'}"])
    assert read_records(tmp_path / "b.jsonl") == [{"id": 1, "question": "Why?", "answer": "Y", "prediction": "So."}]
    with pytest.raises(SystemExit, match="0"):
        main(["convert", "--help"])
    assert "--top-percent" in capsys.readouterr().out


def test_a_phrase_that_all_questions_share_is_not_taken_for_the_rubric(tmp_path):
    phrase = "Put the final answer, and the final answer alone, into a box."
    rows = [{**row, "question": f"{row['question']} {phrase}\n{row['id']} or 5"} for row in labelled_rows()]
    write_probing_set(rows, RUBRICS, tmp_path / "a.json")
    assert read_rubrics(tmp_path / "a.json") == RUBRICS
    assert {row["question"] for row in read_probing_rows(tmp_path / "a.json")} == {row["question"] for row in rows}


TEACHER_ROW = {"id": 1, "question": "Why?", "prediction": "So."}


def test_two_classes_are_made_of_scores_by_a_threshold_and_a_total_is_made_anew(tmp_path):
    rows = [TEACHER_ROW | {"id": i, "fluency": i, "logicality": 6 - i, "total_score": 6} for i in range(1, 6)]
    (tmp_path / "a_evaled.json").write_text(as_json(rows))
    for threshold, expected in ((4, [0, 0, 0, 1, 1]), (3, [0, 0, 1, 1, 1])):
        settings = {"binary": True, "threshold": threshold}
        convert(FormatsConfig(str(tmp_path / "a_evaled.json"), "evaluated", str(tmp_path / "b.json"), **settings))
        found = json.loads((tmp_path / "b.json").read_text())
        assert [row["fluency"] for row in found] == expected
        assert [row["logicality"] for row in found] == expected[::-1]
        assert [row["total_score"] for row in found] == [row["fluency"] + row["logicality"] for row in found]
    with pytest.raises(DataFileError, match="a longer scale than 0 and 1 to make binary, but fluency has none above 1"):
        convert(FormatsConfig(str(tmp_path / "b.json"), "records", str(tmp_path / "c.jsonl"), binary=True))


def test_own_rubrics_make_a_probing_set(tmp_path):
    texts = [{"id": i, "question": f"Why {i}?", "prediction": f"{i} it is."} for i in range(1, 5)]
    labelled = [row | {"scores": {"fluency": row["id"]}} for row in texts]
    write_records(labelled, tmp_path / "a.jsonl")
    convert(FormatsConfig(str(tmp_path / "a.jsonl"), "probing", str(tmp_path / "b.json"), rubrics="own"))
    (aspect, found), *_ = json.loads((tmp_path / "b.json").read_text()).items()
    assert aspect == "fluency" and "Cannot be read as text." in found[0]["eval_prompt"]
    assert [row["scores"] for row in read_probing_rows(tmp_path / "b.json")] == [row["scores"] for row in labelled]
