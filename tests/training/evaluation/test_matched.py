"""Evidence of answers to one question; and leaks between training and test rows, each of which would show here."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.evaluation.crossval import CrossValidation
from inspector_training.evaluation.matched import (
    Decisions,
    compared_answers,
    generator_groups,
    generators_of,
    matched_evidence,
    new_generators,
    without_generators,
)
from inspector_training.evaluation.metrics import UNSET, Predictions
from inspector_training.probing.kernels import Design
from inspector_training.probing.search import fit_judge, search
from inspector_training.probing.settings import SearchConfig
from inspector_training.probing.table import Labels, question_folds, question_names
from inspector_training.rows.records import LabelledPair
from inspector_training.stages.evaluate import Config, evaluate, report
from support.made_up import make_features, planted

from hub_cards.measured import answers_lines

GENERATORS = ("a", "b", "c", "d")
SEARCH = SearchConfig(poolings=(("last",),), depths=(2, 4), sharings=(0.0,), heads=(), inner_folds=3)
COLUMNS = ("correctness", "good_correctness", "question")
CONFIG = Config(
    ("features",), "out.json", SEARCH, folds=4, repeats=1, bootstraps=40, learning_curve=(), generator_groups=2
)


def answered(n=40, seed=0, *, auxiliary=False):
    """Every question is answered by each generator, half of them right."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        for label, generator in zip(rng.permutation([0, 0, 1, 1]), GENERATORS, strict=True):
            pairs.append(LabelledPair(f"q{i}", f"What is {i}?", "x", {"correctness": int(label)}, generator=generator))
        if auxiliary:
            pairs.append(LabelledPair(f"q{i}", f"What is {i}?", "damaged", {"correctness": i % 2}, auxiliary=True))
    return pairs


def test_same_question_and_auroc_of_known_values():
    good = np.array([True, False, True, False, True, False])
    question = np.array(["a", "a", "b", "b", "b", "b"])
    found = Decisions(good, np.array([1.0, 2.0, 5.0, 3.0, 3.0, 0.0]), question, 50, 0)
    assert found.intervals()["same_question"]["value"] == pytest.approx((0 + 1 + 1 + 0.5 + 1) / 5)
    assert found.surest(0.2) == 1 and found.surest(1.0) == pytest.approx(3.5 / 5)
    better = Decisions(good, good.astype(float), question, 50, 0)
    assert better.gains(found)["same_question"]["value"] == pytest.approx(0.3)
    assert found.gains(found)["auroc"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_signal_within_questions_is_found_for_generators_that_no_fit_saw(tmp_path):
    pairs = answered()
    labels = np.array([pair.scores["correctness"] for pair in pairs])
    noise = np.random.default_rng(1).normal(size=len(pairs))
    results = evaluate(planted(tmp_path, pairs, 3 * labels + noise), CONFIG)
    found = results["matched"]["correctness"]
    assert (found["n_rows"], found["n_questions"], found["n_generators"]) == (160, 40, 4)
    assert found["same_question"]["value"] > 0.9 and found["surest"]["0.1"] > 0.97
    assert found["gain_over_length"]["same_question"]["low"] > 0.2
    new = found["unseen_generators"]
    assert new["n_rows"] == 160 and new["auroc"]["value"] > 0.9 and new["difference"]["auroc"]["low"] <= 0.02
    between = found["between_generators"]
    assert between["generators_unseen"] and between["n_generators"] == 4 and between["slope"]["low"] > 0.3
    assert between["sd"]["low"] == 0 and set(between["by_generator"]) == set(GENERATORS)
    assert set(found["by_generator"]) == set(GENERATORS) and "generators never seen" in report(results)


def test_folds_without_generators_hold_out_questions_and_generators():
    pairs = answered(12, auxiliary=True)
    labels = Labels.of(pairs)
    generators = generators_of(labels, pairs)
    groups = generator_groups(generators, 2, 0)
    assert sorted(sum(groups, [])) == list(GENERATORS) and generator_groups(generators, 9, 0) == []
    divided = [replace(fold, repeat=3) for fold in CrossValidation(labels, 3, 0).divided]
    folds = without_generators(divided, generators, [*groups, ["nobody"]])
    assert [(fold.repeat, fold.number, fold.others) for fold in folds] == [(0, number, None) for number in range(6)]
    held_out = []
    for fold in folds:
        assert not set(fold.train.question) & set(fold.test.question)
        assert not (set(generators[fold.train.row]) & set(generators[fold.test.row]))
        held_out += fold.test.row.tolist()
    assert sorted(held_out) == np.flatnonzero(~labels.auxiliary).tolist()


def test_methods_are_compared_on_answers_by_seen_and_unseen_generators():
    pairs = answered(12)
    labels = Labels.of(pairs)
    generators = generators_of(labels, pairs)
    groups = [["a", "b"], ["c"]]
    folds = CrossValidation(labels, 3, 0, generators=generators, left_out=groups).divided
    assert [sorted(set(GENERATORS) - set(generators[fold.train.row])) for fold in folds] == [
        ["a", "b"],
        ["c"],
        ["a", "b"],
    ]
    assert sorted(row for fold in folds for row in fold.test.row) == list(range(len(pairs)))
    is_new = new_generators(folds, generators)
    assert is_new.sum() == sum(
        np.isin(generators[f.test.row], g).sum() for f, g in zip(folds, [*groups, groups[0]], strict=True)
    )
    assert not new_generators(CrossValidation(labels, 3, 0).divided, generators).any()
    right = labels.score.astype(float)
    perfect, half, none = (
        Predictions(v[None], v[None], v[None], s[None])
        for v, s in (
            (right, labels.score),
            (np.where(is_new, 0.5, right), labels.score),
            (right, np.where(is_new, UNSET, labels.score)),
        )
    )
    parts = compared_answers({"judge": perfect, "half": half, "none": none}, labels, generators, is_new, "judge", 20, 0)
    found = parts["correctness"]
    assert found["all"]["judge"]["n_rows"] == 48 and "gain_of_judge" not in found["all"]["judge"]
    assert (
        found["seen"]["half"]["auroc"]["value"] == 1 and found["seen"]["half"]["gain_of_judge"]["auroc"]["value"] == 0
    )
    unseen = found["unseen"]["half"]
    assert unseen["same_question"]["value"] == 0.5 and unseen["gain_of_judge"]["same_question"]["value"] == 0.5
    assert "none" not in found["unseen"] and found["all"]["none"] == {**found["seen"]["none"]}
    lines = answers_lines(parts)
    assert any(
        line.startswith("| correctness | unseen | half | ") and "| +0.500 (+0.500 to +0.500) |" in line
        for line in lines
    )
    assert answers_lines({}) == []
    figure = {"value": 0.5, "low": 0.25, "high": 0.75}
    undefined = {"value": None, "low": None, "high": None}
    own = {"n_rows": 7, "auroc": figure, "same_question": figure}
    gain = {"auroc": {"value": -0.5, "low": -1.0, "high": 0.0}, "same_question": undefined}
    methods = {"none": {**own, "auroc": undefined, "gain_of_judge": gain}, "judge": own}
    rows = answers_lines({"a": {"all": methods}})[2:]
    assert rows == [
        "| a | all | judge | 7 | 0.500 (0.250 to 0.750) | 0.500 (0.250 to 0.750) | the judge | the judge |",
        "| a | all | none | 7 | not defined | 0.500 (0.250 to 0.750) | -0.500 (-1.000 to +0.000) | not defined |",
    ]


def test_rows_of_one_question_by_one_generator_have_no_matched_evidence():
    pairs = answered(10)[::4]
    labels = Labels.of(pairs)
    blank = Predictions.blank(1, len(labels.score))
    assert matched_evidence({"judge": blank}, labels, generators_of(labels, pairs), 5, 0) == {}


@pytest.mark.parametrize("auxiliary", [True, False])
def test_labels_drawn_by_question_cannot_be_told_of_unseen_questions(tmp_path, auxiliary):
    """A question's rows on both sides, or damaged rows of a held-out question, would give AUROC 1.

    Features have twice as many dimensions as there are questions, so that a probe can learn each one's label by heart.
    """
    rng = np.random.default_rng(2)
    pairs, values = [], []
    for i in range(120):
        label, name = int(rng.integers(0, 2)), rng.normal(size=240)
        for sample in range(3):
            # One text under two ids is one question; damaged rows carry the label of the others.
            damaged = auxiliary and sample == 2
            pairs.append(
                LabelledPair(
                    f"{'a' if sample else 'b'}{i}",
                    f"What is {i}?",
                    f"{sample}",
                    {"correctness": label},
                    sample=sample,
                    generator=GENERATORS[sample],
                    auxiliary=damaged,
                )
            )
            values.append(name)
    features = make_features(tmp_path, pairs, layers=(0, 1, 2), poolings=("last",))
    features.__dict__["matrix"] = lambda feature: np.array(values, dtype=np.float32)
    search_of = replace(SEARCH, depths=(2,), penalties=(0.01,), auxiliary_weights=(1.0,) if auxiliary else ())
    found = evaluate(features, replace(CONFIG, search=search_of, folds=6, generator_groups=0))
    interval = found["aspects"]["correctness"]["auroc"]
    assert abs(interval["value"] - 0.5) < 0.12


@pytest.mark.parametrize("scaling", ["none", "standard", "whiten"])
def test_nothing_of_a_fit_depends_on_held_out_rows(tmp_path, scaling):
    """Whitening, centres, cuts or a choice of layers that saw them would move it."""
    pairs = answered(24, auxiliary=True)
    labels = Labels.of(pairs)
    fit_rows, out_rows = next(iter(question_folds(labels, 3, 0)))
    train = labels.take(fit_rows)
    config = replace(SEARCH, scalings=(scaling,), auxiliary_weights=(0.3,))
    kept = np.isin(labels.question, train.question)
    found = []
    for shift in (0.0, 50.0):
        features = make_features(tmp_path / str(shift), pairs, signal=0.5, poolings=("last",))
        read = features.matrix
        moved = np.where(np.isin(np.arange(len(pairs)), labels.pair[kept]), 0.0, shift)
        features.__dict__["matrix"] = lambda one, read=read, moved=moved: read(one) + moved[:, None].astype(np.float32)
        changed = [p if keep else replace(p, scores={"correctness": 1}) for p, keep in zip(pairs, kept, strict=True)]
        design = Design(features, Labels.of(pairs if not shift else changed))
        choice = search(design, train, config)
        judge = fit_judge(design, train, choice, config)
        found.append((choice, judge.probe(design, 0), judge.calibrations[0]))
    (one, probe, calibration), (other, probe2, calibration2) = found
    assert one == other
    for mine, theirs in zip((*probe, calibration.cuts), (*probe2, calibration2.cuts), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)


def test_what_shares_text_or_id_is_one_question():
    pairs = [
        LabelledPair("1", "A?", ""),
        LabelledPair("2", " a? ", ""),
        LabelledPair("2", "shuffled", ""),
        LabelledPair("3", "C?", ""),
        LabelledPair("4", "c?", ""),
        LabelledPair("5", "E?", ""),
    ]
    assert question_names(pairs) == ["1", "1", "1", "3", "3", "5"]


def test_out_of_fold_rows_are_of_fits_that_saw_neither_question_nor_generator(tmp_path):
    pairs, others = (
        answered(12),
        [replace(pair, id=f"new {pair.id}", question=f"New {pair.id}?") for pair in answered(6)],
    )
    values = [pair.scores["correctness"] for pair in pairs]
    features = planted(tmp_path / "own", pairs, values)
    transfer = make_features(tmp_path / "new", others, layers=(0, 1, 2, 3, 4), poolings=("last",))
    rows = []
    results = evaluate(features, CONFIG, transfer={"new": transfer}, out_of_fold=rows)
    assert len(rows) == len(pairs) + len(others) and all(row["generator_unseen"] for row in rows)
    assert [row["set"] for row in rows] == ["fitted"] * len(pairs) + ["new"] * len(others)
    assert [(row["id"], row["correctness"]) for row in rows] == [
        (p.id, p.scores["correctness"]) for p in pairs + others
    ]
    assert rows[0].keys() >= {"question", "prediction", "generator", "expected_correctness", "good_correctness"}
    of_generator = results["matched"]["correctness"]["unseen_generators"]
    good, value, question = (np.array([row[k] for row in rows[: len(pairs)]]) for k in COLUMNS)
    assert Decisions(good > 0, value, question, 5, 0).intervals()["auroc"]["value"] == of_generator["auroc"]["value"]
    once = []
    evaluate(features, replace(CONFIG, generator_groups=0), out_of_fold=once)
    assert len(once) == len(pairs) and not any(row["generator_unseen"] for row in once)
    assert [row["good_correctness"] for row in once] != [row["good_correctness"] for row in rows[: len(pairs)]]


def test_folds_without_generators_ask_for_rows_of_other_sets_too():
    pairs = answered(8) + [replace(pair, question=f"New {pair.id}?", auxiliary=True) for pair in answered(4)]
    labels = Labels.of(pairs, ())
    others = np.arange(len(labels.score)) >= 32
    folds = CrossValidation(labels, 4, 0, 1, others).divided
    generators = generators_of(labels, pairs)
    asked = []
    for fold in without_generators(folds, generators, [["a", "b"], ["c", "d"]]):
        trained = set(generators[fold.train.row])
        for rows in fold.asked:
            assert not trained & set(generators[rows.row])
            assert not {*fold.train.question} & {*rows.question}
            asked += rows.row.tolist()
    assert sorted(asked) == list(range(48))
