"""What is chosen and fitted: probes give the fits' values, and rows that are held out change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.features.store import FeatureSet
from inspector_training.probing.kernels import Design
from inspector_training.probing.search import Choice, auroc, fit_judge, held_out_values, search
from inspector_training.probing.settings import SearchConfig, Setting, View
from inspector_training.probing.table import Labels, question_folds
from sklearn.metrics import roc_auc_score
from support.made_up import make_features, make_pairs

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.features import Feature

SMALL = SearchConfig(poolings=(("response_mean", "last"),), depths=(1, 2), sharings=(0.0, 3.0), inner_folds=3)


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    pairs = make_pairs(50, auxiliary=12)
    return Design(make_features(tmp_path_factory.mktemp("search"), pairs, signal=0.4), Labels.of(pairs))


CASES = [
    *((head, "chat", "none", 3.0, "none", "all", True, 0.0) for head in ("ridge", "logistic", "svc", "ordinal")),
    *(
        ("ridge", reading, scaling, 1.0, "none", "all", True, 0.5)
        for reading in ("chat", "rubric")
        for scaling in ("none", "standard", "whiten")
    ),
    ("logistic", "rubric", "whiten", 0.0, "weights", "one", True, 0.0),
    ("ordinal", "chat", "standard", 3.0, "downsample", "all", True, 0.5),
    ("ridge", "chat", "none", 3.0, "weights", "one", False, 0.0),
    ("ridge", "rubric", "standard", 0.0, "none", "all", False, 0.5),
]


@pytest.mark.parametrize(("head", "reading", "scaling", "sharing", "balance", "layers", "bias", "auxiliary"), CASES)
def test_a_probe_gives_the_values_of_the_fit(design, head, reading, scaling, sharing, balance, layers, bias, auxiliary):
    view = View(reading, layers=layers, scaling=scaling)
    setting = Setting(head, 1.0, sharing, auxiliary)
    config = replace(SMALL, balance=balance, bias=bias)
    train = design.labels.take(np.flatnonzero(design.labels.question != "q3"))
    judge = fit_judge(design, train, Choice(view, 2, (setting, setting), {}, {}, {}), config)
    units = design.units(view, design.labels)
    values = judge.values(design, design.labels)
    x = design.stack(view, 2).astype(np.float64)
    for a in range(3):
        center, weight, bias_found = judge.probe(design, a)
        own = design.labels.aspect == a
        np.testing.assert_allclose((x[units[own]] - center) @ weight + bias_found, values[own], rtol=1e-6, atol=1e-6)
        if not bias:
            assert bias_found == 0 and not center.any()


@pytest.mark.parametrize(("scaling", "layers"), [("none", "all"), ("standard", "all"), ("whiten", "one")])
def test_a_check_is_one_feature_more_and_weighs_what_the_labels_say(tmp_path, scaling, layers):
    """Labels that only a wrong sum tells: the fit on noise finds its weight, and the probe gives the fit's values."""
    pairs = [
        replace(pair, prediction=f"{pair.prediction} 2 + 2 = {4 + i % 2}", scores={"logic": 4 - 2 * (i % 2)})
        for i, pair in enumerate(make_pairs(60, aspects=("logic",), samples=1)[:-1])
    ]
    data = make_features(tmp_path / "features", pairs)
    labels = Labels.of(data.pairs)
    design = Design(data, labels)
    view = View(poolings=("response_mean", "wrong_sums"), layers=layers, scaling=scaling)
    assert design.features(view, "logic", 2)[-1] == Feature("chat", 0, "wrong_sums", "raw")
    assert len(design.features(view, "logic", 2)) == (3 if layers == "all" else 2)
    x = design.stack(view, 2)
    np.testing.assert_array_equal(x[:, -data.hidden_size :], np.repeat([[0.0], [1.0]] * 30, data.hidden_size, axis=1))
    shallow, deep = (design.gram(replace(view, scaling="none"), depth) for depth in (1, 2))
    np.testing.assert_allclose(deep, x.astype(float) @ x.T.astype(float), rtol=1e-9)
    assert layers == "one" or (deep - shallow)[0, 1] == pytest.approx(
        float(np.dot(*design.block(view, *view.blocks(2)[1])[:2]))
    )
    judge = fit_judge(design, labels, Choice(view, 2, (Setting("ridge", 0.1, 0.0),), {}, {}, {}), SMALL)
    center, weight, bias = judge.probe(design, 0)
    np.testing.assert_allclose((x - center) @ weight + bias, judge.values(design, labels), rtol=1e-6, atol=1e-6)
    assert weight[-data.hidden_size :].sum() < -3, "a good label is 4 + 4 of the target, another 2"


def test_held_out_values_do_not_see_their_own_question(design):
    labels = design.labels.take(np.flatnonzero(~design.labels.auxiliary))
    ridge = Setting("ridge", 1.0, 3.0)
    (before,), rows = held_out_values(design, View(), 2, labels, [0, 1], [ridge], SMALL)
    own = labels.take(np.flatnonzero(labels.aspect < 2))
    out = next(iter(question_folds(own, SMALL.inner_folds, SMALL.seed)))[1]
    assert rows.row[out].tolist() == own.row[out].tolist()
    assert np.isfinite(before).all() and len(before) == len(own.row)


def noisy(features, rows):
    """Features of which some pairs' are changed beyond recognition."""
    noise = np.random.default_rng(1).normal(size=(len(features.pairs), 1)).astype(np.float32) * 50

    class Changed(FeatureSet):
        def matrix(self, feature):
            x = super().matrix(feature)
            x[rows] += noise[rows]
            return x

    return Changed(**vars(features))


@pytest.mark.parametrize("scaling", ["none", "standard", "whiten"])
def test_nothing_of_the_test_rows_reaches_choice_or_fit(tmp_path, scaling):
    pairs = make_pairs(40, auxiliary=8)
    config = replace(SMALL, scalings=(scaling,), auxiliary_weights=(0.5,), heads=("logistic",), head_penalties=(1.0,))
    found = []
    for seed in (0, 1):
        features = make_features(tmp_path / str(seed), pairs, signal=0.4)
        labels = Labels.of(pairs)
        design = Design(features, labels)
        fit_rows, out_rows = next(iter(question_folds(labels, 5, 0)))
        if seed:
            outside = np.setdiff1d(labels.pair, labels.pair[fit_rows])
            design = Design(noisy(features, outside), labels)
            labels.score[out_rows] = labels.score[out_rows][::-1]
        train = labels.take(fit_rows)
        choice = search(design, train, config)
        found.append((choice, [fit_judge(design, train, choice, config).probe(design, a) for a in range(3)]))
    assert found[0][0] == found[1][0]
    for before, after in zip(found[0][1], found[1][1], strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_the_shallowest_depth_within_the_tolerance_is_chosen(design):
    train = design.labels
    choice = search(design, train, replace(SMALL, depths=(1, 2, 4), heads=()))
    assert choice.depth > 1 and choice.curve[choice.depth] >= max(choice.curve.values()) - SMALL.tolerance
    assert search(design, train, replace(SMALL, depths=(1, 2, 4), heads=(), tolerance=1.0)).depth == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ("forest",)}, "heads expects logistic, svc, ordinal"),
        ({"scalings": ("standart",)}, "scalings expects none, standard, whiten"),
        ({"balance": "up"}, "balance expects none, weights, downsample"),
        ({"penalties": ()}, "penalties expects at least one"),
        ({"poolings": (("last",), ("wrong_sums",))}, "poolings expects sets that hold more than checks"),
        ({"penalties": (0.0,)}, "penalties above 0"),
        ({"bias": False, "scalings": ("whiten",)}, "no whiten where bias is false"),
    ],
)
def test_unknown_settings_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        replace(SMALL, **changes)


def test_depths_that_are_not_there_and_labels_of_one_kind_are_refused(design):
    with pytest.raises(DataFileError, match=r"depths expects layers of the features, .* but got \[9\]"):
        search(design, design.labels, replace(SMALL, depths=(9,)))
    good = design.labels.take(np.flatnonzero(design.labels.positive))
    with pytest.raises(DataFileError, match="good and other labels"):
        search(design, good, SMALL)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=40), st.integers(0, 99))
def test_auroc_equals_sklearn_with_ties(values, seed):
    positive = np.random.default_rng(seed).random(len(values)) < 0.5
    if positive.all() or not positive.any():
        assert np.isnan(auroc(positive, np.array(values, float)))
    else:
        assert auroc(positive, np.array(values, float)) == pytest.approx(roc_auc_score(positive, values))
