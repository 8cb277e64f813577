"""Every line of a file is read, or told with its text."""

import gzip
import json

import pyarrow as pa
import pytest

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import json_line, share_of
from inspector_pipeline.files.sources import find_sources, skipped_files
from inspector_pipeline.files.tables import file_source, read_rows, write_rows

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
    for damaged in (data[:-3], b"no compression"):
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
