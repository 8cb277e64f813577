import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.labelling.endpoint import Failure
from inspector_training.labelling.journal import Journal, is_settled, journal_path
from inspector_training.rows.records import checked_rows
from inspector_training.runs.manifest import Manifest

from inspector_pipeline.errors import DataFileError

ENTRIES = [{"key": [f"q{i}", 0], "prediction": "é\n" * i, "usage": {"calls": 1}} for i in range(5)]


def manifest(**changes):
    return Manifest("collect", {"q.jsonl": "ab"}, {"temperature": 0.0, "levels": {"1": "x"}, **changes}, {})


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


def written(output, entries=ENTRIES):
    with Journal(output, manifest()) as journal:
        for entry in entries:
            journal.append(entry)
    return journal_path(output)


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 600))
def test_a_journal_torn_at_any_byte_keeps_the_whole_lines_and_goes_on(tmp_path_factory, cut):
    output = tmp_path_factory.mktemp("journal") / "out.jsonl"
    path = written(output)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    n_whole = max(0, data.count(b"\n") - 1)  # without the header
    with Journal(output, manifest()) as journal:
        assert list(journal.entries.values()) == ENTRIES[:n_whole]
        for entry in ENTRIES[n_whole:]:
            journal.append(entry)
    with Journal(output, manifest()) as journal:
        assert list(journal.entries.values()) == ENTRIES


def test_other_settings_are_refused_by_name_and_nothing_is_lost(output):
    path = written(output)
    before = path.read_bytes()
    with (
        pytest.raises(DataFileError, match=r"begun with other settings: temperature: 0\.0, but now 1\.0 .* delete"),
        Journal(output, manifest(temperature=1.0)),
    ):
        pass
    with pytest.raises(DataFileError, match="begun with other settings: extra: None, but now 2"):
        Journal(output, manifest(extra=2)).__enter__()
    assert path.read_bytes() == before


def test_other_inputs_are_refused(output):
    written(output)
    other = Manifest("collect", {"q.jsonl": "cd"}, manifest().settings, {})
    with pytest.raises(DataFileError, match=r"begun with other inputs: q\.jsonl: 'ab', but now 'cd'"):
        Journal(output, other).__enter__()


def test_two_runs_cannot_write_one_journal(output):
    with Journal(output, manifest()) as journal:
        with pytest.raises(DataFileError, match="one run at a time"):
            Journal(output, manifest()).__enter__()
        journal.append(ENTRIES[0])
    with Journal(output, manifest()) as journal:
        assert len(journal.entries) == 1


def test_a_damaged_line_inside_is_named(output):
    path = written(output)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\x00\x00\n", *lines[2:]]))
    with pytest.raises(DataFileError, match="line 3: .*Delete that line"):
        Journal(output, manifest()).__enter__()
    path.write_bytes(b"".join(lines))
    with Journal(output, manifest()) as journal:  # the lock of the refused run is free again
        assert len(journal.entries) == 5


def test_the_last_entry_of_a_unit_counts_and_usage_is_summed(output):
    with Journal(output, manifest()) as journal:
        journal.append({"key": ["q", 0], "usage": {"calls": 1, "prompt_tokens": 7}, "partial": True})
        assert not journal.is_done(("q", 0), retry_failed=False)
        journal.fail(("q", 0), Failure("timed out", passing=True))
        assert journal.is_done(("q", 0), retry_failed=False) and not journal.is_done(("q", 0), retry_failed=True)
        journal.append({"key": ["q", 0], "prediction": "4", "usage": {"calls": 1, "prompt_tokens": 5}})
    with Journal(output, manifest()) as journal:
        assert journal.entries["q", 0]["prediction"] == "4"
        assert journal.usage["q", 0] == {"calls": 2, "prompt_tokens": 12}
        assert journal.is_done(("q", 0), retry_failed=True)


def test_finish_writes_output_and_manifest_and_keeps_the_journal_only_for_failures_that_may_pass(output):
    with Journal(output, manifest()) as journal:
        journal.append(ENTRIES[0])
        journal.fail(("q1", 0), Failure("429", passing=True))
        journal.finish([{"id": "q0"}, {"id": "q1"}])
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == ["q0", "q1"]
    assert is_settled(output, manifest(), retry_failed=False) and not is_settled(output, manifest(), retry_failed=True)
    with Journal(output, manifest()) as journal:
        journal.fail(("q1", 0), Failure("400", passing=False))
        journal.finish([{"id": "q0"}, {"id": "q1"}])
    assert is_settled(output, manifest(), retry_failed=True)
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.manifest.json"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": 1, "question": "a"}, {"id": "1", "question": "b"}],
            "row 1 expects a name of its own, but",
        ),
        ([{"id": 1, "question": "half \ud83d"}], "row 0 expects Unicode text as question"),
        ([{"id": 1, "question": " \n"}], "row 0 expects a question, but it is blank"),
        ([{"id": 1, "question": 5}], "row 0 expects Unicode text as question, but got 5"),
    ],
)
def test_rows_that_cannot_be_joined_or_sent_are_refused(rows, message):
    with pytest.raises(DataFileError, match=message):
        checked_rows("q.jsonl", rows, lambda row: (str(row["id"]),), ("question",))


def test_settings_may_change_while_nothing_is_finished(output):
    written(output, entries=[])
    with Journal(output, manifest(temperature=1.0)) as journal:
        journal.append(ENTRIES[0])
    with Journal(output, manifest(temperature=1.0)) as journal:
        assert len(journal.entries) == 1


@pytest.mark.parametrize(
    "line", ["[1]", "{}", '{"key": 5}', '{"key": [[1]]}', '{"key": ["q"], "usage": [1]}', "[" * 100_000]
)
def test_a_line_that_is_no_entry_is_told(output, line):
    path = written(output)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataFileError, match="expects a JSON object a line, but line 7"), Journal(output, manifest()):
        pass
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(DataFileError, match="partial.jsonl (expects a JSON object a line|was begun with other)"):
        Journal(output, manifest()).__enter__()
