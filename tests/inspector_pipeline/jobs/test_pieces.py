"""The pieces of jobs by themselves: what is counted and told, ranked, dealt out, checked, and put in order."""

import hashlib
import io
import json
import os
import sys
import warnings
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inspector_pipeline.batches import WINDOW_ROWS
from inspector_pipeline.columns import Late
from inspector_pipeline.errors import BackboneError, DataFileError, PairError, SettingsError
from inspector_pipeline.files.entries import Entry
from inspector_pipeline.files.tables import Source, write_rows
from inspector_pipeline.jobs import abstain as abstaining
from inspector_pipeline.jobs import drift as drifting
from inspector_pipeline.jobs import filter as filters
from inspector_pipeline.jobs import manifest as manifests
from inspector_pipeline.jobs import score as scoring
from inspector_pipeline.jobs import workers
from inspector_pipeline.jobs.abstain import _mark_lines, _mark_table
from inspector_pipeline.jobs.drift import FITTED_ON, SHARES, Drift, drift_told
from inspector_pipeline.jobs.filter import FilterJob, filter_job, rank
from inspector_pipeline.jobs.flags import COMMONEST, Flags, told
from inspector_pipeline.jobs.input import JobInput, Survey, is_parquet, settled, survey_input, unified
from inspector_pipeline.jobs.manifest import (
    check_finished,
    is_older_job,
    job_manifest,
    judge_fingerprint,
    read_manifest,
    settle_manifest,
    write_json,
)
from inspector_pipeline.jobs.output import (
    BusyFileError,
    JsonlWriter,
    ParquetWriter,
    Parts,
    joined,
    reject_row,
    whole_file,
)
from inspector_pipeline.jobs.reorder import BUFFER_ROWS, RowsOnDisk
from inspector_pipeline.jobs.score import FORMATS, ScoreJob, _check_place, summary_of
from inspector_pipeline.jobs.where import Where
from inspector_pipeline.jobs.window import Outcome, score_window
from inspector_pipeline.progress import Tally
from inspector_pipeline.rows import SOURCE_PART

# What rows say of themselves


def row(**changes):
    return {"truncated": False, "unfamiliar": None, "unfamiliar_reason": None, "seen": None, **changes}


def test_flags_are_counted_and_unknown_ones_left_out():
    assert Flags().counts() == {"truncated": 0}
    flags = Flags("j_")
    assert flags.columns == ["j_truncated", "j_unfamiliar", "j_unfamiliar_reason", "j_seen"]
    for own in (
        row(truncated=True, unfamiliar=False, seen=False),
        row(unfamiliar=True, unfamiliar_reason="3.5e-2 % of 7 words; 8 at most", seen=True),
        row(unfamiliar=True, unfamiliar_reason="1,000 of 7 words; 8 at most"),
        row(unfamiliar=True),
        row(),
    ):
        flags.add({f"j_{name}": value for name, value in own.items()})
    reasons = {"… of 7 words; 8 at most": 2, "no reason given": 1}
    counts = {"truncated": 1, "unfamiliar": 3, "unfamiliar_reasons": reasons, "seen": 1}
    assert flags.counts() == counts and flags.rows == 5
    never = Flags()
    never.add(row(unfamiliar=False, seen=False))
    assert never.counts() == {"truncated": 0, "unfamiliar": 0, "unfamiliar_reasons": {}, "seen": 0}
    with pytest.raises(KeyError):
        never.add({})
    assert "drift" not in Flags(drift=object()).counts()


def test_what_is_told_names_the_commonest_reasons_and_the_next_command():
    assert told({"unfamiliar": 0, "seen": 0}, 9, "x") is None
    reasons = {"a": 1, "b": 4, "c": 2, "d": 3}
    said = told({"unfamiliar": 10, "unfamiliar_reasons": reasons, "seen": 2}, 20, "out put")
    assert COMMONEST == 3 and said == (
        '10 of 20 pairs are unlike what the judge was fitted on (4 x "b", 3 x "d", 2 x "c", ...); 2 of 20 pairs ask '
        "what the judge was fitted on, so it knows them too well; leave the unlike ones out: inspector "
        "filter 'out put' --drop-unfamiliar"
    )
    del reasons["a"]
    assert '2 x "c")' in told({"unfamiliar": 9, "unfamiliar_reasons": reasons}, 20, None) and "filter" not in told(
        {"unfamiliar": 9, "unfamiliar_reasons": reasons}, 20, None
    )
    assert told({"drift": {"characters": {}, "levels": {}}}, 1, None) is None


def test_a_summary_says_what_there_is_to_say():
    counts = {"scored": 3, "rejected": 0, "truncated": 0}
    assert summary_of(counts, "out") == "3 pairs scored; in out"
    every = {**counts, "rejected": 2, "abstained": 0, "skipped": 4, "truncated": 5}
    assert summary_of(every, "out") == (
        "3 pairs scored, 2 rejected (see out/_rejects), 0 abstained from, 4 of the input's files skipped, 5 longer "
        "than the judge's limit and cut; in out"
    )


FIT = {"rows": 9, "characters": {"question": [2, 4, 6, 8, 10]}, "levels": {"a": {"1": 0.5, "2": 0.5}}}


def test_drift_is_the_share_of_rows_that_would_have_to_be_others():
    assert SHARES == (0.05, 0.2, 0.25, 0.25, 0.2, 0.05)
    drift = Drift(FIT, 0.125, {"question": "q", "prediction": "p"}, "j_")
    assert drift.columns == ["q", "j_a"] and drift.report() == {"rows": 0, "characters": {}, "levels": {}}
    for text, level, flag in (("  ab ", 1, True), ("abcdef\n", 1, 0), ("abcdefghijk", 3, False), (None, None, None)):
        drift.add({"q": text, "j_a": level, "j_unfamiliar": flag})
    report = drift.report()
    assert report["rows"] == 4
    assert report["unfamiliar"] == {"share": 0.3333, "fit": 0.125, "far": False}
    characters = report["characters"]["question"]
    # of 2 characters one bin, of 6 and of 11 others: a border belongs to the higher one
    assert characters["shares"] == {"0": 0.0, "1": 0.3333, "2": 0.0, "3": 0.3333, "4": 0.0, "5": 0.3333}
    distance = (0.05 + (1 / 3 - 0.2) + 0.25 + (1 / 3 - 0.25) + 0.2 + (1 / 3 - 0.05)) / 2
    assert characters["distance"] == round(distance, 4) and characters["far"] is False
    assert (characters["median"], characters["fit_median"]) == (6, 6)
    levels = report["levels"]["a"]
    assert levels["shares"] == {"1": 0.6667, "2": 0.0, "3": 0.3333} and levels["distance"] == 0.5
    assert drift_told(report) is None
    told_of = {"unfamiliar": {"share": 0.5, "fit": 0.0125, "far": True}, "characters": {}, "levels": {}}
    far = {"far": True, "median": 1234, "fit_median": 5678}
    told_of["characters"] = {"question": far, "prediction": {**far, "far": False}}
    told_of["levels"] = {"a": {"far": True}, "b": {"far": False}, "c": {"far": True}}
    assert drift_told(told_of) == (
        "these rows are not what the judge was fitted on: 50 % are unfamiliar (1.25 % of its fit's), questions of "
        "1,234 characters in the middle (5,678), other scores of a, c"
    )


def test_what_lies_just_at_the_distance_is_far():
    drift = Drift(FIT, 0.15, {})
    for i in range(8):  # by so few rows shares move by 1/4
        drift.add({"a": 1, "unfamiliar": i < 4})
    report = drift.report()
    assert report["levels"]["a"]["distance"] == 0.5 == drifting.FAR + 0.25 and report["levels"]["a"]["far"]
    assert report["unfamiliar"]["far"] and drifting.FAR_UNFAMILIAR + 0.25 == 0.5 - 0.15


@pytest.mark.parametrize(("n", "far"), [(100, 0.25 + 0.5 * np.sqrt(2) / 10), (4, 0.25 + 0.5 * np.sqrt(2) / 2)])
def test_few_rows_are_far_only_where_chance_does_not_explain_it(n, far):
    for ones in range(n + 1):
        drift = Drift(FIT, 0.0, {})
        for i in range(n):
            drift.add({"a": 1 if i < ones else 2, "unfamiliar": i < ones})
        report = drift.report()
        assert report["levels"]["a"]["far"] == (abs(ones / n - 0.5) >= far)
        assert report["unfamiliar"]["far"] == (ones / n >= 0.1 + far - 0.25)


def test_only_what_a_fit_was_like_is_compared(tmp_path):
    path = tmp_path / "results.json"
    good = {FITTED_ON: FIT, "unfamiliar": {"unfamiliar": 0.0}}
    path.write_text(json.dumps(good))
    found = Drift.of(path)
    assert found.unfamiliar == 0.0 and found.columns == ["question", "a"] and found.prefix == ""
    assert Drift.of(path, {"question": "q"}, "j_").columns == ["q", "j_a"]
    path.write_text(json.dumps({FITTED_ON: FIT}))
    assert Drift.of(path).unfamiliar is None
    for wrong in (
        {"characters": {"title": [1, 2, 3, 4, 5]}},
        {"characters": {"question": [1, 2, 3, 4]}},
        {"characters": {"question": [1, 3, 2, 4, 5]}},
        {"levels": {"a": {"1": "x"}}},
        {"levels": {"a": 5}},
        {"characters": None},
    ):
        path.write_text(json.dumps({FITTED_ON: {**FIT, **wrong}}))
        with pytest.raises(DataFileError, match="expects what python -m training evaluate writes as 'fitted_on'"):
            Drift.of(path)
    path.write_text(json.dumps({FITTED_ON: {"rows": 1}}))
    with pytest.raises(DataFileError, match="KeyError"):
        Drift.of(path)


def test_lengths_beyond_ten_thousand_rows_are_counted_without_being_kept():
    drift = Drift(FIT, None, {})
    for i in range(10_001):
        drift.add({"question": "x" * (3 if i < 10_000 else 99)})
    assert drift.bins["question"].total() == 10_001 and len(drift.lengths["question"]) == 10_000
    assert "unfamiliar" not in drift.report()


# What is kept of scored rows


def test_ranks_are_by_group_with_ties_in_order():
    scores, groups = np.array([1.0, 3.0, 3.0, 2.0, 9.0]), np.array([7, 7, 7, 7, 2])
    found = rank(scores, groups, None, 2)
    assert found.kept.tolist() == [4, 1, 2]
    assert found.ranks.tolist() == [4, 1, 2, 3, 1] and found.sizes.tolist() == [4, 4, 4, 4, 1]
    assert rank(scores, groups, 0.5, None).kept.tolist() == [1, 2], "of one row the half is none"
    assert rank(scores, groups, 1.0, None).kept.tolist() == [0, 1, 2, 3, 4]
    assert rank(scores, None, None, None).kept.tolist() == [4, 1, 2, 3, 0]
    assert rank(scores, None, 0.0, None).kept.tolist() == [] and rank(scores, None, None, 0).kept.tolist() == []
    assert rank(scores, None, 0.6, None).kept.tolist() == [4, 1, 2]


def test_columns_that_came_late_are_known_from_there_on(tmp_path, monkeypatch):
    seen, see = [], filters._Numbers._see_more
    monkeypatch.setattr(filters._Numbers, "_see_more", lambda own, *what: seen.append(what[1]["a"]) or see(own, *what))
    rows = [{"a": i, "total_score": i, **({"late": 1} if i > 1 else {})} for i in range(5)]
    assert filter_job(FilterJob(scored(tmp_path, rows), best=2, output=str(tmp_path / "o.jsonl"))).kept == 2
    assert seen == [2]


def test_an_input_that_is_changed_while_it_is_filtered_is_refused(tmp_path, monkeypatch):
    source, add = scored(tmp_path, [{"total_score": 1}, {"total_score": 2}]), RowsOnDisk.add

    def add_and_change(rows, entry):
        add(rows, entry)
        with open(source, "a") as file:
            file.write('{"total_score": 3}\n')

    monkeypatch.setattr(RowsOnDisk, "add", add_and_change)
    with pytest.raises(DataFileError, match="expects to stay as it is while it is read, but was changed"):
        filter_job(FilterJob(source, best=1, output=str(tmp_path / "o.jsonl")))
    assert not (tmp_path / "o.jsonl").exists()


def test_a_group_is_a_value_whatever_its_type_and_the_order_of_its_keys(tmp_path, monkeypatch):
    made, plain = [], filters.tempfile.NamedTemporaryFile
    monkeypatch.setattr(filters.tempfile, "NamedTemporaryFile", lambda **how: made.append(how) or plain(**how))
    rows = [{"g": {"a": 1, "b": 2}, "total_score": 1}, {"g": {"b": 2, "a": 1}, "total_score": 2}]
    assert filter_job(FilterJob(scored(tmp_path, rows), per="g", best=1, output=str(tmp_path / "o.jsonl"))).kept == 1
    times = pa.array([1, 1, 2], pa.timestamp("s"))
    pq.write_table(pa.table({"g": times, "total_score": [1, 2, 3]}), tmp_path / "t.parquet")
    job = FilterJob(str(tmp_path / "t.parquet"), per="g", best=1, output=str(tmp_path / "o.parquet"))
    assert filter_job(job).kept == 2 and made == [{"prefix": "inspector-"}] * 2


def scored(folder, rows, name="x.jsonl"):
    write_rows(rows, str(folder / name))
    return str(folder / name)


def test_several_columns_are_ranked_by_their_mean(tmp_path):
    rows = [{"a": 1, "b": 5, "total_score": 1}, {"a": 4, "b": 4, "total_score": 0}, {"a": 2, "b": 0, "total_score": 9}]
    source = scored(tmp_path, rows)
    out = str(tmp_path / "o.jsonl")
    found = filter_job(FilterJob(source, by=("a", "b"), best=2, output=out, reasons=True))
    assert [json.loads(line)["a"] for line in found.output.read_text().splitlines()] == [4, 1]
    told_of = [json.loads(line) for line in (tmp_path / "o_reasons.jsonl").read_text().splitlines()]
    assert told_of[1] == {
        "place": 1,
        "position": 0,
        "the mean of a, b": 3.0,
        "reason": "rank 2 of 3 rows by the mean of a, b; the best 2 of them are kept",
    }
    top = filter_job(FilterJob(source, top=0.67, output=out, reasons=True))
    assert (top.kept, top.skipped, top.abstained, top.unfamiliar, top.reason) == (2, (), 0, 0, None)
    assert "the best 0.67 of them are kept" in (tmp_path / "o_reasons.jsonl").read_text()
    for by in ((), ("a", "a")):
        with pytest.raises(SettingsError, match="--by expects one column or different ones"):
            FilterJob(source, by=by, best=1)
    for top in (-0.1, 1.1):
        with pytest.raises(SettingsError, match="a share from 0 to 1"):
            FilterJob(source, top=top)
    for fine in ({"top": 0.0}, {"top": 1.0}, {"drop_unfamiliar": True}):
        FilterJob(source, **fine)
    assert FilterJob("a/b.jsonl", best=1).target.name == "b_filtered.json"


def test_rows_that_a_judge_abstains_from_are_left_out_unless_they_are_kept(tmp_path):
    said = {"rank_by": "expected_a", "expected_a": 2.0, "abstained": False}
    rows = [said, {**said, "abstained": True, "expected_a": 9.0}, {**said, "expected_a": 1.0, "abstained": None}]
    for name in ("x.jsonl", "x.csv", "x.parquet"):
        source, out = scored(tmp_path, rows, name), str(tmp_path / "o.jsonl")
        found = filter_job(FilterJob(source, best=1, output=out))
        assert (found.kept, found.abstained, found.rows) == (1, 1, 3)
        assert float(json.loads((tmp_path / "o.jsonl").read_text())["expected_a"]) == 2.0
        kept = filter_job(FilterJob(source, best=1, output=out, keep_abstained=True))
        assert kept.abstained == 0 and float(json.loads((tmp_path / "o.jsonl").read_text())["expected_a"]) == 9.0
    own = scored(tmp_path, [{"abstained": True, "total_score": 3}, {"abstained": False, "total_score": 1}])
    assert filter_job(FilterJob(own, best=5, output=str(tmp_path / "o.jsonl"))).kept == 2, "a column of the user's own"
    later = scored(tmp_path, [{"total_score": 1}, {"total_score": 3, "j_abstained": True, "j_rank_by": "nothing"}])
    assert filter_job(FilterJob(later, best=5, output=str(tmp_path / "o.jsonl"))).abstained == 1


def test_one_row_of_nought_and_all_of_nought_that_are_kept_are_no_fault(tmp_path):
    one = scored(tmp_path, [{"total_score": 0}])
    assert filter_job(FilterJob(one, best=1, output=str(tmp_path / "o.jsonl"))).kept == 1
    two = scored(tmp_path, [{"my_total_score": 0}, {"my_total_score": 0}])
    with pytest.raises(DataFileError, match="my_total_score is 0 in all of them"):
        filter_job(FilterJob(two, by="my_total_score", best=1, output=str(tmp_path / "o.jsonl")))
    assert filter_job(FilterJob(two, by="my_total_score", top=0.0, output=str(tmp_path / "o.jsonl"))).kept == 0
    empty = tmp_path / "e.jsonl"
    empty.write_text("")
    assert filter_job(FilterJob(str(empty), best=1, output=str(tmp_path / "o.jsonl"))).rows == 0
    with pytest.raises(DataFileError, match="No row can be ranked: e.jsonl:1 expects a number as 'total_score'"):
        empty.write_text('{"total_score": "x"}\n')
        filter_job(FilterJob(str(empty), best=1, output=str(tmp_path / "o.jsonl")))


@pytest.mark.parametrize("schema", [None, pa.schema([("n", pa.int64())])])
@pytest.mark.parametrize("n", [1, BUFFER_ROWS, BUFFER_ROWS + 1, 3 * BUFFER_ROWS + 5])
def test_rows_on_the_disk_come_in_any_order(tmp_path, schema, n, monkeypatch):
    held, flush = [], RowsOnDisk._flush
    monkeypatch.setattr(RowsOnDisk, "_flush", lambda rows: held.append(len(rows._buffer)) or flush(rows))
    with (tmp_path / "x").open("wb") as file:
        rows = RowsOnDisk(file, schema)
        whole = pa.table({"n": list(range(n))})
        for i in range(n):
            rows.add(Entry("x", {"n": i}, cells=None if schema is None else (whole, i)))
        order = np.random.default_rng(0).permutation(n)
        found = list(rows.in_order(order))
    assert held == [BUFFER_ROWS] * (n // BUFFER_ROWS) + [n % BUFFER_ROWS]
    assert [own["n"] for own, _ in found] == order.tolist() and all(table.num_rows == 1 for _, table in found)
    if schema is not None:
        assert [table["n"][0].as_py() for _, table in found] == order.tolist()


# A job's settings, its manifest and its parts


def test_a_jobs_settings_are_what_they_were():
    job = ScoreJob("in", "out")
    assert (job.shard, job.format, job.prefix, job.batch_size, job.part_rows) == (
        (0, 1),
        None,
        "",
        None,
        4 * WINDOW_ROWS,
    )
    assert (job.strict, job.abstain, job.explain, job.columns, job.limit) == (False, 0.0, False, {}, None)
    assert (job.workers, job.split, job.subset, job.where) == (1, None, None, None)
    assert FORMATS == ("jsonl", "parquet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": (1, 1)}, "--shard expects i/n with 0 <= i < n, but got 1/1"),
        ({"shard": (-1, 2)}, "but got -1/2"),
        ({"abstain": 1.1}, "--abstain expects a share from 0 to 1"),
        ({"abstain": -0.1}, "--abstain expects"),
        ({"abstain": 0.1, "shard": (0, 2)}, "of shard 0/2"),
        ({"format": "csv"}, "--output-format expects jsonl or parquet, but got 'csv'"),
        ({"part_rows": 0}, f"--part-rows expects a multiple of {WINDOW_ROWS}, but got 0"),
        ({"part_rows": WINDOW_ROWS + 1}, "--part-rows expects"),
        ({"part_rows": -WINDOW_ROWS}, "--part-rows expects"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        ScoreJob("in", "out", **changes)


def test_the_least_and_the_most_are_taken():
    for changes in ({"abstain": 1.0}, {"shard": (1, 2)}, {"part_rows": WINDOW_ROWS}, {"format": "parquet"}):
        ScoreJob("in", "out", **changes)


@pytest.mark.parametrize(
    ("place", "output", "fits"),
    [
        ("in", "in", False),
        ("in", "in/out", False),
        ("in", "out", True),
        ("in/*.jsonl", "in/out", True),
        ("in/**/*.jsonl", "in/out", False),
        ("in/x*/**", "in/out", False),
        ("out/part-*.jsonl", "out", False),
        ("out/*", "out", False),
        ("out/*.parquet", "out", False),
        ("out/*.csv", "out", True),
    ],
)
def test_an_output_is_outside_of_its_input(tmp_path, monkeypatch, place, output, fits):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    if fits:
        _check_place(ScoreJob(place, output))
    else:
        with pytest.raises(SettingsError, match="--output expects a folder outside of the input"):
            _check_place(ScoreJob(place, output))
        _check_place(ScoreJob(place, output, split="train"))


def test_an_output_is_outside_however_both_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for place, output in (
        ("in", f"{tmp_path}/in/out"),
        (f"{tmp_path}/in", "in/out"),
        ("out/part-*.jsonl", f"{tmp_path}/out"),
        (f"{tmp_path}/out/part-*.jsonl", "out"),
    ):
        with pytest.raises(SettingsError, match="--output expects a folder outside of the input"):
            _check_place(ScoreJob(place, output))
    write_rows([{"total_score": 1}], "in/x.jsonl")
    for place, output in (("in", f"{tmp_path}/in/best.jsonl"), (f"{tmp_path}/in", "in/best.jsonl")):
        with pytest.raises(SettingsError, match="and none within it"):
            filter_job(FilterJob(place, best=1, output=output))
    assert FilterJob("in/x.jsonl", best=1).target == tmp_path / "in" / "x_filtered.json"


def test_suffixes_of_what_is_kept_may_be_written_large(tmp_path):
    source = scored(tmp_path, [{"total_score": 1}], "x.parquet")
    for name in ("o.JSONL", "o.PARQUET"):
        filter_job(FilterJob(source, best=1, output=str(tmp_path / name)))
    assert (tmp_path / "o.JSONL").read_text() == '{"total_score": 1}\n'
    assert pq.read_table(tmp_path / "o.PARQUET").to_pylist() == [{"total_score": 1}]


def test_an_input_that_is_changed_while_its_parts_are_counted_is_refused(judge, tmp_path, monkeypatch):
    source, counts = scored(tmp_path, [{"question": "Q?", "prediction": "p"}]), Parts.counts

    def count_and_change(parts, *given):
        with open(source, "a") as file:
            file.write('{"question": "R?", "prediction": "p"}\n')
        return counts(parts, *given)

    monkeypatch.setattr(Parts, "counts", count_and_change)
    with pytest.raises(DataFileError, match="expects to stay as it is while it is read, but was changed"):
        scoring.score_job(ScoreJob(source, str(tmp_path / "out")), judge)
    assert not (tmp_path / "out" / "_summary.json").exists()


def test_a_job_without_rows_has_one_part(judge, tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    job = ScoreJob(str(tmp_path / "x.jsonl"), str(tmp_path / "out"))
    assert scoring.score_job(job, judge)["scored"] == 0
    (tmp_path / "out" / "part-000001.jsonl").write_text("")
    with pytest.raises(DataFileError, match="expects the 1 parts of its job, but holds part-000001.jsonl too"):
        scoring.score_job(job, judge)


def test_a_manifest_describes_job_and_judge(judge, tmp_path):
    source = SimpleNamespace(name="x.jsonl", sha256=lambda: "abc")
    found = job_manifest(ScoreJob("in", "out"), judge, [source], Survey(3, ("q",), pa.schema([]), ("j",)), ["a", "b"])
    settings = found.pop("settings")
    assert settings.pop("token_budget") > 0 and settings == {
        "split": None,
        "subset": None,
        "columns": {},
        "where": None,
        "limit": None,
        "format": None,
        "prefix": "",
        "batch_size": None,
        "part_rows": 4 * WINDOW_ROWS,
        "window_rows": WINDOW_ROWS,
    }
    assert job_manifest(ScoreJob("in", "out", explain=True), judge, [], Survey(0, (), pa.schema([])), None)["settings"][
        "explain"
    ]
    assert found.pop("judge") == judge_fingerprint(judge) and found.pop("threads") >= 1
    assert set(found.pop("versions")) == {"inspector-pipeline", "torch", "transformers", "tokenizers", "pyarrow"}
    assert found == {
        "format": 1,
        "input": [{"name": "x.jsonl", "sha256": "abc"}],
        "rows": 3,
        "columns_as_json": ["j"],
        "columns": ["a", "b"],
    }
    prints = judge_fingerprint(judge)
    assert (prints["name"], prints["dtype"], prints["device"]) == ("judge", "torch.float32", "cpu")
    next(iter(judge.model.parameters())).data[0] += 1
    changed = judge_fingerprint(judge)
    assert [key for key in prints if prints[key] != changed[key]] == ["weights_sha256"]
    judge.model.config.max_length += 1
    assert judge_fingerprint(judge)["config_sha256"] != changed["config_sha256"]
    found = []
    for config in ({"a": 1, "b": Path("x")}, {"b": Path("x"), "a": 1, "dtype": "float32"}):
        state = {"scale": torch.tensor([2.0]), "w": torch.ones(2, 3).T}
        model = SimpleNamespace(
            config=SimpleNamespace(to_dict=lambda config=config: config), name_or_path="org/x", commit="c", revision="r"
        )
        model.state_dict, model.dtype = lambda state=state: state, torch.float32
        tokenizer = SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: "\ud800"))
        found.append(judge_fingerprint(SimpleNamespace(model=model, tokenizer=tokenizer, device=judge.device)))
    assert found[0] == found[1] and (found[0]["name"], found[0]["revision"]) == ("org/x", "c")
    weights = (
        b"scale torch.float32 (1,)" + np.float32(2).tobytes() + b"w torch.float32 (3, 2)" + np.ones(6, "f4").tobytes()
    )
    assert found[0]["weights_sha256"] == hashlib.sha256(weights).hexdigest()


def manifest(**changes):
    versions = {"inspector-pipeline": manifests.version("inspector-pipeline"), "torch": "2"}
    found = {"format": 1, "rows": 5, "settings": {"part_rows": 2}, "columns": [], "threads": 1, "versions": versions}
    return found | changes


def test_a_folder_goes_on_with_its_own_job_alone(tmp_path):
    settle_manifest(tmp_path, manifest())
    settle_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path / "_manifest.json") == manifest() and not is_older_job(tmp_path)
    for changes, message in (
        ({"rows": 6}, r"differ: rows was 5, is 6\. Choose"),
        ({"settings": {"part_rows": 2, "x": 1}}, r"settings\.x was None, is 1"),
        ({"threads": 2}, "threads was 1, is 2; set OMP_NUM_THREADS=1 to go on"),
        ({"versions": {**manifest()["versions"], "torch": "3"}}, "versions.torch was '2', is '3'"),
        ({"columns": {"a": 1}}, r"columns was \[\], is \{'a': 1\}"),
    ):
        with pytest.raises(DataFileError, match=message):
            settle_manifest(tmp_path, manifest(**changes))
    older = manifest()
    del older["versions"]["inspector-pipeline"], older["columns"]
    write_json(tmp_path / "_manifest.json", older)
    assert is_older_job(tmp_path) and not is_older_job(tmp_path / "none")
    now = manifest()
    del now["columns"]
    settle_manifest(tmp_path, now)
    other = tmp_path / "other"
    other.mkdir()
    (other / ".hidden").touch()
    (other / "_own").touch()
    settle_manifest(other, manifest())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(DataFileError, match="expects an empty or new folder, but holds x"):
        settle_manifest(tmp_path / "full", manifest())


def test_a_shard_waits_for_the_manifest_of_another(tmp_path, monkeypatch):
    busy = [True, True]

    def write(path, data, plain=manifests.write_json):
        if busy:
            busy.pop()
            raise BusyFileError("busy")
        plain(path, data)

    slept = []
    monkeypatch.setattr(manifests, "write_json", write)
    monkeypatch.setattr(manifests.time, "sleep", slept.append)
    settle_manifest(tmp_path, manifest())
    assert slept == [0.1, 0.1] and (tmp_path / "_manifest.json").is_file()


@pytest.mark.parametrize("rows", [0, 1, 4, 5])
def test_a_job_is_finished_once_it_has_all_its_parts(tmp_path, rows):
    check_finished(tmp_path)
    write_json(tmp_path / "_manifest.json", manifest(rows=rows))
    parts = Parts(tmp_path, ".jsonl")
    n = max(1, (rows + 1) // 2)
    for index in range(n):
        with pytest.raises(DataFileError, match=f"expects {n} parts, but holds {index}"):
            check_finished(tmp_path)
        parts.path(index).write_text("{}\n")
        parts.seal(index)
    check_finished(tmp_path)
    parts.path(n).write_text("{}\n")
    with pytest.raises(DataFileError, match=f"expects the {n} parts of its job, but holds part-00000{n}.jsonl too"):
        check_finished(tmp_path)
    parts.path(n).unlink()
    parts.path(n - 1).unlink()
    parts.path(n - 1).mkdir()
    with pytest.raises(DataFileError, match=f"but holds part-00000{n - 1}.jsonl too"):
        check_finished(tmp_path)
    parts.path(n - 1).rmdir()
    parts.path(n - 1).write_text("[]\n")
    with pytest.raises(DataFileError, match="expects to be as it was written"):
        check_finished(tmp_path)


@pytest.mark.parametrize("wrong", [{"rows": -1}, {"rows": True}, {"rows": 1.0}, {"settings": {"part_rows": 0}}])
def test_a_manifest_of_other_numbers_is_none(tmp_path, monkeypatch, wrong):
    asked, read = [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: asked.append(how) or read(path, **how))
    write_json(tmp_path / "_manifest.json", manifest(**wrong))
    with pytest.raises(DataFileError, match="expects a job's manifest, but: it names"):
        read_manifest(tmp_path / "_manifest.json")
    assert asked and all(how == {"encoding": "utf-8"} for how in asked), "whatever the locale"


def test_a_part_is_counted_sealed_and_forgotten(tmp_path):
    parts = Parts(tmp_path, ".jsonl")
    assert (parts.path(3).name, parts.rejects_path(3)) == (
        "part-000003.jsonl",
        tmp_path / "_rejects" / "part-000003.jsonl",
    )
    parts.path(0).write_text(2 * (json.dumps(row()) + "\n"))
    assert parts.counts(0, 2, Flags()) == {"scored": 2, "rejected": 0}
    parts.rejects_path(0).parent.mkdir()
    parts.rejects_path(0).write_text("{}\n")
    flags = Flags()
    flags.add(row())
    assert parts.counts(0, 3, flags) == {"scored": 2, "rejected": 1} and flags.rows == 3
    with pytest.raises(DataFileError, match="it and its rejects hold 3 of 4 rows"):
        parts.counts(0, 4, Flags())
    parts.check(0)  # of an older job, without a checksum
    parts.seal(0)
    parts.check(0)
    parts.rejects_path(0).write_text("[]\n")
    with pytest.raises(DataFileError, match="it or its rejects were changed"):
        parts.check(0)
    parts.forget(0)
    assert not parts.rejects_path(0).exists()
    parts.forget(0)
    parts.check(0)
    parts.path(0).write_text("{}\n")
    with pytest.raises(DataFileError, match="expects a whole part, but: 'truncated'"):
        parts.counts(0, 1, Flags())


def test_a_file_that_is_written_by_another_is_not_touched(tmp_path):
    path = tmp_path / "x"
    with whole_file(path) as file:
        with pytest.raises(BusyFileError, match="is being written by another process"), whole_file(path):
            raise AssertionError
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and [one.name for one in tmp_path.iterdir()] == ["x"]
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    (tmp_path / ".x.tmp").write_bytes(b"left by a killed run")
    with pytest.raises(ValueError, match="stop"), whole_file(path) as file:
        file.write(b"half")
        raise ValueError("stop")
    assert path.read_bytes() == b"whole" and [one.name for one in tmp_path.iterdir()] == ["x"]
    (tmp_path / ".x.tmp").write_bytes(b"left by a killed run")
    with whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_whole_file_is_on_the_disk_before_it_has_its_name_and_so_is_the_name(tmp_path, monkeypatch):
    told, replace = [], os.replace

    def fsync(descriptor):
        told.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *names: told.append("named") or replace(*names))
    before = len(os.listdir("/proc/self/fd"))
    with whole_file(tmp_path / "x") as file:
        file.write(b"abc")
    assert told[:2] == [(".x.tmp", 3), "named"] and [name for name, _ in told[2:]] == [tmp_path.name]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("left", [None, b"another's"])
def test_a_file_that_another_process_has_finished_meanwhile_is_not_written(tmp_path, monkeypatch, left):
    def flock(*_):
        (tmp_path / ".x.tmp").unlink()
        if left is not None:
            (tmp_path / ".x.tmp").write_bytes(left)

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(BusyFileError, match="x was written by another process"), whole_file(tmp_path / "x"):
        raise AssertionError
    assert [one.read_bytes() for one in tmp_path.iterdir()] == ([] if left is None else [left])


# What is read and written


def test_parquet_takes_what_fits_and_says_what_does_not():
    file = io.BytesIO()
    schema = pa.schema([("n", pa.int64()), ("t", pa.timestamp("s", "UTC")), ("j", pa.string())])
    writer = ParquetWriter(file, Survey(3, tuple(schema.names), schema, ("j",)), pa.schema([("score", pa.int64())]))
    good = [Entry("x", {"n": i, "t": None, "j": {"é": i}}) for i in range(3)]
    bad = Entry("x", {"n": "many", "t": None})
    assert writer.misfits([]) == [] and writer.misfits(good) == [None] * 3
    found = writer.misfits([good[0], bad, good[1]])
    assert found[0] is None and found[2] is None and "fit the columns' types in Parquet, but:" in found[1]
    writer.write(good, [{"score": i} for i in range(3)])
    writer.write([], [])
    writer.close()
    table = pq.read_table(io.BytesIO(file.getvalue()))
    assert table.schema.field("t").type == pa.timestamp("ms", "UTC")
    assert table.to_pylist()[2] == {"n": 2, "t": None, "j": '{"é": 2}', "score": 2}
    assert pq.ParquetFile(io.BytesIO(file.getvalue())).metadata.num_row_groups == 1
    lines = io.BytesIO()
    JsonlWriter(lines).write(good[:1], [{"n": 9}])
    assert (
        lines.getvalue() == '{"n": 9, "t": null, "j": {"é": 0}}\n'.encode()
        and JsonlWriter(lines).misfits(good) == [None] * 3
    )


def test_tables_of_some_columns_are_joined_to_all():
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    found = joined([pa.table({"a": pa.array([1], pa.int32())}), pa.table({"a": pa.array([2], pa.int32())})], schema)
    assert found.schema == schema and found.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": None}]
    assert found["a"].num_chunks == found["b"].num_chunks == 1


def test_a_reject_comes_with_all_that_is_known_of_it():
    base = {"number": 4, "place": "x:1", "reason": "no"}
    assert reject_row(Entry("x:1", None, "no", "raw", number=4)) == {**base, "raw": "raw"}
    assert reject_row(Entry("x:1", None, "no", number=4)) == base
    assert reject_row(Entry("x:1", {"a": 1}, "no", "raw", number=4)) == {**base, "row": {"a": 1}}
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    assert reject_row(Entry("x:1", {"a": 2}, "no", cells=(table, 1), number=4)) == {**base, "row": {"a": 2, "b": "y"}}


class Reader:
    """Yields entries, and says which columns were wanted."""

    def __init__(self, *entries):
        self.found, self.wanted = list(entries), []

    def entries(self, columns):
        self.wanted.append(columns)
        return iter(self.found)

    name, schema, types = "x", None, None

    def check_header(self, columns):
        self.header = sorted(columns)


def pair(question="Q?", prediction="p", **more):
    return {"question": question, "prediction": prediction, **more}


def test_an_input_numbers_its_rows_and_takes_what_it_should():
    source = Reader(
        Entry("1", pair(n=1)), Entry("2", None, "broken"), Entry("3", pair(n=3)), Entry("4", pair(prediction=" ", n=3)),
        Entry("5", pair(n="x")),
    )  # fmt: skip
    found = list(JobInput([source], where=Where("n > 2")))
    assert [(one.number, one.place) for one in found] == [(1, "2"), (2, "3"), (3, "4"), (4, "5")]
    assert found[1].fault is None and "blank" in found[2].fault and "--where cannot decide" in found[3].fault
    assert [one.number for one in JobInput([source, source], limit=7)] == list(range(7))
    plain = JobInput([source], {"prediction": "p"}, whole_rows=False)
    list(plain)
    assert source.wanted[-1] == ["p", "question", "question_turns"] and source.wanted[0] is None
    assert plain.begun == [source]
    list(JobInput([source], where=Where("n > 2"), whole_rows=False))
    assert source.wanted[-1] == ["n", "prediction", "question", "question_turns"]
    list(JobInput([source], where=Where("row['n'] > 2"), whole_rows=False))
    assert source.wanted[-1] is None
    assert plain == JobInput([source], {"prediction": "p"}, whole_rows=False), "however far they were read"
    (alone,) = JobInput([Reader(Entry("1", {"question": "Q?"}))], keys=("question",))
    assert alone.fault is None
    JobInput([source], {"prediction": "p"}).check_headers()
    assert source.header == ["p", "question"]


def test_a_pair_is_what_the_columns_say_or_what_was_put_together():
    job = JobInput([], {"prediction": "p"})
    assert job.pair(Entry("x", {"question": "Q", "p": "a", "prediction": "b", "question_turns": [1]})) == {
        "question": "Q",
        "prediction": "a",
        "question_turns": [1],
    }
    assert job.pair(Entry("x", {"p": "a"})) == {"prediction": "a"}
    other = JobInput([], {"question": "q"})
    assert other.pair(Entry("x", {"q": "Q", "question_turns": [1]})) == {"question": "Q"}
    assert other.pair(Entry("x", {"q": "Q"}, pair={"question": "made"})) == {"question": "made"}


def test_a_survey_finds_columns_and_types_of_text():
    source = Reader(
        Entry("1", pair(n=1, mixed=1, inner={"a": 1})),
        Entry("2", None, "no"),
        Entry("3", pair(n=2.5, mixed="x", late=None)),
        Entry("4", pair(empty={})),
    )
    plain = survey_input(JobInput([source]), typed=False, size_of=len)
    assert (plain.rows, plain.as_json, len(plain.schema), plain.sizes) == (4, (), 0, [6])
    arrow = Reader(*map(copy, source.found))
    arrow.schema = pa.schema([("question", pa.string())])
    assert source.header == ["prediction", "question"]
    known = survey_input(JobInput([arrow]), typed=False, size_of=len)
    assert (known.rows, known.columns, known.schema, known.sizes) == (4, ("question",), arrow.schema, [6])
    assert plain.columns == ("question", "prediction", "n", "mixed", "inner", "late", "empty")
    typed = survey_input(JobInput([source]), typed=True, size_of=len)
    assert typed.schema.field("n").type == pa.float64() and typed.schema.field("inner").type == pa.struct(
        [("a", pa.int64())]
    )
    assert typed.as_json == ("mixed", "empty") and typed.schema.field("mixed").type == pa.string()
    with pytest.raises(DataFileError, match="--where expects columns of the input, but no row has 'x'"):
        survey_input(JobInput([source], where=Where("x is None")), typed=False, size_of=len)
    assert not is_parquet(pa.struct([])) and is_parquet(pa.int64())
    both = unified([pa.schema([("a", pa.int32())], {"k": "v"}), pa.schema([("a", pa.int64()), ("b", pa.string())])])
    assert both == pa.schema([("a", pa.int64()), ("b", pa.string())]) and both.metadata is None
    with pytest.raises(DataFileError, match="expects the same columns in every file"):
        unified([pa.schema([("a", pa.int32())]), pa.schema([("a", pa.string())])])


def test_rows_of_another_layout_come_with_their_pairs():
    class Twice:
        def settle(self, sample, names):
            self.settled = sample, names
            return SimpleNamespace(read=True, plain=None, used=(), late=())

        def reads(self, row, number):
            if not row["a"]:
                raise PairError(f"none in {number}")
            return [SimpleNamespace(row={SOURCE_PART: one}, pair={"question": one}) for one in "xy"[: row["a"]]]

    found = [Entry("1", {"a": 1}), Entry("2", {"a": 0}), Entry("3", None, "no"), Entry("4", {"a": 2}, "bad")]
    source = Source("x", lambda: "", None, lambda _: iter([*found, Entry("5", {"a": 2})]))
    reader = Twice()
    (again,), columns, is_read = settled([source], reader)
    read = list(again.entries(None))
    kept = Source("x", lambda: "", pa.schema([("a", pa.int32()), ("b", pa.string())]), source.entries)
    reader.settle = lambda *_: SimpleNamespace(read=True, plain=None, used=("b",), late=())
    ((typed,), _, _) = settled([kept], reader)
    assert (typed.schema, typed.types) == (None, pa.schema([("a", pa.int32())])) and (again.schema, again.types) == (
        None,
    ) * 2
    assert (columns, is_read) == ({}, True) and reader.settled == ([{"a": 1}, {"a": 0}, {"a": 2}], [])
    assert [(one.place, one.fault, one.pair) for one in read] == [
        ("1", None, {"question": "x"}),
        ("2", "none in 1", None),
        ("3", "no", None),
        ("4", "bad", None),
        ("5 (x)", None, {"question": "x"}),
        ("5 (y)", None, {"question": "y"}),
    ]


def test_rows_that_stay_as_they_are_are_checked_for_what_came_late():
    class Plain:
        def settle(self, sample, names):
            late = Late(frozenset({"context"}), frozenset({"ctx"}))
            return SimpleNamespace(read=None, plain={"question": "q"}, used=(), late=late)

    found = [Entry("1", {"q": 1}), Entry("2", {"q": 2, "context": "x"}), Entry("3", {"context": "x"}, "bad")]
    asked = []
    schema = pa.schema([("q", pa.int64()), ("Context", pa.string())])
    source = Source("x", lambda: "", schema, lambda columns: asked.append(columns) or iter(map(copy, found)))
    (again,), columns, is_read = settled([source], Plain())
    assert (columns, is_read) == ({"question": "q"}, False)
    read = list(again.entries(["q"]))
    assert [one.fault and one.fault[:23] for one in read] == [None, "A row has 'context', bu", "bad"]
    assert asked[1:] == [["q", "Context"]] and list(again.entries(None))[1].fault and asked[2] is None
    nothing = SimpleNamespace(read=None, plain=None, used=(), late=Late(frozenset(), frozenset()))
    assert settled([source], SimpleNamespace(settle=lambda *_: nothing)) == ([source], {}, False)


def test_where_expects_its_package(monkeypatch):
    assert Where(" a > 1 ")({"a": 2})
    monkeypatch.setitem(sys.modules, "simpleeval", None)
    with pytest.raises(DataFileError, match="--where expects the package simpleeval"):
        Where("1")


def test_settings_that_do_not_fit_the_input_and_folders_that_cannot_be_written_are_told(judge, tmp_path):
    source = scored(tmp_path, [{"question": "Q?", "prediction": "p"}])
    with pytest.raises(SettingsError, match="Explanations expect JSON Lines"):
        scoring.score_job(ScoreJob(source, str(tmp_path / "out"), format="parquet", explain=True), judge)
    table = scored(tmp_path, [{"question": "Q?", "prediction": "p"}], "x.parquet")
    with pytest.raises(SettingsError, match="expects the column 'other', but has question, prediction"):
        scoring.score_job(ScoreJob(table, str(tmp_path / "out"), columns={"prediction": "other"}), judge)
    marked = scored(tmp_path, [{"question": "Q?", "prediction": "p", "abstained": 1}], "m.jsonl")
    with pytest.raises(SettingsError, match="no column of the judge's, but has abstained"):
        scoring.score_job(ScoreJob(marked, str(tmp_path / "out"), abstain=0.5), judge)
    assert scoring.score_job(ScoreJob(marked, str(tmp_path / "m"), explain=True), judge)["scored"] == 1
    assert "explanation" in json.loads((tmp_path / "m" / "part-000000.jsonl").read_text())
    with pytest.raises(DataFileError, match="x.jsonl expects to be a folder that can be written, but: (Not|File)"):
        scoring.score_job(ScoreJob(source, source), judge)


def test_one_worker_is_this_process_and_draws_its_bar(judge, tmp_path, monkeypatch):
    source, made, progress = scored(tmp_path, [{"question": "Q?", "prediction": "p"}]), [], scoring.Progress
    monkeypatch.setattr(scoring, "run_workers", None)
    monkeypatch.setattr(
        scoring, "Progress", lambda *given, **how: made.append((given[0], how)) or progress(*given, **how)
    )
    assert scoring.score_job(ScoreJob(source, str(tmp_path / "out"), workers=1), judge)["scored"] == 1
    assert made == [("shard 0/1", {"disable": False})]


def test_parts_that_are_there_are_skipped_pair_by_pair(tmp_path):
    run, skipped = SimpleNamespace(parts=Parts(tmp_path, ".jsonl")), []
    run.parts.path(2).write_text("{}\n")
    run._my_parts = lambda *_: iter([(2, iter([[1, 2], [3]]))])
    assert list(scoring._Run._done_parts(run, 0, 1, SimpleNamespace(skip=skipped.append))) == [2] and skipped == [3]


def test_a_job_that_lacks_parts_is_nobodys_input(judge, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    write_json(folder / "_manifest.json", manifest())
    scored(folder, [{"question": "Q?", "prediction": "p", "total_score": 1}], "part-000000.jsonl")
    said = pytest.raises(DataFileError, match="expects 3 parts, but holds 1")
    with said:
        filter_job(FilterJob(str(folder), best=1, output=str(tmp_path / "o.jsonl")))
    with said:
        scoring.score_job(ScoreJob(str(folder), str(tmp_path / "out")), judge)
    with said:
        abstaining.mark_abstained(Parts(folder, ".jsonl"), None, None, 0.5)
    with pytest.raises(SettingsError, match="--column expects question or prediction before the ="):
        ScoreJob("in", "out", columns={"no": "x"})


def test_a_worker_does_and_seals_its_parts():
    sealed, asked = [], []
    run = SimpleNamespace(parts=SimpleNamespace(seal=sealed.append))
    run._done_parts = lambda *what: asked.append(what) or iter([1, 3])
    scoring._Run._work(run, 1, 2, "relay")
    assert sealed == [1, 3] and asked == [(1, 2, "relay")]


def test_what_cannot_be_written_into_is_told_and_other_faults_are_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "no" / "x"):
        raise AssertionError
    os.mkfifo(tmp_path / ".x.tmp")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DataFileError, match="but is a link or a pipe"), whole_file(tmp_path / "x"):
        raise AssertionError
    reader = os.open(tmp_path / ".x.tmp", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(DataFileError, match="but is a link or a pipe"), whole_file(tmp_path / "x"):
        raise AssertionError
    os.close(reader)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_window_gives_each_pair_a_result_or_a_reason():
    def encoded(n):
        return {"chat": SimpleNamespace(input_ids=[0] * n), "other": SimpleNamespace(input_ids=[0])}

    class Judge:
        asked = []

        def encode(self, pair, **options):
            self.options = options
            if pair < 0:
                raise PairError(f"no {pair}")
            return {**encoded(pair), "n": SimpleNamespace(input_ids=[])}

        def score_encoded(self, window, **options):
            self.asked.append((len(window), options))
            if any(len(one["chat"].input_ids) == 7 for one in window):
                raise BackboneError("seven")
            yield from ({"score": len(one["chat"].input_ids)} for one in window)

    judge = Judge()
    assert score_window(judge, [3, -1, 5]) == [
        Outcome({"score": 3}, None, 4), Outcome(None, "no -1", 0), Outcome({"score": 5}, None, 6)
    ]  # fmt: skip
    assert judge.asked == [(2, {})] and judge.options == {}
    found = score_window(judge, [3, 7, 5], 2, explain=True)
    assert [one.reason for one in found] == [None, "seven", None] and found[1] == Outcome(None, "seven", 8)
    assert judge.options == {"keep_places": True} and judge.asked[-1] == (1, {"explain": True})
    told, before = [], [*judge.asked]
    progress = SimpleNamespace(begin=lambda *what: told.append(what), passed="passed")
    score_window(judge, [3, -1, 5], progress=progress)
    score_window(judge, [3], progress=progress, rows=7)
    assert told == [(3, 10), (7, 4)] and judge.asked[-1] == (1, {"on_pass": "passed"})
    judge.asked[:] = before
    score_window(judge, [1, 2, 3], 2)
    assert [n for n, _ in judge.asked] == [2, 2, 1, 1, 1, 2, 1]


def test_a_judge_abstains_by_the_field_that_it_ranks_by(monkeypatch):
    monkeypatch.setattr(abstaining, "scales_of", lambda config, field: (config, field))
    for name, field in (("j_expected_a", "expected_a"), (None, None)):
        columns = SimpleNamespace(rank_by=name, prefix="j_")
        assert abstaining.judged_scales(columns, "config") == ("config", field)


def test_marks_are_written_once_however_often(tmp_path):
    path = tmp_path / "part-000000.jsonl"
    path.write_text('{"a": ", \\"abstained\\": true}"}\n{"a": 1}\n')
    marks = np.array([True, False, True])
    for marked in (marks, ~marks, marks):
        assert _mark_lines(path, "abstained", marked) == 2
    assert path.read_text() == '{"a": ", \\"abstained\\": true}", "abstained": true}\n{"a": 1, "abstained": false}\n'
    (tmp_path / "none.jsonl").touch()
    assert _mark_lines(tmp_path / "none.jsonl", "abstained", marks) == 0
    table = tmp_path / "part-000000.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), table, row_group_size=2)
    for marked in (~marks, marks):
        assert _mark_table(table, "abstained", marked) == 3
    assert pq.read_table(table).to_pylist() == [{"a": i + 1, "abstained": bool(mark)} for i, mark in enumerate(marks)]
    assert pq.ParquetFile(table).metadata.num_row_groups == 2


class Wire:
    """A connection that says what it was told to say, and remembers what it was told."""

    def __init__(self, *told):
        self.told, self.sent, self.closed = [*told], [], False

    def recv(self):
        if not self.told:
            raise EOFError
        return self.told.pop(0)

    def send(self, message):
        self.sent.append(message)

    def close(self):
        self.closed = True


def test_workers_tell_and_are_followed_until_all_have_ended(monkeypatch):
    wire = Wire()
    relay = workers.Relay(wire)
    relay.skip(3)
    relay.begin(2, 9)
    relay.passed(4)
    relay.end()
    assert wire.sent == [("skip", 3), ("begin", 2, 9), ("passed", 4), ("end",)]
    monkeypatch.setattr(workers, "wait", list)
    told, moved = [Tally(9, [1] * 9), Tally(9, [1] * 9)], []
    workers._follow([Wire(*wire.sent), Wire(*wire.sent[:2])], told, SimpleNamespace(moved=moved.append))
    assert [(one.done, one.skipped, one.tokens) for one in told] == [(5, 3, 9), (3, 3, 0)]
    assert moved == [0, 0, 0, 0, 4, 5]
    with pytest.raises(DataFileError, match="full"):
        workers._follow([Wire(), Wire(DataFileError("full"))], told, SimpleNamespace(moved=moved.append))


def test_a_worker_keeps_one_connection_and_says_what_it_fails_with(monkeypatch):
    set_to = []
    monkeypatch.setattr(workers.signal, "signal", lambda *given: set_to.append(given))
    monkeypatch.setattr(workers.torch, "set_num_threads", set_to.append)
    pipes = [(Wire(), Wire()) for _ in range(3)]
    asked = []

    def work(number, of, relay):
        closed = [(receiver.closed, sender.closed) for receiver, sender in pipes]
        asked.append((number, of, relay.connection is pipes[1][1], closed))
        raise DataFileError("full")

    workers._worker(work, 1, pipes)
    assert asked == [(1, 3, True, [(True, True), (True, False), (True, True)])]
    assert [str(one) for one in pipes[1][1].sent] == ["full"] and pipes[1][1].closed
    assert set_to == [(workers.signal.SIGINT, workers.signal.SIG_IGN), 1]
    with pytest.raises(BackboneError, match="Worker 1 expects to end well, but ended with 3. Run it again"):
        workers.run_workers(lambda number, of, relay: os._exit(3 * number), [Tally(1, [1]), Tally(1, [1])])


def test_workers_are_forked_and_end_with_the_one_that_started_them(monkeypatch):
    told = []

    class Process:
        exitcode = 0

        def __init__(self, **how):
            told.append((how["target"], how["args"][1], len(how["args"][2]), how["daemon"]))

        def start(self):
            warnings.warn("this process has threads", DeprecationWarning, stacklevel=1)
            told.append("start")

        def __getattr__(self, name):
            return lambda: told.append(name)

    pipes = [(Wire(), Wire()) for _ in range(2)]
    context = SimpleNamespace(Process=Process, Pipe=lambda duplex: told.append(duplex) or pipes[len(told) - 2])
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda how: told.append(how) or context)
    monkeypatch.setattr(workers, "wait", list)
    workers.run_workers(lambda *_: None, [Tally(1, [1]), Tally(1, [1])])
    assert told[:3] == ["fork", False, False]
    assert told[3:5] == [(workers._worker, number, 2, True) for number in (0, 1)]
    assert told[5:] == ["start", "start", "join", "join", "terminate", "join", "terminate", "join"]
    assert [(receiver.closed, sender.closed) for receiver, sender in pipes] == [(False, True)] * 2
    assert workers.WORKERS_GAIN == 0.95


def run_of(rows, sizes=(), device="cpu", **job):
    settings = SimpleNamespace(**{"shard": (0, 1), "workers": None, "part_rows": 2 * WINDOW_ROWS, **job})
    judge = SimpleNamespace(device=SimpleNamespace(type=device))
    survey = SimpleNamespace(rows=rows, sizes=list(sizes))
    return SimpleNamespace(job=settings, judge=judge, survey=survey, parts=Parts("folder", ".jsonl"), input=[0] * rows)


def test_a_share_of_a_job_is_every_so_many_parts():
    run = run_of(5 * WINDOW_ROWS + 20, (1, 2, 3, 4, 5, 6))
    found = [scoring._Run._tally(run, index, 2) for index in range(2)]
    assert [(one.pairs, one.sizes, one.rows) for one in found] == [
        (3 * WINDOW_ROWS + 20, [1, 2, 5, 6], WINDOW_ROWS),
        (2 * WINDOW_ROWS, [3, 4], WINDOW_ROWS),
    ]
    dealt = [[(part, [len(one) for one in own]) for part, own in scoring._Run._my_parts(run, at, 2)] for at in (0, 1)]
    assert dealt == [[(0, [WINDOW_ROWS] * 2), (2, [WINDOW_ROWS, 20])], [(1, [WINDOW_ROWS] * 2)]]
    assert [(part, list(own)) for part, own in scoring._Run._my_parts(run_of(0), 0, 1)] == [(0, [[]])]


def test_a_part_has_rejects_where_there_are_any(tmp_path):
    (tmp_path / "_rejects").mkdir()
    run, told = run_of(4), []
    run.format, run.parts = "jsonl", Parts(tmp_path, ".jsonl")
    run._check_unchanged = lambda: told.append((tmp_path / "part-000000.jsonl").exists())
    run._write_window = lambda window, writer, progress: [one for one in window if one.fault is not None]
    progress = SimpleNamespace(end=lambda: told.append("end"))
    good, bad = Entry("1", {"a": 1}), Entry("2", {"a": 2}, "no", number=1)
    for part, windows in ((1, [[good], [good]]), (0, [[good], [bad, good], [good], [bad]])):
        scoring._Run._write_part(run, part, iter(windows), progress)
    names = sorted(one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*.jsonl"))
    assert names == ["_rejects/part-000000.jsonl", "part-000000.jsonl", "part-000001.jsonl"]
    lines = (tmp_path / "_rejects" / "part-000000.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in lines] == ["2", "2"] and told == ["end", False] * 2


def test_workers_are_as_many_as_were_asked_for_and_there_are_parts(monkeypatch):
    def workers_of(rows, **job):
        return scoring._Run._workers(run_of(rows, **job))

    many = 5 * WINDOW_ROWS  # three parts
    assert [workers_of(many, workers=n) for n in (0, 1, 2, 3, 4)] == [1, 1, 2, 3, 3] and workers_of(0, workers=3) == 1
    assert workers_of(many, workers=2, shard=(1, 2)) == 1 and workers_of(many, workers=2, device="cuda") == 1
    monkeypatch.setattr(scoring.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(scoring, "default_workers", lambda parts, cores: (parts, cores))
    for begun, expected in ((None, (3, 2)), (1, 2), (2, 1)):
        monkeypatch.setattr(scoring, "threads_of", lambda folder, begun=begun: begun)
        assert workers_of(many) == expected
    monkeypatch.setattr(scoring, "threads_of", lambda folder: 1)
    assert workers_of(WINDOW_ROWS) == workers_of(0) == 1


def test_numbers_on_which_jobs_rest_are_what_they_were():
    assert (drifting.FAR, drifting.FAR_UNFAMILIAR, drifting.PERCENTILES) == (0.25, 0.1, (5, 25, 50, 75, 95))
    assert (filters.ROW_GROUP, BUFFER_ROWS, manifests.WAIT_S, WINDOW_ROWS) == (1024, 256, 0.1, 256)
    job = FilterJob("x", best=1)
    assert (job.by, job.top, job.per, job.at_least, job.output) == (None, None, None, (), None)
    assert (job.drop_unfamiliar, job.keep_abstained, job.reasons) == (False, False, False)
    assert (Outcome(None).reason, Outcome(None).tokens) == (None, 0)
    assert (Flags().truncated, Flags().rows, Flags().unfamiliar, Flags().seen) == (0, 0, None, None)
    assert (JobInput([]).whole_rows, JobInput([]).unicode_only, JobInput([]).is_read) == (True, False, False)
    assert job.target.name == "x_filtered.json" and filters.Filtered("x", 1, 1, 0, None).unfamiliar == 0
