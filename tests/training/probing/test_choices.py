"""What a search decides, to the last number: views, settings, what is explained, which head and weight are kept."""

import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
from inspector_training.probing import familiarity, fits, kernels, preferences, table
from inspector_training.probing import fitted as fitting
from inspector_training.probing import search as searching
from inspector_training.probing.calibration import Calibration, LogOdds, Rounding, fit_cumulative_logit
from inspector_training.probing.fits import Fit, Target, coordinates_of, fit_each, joint_kernel, mean_diagonal
from inspector_training.probing.fitted import (
    Fitted,
    FittedAspect,
    described_choice,
    familiar_rows,
    fit,
    load_fitted,
    save_fitted,
)
from inspector_training.probing.kernels import Design, center, deviation
from inspector_training.probing.search import (
    Choice,
    _explained,
    _refine,
    chosen_depths,
    mean_auroc,
    search,
    training_rows,
)
from inspector_training.probing.settings import SearchConfig, Setting, View
from inspector_training.probing.table import (
    Labels,
    Rows,
    TooFewLabelsError,
    check_both_kinds,
    counted_table,
    question_folds,
    question_names,
    with_both_kinds,
)
from inspector_training.rows.records import LabelledPair, Levels
from inspector_training.runs.manifest import Manifest
from support.made_up import make_features, make_pairs

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.familiarity import question_number
from inspector_pipeline.features import Feature

SMALL = SearchConfig(poolings=(("last",),), depths=(1, 2), sharings=(0.0,), inner_folds=3, heads=())


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    pairs = make_pairs(40, auxiliary=8)
    return Design(make_features(tmp_path_factory.mktemp("choices"), pairs, signal=0.4), Labels.of(pairs))


def test_settings_are_what_they_were():
    """Saved fits and finished stages rest on these."""
    assert asdict(SearchConfig()) == {
        "readings": ("chat",),
        "poolings": (("response_mean", "last"), ("response_mean",), ("last",)),
        "layers": ("all",),
        "state": "rms_normed",
        "scalings": ("none",),
        "prior_judge": None,
        "priors": (0.0,),
        "depths": None,
        "penalties": (1.0, 2.0, 4.0),
        "alone_penalties": None,
        "sharings": (1.0, 3.0, 10.0),
        "heads": ("logistic", "svc", "ordinal"),
        "head_penalties": (0.25, 1.0),
        "auxiliary_weights": (),
        "finalists": 2,
        "tolerance": 0.005,
        "threshold_weight": 4.0,
        "balance": "none",
        "bias": True,
        "good": {},
        "uncounted": ("correctness",),
        "inner_folds": 5,
        "seed": 731,
    }
    assert asdict(Setting()) == {"head": "ridge", "penalty": 2.0, "sharing": 3.0, "auxiliary": 0.0}
    assert View() == View("chat", ("response_mean", "last"), "all", "rms_normed", "none", 0.0)
    assert (SearchConfig().target_weight, SearchConfig(bias=False).target_weight) == (4.0, 0.0)
    grid = SearchConfig(poolings=(("last",), ("mean",)), layers=("all", "one"), scalings=("none", "standard")).views
    assert len(grid) == 8 and grid[1] == View("chat", ("last",), "all", "rms_normed", "standard")
    prior = SearchConfig(priors=(0.0, 2.0), prior_judge="x")
    assert [view.prior for view in prior.views][:2] == [0.0, 2.0]
    assert str(Setting("svc", 0.25, 1.0, 0.5)) == "svc, penalty 0.25, sharing 1, auxiliary rows x 0.5"
    assert str(Setting()) == "ridge, penalty 2, sharing 3"
    assert str(View(prior=1.5)).endswith("layers, prior 1.5") and View(layers="one").layers_of(3) == [3]
    assert View().layers_of(2) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, "layers expects all, one"),
        ({"scalings": ()}, "scalings expects none"),
        ({"readings": ()}, "readings expects at least one"),
        ({"poolings": ()}, "poolings expects at least one"),
        ({"sharings": ()}, "sharings expects at least one"),
        ({"alone_penalties": ()}, "alone_penalties expects numbers above 0"),
        ({"alone_penalties": (1.0, 0.0)}, "alone_penalties expects numbers above 0"),
        ({"inner_folds": 1}, "inner_folds expects 2 or more"),
        ({"finalists": 0}, "finalists 1 or more"),
        ({"sharings": (-0.5,)}, "sharings from 0"),
        ({"priors": ()}, "priors expects numbers from 0"),
        ({"priors": (-1.0,), "prior_judge": "x"}, "priors expects numbers from 0"),
        ({"priors": (1.0,)}, "above 0 with a prior_judge alone"),
        ({"prior_judge": "x"}, "above 0 with a prior_judge alone"),
        ({"prior_judge": "x", "priors": (1.0,), "scalings": ("standard",)}, "prior_judge expects the scaling none"),
        ({"prior_judge": "x", "priors": (1.0,), "readings": ("rubric",)}, "a reading that all aspects share"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        SearchConfig(**changes)


def test_the_least_settings_are_taken():
    SearchConfig(inner_folds=2, finalists=1, sharings=(0.0,), heads=(), penalties=(1e-9,))
    SearchConfig(prior_judge="x", priors=(0.0, 1.0), alone_penalties=(1e-9,))


def test_the_targets_of_other_scales_are_put_on_one_of_five():
    classes = (Levels([0, 10], 5), Levels([1, 5], 4), [0, 1], Levels([-1, 1], 1), Levels([0, 5], 3))
    aspect = np.repeat(np.arange(5), 2)
    score = np.array([0, 10, 1, 5, 0, 1, -1, 1, 0, 5])
    labels = Labels(
        tuple("abcde"),
        classes,
        (True,) * 5,
        aspect,
        aspect,
        aspect.astype(str),
        score,
        np.ones(10),
        np.zeros(10, bool),
        np.arange(10),
    )
    found = Target.of(labels, 4.0)
    assert found.value.tolist() == [1, 9, 1, 9, 0, 5, 1, 9, 0, 9]
    assert found.score is score and found.positive.tolist() == [False, True] * 5
    assert Target.of(labels, 0.0).value.tolist() == score.tolist()


def test_a_share_is_explained_by_aspect_with_weights_and_only_where_there_is_a_spread():
    rows = Rows(
        np.arange(7), np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1.0, 3, 1, 1, 1, 1, 1]), np.arange(7).astype(str)
    )
    value = np.array([0.0, 2, 4, 9, 7, 7, 7])
    error = np.array([1.0, 0, 2, np.nan, 1, 1, 1])
    spread = np.average((value[:3] - 2) ** 2, weights=[1, 3, 1])
    assert _explained(error, value, rows) == pytest.approx(1 - np.average([1, 0, 4], weights=[1, 3, 1]) / spread)
    both = np.array([0.0, 2, 4, 9, 1, 2, 3])
    second = 1 - 1 / (2 / 3)
    assert _explained(error, both, rows) == pytest.approx((_explained(error, value, rows) + second) / 2)
    assert _explained(error, np.full(7, 3.0), rows) == 0.0
    three = replace(rows, aspect=np.array([0, 0, 0, 0, 1, 1, 2]), weight=np.ones(7))
    assert _explained(np.ones(7), np.array([0.0, 1, 2, 3, 1, 3, 9]), three) == pytest.approx((1 - 1 / 1.25 + 0) / 2)


def test_a_mean_auroc_is_of_aspects_with_both_kinds(design):
    labels = design.labels.take(np.flatnonzero(~design.labels.auxiliary))
    good = labels.positive
    assert mean_auroc(labels, good.astype(float)) == 1 and mean_auroc(labels, -good.astype(float)) == 0
    turned = np.where(labels.aspect == 0, -1.0, 1.0) * good
    assert mean_auroc(labels, turned) == pytest.approx(2 / 3)
    one_kind = labels.take(np.flatnonzero(good))
    assert with_both_kinds(one_kind) == [] and np.isnan(mean_auroc(one_kind, np.ones(len(one_kind.row))))
    check_both_kinds(labels, np.arange(3))
    with pytest.raises(TooFewLabelsError, match="good and other labels of fluency among the training rows"):
        check_both_kinds(one_kind, np.array([1]))


def test_another_head_is_kept_only_where_it_gains_more_than_the_tolerance(design, monkeypatch):
    config = replace(SMALL, heads=("logistic", "svc"), head_penalties=(0.25, 1.0), auxiliary_weights=(0.5, 1.0))
    config = replace(config, tolerance=0.125)
    ridge = Setting("ridge", 2.0, 0.0)
    auxiliary = replace(design.labels, auxiliary=design.labels.auxiliary)
    plain = design.labels.take(np.flatnonzero(~design.labels.auxiliary))
    told = {}

    def aurocs(design, view, depth, labels, group, settings, config):
        return {one: told.get((one.head, one.penalty, one.auxiliary), 0.5) for one in settings}

    monkeypatch.setattr(searching, "_inner_aurocs", aurocs)

    def chosen(labels, found):
        told.clear()
        told.update(found)
        return _refine(design, View(), 1, labels, [0], ridge, config)

    assert chosen(plain, {("svc", 1.0, 0.0): 0.625})[0] is ridge
    best, tried = chosen(plain, {("svc", 1.0, 0.0): 0.6875, ("logistic", 0.25, 0.0): 0.65})
    assert best == Setting("svc", 1.0, 0.0) and len(tried) == 5
    assert tried["svc, penalty 1, sharing 0"] == 0.6875
    assert chosen(auxiliary, {("ridge", 2.0, 0.5): 0.75, ("ridge", 2.0, 1.0): 0.625})[0].auxiliary == 1.0
    assert chosen(auxiliary, {("ridge", 2.0, 0.5): 0.75, ("ridge", 2.0, 1.0): 0.62})[0].auxiliary == 0.5
    assert chosen(auxiliary, {("ridge", 2.0, 0.5): 0.37, ("ridge", 2.0, 1.0): 0.36})[0].auxiliary == 0.0
    best, tried = chosen(auxiliary, {("svc", 1.0, 0.0): 0.7, ("svc", 1.0, 0.5): 0.7})
    assert best == Setting("svc", 1.0, 0.0, 0.5) and len(tried) == 7
    assert "auxiliary" not in " ".join(_refine(design, View(), 1, auxiliary, [1], ridge, config)[1])
    without = _refine(design, View(), 1, plain, [0], ridge, replace(config, bias=False))[1]
    assert list(without) == [str(ridge)]


def test_the_best_views_go_on_and_the_shallowest_of_them_is_taken(design, monkeypatch):
    views = [View("chat", (name,)) for name in "abc"]
    config = replace(SMALL, poolings=(("a",), ("b",), ("c",)), depths=(1, 2, 3), finalists=2, tolerance=0.125)
    setting = {(view, depth): Setting(penalty=depth) for view in views for depth in (1, 2, 3)}
    explained = {"a": (0.9, 0.1, 0.2), "b": (0.3, 0.2, 0.1), "c": (0.2, 0.3, 0.4)}

    def sweep(design, view, labels, group, config):
        values = explained[view.poolings[0]]
        return {depth: (values[depth - 1], setting[view, depth]) for depth in (1, 2, 3)}

    told, asked = {}, []

    def aurocs(design, view, depth, labels, group, settings, config):
        asked.append((view.poolings[0], depth))
        return {settings[0]: told.get((view.poolings[0], depth), 0.5)}

    def refine(design, view, depth, labels, group, ridge, config):
        return replace(ridge, head="svc"), {"x": depth}

    for name, own in (("_sweep", sweep), ("_inner_aurocs", aurocs), ("_refine", refine)):
        monkeypatch.setattr(searching, name, own)

    def chosen(found):
        told.clear()
        told.update(found)
        main = searching._search_main(design, design.labels, [0], config)
        return main, (main.view.poolings[0], main.depth)

    main, found = chosen({("a", 3): 0.625, ("c", 2): 0.75})
    assert found == ("c", 2), "the shallowest of those that are near"
    assert asked == [(name, depth) for name in "ac" for depth in (1, 2, 3)], "b explains the least at its best"
    assert (
        main.curve == {1: 0.5, 2: 0.75, 3: 0.5} and main.setting == Setting("svc", 2) and main.tried == {"logic: x": 2}
    )
    assert main.sweep == {str(v): dict(zip((1, 2, 3), explained[v.poolings[0]], strict=True)) for v in views}
    assert chosen({("a", 3): 0.75, ("c", 2): 0.625})[1] == ("c", 2), "just within the tolerance"
    assert chosen({("a", 3): 0.75, ("c", 2): 0.62})[1] == ("a", 3)
    assert chosen({("a", 2): 0.75, ("c", 2): 0.7})[1] == ("a", 2) and chosen({("c", 1): 0.51})[1] == ("c", 1)


def test_inner_folds_fit_auxiliary_rows_by_their_weight(design):
    view, setting, labels = View("chat", ("last",)), Setting("ridge", 2.0, 0.0, 0.5), design.labels
    (values,), rows = searching.held_out_values(design, view, 2, labels, [0], [setting], SMALL)
    kept, part = training_rows(labels, [0], setting), design.of([0])
    assert kept.auxiliary.any() and not rows.auxiliary.any()
    expected = np.full(len(kept.score), np.nan)
    for fit_rows, out_rows in question_folds(kept, SMALL.inner_folds, SMALL.seed):
        own = kept.take(fit_rows)
        gram = part.gram(view, 2, auxiliary=True)
        (fitted,) = fits.fit_each(gram, part.rows(view, own), Target.of(own, SMALL.target_weight), [setting])
        expected[out_rows] = fitted.values(gram, part.rows(view, kept.take(out_rows)))
    np.testing.assert_allclose(values, expected[~kept.auxiliary])


def test_depths_are_every_second_layer_unless_they_are_named(design):
    assert chosen_depths(design, replace(SMALL, depths=None)) == (2, 4)
    assert chosen_depths(design, SMALL) == (1, 2)
    odd = Design(replace(design.data, layers=(0, 1, 3)), design.labels)
    assert odd.depths == [1, 3] and chosen_depths(odd, replace(SMALL, depths=None)) == (3,)
    with pytest.raises(DataFileError, match=r"\[\], but got \[\]"):
        chosen_depths(Design(replace(design.data, layers=(0,)), design.labels), replace(SMALL, depths=None))


def test_auxiliary_rows_weigh_what_the_setting_says(design):
    labels = design.labels
    none = training_rows(labels, [0], Setting())
    assert not none.auxiliary.any() and set(none.aspect) == {0}
    half = training_rows(labels, [0, 1], Setting(auxiliary=0.5))
    own = np.isin(labels.aspect, [0, 1])
    assert half.row.tolist() == labels.row[own].tolist()
    np.testing.assert_array_equal(half.weight, labels.weight[own] * np.where(labels.auxiliary[own], 0.5, 1))


def test_a_search_without_labels_is_refused_and_one_that_was_made_is_taken(design, monkeypatch):
    with pytest.raises(TooFewLabelsError, match="expects training labels, but there are none"):
        searching.search(design, design.labels.take(np.empty(0, dtype=np.int64)), SMALL)
    found = {}
    first = searching.search(design, design.labels, SMALL, found)
    assert len(found) == 1 and first.settings[0].sharing == 0.0 and len(first.settings) == 2
    monkeypatch.setattr(searching, "_search_main", None)
    again = searching.search(design, design.labels, SMALL, found)
    assert again == first and set(first.curve) == {1, 2}
    assert all(name.startswith(("logic, fluency: ridge", "correctness: ridge")) for name in first.tried)
    assert set(first.sweep) == {str(View("chat", ("last",)))}
    explained = first.sweep[str(View("chat", ("last",)))]
    assert set(explained) == {1, 2} and explained[2] > explained[1]


def test_a_choice_is_described_with_rounded_figures():
    choice = Choice(View(), 3, (Setting(),), {3: 0.123456}, {"v": {3: 0.98765}}, {"a: ridge": 0.55557})
    assert described_choice(choice) == {
        "depth": 3,
        "view": str(View()),
        "curve": {"3": 0.1235},
        "settings": [asdict(Setting())],
        "sweep": {"v": {"3": 0.9877}},
        "tried_at_depth": {"a: ridge": 0.5556},
    }


def test_what_was_fitted_is_read_as_it_was_written(tmp_path, design):
    config = replace(SMALL, depths=(2,), penalties=(1.0,))
    found = fit(design.data, config)
    save_fitted(found, tmp_path)
    Manifest("fit", {}, {}).write(tmp_path, [tmp_path / "fit.json"])
    read = load_fitted(tmp_path)
    own = [pair for pair in design.data.pairs if pair.scores]
    assert read.seen_questions.tolist() == sorted({question_number(pair.question) for pair in own})
    assert read.familiar is None and read.has_bias and list(read.readings) == ["chat"] and read.n_foreign == 0
    assert [(one.name, one.n, one.counts_in_total) for one in read.aspects] == [
        (name, sum(name in pair.scores and not pair.auxiliary for pair in own), name != "correctness")
        for name in ("logic", "fluency", "correctness")
    ]
    labels = design.labels
    for one, other in zip(found.aspects, read.aspects, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.center, other.center)
        np.testing.assert_array_equal(one.calibration.cuts, other.calibration.cuts)
        np.testing.assert_array_equal(one.calibration.thresholds, other.calibration.thresholds)
        assert (one.bias, one.calibration.slope, one.features, one.classes) == (
            other.bias,
            other.calibration.slope,
            other.features,
            other.classes,
        )
        x = design.stack(View("chat", ("last",)), 2)[design.units(View("chat", ("last",)), labels)]
        a = labels.names.index(one.name)
        rows = (labels.aspect == a) & ~labels.auxiliary
        values = (x[rows] - one.center) @ one.weight + one.bias
        assert searching.auroc(labels.positive[rows], values) > 0.6
        middle = np.average(values, weights=labels.weight[rows])
        target = labels.score[rows] + 4.0 * labels.positive[rows]
        assert middle == pytest.approx(np.average(target, weights=labels.weight[rows]), abs=1e-6)
    assert described_choice(searching.search(design, labels, config)) == read.choice == found.choice


def test_probes_without_a_bias_and_of_preferences_come_back_as_such(tmp_path):
    rounding = FittedAspect("a", [1, 2], 3, True, [], np.zeros(2), np.ones(2), 0.0, Rounding([1, 2]))
    odds = FittedAspect("b", [0, 1], 3, False, [], np.zeros(2), np.ones(2), 0.0, LogOdds())
    save_fitted(Fitted([rounding, odds], {}, False, {}, {}, 2), tmp_path / "deep" / "er")
    folder = tmp_path / "deep" / "er"
    Manifest("fit", {}, {}).write(folder, [folder / "fit.json"])
    read = load_fitted(folder)
    assert [one.calibration for one in read.aspects] == [Rounding([1, 2]), LogOdds()]
    assert not read.has_bias and read.n_foreign == 2 and read.seen_questions.tolist() == []
    assert read.seen_questions.dtype == np.int64
    bounds = {"characters_of_question": (None, 20.0)}
    tensors = {"basis": np.zeros((4, 3), np.float32), "words": np.arange(5)}
    known = familiarity.Familiar([Feature("chat", 1, "last", "raw")], tensors, 2.5, bounds, {"rows": 3})
    save_fitted(Fitted([rounding], {}, False, {}, {}, 2, known, np.array([3, 7])), folder)
    Manifest("fit", {}, {}).write(folder, [folder / "fit.json"])
    again = load_fitted(folder)
    found = again.familiar
    assert (found.features, found.threshold, found.text, found.report) == (known.features, 2.5, bounds, {"rows": 3})
    assert {name: own.tolist() for name, own in found.tensors.items()} == {
        name: own.tolist() for name, own in tensors.items()
    }
    assert again.seen_questions.tolist() == [3, 7]
    save_fitted(Fitted([rounding, odds], {}, False, {}, {}, 2), folder)
    Manifest("fit", {}, {}).write(folder, [folder / "fit.json"])
    (folder / "fitted_on.safetensors").unlink()  # as older folders are
    assert load_fitted(folder).seen_questions.tolist() == [] and load_fitted(folder).seen_questions.dtype == np.int64
    (folder / "fit.json").write_text((folder / "fit.json").read_text() + " ")
    with pytest.raises(DataFileError, match="expects the sha256"):
        load_fitted(folder)
    assert familiar_rows(None, [], None) is None


def test_an_aspect_has_levels_or_comparisons(design, monkeypatch):
    monkeypatch.setattr(fitting, "_fit_levels", lambda features, config, aspects: aspects.append(LEVELS))
    monkeypatch.setattr(fitting.Comparisons, "of", lambda pairs: {"logic": None})
    with pytest.raises(DataFileError, match="one kind of label for each aspect, but logic has levels and comparisons"):
        fit(design.data, SMALL)


LEVELS = FittedAspect("logic", [1, 2], 3, True, [], np.zeros(2), np.ones(2), 0.0, Rounding([1, 2]))


def test_a_cumulative_logit_has_a_prior_and_cuts_are_the_labels_shares():
    values = np.array([-2.0, -1, 1, 2])
    slope, (threshold,) = fit_cumulative_logit(values, np.array([0, 0, 1, 1]), [0, 1])
    heavier, _ = fit_cumulative_logit(values, np.array([0, 0, 1, 1]), [0, 1], prior=100.0)
    assert threshold == pytest.approx(0, abs=1e-3) and 1 / values.std() < heavier < slope < 20
    grid = np.linspace(0.01, 20, 4000)  # with one threshold at 0 the best slope by hand
    loss = -2 * (np.log(1 / (1 + np.exp(-grid))) + np.log(1 / (1 + np.exp(-2 * grid))))
    loss += np.log(grid * values.std()) ** 2 / 2
    assert slope == pytest.approx(grid[loss.argmin()], abs=0.02)
    found = Calibration.fit(values, np.array([0, 0, 0, 1]), [0, 1])
    assert found.cuts.tolist() == pytest.approx([found.slope * np.quantile(values, 0.75)])
    exact = Calibration(2.0, np.array([0.0, 2.0]), np.array([1.0, 2.0]))
    assert exact.class_index(np.array([0.5, 0.75, 1.0, 1.5])).tolist() == [0, 1, 1, 2]
    assert exact.probabilities(np.array([0.5]))[0, 0] == pytest.approx(1 / (1 + np.exp(1)))
    assert Rounding([1, 2, 4]).class_index(np.array([1.49, 1.5, 3.0])).tolist() == [0, 1, 2]
    calibration = fit_cumulative_logit(np.ones(5), np.array([1, 1, 2, 3, 3]), [1, 2, 3])
    assert np.isfinite(calibration[0]) and np.diff(calibration[1]) > 0


def test_coordinates_leave_out_what_is_rounding():
    x = np.random.default_rng(0).normal(size=(6, 2))
    kernel = x @ x.T
    coordinates, to_dual = coordinates_of(kernel)
    assert coordinates.shape == to_dual.shape == (6, 2)
    np.testing.assert_allclose(coordinates @ coordinates.T, kernel, atol=1e-12)
    np.testing.assert_allclose(kernel @ to_dual, coordinates, atol=1e-12)
    assert (
        coordinates_of(np.diag([1.0, 1e-9]))[0].shape[1] == 2 and coordinates_of(np.diag([1.0, 1e-11]))[0].shape[1] == 1
    )
    assert coordinates_of(np.zeros((2, 2)))[0].shape == (2, 0)
    assert mean_diagonal(np.diag([1.0, 3.0])) == 2.0 and mean_diagonal(np.zeros((2, 2))) == 1.0
    some, everyone = np.array([False, True]), np.ones(2, dtype=bool)
    assert mean_diagonal(np.diag([1.0, 3.0]), some) == 1.0 and mean_diagonal(np.diag([1.0, 3.0]), everyone) == 2.0


def test_far_auxiliary_rows_leave_the_penalty_as_it_was():
    x = np.concatenate([np.random.default_rng(0).normal(size=(40, 3)), np.full((5, 3), 30.0)])
    aspect, question = np.zeros(45, dtype=np.int64), np.arange(45).astype(str)
    y = np.where(np.arange(45) < 40, x[:, 0] > 0, 0).astype(float)
    rows = Rows(np.arange(45), aspect, np.ones(45), question, np.arange(45) >= 40)
    (fitted,) = fit_each(x @ x.T, rows, Target(y, y, y > 0), [Setting("ridge", 2.0, 0.0)], centered=False)
    scale = (x[:40] ** 2).sum() / 40
    expected = np.linalg.solve(x @ x.T + 2 * scale * np.eye(45), y)
    np.testing.assert_allclose(fitted.dual, expected, atol=1e-12)


def test_an_aspect_that_stands_alone_is_fitted_by_the_order_of_its_left_out_values(monkeypatch, design):
    # By squared error a penalty of 4 would be taken: it lies nearer to all labels, though the wrong way round.
    def errors(gram, train, target, sharing, penalties, *, centered=True):
        mean = target.value.mean()
        towards = {1.0: 3.0, 4.0: -0.01}
        return np.array([target.value - (mean + towards[p] * (target.value - mean)) for p in penalties])

    monkeypatch.setattr("inspector_training.probing.search.left_out_errors", errors)
    labels, settings = design.labels, replace(SMALL, depths=(2,), penalties=(1.0, 4.0))
    penalty = {}
    for alone in (None, (1.0, 4.0)):
        chosen = search(design, labels, replace(settings, alone_penalties=alone)).settings
        penalty[alone] = [setting.penalty for setting in chosen]
    assert penalty == {None: [4.0, 4.0], (1.0, 4.0): [4.0, 1.0]}


def test_a_units_share_of_weight_and_centre_is_that_of_its_rows():
    train = Rows(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1]), np.array([1.0, 3, 1, 1]), np.arange(4).astype(str))
    fitted = Fit(train, np.array([1.0, 2, 4, 8]), np.array([0.5, -0.5]), 1.0, centered=False)
    dual, middle = fitted.unit_dual(0, 4)
    assert dual.tolist() == [1, 2 + 2, 4, 0] and not middle.any()
    dual, middle = replace(fitted, centered=True).unit_dual(0, 4)
    # aspect 0: 3 in all, of which 1/4 and 3/4 are taken off; aspect 1: 2 + 4 in all, by halves
    assert dual.tolist() == [1 - 0.75, 4 - 2.25 - 3, 4 - 3, 0] and middle.tolist() == [0.25, 0.75, 0, 0]


def test_inner_products_of_centred_units():
    x = np.random.default_rng(0).normal(size=(5, 3)) + 4
    train = np.array([0, 2, 3])
    centred = x - x[train].mean(axis=0)
    np.testing.assert_allclose(center(x @ x.T, train), centred @ centred.T, atol=1e-10)
    assert deviation(np.array([[1.0, 2], [1, 4]], dtype=np.float32)).tolist() == [1.0, 1.0]
    assert deviation(np.array([[1.0, 2], [1, 8]], dtype=np.float32)).tolist() == [1.0, 3.0]


def test_inner_products_are_kept_up_to_a_bound_and_deeper_ones_begin_from_them(design, monkeypatch):
    own, read, block = Design(design.data, design.labels), [], Design.block
    monkeypatch.setattr(Design, "block", lambda self, *asked: read.append(asked[1]) or block(self, *asked))
    view = View("chat", ("last",))
    first = own.gram(view, 1)
    assert own.gram(view, 1) is first and read == [1]
    third, second = own.gram(view, 3), own.gram(view, 2)
    assert read == [1, 2, 3, 2] and own.gram(view, 1, auxiliary=True) is not first
    assert own.gram(replace(view, layers="one"), 3).shape == first.shape and read[4:] == [1, 3]
    plain = Design(design.data, design.labels)
    for depth, found in ((2, second), (3, third)):
        np.testing.assert_allclose(plain._plain(view, depth, False, 0), found, rtol=1e-12)
    monkeypatch.setattr(kernels, "KEPT_BYTES", 2 * first.nbytes)
    for depth in (1, 2, 1, 3):
        plain.gram(view, depth)
    assert [depth for _, depth, _ in plain._kept] == [1, 3], "the one that was asked for last stays"
    monkeypatch.setattr(kernels, "KEPT_BYTES", 0)
    assert plain.gram(view, 2).shape == first.shape and len(plain._kept) == 1


def test_what_inner_folds_predict_is_remembered_for_a_while(design, monkeypatch):
    own = Design(design.data, design.labels)
    part = own.of([0])
    part.held_out = {i: None for i in range(20)}
    asked = (own, View("chat", ("last",)), 1, design.labels, [0], [Setting("ridge", 2.0, 0.0)], SMALL)
    values, rows = searching.held_out_values(*asked)
    assert len(part.held_out) == 9 and list(part.held_out)[1:] == list(range(8))
    assert not rows.auxiliary.any() and values.shape == (1, len(rows.score)) and not np.isnan(values).any()
    monkeypatch.setattr(searching, "_fit", None)
    again, same = searching.held_out_values(*asked)
    np.testing.assert_array_equal(again, values)
    assert same.row.tolist() == rows.row.tolist()


def test_fits_do_not_depend_on_how_much_all_weights_or_directions_are():
    rng = np.random.default_rng(0)
    x, n = rng.normal(size=(12, 3)), 12
    train = Rows(np.arange(n), np.arange(n) % 2, rng.random(n) + 0.5, np.arange(n).astype(str))
    light = replace(train, weight=train.weight / 1e6)
    whole = joint_kernel(x @ x.T, train, train, 0.5)
    np.testing.assert_allclose(joint_kernel(x @ x.T, light, light, 0.5, centered=True), whole, atol=1e-9)
    values = rng.normal(size=n)
    means = [np.average(values[train.aspect == a], weights=train.weight[train.aspect == a]) for a in (0, 1)]
    np.testing.assert_allclose(fits._means(values, light), means, rtol=1e-9)
    lone = replace(train, aspect=np.full(n, 1))
    assert fits._means(values, lone)[0] == 0.0, "of no rows"
    lacking = replace(train, aspect=2 * train.aspect)  # the second aspect has no rows
    target = Target(values, np.arange(n), values > 0)
    for head in ("ridge", "logistic", "ordinal"):
        (fitted,) = fits.fit_each(x @ x.T, lacking, target, [Setting(head, 1.0, 0.5)])
        assert fitted.offset[1] == 0.0 and fitted.offset[0] and fitted.offset[2]
    nothing = Rows(*(np.empty(0, dtype=np.int64) for _ in range(3)), np.empty(0, dtype=str))
    assert (nothing.n_aspects, train.n_aspects, lone.n_aspects) == (0, 2, 2)


def test_scikit_learn_is_asked_for_what_dual_fits_need(monkeypatch):
    asked = []

    def made(name):
        class Model:
            def __init__(self, **how):
                asked.append((name, how))

            def fit(self, x, above, sample_weight):
                self.coef_ = np.zeros((1, x.shape[1]))
                return self

        return Model

    for module in (fits, preferences):
        monkeypatch.setattr(module, "LogisticRegression", made("logistic"))
    monkeypatch.setattr(fits, "LinearSVC", made("svc"))
    rows = Rows(np.arange(4), np.zeros(4, dtype=int), np.ones(4), np.arange(4).astype(str))
    target = Target(np.arange(4.0), np.arange(4), np.arange(4) > 1)
    for head in ("logistic", "svc", "ordinal"):
        fits.fit_each(np.eye(4), rows, target, [Setting(head, 4.0, 0.0)])
    how = {"C": 0.25, "fit_intercept": False, "max_iter": 2000}
    assert asked == [("logistic", how), ("svc", {**how, "dual": False}), ("logistic", how)]
    preferences.odds_weights(np.eye(4), np.array([1.0, 0, 1, 1]), np.ones(4), 4.0)
    assert asked[3] == ("logistic", how)


def test_what_is_no_number_stays_so_and_indefinite_systems_are_solved():
    assert np.isnan(fits._solved(np.full((2, 2), np.nan), np.ones(2))).all()
    assert np.isnan(fits._solved(np.eye(2), np.array([np.nan, 1.0]))).any()
    np.testing.assert_allclose(fits._solved(np.diag([2.0, -4.0]), np.array([2.0, 4.0])), [1.0, -1.0])


def test_one_unit_and_none_have_their_inner_products(design):
    view = View("chat", ("last",))
    for rows in (np.array([0]), np.empty(0, dtype=np.int64)):
        some = Design(design.data, replace(design.labels.take(rows), row=np.arange(len(rows))))
        for scaling in ("none", "standard")[: 1 + len(rows)]:
            found = some.scaled(replace(view, scaling=scaling), 1, np.arange(len(rows)))
            n = int(some.units(view, some.labels).max(initial=-1)) + 1
            assert found.shape == some.gram(view, 1).shape == (n, n)


def test_a_questions_stratum_is_its_first_label_of_the_rarest_aspect(monkeypatch):
    asked = {}

    class Splitter:
        def __init__(self, folds, **options):
            asked.update(folds=folds, options=options)

        def split(self, questions, strata):
            asked.update(zip(questions.tolist(), strata, strict=True))
            warnings.warn("The least populated class has few", stacklevel=1)  # is passed over
            warnings.warn("something else", stacklevel=1)
            return iter(())

    monkeypatch.setattr(table, "StratifiedKFold", Splitter)
    rng = np.random.default_rng(0)
    scores = rng.integers(1, 6, (80, 4)).tolist()
    pairs = [
        LabelledPair(f"q{i}", f"Q{i}?", f"{j}", {"a": score, **({"b": score % 2} if i < 5 and j else {})}, sample=j)
        for i, own in enumerate(scores)
        for j, score in enumerate(own)
    ]
    with pytest.warns(UserWarning, match="something else") as told:
        assert list(question_folds(Labels.of(pairs), 3, 8)) == []
    assert len(told) == 1
    assert asked.pop("folds") == 3 and asked.pop("options") == {"shuffle": True, "random_state": 8}
    assert asked == {f"q{i}": f"1 {own[1] % 2}" if i < 5 else f"0 {own[0]}" for i, own in enumerate(scores)}
    assert question_names([]) == []
    for n, strata in ((3, ["0 2"] * 3 + ["0 5"] * 2), (2, [""] * 4)):  # as many of a kind as there are folds, or fewer
        own = [LabelledPair(i, f"Q{i}", "x", {"a": 2 if i < n else 5}) for i in range(n + 2)]
        asked.clear()
        with pytest.warns(UserWarning, match="something else"):
            assert list(question_folds(Labels.of(own), 3, 8)) == []
        assert [asked[str(i)] for i in range(n + 2)] == strata


def test_questions_are_one_where_they_share_a_text_or_an_id():
    texts = [("a", "One?"), ("b", "Two?"), ("c", "One?"), ("c", "Three?"), ("d", "Four?"), ("e", " two? ")]
    pairs = [LabelledPair(name, text, "x", {"logic": i % 5 + 1}) for i, (name, text) in enumerate(texts)]
    names = question_names(pairs)
    assert names[:5] == ["a", "b", "a", "a", "d"]
    counted = counted_table(
        [*pairs, LabelledPair("z", "Z?", "x", {"extra": 1}), LabelledPair("y", "Y?", "x", {"extra": 2})], ("extra",)
    )
    assert counted.row.tolist() == list(range(6)) and set(counted.aspect) == {0}


def test_numbers_on_which_fits_rest_are_what_they_were():
    assert (fits.INTERCEPT_SCALE, fits.MAX_ITERATIONS, fits.RANK_TOLERANCE) == (10.0, 2000, 1e-10)
    assert (kernels.KEPT_BYTES, kernels.WHITENING_RIDGE, searching.REMEMBERED) == (4 * 2**30, 1.0, 8)
    assert (table.DOWNSAMPLE_SEED, preferences.MAX_SLOPE) == (731, 20.0)
    limits = (familiarity.MIN_ROWS, familiarity.FEW_ROWS, familiarity.MIN_QUESTIONS, familiarity.MARGIN)
    assert (*limits, familiarity.LEAST_SPREAD) == (50, 2000, 2, 1.05, 0.05)
    usual = {"n_layers": 3, "n_components": 64, "flag_rate": 0.01, "folds": 5}
    assert asdict(familiarity.FamiliarityConfig()) == usual
    for least in ({"n_layers": 1}, {"n_components": 1}, {"folds": 2}, {"flag_rate": 0.49}):
        familiarity.FamiliarityConfig(**least)
    for wrong in ({"n_components": 0}, {"flag_rate": 0.5}):
        with pytest.raises(SettingsError, match="familiarity expects"):
            familiarity.FamiliarityConfig(**wrong)
