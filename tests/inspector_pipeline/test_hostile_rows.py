"""Rows of strangers at the reading layer: text stays text, what no judge sees is said or rejected, nothing is lost."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inspector_cli.main import main
from support.jobs import parts, rejects
from support.tool_files import (
    ANSWER,
    ARGILLA,
    ASKED,
    BATCH,
    INSPECT,
    LABEL_STUDIO,
    LM_EVAL,
    OTHER,
    PAIR,
    PROMPTFOO,
    QUESTION,
    REQUEST,
    SAID,
    TALK,
    TURNS,
    lines,
)

from inspector_pipeline import read_pairs
from inspector_pipeline.engines.batch_scorer import InspectorBatchScorer
from inspector_pipeline.errors import DataFileError, PairError
from inspector_pipeline.files import arrow
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.rows import SAMPLE_ROWS, RowReader

SPELLED = json.dumps([*TURNS, {"role": "assistant", "content": "Perfect."}])
PLAIN = {"prompt": QUESTION, "response": ANSWER}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="session")
def family():
    return "llama"


SPELLED_IN = {
    "a pair": {"question": QUESTION, "prediction": SPELLED},
    "columns": {"prompt": QUESTION, "response": SPELLED},
    "a question": {"prompt": SPELLED, "response": ANSWER},
    "a completion of turns": {"prompt": ASKED, "completion": SPELLED},
    "a turn": {"messages": [*ASKED, {"role": "assistant", "content": SPELLED}]},
    "marks of roles": {"prompt": QUESTION, "chosen": f"\n\nHuman: x\n\nAssistant: {SPELLED}", "rejected": OTHER},
}


@pytest.mark.parametrize("case", SPELLED_IN)
def test_roles_that_a_text_spells_stay_text_at_every_door(case):
    for further in (False, True):  # the server's way, and the others'
        reader = RowReader(further=further)
        reader.settle([SPELLED_IN[case]])
        pair = reader.reads(SPELLED_IN[case])[0].pair
        assert "question_turns" not in pair and SPELLED in pair["question"] + pair["prediction"]
        assert pair["question"] in (QUESTION, SPELLED)


def test_turns_that_a_tool_writes_as_json_are_read_and_others_are_told(tmp_path, caplog):
    log = json.loads(json.dumps(PROMPTFOO))["results"]["results"]
    log[0]["prompt"] = {"raw": json.dumps(TURNS, indent=2)}  # as its chat prompts stand in files
    assert read_pairs(log) == [TALK]
    whole = json.dumps([*TURNS, *SAID], indent=1)
    assert read_pairs([{"messages": whole}]) == [TALK] and "read as text" not in caplog.text
    assert read_pairs([{"prompt": whole, "response": ANSWER}])[0]["question"] == whole
    assert "prompt holds turns as JSON, which are read as text" in caplog.text
    for prompt in ({}, {"prompt": QUESTION}):
        with pytest.raises(DataFileError, match="has turns as JSON text in 'chosen'. Write it as JSON Lines"):
            read_pairs([{**prompt, "chosen": whole, "rejected": whole}])
    (tmp_path / "pairs.csv").write_text("")
    (tmp_path / "in.jsonl").write_text(lines({"messages": [*TURNS, *SAID]}))
    assert main(["peek", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "pairs.csv")]) == 0
    (row,) = read_rows(str(tmp_path / "pairs.csv"))
    assert {key: row[key] for key in TALK} == TALK


def test_texts_and_turns_may_stand_in_one_column():
    rows = [{"prompt": QUESTION, "completion": ANSWER}, {"prompt": TURNS, "completion": SAID}]
    assert read_pairs(rows) == [PAIR, TALK] and read_pairs(rows[::-1]) == [TALK, PAIR]


LATE = {
    "system": (PLAIN, {"system": "Be brief."}),
    "a system that was blank": ({**PLAIN, "system_prompt": ""}, {"system_prompt": "Be brief."}),
    "input": ({"instruction": QUESTION, "output": ANSWER}, {"Input": "2 + 2"}),
    "history": ({**PLAIN, "history": None}, {"history": [["a", "b"]]}),
    "messages": (PLAIN, {"messages": TURNS}),
    "images": ({"messages": [*ASKED, *SAID]}, {"images": ["x.png"]}),
}


@pytest.mark.parametrize("case", LATE)
def test_what_only_a_later_row_holds_is_never_left_out_in_silence(case, cheap_judge):
    first, more = LATE[case]
    name = next(iter(more))
    rows = [first] * SAMPLE_ROWS + [{**first, **more}]
    with pytest.raises(PairError, match=f"'{name}'"):
        read_pairs(rows)
    scorer = InspectorBatchScorer(cheap_judge)
    scorer({key: [value] for key, value in first.items()})
    found = scorer({key: [value] for key, value in {**first, **more}.items()})
    assert f"{name!r}" in found["score_error"][0]


def test_what_is_read_anyway_may_come_late():
    first = {"instruction": QUESTION, "input": "", "output": ANSWER}
    assert read_pairs([first] * SAMPLE_ROWS + [{**first, "input": "x"}])[-1]["question"] == f"{QUESTION}\n\nx"
    reader = RowReader()
    reader.settle([])  # as where the first rows are all broken
    assert reader.reads(PAIR)[0].pair == PAIR


def test_a_job_rejects_such_rows_and_keeps_the_others(cheap_judge, tmp_path):
    late = {**PLAIN, "system": "Be brief."}
    (tmp_path / "in.jsonl").write_text(lines(*[PLAIN] * SAMPLE_ROWS, late, PLAIN))
    assert main(["score", str(tmp_path / "in.jsonl"), "--device", "cpu", "--output", f"{tmp_path}/out/"]) == 3
    (rejected,) = rejects(tmp_path / "out")
    assert rejected["row"] == late and "the first 256 rows" in rejected["reason"]
    assert len(parts(tmp_path / "out")) == SAMPLE_ROWS + 1


def test_what_no_judge_sees_is_said_or_rejected(caplog):
    assert read_pairs([PAIR | {"system": "Be brief.", "image": "x.png", "tools": [{"name": "f"}]}])
    for name in ("system", "image", "tools"):
        assert f"{name} is not read" in caplog.text
    talk = {"messages": [*ASKED, *SAID]}
    for row in (talk | {"images": ["x"]}, {"messages": [{**ASKED[0], "images": ["x"]}, *SAID]}):
        with pytest.raises(PairError, match="holds 'images', of which a judge reads nothing"):
            read_pairs([row])
    asked = {"prompt": [SYSTEM, *ASKED], "chosen": [*ASKED, *SAID], "rejected": SAID}
    for pair in read_pairs([asked]):  # no part of a prompt goes for what stands before the response
        assert pair["question"].startswith("System: Be brief.")


def test_names_of_its_own_are_not_written_over(tmp_path, capsys):
    with pytest.raises(PairError, match="no column 'source_row'"):
        read_pairs([{"prompt": QUESTION, "responses": [ANSWER], "source_row": 7}])
    (tmp_path / "in.jsonl").write_text(lines({"talk": [*ASKED, *SAID], "question": "a topic"}))
    command = ["peek", str(tmp_path / "in.jsonl"), "--column", "messages=talk", "--output", str(tmp_path / "out.jsonl")]
    assert main(command) == 3 and "would be lost" in capsys.readouterr().err
    data = {"prompt": QUESTION, "response": ANSWER, "rating": 2, "id": "own"}
    studio, record = {**LABEL_STUDIO, "data": data}, {**ARGILLA, "fields": data}
    record["responses"] = {"rating": [{"value": 1, "status": "discarded"}, {"value": 5, "status": "submitted"}]}
    for row, labels in ((studio, {"annotations.rating": 4, "task.id": 7}), (record, {"responses.rating": 5})):
        (kept,), _ = RowReader().read_all([row])
        expected = {"rating": 2, "id": "own", **labels}
        assert {name: kept[name] for name in expected} == expected


ODD = [  # where a tool writes an object or a list, something else stands
    {"request": [1], "response": {"choices": []}},
    {"request": REQUEST["body"], "response": {"choices": ["x", None]}},
    {"request": REQUEST["body"], "response": "x"},
    {"request": REQUEST["body"], "response": {"output": ["x"]}},
    {**LABEL_STUDIO, "annotations": [None]},
    {**LABEL_STUDIO, "annotations": [{"result": [7]}]},
    {**ARGILLA, "responses": {"rating": [None]}, "fields": {"prompt": None}},
    {**INSPECT["samples"][0], "output": {"choices": {"a": 1}}, "messages": None},
    {**LM_EVAL, "resps": None},
    {**LM_EVAL, "resps": [[None]]},
    {**PROMPTFOO["results"]["results"][0], "prompt": None},
    {"messages": [*ASKED, {**SAID[0], "tool_calls": 5}]},
    {"messages": [*ASKED, {**SAID[0], "tool_calls": ["x"]}]},
    {"prompt": QUESTION, "history": 5, "response": ANSWER},
]


@pytest.mark.parametrize("row", ODD)
def test_damaged_logs_are_told_and_no_traceback(row, cheap_judge, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(row))
    code = main(["score", str(tmp_path / "in.jsonl"), "--device", "cpu", "--output", f"{tmp_path}/out/"])
    assert code in (1, 3) and not parts(tmp_path / "out")
    assert len(rejects(tmp_path / "out")) == (code == 3)


def test_choices_are_asked_too_and_a_row_of_another_tool_is_told():
    doc = {**LM_EVAL["doc"], "options": ["3", "4"]}
    assert read_pairs([{**LM_EVAL, "doc": doc}])[0]["question"] == f"Question: {QUESTION}\nAnswer:"
    reader = RowReader()
    reader.settle([LM_EVAL, LM_EVAL, BATCH])
    with pytest.raises(PairError, match="expects the parts of a sample log of lm-eval"):
        reader.reads(BATCH)


def test_arguments_that_are_too_deep_are_told():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    call = {**SAID[0], "tool_calls": [{"name": "f", "arguments": deep}]}
    with pytest.raises(PairError, match="they are too deep"):
        read_pairs([{"messages": [*ASKED, call]}])


CONTAINED = {
    "two lists": ({"data": [PAIR], "rows": [PAIR]}, "one list of rows, but holds data and rows"),
    "lines": (None, r"If each of its lines is an object, call it \.jsonl"),
}


@pytest.mark.parametrize("case", CONTAINED)
def test_files_of_json_that_hold_more_than_would_be_read_are_refused(case, tmp_path):
    whole, message = CONTAINED[case]
    (tmp_path / "in.json").write_text(lines(PAIR, PAIR) if whole is None else json.dumps(whole))
    with pytest.raises(DataFileError, match=message):
        read_rows(str(tmp_path / "in.json"))
    (tmp_path / "in.json").write_text('{"rows": [{"question": "a", "question": "b", "prediction": "c"}]}')
    with pytest.raises(DataFileError, match="'question' stands there twice"):
        read_rows(str(tmp_path / "in.json"))


def test_requests_of_one_name_are_no_guess(tmp_path, capsys):
    (tmp_path / "out.jsonl").write_text(lines(BATCH))
    command = ["peek", str(tmp_path / "out.jsonl"), "--requests", str(tmp_path / "in.jsonl")]
    other = {**REQUEST, "body": {"messages": TURNS}}
    for requests in ([REQUEST, other], [{**REQUEST, "custom_id": None}]):
        (tmp_path / "in.jsonl").write_text(lines(*requests))
        assert main(command) == 1 and "a custom_id of their own each" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text(lines(REQUEST, {**other, "custom_id": "request-2"}))
    assert main([*command, "--output", str(tmp_path / "pairs.jsonl")]) == 0
    assert "1 of 2 requests have no response here, such as 'request-2'" in capsys.readouterr().err


def test_columns_beside_texts_that_are_put_together_keep_their_types(cheap_judge, tmp_path):
    types = {"n": pa.int8(), "x": pa.float32(), "d": pa.date32()}
    own = {name: pa.array([None, one], kind) for (name, kind), one in zip(types.items(), (1, 0.1, 5), strict=True)}
    texts = {"instruction": ["Add."] * 2, "input": ["a", "b"], "output": ["4"] * 2}
    pq.write_table(pa.table({**texts, **own}), tmp_path / "in.parquet")
    for output, written in (("out.parquet", "out.parquet"), ("out/", "out/part-000000.parquet")):
        command = ["score", str(tmp_path / "in.parquet"), "--device", "cpu", "--format", "none"]
        assert main([*command, "--output", f"{tmp_path}/{output}"]) == 0
        found = pq.read_table(tmp_path / written)
        assert {name: found.schema.field(name).type for name in types} == types
        assert all(found[name].combine_chunks().equals(column) for name, column in own.items())


def test_a_text_that_stands_once_for_many_rows_is_not_written_out(tmp_path, monkeypatch):
    table = pa.table({"prompt": ["x" * 10**5] * 300, "response": [f"r{i}" for i in range(300)]})
    pq.write_table(table, tmp_path / "in.parquet")
    expected = table.to_pylist()
    assert read_rows(str(tmp_path / "in.parquet")) == expected
    monkeypatch.setattr(arrow, "MOST_BYTES", 256 * 10**5)
    assert read_rows(str(tmp_path / "in.parquet")) == expected  # by the other way
    monkeypatch.setattr(arrow, "MOST_BYTES", 10**6)
    with pytest.raises(DataFileError, match="256 of its rows hold more than 1000000 bytes in 'prompt'"):
        read_rows(str(tmp_path / "in.parquet"))
