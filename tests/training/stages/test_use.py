"""What choosing by a judge brings: exact against all choices, and edits that a judge can or cannot be fooled by."""

import json
from itertools import combinations

import numpy as np
import pytest
from inspector_cli.main import main as cli
from inspector_training.corruptions.degenerate import answer_places
from inspector_training.evaluation.hill_climbing import EDITS, FLATTERY, hill_climbing
from inspector_training.evaluation.question_only import PENALTIES, QuestionOnlyConfig, question_values, ridge_values
from inspector_training.evaluation.scored import Scored
from inspector_training.evaluation.selection import best_of, top_right, use_evidence, vote
from inspector_training.rows.records import write_records
from inspector_training.stages.use import Config, run
from sklearn.linear_model import Ridge
from support.results import alike
from support.verified import verified_answers

from inspector_pipeline.errors import DataFileError

GENERATORS = ("a", "b", "c", "d", "e")


def scored(rows, value):
    return Scored(rows, "expected_correctness", np.array([value(row) for row in rows], dtype=float), [], [])


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_best_of_n_and_votes_are_those_over_all_choices(n):
    rng = np.random.default_rng(n)
    value, right, final = rng.integers(0, 4, 6).astype(float), rng.random(6) < 0.5, rng.integers(-1, 3, 6)
    right = np.array([right[final == code][0] for code in final])  # a final answer is right or not
    best, voted = [], []
    for chosen in combinations(range(6), n):
        own = np.array(chosen)
        best.append(right[own][value[own] == value[own].max()].mean())
        weight = {code: value[own][final[own] == code].sum() for code in set(final[own].tolist()) - {-1}}
        most = [code for code, total in weight.items() if total == max(weight.values()) > 0]
        voted.append(np.mean([right[final == code][0] for code in most] or right[own]))
    assert best_of(value, right, n) == pytest.approx(np.mean(best), abs=1e-12)
    masks = np.array([[i in chosen for i in range(6)] for chosen in combinations(range(6), n)])
    assert vote(final, right, value, masks) == pytest.approx(np.mean(voted), abs=1e-12)


def test_the_top_share_counts_part_of_those_tied_at_its_border():
    value, right = np.array([3.0, 2.0, 2.0, 1.0]), np.array([0, 1, 0, 1], dtype=bool)
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 1, 1]])
    assert top_right(value, right, weights, [0.25, 0.5, 1.0]).tolist() == [[0, 0.25, 0.5], [0, 0, 0.25]]


def test_choosing_by_what_is_right_is_the_oracle_and_by_chance_is_random():
    rows = verified_answers(12, GENERATORS)
    found = use_evidence(scored(rows, lambda row: row["correct"]), {"noise": np.zeros(len(rows))}, bootstraps=50)
    assert set(found["best_of"]) == {"2", "4"}, "no question has as many answers as 8"
    for entry in (*found["best_of"].values(), found["top"]):
        assert entry["judge"] == entry["oracle"] and entry["noise"] == entry["random"]
        assert entry["gain_over_random"]["low"] > 0 and entry["random"]["value"] == 0.5
    assert found["best_of"]["2"]["n_questions"] == found["n_questions"] == 12 and found["n_generators"] == 5
    assert found["best_of"]["4"]["majority"]["value"] == 0.5, "most are right in half of the questions"
    assert found["best_of"]["4"]["judge_weighted"]["value"] > found["best_of"]["4"]["majority"]["value"]
    assert found["auroc"]["judge"]["value"] == found["same_question"]["judge"]["value"] == 1
    assert found["same_question"]["noise"]["value"] == 0.5 and found["surest"]["0.1"]["value"] == 1
    turned = use_evidence(scored(rows, lambda row: -row["correct"]), {}, bootstraps=50)
    assert turned["same_question"]["judge"]["value"] == turned["surest"]["1.0"]["value"] == 0
    assert turned["top"]["judge"]["value"] == 0 and turned["top"]["gain_over_random"]["high"] < 0


def test_the_surest_decisions_are_those_with_the_largest_difference():
    rows = verified_answers(10, ("a", "b"))
    names = list(dict.fromkeys(row["question"] for row in rows))
    margin = {name: (1 if place < 6 else -1) * (10 - place) for place, name in enumerate(names)}
    found = use_evidence(scored(rows, lambda row: margin[row["question"]] * row["correct"]), {}, bootstraps=50)
    assert [found["surest"][share]["value"] for share in ("0.5", "0.6", "1.0")] == [1, 1, 0.6]
    with pytest.raises(DataFileError, match="expects questions with right and wrong answers"):
        use_evidence(scored([row for row in rows if row["correct"]], len), {})
    with pytest.raises(DataFileError, match="expect 0 or 1 as correct, but got 'yes'"):
        use_evidence(scored([{**rows[0], "correct": "yes"}], len), {})


def test_a_probe_of_questions_alone_learns_which_are_hard():
    rng = np.random.default_rng(0)
    x, direction, n = rng.normal(size=(80, 5)), rng.normal(size=5), rng.integers(1, 9, 80).astype(float)
    share = x @ direction
    found = ridge_values(x[:60], share[:60], n[:60], x[60:])
    assert np.corrcoef(found, share[60:])[0, 1] > 0.999
    copies = np.repeat(np.arange(60), n[:60].astype(int))  # a question counts as often as it was answered
    mean, deviation = x[:60].mean(axis=0), x[:60].std(axis=0)
    model = Ridge(PENALTIES[0]).fit(((x[:60] - mean) / deviation)[copies], share[copies])
    np.testing.assert_allclose(found, model.predict((x[60:] - mean) / deviation), rtol=1e-6)
    assert np.ptp(ridge_values(x[:60], np.full(60, 0.5), n[:60], x[60:])) < 1e-9


def test_a_probe_of_questions_alone_is_the_same_for_all_answers_and_fitted_on_others(tmp_path, backbone_dir):
    answers = tmp_path / "answers.jsonl"
    write_records(verified_answers(14, ("a", "b")), answers)
    config = QuestionOnlyConfig((answers,), str(backbone_dir), None, layers=(1, 2))
    asked = verified_answers(4, ("a", "b"), first=12)  # two of these four are among the answers, and are left out
    values = question_values(asked, config, tmp_path / "read")
    assert len(values) == 8 and [len(set(values[i : i + 2])) for i in range(0, 8, 2)] == [1] * 4
    turned = [
        row | {"correct": 1} if row["question"] in {r["question"] for r in asked} else row for row in rows_of(answers)
    ]
    write_records(turned, answers)
    np.testing.assert_allclose(question_values(asked, config, tmp_path / "read"), values, rtol=1e-12)
    with pytest.raises(DataFileError, match="expects answers to 10 or more questions other than .*, but got 9"):
        question_values(verified_answers(5, ("a", "b")), config, tmp_path / "read")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def climbed(value, n_edits=60, flag=None):
    rows, scored_texts = verified_answers(10, ("a", "b")), []
    right, wrong = ([row | {"id": row["question"]} for row in rows if row["correct"] == label] for label in (1, 0))

    def score(pairs):
        scored_texts.extend(pairs)
        return np.array([value(pair) for pair in pairs], dtype=float), [flag] * len(pairs)

    return hill_climbing(wrong, right, score, n_edits=n_edits, bootstraps=50), scored_texts, wrong


def test_edits_reach_what_a_judge_can_be_talked_into():
    flattered, texts, wrong = climbed(
        lambda pair: pair["prediction"].count(FLATTERY[0]) + 10 * ("- " in pair["prediction"])
    )
    assert flattered["started"]["value"] == flattered["reached"]["value"] == 0 and flattered["kept"] > 0
    assert flattered["by_edit"]["conclude"] > 0 and sum(flattered["by_edit"].values()) == 10 * flattered["kept"]
    assert set(flattered["by_edit"]) == set(EDITS) and flattered["reached_familiar"] is None
    fooled = climbed(lambda pair: min(len(pair["prediction"]), 180), flag=True)[0]
    assert fooled["reached"]["value"] == 1 and fooled["reached_familiar"]["value"] == 0
    assert flattered["reached_from_below"] == flattered["reached"], "all began below"
    assert 0 < fooled["started"]["value"] < 1 and fooled["reached_from_below"]["value"] == 1
    assert climbed(lambda pair: 0.0, n_edits=1)[0]["reached_from_below"] is None, "all had the bar before"
    answers = {row["question"]: row["answer"] for row in wrong}
    before = {row["question"]: len(answer_places(row["prediction"], row["answer"])) for row in wrong}
    tried = [pair for pair in texts if "answer" in pair and not pair["correct"]]
    assert len(tried) > 300
    assert all(
        len(answer_places(pair["prediction"], answers[pair["question"]])) <= before[pair["question"]] for pair in tried
    ), "an edit may not make a solution right"
    assert climbed(lambda pair: len(pair["prediction"]))[0] == climbed(lambda pair: len(pair["prediction"]))[0]


def test_the_stage_measures_scored_answers_and_climbs_by_the_judge(tmp_path, judge, backbone_dir, one_thread):
    others = tmp_path / "others.jsonl"
    write_records(verified_answers(10, ("a", "b"), first=20), others)
    folder = str(tmp_path / "judge")
    rows = [row | {"guess": i % 3} for i, row in enumerate(verified_answers(4, ("a", "b", "c")))]
    write_records(rows, tmp_path / "verified.jsonl")
    output = tmp_path / "scored.jsonl"
    assert cli(["score", str(tmp_path / "verified.jsonl"), "--judge", folder, "--output", str(output)]) == 0
    config = {"bootstraps": 20, "judge": folder, "n_climbed": 2, "n_edits": 3, "baselines": ("guess",)}
    config |= {"question_only": QuestionOnlyConfig((others,), str(backbone_dir), None, (1,))}
    found = run(Config((output,), tmp_path / "use.json", **config))
    assert json.loads((tmp_path / "use.json").read_text()) == {"use": found} and found["field"] == "expected_total"
    assert found["hill_climbing"]["n"] == 2 and "guess" in found["best_of"]["2"]
    assert found["same_question"]["question_only"]["value"] == 0.5 and "question_only" in found["top"]
    assert found["best_of"]["2"]["question_only"] == found["best_of"]["2"]["random"]
    assert run(Config((output,), tmp_path / "use.json", **config)) == {}
    again = [json.loads(line) for line in output.read_text().splitlines()]
    expected = use_evidence(scored(again, lambda row: row["expected_total"]), {}, bootstraps=20)
    assert alike(found["best_of"]["2"]["judge"], expected["best_of"]["2"]["judge"])
    with pytest.raises(DataFileError, match="expects a number as 'generator', but row 0 has 'a'"):
        run(Config((output,), tmp_path / "other.json", baselines=("generator",)))
    with pytest.raises(DataFileError, match="top expects a share of 0 to 1 and sizes numbers from 1"):
        run(Config((output,), tmp_path / "other.json", top=0))
