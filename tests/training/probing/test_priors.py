"""A released judge's directions: ridge towards them equals a plain formula, and helps where labels are few."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.probing import priors
from inspector_training.probing.fits import Target, fit_each
from inspector_training.probing.kernels import Design
from inspector_training.probing.priors import load_directions
from inspector_training.probing.search import Choice, fit_judge, search
from inspector_training.probing.settings import SearchConfig, Setting, View
from inspector_training.probing.table import Labels, Rows
from inspector_training.rows.records import LabelledPair
from support.made_up import HIDDEN, make_features
from support.models import aspect, chat_reading, config_of, feature, random_probes

from inspector_pipeline import InspectorModel
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.features import Feature

VIEW = View(poolings=("last",), prior=3.0)
FEATURES = [Feature("chat", layer, "last", "rms_normed") for layer in (1, 2)]


@pytest.fixture(scope="module")
def designs(tmp_path_factory):
    """Eighty pairs whose binary labels follow a direction, with that direction known, and without."""
    pairs = [LabelledPair(i, f"Q{i}?", f"A{i}", {"x": i % 2}) for i in range(80)]
    features = make_features(tmp_path_factory.mktemp("f"), pairs, layers=(0, 1, 2), poolings=("last",))
    rng = np.random.default_rng(5)
    known = {one: rng.normal(size=(HIDDEN, 1)) for one in FEATURES}
    value = sum((features.matrix(one) @ known[one])[:, 0] for one in FEATURES)
    for pair, good in zip(features.pairs, value > np.median(value), strict=True):
        pair.scores["x"] = int(good)
    labels = Labels.of(features.pairs)
    return Design(features, labels, directions=known), Design(features, labels)


def test_a_search_that_names_a_judge_gets_its_directions(designs, monkeypatch):
    design, plain = designs
    monkeypatch.setattr(priors, "load_directions", lambda judge, features: {judge: features.hidden_size})
    known = priors.design_of(plain.data, plain.labels, SearchConfig(prior_judge="x", priors=(1.0,)))
    assert known.directions == {"x": HIDDEN} and known.data is plain.data and known.labels is plain.labels
    assert priors.design_of(plain.data, plain.labels, SearchConfig()).directions == {}


def test_inner_products_and_weights_are_those_of_ridge_under_another_metric(designs):
    design, plain = designs
    x = plain.stack(VIEW, 2).astype(np.float64)
    d = np.concatenate([design.directions[one] for one in FEATURES])
    centred = x - x.mean(axis=0)
    c = 3 * (centred**2).sum() / ((centred @ d) ** 2).sum()
    metric = np.eye(len(d)) + c * d @ d.T
    np.testing.assert_allclose(design.gram(VIEW, 2), x @ metric @ x.T, rtol=1e-6)
    np.testing.assert_allclose(design.gram(replace(VIEW, prior=0.0), 2), x @ x.T, rtol=1e-6)
    rows = Rows(np.arange(80), np.zeros(80, dtype=np.int64), np.ones(80), np.arange(80).astype(str))
    y = design.labels.score * 2.0
    (fitted,) = fit_each(design.gram(VIEW, 2), rows, Target(y, y, y > 0), [Setting("ridge", 1.0, 0.0)])
    dual, center = fitted.unit_dual(0, 80)
    weight = design.with_prior(VIEW, 2, dual @ x)
    np.testing.assert_allclose((x - center @ x) @ weight + fitted.offset[0], fitted.values(design.gram(VIEW, 2), rows))


def test_directions_of_any_length_are_the_same_and_unwanted_units_stay_at_nought(designs, tmp_path):
    design, plain = designs
    short = Design(plain.data, plain.labels, directions={one: 1e-6 * own for one, own in design.directions.items()})
    np.testing.assert_allclose(short.gram(VIEW, 2), design.gram(VIEW, 2), rtol=1e-6)
    pairs = [*plain.data.pairs[:9], LabelledPair("z", "Z?", "z", {"x": 1}, auxiliary=True)]
    features = make_features(tmp_path, pairs, layers=(0, 1, 2), poolings=("last",))
    own = Design(features, Labels.of(pairs), directions=design.directions)
    damaged = own.units(VIEW, own.labels)[own.labels.auxiliary]
    assert not own.gram(VIEW, 2)[damaged].any() and own.gram(VIEW, 2, auxiliary=True)[damaged].any()


def test_a_probe_gives_the_fits_values_and_few_labels_suffice(designs):
    config = SearchConfig(depths=(2,), heads=(), inner_folds=2)
    train = designs[0].labels.take(np.arange(12))
    right = {}
    for design, prior in zip(designs, (30.0, 0.0), strict=True):
        view = replace(VIEW, prior=prior)
        judge = fit_judge(design, train, Choice(view, 2, (Setting("ridge", 1.0, 0.0),), {}, {}, {}), config)
        values, (center, weight, bias) = judge.values(design, design.labels), judge.probe(design, 0)
        x = design.stack(view, 2).astype(np.float64)
        np.testing.assert_allclose((x - center) @ weight + bias, values, rtol=1e-6, atol=1e-6)
        order = np.argsort(values[12:])
        right[prior] = design.labels.score[12:][order[-34:]].mean()
    assert right[30.0] > 0.9 and right[30.0] > right[0.0] + 0.05


def test_a_search_may_choose_the_prior_and_refuses_what_does_not_fit(designs):
    settings = {"depths": (2,), "poolings": (("last",),), "heads": (), "inner_folds": 2, "sharings": (0.0,)}
    config = SearchConfig(**settings, prior_judge="judge", priors=(0.0, 30.0))
    choice = search(designs[0], designs[0].labels.take(np.arange(20)), config)
    assert choice.view.prior == 30 and "prior 30" in str(choice.view)
    with pytest.raises(DataFileError, match="reads some of chat: last of all rms_normed layers, prior 3 up to layer 2"):
        designs[1].gram(VIEW, 2)
    for wrong in ({"priors": (1.0,)}, {"prior_judge": "judge"}, {"priors": (-1.0,)}, {"priors": ()}):
        with pytest.raises(SettingsError, match="priors expects numbers from 0"):
            SearchConfig(**wrong)
    with pytest.raises(SettingsError, match="prior_judge expects the scaling none"):
        SearchConfig(prior_judge="judge", priors=(1.0,), scalings=("whiten",))


@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_directions_are_read_from_a_judges_folder(tmp_path, backbone_dir, tokenizer, designs):
    read = [feature(1, "last", "rms_normed"), feature(2, "mean")]
    aspects = [aspect("wit", read), aspect("tact", read[:1], rule="ordinal")]
    model = random_probes(InspectorModel(config_of(backbone_dir, aspects, {"chat": chat_reading(tokenizer)})))
    model.save_pretrained(tmp_path, fused=False)
    features = replace(designs[0].data, backbone={"id": str(backbone_dir)}, hidden_size=32)
    found = load_directions(str(tmp_path), features)
    assert {one.layer: own.shape for one, own in found.items()} == {1: (32, 6), 2: (32, 6)}
    assert np.linalg.norm(np.concatenate(list(found.values())), axis=0) == pytest.approx(np.ones(6), abs=1e-6)
    with pytest.raises(DataFileError, match="on the backbone of the features, made-up, but"):
        load_directions(str(tmp_path), designs[0].data)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataFileError, match="prior_judge expects a judge's folder, but .* could not be read"):
        load_directions(str(tmp_path), features)
