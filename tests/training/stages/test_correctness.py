"""Labels from gold answers: what counts as the stated answer, when there is no label, and that rows meet by id."""

import json
import logging
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspector_training.rows.answers import (
    final_answer,
    find_numbers,
    last_boxed,
    mentions,
    number_value,
    stated_answer,
)
from inspector_training.rows.correctness import judge_answer, same_answer
from inspector_training.rows.records import question_id, write_records
from inspector_training.stages.correctness import Config as CorrectnessConfig
from inspector_training.stages.correctness import read_responses
from inspector_training.stages.correctness import run as label_correctness

from inspector_pipeline.errors import DataFileError

QUESTION = "Tim sells 30 necklaces. Each needs 10 charms of $15. How much profit does he make?"


def test_the_gold_answer_of_gsm8k_and_of_math():
    assert final_answer("48 + 24 = <<48+24=72>>72 clips.\n#### 72 ") == "72"
    assert final_answer("So $x=\\frac{1}{2}$, that is $\\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"
    assert final_answer("first \\boxed{1}, then \\boxed{\\text{even}}") == "\\text{even}"
    assert final_answer("72 clips") is None
    assert last_boxed("\\boxed{1 + {2}") is None


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("The answer is 42.", "42"),
        ("The answer is: **42**", "42"),
        ("the final answer is $\\boxed{42}$.", "42"),
        ("6 x 7 = 42\n#### 42", "42"),
        ("$18", "18"),
        ("18 dollars", "18"),
        ("She has $1,234.50 left.", "1234.5"),
        ("She pays $18.00 for the two books.", "18"),
        ("So half of it, 0.5, remains.", "1/2"),
        ("Therefore, 50% of the cards are left.", "50"),
        ("You need 3 1/2 cups.", "3.5"),
        ("It costs 2 million dollars.", "2000000"),
        ("So the temperature is -4 degrees.", "-4"),
        ("10 x $5 = $50\nSo, Tim makes a profit of $1500 if he sells 30 necklaces.", "1500"),
        ("$50 x 30 = $1500.\n\nSo he makes $1500 for 30 necklaces of 10 charms.", "1500"),
        ("He needs 4 packs (rounding up from 3.69).", "4"),
        ("Joel can swim:\n\n5 laps x 3 = 15 laps\n\nin the same time (5 minutes).", "15"),
        ("He earns $720 a week. Let me know if you have questions!", "720"),
        ("So David was on platform six.", "6"),
        ("$90 - $100 = -$10\nSo after 2 years, hers is $10 more.", "10"),
        ("The solution is $x = \\frac{2}{4}$.", "\\frac{1}{2}"),
        ("We get \\boxed{(3, \\frac{\\pi}{2})}", "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("I think the correct answer is (B) because of entropy.", "B"),
        ("**Answer: C**", "(C)"),
        ("D", "D"),
    ],
)
def test_right_answers_are_found_in_free_text(response, gold):
    verdict = judge_answer(response, gold, QUESTION)
    assert (verdict.score, verdict.reason) == (1, None)


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("The answer is 41.", "42"),
        ("6 x 7 = 42, and 42 - 1 = 41.\nSo she has 41.", "42"),
        ("So, Jasmine will eat dinner at 7:30 pm.", "7"),
        ("So she has 2.17 feet of snow.", "2"),
        ("\\boxed{\\frac{1}{3}}", "\\frac{1}{2}"),
        ("The answer is (A).", "B"),
    ],
)
def test_wrong_answers_are_wrong(response, gold):
    verdict = judge_answer(response, gold)
    assert (verdict.score, verdict.reason) == (0, None)


@pytest.mark.parametrize(
    "response",
    [
        "There are 8 cups or 2 pints, so 16 of them. Can you take it from here?",
        "She has 8 pens. He has 16. Is it 24 then?",
        "I don't know.",
    ],
)
def test_no_stated_answer_is_wrong_where_the_gold_answer_stands_nowhere(response):
    verdict = judge_answer(response, "96")
    assert verdict.score == 0
    assert "stands nowhere" in verdict.reason


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("She has 96 pens. Can you take it from here?", "96"),
        ("He earns $216 + $66x in all.", "216"),
        ("So it takes 3 payments (or 6 weeks).", "6"),
        ("They spend 3 hours and 5 minutes.", "185 + 0"),
        ("He sees 5 cats and 9 dogs.", "9"),
        ("I like none of the four.", "B"),
    ],
)
def test_no_label_where_it_is_not_certain(response, gold):
    verdict = judge_answer(response, gold)
    assert verdict.score is None
    assert verdict.reason


def test_a_cut_off_response_states_nothing():
    text = "She has 8 pens and 5 more, that is 13 pens. " * 30 + "Now she gives 5 of them to the"
    assert stated_answer(text) is None
    assert judge_answer(text, "5").score is None
    assert judge_answer(text, "6").score == 0


@given(
    st.integers(0, 10**7), st.sampled_from(["The answer is {}.", "#### {}", "\\boxed{{{}}}", "So there are {} in all."])
)
def test_every_whole_number_is_read_back(number, form):
    for text in (str(number), f"{number:,}", f"${number:,}.00"):
        assert number_value(stated_answer(form.format(text)).text) == number
        assert mentions(form.format(text), Fraction(number))


@given(st.text())
def test_any_text_can_be_read(text):
    found = find_numbers(text)
    assert all(0 <= number.start < number.end <= len(text) for number in found)
    stated_answer(text)


def test_equal_answers_are_equal_however_they_are_written():
    for gold, stated in (("1,200", "1200"), ("0.5", "1/2"), ("50%", "50"), ("$18", "18.00"), ("\\frac{3}{4}", "3/4")):
        assert same_answer(gold, stated)
    assert not same_answer("2", "2.17")


def rows(tmp_path, name, *found):
    write_records(found, tmp_path / name)
    return tmp_path / name


def test_rows_meet_their_questions_by_id_and_keep_what_they_have(tmp_path):
    questions = rows(
        tmp_path,
        "questions.jsonl",
        {"id": "b", "question": "What is 2 + 3?", "answer": "2+3=<<2+3=5>>5\n#### 5"},
        {"id": "a", "question": "What is 1 + 1?", "final_answer": "2"},
        {"id": "c", "question": "Why?", "answer": "Because."},
    )
    responses = rows(
        tmp_path,
        "responses.jsonl",
        {"id": "a", "question": "What is  1 + 1?", "prediction": "2.", "scores": {"fluency": 4}, "extra": [1]},
        {"id": "b", "question": "What is 2 + 3?", "prediction": "The answer is 6."},
        {"id": "b", "question": "What is 1 + 1?", "prediction": "2"},
        {"id": "z", "question": "What is 2 + 3?", "prediction": "5"},
        {"id": "b", "question": "What is 2 + 3?", "prediction": None, "error": "timeout"},
        {"id": "c", "question": "Why?", "prediction": "5", "reasons": {"fluency": "not asked"}},
    )
    config = CorrectnessConfig(responses, questions, tmp_path / "labelled.jsonl")
    label_correctness(config)
    found = read_responses(config.output)
    assert [row["scores"]["correctness"] for row in found] == [1, 0, None, None, None, None]
    assert found[0]["scores"]["fluency"] == 4
    assert found[0]["extra"] == [1]
    assert found[1]["stated_answer"] == "6"
    reasons = [row["reasons"].get("correctness", "") for row in found]
    for reason, said in zip(reasons[2:], ("another text", "no question", "no response", "no gold"), strict=True):
        assert said in reason
    assert found[5]["reasons"]["fluency"] == "not asked"


def test_a_finished_run_is_not_repeated_and_other_inputs_are(tmp_path, caplog):
    questions = rows(tmp_path, "questions.jsonl", {"id": 1, "question": "What is 1 + 1?", "final_answer": "2"})
    responses = rows(tmp_path, "responses.jsonl", {"id": 1, "question": "What is 1 + 1?", "prediction": "2"})
    config = CorrectnessConfig(responses, questions, tmp_path / "labelled.jsonl")
    assert label_correctness(config)["1"] == 1
    with caplog.at_level(logging.INFO):
        assert not label_correctness(config)
    assert "already there" in caplog.text
    rows(tmp_path, "questions.jsonl", {"id": 1, "question": "What is 1 + 1?", "final_answer": "3"})
    assert label_correctness(config)["0"] == 1


def test_responses_can_meet_by_the_questions_text(tmp_path):
    text = "What is 1 + 1?"
    questions = rows(tmp_path, "questions.jsonl", {"id": question_id(text), "question": text, "final_answer": "2"})
    responses = rows(tmp_path, "responses.jsonl", {"id": 7, "question": text, "prediction": "2"})
    by_text = CorrectnessConfig(responses, questions, tmp_path / "labelled.jsonl", join="question")
    assert label_correctness(by_text)["1"] == 1
    with pytest.raises(DataFileError, match="id or question"):
        label_correctness(CorrectnessConfig(responses, questions, tmp_path / "x.jsonl", join="position"))


def test_two_questions_with_one_id_are_refused(tmp_path):
    twice = ({"id": 1, "question": text, "final_answer": "2"} for text in ("What is 1 + 1?", "What is 4 / 2?"))
    questions = rows(tmp_path, "questions.jsonl", *twice)
    with pytest.raises(DataFileError, match="names two"):
        label_correctness(CorrectnessConfig(questions, questions, tmp_path / "labelled.jsonl"))


def test_the_published_probing_set(data_dir, tmp_path):
    lines = (data_dir / "gsm8k_train.jsonl").read_text().splitlines()
    questions = rows(tmp_path, "questions.jsonl", *({"id": i, **json.loads(line)} for i, line in enumerate(lines)))
    published = data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
    counts = label_correctness(CorrectnessConfig(published, questions, tmp_path / "labelled.jsonl"))
    assert counts["no question has this id"] == 40  # filler
    assert counts["1"] + counts["0"] > 0.98 * 811
    found = {row["id"]: row for row in read_responses(tmp_path / "labelled.jsonl")}
    # read by hand: math-verify alone takes the last number of these, 30, 13 and 80, or 3, 4 for those that are wrong
    assert [found[i]["scores"]["correctness"] for i in (6710, 946, 3321, 4668, 6954)] == [1, 1, 1, 0, 0]
    assert all(set(row["scores"]) > {"correctness"} for row in found.values())
