import json
import resource
import subprocess
import sys
from importlib.metadata import EntryPoint, version

import pytest
from inspector_cli.arguments import SUFFIXES
from inspector_cli.main import main
from inspector_cli.score import default_output
from inspector_cli.table import show_table
from support.models import PAIRS, aspect, feature
from support.results import mark_pairs

from inspector_pipeline import InspectorModel


@pytest.fixture
def folder(make_judge):
    results = {"auroc": {"value": 0.7, "low": 0.6, "high": 0.8}, "surface": {"auroc": {"value": 0.55}}, "n": 99}
    path = make_judge(
        [aspect("clarity", [feature(2), feature(1, "last")]), aspect("truth", [feature(2)], counts=False)]
    )
    (path / "results.json").write_text(json.dumps({"aspects": {"clarity": results}}))
    return path


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(PAIRS))
    return path


def score(*args):
    return main(["score", *map(str, args), "--device", "cpu"])


def test_writes_the_published_file_name_and_prints_json_lines_on_a_pipe(folder, source, capsys, backbone_dir):
    assert score(source, "--judge", folder) == 0
    written = source.with_name(f"pairs_{backbone_dir.name}_multi_evaled.json")
    rows = json.loads(written.read_text())
    assert [list(row)[:5] for row in rows] == [["question", "prediction", "clarity", "truth", "total_score"]] * 3
    assert {row["rank_by"] for row in rows} == {"expected_total"}
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == rows
    assert f"wrote 3 pairs to {written}" in captured.err


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_output_and_share(folder, source, tmp_path, suffix, capsys):
    target = tmp_path / f"out{suffix}"
    assert score(source, "--judge", folder, "--output", target, "--top-percent", "0.7", "--format", "none") == 0
    assert target.is_file() and capsys.readouterr().out == ""
    assert not list(tmp_path.glob("*_evaled.json"))


def test_standard_input_and_output(folder, source, monkeypatch, capsys):
    import io

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert score("-", "--judge", folder, "--output", "-") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_table_for_people(folder, source, tmp_path, capsys):
    source.write_text(json.dumps([{"question": "[bold]q[/bold]", "prediction": "p\nq"}] * 60))
    assert score(source, "--judge", folder, "--format", "table", "--output", tmp_path / "o.json") == 0
    out = capsys.readouterr().out
    assert "clarity" in out and "total" in out and "[bold]q[/bold]" in out and "... and 10 more pairs" in out


def test_truncated_pairs_are_counted(make_judge, source, tmp_path, capsys):
    folder = make_judge([aspect("a", [feature(1)])], max_length=64)
    source.write_text(json.dumps([{"question": "word " * 200, "prediction": "p"}]))
    assert score(source, "--judge", folder, "--output", tmp_path / "o.json") == 0
    assert "1 of 1 pairs were longer" in capsys.readouterr().err


FAULTS = {
    "own input": (["pairs.json", "--output", "pairs.json"], "another file than the input"),
    "no device": (["pairs.json", "--device", "nonsense"], "--device expects a device of this machine"),
    "a plain model": (["pairs.json", "--judge", "./plain"], "model_type expects 'inspector'"),
    "no file": (["gone.json"], "gone.json could not be read"),
    "no pair": (["bad.jsonl"], "Pair 0 expects the keys question and prediction, but 'prediction' is missing"),
    "no Hub": (["pairs.json", "--revision", "old"], "--revision expects a judge on the Hub, but got the embedded one"),
    "no judge": (["pairs.json", "--judge", "./nowhere"], "expects a folder or a Hub id"),
    "no hub": (["pairs.json", "--judge", "org/no-such-judge"], "."),
    "no folder": (["pairs.json", "--output", "no/such/out.json"], "expects an existing folder"),
    "no format": (["pairs.json", "--output", "out.xlsx"], "expects a suffix"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_end_with_one_and_a_message(case, source, monkeypatch, capsys):
    monkeypatch.chdir(source.parent)
    (source.parent / "plain").mkdir()
    (source.parent / "plain" / "config.json").write_text('{"model_type": "llama"}')
    (source.parent / "bad.jsonl").write_text('{"question": "q"}\n')
    args, message = FAULTS[case]
    assert main(["score", *args]) == 1
    error = capsys.readouterr().err
    assert error.startswith("inspector: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "args", [["score"], ["score", "x.json", "--top-percent", "2"], ["score", "x.json", "--batch-size", "0"], []]
)
def test_wrong_arguments_end_with_two(args):
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2


def test_info_describes_a_judge(folder, capsys, backbone_dir, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["info", str(folder)]) == 0
    out = capsys.readouterr().out
    for words in (
        str(backbone_dir),
        "2 layers of width 32",
        "1 a pair",
        "probes only",
        "<|im_start|>user\\n{question}",
        "clarity: scores 1 2 3 4 5 by logistic",
        "layers 1-2, mean, last, raw",
        "AUROC 0.700 (0.600 to 0.800), surface baseline 0.550, 99 pairs",
        "truth: scores 1 2 3 4 5 by logistic, not in the total",
        "no evidence: this judge was not evaluated",
    ):
        assert words in out, words


def test_info_of_the_embedded_judge(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "4000")
    assert main(["info"]) == 0
    wide = capsys.readouterr().out
    assert "".join(out.split()) == "".join(wide.split())
    out = wide
    assert out.startswith("cannot see    It checks sums that are written out, not the solution. Of a right and a wrong")
    assert "SmolLM2-135M-Instruct-Q4_1" in out and out.count("surface baseline") == 6
    assert "of the surest decisions between two answers right, of 10% 0.962, 30% 0.915" in out


def test_default_names(make_judge):
    config = InspectorModel.from_pretrained(make_judge([aspect("a", [feature(1)], classes=(0, 1))])).config
    config.backbone_id = "Qwen/Qwen3-1.7B"
    assert default_output("some/where/name.x.jsonl", config) == "some/where/name.x_Qwen3-1.7B_binary_evaled.json"


def test_a_reader_that_leaves_early_is_no_error(folder, tmp_path):
    rows = [{"question": "q", "prediction": "p" * 50}] * 900
    (tmp_path / "many.json").write_text(json.dumps(rows))
    command = (
        f"{sys.executable} -m inspector_cli.main score many.json --judge {folder} --device cpu --output - | head -1"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr


NAMES = ["semantic_consistency", "correctness", "factuality", "informativeness", "fluency", "logicality"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_its_terminal_and_loses_nothing(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    row = {"question": "What is the capital of France?", "prediction": "Paris, on the Seine, is its capital."}
    show_table([{**row, **dict.fromkeys(NAMES, 4), "total_score": 24}] * 3, NAMES)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    rule = next(at for at, line in enumerate(lines) if set(line) == {"─"})
    header, first = lines[:rule], lines[rule + 1]
    question, prediction = (header[-1].index(name) for name in ("question", "prediction"))
    texts_end = 2 * prediction - question - 1  # both texts are equally wide
    assert texts_end - prediction >= 10
    ends = [texts_end, *(at for at, character in enumerate(first) if character == "4")]
    read = ["".join(line[a + 1 : b + 1].strip() for line in header) for a, b in zip(ends, ends[1:], strict=False)]
    assert read == [*(name.replace("_", "") for name in NAMES), "total"]
    assert "What is t" in first and "Paris, on" in first
    assert ("What is the capital" in first) == (width == 120)


def test_the_table_is_ordered_by_the_field_and_marks_what_is_unfamiliar_or_seen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    rows = [{"question": "q", "prediction": f"p{i}", "x_wit": 4, "x_total_score": 4} for i in range(4)]
    told = [(1.0, None, None), (2.25, True, False), (1.0, False, True), (3.0, True, True)]
    for row, (expected, unfamiliar, seen) in zip(rows, told, strict=True):
        row |= {"x_expected_wit": expected, "x_unfamiliar": unfamiliar, "x_seen": seen}
    show_table(rows, ["wit"], "x_", "x_expected_wit")
    header, *lines = [line.split() for line in capsys.readouterr().out.splitlines()][1:]
    assert header == ["#", "question", "prediction", "wit", "total", "wit"]
    tails = [["3", "3.00", "?="], ["1", "2.25", "?"], ["0", "1.00"], ["2", "1.00", "="]]
    assert [[line[0], *line[5:]] for line in lines[1:5]] == tails
    assert lines[-1][:2] == ["?", "unlike"]


def test_the_best_share_and_the_table_are_by_what_the_judge_ranks_by(make_judge, source, tmp_path, capsys, monkeypatch):
    aspects = [aspect("clarity", [feature(2)]), aspect("truth", [feature(1, "last")], counts=False)]
    judge, target = make_judge(aspects, rank_by="expected_truth"), tmp_path / "out.jsonl"

    def best(field, *options):
        assert score(source, "--judge", judge, "--output", target, "--format", "none", *options) == 0
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert {row["rank_by"] for row in rows} == {field}
        return rows

    every = best("expected_truth")
    for field in ("expected_truth", "total_score", "expected_total", "truth"):
        found = best(field, "--top-percent", "0.7", *([] if field == "expected_truth" else ["--rank-by", field]))
        ranked = sorted(every, key=lambda row: -round(row[field], 5))[:2]
        assert [row["question"] for row in found] == [row["question"] for row in ranked]
    assert score(source, "--judge", judge, "--rank-by", "wit", "--output", target) == 1
    assert "rank_by expects one of expected_total, expected_clarity, expected_truth" in capsys.readouterr().err
    assert score(source, "--judge", judge, "--rank-by", "truth", "--output", f"{tmp_path}/folder/") == 1
    assert "--rank-by expects a file as --output. Run `inspector filter`" in capsys.readouterr().err
    assert main(["info", str(judge)]) == 0
    assert "ranks by      expected_truth" in capsys.readouterr().out
    mark_pairs(monkeypatch, unfamiliar="Lena", seen="prime")
    assert score(source, "--judge", judge, "--output", target, "--format", "table") == 0
    out, err = capsys.readouterr()
    assert "? unlike what the judge was fitted on" in out
    assert '1 of 3 pairs are unlike what the judge was fitted on (1 x "says Lena in … letters, at most 3")' in err
    assert f"inspector filter {target} --drop-unfamiliar" in err


QUICK = {
    "help": (["--help"], 0, "COMMAND"),
    "version": (["--version"], 0, f"inspector-pipeline {version('inspector-pipeline')}"),
    "help of a command": (["score", "--help"], 0, "--batch-size"),
    "no command": ([], 2, "COMMAND"),
    "unknown command": (["scroe"], 2, "invalid choice: 'scroe'"),
    "bad value": (["filter", "x.json", "--top", "2"], 2, "expects a share from 0 to 1, but got 2"),
    "no input": (["score", "gone.json"], 1, "inspector: gone.json could not be read: No such file"),
    "no kind": (["score", "pairs.xlsx"], 1, "expects a suffix of .json, .jsonl, .csv, .parquet, .arrow, but got"),
}


@pytest.mark.parametrize("case", QUICK)
def test_help_and_mistakes_are_told_within_a_second(case, tmp_path):
    (tmp_path / "pairs.xlsx").touch()
    args, code, words = QUICK[case]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "inspector_cli.main", *args]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code and words in done.stdout + done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_the_files_that_are_checked_at_once_are_those_that_can_be_read():
    from inspector_pipeline.files.tables import SUFFIXES as READABLE

    assert set(SUFFIXES) == set(READABLE)


def teach(parser):
    """Teach a judge.

    At length.
    """
    parser.add_argument("--rows")
    parser.set_defaults(command=lambda args: __import__(args.rows))


def test_other_packages_add_commands_and_a_missing_extra_is_named(monkeypatch, capsys):
    entry = EntryPoint("teach", f"{__name__}:teach", "inspector.commands")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "teach", teach, raising=False)
    monkeypatch.setattr("inspector_cli.main.entry_points", lambda group: [entry] * (group == "inspector.commands"))
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "Teach a judge." in capsys.readouterr().out
    assert main(["teach", "--rows", "nosuch"]) == 1
    expected = "inspector: inspector teach expects nosuch. Run pip install 'inspector-pipeline[training]'\n"
    assert capsys.readouterr().err == expected
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 1
    assert "inspector serve expects uvicorn. Run pip install 'inspector-pipeline[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["clarity", "total_score"])
def test_own_columns_are_not_written_over(folder, tmp_path, name, capsys):
    path, target = tmp_path / "rated.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps({**pair, name: "mine"}) + "\n" for pair in PAIRS))
    assert score(path, "--judge", folder, "--output", target, "--format", "none") == 1
    assert f"no column of the judge's, but has {name}. Give --prefix" in capsys.readouterr().err and not target.exists()
    args = ("--judge", folder, "--output", target, "--format", "table", "--prefix", "judge_", "--top-percent", "0.7")
    assert score(path, *args) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(rows) == 2 and all(row[name] == "mine" for row in rows)
    assert rows[0]["judge_total_score"] >= rows[1]["judge_total_score"]


def test_parquet_keeps_the_types_of_columns_that_are_not_read(folder, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        **{key: [pair[key] for pair in PAIRS] for key in ("question", "prediction")},
        "when": pa.array([1, 2, None], pa.timestamp("ns")),
        "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int32())),
        "hash": pa.array([2**63 + 1, 1, None], pa.uint64()),
        "half": pa.array([1.5, None, 2.5], pa.float16()),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "in.parquet")
    before = pq.read_table(tmp_path / "in.parquet")
    for share, order in (("1.0", [0, 1, 2]), ("0.7", None)):
        target = tmp_path / f"out{share}.parquet"
        args = ("--judge", folder, "--output", target, "--format", "none", "--top-percent", share)
        assert score(tmp_path / "in.parquet", *args) == 0
        found = pq.read_table(target)
        assert found.select(before.column_names).schema.types == before.schema.types
        order = order or [table["question"].to_pylist().index(one) for one in found["question"].to_pylist()]
        assert found.select(before.column_names).equals(before.take(order))
        added = found.schema.names[len(before.column_names) :]
        assert added[:3] == ["clarity", "truth", "total_score"]
        assert pa.types.is_boolean(found.schema.field("seen").type) and pa.types.is_struct(
            found.schema.field("probabilities").type
        )


@pytest.mark.parametrize("odd", [2**63, 2**64, "text", {"a": 1}])
def test_what_parquet_cannot_hold_is_refused_before_it_is_scored(folder, tmp_path, odd, capsys, monkeypatch):
    from inspector_pipeline.pipeline_inspector import InspectorPipeline

    path = tmp_path / "in.jsonl"
    path.write_text(
        "".join(json.dumps({**pair, "id": one}) + "\n" for pair, one in zip(PAIRS, (1, 2, odd), strict=True))
    )
    monkeypatch.setattr(InspectorPipeline, "__call__", None)
    assert score(path, "--judge", folder, "--output", tmp_path / "out.parquet", "--format", "none") == 1
    assert "cannot hold these rows: " in capsys.readouterr().err


def test_bytes_are_refused_where_they_would_become_text(folder, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {key: [pair[key] for pair in PAIRS] for key in ("question", "prediction")}
    pq.write_table(pa.table({**columns, "raw": [b"\xff"] * 3}), tmp_path / "in.parquet")
    assert score(tmp_path / "in.parquet", "--judge", folder, "--output", tmp_path / "x.json") == 1
    assert "the column 'raw' holds bytes. Give a .parquet file" in capsys.readouterr().err
    args = ("--judge", folder, "--output", tmp_path / "x.parquet", "--format", "none")
    assert score(tmp_path / "in.parquet", *args) == 0
    assert pq.read_table(tmp_path / "x.parquet")["raw"].to_pylist() == [b"\xff"] * 3


def test_the_only_line_of_a_csv_file_is_no_header(folder, tmp_path, capsys):
    (tmp_path / "x.csv").write_text("What is 2 + 2?,4\n")
    assert score(tmp_path / "x.csv", "--judge", folder) == 1
    assert "expects a header with the column 'question', but has 'What is 2 + 2?, 4'" in capsys.readouterr().err


def test_a_share_by_a_judge_without_a_total_is_refused(make_judge, source, capsys):
    judge = make_judge([aspect("truth", [feature(2)], counts=False)])
    assert score(source, "--judge", judge, "--top-percent", "0.5") == 1
    assert "expects a judge with an aspect that counts in the total score" in capsys.readouterr().err
    assert score(source, "--judge", judge, "--format", "none") == 0


def test_a_link_to_the_input_is_the_input(folder, source, tmp_path, capsys):
    (tmp_path / "link.json").symlink_to(source)
    assert score(source, "--judge", folder, "--output", tmp_path / "link.json") == 1
    assert "another file than the input" in capsys.readouterr().err
