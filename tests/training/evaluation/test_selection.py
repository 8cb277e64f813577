"""Choosing, to the last number by hand: counts, votes, drawn choices, what is surest, and scores read from files."""

import json
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from inspector_training.evaluation import degenerate, question_only, selection
from inspector_training.evaluation import scored as scored_rows
from inspector_training.evaluation.degenerate import AGAINST, RULE, degenerate_evidence, matched_to, rule_value
from inspector_training.evaluation.scored import (
    Scored,
    as_flag,
    input_files,
    numbers,
    read_entries,
    read_scored,
    without_abstained,
)
from inspector_training.evaluation.selection import _choices, _plain, use_evidence, vote
from inspector_training.evaluation.surest import SURE, decisions, rows_of, top_right
from inspector_training.rows.reading import as_pairs
from inspector_training.rows.records import question_id

from inspector_pipeline.errors import DataFileError

QUESTIONS = {  # question -> (right, final answer, value, text) of three answers
    "one": [(1, "3", 0.9, "aaaa"), (0, "4", 0.1, "aa"), (0, " 4.0 ", 0.2, "a")],
    "two": [(0, None, 0.8, "bbb"), (1, "x", 0.3, "bb"), (1, " x ", 0.7, "bbbbb")],
}


def scored(seen=(), **changes):
    rows = [
        {"question": name, "prediction": text, "generator": f"g{i}", "correct": right, "final": final} | changes
        for name, answers in QUESTIONS.items()
        for i, (right, final, _, text) in enumerate(answers)
    ]
    value = np.array([answer[2] for answers in QUESTIONS.values() for answer in answers])
    return Scored(rows, "expected_correctness", value, [None] * 6, [*seen] or [None] * 6)


def test_all_figures_of_six_answers_by_hand():
    found = use_evidence(
        scored(seen=[True, False, None, False, False, False]), {}, sizes=(1, 2, 3, 4), top=0.5, bootstraps=30
    )
    counts = {key: found[key] for key in ("field", "n_rows", "n_questions", "n_seen", "n_generators")}
    assert counts == {
        "field": "expected_correctness",
        "n_rows": 6,
        "n_questions": 2,
        "n_seen": 1,
        "n_generators": 3,
    }
    shares = {
        n: {way: own["value"] for way, own in entry.items() if way != "n_questions"}
        for n, entry in found["best_of"].items()
    }
    assert shares.keys() == {"1", "2", "3"} and found["best_of"]["3"]["n_questions"] == 2
    assert shares["1"]["judge"] == shares["1"]["random"] == shares["1"]["oracle"] == 0.5
    # of two: one's right answer is in 2 of 3 choices, and highest; two's wrong one is highest in 2 of 3
    assert shares["2"]["judge"] == 0.5 and shares["2"]["random"] == 0.5
    assert shares["2"]["oracle"] == round((2 / 3 + 1) / 2, 4)
    assert shares["3"]["judge"] == 0.5 and shares["3"]["oracle"] == 1.0
    assert shares["3"]["longest"] == 1.0 and shares["3"]["shortest"] == 0.5
    # all three vote: "4" and " 4.0 " are one final answer, "x" and " x " too; an answer of none has no vote
    assert shares["3"]["majority"] == 0.5
    # by rank of six: one's 3 has 5.5 / 6 against 0.5 + 1.5; two's x has 2.5 + 3.5, alone
    assert shares["3"]["judge_weighted"] == 1.0
    # of two: one's votes tie in 2 of 3 choices; two's are right whatever is chosen
    assert shares["2"]["majority"] == round(((2 * 0.5) / 3 + 1) / 2, 4)
    assert shares["2"]["judge_weighted"] == round((2 / 3 + 1) / 2, 4)
    gains = {name: own for name, own in shares["3"].items() if name.startswith("gain_over_")}
    assert gains == {
        "gain_over_random": 0.0,
        "gain_over_longest": -0.5,
        "gain_over_shortest": 0.0,
        "gain_over_majority": 0.0,
        "gain_over_judge_weighted": -0.5,
    }
    # the three highest are .9 (right), .8 (wrong), .7 (right)
    assert found["top"]["share"] == 0.5 and found["top"]["judge"]["value"] == round(2 / 3, 4)
    assert found["top"]["oracle"]["value"] == 1.0 and found["top"]["random"]["value"] == 0.5
    assert "gain_over_oracle" not in found["top"] and "gain_over_judge" not in found["top"]
    # right .9 .3 .7 against wrong .1 .2 .8: seven of nine pairs
    assert set(found["auroc"]) == set(found["same_question"]) == {"judge", "longest"}
    assert found["auroc"]["judge"]["value"] == round(7 / 9, 4)
    assert found["same_question"]["judge"]["value"] == 0.5  # both of one, none of two
    assert found["same_question"]["longest"]["value"] == 0.75
    # by margin .8 and .7 (right), then .5 and .1 (wrong)
    surest = {share: own["value"] for share, own in found["surest"].items()}
    assert surest["0.5"] == 1.0 and surest["1.0"] == 0.5 and surest["0.8"] == round(2 / 3.2, 4)
    assert list(surest) == [str(share) for share in SURE] == [f"0.{i}" for i in range(1, 10)] + ["1.0"]


def test_resamples_without_a_question_of_enough_answers_are_left_out():
    rows = scored()
    more = [{**rows.rows[0], "question": f"lone {i}", "generator": "g0"} for i in range(2)]
    lone = Scored([*rows.rows, *more], "f", np.append(rows.value, [0.5, 0.5]), [None] * 8, [None] * 8)
    found = use_evidence(lone, {}, sizes=(2,), bootstraps=200)
    assert found["best_of"]["2"]["n_questions"] == 2 and found["n_questions"] == 4
    assert 0 < found["best_of"]["2"]["judge"]["left_out"] < 200 and found["surest"]["1.0"]["left_out"] > 0


def test_resamples_are_taken_some_at_a_time(monkeypatch):
    whole, divided, split = use_evidence(scored(), {}, sizes=(2,), bootstraps=30), [], np.array_split
    monkeypatch.setattr(np, "array_split", lambda values, n: divided.append(n) or split(values, n))
    monkeypatch.setattr(selection, "BLOCK", 40)
    assert use_evidence(scored(), {}, sizes=(2,), bootstraps=30) == whole
    assert set(divided) == {2, 4, 5}, "31 of 2 questions, 4 decisions and 6 rows"
    answers = selection._answers(scored(), {}, 3, 0)
    divided.clear()
    assert answers.draws(lambda weights: weights.sum(axis=1), np.empty(0, dtype=int)).tolist() == [0.0] * 4
    assert divided == [1]


def test_a_resample_weighs_the_questions():
    found = use_evidence(scored(), {}, sizes=(2,), bootstraps=200)
    oracle = found["best_of"]["2"]["oracle"]  # 2/3 of one and 1 of two: resamples hold either, or both
    assert (oracle["low"], oracle["high"]) == (round(2 / 3, 4), 1.0) and found["n_seen"] is None


def test_choices_are_all_of_them_or_a_draw_without_an_answer_twice():
    whole = _choices(5, 2, comb(5, 2), "x")
    assert len(whole) == 10 and len(np.unique(whole, axis=0)) == 10 and (whole.sum(axis=1) == 2).all()
    drawn = _choices(30, 4, 50, "x")
    assert drawn.shape == (50, 30) and (drawn.sum(axis=1) == 4).all() and len(np.unique(drawn, axis=0)) > 45
    np.testing.assert_array_equal(drawn, _choices(30, 4, 50, "x"))
    assert (drawn != _choices(30, 4, 50, "y")).any()


def test_a_vote_that_nobody_has_or_that_weighs_nothing_is_a_random_answer():
    right = np.array([True, False, False])
    everyone = np.ones((1, 3), dtype=bool)
    assert vote(np.array([-1, -1, -1]), right, np.ones(3), everyone) == pytest.approx(1 / 3)
    assert vote(np.array([0, 1, 2]), right, np.zeros(3), everyone) == pytest.approx(1 / 3)
    assert vote(np.array([0, -1, -1]), right, np.ones(3), everyone) == 1.0
    assert vote(np.array([0, 1, -1]), right, np.array([0.1 + 0.2, 0.3, 9]), everyone) == 0.5, "rounding is a tie"


@pytest.mark.parametrize(
    ("final", "text"), [(None, ""), ("  ", ""), ("7.0", _plain("7")), (7, _plain("7")), ("A  b", "A b")]
)
def test_a_final_answer_is_one_text_however_it_is_written(final, text):
    assert _plain(final) == text


def test_rows_of_questions_and_decisions_are_in_order():
    question = np.array([1, 0, 1, 3, 0])
    assert [own.tolist() for own in rows_of(question)] == [[1, 4], [0, 2], [], [3]]
    found = decisions(question, np.array([1, 1, 0, 0, 0], dtype=bool), np.array([0.5, 0.25, 0.5, 9, 1]))
    assert found.question.tolist() == [0, 1] and found.won.tolist() == [0.0, 0.5]
    assert found.margin.tolist() == [0.75, 0.0]
    shares = top_right(np.array([2.0, 1.0]), np.array([0.5, 1.0]), np.array([[1.0, 3.0], [0.0, 2.0]]), [0.5, 1.0])
    assert shares.tolist() == [[(0.5 + 1) / 2, (0.5 + 3) / 4], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("prediction", "value"),
    [
        ("", 0.0),
        ("7", 1 / 60 + 1 + 1),
        ("yes", 1 / 60 + 1),
        ("It is (B)", 3 / 60 + 1 + 1),
        ("It is (K)", 3 / 60 + 1),
        ("So the answer is:", 4 / 60 + 1 + 1),
        ("Answer: no\nbut then", 4 / 60 + 1),
        ("#### seven", 2 / 60 + 1 + 1),
        ("####" + "x" * 196, 1 / 60 + 1 + 1),
        ("####" + "x" * 197, 1 / 60 + 1),  # only so much of the last line is looked at
        ("we add the", 3 / 60 + 0),  # a run of the question
        ("WE ADD THE", 3 / 60 + 0),
        ("shall we add", 3 / 60 + 0),
        ("So the answer is: 4\n\n", 5 / 60 + 1 + 1 + 1),
        ("so so so so so", 5 / 60 + 1 / 3),
        (" ".join(f"w{i}" for i in range(80)), 1 + 1 + 1),
    ],
)
def test_the_rule_adds_its_four_numbers(prediction, value):
    assert rule_value("Shall we add the apples?", prediction) == pytest.approx(value)


def suite(**rows):
    found, values = [], []
    for form, own in rows.items():
        for name, (text, value) in own.items():
            found.append({"id": name, "form": form, "question": "Q?", "prediction": text})
            values.append(value)
    return found, np.array(values, dtype=float)


def test_forms_are_compared_question_by_question_with_ties_as_halves(monkeypatch):
    worked = "First we take four of them away.\nThe answer is 7."
    rows, value = suite(
        worked={"a": (worked, 3), "b": (worked, 3), "c": (worked, 3)},
        talk={"a": ("hm", 1), "b": ("hm", 3), "c": ("hm", 4)},
        bare_right={"a": ("7", 2), "b": ("7", 0)},
        bare_wrong={"a": ("8", 1)},
        strange={"d": ("?", 0)},
    )
    flags = [True, False, None, *[True] * (len(rows) - 3)]
    found = degenerate_evidence(Scored(rows, "f", value, flags, [True, *[False] * (len(rows) - 1)]), 50)
    assert (found["field"], found["rule"], found["n_questions"], found["n_seen"]) == ("f", RULE, 4, 1)
    forms = found["forms"]
    assert set(forms) == {"worked", "talk", "bare_right", "bare_wrong"}, "strange has no worked solution beside it"
    assert forms["worked"] == {"unfamiliar": 0.5}
    assert (forms["talk"]["upper"], forms["talk"]["lower"], forms["talk"]["n"]) == ("worked", "talk", 3)
    assert forms["talk"]["above"]["value"] == 0.5 and forms["talk"]["rule"]["value"] == 1.0
    assert forms["talk"]["solved_by_rule"] is True
    assert forms["bare_right"]["lower"] == AGAINST["bare_right"] == "bare_wrong" and forms["bare_right"]["n"] == 1
    assert forms["bare_right"]["above"]["value"] == 1.0 and forms["bare_right"]["rule"]["value"] == 0.5
    assert forms["bare_right"]["solved_by_rule"] is False and forms["bare_wrong"]["unfamiliar"] == 1.0
    monkeypatch.setattr(degenerate, "SOLVED", 1.0)  # at it is enough
    whole = degenerate_evidence(Scored(rows, "f", value, flags, [None] * len(rows)), 5)
    assert whole["forms"]["talk"]["solved_by_rule"] is True and whole["n_seen"] is None
    with pytest.raises(DataFileError, match="expects one talk of each question, but 'a' has two"):
        degenerate_evidence(Scored([*rows, rows[3]], "f", np.zeros(len(rows) + 1), [], []))
    with pytest.raises(DataFileError, match="worked right solutions and other forms"):
        degenerate_evidence(Scored(rows[:3], "f", value[:3], [None] * 3, [None] * 3))


def test_scores_are_matched_to_rows_by_their_texts():
    rows, value = suite(worked={"a": ("x", 1), "b": ("y", 2)})
    whole = Scored(rows, "f", value, [True, False], [None, True])
    found = matched_to(whole, rows[::-1])
    assert (found.rows, found.value.tolist()) == (rows[::-1], [2, 1])
    assert (found.unfamiliar, found.seen) == ([False, True], [True, None])
    with pytest.raises(DataFileError, match="lack worked of 'c'"):
        matched_to(whole, [rows[0] | {"prediction": "z", "id": "c"}])


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scored_rows_are_read_by_the_field_that_they_name(tmp_path, caplog):
    said = {"j_rank_by": "j_expected_x", "j_expected_x": "0.25", "j_unfamiliar": "True", "j_seen": None, "q": "?"}
    away = {**said, "j_abstained": True, "j_expected_x": None}
    path = written(tmp_path / "a.jsonl", said, {**said, "j_expected_x": 2, "j_unfamiliar": False, "j_seen": True}, away)
    found = read_scored([path], ("q",))
    assert (found.field, found.value.tolist()) == ("j_expected_x", [0.25, 2.0])
    assert (found.unfamiliar, found.seen) == ([True, False], [None, True])
    assert found.n_seen(["x", "y"]) == 1 and Scored([], "", found.value, [], [None, None]).n_seen(["x", "y"]) is None
    assert "1 of 3 rows are left out, since the judge abstains" in caplog.text
    caplog.clear()
    with pytest.raises(DataFileError, match="a number as 'j_expected_x', but row 2 has None"):
        read_scored([path], ("q",), keep_abstained=True)
    assert without_abstained([said], "x", "j_") == [said] and not caplog.records
    other = [{"abstained": True, "x": 1}]  # a user's own column
    assert without_abstained(other, "x", "") == other
    with pytest.raises(DataFileError, match=r"expects q, other, but lacks 'other'"):
        read_entries([path], ("q", "other"))
    mixed = written(tmp_path / "b.jsonl", said, {**said, "j_rank_by": "j_other"})
    with pytest.raises(DataFileError, match="but got j_expected_x, j_other. Score them by"):
        read_scored([mixed], ())
    assert read_scored([mixed], (), "j_expected_x").value.tolist() == [0.25, 0.25]
    for nothing in (written(tmp_path / "c.jsonl", {"q": 1}), written(tmp_path / "d.jsonl")):
        with pytest.raises(DataFileError, match="but got (None|no rows)"):
            read_scored([nothing], ())
    broken = tmp_path / "e.jsonl"
    broken.write_text("{\n")
    with pytest.raises(DataFileError, match=r"e\.jsonl:1 expects a JSON object"):
        read_entries([broken], ())


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), (False, False), ("TRUE", True), ("false", False), ("", None), (None, None), (1, None)],
)
def test_flags_of_rows_are_read_as_they_are_or_as_text(value, flag):
    assert as_flag(value) is flag


def test_numbers_are_read_from_text_and_what_is_none_is_named():
    assert numbers([{"x": "1.5"}, {"x": 2}], "x", "here").tolist() == [1.5, 2.0]
    for wrong in (True, None, "NaN", "a", [1]):
        with pytest.raises(DataFileError, match="here expects a number as 'x', but row 1 has"):
            numbers([{"x": 1}, {"x": wrong}], "x", "here")


def test_a_question_only_probe_reads_other_questions_and_says_the_same_of_all_answers(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    answers = [
        {"question": f"Q{i}?", "prediction": f"p{sample}", "generator": "g", "correct": int(sample <= i % 3)}
        for i in range(12)
        for sample in range(1 + i % 4)
    ]
    path = written(tmp_path / "answers.jsonl", *answers)
    config = question_only.QuestionOnlyConfig((path,), "b", "r", (1, 2))
    share, n, questions = question_only._shares(config, {question_id("Q3?")})
    by_question = {}
    for row in answers:
        by_question.setdefault(question_id(row["question"]), []).append(row["correct"])
    names = [name for name in sorted(by_question) if name != question_id("Q3?")]
    assert list(questions) == names and all(question_id(text) == name for name, text in questions.items())
    assert share.tolist() == [np.mean(by_question[name]) for name in names]
    assert n.tolist() == [len(by_question[name]) for name in names] and n.dtype == np.float64
    told = {}

    def extract(asked):
        told["asked"] = asked

    def load(folder):
        told["folder"] = folder
        return SimpleNamespace(matrix=lambda one: np.full((3, 2), one.layer + (one.pooling == "last") / 2, np.float32))

    monkeypatch.setattr(question_only, "extract", extract)
    monkeypatch.setattr(question_only, "load_features", load)
    x = question_only._features({"a": "One?", "b": "Two?"}, config, tmp_path)
    assert x.dtype == np.float64 and x[0].tolist() == [1, 1, 1.5, 1.5, 2, 2, 2.5, 2.5]
    asked = told["asked"]
    assert (asked.backbone_id, asked.backbone_revision, asked.layers) == ("b", "r", (1, 2))
    assert (asked.poolings, asked.states, asked.readings) == (("mean", "last"), ("rms_normed",), ("question",))
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert rows == [{"id": "a", "question": "One?"}, {"id": "b", "question": "Two?"}]
    assert told["folder"] == tmp_path / "features"
    monkeypatch.setattr(question_only, "_features", lambda own, *_: np.arange(len(own), dtype=float)[:, None])
    monkeypatch.setattr(question_only, "ridge_values", lambda x, share, n, new: new[:, 0] * 10)
    new = [{"question": "Q3?"}, {"question": "Z?"}, {"question": "Q3?"}]
    assert question_only.question_values(new, config, tmp_path).tolist() == [110.0, 120.0, 110.0]
    assert "fitted on 11 questions" in caplog.text
    written(path, *[row for row in answers if row["question"] not in ("Q1?", "Q2?")])
    assert len(question_only.question_values([{"question": "Z?"}], config, tmp_path)) == 1, "of ten others"
    with pytest.raises(DataFileError, match="10 or more questions other than .* but got 9"):
        question_only.question_values(new, config, tmp_path)


def test_rows_are_judged_by_the_field_that_the_judge_ranks_by(monkeypatch):
    class Judge:
        model = SimpleNamespace(config="config")

        def __call__(self, pairs):
            self.pairs = pairs
            return [{"x": len(pair["question"]), "unfamiliar": None, "seen": pair["question"] == "Q"} for pair in pairs]

    judge = Judge()
    monkeypatch.setattr(scored_rows, "rank_field", lambda config, rank_by: (config, rank_by))
    monkeypatch.setattr(scored_rows, "ranked_value", lambda result, field: result["x"])
    turns = [{"role": "user", "content": "Q"}]
    rows = ({"question": "Q", "prediction": "p", "more": 1}, {"question": "long", "question_turns": turns})
    found = scored_rows.judged(judge, rows, "x")
    assert judge.pairs == [
        {"question": "Q", "prediction": "p"},
        {"question": "long", "prediction": None, "question_turns": turns},
    ]
    assert (found.rows, found.field, found.value.tolist()) == (list(rows), ("config", "x"), [1.0, 4.0])
    assert found.value.dtype == np.float64 and (found.unfamiliar, found.seen) == ([None, None], [True, False])
    assert scored_rows.pair_of({"question": "Q", "question_turns": []}, ("question",)) == {"question": "Q"}
    names = ["id", "rank_by", "expected_a", "b_total_score", "c_rank_by", "c_expected_x", "c_total_score"]
    assert scored_rows.judge_prefixes(names) == ["", "c_"]


def test_texts_are_found_under_other_names_and_files_of_a_judge_are_named(tmp_path):
    plain = [{"question": "Q?", "prediction": "p"}]
    assert as_pairs(plain, {}, "x", keys=("question", "prediction")) is plain
    (found,) = as_pairs([{"prompt": "Q?", "response": "p", "id": 1}], {}, "x", keys=("question", "prediction"))
    assert (found["question"], found["prediction"], found["id"]) == ("Q?", "p", 1)
    path = written(tmp_path / "part.jsonl", *plain)
    judge = tmp_path / "judge"
    judge.mkdir()
    (judge / "config.json").write_text("{}")
    assert input_files([path], None) == [path]
    assert input_files([path], str(judge)) == [path, judge / "config.json"]
    (tmp_path / "rows").mkdir()
    part = written(tmp_path / "rows" / "a.jsonl", *plain)
    assert input_files([tmp_path / "rows"], None) == [part]
