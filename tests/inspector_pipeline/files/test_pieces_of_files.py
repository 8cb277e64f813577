"""Borders of what is read and written: sizes, depths, suffixes, and what stands where in a file."""

import csv
import gzip
import hashlib
import io
import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files import arrow as arrows
from inspector_pipeline.files import sources
from inspector_pipeline.files import text as texts
from inspector_pipeline.files.arrow import (
    _as_bytes,
    _plain_type,
    _rows,
    plain,
    read_batches,
    read_schema,
    rows_of,
    table_entries,
)
from inspector_pipeline.files.compressed import kind_of, opened
from inspector_pipeline.files.csv_quotes import _end_of_broken, _is_open, _Lines, broken_stretch
from inspector_pipeline.files.disk import file_sha256, json_text, write_atomically, write_whole
from inspector_pipeline.files.entries import SMALLEST_SHARE, Entry, cut, finite, json_line, share_of, strict_json
from inspector_pipeline.files.sources import find_sources, skipped_files
from inspector_pipeline.files.tables import (
    Source,
    check_rows,
    check_target,
    file_source,
    is_readable,
    read_json,
    read_rows,
    read_table,
    table_of,
    write_rows,
    write_table,
)
from inspector_pipeline.files.text import CONTAINERS, MAX_DEPTH, csv_columns


def test_an_entry_is_sound_and_unnumbered_until_it_is_said_otherwise():
    entry = Entry("x:1", {"a": 1})
    assert (entry.fault, entry.raw, entry.cells, entry.number, entry.pair) == (None, None, None, -1, None)
    assert list(cut(range(5), 2)) == [[0, 1], [2, 3], [4]] and list(cut([], 2)) == []
    assert [share_of(n, share) for n, share in ((100, 0.29), (10, 1.0), (10, 0.0), (3, 1 / 3), (7, 0.999))] == [
        29,
        10,
        0,
        1,
        6,
    ]
    assert share_of(10**9 + 7, 0.123456789) == (10**9 + 7) * 123456789 // 10**9


def test_json_is_strict_however_deep():
    value = {"a": [float("nan"), {"b": (float("inf"), 1.5, None)}], "c": float("-inf")}
    assert finite(value) == {"a": [None, {"b": [None, 1.5, None]}], "c": None}
    assert strict_json(value) == '{"a": [null, {"b": [null, 1.5, null]}], "c": null}'
    assert strict_json({"a": Decimal("1.5")}) == '{"a": "1.5"}'
    assert strict_json({"a": Decimal(1), "b": float("nan")}, indent=1) == '{\n "a": "1",\n "b": null\n}'
    assert json_line({"é": 1}) == '{"é": 1}\n'.encode() and json_line("\ud800") == b'"\\ud800"\n'
    assert (
        json_text({"é": [1]}) == '{\n "é": [\n  1\n ]\n}\n' and json_text([float("nan"), "é"]) == '[\n null,\n "é"\n]\n'
    )


def test_files_are_written_whole_and_leftovers_go(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b" / "[x].json"
    write_atomically(path, "é")
    write_atomically(path, "é2")
    assert path.read_bytes() == "é2".encode()
    (path.parent / ".[x].json.123.tmp").touch()
    (path.parent / ".y.json.123.tmp").touch()
    (path.parent / ".[x].json.tmp").touch()
    write_whole(path, b"new")
    named, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda scratch, target: named.append(scratch.name) or replace(scratch, target))
    write_whole(path, b"new")
    assert named == [f".[x].json.{os.getpid()}.tmp"]
    gone = path.parent / ".[x].json.9.tmp"
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [gone])  # by another process, meanwhile
    write_whole(path, b"new")
    monkeypatch.undo()
    assert sorted(one.name for one in path.parent.iterdir()) == [".[x].json.tmp", ".y.json.123.tmp", "[x].json"]
    assert file_sha256(path) == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "folder", b"x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "folder"]


def test_a_suffix_says_format_and_compression(tmp_path):
    assert [kind_of(Path(name)) for name in ("a.JSONL", "a.csv.GZ", "a.gz", "a.json.zst", "a.gz.json")] == [
        (".jsonl", ""), (".csv", ".gz"), ("", ".gz"), (".json", ".zst"), (".json", "")
    ]  # fmt: skip
    named = ("a.csv", "a.parquet", "a.ARROW", "a.csv.gz", "a.parquet.gz", "a.txt", "a")
    assert [is_readable(Path(name)) for name in named] == [True, True, True, True, False, False, False]
    for name in ("x.jsonl.gz", "x.jsonl.zst"):
        (tmp_path / name).touch()
        with pytest.raises(EOFError, match="it is empty"):
            opened(tmp_path / name)
    (tmp_path / "x.jsonl").touch()
    with opened(tmp_path / "x.jsonl") as file:
        assert file.read() == b""
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(b"abc"))
    with opened(tmp_path / "y.jsonl.gz") as file:
        assert file.read() == b"abc"
    with pa.CompressedOutputStream(str(tmp_path / "y.jsonl.zst"), "zstd") as file:
        file.write(b"abc")
    with opened(tmp_path / "y.jsonl.zst") as file:
        assert file.read() == b"abc"


def entries(path, data):
    path.write_bytes(data)
    return [(one.place, one.row, one.fault, one.raw) for one in file_source(path, path.name).entries(None)]


def test_lines_have_their_places_and_blank_ones_are_none(tmp_path, monkeypatch):
    bom = b"\xef\xbb\xbf"
    found = entries(tmp_path / "x.jsonl", bom + b'{"a": 1}\n\n  \n{"a": \xff}\r\n[1]\n' + bom + b'{"a": 2}\n{"a": 3}')
    assert [(place, row) for place, row, fault, _ in found if fault is None] == [
        ("x.jsonl:1", {"a": 1}),
        ("x.jsonl:7", {"a": 3}),
    ]
    assert [place for place, _, fault, _ in found if fault] == ["x.jsonl:4", "x.jsonl:5", "x.jsonl:6"]
    assert found[1][3] == '{"a": \\xff}' and found[2][2:] == ("expects an object, but got list", "[1]")
    monkeypatch.setattr(texts, "LONGEST_LINE", 10)
    found = entries(tmp_path / "x.jsonl", b'{"a": 10}\n{"a": 100}\n{"a": 1}\n{"a": 1000}')
    assert [(place, row) for place, row, *_ in found] == [
        ("x.jsonl:1", {"a": 10}), ("x.jsonl:2", None), ("x.jsonl:3", {"a": 1}), ("x.jsonl:4", None), ("x.jsonl:4", None)
    ]  # fmt: skip
    assert found[3][3] + found[4][3] == '{"a": 1000}' and "at most 10 bytes, of which this is a piece" in found[3][2]


@pytest.mark.parametrize(("depth", "is_read"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_depth_is_counted_from_the_row(tmp_path, depth, is_read):
    text = '{"a": ' * depth + "1" + "}" * depth
    for name, data in (("x.jsonl", text), ("x.json", f"[{text}]")):
        ((_, row, fault, raw),) = entries(tmp_path / name, data.encode())
        assert (fault is None) == is_read and (row is not None) == is_read
        assert is_read or (f"at most {MAX_DEPTH} deep" in fault and raw == text)


def test_tables_that_name_their_columns_once_are_rows_and_several_lists_are_none(tmp_path):
    def read(value):
        return [row for _, row, *_ in entries(tmp_path / "x.json", json.dumps(value).encode())]

    assert read({"columns": ["a", "b"], "data": [[1, 2], [3, None]]}) == [{"a": 1, "b": 2}, {"a": 3, "b": None}]
    for wrong in (
        {"columns": ["a", "a"], "data": [[1, 2]]}, {"columns": ["a"], "data": [[1, 2]]}, {"columns": ["a"], "data": 1},
        {"columns": ["a", 1], "data": [[1, 2]]}, {"columns": "a", "data": [[1]]}, {"columns": ["a"], "data": [1]},
        {"columns": ["a"], "data": []},
    ):  # fmt: skip
        with pytest.raises(DataFileError, match="expects a JSON array of objects"):
            read(wrong)
    with pytest.raises(DataFileError, match="one list of rows, but holds data and rows. Write the rows"):
        read({"rows": [{"a": 1}], "data": [{"a": 2}]})
    assert read({"rows": [{"a": 1}], "data": [], "columns": []}) == [{"a": 1}]
    with pytest.raises(DataFileError, match="expects each key once in an object, but 'a' stands there twice"):
        entries(tmp_path / "x.json", b'{"data": [{"a": 1, "b": 2, "a": 3}]}')


def test_an_object_of_more_parts_than_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MOST_PARTS", 4)
    assert len(entries(tmp_path / "x.json", b'{"data": [{"a": 1}, {"a": 2}]}')) == 2
    for more in (b"{}", b"[]"):
        with pytest.raises(DataFileError, match="expects at most 4 lists and objects. Write its rows as JSON Lines"):
            entries(tmp_path / "x.json", b'{"data": [{"a": 1}, {"a": %s}]}' % more)


def test_what_cannot_be_read_is_told_without_its_lines_end(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_DEPTH", 1)
    twice, deep = b'{"a": 1, "a": 2}', b'{"a": [[]]}'
    found = entries(tmp_path / "x.jsonl", twice + b" \n" + deep + b"\r\n")
    assert [raw for *_, raw in found] == [twice.decode(), deep.decode()] and "'a' stands there twice" in found[0][2]


def test_rows_are_written_to_standard_output_after_what_was_said_before(monkeypatch):
    told = []
    buffer = SimpleNamespace(writelines=lambda lines: told.extend(lines))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=lambda: told.append("flushed"), buffer=buffer))
    write_rows([{"a": 1}], "-")
    monkeypatch.undo()
    assert told == ["flushed", b'{"a": 1}\n']


def test_rows_that_tools_put_into_objects_are_found(tmp_path):
    rows = [{"a": 1}, {"a": 2}]
    for path in CONTAINERS:
        whole = {"other": 3, path[0]: {path[1]: rows} if len(path) > 1 else rows}
        found = entries(tmp_path / "x.json", json.dumps(whole).encode())
        assert [(place, row) for place, row, *_ in found] == [("x.json: item 1", rows[0]), ("x.json: item 2", rows[1])]
    for nothing in ({"data": []}, {"data": [1]}, {"data": {"a": 1}}, {"else": rows}, {}):
        with pytest.raises(DataFileError, match="expects a JSON array of objects, but begins with '{"):
            entries(tmp_path / "x.json", json.dumps(nothing).encode())
    with pytest.raises(DataFileError, match="begins with ''"):
        entries(tmp_path / "x.json", b"  \n ")
    with pytest.raises(DataFileError, match="If each of its lines is an object, call it .jsonl"):
        entries(tmp_path / "x.json", b'{"a": 1}\n{"a": 2}\n')


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_an_array_is_read_the_same_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(texts, "CHUNK", chunk)
    rows = [{"a": 'é\\" ]}' * 5}, {"b": [1, {"c": None}]}, {"d": True, "e": -1.5e3}]
    text = "\n [ " + " ,\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + " ]\n "
    assert [row for _, row, *_ in entries(tmp_path / "x.json", text.encode())] == rows
    for broken, kept, rest in (
        (text.replace("-1500.0", "-1500x"), 2, '{"d"'),
        (text[:-4], 2, '{"d"'),  # an object that may go on is none
        (text.replace('{"b"', '{b"'), 1, "{b"),
        (text + " [1]", 3, "[1]"),
    ):
        found = entries(tmp_path / "x.json", broken.encode())
        assert [row for _, row, *_ in found if row] == rows[:kept]
        assert "".join(raw for *_, raw in found if raw).startswith(rest), broken
        assert len(found) > kept and found[kept][0] == f"x.json: item {kept + 1}"


def test_a_fault_is_certain_where_no_further_text_could_mend_it(monkeypatch):
    text = "x" * 40

    def is_certain(pos, at=0, said="Expecting value"):
        return texts._is_certain(json.JSONDecodeError(said, text, pos), text, at)

    assert [is_certain(pos) for pos in (0, 23, 24, 39)] == [True, True, False, False]
    assert not is_certain(0, said="Unterminated string starting at") and texts._is_certain(RecursionError(), text, 0)
    monkeypatch.setattr(texts, "LONGEST_ITEM", 30)
    assert [is_certain(39, at) for at in (9, 10, 11)] == [True, False, False]


def test_bytes_that_are_no_utf8_are_told_but_spelt_surrogates_are_text(tmp_path):
    found = entries(tmp_path / "x.json", b'[{"a": "\xff"}, {"a": "\\udc80x"}, {"a": 1}]')
    assert found[0][2] == "expects UTF-8, but some of its bytes are not" and found[2][1:3] == ({"a": 1}, None)
    found = entries(tmp_path / "x.csv", b"q,p\n\xff,1\nb,2\nc\nd,\xfe,3\n")
    assert [(place, fault and fault[:20]) for place, _, fault, _ in found] == [
        ("x.csv:2", "expects UTF-8, but s"), ("x.csv:3", None), ("x.csv:4", "expects 2 fields, bu"),
        ("x.csv:5", "expects 2 fields, bu"),
    ]  # fmt: skip
    assert found[3][3] == '["d", "\ufffd", "3"]' and found[2][2].endswith("but got 1") and found[2][3] == '["c"]'


def test_turns_in_csv_are_opened_and_a_stretch_may_be_all_that_is_left(tmp_path, monkeypatch):
    rows = b'question_turns,prediction\n"[{""role"": ""user"", ""content"": ""Q""}]",p\nno list,p\n,p\n'
    turns = [row["question_turns"] for _, row, *_ in entries(tmp_path / "x.csv", rows)]
    assert turns == [[{"role": "user", "content": "Q"}], "no list", None]
    found = entries(tmp_path / "x.csv", "é,p\n1,2\né,p\n".encode())
    assert [(row, raw) for _, row, _, raw in found] == [({"é": "1", "p": "2"}, None), (None, '["é", "p"]')]
    monkeypatch.setattr(texts, "broken_stretch", lambda *_: range(3, 9))
    found = entries(tmp_path / "x.csv", b"a,b\n1,2\n3,4\n \n5,\xff\n")
    assert [(place, row, raw) for place, row, _, raw in found] == [
        ("x.csv:2", {"a": "1", "b": "2"}, None), ("x.csv:3", None, "3,4"), ("x.csv:5", None, "5,\ufffd")
    ]  # fmt: skip
    assert all(fault.endswith("from line 3 on") for *_, fault, _ in found[1:])


def test_a_csv_header_is_read_alone(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfa,"b\nc"\n1,2\n')
    assert csv_columns(path) == ["a", "b\nc"] and file_source(path, "x.csv").header() == ["a", "b\nc"]
    assert [one.place for one in file_source(path, "x").entries(None)] == ["x.csv:3"]
    path.write_bytes(b"")
    assert csv_columns(path) == [] and list(file_source(path, "x").entries(None)) == []
    for wrong in (b"a,a\n", b"a,\xff\n", b'a"b"c,"x"y\n'):
        path.write_bytes(wrong)
        with pytest.raises(DataFileError, match="header"):
            csv_columns(path)
    path = tmp_path / "x.jsonl"
    path.write_text("{}")
    assert file_source(path, "x").header() == []
    assert Source("x", lambda: "", None, lambda _: iter([])).header() == []


def test_a_line_of_csv_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "LONGEST_LINE", 8)
    assert len(entries(tmp_path / "x.csv", b"q,p\n1234,67\n12345,7")) == 2
    monkeypatch.setattr(texts, "LONGEST_LINE", 2**20)
    csv.field_size_limit(100)  # as another part of a program may have set it
    assert len(entries(tmp_path / "x.csv", b"q,p\n" + b"x" * 200_000 + b",7\n")[0][1]["q"]) == 200_000
    monkeypatch.setattr(texts, "LONGEST_LINE", 8)
    with pytest.raises(DataFileError, match="lines of at most 8 characters"):
        entries(tmp_path / "x.csv", b"q,p\n1234,6789\n")


@pytest.mark.parametrize(
    ("line", "before", "after"),
    [
        ("a,b\n", False, False), ("a,b\n", True, True), ('a,"b\n', False, True), ('a,"b"\n', False, False),
        ('b"\n', True, False), ('b",c\n', True, False), ('b"c\n', True, True), ('"a\n', False, True),
        ('a"b\n', False, False),
        ('b""c\n', True, True), ('b"', True, False), ('b"\r\n', True, False), ('a,"b","c\n', False, True),
    ],
)  # fmt: skip
def test_a_field_is_open_after_a_line(line, before, after):
    assert _is_open(line, before) is after


def test_the_end_of_a_broken_record_is_where_both_readings_agree():
    def end(first, *rest):
        taken = []
        source = _Lines(iter([first, *rest]), taken, 1)
        next(source)
        return _end_of_broken(source, taken)

    assert end('a,"b"c\n', 'd"\n', "e\n") == 5
    assert end('a"b"c\n', "e\n") == 3
    assert end('a,"b\n', "c\n", 'd"\n', "e\n") == 5
    assert end('a,"b"c\n', "d\n", "e\n") == 3  # no further quote: the first reading's end is taken


def test_a_stretch_has_its_lines_numbers():
    def stretch(text, header=1):
        return broken_stretch(iter(text.splitlines(keepends=True)), 2, header)

    assert stretch("a,b\nc,d\n") == range(0) and not stretch('"a","b ""c"""\n')
    assert stretch('a,b\nc,"d"x\ne,f\n') == range(3, 4) and stretch('a,b\nc,"d"x\ne,f\n', header=4) == range(6, 7)
    assert stretch('c,"d"x\ne,f\ng,"h"x\ni,j\n') == range(2, 5)


# Arrow and Parquet


def test_types_are_made_plain_however_deep():
    view, flat = pa.string_view(), pa.large_string()
    for kind, expected in (
        (view, flat),
        (pa.binary_view(), pa.large_binary()),
        (pa.string(), pa.string()),
        (pa.list_view(view), pa.list_(flat)),
        (pa.large_list_view(pa.int8()), pa.large_list(pa.int8())),
        (pa.list_(view), pa.list_(flat)),
        (pa.large_list(view), pa.large_list(flat)),
        (pa.list_(view, 2), pa.list_(flat, 2)),
        (pa.struct([("a", view), ("b", pa.int8())]), pa.struct([("a", flat), ("b", pa.int8())])),
        (pa.map_(view, view), pa.map_(flat, flat)),
        (pa.map_(view, view, keys_sorted=True), pa.map_(flat, flat, keys_sorted=True)),
        (pa.dictionary(pa.int8(), view, ordered=True), pa.dictionary(pa.int8(), flat, ordered=True)),
    ):
        assert _plain_type(kind) == expected, kind
    assert plain(pa.schema([("a", view)], {"k": "v"})) == pa.schema([("a", flat)])
    assert plain(pa.schema([("a", view)], {"k": "v"})).metadata == {b"k": b"v"}


def test_types_of_the_same_bytes():
    for kind, expected in (
        (pa.string(), pa.binary()),
        (pa.large_string(), pa.large_binary()),
        (pa.string_view(), pa.binary_view()),
        (pa.int64(), pa.int64()),
        (pa.timestamp("s"), pa.binary(8)),
        (pa.time32("s"), pa.binary(4)),
        (pa.decimal128(5), pa.binary(16)),
        (pa.list_(pa.string()), pa.list_(pa.binary())),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.binary())),
        (pa.list_view(pa.string()), pa.list_view(pa.binary())),
        (pa.large_list_view(pa.string()), pa.large_list_view(pa.binary())),
    ):
        assert _as_bytes(kind) == expected, kind
    assert _as_bytes(pa.dictionary(pa.int8(), pa.string(), ordered=True)).ordered


def test_texts_that_stand_once_in_a_file_are_written_out_up_to_a_bound(monkeypatch):
    whole = pa.record_batch({"n": [1, 2, 3], "t": ["ab", "ab", None], "b": [b"x", b"yy", b"x"]})
    packed = pa.record_batch([whole["n"], whole["t"].dictionary_encode(), whole["b"].dictionary_encode()], list("ntb"))
    assert arrows._unpacked(packed, whole.schema) == whole == arrows._unpacked(whole, whole.schema)
    nothing = pa.record_batch([pa.array([None, None], pa.string()).dictionary_encode()], ["t"])
    assert arrows._unpacked(nothing, pa.schema([("t", pa.string())])).to_pylist() == [{"t": None}] * 2
    monkeypatch.setattr(arrows, "MOST_BYTES", 4)
    assert arrows._unpacked(packed, whole.schema) == whole
    monkeypatch.setattr(arrows, "MOST_BYTES", 3)
    with pytest.raises(pa.ArrowInvalid, match="3 of its rows hold more than 3 bytes in 't'"):
        arrows._unpacked(packed, whole.schema)


def test_a_small_file_of_one_long_text_said_often_is_no_danger(tmp_path, monkeypatch):
    table = pa.table({"t": ["x" * 100] * 300, "n": list(range(300))})
    pq.write_table(table, tmp_path / "x.parquet")
    for most, is_read in ((256 * 100, True), (256 * 100 - 1, False), (2**30, True)):
        monkeypatch.setattr(arrows, "MOST_BYTES", most)
        if is_read:
            assert pa.Table.from_batches(read_batches(tmp_path / "x.parquet")) == table
        else:
            with pytest.raises(DataFileError, match="256 of its rows hold more than 25599 bytes in 't'"):
                list(read_batches(tmp_path / "x.parquet"))


def test_columns_of_texts_that_may_be_too_long_are_read_as_they_stand(monkeypatch):
    def chunk(name, size, has_dictionary=True):
        return SimpleNamespace(path_in_schema=name, total_uncompressed_size=size, has_dictionary_page=has_dictionary)

    monkeypatch.setattr(arrows, "MOST_BYTES", 100)
    chunks = [[chunk("t", 11), chunk("n", 99), chunk("p", 99, False)], [chunk("t", 1), chunk("b", 11), chunk("s", 10)]]
    groups = [SimpleNamespace(num_columns=3, column=own.__getitem__) for own in chunks]
    names = {"t": pa.string(), "n": pa.int64(), "p": pa.string(), "b": pa.binary(), "s": pa.large_string()}
    schema = SimpleNamespace(to_arrow_schema=lambda: pa.schema(list(names.items())))
    for rows, found in ((10, ["b", "t"]), (9, []), (10**9, ["b", "s", "t"])):
        metadata = SimpleNamespace(num_row_groups=2, row_group=groups.__getitem__, num_rows=rows)
        assert arrows._packed_columns(SimpleNamespace(schema=schema, metadata=metadata)) == found


def test_a_file_that_holds_other_rows_than_it_names_is_refused():
    batches = [pa.record_batch({"n": [1, 2]}), pa.record_batch({"n": [3]})]
    asked = []

    def iter_batches(**how):
        asked.append(how)
        return iter(batches)

    for rows in (3, 2, 4):
        file = SimpleNamespace(iter_batches=iter_batches, metadata=SimpleNamespace(num_rows=rows))
        found = arrows._parquet_batches(file)
        assert [next(found), next(found)] == batches
        if rows == 3:
            assert list(found) == []
        else:
            with pytest.raises(pa.ArrowInvalid, match=f"it names {rows} rows and holds 3"):
                next(found)
    assert asked == [{"batch_size": arrows.BATCH_ROWS}] * 3


def test_types_are_kept_of_columns_whose_values_make_them_again():
    assert arrows.kept_types(None, ("a",)) is None
    fields = {"a": pa.int32(), "used": pa.int8(), "d": pa.dictionary(pa.int8(), pa.string()), "l": pa.list_(pa.int8())}
    fields |= {"r": pa.run_end_encoded(pa.int32(), pa.int8()), "u": pa.dense_union([pa.field("x", pa.int8())])}
    found = arrows.kept_types(pa.schema(list(fields.items())), ("used",))
    assert found == pa.schema([("a", pa.int32()), ("l", pa.list_(pa.int8()))])


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_tables_are_read_batch_by_batch(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(arrows, "BATCH_ROWS", 3)
    table = pa.table({"n": list(range(10)), "t": [f"é{i}" for i in range(10)]})
    path = tmp_path / ("x.parquet" if kind == "parquet" else "x.ARROW")
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=5)
    else:
        make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    batches = list(read_batches(path))
    assert max(batch.num_rows for batch in batches) == 3 and pa.Table.from_batches(batches) == table
    assert read_schema(path) == table.schema and read_table(str(path)) == table
    found = list(table_entries(read_batches(path), "x", ["n", "no"]))
    assert [one.place for one in found] == [f"x: row {i}" for i in range(1, 11)]
    assert [one.row for one in found] == [{"n": i} for i in range(10)]
    cells, at = found[7].cells
    assert cells.slice(at, 1).to_pylist() == [{"n": 7, "t": "é7"}]
    assert list(table_entries(read_batches(path), "x", None))[9].row == {"n": 9, "t": "é9"}
    assert list(table_entries([table], "x", []))[0].row == {}


def test_values_that_python_cannot_hold_are_told_alone_and_kept_as_text():
    nanoseconds = pa.array([0, 1], pa.timestamp("ns"))
    found = list(_rows(pa.table({"t": nanoseconds, "n": [1, 2]})))
    assert found[0][0]["n"] == 1 and found[0][1] is None
    table = pa.table({"t": pa.array([b"ok", b"\xff"]).cast(pa.binary()).view(pa.string()), "n": [1, 2]})
    found = list(_rows(table))
    assert found[0] == ({"t": "ok", "n": 1}, None) and found[1][0] is None
    assert "expects values that Python can hold, but:" in found[1][1]
    assert rows_of(table) == [{"t": "ok", "n": 1}, {"t": "\\xff", "n": 2}]
    lists = pa.ListArray.from_arrays([0, 1, 2], table["t"].chunk(0))
    assert rows_of(pa.table({"l": lists}))[1]["l"] == "list<item: string> with bytes that are not UTF-8"
    years = pa.array([10**14], pa.timestamp("s"))
    assert isinstance(rows_of(pa.table({"y": years, "n": [7]}))[0]["y"], str)
    assert rows_of(pa.table({"y": years, "n": [7]}))[0]["n"] == 7


# What is found, and how it is written


def test_files_of_one_kind_are_found_in_order_and_others_named(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "x.txt", ".hidden.jsonl", "_own/d.jsonl", "_note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": 1}\n')
    assert [one.name for one in find_sources(str(tmp_path))] == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    left = [os.path.relpath(one, tmp_path) for one in skipped_files(str(tmp_path))]
    assert left == [".hidden.jsonl", "_own/d.jsonl", "x.txt"]
    (tmp_path / "_manifest.json").write_text("{}")
    assert [os.path.relpath(one, tmp_path) for one in skipped_files(str(tmp_path))] == ["x.txt"]
    assert [one.name for one in find_sources(f"{tmp_path}/[ab].jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [one.name for one in find_sources(str(tmp_path / "a.jsonl"))] == ["a.jsonl"]
    assert skipped_files(str(tmp_path / "a.jsonl")) == [] and skipped_files(f"{tmp_path}/*.jsonl") == []
    (tmp_path / "z.csv").write_text("a\n1\n")
    with pytest.raises(DataFileError, match=r"expects files of one kind, but got \.csv, \.jsonl"):
        find_sources(str(tmp_path))
    for nothing in ("no", "no*"):
        with pytest.raises(DataFileError, match="expects a file or a folder|expects files of"):
            find_sources(str(tmp_path / nothing))
    (tmp_path / "only").mkdir()
    for name in "abcd":
        (tmp_path / "only" / f"{name}.txt").touch()
    with pytest.raises(DataFileError, match=r"there is none\. It holds [^,]*a\.txt, [^,]*b\.txt, [^,]*c\.txt\. Check"):
        find_sources(str(tmp_path / "only"))


def test_a_place_is_a_file_before_it_is_a_pattern_and_what_is_wrong_with_it_is_told(tmp_path):
    (tmp_path / "[x].jsonl").write_text("{}\n")
    assert [one.name for one in find_sources(str(tmp_path / "[x].jsonl"))] == ["[x].jsonl"]
    (tmp_path / "x.txt").touch()
    for name, message in (
        ("x.txt", r"expects a suffix of .*, but got '\.txt'"),
        ("no.jsonl", "no.jsonl could not be read: No such file or directory. Check the path"),
        ("no", "expects a file or a folder, but there is none. For the id of a dataset"),
        ("no*", r"expects files of \.json.*, but there is none\. Check"),
    ):
        with pytest.raises(DataFileError, match=message):
            find_sources(str(tmp_path / name))
    with pytest.raises(DataFileError, match="expects a suffix of .* but got 'none'"):
        file_source(tmp_path / "no", "no")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataFileError, match="expects a regular file, since it is read more than once"):
        file_source(tmp_path / "pipe.jsonl", "pipe")
    assert (texts._in_words(ValueError("so")), texts._in_words(RecursionError())) == ("so", "RecursionError")


def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to(tmp_path / "closed")
    asked = set()
    may = lambda path, mode: asked.add(mode) or path.name == "open"  # noqa: E731
    monkeypatch.setattr(sources.os, "access", may)
    assert skipped_files(str(tmp_path)) == [str(tmp_path / name) for name in ("link", "closed")]
    assert asked == {os.R_OK | os.X_OK}


def test_a_split_of_a_dataset_is_a_source_of_its_name_files_and_rows(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    table, asked = pa.table({"n": [1, 2]}), []

    class Loaded:
        cache_files = [{"filename": str(tmp_path / name)} for name in "ab"]
        data = table

        def __len__(self):
            return 2

        def with_format(self, kind):
            asked.append(kind)
            return SimpleNamespace(iter=lambda batch_size: asked.append(batch_size) or iter([table]))

    class Missing(Exception):
        pass

    def load_dataset(*given, **how):
        if how["split"] == "none":
            raise Missing("there is none.")
        asked.append((given, how))
        return Loaded()

    exceptions = SimpleNamespace(DatasetsError=Missing)
    module = SimpleNamespace(load_dataset=load_dataset, exceptions=exceptions)
    monkeypatch.setitem(sys.modules, "datasets", module)
    (source,) = find_sources("org/x", "train", "en")
    assert (source.name, source.schema, source.path) == ("org/x/en/train", table.schema, None)
    hashed = " ".join(["train", "2", *(file_sha256(tmp_path / name) for name in "ab")])
    assert source.sha256() == hashlib.sha256(hashed.encode()).hexdigest()
    assert [one.place for one in source.entries(["n"])] == [f"org/x/en/train: row {i}" for i in (1, 2)]
    assert asked == [(("org/x", "en"), {"split": "train"}), "arrow", 256]
    assert find_sources("org/x", "train")[0].name == "org/x/train"
    with pytest.raises(DataFileError, match="The split 'none' of org/x could not be loaded: there is none. Check its"):
        find_sources("org/x", "none")


def test_a_source_notices_that_its_file_was_written_again(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n")
    source = file_source(path, "x")
    source.check_unchanged()
    assert (source.schema, source.path, source.sha256()) == (None, path, file_sha256(path))
    before = path.stat()
    other = tmp_path / "y.jsonl"
    other.write_text("[]\n")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)  # of the same size and time
    with pytest.raises(DataFileError, match="but was changed"):
        source.check_unchanged()
    source = file_source(path, "x")
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataFileError, match="but was changed"):
        source.check_unchanged()
    Source("data", lambda: "", None, lambda _: iter([])).check_unchanged()
    source = file_source(path, "x")
    path.unlink()
    with pytest.raises(DataFileError, match="but was changed"):
        source.check_unchanged()


def test_targets_and_rows_that_do_not_fit_are_refused(tmp_path):
    check_target("-")
    check_target(str(tmp_path / "x.JSONL"))
    for target, message in (
        ("x.txt", r"a suffix of \.json, \.jsonl, \.csv, \.parquet, but got '\.txt'"),
        ("x", "but got 'none'"),
        ("no/x.json", "an existing folder"),
        ("d.json", "expects a file, but is a folder"),
    ):
        (tmp_path / "d.json").mkdir(exist_ok=True)
        with pytest.raises(DataFileError, match=message):
            check_target(str(tmp_path / target))
    with pytest.raises(DataFileError, match="expects a suffix of"):
        write_rows([], str(tmp_path / "x.txt"))
    for value in (b"x", [b"x"], {"k": (1, b"x")}):
        with pytest.raises(DataFileError, match="the column 'b' holds bytes. Give a .parquet file"):
            check_rows([{"a": 1, "b": value}], "x.json")
    check_rows([{"b": b"x"}], "x.PARQUET")
    check_rows([{"b": 1}, {"b": "x"}], "x.json")
    with pytest.raises(DataFileError, match="x.parquet cannot hold these rows"):
        check_rows([{"b": 1}, {"b": "x"}], "x.parquet")
    with pytest.raises(DataFileError, match="could not be written"):
        write_rows([{"b": 1}, {"b": "x"}], str(tmp_path / "x.parquet"))


def test_tables_hold_every_column_and_csv_holds_objects(tmp_path):
    rows = [{"a": 1}, {"b": [1, "é"], "a": None}]
    assert table_of([{"a": 1}, {"b": "x"}]).to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    write_rows(rows, str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_bytes().decode() == 'a,b\r\n1,\r\n,"[1, ""é""]"\r\n'
    write_rows([], str(tmp_path / "x.json"))
    assert (tmp_path / "x.json").read_text() == "[]"
    write_table(pa.table({"a": [1]}), str(tmp_path / "x.parquet"))
    assert read_rows(str(tmp_path / "x.parquet")) == [{"a": 1}]
    with pytest.raises(DataFileError, match="could not be written"):
        write_table(pa.table({"a": [1]}), str(tmp_path / "no" / "x.parquet"))
    (tmp_path / "x.json").write_text("{")
    for name in ("x.json", "none.json"):
        with pytest.raises(DataFileError, match="Expected a JSON file at"):
            read_json(tmp_path / name)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{\n')
    with pytest.raises(DataFileError, match=r"x\.jsonl:2 expects a JSON object"):
        read_rows(str(tmp_path / "x.jsonl"))


def test_text_is_read_as_utf8_whatever_the_locale(tmp_path, monkeypatch):
    asked, read = [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: asked.append(how) or read(path, **how))
    (tmp_path / "x.json").write_text("[]")
    assert read_json(tmp_path / "x.json") == [] and asked == [{"encoding": "utf-8"}]
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\r\n"1\r\n2",3\r\n')
    assert [one.row for one in file_source(path, "x").entries(None)] == [{"a": "1\r\n2", "b": "3"}]


def test_standard_input_may_begin_with_a_mark(monkeypatch):
    for data in (b'\xef\xbb\xbf [{"a": 1}]', b'\xef\xbb\xbf{"a": 1}\n'):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert read_rows("-") == [{"a": 1}]


def test_numbers_on_which_reading_rests_are_what_they_were():
    assert (texts.CHUNK, texts.LONGEST_ITEM, texts.LONGEST_LINE, texts.LONGEST_TOKEN) == (2**20, 2**26, 2**28, 16)
    assert (texts.MAX_CSV_FIELD, texts.MAX_DEPTH, SMALLEST_SHARE) == (2**30, 200, 10**9)
    assert (texts.MOST_PARTS, arrows.MOST_BYTES, arrows.END) == (2**24, 2**30, b"\xff\xff\xff\xff\0\0\0\0")
    assert (arrows.BATCH_ROWS, arrows.HEAD, arrows.TAIL) == (256, 8, 10)
