"""Inner products of features equal those of features that are scaled, whitened and joined the long way."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.probing import kernels
from inspector_training.probing.fits import joint_kernel
from inspector_training.probing.kernels import Design
from inspector_training.probing.settings import View
from inspector_training.probing.table import Labels, Rows
from inspector_training.rows.records import LabelledPair
from support.made_up import make_features, make_pairs

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    pairs = make_pairs(40, auxiliary=12)
    return Design(make_features(tmp_path_factory.mktemp("kernels"), pairs), Labels.of(pairs))


def plain_features(design, view, depth):
    """Features of every labelled row, in float64: (rows, features)."""
    labels, rows = design.labels, []
    for aspect, pair in zip(labels.aspect, labels.pair, strict=True):
        parts = []
        for feature in design.features(view, labels.names[aspect], depth):
            place = np.flatnonzero(design.data.rows[feature.reading] == pair)[0]
            parts.append(design.data.matrix(feature)[place])
        rows.append(np.concatenate(parts))
    return np.array(rows, dtype=np.float64)


def covariance_whitened(x, train):
    """x S^-1 x' with the training rows' covariance and a ridge of their summed variance over their number."""
    centred = x - x[train].mean(0)
    covariance = np.cov(x[train].T, bias=True)
    ridge = np.trace(covariance) / len(train)
    return centred @ np.linalg.inv(covariance + ridge * np.eye(len(covariance))) @ centred.T


READINGS = pytest.mark.parametrize("reading", ["chat", "rubric"])


@READINGS
@pytest.mark.parametrize("layers", ["all", "one"])
def test_inner_products_are_those_of_the_features(design, reading, layers):
    view = View(reading, layers=layers)
    units = design.units(view, design.labels)
    own = ~design.labels.auxiliary
    for depth in (1, 3):
        x = plain_features(design, view, depth)
        wide = design.gram(view, depth, auxiliary=True)
        np.testing.assert_allclose(wide[np.ix_(units, units)], x @ x.T, rtol=1e-9)
        block = np.ix_(units[own], units[own])
        np.testing.assert_allclose(design.gram(view, depth)[block], x[own] @ x[own].T, rtol=1e-9)
        np.testing.assert_array_equal(design.stack(view, depth)[units], x.astype(np.float32))
        unwanted = np.setdiff1d(units, units[own])
        for scaling in ("none", "standard", "whiten"):
            found = design.scaled(replace(view, scaling=scaling), depth, np.unique(units[own]))
            assert len(unwanted) and (scaling == "whiten" or not found[unwanted].any()), "unless they are asked for"


@READINGS
def test_a_groups_units_are_numbered_by_themselves_and_its_products_are_the_same(design, reading):
    view, labels = View(reading), design.labels
    part = design.of([1])
    own = labels.take(np.flatnonzero(labels.aspect == 1))
    x = plain_features(design, view, 3)[labels.aspect == 1]
    units = part.units(view, own)
    assert set(units) == set(range(len(np.unique(design.units(view, own)))))
    for auxiliary in (False, True):
        rows = np.flatnonzero(auxiliary | ~own.auxiliary)
        block = np.ix_(units[rows], units[rows])
        np.testing.assert_allclose(part.gram(view, 3, auxiliary=auxiliary)[block], x[rows] @ x[rows].T, rtol=1e-9)
    np.testing.assert_array_equal(part.stack(view, 3)[units], x.astype(np.float32))
    with pytest.raises(DataFileError, match="for every labelled row"):
        part.units(view, labels)


def test_a_group_of_one_unit_and_of_none_have_their_numbers(tmp_path):
    pairs = make_pairs(6, aspects=("logic",))[:-1]
    pairs += [LabelledPair("q1", "What is 1?", "x", {"rare": 1}), LabelledPair("z", "Z?", "x", {"rare": 2})]
    labels = Labels.of(pairs)
    one = Design(make_features(tmp_path, pairs), replace(labels, aspect=np.where(labels.pair == 2, 1, 0)))
    units = one.of([1])._units(View())
    assert units.tolist() == np.where(labels.pair == 2, 0, -1).tolist()
    assert (one.of([5])._units(View()) == -1).all() and one.of([5]).gram(View(), 1).shape == (0, 0)


def test_products_that_are_let_go_are_made_again(design, monkeypatch):
    view, part = View(), design.of([0, 2])
    deep = part.gram(view, 4).copy()
    monkeypatch.setattr(kernels, "KEPT_BYTES", 1)
    part.gram(view, 2)
    assert list(part._kept) == [(view, 2, False)]
    np.testing.assert_allclose(part.gram(view, 4), deep, rtol=1e-12)


@READINGS
@pytest.mark.parametrize("scaling", ["standard", "whiten"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_scalings_are_fitted_on_training_units_alone(design, reading, scaling, auxiliary):
    view = View(reading, scaling=scaling)
    units = design.units(view, design.labels)
    wanted = np.ones(len(units), bool) if auxiliary else ~design.labels.auxiliary
    train = np.unique(units[~design.labels.auxiliary])[::2]
    x = np.zeros((units.max() + 1, plain_features(design, view, 2).shape[1]))
    x[units] = plain_features(design, view, 2)
    found = design.scaled(view, 2, train, auxiliary=auxiliary)
    if scaling == "standard":
        scaled = x / x[train].std(0)
        expected = scaled @ scaled.T
    else:
        expected = covariance_whitened(x, train)
    block = np.ix_(units[wanted], units[wanted])
    np.testing.assert_allclose(found[block], expected[block], rtol=1e-5, atol=1e-6)


def test_whitening_evens_out_the_directions(design):
    view = View(poolings=("last",), layers="one", scaling="whiten")
    train = np.unique(design.units(view, design.labels)[~design.labels.auxiliary])
    spectra = {}
    for scaling in ("none", "whiten"):
        gram = design.scaled(View("chat", ("last",), "one", "rms_normed", scaling), 1, train)
        inner = gram[np.ix_(train, train)]
        inner = inner - inner.mean(0) - inner.mean(1)[:, None] + inner.mean()
        spectra[scaling] = np.linalg.eigvalsh(inner)[-6:]
    assert spectra["none"][-1] > 10 * spectra["none"][0]
    assert spectra["whiten"][-1] < 4 * spectra["whiten"][0]


def test_a_constant_state_is_left_as_it_is_and_large_states_round_nothing_away():
    rng = np.random.default_rng(1)
    x = np.hstack([np.full((30, 1), 0.1), 1e4 + rng.normal(size=(30, 1)), rng.normal(size=(30, 2))]).astype(np.float32)
    for scaling in ("none", "standard"):
        found = kernels._inner(x, np.arange(30), kernels.deviation(x) if scaling == "standard" else 1.0)
        wide = x.astype(np.float64)
        wide /= np.where(np.ptp(wide, 0) > 0, wide.std(0), 1) if scaling == "standard" else 1
        centred = wide - wide.mean(0)
        middle = np.eye(30) - 1 / 30
        np.testing.assert_allclose(middle @ found @ middle, centred @ centred.T, atol=1e-5)


@pytest.mark.parametrize("sharing", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("centered", [True, False])
def test_the_joint_kernel_is_that_of_a_shared_and_an_own_part(sharing, centered):
    rng = np.random.default_rng(0)
    x, n = rng.normal(size=(20, 3)) + 1, 30
    rows = Rows(rng.integers(0, 20, n), rng.integers(0, 3, n), rng.random(n) + 0.1, np.arange(n).astype(str))
    train = Rows(rows.unit[:20], rows.aspect[:20], rows.weight[:20], rows.question[:20])

    def joint(part):
        own = x[part.unit].copy()
        for a in range(3):
            here = train.aspect == a
            if centered:
                own[part.aspect == a] -= np.average(x[train.unit[here]], axis=0, weights=train.weight[here])
        blocks = [own * np.sqrt(sharing), *(own * (part.aspect == a)[:, None] for a in range(3))]
        return np.concatenate(blocks, axis=1) / np.sqrt(1 + sharing)

    found = joint_kernel(x @ x.T, rows, train, sharing, centered=centered)
    np.testing.assert_allclose(found, joint(rows) @ joint(train).T, atol=1e-10)


def test_missing_readings_and_layers_are_named(design, tmp_path):
    with pytest.raises(DataFileError, match="features of the reading 'other'"):
        design.units(View("other"), design.labels)
    pairs = make_pairs(20)
    some = Design(make_features(tmp_path, pairs, layers=(0, 2, 4)), Labels.of(pairs))
    with pytest.raises(DataFileError, match="but not Feature"):
        some.gram(View(), 4)
    assert some.gram(View(layers="one"), 4).any()  # one layer at a time, so the others may be missing


def test_a_view_names_its_features_in_order_and_itself(design):
    view = View("rubric", ("last", "mean"), scaling="whiten")
    assert design.features(view, "logic", 2) == [
        Feature("rubric:logic", layer, pooling, "rms_normed") for layer in (1, 2) for pooling in ("last", "mean")
    ]
    one = View(layers="one", poolings=("last",))
    assert design.features(one, "logic", 3) == [Feature("chat", 3, "last", "rms_normed")]
    output = View(layers="one", poolings=("last",), state="output")
    states = [design.features(output, "logic", depth)[0].state for depth in (3, design.data.n_layers)]
    assert states == ["raw", "final_norm"]  # what the backbone itself gives
    assert str(view) == "rubric: last+mean of all rms_normed layers, whiten"
