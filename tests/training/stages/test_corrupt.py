"""Damaged gold solutions: each damage does what it says, nothing else, and the same in every run."""

import json
import logging
import random
import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.corruptions.arithmetic import exact
from inspector_training.corruptions.damage import ASPECTS, DAMAGES, LABELS, WEIGHTS, corrupted_rows, damaged_row
from inspector_training.corruptions.rationale import (
    Source,
    equalities,
    equations,
    evaluate,
    plain,
    read_rationale,
    replace_values,
    values,
)
from inspector_training.rows.answers import mentions
from inspector_training.rows.correctness import judge_answer
from inspector_training.rows.records import labelled_pairs, read_records, write_records
from inspector_training.stages.corrupt import Config as CorruptConfig
from inspector_training.stages.corrupt import run as corrupt

from inspector_pipeline.errors import DataFileError

CLIPS = {
    "id": "clips",
    "question": "Nat sold clips to 46 friends in April, half as many in May, and 37 in June. How many in all?",
    "answer": "Nat sold 46/2 = <<46/2=23>>23 clips in May.\nIn both months Nat sold 46+23 = <<46+23=69>>69 clips.\n"
    "With those of June Nat sold 69+37 = <<69+37=106>>106 clips altogether.\n#### 106",
}
CAKES = {
    "id": "cakes",
    "question": "A cake costs $13. Lou buys 5 cakes and pays with $80. How much change does Lou get?",
    "answer": "The cakes cost 5 * $13 = $65 together.\nSo Lou gets $80 - $65 = $15 in change.\n#### 15",
}
MATH = {
    "id": "math",
    "question": "Find the sum of the roots of $x^2 - 5x + 6$.",
    "answer": "We factor the polynomial into the product $(x-2)(x-3)$.\n"
    "The roots are therefore the numbers $2$ and $3$.\n"
    "By adding both of them we find the sum $\\boxed{5}$.",
}
FEW = [CLIPS, CAKES, MATH]
seeds = st.integers(0, 10**6)
times = settings(max_examples=60, deadline=None)


def source(question, donor=CAKES):
    return Source(question["question"], read_rationale(question), read_rationale(donor))


def damaged(question, kind, degree, seed):
    return DAMAGES[kind](source(question, MATH), degree, random.Random(seed))


def held(lines):
    """Whether each equation of a text holds, those aside that no reader could check."""
    return [holds for line in lines for holds in equalities(line) if holds is not None]


def plain_lines(question):
    return [plain(line) for line in read_rationale(question).lines]


def test_the_table_covers_every_kind_and_says_why():
    assert {kind for kind, _ in LABELS} == set(DAMAGES)
    assert set(DAMAGES) >= set(WEIGHTS)
    for (kind, _), labels in LABELS.items():
        assert labels.reason
        assert set(labels.scores) == set(ASPECTS)
        assert labels.scores["correctness"] in (0, 1)
        assert all(score in (None, 1, 2, 3, 4, 5) for name, score in labels.scores.items() if name != "correctness")
        assert kind == "clean" or any(score != 5 for score in list(labels.scores.values())[:5] if score)


def test_more_damage_never_means_a_better_label():
    assert list(LABELS) == sorted(LABELS, key=lambda name: (list(DAMAGES).index(name[0]), name[1]))
    for kind in DAMAGES:
        for aspect in ASPECTS:
            scores = [labels.scores[aspect] for (name, _), labels in LABELS.items() if name == kind]
            known = [score for score in scores if score is not None]
            assert known == sorted(known, reverse=True)


def test_marks_leave_the_text_and_say_where_the_equations_are():
    assert plain("48/2 = <<48/2=24>>24 clips") == "48/2 = 24 clips"
    assert [(e.left, e.result) for e in equations("48/2 = <<48/2=24>>24 and <<3=3>>3")] == [("48/2", 24), ("3", 3)]
    assert [e.computes for e in equations("48/2 = <<48/2=24>>24 and <<3=3>>3")] == [True, False]


def test_equations_without_marks_are_found():
    found = [equations(line) for line in read_rationale(CAKES).lines]
    assert [[(e.left, e.result) for e in line] for line in found] == [[("5*13", 65)], [("80-65", 15)]]
    assert plain_lines(CAKES) == CAKES["answer"].split("\n")[:2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * (3 + 4)", 14),
        ("1,200 / 8", 150),
        ("$5 x 3", 15),
        ("20% * 50", 10),
        (".5*3", Fraction(3, 2)),
        ("18 feet / 3", 6),
        ("8 – 2", 6),
        ("3 seconds/story x 20 stories", 60),
        ("1/0", None),
        ("x + 2", None),
        ("2 **", None),
        ("", None),
    ],
)
def test_plain_arithmetic_is_evaluated_exactly(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("He has 2*23-4 = 46-4 = 42 balls.", (True, True)),
        ("So 48/2 = 25.", (False,)),
        ("20 stories x 3 seconds/story = 60 seconds", (True,)),
        ("Total cost = 12", (None,)),
        ("There are 28 legs because 16 plus 12 equals 28.", (True,)),
        ("8/16 x 100 = 50%", (True,)),
        ("8/16 = 5000", (False,)),
    ],
)
def test_equations_of_a_text_are_checked(line, found):
    assert equalities(line) == found


def test_values_are_replaced_in_the_style_of_the_text():
    changes = {Fraction(1200): Fraction(1300), Fraction(5, 2): Fraction(3)}
    assert replace_values("$1,200 and 1200 at 2.50, 12000 or 2.5", changes) == "$1,300 and 1300 at 3.00, 12000 or 3"


@times
@given(seeds, st.sampled_from([1, 2, 3]), st.sampled_from([CLIPS, CAKES]))
def test_a_slip_makes_exactly_one_equation_wrong(seed, degree, question):
    found = damaged(question, "arithmetic_slip", degree, seed)
    before = plain_lines(question)
    assert held(found.lines).count(False) == 1
    assert sum(a != b for a, b in zip(before, found.lines, strict=True)) == 1
    assert found.final == read_rationale(question).final


@times
@given(seeds, st.sampled_from([1, 2, 3]), st.sampled_from([CLIPS, CAKES]))
def test_a_carried_slip_is_followed_to_the_answer(seed, degree, question):
    found = damaged(question, "arithmetic_slip_carried", degree, seed)
    assert held(found.lines).count(False) == 1  # the slip itself; all that follows uses its value
    slipped = [False in equalities(line) for line in found.lines].index(True)
    before = plain_lines(question)
    assert list(found.lines[:slipped]) == before[:slipped]
    assert all(a != b for a, b in zip(before[slipped:], found.lines[slipped:], strict=True))
    assert evaluate(found.final) in values(found.lines[-1])
    assert judge_answer(f"The answer is {found.final}.", read_rationale(question).final).score == 0


@times
@given(seeds, st.sampled_from([1, 2, 3]), st.sampled_from([CLIPS, CAKES]))
def test_contradicted_givens_leave_the_arithmetic_right(seed, degree, question):
    found = damaged(question, "contradicted_given", degree, seed)
    assert all(held(found.lines))
    contradicted = {Fraction(old) for old in re.findall(r"(\d+) -> ", found.detail)}
    assert len(contradicted) == (2 if degree == 3 else 1) and contradicted <= values(question["question"])
    used = values(" ".join(line.partition("=")[0] for line in found.lines))  # a result may be one of them by chance
    assert not contradicted & used
    assert evaluate(found.final) != evaluate(read_rationale(question).final)


@times
@given(seeds, st.sampled_from([1, 2, 3]))
def test_invented_facts_are_added_and_nothing_else(seed, degree):
    found = damaged(CLIPS, "invented_fact", degree, seed)
    before = plain_lines(CLIPS)
    assert [line for line in found.lines if line in before] == before
    assert len(found.lines) - len(before) == (2 if degree == 2 else 1)
    new = values(" ".join(found.lines)) - values(" ".join(before))
    assert new
    assert not new & values(CLIPS["question"])
    assert (found.final == "106") == (degree < 3)
    assert all(held(found.lines))


@times
@given(seeds, st.sampled_from([1, 2]))
def test_dropped_steps_are_missed_by_later_ones(seed, degree):
    found = damaged(CLIPS, "dropped_step", degree, seed)
    before = plain_lines(CLIPS)
    assert len(found.lines) == len(before) - degree
    assert [line for line in before if line in found.lines] == list(found.lines)
    assert found.lines[-1] == before[-1]
    assert damaged(CLIPS, "dropped_step", 3, seed) is None


@times
@given(seeds, st.sampled_from([1, 2, 3]))
def test_reordered_steps_are_the_same_steps(seed, degree):
    found = damaged(CLIPS, "reordered_steps", degree, seed)
    if found is not None:  # a shuffle may keep what depends in order
        assert Counter(found.lines) == Counter(plain_lines(CLIPS))
        assert list(found.lines) != plain_lines(CLIPS)
    assert found is not None or degree == 2
    assert damaged(MATH, "reordered_steps", degree, seed) is None


@times
@given(seeds, st.sampled_from(FEW))
def test_garbling_leaves_numbers_and_formulas_alone(seed, question):
    before = plain_lines(question)
    words = [damaged(question, "garbled_language", degree, seed) for degree in (1, 2, 3)]
    for found in filter(None, words):
        assert len(found.lines) == len(before)
        assert list(found.lines) != before
        for a, b in zip(before, found.lines, strict=True):
            assert [t for t in a.split() if not t[0].isalpha()] == [t for t in b.split() if not t[0].isalpha()]
    assert words[2] is not None
    if words[0] is not None:  # seldom no word gets a typo
        assert [len(line.split()) for line in words[0].lines] == [len(line.split()) for line in before]


@times
@given(seeds, st.sampled_from([1, 2, 3]))
def test_a_truncated_solution_never_comes_to_the_answer(seed, degree):
    found = damaged(CLIPS, "truncated", degree, seed)
    text = " ".join(found.lines)
    assert " ".join(plain_lines(CLIPS)).startswith(text)
    assert found.final is None
    assert not mentions(text, Fraction(106))


@pytest.mark.parametrize("kind", ["arithmetic_slip", "arithmetic_slip_carried", "contradicted_given"])
def test_algebra_and_inexact_arithmetic_get_no_slips(kind):
    algebra = {**CLIPS, "answer": "Let x be the price. 2x = 30 - 4\n2x = <<30-4=26>>26\nx = <<26/2=13>>13\n#### 13"}
    rounded = {**CLIPS, "answer": "It is 48/9 = <<48/9=5.33>>5.33.\nSo 5.33*2 = <<5.33*2=10.66>>10.66.\n#### 10.66"}
    assert not exact(read_rationale(rounded))
    for degree in (1, 2, 3):
        assert damaged(rounded, kind, degree, 0) is None
        assert kind == "arithmetic_slip" or damaged(algebra, kind, degree, 0) is None


def test_a_value_with_two_meanings_is_not_changed():
    twofold = {
        "id": 1,
        "question": "Each of 3 boxes holds 20 pens. Ann takes 40 of the pens and 20 pencils. How many things are left?",
        "answer": "There are 3*20 = <<3*20=60>>60 pens.\nAfter Ann there are 60-40 = <<60-40=20>>20 pens.\n"
        "With her 20 pencils Ann has 40+20 = <<40+20=60>>60 things, and 20 are left.\n#### 20",
    }
    for seed in range(20):
        for degree in (1, 2, 3):
            assert damaged(twofold, "arithmetic_slip_carried", degree, seed) is None


@given(seeds, st.sampled_from(list(DAMAGES)), st.sampled_from(FEW))
@times
def test_rows_carry_the_labels_of_their_damage(seed, kind, question):
    row = damaged_row(question, source(question, CLIPS if question is CAKES else CAKES), kind, seed)
    if row is None:
        assert kind != "clean"
        return
    degree = row["damage"]["degree"]
    assert row["generator"] == f"corrupt:{kind}:{degree}"
    assert row["scores"] == LABELS[kind, degree].scores
    assert row["auxiliary"] is True
    assert row["id"] == question["id"]
    assert "<<" not in row["prediction"]
    assert "answer" not in row
    assert (
        judge_answer(row["prediction"], read_rationale(question).final, question["question"]).score
        == (row["scores"]["correctness"])
    )


@given(seeds, st.permutations(FEW), st.integers(1, 3))
@times
def test_rows_depend_on_nothing_but_seed_id_and_kind(seed, order, number):
    def by_name(found):
        return {(row["id"], row["generator"]): row for row in found}

    every = by_name(corrupted_rows(FEW, 3, 5, seed)[0])
    some, _ = corrupted_rows(order, number, 5, seed)
    assert len({row["id"] for row in some}) == number
    assert all(every[name] == row for name, row in by_name(some).items())
    assert [row["sample"] for row in some] == [
        n for count in Counter(r["id"] for r in some).values() for n in range(count)
    ]


def test_the_stage_writes_rows_that_a_fit_can_read(tmp_path, caplog):
    write_records(FEW, tmp_path / "questions.jsonl")
    config = CorruptConfig(tmp_path / "questions.jsonl", tmp_path / "corrupted.jsonl", per_question=4)
    counts = corrupt(config)
    rows = read_records(config.output, ("id", "question", "prediction", "scores", "damage"))
    assert counts["clean:0"] == 3
    assert len(rows) == 12 == sum(n for name, n in counts.items() if not name.startswith("skipped"))
    assert all(pair.auxiliary for pair in labelled_pairs(rows))
    with caplog.at_level(logging.INFO):
        assert not corrupt(config)
    assert "already there" in caplog.text


def test_bad_input_is_refused(tmp_path):
    write_records([CLIPS, CLIPS], tmp_path / "twice.jsonl")
    write_records([{"id": 1, "question": "Why?"}], tmp_path / "none.jsonl")
    for name, message in (("twice", "names two"), ("none", "none has one")):
        with pytest.raises(DataFileError, match=message):
            corrupt(CorruptConfig(tmp_path / f"{name}.jsonl", tmp_path / "out.jsonl"))
    with pytest.raises(DataFileError, match="at least 1"):
        corrupt(CorruptConfig(tmp_path / "twice.jsonl", tmp_path / "out.jsonl", per_question=0))


@pytest.fixture(scope="module")
def gsm8k(data_dir):
    lines = (data_dir / "gsm8k_train.jsonl").read_text().splitlines()
    chosen = sorted(random.Random(5).sample(range(len(lines)), 150))
    return [{"id": i, **json.loads(lines[i])} for i in chosen]


def test_real_solutions_allow_slips(gsm8k):
    slips = ("arithmetic_slip", "arithmetic_slip_carried")
    allowed = [any(damaged_row(q, source(q), kind, 731) for kind in slips) for q in gsm8k]
    assert sum(allowed) >= 0.85 * len(gsm8k)  # the rest is algebra, or says its arithmetic in words only


def test_an_independent_reader_agrees_on_the_answers_of_real_solutions(gsm8k):
    rows, counts = corrupted_rows(gsm8k, 150, 5, 731)
    assert len(rows) >= 0.98 * 750
    assert {name.split(":")[0] for name in counts if not name.startswith("skipped")} == set(DAMAGES)
    golds = {question["id"]: read_rationale(question).final for question in gsm8k}
    for row in rows:
        verdict = judge_answer(row["prediction"], golds[row["id"]], row["question"])
        assert verdict.score == row["scores"]["correctness"], row["prediction"]
    texts = [(row["id"], row["prediction"]) for row in rows]
    assert len(set(texts)) == len(texts)
