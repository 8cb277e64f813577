"""Every line of a file is read, or told with its text."""

import gzip
import io
import json
import os
import re
from collections import Counter
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inspector_training.rows.records import write_records

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.arrow import _rows, rows_of
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.files.entries import json_line, share_of
from inspector_pipeline.files.sources import find_sources, skipped_files
from inspector_pipeline.files.tables import check_rows, file_source, read_rows, write_rows

HEADER = "question,prediction\n"


def entries(path, text):
    path.write_text(text, newline="")
    return list(file_source(path, path.name).entries(None))


def told(found):
    return [entry.row["question"] for entry in found if entry.row], [entry.raw for entry in found if not entry.row]


CSV = {
    "quotes within, and lines like pairs": (
        '"How?","Just say "no thanks" to them.\nBe brief, be kind\nGive no reason, smile\nThat is all."\n'
        '"Haiku?","Yes."\n',
        (["Haiku?"], ["How?", "Be brief", "Give no", "That is"]),
    ),
    "a quote that seems to end the field": (
        'a,b\n"q","a 12", disk\nBe brief,be kind\nend"\nc,d\n',
        (["a"], ['"q"', "Be brief", "end", "c,d"]),
    ),
    "a quote that ends the line": (
        'a,b\n"q","a 12"\nBe brief,be kind\nthe end"\nc,d\n',
        (["a"], ['"q"', "Be brief", "the end", "c,d"]),
    ),
    "a question that seems to end": ('"Q 12"\nfoo","bar"\nc,d\n', ([], ['"Q 12"', "foo", "c,d"])),
    "an opened field": ('a,b\nc,"d\ne,f\ng,h\n', (["a"], ['c,"d', "e,f", "g,h"])),
    "an opened field before another": ('a,b\nc,"d\ne,f\ng,"h"\ni,j\n', (["a"], ['c,"d', "e,f", 'g,"h"', "i,j"])),
    "junk after a field": ('1,2\n6,"q"x\n7,q\n', (["1", "7"], ['6,"q"x'])),
    "two broken records": ('a,"b "c" d"\ne,f\ng,"h "i" j"\nk,l\n', (["k"], ["a,", "e,f", "g,"])),
    "inches": ('a,a 5" disk\nb,c\n', (["a", "b"], [])),
    "a field of too few": ('"a, b"\n"c","d"\n', (["c"], ["a, b"])),
    "doubled quotes": ('a,"say ""hi"", please\nnow"\nb,""\n', (["a", "b"], [])),
}


@pytest.mark.parametrize("case", CSV)
def test_a_stray_quote_in_csv_loses_no_line_and_makes_no_pair(tmp_path, case):
    text, (questions, raw) = CSV[case]
    found = told(entries(tmp_path / "x.csv", HEADER + text))
    assert found[0] == questions
    assert len(found[1]) == len(raw) and all(begin in one for begin, one in zip(raw, found[1], strict=True))


def test_of_a_thousand_rows_with_a_stray_quote_each_is_read_or_told(tmp_path):
    lines = [f"q{i},p{i}\n" for i in range(1000)]
    lines[510] = 'q510,"p510\n'
    good, bad = told(entries(tmp_path / "x.csv", HEADER + "".join(lines)))
    assert len(good) == 510 and bad == [line.rstrip() for line in lines[510:]]


BASES = [
    "q0x,r0x\nq1x,r1x\nq2x,r2x\n",
    '"q0x","r0x\nlure, lure\nend"\nq1x,r1x\n"q2x","r2x ""so"" it, is"\nq3x,"r3x\n\nlure, lure"\n',
    '"q0x","r0x"\n"q1x","r1x\nlure, lure"\n"q2x","r2x"\n',
    '"q0x","r0x\nlure, lure\nlure, ""lure"" "\n"q2x","r2x\nlure, lure"\n',
]


@pytest.mark.parametrize("base", BASES)
def test_one_quote_too_many_or_too_few_anywhere_loses_no_row_and_makes_none(tmp_path, base):
    more = [base[:at] + '"' + base[at:] for at in range(len(base) + 1)]
    less = [base[:at] + base[at + 1 :] for at in range(len(base)) if base[at] == '"']
    for text in more + less:
        found = entries(tmp_path / "x.csv", HEADER + text)
        rows = [entry.row for entry in found if entry.row and not entry.fault]
        assert not [row for row in rows if "lure" in row["question"]], text
        kept = " ".join(f"{entry.row} {entry.raw}" for entry in found)
        assert not Counter(re.findall(r"[qr]\dx", text)) - Counter(re.findall(r"[qr]\dx", kept)), text


def test_a_header_that_comes_again_is_no_row(tmp_path):
    joined = [HEADER + "a,b\n", "\ufeff" + HEADER + "c,d\n"]
    found = entries(tmp_path / "x.csv", "".join(joined))
    assert told(found)[0] == ["a", "c"] and [entry.place for entry in found if entry.fault] == ["x.csv:3"]
    assert "repeats the header" in found[1].fault and "question" in found[1].raw


@pytest.mark.parametrize("text", ["q1,p1\n", "question;prediction\na;b\n", "question\tprediction\na\tb\n"])
def test_a_header_of_something_else_is_told(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    told = "expects a header with the column 'question', but has |its one column is .* Save it with commas between"
    with pytest.raises(DataFileError, match=told):
        file_source(tmp_path / "x.csv", "x.csv").check_header(["question", "prediction"])
    (tmp_path / "x.csv").write_text("")  # as an input without rows
    file_source(tmp_path / "x.csv", "x.csv").check_header(["question"])


@pytest.mark.parametrize("inner", ['"question": "b"', '"more": [{"a": 1, "b": {"c": 1, "c": 2}}]'])
def test_a_key_that_stands_twice_is_told(tmp_path, inner):
    good, bad = '{"question": "a", "prediction": "p"}', f'{{"question": "a", "prediction": "p", {inner}}}'
    for name, text in {"x.jsonl": f"{good}\n{bad}\n{good}\n", "x.json": f"[{good}, {bad}, {good}]"}.items():
        found = entries(tmp_path / name, text)
        assert told(found) == (["a", "a"], [bad])
        assert re.search("each key once in an object, but '(question|c)' stands there twice", found[1].fault)


def test_the_lines_of_a_header_are_counted(tmp_path):
    found = entries(tmp_path / "x.csv", 'question,"predic\ntion"\na,b\nc,"d" e\nf,g\n')
    assert [entry.place for entry in found] == ["x.csv:3", "x.csv:4", "x.csv:5"]
    assert [entry.row is None for entry in found] == [False, True, False]


def test_what_follows_an_array_is_told_however_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("inspector_pipeline.files.text.CHUNK", 8)
    more = '[{"question": "b"}, {"question": "c"}]'
    found = entries(tmp_path / "x.json", " " * 99 + '[{"question": "a"}]' + " " * 99 + more)
    good, bad = told(found)
    assert good == ["a"] and "".join(bad) == more


PLAIN = [{"question": "é", "prediction": "x"}, {"question": "b", "prediction": "y"}]
TEXTS = {
    ".json": json.dumps(PLAIN),
    ".jsonl": "".join(json.dumps(row) + "\n" for row in PLAIN),
    ".csv": HEADER + 'é,x\nb,"y"\n',
}
PACKED = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("suffix", TEXTS)
def test_compressed_text_is_read_and_damage_is_told(tmp_path, suffix, compression):
    path = tmp_path / f"x{suffix}{compression}"
    data = PACKED[compression](TEXTS[suffix].encode())
    path.write_bytes(data)
    assert read_rows(str(path)) == PLAIN
    for damaged in (data[:-3], b"no compression", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataFileError, match="expects data that is whole, but: .* Compress the file again"):
            read_rows(str(path))


@pytest.mark.parametrize("compression", PACKED)
def test_streams_one_after_another_are_all_read(tmp_path, compression):
    (tmp_path / f"x.jsonl{compression}").write_bytes(PACKED[compression](TEXTS[".jsonl"].encode()) * 2)
    assert read_rows(str(tmp_path / f"x.jsonl{compression}")) == PLAIN * 2


def test_what_a_folder_holds_beside_rows_is_named(tmp_path):
    place = tmp_path / "in"
    (place / "more").mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl.gz", "c.tsv", ".hidden.jsonl", "_d.jsonl", ".git", "more/e.JSONL", "f.parquet.gz"):
        (place / name).write_bytes(PACKED[".gz"](b"{}\n") if name == "b.jsonl.gz" else b"{}\n")
    (tmp_path / "far").mkdir()
    (place / "link").symlink_to(tmp_path / "far")
    (place / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (place / "linked.jsonl").symlink_to(place / "a.jsonl")
    found = [source.name for source in find_sources(str(place))]
    assert found == ["a.jsonl", "b.jsonl.gz", "linked.jsonl", "more/e.JSONL"]
    skipped = [
        str(place / name) for name in (".hidden.jsonl", "_d.jsonl", "c.tsv", "f.parquet.gz", "gone.jsonl", "link")
    ]
    assert sorted(skipped_files(str(place))) == skipped
    assert sorted(skipped_files(str(place / "*.jsonl"))) == [str(place / "gone.jsonl")]
    assert skipped_files(str(place / "**")) == [str(place / "gone.jsonl"), str(place / "link")]


def test_a_file_called_as_those_of_saved_datasets_is_data_where_there_is_none(tmp_path):
    (tmp_path / "state.json").write_text('[{"question": "a"}]')
    assert [source.name for source in find_sources(str(tmp_path))] == ["state.json"]


def test_all_splits_of_saved_datasets_are_read(tmp_path):
    import datasets

    one = datasets.Dataset.from_list(PLAIN)
    datasets.DatasetDict(train=one, test=one).save_to_disk(str(tmp_path / "saved"))
    names = [source.name.split("/")[0] for source in find_sources(str(tmp_path / "saved"))]
    assert names == ["test", "train"] and skipped_files(str(tmp_path / "saved")) == []


def test_json_knows_no_nan():
    odd = {"a": float("nan"), "b": [float("inf"), {"c": -float("inf")}], "d": 1.5, "e": "NaN"}
    assert json.loads(json_line(odd)) == {"a": None, "b": [None, {"c": None}], "d": 1.5, "e": "NaN"}
    assert json.loads(json_line({**odd, "s": "\ud800"}))["a"] is None


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_files_know_no_nan(tmp_path, suffix):
    write_rows([{"a": float("nan")}], str(tmp_path / f"x{suffix}"))
    assert read_rows(str(tmp_path / f"x{suffix}")) == [{"a": None}]


@pytest.mark.parametrize("depth", [250, 900, 2_000, 100_000])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_rows_that_nest_too_deep_are_told(tmp_path, depth, pair):
    begin = "[" if pair == "[]" else '{"a":'
    tree = begin * depth + "1" + pair[1] * depth
    deep, good = f'{{"question": "d", "tree": {tree}}}', '{"question": "a"}'
    good_of, bad = told(entries(tmp_path / "x.jsonl", f"{good}\n{deep}\n{good}\n"))
    assert good_of == ["a", "a"] and bad == [deep]
    good_of, bad = told(entries(tmp_path / "x.json", f"[{good}, {deep}]"))
    assert good_of == ["a"] and bad[0].startswith(deep)
    with pytest.raises(DataFileError, match=r"x\.json: item 2 expects"):
        read_rows(str(tmp_path / "x.json"))


def test_brackets_in_text_are_no_depth(tmp_path):
    good, bad = told(entries(tmp_path / "x.jsonl", json.dumps({"question": "[" * 500, "tree": [[1]] * 300}) + "\n"))
    assert len(good) == 1 and not bad


def test_a_share_is_that_of_the_decimal():
    assert [share_of(100, share) for share in (0.29, 0.57, 0.58, 1.0, 0.0)] == [29, 57, 58, 100, 0]
    assert all(share_of(1000, thousandths / 1000) == thousandths for thousandths in range(1001))


def test_views_are_read_as_plain_columns(tmp_path):
    views = pa.table(
        {
            "question": pa.array(["a", None, "c"], pa.string_view()),
            "prediction": pa.array(["x", "y", "z"], pa.string_view()),
            "tags": pa.array([["x"], [], None], pa.list_(pa.string_view())),
            "raw": pa.array([b"x", b"", None], pa.binary_view()),
            "inner": pa.array([{"a": "x"}, {"a": None}, None], pa.struct([("a", pa.string_view())])),
        }
    )
    path = tmp_path / "x.arrow"
    with pa.ipc.new_file(str(path), views.schema) as writer:
        writer.write_table(views)
    source = file_source(path, path.name)
    kinds = [str(kind) for kind in source.schema.types]
    assert kinds[:2] == ["large_string"] * 2 and not any("view" in kind for kind in kinds)
    assert read_rows(str(path)) == views.to_pylist()


def arrow_bytes(table, new=pa.ipc.new_file, rows=None):
    file = io.BytesIO()
    with new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return file.getvalue()


def parquet_bytes(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


TABLE = pa.Table.from_pylist(PLAIN)
OTHER = pa.Table.from_pylist([{"question": "PAR1PAR1" * 9, "prediction": "z"}] * 9)
WRITTEN = {
    "x.parquet": parquet_bytes,
    "indexed.parquet": lambda table: parquet_bytes(table, write_page_index=True),
    "x.arrow": arrow_bytes,
    "stream.arrow": lambda table: arrow_bytes(table, pa.ipc.new_stream),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_tables_joined_to_one_file_are_refused(tmp_path, name):
    one, other = WRITTEN[name](TABLE), WRITTEN[name](OTHER)
    for whole, table in ((one, TABLE), (other, OTHER)):
        (tmp_path / name).write_bytes(whole)
        assert read_rows(str(tmp_path / name)) == table.to_pylist()
    for joined in (one + one, one + other, other + one, one * 3, other + one + other):
        (tmp_path / name).write_bytes(joined)
        with pytest.raises(DataFileError, match="several files, one after another; divide them"):
            read_rows(str(tmp_path / name))


def test_a_stream_without_its_end_is_refused(tmp_path):
    (tmp_path / "x.arrow").write_bytes(arrow_bytes(TABLE, pa.ipc.new_stream)[:-8])
    with pytest.raises(DataFileError, match="its end is missing, as where its writer was stopped"):
        read_rows(str(tmp_path / "x.arrow"))


def test_places_beyond_the_data_are_refused(tmp_path):
    offsets = pa.array([0, 2**20, 2], pa.int32()).buffers()[1]
    odd = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    within = [
        odd,
        pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), odd),
        pa.StructArray.from_arrays([odd], ["a"]),
        pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a", "b"]), safe=False),
    ]
    for column in within:
        (tmp_path / "x.arrow").write_bytes(arrow_bytes(pa.table({"question": ["a", "b"], "x": column})))
        with pytest.raises(DataFileError, match="expects Arrow, but: "):
            read_rows(str(tmp_path / "x.arrow"))


def test_values_of_any_kind_are_read_and_told(tmp_path):
    nanoseconds = pa.array([1, 10**18, None], pa.timestamp("ns"))
    columns = {
        "view": pa.array([["x"], None, ["y", "z"]], pa.list_view(pa.string_view())),
        "inner": pa.array(
            [{"a": [["x"], None]}, None, {"a": []}], pa.struct([("a", pa.list_view(pa.list_view(pa.string())))])
        ),
        "pairs": pa.array([[("a", "b")], [], None], pa.map_(pa.string(), pa.string_view())),
        "fixed": pa.array([["x"], ["y"], None], pa.list_(pa.string_view(), 1)),
        "kind": pa.DictionaryArray.from_arrays([0, 1, 0], pa.array(["a", "b"], pa.string_view())),
        "when": nanoseconds,
        "day": pa.array([1, 2, 3], pa.date64()),
        "decimal": pa.array([Decimal("1.50"), None, Decimal("-2.25")]),
    }
    table = pa.table(columns)
    (tmp_path / "x.arrow").write_bytes(arrow_bytes(table))
    source = file_source(tmp_path / "x.arrow", "x")
    assert "view" not in str(source.schema.types)
    found = list(source.entries(None))
    assert [entry.row or entry.fault for entry in found] == [
        row if fault is None else fault for row, fault in _rows(table)
    ]
    read = found[0].cells[0]
    read.drop("day").validate(full=True)
    pq.write_table(read, tmp_path / "x.parquet")
    assert rows_of(pq.read_table(tmp_path / "x.parquet").drop("kind")) == rows_of(table.drop("kind"))


def test_a_struct_that_names_a_field_twice_is_told_as_text():
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    assert "child 1" in rows_of(pa.table({"x": twice}))[0]["x"]


def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jsonl").write_text("{}")
    monkeypatch.setattr("os.access", lambda path, mode: path.name != "closed" or mode != os.R_OK | os.X_OK)
    assert skipped_files(str(tmp_path)) == [str(tmp_path / "closed")]


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "**"])
def test_links_that_lead_back_are_named_and_not_followed(tmp_path, pattern):
    (tmp_path / "real" / "b").mkdir(parents=True)
    (tmp_path / "in").symlink_to(tmp_path / "real")
    for name in ("a.jsonl", "b/c.jsonl"):
        (tmp_path / "real" / name).write_text("{}")
    (tmp_path / "real" / "b" / "back").symlink_to(tmp_path / "real")
    place = f"{tmp_path}/in/{pattern}"
    assert [source.name for source in find_sources(place)] == ["a.jsonl", "c.jsonl"]
    assert skipped_files(place) == [f"{tmp_path}/in/b/back"]


def test_stages_write_no_nan():
    assert json_text({"a": [float("nan"), 1.5], "é": "NaN"}) == '{\n "a": [\n  null,\n  1.5\n ],\n "é": "NaN"\n}\n'


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "-"])
def test_bytes_are_no_text(tmp_path, name):
    with pytest.raises(DataFileError, match=r"expects text, but the column 'x' holds bytes. Give a .parquet file"):
        check_rows([{"a": "b"}, {"a": "b", "x": {"inner": [b"\xff"]}}], str(tmp_path / name) if name != "-" else name)
    check_rows([{"x": b"\xff"}], str(tmp_path / "x.parquet"))
    with pytest.raises(DataFileError, match="cannot hold these rows"):
        check_rows([{"x": {}}], str(tmp_path / "x.parquet"))


def test_stages_write_rows_without_nan(tmp_path):
    write_records([{"id": 1, "x": [float("nan"), {"y": float("inf")}], "é": 0.5}], tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text() == '{"id": 1, "x": [null, {"y": null}], "é": 0.5}\n'


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(DataFileError, match="expects a regular file, since it is read more than once"):
        read_rows(str(tmp_path / "x.jsonl"))


def test_lines_that_no_memory_holds_are_told_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("inspector_pipeline.files.text.LONGEST_LINE", 60)
    row = '{"question": "a", "prediction": "b"}\n'
    long = '{"question": "a", "prediction": "' + "b" * 90 + '"}'
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(f"{row}{long}\n{' ' * 200}\n{row}{long}".encode()))
    found = list(file_source(tmp_path / "x.jsonl.gz", "x").entries(None))
    assert [entry.place for entry in found if entry.row] == ["x.jsonl.gz:1", "x.jsonl.gz:4"]
    assert "".join(entry.raw for entry in found if not entry.row) == long * 2
    assert all("a line of at most 60 bytes" in entry.fault for entry in found if not entry.row)
    (tmp_path / "x.csv").write_text(HEADER + "a" * 61 + ",b\n")
    with pytest.raises(DataFileError, match="expects lines of at most 60 characters"):
        list(file_source(tmp_path / "x.csv", "x").entries(None))


def test_a_time_zone_that_nobody_knows_is_told_row_by_row():
    table = pa.table({"question": ["a"], "at": pa.array([1], pa.timestamp("us", "Mars/Olympus"))})
    assert [row is None and "Mars" in fault for row, fault in _rows(table)] == [True]
    assert [row for row, _ in _rows(table.select(["question"]))] == [{"question": "a"}]
    assert rows_of(table)[0]["question"] == "a" and rows_of(table)[0]["at"]
