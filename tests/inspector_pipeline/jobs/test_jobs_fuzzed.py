"""Whatever bytes a job is given: every row is scored or among the rejects with a reason."""

import json
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.jobs import ADDED, parts, rejects, run
from support.models import aspect, feature

from inspector_pipeline import load_judge
from inspector_pipeline.files.entries import json_line

EXAMPLES = 30


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.fixture
def judge(make_judge):
    return load_judge(make_judge([aspect("a", [feature(1)])], max_length=96), device="cpu")


texts = st.text(st.characters(), max_size=12)  # lone surrogates, control characters and all planes
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
one_value = values.filter(lambda value: not isinstance(value, list))  # a list of responses is as many rows
rows = st.fixed_dictionaries(
    {"question": texts | values, "prediction": texts | one_value},
    optional={"id": values, "more": values, "n": st.integers()},
)
good = st.fixed_dictionaries(
    {"question": st.just("q"), "prediction": st.sampled_from(["p", "yes"])}, optional={"id": values}
)
lines = st.one_of(
    (rows | good | values).map(lambda row: json.dumps(row).encode()),
    rows.map(lambda row: json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    rows.map(lambda row: json.dumps(row).encode()[:-2]),
    rows.map(lambda row: json.dumps(row).encode("utf-16")).map(lambda data: data.replace(b"\n", b"")),
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
)
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(judge, name, data, n_rows, shape):
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / name, Path(folder) / "out"
        source.write_bytes(data)
        counts = run(judge, source, output, format=shape)
        refused = rejects(output)
        scored = parts(output)
        assert len(scored) == counts["scored"] and len(refused) == counts["rejected"]
        assert len(scored) + len(refused) == n_rows
        assert all(isinstance(row["reason"], str) and row["reason"] for row in refused)
        assert len({row["number"] for row in refused}) == len(refused)
        assert all(type(row["a"]) is int and isinstance(row["question"], str) for row in scored)
        if shape == "parquet":
            pq.read_table(output)
        return scored, refused


@fuzzed
@given(st.lists(lines, max_size=12), st.sampled_from(["jsonl", "parquet"]))
def test_json_lines(judge, found, shape):
    n_rows = sum(bool(line.removeprefix(b"\xef\xbb\xbf" if at == 0 else b"").strip()) for at, line in enumerate(found))
    check(judge, "in.jsonl", b"\n".join(found), n_rows, shape)


@fuzzed
@given(st.lists(rows | good, max_size=8), st.sampled_from(["jsonl", "parquet"]))
def test_json(judge, found, shape):
    scored, refused = check(judge, "in.json", json.dumps(found).encode(), len(found), shape)
    if shape == "jsonl":
        added = set(ADDED)
        kept = [{key: value for key, value in row.items() if key not in added} for row in scored]
        refused_numbers = {row["number"] for row in refused}
        expected = [row for at, row in enumerate(found) if at not in refused_numbers]
        assert json_line(kept) == json_line(expected)  # NaN is null in both


@fuzzed
@given(
    st.lists(st.lists(st.binary(max_size=9).map(lambda data: data.translate(None, b'\r\n",')), max_size=4), max_size=8)
)
def test_csv(judge, found):
    data = [b",".join(fields) for fields in found]
    n_rows = sum(bool(line) for line in data)
    check(judge, "in.csv", b"\n".join([b"question,prediction", *data]), n_rows, "jsonl")


@fuzzed
@given(st.binary(max_size=60), st.sampled_from(["in.jsonl", "in.csv", "in.json"]))
def test_bytes_end_in_a_count_or_in_one_of_our_errors(judge, data, name):
    from inspector_pipeline.errors import InspectorError

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data)
        try:
            counts = run(judge, Path(folder) / name, Path(folder) / "out")
        except InspectorError:
            return
        assert counts["scored"] == 0 or b"question" in data
