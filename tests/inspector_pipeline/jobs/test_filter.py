import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspector_cli.main import main

from inspector_pipeline.api.load import keep_top
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.tables import read_rows, write_rows
from inspector_pipeline.jobs.filter import FilterJob, filter_job


def scored_rows(n, seed=0):
    chance = random.Random(seed)
    return [
        {
            "question": f"q{chance.randint(0, n // 4)}",
            "prediction": f"é {i}",
            "clarity": chance.randint(1, 5),
            "total_score": chance.randint(5, 25),
        }
        for i in range(n)
    ]


@pytest.fixture
def rows():
    return scored_rows(90)


@pytest.fixture
def source(rows, tmp_path):
    path = tmp_path / "pairs_multi_evaled.json"
    path.write_text(json.dumps(rows))
    return path


def kept(source, **settings):
    return json.loads(filter_job(FilterJob(str(source), **settings)).output.read_text())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.999, 1.0])
def test_the_best_share_is_the_published_one_to_the_byte(source, rows, share):
    found = filter_job(FilterJob(str(source), top=share))
    assert found.output == source.with_name("pairs_multi_evaled_filtered.json")
    expected = keep_top(rows, share)
    assert found.output.read_text() == json.dumps(expected, indent=4)
    assert (found.rows, found.kept, found.unranked) == (90, len(expected), 0)


def ranked(rows, column="total_score"):
    return sorted(rows, key=lambda row: -row[column])


def test_the_best_of_each_question(source, rows):
    questions = {row["question"] for row in rows}
    best = kept(source, per="question", best=1)
    assert len(best) == len(questions) and best == ranked(best)
    for row in best:
        assert row == ranked([other for other in rows if other["question"] == row["question"]])[0]
    half = kept(source, per="question", top=0.5, by="clarity")
    for question in questions:
        group = ranked([row for row in rows if row["question"] == question], "clarity")
        assert [row for row in half if row["question"] == question] == group[: len(group) // 2]


def test_thresholds_come_before_ranks(source, rows):
    passed = [row for row in rows if row["clarity"] >= 4 and row["total_score"] >= 10]
    limits = (("clarity", 4.0), ("total_score", 10.0))
    assert kept(source, at_least=limits) == ranked(passed)
    assert kept(source, at_least=limits, best=3) == ranked(passed)[:3]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2.5, 3])), max_size=30), st.integers(1, 4))
def test_any_groups(tmp_path_factory, pairs, best):
    rows = [{"group": group, "total_score": score, "at": at} for at, (group, score) in enumerate(pairs)]
    path = tmp_path_factory.mktemp("groups") / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = []
    for row in ranked(rows):
        if sum(other["group"] == row["group"] for other in expected) < best:
            expected.append(row)
    assert kept(path, per="group", best=best) == expected


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_of_parts_larger_than_what_is_held(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("inspector_pipeline.jobs.reorder.BUFFER_ROWS", 3)
    rows = scored_rows(300)
    folder = tmp_path / "scored"
    (folder / "_rejects").mkdir(parents=True)
    (folder / "_rejects" / "part-000000.jsonl").write_text("{}\n")
    for number in range(3):
        some = rows[number * 100 : number * 100 + 100]
        path = folder / f"part-00000{number}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(some), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in some))
    found = filter_job(FilterJob(str(folder), top=0.5))
    assert found.output == tmp_path / "scored_filtered.json"
    assert json.loads(found.output.read_text()) == keep_top(rows, 0.5)
    target = tmp_path / f"best.{suffix}"
    filter_job(FilterJob(str(folder), top=0.5, output=str(target)))
    read = pq.read_table(target).to_pylist() if suffix == "parquet" else read_rows(str(target))
    assert read == keep_top(rows, 0.5)


def test_each_kept_row_is_explained(source, rows):
    best = kept(source, per="question", best=1, at_least=(("clarity", 3.0),), reasons=True)
    lines = source.with_name("pairs_multi_evaled_filtered_reasons.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert [rows[one["position"]] for one in told] == best and [one["place"] for one in told] == list(range(len(best)))
    size = sum(row["question"] == best[0]["question"] and row["clarity"] >= 3 for row in rows)
    assert told[0]["reason"] == (
        f"rank 1 of {size} rows with this question by total_score; clarity is at least 3; the best 1 of them are kept"
    )
    assert told[0]["total_score"] == best[0]["total_score"]


def test_rows_without_a_number_are_left_out_and_told(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    values = ["5", "null", "true", "NaN", '"x"', '"7"', "{", "[]"]
    path.write_text("\n".join(f'{{"total_score": {value}}}' for value in values) + '\n{"other": 1}\n')
    assert main(["filter", str(path), "--top", "1"]) == 3
    error = capsys.readouterr().err
    assert "kept 2 of 9 rows" in error and "7 rows were left out: in.jsonl:2 expects a number as 'total_score'" in error


def test_the_command(source, rows, tmp_path, capsys):
    args = ["filter", str(source), "--best", "2", "--at-least", "clarity=4", "--output", str(tmp_path / "o.jsonl")]
    assert main([*args, "--explain"]) == 0
    told = capsys.readouterr().err
    assert "kept 2 of 90 rows in" in told and "--explain is now called --reasons" in told
    assert len((tmp_path / "o_reasons.jsonl").read_text().splitlines()) == 2


FAULTS = {
    "nothing": ({}, "expects --top, --best, --at-least or --drop-unfamiliar"),
    "per alone": ({"per": "question", "at_least": (("clarity", 2.0),)}, "--per only with the first two"),
    "both": ({"top": 0.5, "best": 1}, "expects --top or --best, but got both"),
    "share": ({"top": 1.5}, "a share from 0 to 1, but got 1.5"),
    "kind": ({"top": 0.5, "output": "x.parquet"}, "expects a file of .json, .jsonl in an existing folder"),
    "folder": ({"top": 0.5, "output": "no/x.json"}, "in an existing folder"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults(source, case):
    settings, message = FAULTS[case]
    with pytest.raises(SettingsError, match=message):
        filter_job(FilterJob(str(source), **settings))
    with pytest.raises(SettingsError, match="another file than the input"):
        filter_job(FilterJob(str(source), top=0.5, output=str(source)))
    with pytest.raises(SettingsError, match="and none within it"):  # where it would be read as scored rows
        filter_job(FilterJob(str(source.parent), top=0.5, output=str(source.parent / "best.json")))


@pytest.mark.parametrize("wrong", ["clarity", "clarity=", "clarity=high", "clarity=nan"])
def test_a_threshold_is_a_number(source, wrong, capsys):
    with pytest.raises(SystemExit):
        main(["filter", str(source), "--at-least", wrong])
    assert "expects" in capsys.readouterr().err


def test_an_unknown_column_keeps_nothing_silently(source):
    with pytest.raises(DataFileError, match="--per expects a column of .*, but no row has 'questoin'"):
        filter_job(FilterJob(str(source), per="questoin", best=1))
    with pytest.raises(DataFileError, match="expects a number as 'clearness'"):
        filter_job(FilterJob(str(source), by="clearness", top=0.5))
    assert not list(source.parent.glob("*_filtered.json"))


def test_a_total_that_is_zero_everywhere_ranks_nothing(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"total_score": 0, "a": i}) + "\n" for i in range(4)))
    for settings in ({"best": 2}, {"top": 0.5}):
        with pytest.raises(DataFileError, match="--by expects a column that ranks rows, but total_score is 0 in all"):
            filter_job(FilterJob(str(path), **settings))
    assert filter_job(FilterJob(str(path), by="a", best=2)).kept == 2
    assert filter_job(FilterJob(str(path), top=1.0)).kept == 4


def test_a_share_of_each_group_is_exact(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [{"total_score": i, "g": i % 2} for i in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert filter_job(FilterJob(str(path), top=0.29, per="g")).kept == 58


def judged_rows(prefix="", field="expected_clarity"):
    """Rows as a judge leaves them, whose order by the field that they name is not that by total_score."""
    flags = [(True, "far away"), (False, None), (None, None), (False, None)]
    own = [{"expected_clarity": 1.0 * (i % 3), "total_score": i, "rank_by": prefix + field} for i in range(4)]
    told = [{"unfamiliar": flag, "unfamiliar_reason": reason, "seen": False} for flag, reason in flags]
    added = [{**one, **flags} for one, flags in zip(own, told, strict=True)]
    return [{"at": i, **{prefix + name: value for name, value in row.items()}} for i, row in enumerate(added)]


@pytest.mark.parametrize("prefix", ["", "judge_"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_ranked_by_the_field_that_their_judge_names(tmp_path, suffix, prefix):
    path, rows = tmp_path / f"scored{suffix}", judged_rows(prefix)
    failed = {"at": 9, f"{prefix}rank_by": None, f"{prefix}expected_clarity": None}
    write_rows([{**dict.fromkeys(rows[0]), **failed}, *rows], str(path))
    settings = {"output": str(tmp_path / "out.jsonl"), "best": 3}

    def order(**more):
        return [int(row["at"]) for row in read_rows(str(filter_job(FilterJob(str(path), **settings, **more)).output))]

    assert order() == [2, 1, 0]  # 0 and 3 tie
    assert order(by=f"{prefix}total_score") == [3, 2, 1]
    assert order(drop_unfamiliar=True) == [2, 1, 3]
    found = filter_job(FilterJob(str(path), **settings, drop_unfamiliar=True))
    assert (found.rows, found.kept, found.unranked, found.unfamiliar) == (5, 3, 1, 1)


def test_unfamiliar_rows_alone_may_be_left_out_but_not_unknown_ones(tmp_path, capsys):
    path = tmp_path / "scored.json"
    path.write_text(json.dumps(judged_rows()))
    assert main(["filter", str(path), "--drop-unfamiliar"]) == 0
    assert "kept 3 of 4 rows" in (error := capsys.readouterr().err) and "1 unfamiliar rows were left out" in error
    for rows in (scored_rows(3), [{**row, "unfamiliar": None} for row in judged_rows()]):
        path.write_text(json.dumps(rows))
        assert main(["filter", str(path), "--drop-unfamiliar"]) == 1
        assert "--drop-unfamiliar expects rows that say whether they are unfamiliar" in capsys.readouterr().err


def test_rows_of_several_judges_need_a_column(tmp_path):
    path = tmp_path / "scored.json"
    path.write_text(json.dumps([*judged_rows(), *judged_rows(field="total_score")]))
    with pytest.raises(SettingsError, match="item 5 names 'total_score' and others 'expected_clarity'. Name"):
        filter_job(FilterJob(str(path), best=1))
    twice = [{**one, **other} for one, other in zip(judged_rows(), judged_rows("my_"), strict=True)]
    path.write_text(json.dumps(twice))
    with pytest.raises(DataFileError, match="which rank by expected_clarity, my_expected_clarity. Name one by --by"):
        filter_job(FilterJob(str(path), best=1))
    assert kept(path, best=1, by="my_total_score")[0]["at"] == 3
    path.write_text(json.dumps([{**row, "rank_by": None} for row in judged_rows()]))
    assert kept(path, best=1)[0]["at"] == 3  # its judge names none


def test_a_row_with_bytes_that_are_no_text_is_left_out_and_told(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"question,total_score\na\xff,5\nb,4\n")
    found = filter_job(FilterJob(str(tmp_path / "x.csv"), best=5, output=str(tmp_path / "best.jsonl")))
    assert (found.kept, found.unranked) == (1, 1) and "some of its bytes are not" in found.reason


def test_rows_of_which_only_later_ones_say_what_they_rank_by_need_a_column(tmp_path):
    rows = [{"total_score": 9, "expected_total": 9.0}, {"total_score": 5, "expected_total": 1.0}]
    write_rows([rows[0], rows[1] | {"rank_by": "expected_total"}], str(tmp_path / "x.jsonl"))
    with pytest.raises(SettingsError, match="x.jsonl:2 names 'expected_total' and rows before it .* by 'total_score'"):
        filter_job(FilterJob(str(tmp_path / "x.jsonl"), best=1, output=str(tmp_path / "best.jsonl")))
    assert kept(tmp_path / "x.jsonl", best=1, by="expected_total")[0]["total_score"] == 9
    write_rows([rows[0], rows[1] | {"rank_by": "nothing", "drank_by": "x"}], str(tmp_path / "x.jsonl"))
    assert kept(tmp_path / "x.jsonl", best=1)[0]["total_score"] == 9


def test_flags_that_only_later_rows_have_count(tmp_path):
    flagged = {"unfamiliar": True, "unfamiliar_reason": "odd"}
    write_rows([{"total_score": 1}, {"total_score": 5, **flagged}], str(tmp_path / "x.jsonl"))
    assert kept(tmp_path / "x.jsonl", drop_unfamiliar=True) == [{"total_score": 1}]
