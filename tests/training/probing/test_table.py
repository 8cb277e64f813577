"""Labels of all aspects are one table; folds keep questions whole; classes can be evened out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.probing.table import Labels, balanced, question_folds
from inspector_training.rows.records import LabelledPair
from support.made_up import make_pairs

from inspector_pipeline.errors import DataFileError


def rated(*labels, **changes):
    return [LabelledPair(i, f"Q{i}", "x", {"logic": label}, **changes) for i, label in enumerate(labels)]


def test_every_label_is_one_row_with_its_pair_question_and_weight():
    pairs = make_pairs(auxiliary=10)
    labels = Labels.of(pairs)
    assert labels.names == ("logic", "fluency", "correctness") and labels.counted == (True, True, False)
    found = {
        (labels.names[a], p, q, s, w, x)
        for a, p, q, s, w, x in zip(
            labels.aspect, labels.pair, labels.question, labels.score, labels.weight, labels.auxiliary, strict=True
        )
    }
    expected = {
        (name, i, pair.id, score, pair.weights.get(name, 1.0), pair.auxiliary)
        for i, pair in enumerate(pairs)
        for name, score in pair.scores.items()
    }
    assert found == expected and len(labels.row) == len(expected)
    assert labels.classes == ([2, 3, 4, 5], [2, 3, 4, 5], [0, 1])  # an auxiliary row's 1 is no class of logic
    good = labels.score >= np.where(labels.aspect == 2, 1, 4)
    np.testing.assert_array_equal(labels.positive, good)
    assert labels.groups() == [[0, 1], [2]]
    assert Labels.of(pairs, uncounted=labels.names).groups() == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([LabelledPair(1, "Q", "x")], "Expected labels, but none of 1 pairs"),
        (rated(4, 4), "two different labels of logic, but all are 4"),
        (rated(4, 2, weights={"logic": 0.0}), "weights expects numbers above 0, but question 0 has 0.0 for logic"),
        (rated(4, 2, weights={"logic": float("nan")}), "weights expects numbers above 0"),
        (rated(4, 2, weights={"logic": float("inf")}), "weights expects numbers above 0"),
    ],
)
def test_labels_that_nothing_can_be_fitted_to_are_refused(pairs, message):
    with pytest.raises(DataFileError, match=message):
        Labels.of(pairs)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 9999), st.integers(2, 6), st.integers(0, 30))
def test_folds_divide_no_question_and_hold_out_no_auxiliary_row(seed, folds, auxiliary):
    labels = Labels.of(make_pairs(30, seed, auxiliary=auxiliary))
    seen = []
    for fit_rows, out_rows in question_folds(labels, folds, seed):
        assert not set(labels.question[fit_rows]) & set(labels.question[out_rows])
        assert not labels.auxiliary[out_rows].any()
        left_out = np.setdiff1d(labels.row, np.concatenate([fit_rows, out_rows]))
        assert labels.auxiliary[left_out].all()
        assert set(labels.question[left_out]) <= set(labels.question[out_rows])
        seen += out_rows.tolist()
    assert sorted(seen) == np.flatnonzero(~labels.auxiliary).tolist()


def test_folds_have_like_shares_of_a_rare_aspects_labels():
    pairs = [LabelledPair(i, f"Q{i}", "x", {"common": 2 + i % 4}) for i in range(200)]
    for i in range(20):
        pairs[7 * i].scores["rare"] = 5 if i < 10 else 2
    labels = Labels.of(pairs)
    for seed in range(5):
        for _, out in question_folds(labels, 5, seed):
            rare = labels.score[out][labels.aspect[out] == labels.names.index("rare")]
            assert sorted(rare) == [2, 2, 5, 5]


def test_few_questions_are_divided_or_refused():
    labels = Labels.of(rated(2, 3, 4, 5, 2))  # no label occurs as often as there are folds
    assert [len(out) for _, out in question_folds(labels, 5, 0)] == [1] * 5
    with pytest.raises(DataFileError, match="at least 6 questions for 6 folds, but got 5"):
        list(question_folds(labels, 6, 0))
    pairs = [*rated(*[2, 4] * 10), *(LabelledPair("one", "Q", "x", {"rare": score}, sample=score) for score in (1, 5))]
    with pytest.raises(DataFileError, match="labels of rare for questions of more than one of 5 folds"):
        list(question_folds(Labels.of(pairs), 5, 0))


def test_class_weights_make_every_class_of_an_aspect_weigh_the_same():
    labels = Labels.of(make_pairs(80))
    before = labels.weight.copy()
    found = balanced(labels, "weights")
    np.testing.assert_array_equal(labels.weight, before)
    for a in range(3):
        own = labels.aspect == a
        masses = [found.weight[own & (labels.score == c)].sum() for c in labels.classes[a]]
        np.testing.assert_allclose(masses, labels.weight[own].sum() / len(masses))
    for row in (0, 50):
        alike = (labels.aspect == labels.aspect[row]) & (labels.score == labels.score[row])
        ratio = found.weight[alike] / labels.weight[alike]
        np.testing.assert_allclose(ratio, ratio[0])
    assert balanced(labels, "none") is labels
    even = balanced(replace(labels, weight=np.ones(len(labels.row))), "weights")
    shares = np.bincount(labels.score[labels.aspect == 0])[labels.score[labels.aspect == 0]]
    np.testing.assert_allclose(even.weight[labels.aspect == 0], (labels.aspect == 0).sum() / (4 * shares))


def test_downsampling_keeps_as_many_rows_of_each_class_as_the_rarest_has():
    labels = Labels.of(make_pairs(80))
    found = balanced(labels, "downsample")
    for a in range(3):
        counts = [((labels.aspect == a) & (labels.score == c)).sum() for c in labels.classes[a]]
        kept = [((found.aspect == a) & (found.score == c)).sum() for c in labels.classes[a]]
        assert kept == [min(counts)] * len(counts)
    assert set(found.row) <= set(labels.row) and (np.diff(found.row) > 0).all()
    np.testing.assert_array_equal(found.score, labels.score[found.row])
    np.testing.assert_array_equal(found.row, balanced(labels, "downsample").row)
