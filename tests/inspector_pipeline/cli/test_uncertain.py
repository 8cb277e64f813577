"""Rows that a judge is not sure of: abstained from, left out of filters and means, and sent to a better judge."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from inspector_cli.main import main
from support.jobs import contents, made_rows, parts, write_lines
from support.models import aspect, feature

from inspector_pipeline import load_judge
from inspector_pipeline.api.mean_scores import mean_scores
from inspector_pipeline.api.uncertain import abstained_rows, rows_to_label
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.results import expected_error

SCALE = {"a": {str(score): score for score in range(1, 6)}}


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(2)], "ordinal"), aspect("b", [feature(1)], classes=(0, 1), counts=False)])


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "rows.jsonl", made_rows(30))


def run(*args):
    return main([*map(str, args)])


def test_which_rows_are_abstained_from():
    errors, known = np.array([0.5, 0.9, 0.9, 0.1, 0.7]), np.zeros(5, np.bool_)
    assert abstained_rows(errors, known, 0.2).tolist() == [False, True, False, False, False], "ties in input order"
    assert abstained_rows(errors, known, 0.59).sum() == 2 and not abstained_rows(errors, known, 0.1).any()
    assert abstained_rows(errors, errors == 0.1, 0.4).tolist() == [False, True, False, True, False], "unfamiliar first"
    with pytest.raises(SettingsError, match="same error.*of all 5. Calibrate it"):
        abstained_rows(np.zeros(5), known, 0.2)


def test_rows_to_label_are_in_doubt_and_unlike_each_other():
    texts = ["red apples and pears", "red apples and pears", "prime numbers", "why is the sky blue", "sure"]
    rows = [{"q": text, "id": i} for i, text in enumerate(texts)]
    errors = np.array([1.0, 0.99, 0.8, 0.7, 0.0])
    found = rows_to_label(lambda: rows, errors, 3, {"question": "q"}, ["a"])
    assert [row["id"] for row in found] == [0, 2, 3], "not the same text twice, nor what is sure"
    assert found[0] == {"question": texts[0], "label_a": None, "escalated": True, "expected_error": 1.0, "id": 0}
    assert [row["id"] for row in rows_to_label(lambda: rows, errors, 9, {"question": "q"}, [])][:3] == [0, 2, 3]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_is_marked_and_a_filter_leaves_the_marked_out(folder, source, tmp_path, suffix, capsys):
    target = tmp_path / f"scored{suffix}"
    same = ("score", source, "--judge", folder, "--device", "cpu", "--format", "none")
    assert run(*same, "--output", target, "--abstain", 0.2) == 0
    assert "6 of 30 pairs abstained from" in capsys.readouterr().err
    rows = read_rows(str(target))
    errors = np.array([expected_error(row["probabilities"], SCALE) for row in rows])
    marks = np.array([row["abstained"] for row in rows])
    assert marks.sum() == 6 and errors[marks].min() >= errors[~marks].max()
    assert run("filter", target, "--best", 30, "--output", tmp_path / f"kept{suffix}") == 0
    assert (
        "kept 24 of 30" in (err := capsys.readouterr().err)
        and "6 rows were left out, since their judge abstains" in err
    )
    assert not any(row["abstained"] for row in read_rows(str(tmp_path / f"kept{suffix}")))
    assert run("filter", target, "--best", 30, "--keep-abstained", "--output", tmp_path / f"all{suffix}") == 0
    assert "kept 30 of 30" in capsys.readouterr().err
    assert run(*same, "--output", tmp_path / "top.jsonl", "--abstain", 0.2, "--top-percent", 0.99) == 0
    assert len(read_rows(str(tmp_path / "top.jsonl"))) == 23, "the best share of those that are left"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_job_is_marked_in_a_second_pass_which_may_be_given_again(folder, tmp_path, form, capsys):
    source = write_lines(tmp_path / "many.jsonl", made_rows(600))
    output = tmp_path / "job"
    output.mkdir()
    same = ("score", source, "--judge", folder, "--device", "cpu", "--output", output, "--output-format", form)
    same = (*same, "--part-rows", 256)
    assert run(*same) == 0
    plain = parts(output)
    assert run(*same, "--abstain", 0.1, "--escalate", 5, "--escalate-to", tmp_path / "ask.csv") == 0
    assert "60 abstained from" in capsys.readouterr().err
    rows = parts(output)
    marks = np.array([row.pop("abstained") for row in rows])
    assert rows == plain and marks.sum() == 60, "nothing else has changed"
    errors = np.array([expected_error(row["probabilities"], SCALE) for row in rows])
    assert errors[marks].min() >= errors[~marks].max()
    before = contents(output)
    assert run(*same, "--abstain", 0.1) == 0 and contents(output) == before
    assert run(*same, "--abstain", 0.5) == 0 and sum(row["abstained"] for row in parts(output)) == 300
    if form == "parquet":
        assert all(pq.read_schema(path).names.count("abstained") == 1 for path in output.glob("part-*"))
    assert run("filter", output, "--top", 1.0, "--output", tmp_path / "kept.json") == 0
    assert len(read_rows(str(tmp_path / "kept.json"))) == 300
    asked = read_rows(str(tmp_path / "ask.csv"))
    assert list(asked[0]) == ["question", "prediction", "label_a", "escalated", "expected_error", "id"]
    assert len({row["question"] for row in asked}) == 5
    assert run(*same, "--abstain", 0.1, "--shard", "0/2") == 1
    assert "once all shards are done" in capsys.readouterr().err


def test_what_is_escalated_comes_back_as_labels(folder, source, tmp_path, capsys):
    ask = tmp_path / "ask.csv"
    same = ("score", source, "--judge", folder, "--device", "cpu", "--format", "none")
    assert run(*same, "--escalate", 4, "--escalate-to", ask) == 0
    assert "wrote the 4 rows whose labels would help most" in (err := capsys.readouterr().err) and "label_a" in err
    first = ask.read_bytes()
    assert run(*same, "--escalate", 4, "--escalate-to", ask) == 0 and ask.read_bytes() == first
    asked = read_rows(str(ask))
    scores = load_judge(folder, device="cpu")([{k: row[k] for k in ("question", "prediction")} for row in asked])
    errors = [expected_error(result["probabilities"], SCALE) for result in scores]
    assert errors == pytest.approx([float(row["expected_error"]) for row in asked], abs=1e-3)
    for wrong, message in (
        (("--escalate", 4), "--escalate-to the file"),
        (("--escalate", 4, "--escalate-to", tmp_path / "x.txt"), "expects a file of .csv"),
        (("--escalate", 4, "--escalate-to", source), "another file than the input"),
        (("--escalate", 4, "--escalate-to", ask, "--output", ask), "another file than the output"),
    ):
        assert run(*same, *wrong) == 1
        assert message in capsys.readouterr().err


def test_means_leave_out_what_is_abstained_from(folder):
    judge = load_judge(folder, device="cpu")
    rows = made_rows(20)
    texts = [row["prediction"] for row in rows], [row["question"] for row in rows]
    found = mean_scores(*texts, judge, n_resamples=20, abstain=0.25, return_pairs=True)
    assert found["n"] == 15 and found["abstained"] == 5
    kept = [pair["expected"]["a"] for pair in found["pairs"] if not pair["abstained"]]
    assert found["expected"]["a"]["mean"] == pytest.approx(np.mean(kept)) and len(kept) == 15
    assert "abstained" not in mean_scores(*texts, judge, n_resamples=20)
    with pytest.raises(SettingsError, match="leaves none of 20"):
        mean_scores(*texts, judge, n_resamples=20, abstain=1.0)


def test_a_column_of_that_name_is_not_overwritten(folder, tmp_path, capsys):
    source = write_lines(tmp_path / "own.jsonl", [{**row, "abstained": "yes"} for row in made_rows(3)])
    same = ("score", source, "--judge", folder, "--device", "cpu", "--format", "none", "--output", tmp_path / "o.jsonl")
    assert run(*same, "--abstain", 0.5) == 1
    assert "expects no column of the judge's, but has abstained" in capsys.readouterr().err
    assert run(*same) == 0
    assert json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])["abstained"] == "yes"
