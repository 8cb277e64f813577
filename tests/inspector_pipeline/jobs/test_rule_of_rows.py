"""Rows in = rows scored + rows rejected with a reason + files named as skipped, whatever happened to a file."""

import csv
import gzip
import io
import json
import re
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspector_cli.main import main
from support.jobs import cheapened, parts, rejects, run
from support.models import aspect, feature

from inspector_pipeline import load_judge
from inspector_pipeline.errors import InspectorError
from inspector_pipeline.files.entries import json_line
from inspector_pipeline.files.tables import read_rows

MARK = re.compile(r"r\d+x")  # in each row's response, so that its text can be found again
OPTIONS = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(1)])], max_length=96)


@pytest.fixture
def judge(folder, monkeypatch):
    found = cheapened(load_judge(folder, device="cpu"))
    monkeypatch.setattr("inspector_cli.score.load", lambda _: found)
    return found


def as_json(rows, odd):
    return json.dumps(rows, indent=2 if odd else None).encode()


def as_jsonl(rows, odd):
    return b"".join(json.dumps(row).encode() + (b"\r\n" if odd else b"\n") for row in rows)


def as_csv(rows, odd):
    text = io.StringIO(newline="")
    fields, end = ["question", "prediction", "more"], "\r\n" if odd else "\n"
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator=end, quoting=csv.QUOTE_ALL * odd)
    writer.writeheader()
    writer.writerows({**row, "more": json.dumps(row.get("more"))} for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def table_of(rows):
    names = ("question", "prediction", "more")
    columns = [[row.get(name) for row in rows] for name in names[:2]] + [[json.dumps(row.get("more")) for row in rows]]
    texts = [
        [None if one is None else str(one).encode("utf-8", "replace").decode() for one in some] for some in columns
    ]
    return pa.table(dict(zip(names, [pa.array(some, pa.string()) for some in texts], strict=True)))


def as_parquet(rows, odd):
    file = io.BytesIO()
    pq.write_table(table_of(rows), file, write_page_index=bool(odd), row_group_size=2)
    return file.getvalue()


def as_arrow(rows, odd):
    file = io.BytesIO()
    table = table_of(rows)
    with (pa.ipc.new_stream if odd else pa.ipc.new_file)(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file.getvalue()


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def from_zstd(data):
    return pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()


TEXTS = {".json": as_json, ".jsonl": as_jsonl, ".csv": as_csv}
TABLES = {".parquet": as_parquet, ".arrow": as_arrow}
PACKED = {"": (bytes, bytes), ".gz": (gzip.compress, gzip.decompress), ".zst": (zstd, from_zstd)}
SPLINTERS = [
    b'"',
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"{",
    b"]",
    b",",
    b"\xed\xa0\x80",
    b"\\",
    b"x" * 70_000,
]


def turns_of(row, role="role", text="content", user="user", assistant="assistant"):
    return [{role: user, text: row.get("question")}, {role: assistant, text: row["prediction"]}]


# As tools write them; a row's other keys stay beside.
LAYOUTS = {
    "a pair": dict,
    "columns": lambda row: {"Prompt": row.get("question"), "Response": row["prediction"]},
    "Alpaca": lambda row: {"instruction": row.get("question"), "input": "", "output": row["prediction"]},
    "messages": lambda row: {"messages": turns_of(row)},
    "ShareGPT": lambda row: {"conversations": turns_of(row, "from", "value", "human", "gpt")},
    "TRL": lambda row: {"prompt": turns_of(row)[:1], "completion": turns_of(row)[1:]},
    "a request": lambda row: {
        "request": {"messages": turns_of(row)[:1]},
        "response": {"choices": [{"message": turns_of(row)[1]}]},
    },
    "Label Studio": lambda row: {
        "data": {"prompt": row.get("question"), "output": row["prediction"]},
        "annotations": [],
    },
    "inspect_ai": lambda row: {
        "input": row.get("question"),
        "messages": turns_of(row),
        "output": {"choices": [{"message": turns_of(row)[1]}]},
    },
}


def as_a_tool(rows, layout):
    own = ("question", "prediction")
    rest = [{key: value for key, value in row.items() if key not in own} for row in rows]
    return rows if layout is dict else [{**layout(row), **more} for row, more in zip(rows, rest, strict=True)]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
texts = st.sampled_from(
    ["fine", 'a "quoted" word', "two\nlines, of\r\nit", "é 因为 😀", "", "\ud800", "\u2028", "nul \x00"]
)


@st.composite
def rows_of(draw):
    """Draw rows, most of them sound, each with its mark."""
    rows = []
    for number in range(draw(st.integers(0, 5))):
        row = {"question": f"q{number} {draw(texts)}", "prediction": f"r{number}x {draw(texts)}"}
        if draw(st.booleans()):
            row["more"] = draw(values)
        fault = draw(st.sampled_from([*[None] * 5, "blank", "missing", "number"]))
        if fault == "missing":
            row["other"] = row.pop("question")
        elif fault:
            row["question"] = {"blank": " ", "number": 5}[fault]
        rows.append(row)
    return rows


@st.composite
def damaged(draw, data):
    """Draw what becomes of a file's bytes; gives them, and how they were damaged."""
    kind = draw(st.sampled_from(["none", "cut", "flip", "insert", "twice", "delete", "append"]))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == "cut":
        return data[:at], kind
    if kind == "flip" and data:
        return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :], kind
    if kind in ("insert", "append"):
        at = at if kind == "insert" else len(data)
        return data[:at] + draw(st.sampled_from(SPLINTERS)) + data[at:], kind
    if kind == "twice":
        return data * 2, kind
    if kind == "delete":
        return data[:at] + data[draw(st.integers(at, len(data))) :], kind
    return data, "none"


def marks(found):
    return Counter(MARK.findall(found if isinstance(found, str) else json_line(found).decode("utf-8", "replace")))


def scored_and_rejected(judge, source, output, shape):
    """Run a job and check its books; gives rows and rejects, or None and the error, which names the file."""
    try:
        counts = run(judge, source, output, format=shape)
    except InspectorError as error:
        assert source.name in str(error) or "JSON" in str(error), error
        return None, error
    scored, refused = parts(output), rejects(output)
    assert (len(scored), len(refused)) == (counts["scored"], counts["rejected"])
    assert all(row["reason"] for row in refused)
    assert len({row["number"] for row in refused}) == len(refused)
    assert all(type(row["a"]) is int and (row.get("prediction") or row["Response"]).strip() for row in scored)
    return scored, refused


def single_file(source, output, folder, capsys):
    """Score a file at once; gives the rows, or None where it was refused in one line."""
    capsys.readouterr()
    code = main(["score", str(source), "--judge", str(folder), "--output", str(output), "--format", "none"])
    assert code in (0, 1) and "inspector: " in capsys.readouterr().err and output.exists() == (code == 0)
    return read_rows(str(output)) if code == 0 else None


def header_of(text):
    try:
        return next(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")), [])
    except csv.Error:
        return []


@settings(max_examples=60, **OPTIONS)
@given(
    st.data(), st.sampled_from(sorted(TEXTS)), st.sampled_from(sorted(PACKED)), st.sampled_from(["jsonl", "parquet"])
)
def test_text(judge, folder, capsys, data, suffix, compression, shape):
    pack, unpack = PACKED[compression]
    rows = data.draw(rows_of())
    if suffix != ".csv":
        rows = as_a_tool(rows, LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))])
    plain, _ = data.draw(damaged(TEXTS[suffix](rows, data.draw(st.booleans()))))
    content, how = data.draw(damaged(pack(plain))) if compression else (plain, "none")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / f"in{suffix}{compression}"
        source.write_bytes(content)
        scored, refused = scored_and_rejected(judge, source, Path(name) / "out", shape)
        at_once = single_file(source, Path(name) / "out.json", folder, capsys)
    try:
        whole = unpack(content)
    except (EOFError, OSError, zlib.error):
        whole = None
    if scored is None:
        assert at_once is None
        return
    assert whole is not None and (content or not compression)
    text = whole.decode("utf-8", "replace")
    there = marks(text) - marks(header_of(text) if suffix == ".csv" else [])
    assert not there - (marks(scored) + marks(refused))
    if suffix == ".jsonl":
        lines = whole.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        assert len(scored) + len(refused) == sum(bool(line.strip()) for line in lines)
    if whole == plain and how == "none" and plain == TEXTS[suffix](rows, False):
        assert len(scored) + len(refused) == len(rows)
    if shape == "jsonl":
        assert (at_once is None) == bool(refused)
        assert at_once is None or len(at_once) == len(scored)


@settings(max_examples=30, **OPTIONS)
@given(st.data(), st.sampled_from(sorted(TABLES)), st.sampled_from(["jsonl", "parquet"]))
def test_tables(judge, folder, capsys, data, suffix, shape):
    rows = data.draw(rows_of())
    whole = TABLES[suffix](rows, data.draw(st.booleans()))
    content, how = data.draw(damaged(whole))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / f"in{suffix}"
        source.write_bytes(content)
        scored, refused = scored_and_rejected(judge, source, Path(name) / "out", shape)
        at_once = single_file(source, Path(name) / "out.json", folder, capsys)
    if content == whole:
        assert marks(scored) + marks(refused) == marks(table_of(rows).to_pylist())
    elif how in ("cut", "append", "twice"):
        assert scored is None
    if scored is not None:
        assert len(scored) + len(refused) == len(rows)
        assert (at_once is None) == bool(refused) and len(at_once or scored) == len(scored)
