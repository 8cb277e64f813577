import copy

import pytest
from support.models import aspect, feature
from support.results import alike

from inspector_pipeline import PairError, evaluate_samples, load_judge
from inspector_pipeline.api.load import keep_top


def test_scores_beside_the_samples_own_keys_in_input_order(judge, pairs):
    samples = [{**pair, "id": i, "total_score": "old"} for i, pair in enumerate(pairs)]
    before = copy.deepcopy(samples)
    results = evaluate_samples(samples, judge)
    assert samples == before
    assert [list(row)[:7] for row in results] == [
        ["question", "prediction", "id", "total_score", "correctness", "fluency", "extra"]
    ] * 3
    direct = judge(pairs)
    for row, sample, result in zip(results, samples, direct, strict=True):
        assert {key: row[key] for key in ("question", "prediction", "id")} == {
            k: sample[k] for k in ("question", "prediction", "id")
        }
        assert {name: row[name] for name in result["scores"]} == result["scores"]
        assert row["total_score"] == result["total_score"] and type(row["total_score"]) is int


def test_the_best_share_is_sorted_stably_and_cut():
    rows = [{"id": i, "total_score": score} for i, score in enumerate([3, 5, 3, 5, 1])]
    assert keep_top(rows, 1.0) is rows
    assert [row["id"] for row in keep_top(rows, 0.8)] == [1, 3, 0, 2]
    assert [row["id"] for row in keep_top(rows, 0.5)] == [1, 3]
    assert keep_top(rows, 0.1) == [] == keep_top(rows, 0.0)
    assert len(keep_top([{"total_score": 0}] * 100, 0.29)) == 29  # where floats would give 28.999


def test_a_share_is_kept(judge, pairs):
    everything = evaluate_samples(pairs * 2, judge)
    best = evaluate_samples(pairs * 2, judge, top_percent=0.5, batch_size=2)
    assert alike(best, sorted(everything, key=lambda row: -row["total_score"])[:3], 1e-4)


def test_own_keys_that_are_replaced_are_told_but_not_those_of_a_judge(judge, pairs, caplog):
    scored = evaluate_samples(pairs, judge)
    evaluate_samples(scored, judge)
    assert not caplog.text
    assert evaluate_samples([{**pairs[0], "seen": "mine"}], judge)[0]["seen"] is None
    assert "The samples' own seen are replaced" in caplog.text


def test_the_share_is_by_the_total_score_unless_a_field_is_named(make_judge, pairs):
    aspects = [aspect("a", [feature(2)]), aspect("b", [feature(1, "last")], counts=False)]
    judge = load_judge(make_judge(aspects, rank_by="expected_b"), device="cpu")
    everything = evaluate_samples(pairs, judge)
    for field in ("total_score", "expected_b", "b"):
        named = {} if field == "total_score" else {"rank_by": field}
        best = evaluate_samples(pairs, judge, top_percent=0.7, **named)
        expected = sorted(everything, key=lambda row: -row[field])[:2]
        assert [row["question"] for row in best] == [row["question"] for row in expected]
    with pytest.raises(ValueError, match="rank_by expects one of expected_total, expected_a"):
        evaluate_samples(pairs, judge, rank_by="c")


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), True])
def test_a_share_out_of_range_is_refused(judge, pairs, share):
    with pytest.raises(ValueError, match="top_percent expects a share from 0 to 1"):
        evaluate_samples(pairs, judge, top_percent=share)


def test_no_samples_need_no_judge():
    assert evaluate_samples([]) == []


def test_a_bad_sample_is_refused(judge):
    with pytest.raises(PairError, match="Pair 0.*'question' is missing"):
        evaluate_samples([{"prediction": "p"}], judge)


def test_truncation_is_said(make_judge, caplog):
    judge = load_judge(make_judge([aspect("a", [feature(1)])], max_length=64), device="cpu")
    evaluate_samples([{"question": "word " * 200, "prediction": "yes"}], judge)
    assert "1 of 1 pairs were longer than the judge's limit and were cut" in caplog.text


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/judge", "a/b/c"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name):
    with pytest.raises(FileNotFoundError, match="expects a folder or a Hub id"):
        load_judge(name)
