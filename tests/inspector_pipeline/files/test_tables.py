import io
import json
import sys

import pyarrow
import pyarrow.parquet
import pytest

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import check_target, read_rows, write_rows

ROWS = [
    {"question": 'A "quoted", one?\nTwo', "prediction": "é 😀", "n": 1},
    {"question": "b", "prediction": "c", "n": 2},
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_round_trip(tmp_path, suffix):
    path = str(tmp_path / f"rows{suffix}")
    write_rows(ROWS, path)
    expected = [{**row, "n": str(row["n"])} for row in ROWS] if suffix == ".csv" else ROWS
    assert read_rows(path) == expected


def test_json_is_written_as_the_published_tools_do(tmp_path):
    write_rows(ROWS, str(tmp_path / "x.json"))
    assert (tmp_path / "x.json").read_text() == json.dumps(ROWS, indent=4)


@pytest.mark.parametrize("text", [json.dumps(ROWS), "\n".join(map(json.dumps, ROWS)) + "\n\n"])
def test_standard_input_takes_json_and_json_lines(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_rows("-") == ROWS


def test_standard_output_is_json_lines(capsys):
    write_rows(ROWS, "-")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS


BAD = {
    "x.json": (b'{"question": "a"}', "expects a JSON array of objects, but begins with"),
    "y.json": (
        b'[{}, {"question": ',
        r"y\.json: item 2 expects JSON from here to the array's end, but: ",
    ),
    "z.json": (b"[1]", r"z\.json: item 1 expects an object, but got int"),
    "two.json": (b"[{}] [{}]", r"two\.json: item 2 expects nothing after the array's end"),
    "x.jsonl": (b'{"question": "a"}\n{"quest', r"x\.jsonl:2 expects a JSON object in UTF-8, but: Unterminated string"),
    "y.jsonl": (b"[]\n", r"y\.jsonl:1 expects an object, but got list"),
    "z.jsonl": (b"\xff\xfe{}", r"z\.jsonl:1 expects .* UTF-8, but: .*byte 0xff in position 0"),
    "x.csv": (b"question,prediction\na\n", r"x\.csv:2 expects 2 fields, but got 1"),
    "y.csv": (b"question,prediction\na,b,c\n", r"y\.csv:2 expects 2 fields, but got 3"),
    "z.csv": (b"question,prediction\na,\xff\n", r"z\.csv:2 expects UTF-8, but some of its bytes are not"),
    "x.parquet": (b"not parquet", "expects Parquet"),
    "x.txt": (b"", "expects a suffix of .json, .jsonl, .csv, .parquet, .arrow, but got '.txt'"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_files_say_what_is_wrong_and_where(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataFileError, match=message):
        read_rows(str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"gone\.json could not be read: No such file"):
        read_rows(str(tmp_path / "gone.json"))


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    (tmp_path / "x.csv").write_bytes("\ufeffquestion,prediction\na,b\n".encode())
    assert read_rows(str(tmp_path / "x.csv")) == [{"question": "a", "prediction": "b"}]


def test_targets_are_checked_before_work_is_done(tmp_path):
    with pytest.raises(DataFileError, match="expects a suffix"):
        check_target(str(tmp_path / "x.xlsx"))
    with pytest.raises(DataFileError, match="expects an existing folder"):
        check_target(str(tmp_path / "no" / "x.json"))
    check_target("-")


def test_columns_that_only_some_rows_have_are_kept(tmp_path):
    write_rows([ROWS[0], {**ROWS[1], "meta": "x"}], str(tmp_path / "x.parquet"))
    assert [row["meta"] for row in read_rows(str(tmp_path / "x.parquet"))] == [None, "x"]


def test_csv_holds_lists_and_objects_as_json(tmp_path):
    odd = {"a": ["x", {"b": None}], "c": {"d": [True]}, "e": []}
    write_rows([odd], str(tmp_path / "x.csv"))
    assert {name: json.loads(text) for name, text in read_rows(str(tmp_path / "x.csv"))[0].items()} == odd


def test_parquet_keeps_types(tmp_path):
    write_rows(ROWS, str(tmp_path / "x.parquet"))
    assert pyarrow.parquet.read_schema(tmp_path / "x.parquet").field("n").type == pyarrow.int64()
