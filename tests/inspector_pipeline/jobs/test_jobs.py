import json
import re
import shutil
from datetime import datetime
from importlib.metadata import version

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from inspector_cli.main import main
from support.jobs import ADDED, contents, made_rows, parts, rejects, run, write_lines
from support.models import aspect, chat_reading, feature
from support.results import mark_pairs

from inspector_pipeline import PairTemplate, load_judge
from inspector_pipeline.batches import WINDOW_ROWS
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.jobs.filter import FilterJob, filter_job
from inspector_pipeline.jobs.manifest import threads_of
from inspector_pipeline.jobs.where import Where
from inspector_pipeline.jobs.window import score_window
from inspector_pipeline.jobs.workers import default_workers


@pytest.fixture(scope="session")
def family():
    return "llama"  # a job knows nothing of the backbone


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(1)]), aspect("b", [feature(1, "last")], counts=False)], max_length=96)


@pytest.fixture
def judge(folder):
    return load_judge(folder, device="cpu")


def flat(row, result):
    expected = {f"expected_{name}": value for name, value in result["expected"].items()}
    totals = {"total_score": result["total_score"]}
    same = ("expected_total", "truncated", "unfamiliar", "unfamiliar_reason", "seen")
    shares = {aspect: {str(score): p for score, p in by.items()} for aspect, by in result["probabilities"].items()}
    more = {"probabilities": shares, "rank_by": "expected_total"}
    return {**row, **result["scores"], **totals, **expected, **{name: result[name] for name in same}, **more}


def test_every_row_is_kept_with_the_judge_s_own_scores(judge, tmp_path):
    rows = made_rows(WINDOW_ROWS + 20)
    rows[3]["prediction"] = "long " * 300
    counts = run(judge, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out")
    assert counts == {"scored": len(rows), "rejected": 0, "truncated": 1}
    results = [*judge(rows[:WINDOW_ROWS]), *judge(rows[WINDOW_ROWS:])]
    assert parts(tmp_path / "out") == [flat(row, result) for row, result in zip(rows, results, strict=True)]
    assert sorted(contents(tmp_path / "out")) == [
        "_checksums/part-000000.sha256",
        "_checksums/part-000001.sha256",
        "_manifest.json",
        "_summary.json",
        "part-000000.jsonl",
        "part-000001.jsonl",
    ]
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert len(manifest["judge"]["weights_sha256"]) == 64 and manifest["rows"] == len(rows)


def write_csv(path, rows):
    pa.csv.write_csv(pa.Table.from_pylist(rows), path)


def write_arrow(path, rows, new=pa.ipc.new_file):
    table = pa.Table.from_pylist(rows)
    with new(str(path), table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "in.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "in.csv": write_csv,
    "in.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "in.arrow": write_arrow,
    "stream.arrow": lambda path, rows: write_arrow(path, rows, pa.ipc.new_stream),
}


@pytest.mark.parametrize("shape", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_scores(judge, tmp_path, name, shape):
    import pyarrow.csv  # noqa: F401

    rows = made_rows(40)
    WRITERS[name](tmp_path / name, rows)
    run(judge, write_lines(tmp_path / "plain.jsonl", rows), tmp_path / "plain")
    run(judge, tmp_path / name, tmp_path / "out", format=shape)
    found, expected = parts(tmp_path / "out"), parts(tmp_path / "plain")
    if name == "in.csv":
        found = [{**row, "id": int(row["id"])} for row in found]
    assert found == expected and list(found[0]) == ["id", "question", "prediction", *ADDED]


def test_the_output_s_kind_is_the_input_s(judge, tmp_path):
    pq.write_table(pa.Table.from_pylist(made_rows(3)), tmp_path / "in.parquet")
    run(judge, tmp_path / "in.parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").column_names == ["id", "question", "prediction", *ADDED]


def test_parquet_keeps_types_that_python_has_not(judge, tmp_path):
    table = pa.Table.from_pylist(made_rows(5))
    more = {
        "when": pa.array(range(5), pa.timestamp("ns", "UTC")),
        "kind": pa.array(list("ababa")).dictionary_encode(),
        "raw": pa.array([b"\xff"] * 5),
        "vector": pa.array([[1.0, 0.5]] * 5, pa.list_(pa.float16(), 2)),
    }
    for name, column in more.items():
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "in.parquet")
    run(judge, tmp_path / "in.parquet", tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / "part-000000.parquet")
    before = pq.read_table(tmp_path / "in.parquet")
    assert found.select(table.column_names).cast(before.schema.remove_metadata()) == before.replace_schema_metadata()
    with pytest.raises(SettingsError, match="the column 'raw' holds bytes"):
        run(judge, tmp_path / "in.parquet", tmp_path / "other", format="jsonl")


@pytest.mark.parametrize("shape", ["jsonl", "parquet"])
def test_rejected_rows_of_arrow_come_with_all_columns(judge, tmp_path, shape):
    undecoded = pa.Array.from_buffers(pa.string(), 4, pa.array([b"p", b"\xff", b"p", b"p"]).buffers())
    columns = {
        "id": [0, 1, 2, 3],
        "question": ["q", "q", None, "q"],
        "prediction": undecoded,
        "when": pa.array([1, 1, 1, 10**14], pa.timestamp("s")),  # the last one is beyond what Python knows
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4]), undecoded),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    run(judge, tmp_path / "in.parquet", tmp_path / "out", format=shape)
    refused = {row["number"]: row for row in rejects(tmp_path / "out")}
    assert sorted(refused) == ([1, 2] if shape == "parquet" else [1, 2, 3])
    assert refused[1]["row"]["id"] == 1 and refused[1]["row"]["prediction"] == "\\xff"
    row = {"id": 2, "question": None, "prediction": "p", "when": str(datetime(1970, 1, 1, 0, 0, 1)), "list": ["p"]}
    assert refused[2]["row"] == row
    if shape == "jsonl":
        assert "100000000000000" in refused[3]["row"]["when"] and "Python can hold" in refused[3]["reason"]
    else:
        found = filter_job(FilterJob(str(tmp_path / "out"), best=5))
        assert sorted(row["id"] for row in json.loads(found.output.read_text())) == [0, 3]


def test_what_parquet_cannot_hold_is_said(judge, tmp_path):
    table = pa.Table.from_pylist(made_rows(3))
    far = table.append_column("far", pa.array([1, 10**18, None], pa.timestamp("s")))  # Parquet holds milliseconds
    for name, one in {"far": far, "odd": table.append_column("odd", pa.array([{}] * 3, pa.struct([])))}.items():
        with pa.ipc.new_file(str(tmp_path / f"{name}.arrow"), one.schema) as writer:
            writer.write_table(one)
    run(judge, tmp_path / "far.arrow", tmp_path / "out")
    assert [row["id"] for row in parts(tmp_path / "out")] == [0, 2]
    assert "fit the columns' types in Parquet, but: Casting" in rejects(tmp_path / "out")[0]["reason"]
    with pytest.raises(SettingsError, match=r"Parquet cannot hold the column 'odd' of struct<>. Give --output-format"):
        run(judge, tmp_path / "odd.arrow", tmp_path / "odd")
    assert run(judge, tmp_path / "odd.arrow", tmp_path / "odd", format="jsonl")["scored"] == 3


def test_a_part_that_lost_rows_is_not_taken_for_whole(judge, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(5), {"question": "q"}])
    run(judge, source, tmp_path / "out")
    (tmp_path / "out" / "_checksums" / "part-000000.sha256").unlink()  # as in a job of before
    part, refused = tmp_path / "out" / "part-000000.jsonl", tmp_path / "out" / "_rejects" / "part-000000.jsonl"
    whole, told = part.read_bytes(), refused.read_bytes()
    for lost in (whole[: whole.index(b"\n") + 1], whole[:50]):
        part.write_bytes(lost)
        with pytest.raises(DataFileError, match="expects a whole part, but: .* Delete it and run again"):
            run(judge, source, tmp_path / "out")
    part.write_bytes(whole)
    refused.unlink()
    with pytest.raises(DataFileError, match="it and its rejects hold 5 of 6 rows. Delete it and run again"):
        run(judge, source, tmp_path / "out")
    part.unlink()
    assert run(judge, source, tmp_path / "out")["rejected"] == 1
    assert part.read_bytes() == whole and refused.read_bytes() == told


def test_a_file_that_names_a_column_twice_is_refused(judge, tmp_path):
    pq.write_table(pa.table([["q"], ["p"], ["x"]], ["question", "prediction", "prediction"]), tmp_path / "in.parquet")
    with pytest.raises(DataFileError, match="name every column once, but has question, prediction, prediction"):
        run(judge, tmp_path / "in.parquet", tmp_path / "out")


def test_a_folder_and_a_glob_are_read_in_the_order_of_names(judge, tmp_path):
    rows = made_rows(30)
    (tmp_path / "in" / "b").mkdir(parents=True)
    write_lines(tmp_path / "in" / "a.jsonl", rows[:10])
    write_lines(tmp_path / "in" / "b" / "c.jsonl", rows[10:])
    write_lines(tmp_path / "in" / "_no_data.jsonl", rows)
    run(judge, tmp_path / "in", tmp_path / "out")
    assert [row["id"] for row in parts(tmp_path / "out")] == list(range(30))
    run(judge, tmp_path / "in" / "**" / "[ac].jsonl", tmp_path / "globbed")
    assert parts(tmp_path / "globbed") == parts(tmp_path / "out")
    (tmp_path / "in" / "d.csv").write_text("question,prediction\n")
    with pytest.raises(DataFileError, match="files of one kind, but got .csv, .jsonl"):
        run(judge, tmp_path / "in", tmp_path / "mixed")


def test_a_saved_dataset_is_a_folder_of_arrow(judge, tmp_path):
    import datasets

    datasets.Dataset.from_list(made_rows(12)).save_to_disk(str(tmp_path / "saved"))
    run(judge, tmp_path / "saved", tmp_path / "out")
    assert [row["id"] for row in parts(tmp_path / "out")] == list(range(12))


def test_a_dataset_with_its_split(judge, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "train.jsonl", made_rows(12))
    write_lines(tmp_path / "set" / "test.jsonl", made_rows(5, seed=1))
    run(judge, tmp_path / "set", tmp_path / "out", split="test", format="jsonl")
    run(judge, tmp_path / "set" / "test.jsonl", tmp_path / "plain")
    assert parts(tmp_path / "out") == parts(tmp_path / "plain")
    with pytest.raises(DataFileError, match="split 'none' of .* could not be loaded"):
        run(judge, tmp_path / "set", tmp_path / "other", split="none")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataFileError, match=r"expects the package datasets. Run pip install"):
        run(judge, "org/name", tmp_path / "other", split="train")


def test_columns_where_limit_and_prefix(judge, tmp_path):
    rows = [
        {"q": row["question"], "p": row["prediction"], "lang": "en" if row["id"] % 2 else None, "a": 1}
        for row in made_rows(20)
    ]
    source = write_lines(tmp_path / "in.jsonl", rows)
    names = {"question": "q", "prediction": "p"}
    settings = {"columns": names, "where": "lang == 'en'", "limit": 4, "prefix": "judge_"}
    run(judge, source, tmp_path / "out", **settings)
    found = parts(tmp_path / "out")
    assert [row["q"] for row in found] == [f"What is {i}?" for i in (1, 3, 5, 7)]
    assert list(found[0]) == ["q", "p", "lang", "a", *(f"judge_{name}" for name in ADDED)]
    with pytest.raises(SettingsError, match=r"no column of the judge's, but has a\. Give --prefix"):
        run(judge, source, tmp_path / "other", columns=names)
    with pytest.raises(DataFileError, match="--where expects columns of the input, but no row has 'langg'"):
        run(judge, source, tmp_path / "other", columns=names, where="langg == 'en'", prefix="x_")
    run(judge, source, tmp_path / "bad", columns=names, where="len(lang) == 2", prefix="x_")
    assert len(parts(tmp_path / "bad")) == len(rejects(tmp_path / "bad")) == 10
    assert rejects(tmp_path / "bad")[0]["reason"].startswith("--where cannot decide: ")


@pytest.mark.parametrize("expression", ["", "1 +", "id = 2", "id == 2; True", "import os"])
def test_where_is_one_expression(judge, tmp_path, expression):
    source = write_lines(tmp_path / "in.jsonl", made_rows(3))
    with pytest.raises(SettingsError, match="--where expects an expression such as"):
        run(judge, source, tmp_path / "out", where=expression)


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "question.__class__", "open('x')", "(lambda: 1)()", "[x for x in"]
)
def test_where_reaches_nothing_but_the_row(judge, tmp_path, expression):
    source = write_lines(tmp_path / "in.jsonl", made_rows(3))
    try:
        counts = run(judge, source, tmp_path / "out", where=expression)
    except (SettingsError, DataFileError):
        return
    assert counts == {"scored": 0, "rejected": 3, "truncated": 0}


BROKEN = [
    b'{"question": "q", "prediction": "p"}',
    b'{"question": "q", "prediction": ',
    b'["q", "p"]',
    b'{"question": "q"}',
    b'{"question": "q", "prediction": 5}',
    b'{"question": "q", "prediction": null}',
    b'{"question": "q", "prediction": " "}',
    b'{"question": "q", "prediction": NaN}',
    b'{"question": "q", "prediction": "\\ud800"}',
    b'{"question": "q", "prediction": "\xff"}',
    "{“question”: 1}".encode("utf-16"),
    b"[" * 100_000,
    b'{"question": "q", "prediction": "' + b"long " * 2_000 + b'"}',
    b'{"question": "q", "prediction": "p", "id": 1e999, "other": "\\ud800", "x": {}}',
    b'{"question": "q", "prediction": "p", "id": "one", "other": [1, "a"], "x": ' + b"9" * 40 + b"}",
    b'{"question": "q", "prediction": "p", "id": {"a": 1}, "\\udcff": 1}',
    b'{"question": "q", "prediction": "p", "id": NaN, "x": 3}',
    b'{"question": "q", "prediction": "p", "id": 1, "id": 3}',
    b'{"question": "q", "prediction": "p", "x": [{"a": 1, "a": 1}]}',
]
SOUND = {0, 12, 14, 16}  # in both formats


@pytest.mark.parametrize("shape", ["jsonl", "parquet"])
def test_what_cannot_be_scored_is_rejected_with_its_number_and_reason(judge, tmp_path, shape):
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b"\n".join(BROKEN))
    run(judge, source, tmp_path / "out", format=shape)
    lines = source.read_bytes().split(b"\n")
    refused = rejects(tmp_path / "out")
    places = {int(row["place"].split(":")[1]) for row in refused}
    sound = SOUND | ({13, 15} if shape == "jsonl" else set())
    assert len(parts(tmp_path / "out")) == len(sound)
    assert all(row["reason"] for row in refused) and len(refused) == len(lines) - len(sound) == len(places)
    assert [row["number"] for row in refused] == sorted(row["number"] for row in refused)
    if shape == "jsonl":
        assert parts(tmp_path / "out")[2]["other"] == "\ud800"
    else:
        table = pq.read_table(tmp_path / "out")
        manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
        assert manifest["columns_as_json"] == ["id", "other", "x"]
        assert table["id"].to_pylist() == [None, None, '"one"', "null"]


def test_a_megabyte_of_text_is_cut_and_scored(judge, tmp_path):
    rows = [*made_rows(2), {"id": 2, "question": "q", "prediction": "long " * 200_000}]
    assert run(judge, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out")["truncated"] == 1
    assert parts(tmp_path / "out")[2]["prediction"] == rows[2]["prediction"]


CSV = b"""id,question,prediction
1,q,p
2,q
3,q,p,more
4,"q
two lines",p
5,q,\xff
6,"q"x,p
7,q,p
"""


def test_broken_csv_and_json(judge, tmp_path):
    (tmp_path / "in.csv").write_bytes(CSV)
    run(judge, tmp_path / "in.csv", tmp_path / "csv")
    assert [row["id"] for row in parts(tmp_path / "csv")] == ["1", "4", "7"]
    assert [row["place"] for row in rejects(tmp_path / "csv")] == ["in.csv:3", "in.csv:4", "in.csv:7", "in.csv:8"]
    items = '{"question": "q", "prediction": "p"}, 3, {"question": "q", "prediction": "p"}'
    (tmp_path / "in.json").write_text(f"[{items}, {{'x'}}, {items}]")
    run(judge, tmp_path / "in.json", tmp_path / "json")
    assert len(parts(tmp_path / "json")) == 2 and [row["number"] for row in rejects(tmp_path / "json")] == [1, 3]
    (tmp_path / "object.json").write_text("{}")
    with pytest.raises(DataFileError, match="expects a JSON array of objects, but begins with '{}'"):
        run(judge, tmp_path / "object.json", tmp_path / "object")


def test_files_whose_types_cannot_be_one_are_refused_whole(judge, tmp_path):
    (tmp_path / "in").mkdir()
    for name, ids in (("a", [1, 2]), ("b", ["1", "2"])):
        table = pa.table({"id": ids, "question": ["q"] * 2, "prediction": ["p"] * 2})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    with pytest.raises(DataFileError, match=r"every file, but: .* id has .* int64 vs string\. Cast that column"):
        run(judge, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_json_array_longer_than_what_is_read_at_a_time(judge, tmp_path, monkeypatch):
    monkeypatch.setattr("inspector_pipeline.files.text.CHUNK", 7)
    rows = made_rows(9)
    (tmp_path / "in.json").write_text(json.dumps(rows, indent=2))
    run(judge, tmp_path / "in.json", tmp_path / "out")
    assert [row["prediction"] for row in parts(tmp_path / "out")] == [row["prediction"] for row in rows]
    assert rejects(tmp_path / "out") == []


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.csv", "in.parquet"])
def test_an_input_without_rows_is_done_at_once(judge, tmp_path, name):
    empty = pa.schema([("question", pa.string()), ("prediction", pa.string())]).empty_table()
    (tmp_path / name).write_text({"in.json": "[]", "in.csv": "question,prediction\n"}.get(name, ""))
    if name == "in.parquet":
        pq.write_table(empty, tmp_path / name)
    assert run(judge, tmp_path / name, tmp_path / "out")["scored"] == 0
    assert parts(tmp_path / "out") == [] and (tmp_path / "out" / "_summary.json").is_file()


@pytest.mark.parametrize("shape", ["jsonl", "parquet"])
def test_shards_together_write_what_one_run_writes(judge, tmp_path, shape):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(WINDOW_ROWS * 4 + 9), {"question": "no prediction"}])
    run(judge, source, tmp_path / "whole", format=shape)
    counts = [run(judge, source, tmp_path / "shared", format=shape, shard=(index, 3)) for index in (2, 0)]
    with pytest.raises(DataFileError, match="expects 5 parts, but holds 3. Give the command that scores it again"):
        filter_job(FilterJob(str(tmp_path / "shared"), best=1))
    counts.append(run(judge, source, tmp_path / "shared", format=shape, shard=(1, 3)))
    assert filter_job(FilterJob(str(tmp_path / "shared"), best=1)).rows == WINDOW_ROWS * 4 + 9
    whole, shared = contents(tmp_path / "whole"), contents(tmp_path / "shared")
    summary = json.loads(whole.pop("_summary.json"))
    assert {name: data for name, data in shared.items() if not name.startswith("_summary")} == whole
    assert summary == {key: sum(count[key] for count in counts) for key in summary}


def test_a_run_goes_on_only_with_its_own_job(judge, folder, make_judge, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", made_rows(5))
    run(judge, source, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert run(judge, source, tmp_path / "out")["scored"] == 5 and contents(tmp_path / "out") == before
    with pytest.raises(DataFileError, match="these differ: rows was 5, is 3; settings.limit was None, is 3"):
        run(judge, source, tmp_path / "out", limit=3)
    other = load_judge(make_judge([aspect("a", [feature(1)]), aspect("b", [feature(1, "last")])], seed=1), device="cpu")
    with pytest.raises(DataFileError, match="judge.weights_sha256 was"):
        run(other, source, tmp_path / "out")
    write_lines(tmp_path / "in.jsonl", made_rows(5, seed=1))
    with pytest.raises(DataFileError, match="these differ: input was"):
        run(judge, source, tmp_path / "out")
    with pytest.raises(DataFileError, match="expects an empty or new folder, but holds"):
        run(judge, source, folder.parent)
    for text in ("[]", "{", '{"rows": 5}', '{"rows": 5, "settings": []}'):
        (tmp_path / "out" / "_manifest.json").write_text(text)
        with pytest.raises(DataFileError, match="expects a job's manifest, but:"):
            run(judge, source, tmp_path / "out")
        with pytest.raises(DataFileError, match="expects a job's manifest, but:"):
            filter_job(FilterJob(str(tmp_path / "out"), best=1))


def test_unfamiliar_and_seen_rows_are_counted_and_the_next_command_is_named(folder, tmp_path, monkeypatch, capsys):
    mark_pairs(monkeypatch)
    rows = made_rows(8)
    for i, word in ((0, "odd"), (1, "odd"), (2, "known odd"), (5, "known")):
        rows[i]["prediction"] = word
    source, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out"
    command = ["score", source, "--judge", str(folder), "--device", "cpu", "--output", f"{out}/"]
    for more in ([], ["--prefix", "x_", "--output-format", "parquet"]):
        assert main([*command, *more]) == 0
        told = capsys.readouterr().err
        assert '3 of 8 pairs are unlike what the judge was fitted on (3 x "says odd in … letters, at most 3")' in told
        assert "2 of 8 pairs ask what the judge was fitted on" in told
        assert f"inspector filter {out}/ --drop-unfamiliar" in told
        summary = json.loads((out / "_summary.json").read_text())
        counts = {"scored": 8, "rejected": 0, "truncated": 0, "unfamiliar": 3, "seen": 2}
        assert summary == {**counts, "unfamiliar_reasons": {"says odd in … letters, at most 3": 3}}
        assert main(["filter", str(out), "--drop-unfamiliar", "--output", str(tmp_path / "kept.json")]) == 0
        assert "kept 5 of 8" in capsys.readouterr().err
        shutil.rmtree(out)


@pytest.mark.parametrize("shape", ["jsonl", "parquet"])
def test_a_job_of_before_its_columns_were_written_down_goes_on_with_those(judge, tmp_path, shape):
    source, out = write_lines(tmp_path / "in.jsonl", made_rows(WINDOW_ROWS + 5)), tmp_path / "out"
    run(judge, source, out, format=shape)
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest.pop("columns") == ADDED
    for path in (*out.glob("part-*"), *out.glob("_checksums/*")):
        path.unlink()
    (out / "_manifest.json").write_text(json.dumps(manifest))
    assert run(judge, source, out, format=shape) == {"scored": WINDOW_ROWS + 5, "rejected": 0, "truncated": 0}
    before = ["a", "b", "total_score", "expected_a", "expected_b", "truncated"]
    assert {tuple(row) for row in parts(out)} == {("id", "question", "prediction", *before)}


def test_another_number_of_threads_or_version_is_refused(judge, tmp_path, monkeypatch):
    import torch

    source, before = write_lines(tmp_path / "in.jsonl", made_rows(5)), torch.get_num_threads()
    run(judge, source, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert written["threads"] == before
    try:
        torch.set_num_threads(before + 1)
        with pytest.raises(DataFileError, match=f"threads was {before}, is {before + 1}; set OMP_NUM_THREADS={before}"):
            run(judge, source, tmp_path / "out")
    finally:
        torch.set_num_threads(before)
    own = written["versions"].pop("inspector-pipeline")
    (tmp_path / "out" / "_manifest.json").write_text(json.dumps({**written, "versions": {**written["versions"]}}))
    assert run(judge, source, tmp_path / "out")["scored"] == 5  # a job of before says no version of ours
    other = {**written["versions"], "inspector-pipeline": "0.0.9"}
    (tmp_path / "out" / "_manifest.json").write_text(json.dumps({**written, "versions": other}))
    with pytest.raises(DataFileError, match=f"versions.inspector-pipeline was '0.0.9', is '{own}'"):
        run(judge, source, tmp_path / "out")


@pytest.mark.parametrize("package", ["inspector-pipeline", "torch", "transformers", "tokenizers", "pyarrow"])
def test_each_version_that_scores_depend_on_is_refused(judge, tmp_path, monkeypatch, package):
    source = write_lines(tmp_path / "in.jsonl", made_rows(2))
    run(judge, source, tmp_path / "out")
    monkeypatch.setattr(
        "inspector_pipeline.jobs.manifest.version", lambda name: "0.0.1" if name == package else version(name)
    )
    with pytest.raises(DataFileError, match=f"differ: versions.{package} was '{re.escape(version(package))}', is '0.0"):
        run(judge, source, tmp_path / "out")


@pytest.mark.parametrize("shape", ["jsonl", "parquet"])
def test_a_part_that_was_changed_is_no_longer_taken(judge, tmp_path, shape):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(5), {"question": "q"}])
    run(judge, source, tmp_path / "out", format=shape)
    before = contents(tmp_path / "out")
    part = tmp_path / "out" / f"part-000000.{shape}"
    if shape == "jsonl":
        edited = {part: part.read_bytes().replace(b"What is 1?", b"What is 2?")}
    else:
        table = pq.read_table(part)
        pq.write_table(table.set_column(1, "question", pa.array(["x"] * 5)), tmp_path / "edited")
        edited = {part: (tmp_path / "edited").read_bytes()}
    refused = tmp_path / "out" / "_rejects" / "part-000000.jsonl"
    edited[refused] = refused.read_bytes().replace(b"prediction", b"prodiction")
    for path, data in edited.items():
        whole = path.read_bytes()
        assert data != whole
        path.write_bytes(data)
        for goes_on in (
            lambda: run(judge, source, tmp_path / "out", format=shape),
            lambda: filter_job(FilterJob(str(tmp_path / "out"), best=1)),
        ):
            with pytest.raises(DataFileError, match="as it was written, but it or its rejects were changed. Delete it"):
                goes_on()
        path.write_bytes(whole)
    part.unlink()
    run(judge, source, tmp_path / "out", format=shape)
    assert contents(tmp_path / "out") == before
    for path in (tmp_path / "out" / "_checksums").glob("*"):
        path.unlink()  # as in a job of before, and where a run was killed
    run(judge, source, tmp_path / "out", format=shape)
    assert contents(tmp_path / "out") == before


def test_the_size_of_a_part_is_part_of_the_job(folder, judge, tmp_path, capsys):
    source = write_lines(tmp_path / "in.jsonl", made_rows(WINDOW_ROWS * 3))
    args = ["score", source, "--judge", str(folder), "--device", "cpu", "--output", f"{tmp_path}/out/"]
    assert main([*args, "--part-rows", str(2 * WINDOW_ROWS)]) == 0
    sizes = [len(read_rows(str(path))) for path in sorted((tmp_path / "out").glob("part-*"))]
    assert sizes == [2 * WINDOW_ROWS, WINDOW_ROWS]
    assert filter_job(FilterJob(str(tmp_path / "out"), best=1)).rows == WINDOW_ROWS * 3
    assert main([*args, "--part-rows", str(WINDOW_ROWS)]) == 1
    assert "these differ: settings.part_rows was 512, is 256" in capsys.readouterr().err
    assert main([*args, "--part-rows", "300"]) == 1
    assert "--part-rows expects a multiple of 256, but got 300" in capsys.readouterr().err


def test_a_pair_without_finite_scores_is_rejected_alone(judge, tmp_path):
    import torch

    table = judge.model.backbone.get_input_embeddings().weight
    rare = judge.tokenizer("Ω", add_special_tokens=False).input_ids
    rows = [*made_rows(3), {"question": "q", "prediction": "Ω"}]
    common = {token for row in made_rows(3) for token in judge.encode(row)["chat"].input_ids}
    token = next(token for token in rare if token not in common)
    with torch.no_grad():
        table[token] = float("nan")
    run(judge, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out")
    assert len(parts(tmp_path / "out")) == 3
    assert "expects finite states" in rejects(tmp_path / "out")[0]["reason"]


def test_the_bar_says_rows_pairs_tokens_and_the_time_that_is_left(make_judge, tokenizer, tmp_path, capsys, monkeypatch):
    both = {"chat": chat_reading(tokenizer), "plain": PairTemplate.from_template("{question}\n{prediction}").to_dict()}
    heads = [aspect("a", [feature(1)]), aspect("b", [feature(1, reading="plain")])]
    judge = load_judge(make_judge(heads, both, name="both"), device="cpu")
    rows = made_rows(WINDOW_ROWS + 5)
    encoded = [judge.encode(row) for row in rows]
    counts = [sum(len(reading.input_ids) for reading in one.values()) for one in encoded]
    assert [outcome.tokens for outcome in score_window(judge, rows[:9])] == counts[:9]
    monkeypatch.setattr("inspector_pipeline.progress.EVERY_S_IN_A_LOG", 0.0)
    source = write_lines(tmp_path / "in.jsonl", rows)
    run(judge, source, tmp_path / "out")
    error = capsys.readouterr().err
    assert "reading the input: 0 rows" in error and "reading the input: 261 rows" in error
    postfix = r"\[\d+:\d+<\d+:\d+, +[\d.]+ pairs/s, [1-9][\d,]* tokens/s\]"
    found = re.findall(
        rf"^shard 0/1: +(\d+)%\|.* (\d+)/261 {postfix}$", error, re.M
    )  # whole lines, since it is no terminal
    pairs = [int(number) for _, number in found]
    assert pairs == sorted(pairs) and pairs[-1] == 261 and len(set(pairs)) > 4  # each pass, and not each window
    assert all(abs(int(percent) - 100 * int(number) / 261) < 9 for percent, number in found) and found[-1][0] == "100"
    run(judge, source, tmp_path / "out")
    assert re.findall(r"shard 0/1: 100%\|.* 261/261 \[", capsys.readouterr().err)


def test_the_command(folder, tmp_path, capsys):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(9), {"question": "q"}])
    args = ["score", source, "--judge", str(folder), "--device", "cpu", "--output", f"{tmp_path}/out/"]
    assert main([*args, "--limit", "9"]) == 0
    error = capsys.readouterr().err
    assert f"inspector: 9 pairs scored; in {tmp_path}/out/" in error and "tokens/s" in error and "pairs/s" in error
    assert main(args) == 1 and "settings.limit was 9, is None" in capsys.readouterr().err
    assert main([*args[:-1], f"{tmp_path}/all/"]) == 3
    assert "1 rejected (see" in capsys.readouterr().err
    for wrong, message in {
        ("--top-percent", "0.5"): "Run `inspector filter` on the folder",
        ("--format", "table"): "--format expects a file as --output",
        ("--column", "answer=x"): "--column expects question or prediction before the =",
        ("--column", "question=x", "--column", "question=y"): "question and prediction at most once",
    }.items():
        assert main([*args, *wrong]) == 1 and message in capsys.readouterr().err
    assert main(["score", source, "--limit", "3"]) == 1
    assert "--output expects a folder" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "*.jsonl"), "--output", "x.json"]) == 1
    assert main(["score", "org/name", "--output", f"{tmp_path}/x/"]) == 1
    assert "For the id of a dataset, give --split too" in capsys.readouterr().err
    for wrong in (["--shard", "2/2"], ["--shard", "1"], ["--column", "q"], ["--limit", "0"]):
        with pytest.raises(SystemExit):
            main([*args, *wrong])


def test_files_that_a_job_does_not_read_are_named_and_end_with_three(folder, tmp_path, capsys, caplog):
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "a.jsonl", made_rows(3))
    args = ["score", f"{tmp_path}/in", "--judge", str(folder), "--device", "cpu", "--output"]
    assert main([*args, f"{tmp_path}/whole/"]) == 0
    (tmp_path / "in" / "b.tsv").write_text("q\tp\n")
    assert main([*args, f"{tmp_path}/out/"]) == 3
    assert f"not read: {tmp_path}/in/b.tsv" in caplog.text
    assert "3 pairs scored, 1 of the input's files skipped" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "_summary.json").read_text())["skipped"] == 1
    assert main(["filter", f"{tmp_path}/out", "--best", "1"]) == 0
    (tmp_path / "out" / "more.txt").write_text("x")
    assert main(["filter", f"{tmp_path}/out", "--best", "1"]) == 3
    assert "out/more.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "output"),
    [("in", "in/out"), ("in", "in"), ("in/*.jsonl", "in"), ("**/*.jsonl", "out"), ("in/*/*", "in/b")],
)
def test_an_output_within_its_own_input_is_refused(judge, tmp_path, place, output):
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name in ("in/a.jsonl", "in/a/b.jsonl"):
        write_lines(tmp_path / name, made_rows(2))
    run(judge, tmp_path / "in", tmp_path / "beside")
    with pytest.raises(SettingsError, match="--output expects a folder outside of the input"):
        run(judge, tmp_path / place, tmp_path / output)


def test_csv_of_something_else_is_refused_before_anything_is_read(judge, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("question,prediction\nq,p\n")
    (tmp_path / "in" / "b.csv").write_text("What is 2 + 2?,4\n")  # whose only row would be its header
    with pytest.raises(DataFileError, match=r"b\.csv expects a header with the column 'question', but has 'What is"):
        run(judge, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists() and "reading" not in capsys.readouterr().err
    (tmp_path / "in" / "b.csv").write_text("q,prediction\nq,p\n")
    with pytest.raises(DataFileError, match=r"a\.csv expects a header with the column 'q', but"):
        run(judge, tmp_path / "in", tmp_path / "out", columns={"question": "q"})


def test_views_are_scored_and_filtered(judge, tmp_path):
    table = pa.Table.from_pylist(made_rows(5))
    views = table.set_column(1, "question", table["question"].cast(pa.string_view()))
    with pa.ipc.new_file(str(tmp_path / "in.arrow"), views.schema) as writer:
        writer.write_table(views)
    assert run(judge, tmp_path / "in.arrow", tmp_path / "out")["scored"] == 5
    assert filter_job(FilterJob(str(tmp_path / "out"), best=2)).kept == 2
    assert run(judge, tmp_path / "in.arrow", tmp_path / "lines", format="jsonl")["scored"] == 5


def test_aspects_whose_columns_would_be_one_are_refused(make_judge, tmp_path):
    judge = load_judge(make_judge([aspect("a", [feature(1)]), aspect("expected_a", [feature(1)])]), device="cpu")
    with pytest.raises(SettingsError, match="two would be called 'expected_a'"):
        run(judge, write_lines(tmp_path / "in.jsonl", made_rows(2)), tmp_path / "out")


@pytest.mark.parametrize("expression", ["not " * 5000 + "1", "-" * 5000 + "1", "(" * 500 + "1" + ")" * 500])
def test_a_condition_that_nests_too_deep_is_told(expression):
    with pytest.raises(SettingsError, match="--where expects an expression such as"):
        Where(expression)


def test_a_stretch_without_a_break_is_rejected_alone(judge, tmp_path, monkeypatch):
    monkeypatch.setattr("inspector_pipeline.pair_tokenizer.UNBROKEN_CHARACTERS", 20_000)
    rows = made_rows(3)
    rows[1]["prediction"] = "x" * 20_001
    run(judge, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out")
    assert [row["id"] for row in parts(tmp_path / "out")] == [0, 2]
    (one,) = rejects(tmp_path / "out")
    assert one["row"] == rows[1] and "a space, or a mark after a letter, at least every 20000" in one["reason"]


def test_workers_write_what_one_process_writes_and_draw_one_bar(judge, tmp_path, capsys, monkeypatch):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(2 * WINDOW_ROWS + 9), {"question": "q"}])
    one = run(judge, source, tmp_path / "one")
    assert run(judge, source, tmp_path / "two", workers=2) == one and one["rejected"] == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert re.search(r"^2 workers: 100%\|.* 522/522 \[.* tokens/s\]$", capsys.readouterr().err, re.M)
    (tmp_path / "two" / "part-000001.jsonl").unlink()
    assert run(judge, source, tmp_path / "two", workers=2) == one  # goes on, with as many as it likes
    assert contents(tmp_path / "two") == contents(tmp_path / "one")

    def broken(*_, **__):
        raise DataFileError("the disk is full")

    monkeypatch.setattr(judge, "score_encoded", broken)
    with pytest.raises(DataFileError, match="the disk is full"):
        run(judge, source, tmp_path / "three", workers=2)
    assert not [*(tmp_path / "three").glob("part-*")]


@pytest.mark.parametrize(
    ("gain", "parts_and_workers"), [(1.0, {100: 1}), (1.1, {1: 1, 2: 2, 3: 1, 4: 2, 9: 1, 11: 2, 100: 2})]
)
def test_by_default_a_job_is_divided_where_that_is_faster(monkeypatch, gain, parts_and_workers):
    monkeypatch.setattr("inspector_pipeline.jobs.workers.WORKERS_GAIN", gain)
    assert {parts: default_workers(parts, 2) for parts in parts_and_workers} == parts_and_workers
    assert default_workers(100, 1) == default_workers(0, 2) == 1


def test_a_job_goes_on_in_the_threads_that_it_was_begun_with(judge, tmp_path, monkeypatch):
    source = write_lines(tmp_path / "in.jsonl", made_rows(WINDOW_ROWS + 9))
    asked, threads = [], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        run(judge, source, tmp_path / "one", workers=None)
        assert threads_of(tmp_path / "one") == 1 and threads_of(tmp_path) is None
        monkeypatch.setattr("inspector_pipeline.jobs.score.run_workers", lambda _, tallies: asked.append(len(tallies)))
        torch.set_num_threads(2)
        run(judge, source, tmp_path / "one", workers=None)
        assert asked == [2] and torch.get_num_threads() == 2
        run(judge, source, tmp_path / "two", workers=None)  # and one process by default
        assert threads_of(tmp_path / "two") == 2 and asked == [2]
        with pytest.raises(DataFileError, match="set OMP_NUM_THREADS=2 to go on"):
            run(judge, source, tmp_path / "two", workers=2)
    finally:
        torch.set_num_threads(threads)
