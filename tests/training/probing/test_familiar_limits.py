"""Limits of what is familiar by hand: how rows are held out, where a bound lies, what a threshold leaves."""

import numpy as np
import pytest
from inspector_training.probing.familiarity import (
    FEW_ROWS,
    MARGIN,
    Familiar,
    FamiliarityConfig,
    _by_generator,
    _flags,
    _folds,
    _HeldOut,
    _hold_out,
    _limit,
    _text_bounds,
    _Texts,
    _threshold,
    chosen_features,
    distances,
    fit_space,
)
from inspector_training.rows.records import LabelledPair

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.familiarity import STATISTICS, question_number, word_number
from inspector_pipeline.features import Feature


def texts(rows):
    return _Texts.of(
        [LabelledPair(i, question, answer, {"a": 1}, generator=name) for i, (question, answer, name) in enumerate(rows)]
    )


def test_words_count_once_a_row_and_are_known_from_two_questions_on():
    found = texts([("red red", "blue", "a"), ("red red", "blue", "b"), ("green", "blue", "a"), ("grey", "blue", "a")])
    assert (np.diff(found.words) > 0).all() and len(found.word) == len(found.row) == 8
    assert np.bincount(found.row).tolist() == [2, 2, 2, 2]
    assert found.known_words(np.ones(4, bool)).tolist() == [word_number("blue")]
    assert found.known_words(np.array([True, True, False, False])).tolist() == [], "one question, asked twice"
    assert found.known_words(np.array([True, False, True, False])).tolist() == [word_number("blue")]
    assert found.generator.tolist() == ["a", "b", "a", "a"]


def test_rows_are_held_out_with_neither_their_generator_nor_their_question():
    names = [name for name, n in (("a", 7), ("b", 5), ("c", 3), ("", 2)) for _ in range(n)]
    found = texts([(f"Question {i % 6}?", "x", name) for i, name in enumerate(names)])
    by, folds = _folds(found, 3)
    assert by.startswith("generators, each with questions") and len(folds) == 9
    held = np.zeros(len(names), int)
    group_of = {"a": 0, "b": 1, "c": 2, "": 0}  # the largest first, in turn
    for number, fitted_on, out in folds:
        assert {group_of[name] for name in found.generator[out]} <= {number}
        assert not {*found.generator[fitted_on]} & {*found.generator[out]}
        assert not {*found.question[fitted_on]} & {*found.question[out]}
        held += out
    assert held.tolist() == [1] * len(names)
    by, folds = _folds(texts([(f"Question {i}?", "x", "a") for i in range(9)]), 4)
    assert by == "questions, as there is one generator only" and [number for number, *_ in folds] == [0, 1, 2, 3]
    assert all((fitted_on == ~out).all() for _, fitted_on, out in folds)
    assert sum(out for _, _, out in folds).tolist() == [1] * 9


def test_generators_of_as_many_rows_are_dealt_out_by_their_names():
    names = [f"g{i:03}" for i in range(120)]
    _, folds = _folds(texts([("Q?" if i % 2 else "R?", "x", name) for i, name in enumerate(names)]), 7)
    held = {int(row): number for number, _, out in folds for row in np.flatnonzero(out)}
    assert held and all(number == row % 7 for row, number in held.items())


def test_of_many_rows_one_in_as_many_as_there_are_folds_is_held_out():
    rows = [(f"Question {i}?", "x", "ab"[i % 2]) for i in range(FEW_ROWS + 1)]
    assert len(_folds(texts(rows), 5)[1]) == 2 and len(_folds(texts(rows[:-1]), 5)[1]) == 4


def test_one_question_cannot_be_held_out():
    one = texts([("Question?", "x", "ab"[i % 2]) for i in range(6)])
    with pytest.raises(DataFileError, match="rows of more than one question to hold some out, but got 6 of one"):
        _hold_out(one, np.zeros((6, 2), np.float32), FamiliarityConfig(folds=2))
    numbers = [question_number(f"Question {i}?") % 2 for i in range(20)]
    assert {0, 1} == set(numbers)
    found = _hold_out(
        texts([(f"Question {i}?", "x", "a") for i in range(20)]),
        np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32),
        FamiliarityConfig(folds=2),
    )
    assert sorted(found.row.tolist()) == list(range(20)) and len(found.statistics) == len(found.distance) == 20
    assert [numbers[row] for row in found.row] == found.group.tolist()
    few = texts([(f"Question {i % 3}?", "x", "a") for i in range(9)])  # most of the folds are empty
    found = _hold_out(few, np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32), FamiliarityConfig(folds=99))
    assert sorted(found.row.tolist()) == list(range(9)) and len(set(found.group.tolist())) == 3
    states = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    found = _hold_out(texts([(f"Question {i}?", "x", "a") for i in range(3)]), states, FamiliarityConfig(folds=99))
    assert sorted(found.row.tolist()) == [0, 1, 2], "two rows are enough to fit on"


def test_a_limit_is_as_far_as_rows_of_one_group_go_beyond_the_others():
    values = np.concatenate([np.linspace(0, 1, 101), np.linspace(0, 1, 101), [3.0]])
    group = np.repeat([0, 1, 1], [101, 101, 1])
    limit, beyond = _limit(values, group, 0.1)
    spread = 0.9 - 0.5  # of the other group, up to its 90th percentile
    factor = MARGIN * (3.0 - 0.5) / spread
    middle, near = np.quantile(values, [0.5, 0.9])
    assert limit == pytest.approx(middle + factor * (near - middle)) and not beyond.any()
    # one in twice the number of limits may lie beyond half of the rate
    many = np.concatenate([np.tile(np.linspace(0, 1, 101), 20), [3.0]])
    groups = np.arange(len(many)) % 2
    assert int(0.2 / 2 / (2 * len(STATISTICS)) * len(many)) >= 1
    limit, beyond = _limit(many, groups, 0.2)
    assert np.flatnonzero(beyond).tolist() == [len(many) - 1] and limit < 1.2
    alone, _ = _limit(np.linspace(0, 1, 101), np.zeros(101), 0.1)
    assert alone == pytest.approx(0.5 + MARGIN * (1 - 0.5) / 0.4 * 0.4)
    flat, beyond = _limit(np.ones(10), np.arange(10) % 2, 0.01)
    assert flat == pytest.approx(1 + MARGIN * 0.05) and not beyond.any()


def held(**statistics):
    n = len(next(iter(statistics.values())))
    rows = [{name: values[i] for name, values in statistics.items() if values[i] is not None} for i in range(n)]
    return _HeldOut("so", np.arange(n), np.arange(n) % 2, np.zeros(n), rows)


def test_bounds_of_lengths_are_whole_and_shares_stay_within_nought_and_one():
    length, share = (
        next(name for name in STATISTICS if ("characters" in name) is is_length) for is_length in (True, False)
    )
    bounds, flags = _text_bounds(held(**{length: [100.0] * 20, share: [0.25] * 20}), 0.01)
    assert not flags.any()
    low, high = bounds[length]
    reach = MARGIN * 0.05
    assert (low, high) == (np.floor(100 * np.exp(-reach)), np.ceil(100 * np.exp(reach)))
    low, high = bounds[share]
    angle = np.arcsin(0.5)
    assert low == pytest.approx(np.sin(angle - reach) ** 2, abs=1e-4) and low <= np.sin(angle - reach) ** 2
    assert high == pytest.approx(np.sin(angle + reach) ** 2, abs=1e-4) and high >= np.sin(angle + reach) ** 2
    edges, _ = _text_bounds(held(**{length: [1.0] * 20, share: [0.0] * 20}), 0.01)
    assert edges[length] == (None, np.ceil(np.exp(reach))) and edges[share] == (
        None,
        pytest.approx(np.sin(reach) ** 2, abs=1e-4),
    )
    full, _ = _text_bounds(held(**{share: [1.0] * 20}), 0.01)
    assert list(full) == [share] and full[share][1] is None and 0.99 < full[share][0] < 1
    wide, _ = _text_bounds(held(**{share: [0.0, 1.0] * 10}), 0.01)
    assert wide == {}
    some, _ = _text_bounds(held(**{share: [0.25] * 10 + [None] * 10}), 0.01)
    assert some[share] == bounds[share]


@pytest.mark.parametrize(
    ("rate", "by_text", "expected"), [(0.1, 0, 9.0), (0.1, 1, 9.0), (0.2, 1, 8.0), (0.0, 0, 10.0), (0.3, 5, 5.0)]
)
def test_a_threshold_leaves_no_more_than_the_rate(rate, by_text, expected):
    flags = np.arange(10) >= 10 - by_text
    distance = np.arange(1.0, 11)
    assert _threshold(distance, flags, rate) == expected
    assert ((distance > expected) | flags).sum() <= max(rate * 10, by_text)


def test_flags_shares_and_a_config_are_told():
    bounds = {next(iter(STATISTICS)): (10.0, 20.0)}
    rows = [{next(iter(STATISTICS)): value} for value in (15.0, 9.0, 15.0)]
    assert _flags(bounds, 2.0, rows, np.array([2.0, 0.0, 2.1])).tolist() == [False, True, True]
    pairs = [LabelledPair(i, "Q", "x", {}, generator=name) for i, name in enumerate(["a", "a", "a", None])]
    assert _by_generator(pairs, np.array([True, False, False, True])) == {
        "": {"rows": 1, "unfamiliar": 1.0},
        "a": {"rows": 3, "unfamiliar": 0.3333},
    }
    tensors = {"basis": np.zeros((4, 3)), "words": np.arange(5)}
    found = Familiar([Feature("chat", 1, "last")], tensors, 2.5, bounds, {})
    assert found.config == {
        "features": [{"reading": "chat", "layer": 1, "pooling": "last", "state": "raw"}],
        "n_components": 3,
        "n_words": 5,
        "threshold": 2.5,
        "text": {next(iter(STATISTICS)): [10.0, 20.0]},
    }


def test_layers_are_evenly_spaced_of_the_reading_with_most_rows():
    class Some:
        rows = {"chat": np.arange(5), "other": np.arange(3)}

    read = [
        Feature(reading, layer, pooling)
        for reading in ("other", "chat")
        for layer in (9, 1, 3, 5, 7)
        for pooling in ("last", "response_mean")
    ]
    for n, layers in ((1, [1]), (2, [1, 9]), (3, [1, 5, 9]), (4, [1, 3, 7, 9]), (9, [1, 3, 5, 7, 9])):
        assert [one.layer for one in chosen_features(Some, read, n)] == layers
    assert {(one.reading, one.pooling) for one in chosen_features(Some, read, 3)} == {("chat", "response_mean")}
    last = [one for one in read if one.pooling == "last"] + [Feature("chat", 2, "last", "rms_normed")]
    assert {one.pooling for one in chosen_features(Some, last, 3)} == {"last"}


def test_few_rows_give_few_directions_and_scales_have_a_floor():
    x = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    assert fit_space(x, 64)["basis"].shape == (20, 2) and fit_space(x[:2], 64)["basis"].shape == (20, 1)
    assert fit_space(x, 1)["basis"].shape == (20, 1) and fit_space(x.T, 64)["basis"].shape == (6, 3)
    x[:, 0] = 5
    found = fit_space(x, 2)
    assert found["scale"][0] == pytest.approx(1e-3 * np.median(x.std(axis=0)), rel=1e-4)
    np.testing.assert_allclose(found["scale"][1:], x[:, 1:].std(axis=0), rtol=1e-4)
    assert {str(values.dtype) for values in found.values()} == {"float32"} and found["residual"].shape == (1,)
    same = fit_space(np.ones((5, 3), np.float32), 2)
    assert same["residual"][0] == pytest.approx(1e-18) and same["deviation"][0] == pytest.approx(1e-9)
    assert same["scale"].tolist() == [1.0] * 3 and (same["deviation"] > 0).all() and same["residual"][0] > 0
    assert distances({**found, "words": np.arange(3)}, x).shape == (6,)


def test_large_states_are_centred_in_double_precision_and_rounding_is_no_direction():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 3)) * [1, 2, 3] + 1e6).astype(np.float32)
    found, wide = fit_space(x, 1), x.astype(np.float64)
    np.testing.assert_allclose(found["scale"], wide.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["center"], wide.mean(axis=0), rtol=1e-7)
    one = np.outer(rng.normal(size=9), [1.0, 1, 1, 1]).astype(np.float32)  # of a single direction
    found = fit_space(one, 2)
    np.testing.assert_allclose(found["deviation"] ** 2, [4.0, 4e-6], rtol=1e-4)
    np.testing.assert_allclose(found["residual"], [4e-6], rtol=1e-4)
    assert np.abs(found["basis"][:, 0]) == pytest.approx(np.full(4, 0.5), abs=1e-5)
    assert distances(found, one).dtype == np.float64


def test_texts_of_no_words_have_none():
    none = texts([("?", "!", "a"), ("?!", "", "a")])
    assert none.words.dtype == none.question.dtype == np.int64 and len(none.words) == 0
    assert none.known_words(np.ones(2, bool)).tolist() == []
    alone = texts([("one two three", "four", "a"), ("one two three", "five", "b")])
    assert alone.known_words(np.ones(2, bool)).tolist() == [], "of one question"
    assert _Texts.of([]).known_words(np.empty(0, bool)).tolist() == []
    last = texts([("one", "x", "a"), ("two", "x", "b"), ("zzz", "y", "a")])
    assert last.known_words(np.array([True, True, False])).tolist() == [word_number("x")]
