"""Ranking systems: known formulas, and no worse system is called better for a judge's liking of its generator."""

import itertools
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from inspector_training.evaluation.between import between_generators
from inspector_training.evaluation.scored import judge_prefixes
from inspector_training.trust.bradley_terry import shifts, strengths
from inspector_training.trust.rank import rank, results_of
from inspector_training.trust.ranking import (
    JudgeError,
    critical,
    groups,
    joined_df,
    judge_error,
    means_of,
    prompts_needed,
    rank_systems,
)
from inspector_training.trust.systems import names_of, read_systems, truth_of
from scipy import stats
from sklearn.linear_model import LogisticRegression

from inspector_pipeline.errors import DataFileError, PairError


def made_up(rng, accuracy, preference, n=60, gain=0.5, hard=0.15):
    """A judge's scores, and the labels, of systems of known accuracy, each preferred by so much."""
    difficulty = rng.normal(0, hard, (n, 1))
    right = rng.random((n, len(accuracy))) < np.clip(np.asarray(accuracy) - difficulty, 0, 1)
    return 0.4 + gain * right - difficulty + np.asarray(preference) + rng.normal(0, 0.1, right.shape), right * 1.0


def test_two_systems_are_compared_by_a_paired_t_interval_where_the_judge_has_no_error():
    values, _ = made_up(np.random.default_rng(0), [0.4, 0.8], [0, 0])
    pair = rank_systems(values, JudgeError(0.0, 20, "made up"))["pairs"][0]
    plain = stats.ttest_rel(values[:, 1], values[:, 0]).confidence_interval()
    assert (pair["low"], pair["high"]) == pytest.approx((plain.low, plain.high))
    assert pair["difference"] == pytest.approx(np.mean(values[:, 1] - values[:, 0])) and pair["better"] == 1
    assert pair["wins"] == pytest.approx(np.mean(values[:, 1] > values[:, 0]))


def test_three_systems_of_one_variance_are_compared_by_tukeys_range():
    values = np.random.default_rng(1).normal(size=(40, 3)) + [0, 0.2, 2.0]
    found = rank_systems(values, JudgeError(0.0, 20, "made up"))
    pair = found["pairs"][2]
    variance = np.var(values[:, 2] - values[:, 1], ddof=1) / 40
    exact = stats.studentized_range.ppf(0.95, 3, 39) / np.sqrt(2) * np.sqrt(variance)
    assert pair["high"] - pair["difference"] == pytest.approx(exact, rel=2e-3)
    assert pair["high"] - pair["difference"] >= exact, "what is drawn between degrees of freedom is not too small"
    assert found["groups"] == [[2], [1, 0]]
    assert [one["ranks"] for one in found["systems"]] == [[2, 3], [2, 3], [1, 1]]
    for df in (5.0, 15.0, 30.0, 200.0):
        exact = stats.studentized_range.ppf(0.95, 10, df) / np.sqrt(2)
        assert exact <= critical(10, df) <= 1.01 * exact


def test_the_judges_error_widens_intervals_and_may_never_be_overcome():
    values, _ = made_up(np.random.default_rng(2), [0.5, 0.7], [0, 0], n=400)
    without, with_error = (rank_systems(values, JudgeError(sd, 21, "made up"))["pairs"][0] for sd in (0.0, 0.05))
    assert without["better"] == 1 and with_error["better"] is None and with_error["beyond_sampling"] == 1
    variance = np.var(values[:, 1] - values[:, 0], ddof=1) / 400
    df = joined_df(variance, 399, 2 * 0.05**2, 21)
    reach = stats.t.ppf(0.975, df) * np.sqrt(variance + 2 * 0.05**2)
    assert with_error["high"] - with_error["low"] == pytest.approx(2 * reach)
    assert with_error["prompts_needed"] == "never" and 20 < without["prompts_needed"] < 400
    unknown = rank_systems(values, None)
    assert unknown["pairs"][0]["better"] is None and unknown["pairs"][0]["beyond_sampling"] == 1
    assert unknown["groups"] == [[1], [0]], "by sampling alone, and said so by the report"


def test_as_many_prompts_as_are_said_to_be_needed_are_just_enough():
    error = JudgeError(0.01, 21, "made up")
    needed = prompts_needed(0.1, 0.09, 2, error, 0.95)
    for n, enough in ((needed, True), (round(0.93 * needed), False)):
        df = joined_df(0.09 / n, n - 1, 2e-4, 21)
        assert (stats.t.ppf(0.975, df) * np.sqrt(0.09 / n + 2e-4) < 0.1) == enough
    assert prompts_needed(0.0, 0.09, 2, None, 0.95) == "never" == prompts_needed(0.029, 0.0, 2, error, 0.95)


@pytest.mark.parametrize("k", [2, 6])
def test_the_worse_is_called_better_in_at_most_one_in_twenty_however_the_judge_prefers(k):
    """The failure that must not come back: 29 of 60 right called better than 45 of 60 right at p = .0002."""
    rng, wrong, by_sampling, right = np.random.default_rng(3), [], [], []
    question, generator = (place.ravel().astype(str) for place in np.indices((150, 20)))
    for sd in np.repeat([0.01, 0.04, 0.15], 20 if k == 2 else 8):
        known = made_up(rng, rng.uniform(0.4, 0.9, 20), rng.normal(0, sd, 20), n=150)
        evidence = between_generators(known[0].ravel(), known[1].ravel(), question, generator)
        error = judge_error({"matched": {"correctness": {"between_generators": evidence}}}, "expected_correctness")
        for _ in range(8):
            accuracy = rng.uniform(0.45, 0.8, k)
            pairs = rank_systems(made_up(rng, accuracy, rng.normal(0, sd, k))[0], error)["pairs"]
            worse = [min((one["first"], one["second"]), key=accuracy.__getitem__) for one in pairs]
            wrong.append(any(one["better"] == own for one, own in zip(pairs, worse, strict=True)))
            by_sampling.append(any(one["beyond_sampling"] == own for one, own in zip(pairs, worse, strict=True)))
            right.append(any(one["better"] not in (None, own) for one, own in zip(pairs, worse, strict=True)))
    assert np.mean(wrong) <= 0.05 < np.mean(by_sampling)
    assert np.mean(right) > 0.1, "it is no remedy never to say anything"


def test_the_failure_itself_is_not_called_with_the_evidence_of_the_embedded_judge(tmp_path):
    """From files, as `inspector rank` reads them; the labels of the same rows say who is better."""
    rng = np.random.default_rng(4)
    right = np.array([np.arange(60) < 45, np.arange(60) < 29]).T
    for row in right.T:
        rng.shuffle(row)
    sd = judge_error(results_of("embedded"), "expected_correctness").sd
    values = 0.4 + 0.1 * right + [0.0, 3 * sd] + rng.normal(0, 0.1, (60, 2))  # it prefers the worse one by far
    for at, name in enumerate(("good", "bad")):
        rows = [
            {"question": f"q{i}", "prediction": "so", "right": int(right[i, at]), "expected_correctness": values[i, at]}
            for i in range(60)
        ]
        text = "".join(json.dumps({**row, "rank_by": "expected_correctness"}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    files = [tmp_path / "good.jsonl", tmp_path / "bad.jsonl"]
    found = rank(files, "embedded")
    assert 0.03 < found["judge_error"]["sd"] == sd < 0.1 and found["winner"] is None
    pair = found["pairs"][0]
    assert pair["beyond_sampling"] == "bad" and pair["better"] is None and pair["low"] < 0 < pair["high"]
    assert rank(files, "embedded", label="right")["winner"] == "good"
    assert rank(files)["winner"] is None, "without evidence nothing is called better"


def test_labelled_rows_take_the_judges_preference_out():
    rng, covered, called, widths = np.random.default_rng(5), [], [], []
    accuracy = np.array([0.7, 0.5, 0.5])
    for _ in range(150):
        values, truth = made_up(rng, accuracy, [0.0, 0.3, 0.1], n=500, gain=0.5, hard=0.02)
        labels = np.where(rng.random(truth.shape) < 0.3, truth, np.nan)
        found = rank_systems(values, None, labels=labels)
        covered.append(
            all(p["low"] <= accuracy[p["second"]] - accuracy[p["first"]] <= p["high"] for p in found["pairs"])
        )
        called.append([p["better"] for p in found["pairs"]])
        widths.append(
            [
                np.sqrt(np.sum(means_of(values, labels).influence[:, 0] ** 2)),
                np.nanstd(labels[:, 0]) / np.sqrt((~np.isnan(labels[:, 0])).sum()),
            ]
        )
    assert np.mean(covered) >= 0.91
    assert np.mean([one[0] == 0 for one in called]) > 0.9 and np.mean([one[2] is not None for one in called]) < 0.06
    assert np.mean(widths, axis=0)[0] < 0.75 * np.mean(widths, axis=0)[1], "the judge saves labels"
    with pytest.raises(DataFileError, match="expects 10 labelled rows of each system or more, but got 3"):
        rank_systems(values, None, labels=np.where(np.arange(500)[:, None] < 3, truth, np.nan))


def test_who_wins_only_by_flagged_answers_is_not_called_better():
    rng = np.random.default_rng(6)
    flagged = np.zeros((60, 2), dtype=bool)
    flagged[:40, 1] = True
    values = rng.normal(0, 0.1, (60, 2)) + flagged
    found = rank_systems(values, JudgeError(0.01, 21, "made up"), flagged=flagged)["pairs"][0]
    assert found["rests_on_flagged"] and found["better"] is None and found["beyond_sampling"] == 1
    found = rank_systems(values + [0, 1], JudgeError(0.01, 21, "made up"), flagged=flagged)["pairs"][0]
    assert not found["rests_on_flagged"] and found["better"] == 1


def test_groups_are_the_largest_that_cannot_be_told_apart():
    assert groups([0, 1, 2, 3], set()) == [[0, 1, 2, 3]]
    assert groups([2, 0, 1], {(0, 1), (0, 2), (1, 2)}) == [[2], [0], [1]]
    assert groups([0, 1, 2, 3], {(0, 2), (0, 3), (1, 3)}) == [[0, 1], [1, 2], [2, 3]]
    rng = np.random.default_rng(7)
    for _ in range(20):
        apart = {(a, b) for a in range(7) for b in range(a + 1, 7) if rng.random() < 0.4}
        free = [set(s) for n in range(1, 8) for s in combinations(range(7), n) if not apart & set(combinations(s, 2))]
        largest = {frozenset(s) for s in free if not any(s < other for other in free)}
        assert {frozenset(s) for s in groups(list(range(7)), apart)} == largest


def test_evidence_that_says_nothing_of_generators_gives_no_error():
    slope = {"value": 0.3, "low": 0.1, "high": 0.5, "from": "generators"}
    found = {"sd": {"value": 0.02}, "df": 21, "n_generators": 23, "slope": slope, "generators_unseen": True}
    matched = {name: {"between_generators": found} for name in ("a", "b")}
    assert judge_error({"matched": matched}, "expected_a") == JudgeError(
        0.02, 21, "its evidence on 23 generators that no fit saw", 0.3
    )
    aspects = {"a": {"counts_in_total": True}, "b": {}, "c": {"counts_in_total": False}}
    assert judge_error({"matched": matched, "aspects": aspects}, "expected_total").sd == pytest.approx(0.04)
    assert judge_error({"matched": {"a": matched["a"]}, "aspects": aspects}, "expected_total") is None
    assert judge_error({}, "expected_a") is None and judge_error({"matched": matched}, "a") is None
    ranking = {"field": "expected_a", "ways": {"judge": {"between_generators": {**found, "sd": {"value": 0.01}}}}}
    assert judge_error({"matched": matched, "ranking": ranking}, "expected_a").sd == 0.01
    assert judge_error({"matched": matched, "ranking": ranking}, "expected_b").sd == 0.02
    assert judge_error({"matched": matched, "calibration": {"aspects": {"a": {}}}}, "expected_a") is None
    not_shown = judge_error(
        {"matched": {"a": {"between_generators": {**found, "slope": {**slope, "low": -0.1}}}}}, "expected_a"
    )
    assert not_shown.sd == 0.02 and not not_shown.ranks
    pair = rank_systems(np.random.default_rng(0).normal([0, 9], 0.1, (50, 2)), not_shown)["pairs"][0]
    assert pair["better"] is None and pair["prompts_needed"] == "never" and pair["low"] > 0, "far apart, and yet"


def test_files_give_systems_their_names_but_for_the_ending():
    names = ("Llama-3.1-8B.jsonl.gz", "Llama-3.2-8B.csv", "scored", "b.JSON", "x.y")
    assert names_of([Path(name) for name in names]) == ["Llama-3.1-8B", "Llama-3.2-8B", "scored", "b", "x.y"]
    assert names_of([Path("a/x.csv"), Path("b/x.csv")]) == ["a/x.csv", "b/x.csv"]
    with pytest.raises(DataFileError, match="expects different files"):
        names_of([Path("x.csv"), Path("x.csv")])


def test_files_of_other_tools_are_read_by_the_same_layer(tmp_path):
    def score(rows):
        return [{**row, "rank_by": "expected_x", "expected_x": float(len(row["prediction"]))} for row in rows]

    for name, said in (("a", "yes"), ("b", "certainly")):
        rows = [{"instruction": f"Is {i} even?", "input": "", "output": f"{said} {i}"} for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_systems([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], score)
    assert found.names == ["a", "b"] and found.values["expected_x"].tolist() == [[5, 11]] * 4
    with pytest.raises(DataFileError, match="truth of some rows, but no row has 'rihgt'"):
        read_systems([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], score, label="rihgt")
    assert truth_of([{"x": "Yes"}, {"x": 0.5}, {"x": " "}, {}], "x", "Rows") == pytest.approx(
        [1, 0.5, np.nan, np.nan], nan_ok=True
    )
    for wrong in ("good", "inf", "nan"):
        with pytest.raises(DataFileError, match=f"expects a number as 'x', but row 0 has '{wrong}'"):
            truth_of([{"x": wrong}], "x", "Rows")


def test_labels_are_the_users_though_the_judge_has_an_aspect_that_is_called_like_them(tmp_path):
    def score(rows):
        return [{**row, "right": 1, "rank_by": "expected_right", "expected_right": 0.5} for row in rows]

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    rows = [{"question": f"q{i}", "prediction": "so", "right": [0, 1, None][i % 3]} for i in range(6)]
    files = [write(name, rows) for name in ("a.jsonl", "b.jsonl")]
    found = read_systems(files, score, label="right")
    assert found.labels == pytest.approx(np.tile([[0.0], [1.0], [np.nan]], (2, 2)), nan_ok=True)
    scored = [write(f"{path.stem}_scored.jsonl", score(rows)) for path in files]
    with pytest.raises(DataFileError, match="labels as 'right', but there stand the scores of the judge that scored"):
        read_systems(scored, score, label="right")
    named = [write(f"{path.stem}_named.jsonl", [{**row, "truth": 1} for row in score(rows)]) for path in files]
    assert (read_systems(named, score, label="truth").labels == 1).all()
    with pytest.raises(DataFileError, match="10 labelled prompts of each system or more, but a_named has 6"):
        rank(named, label="truth")
    other = write("other.jsonl", [{**row, "score_sets": {"right": [1]}} for row in score(rows)])
    with pytest.raises(DataFileError, match="but other has score sets, of a calibrated one, and a_scored has none"):
        read_systems([scored[0], other], score)
    many = [{**row, "question": f"q{i}", "truth": 1} for i, row in enumerate(score(rows) * 2)]
    alike = rank([write(f"{name}_many.jsonl", many) for name in "ab"], label="truth")["notes"]
    assert "All labels are the same of a_many, b_many: such intervals are too narrow. Label more." in alike
    for wrong, message in (
        ({"prediction": " "}, r"c.jsonl, row 1: A pair expects text for 'prediction', but got a blank"),
        ({"prediction": None}, r"c.jsonl expects 'prediction' in every row, but row 1 lacks it: it has 'question'"),
    ):
        with pytest.raises(PairError, match=message):
            read_systems([files[0], write("c.jsonl", [rows[0], {**rows[1], **wrong}])], score)
    with pytest.raises(DataFileError, match="empty.jsonl expects rows with question and prediction, but has none"):
        read_systems([files[0], write("empty.jsonl", [])], score)


def test_strengths_are_those_of_a_logistic_regression_of_who_wins_with_one_tie_of_every_two_added():
    values = np.random.default_rng(3).normal(size=(50, 4)) + [0, 0.3, 0.6, 2.5]
    values[:5, 0] = values[:5, 1]
    rows, won, weight = [], [], []
    for a, b in itertools.combinations(range(4), 2):
        ties = np.sum(values[:, a] == values[:, b]) / 2 + 0.5
        higher, lower = np.sum(values[:, a] > values[:, b]), np.sum(values[:, a] < values[:, b])
        for is_won, n in ((1, higher + ties), (0, lower + ties)):
            rows.append(np.eye(4)[a] - np.eye(4)[b])
            won.append(is_won)
            weight.append(n)
    regression = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=1000)
    exact = regression.fit(rows, won, sample_weight=weight).coef_[0]

    strength, influence = strengths(values)

    assert strength == pytest.approx(exact - exact.mean(), abs=1e-4)
    assert influence[:50].sum(axis=0) == pytest.approx(0, abs=1e-9)
    always = np.stack([np.zeros(20), np.ones(20)], axis=1)
    strength, influence = strengths(always)
    assert strength == pytest.approx([-np.log(41) / 2, np.log(41) / 2])
    variance = np.sum((influence[:, 1] - influence[:, 0]) ** 2)
    assert variance == pytest.approx(1 / (21 * 41 / 42 * 1 / 42)), "20 of 20 leave a doubt, that of a logistic model"


def test_intervals_of_strengths_hold_the_true_log_odds_over_prompts():
    rng, held = np.random.default_rng(4), []
    for _ in range(200):
        values = np.stack([rng.normal(size=80), rng.normal(0.5, 1, 80)], axis=1)
        pair = rank_systems(values, JudgeError(0.0, 1e6, "made up"), by="wins")["pairs"][0]
        chance = stats.norm.cdf(0.5 / np.sqrt(2))
        held.append(pair["low"] <= np.log(chance / (1 - chance)) <= pair["high"])
    assert 0.91 <= np.mean(held) <= 0.99


def test_the_judges_error_widens_intervals_of_strengths_by_what_it_would_turn():
    values, _ = made_up(np.random.default_rng(2), [0.5, 0.7, 0.6], [0, 0, 0], n=300)
    without, with_error = (
        rank_systems(values, JudgeError(sd, 21, "made up"), by="wins")["pairs"][0] for sd in (0.0, 0.3)
    )
    assert without["better"] == 1 and with_error["better"] is None
    moved = shifts(values, 0.3, strengths(values)[0])
    assert np.sum(moved, axis=1) == pytest.approx(0, abs=1e-9), "strengths add up to 0"
    assert np.all(np.diag(moved) > 0.3), "where scores are close, a little turns many comparisons"
    assert rank_systems(values, None, by="wins")["systems"][1]["ranks"] == [1, 2]


def test_a_judges_columns_are_told_from_those_that_are_called_alike():
    judge = ["rank_by", "total_score", "expected_x"]
    assert judge_prefixes(["my_rank_by", "expected_output", *judge]) == [""]
    assert judge_prefixes(["my_rank_by", *(f"j_{name}" for name in judge)]) == ["j_"]
    assert judge_prefixes([*judge, *(f"j_{name}" for name in judge)]) == ["", "j_"]
    assert judge_prefixes(["rank_by", "question"]) == []
