"""Metrics against scikit-learn and scipy, on rows as they are and on resamples, and what intervals promise."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.evaluation.evidence import confusion, label_counts, reliability
from inspector_training.evaluation.metrics import (
    DEFINITIONS,
    METRICS,
    Predictions,
    averaged,
    bootstrap,
    cohen_kappa,
    compared,
    gains,
    interval,
    quadratic_kappa,
    resamples,
)
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    roc_auc_score,
)
from support.made_up import measure

CLASSES = [1, 2, 3, 4, 5]
BY_HAND = {  # the same metrics by well-known code, of truth (rows,) and one repeat
    "auroc": lambda truth, p: roc_auc_score(truth >= 4, p.good),
    "macro_f1": lambda truth, p: f1_score(truth, p.score, average="macro"),
    "weighted_f1": lambda truth, p: f1_score(truth, p.score, average="weighted", zero_division=0),
    "accuracy": lambda truth, p: accuracy_score(truth, p.score),
    "spearman": lambda truth, p: spearmanr(p.expected, truth).statistic,
    "qwk": lambda truth, p: cohen_kappa_score(truth, p.score, weights="quadratic", labels=CLASSES),
    "mae": lambda truth, p: mean_absolute_error(truth, p.expected),
    "brier": lambda truth, p: brier_score_loss(truth >= 4, p.good_probability),
    "ece": lambda truth, p: plain_ece(truth >= 4, p.good_probability),
}


def plain_ece(good, probability):
    """Row by row: a row's bin is that of the middle rank of its value."""
    bins = {}
    for value, label in zip(probability, good, strict=True):
        middle = (probability < value).sum() + (probability == value).sum() / 2
        bins.setdefault(min(9, int(10 * middle / len(good))), []).append(value - label)
    return sum(abs(sum(errors)) for errors in bins.values()) / len(good)


def made_up(n, seed, repeats=1, steps=12):
    """Labels with every class, and predictions that know something, on a coarse grid so that there are ties."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([CLASSES, rng.integers(1, 6, n - 5)])
    expected = np.round((truth + rng.normal(0, 2, (repeats, n))) * steps / 4) * 4 / steps
    probability = np.round(rng.random((repeats, n)) * steps) / steps
    score = np.clip(np.round(expected), 1, 5).astype(np.int64)
    return truth, Predictions(expected, expected - 1, probability, score)


def one(truth, predictions, rows):
    return truth[rows], predictions.take(rows).repeats()[0]


@pytest.mark.parametrize("name", METRICS)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(200, 260), st.sampled_from([3, 12, 1000]))
def test_metrics_equal_well_known_code(name, seed, n, steps):
    truth, predictions = made_up(n, seed, steps=steps)
    got = METRICS[name](truth, CLASSES, predictions.repeats()[0])
    assert got == pytest.approx(BY_HAND[name](*one(truth, predictions, np.arange(n))), abs=1e-12)


def test_a_resample_gives_what_copies_of_its_rows_give():
    truth, predictions = made_up(220, 1)
    questions = np.array([str(i // 2) for i in range(220)])  # two rows a question
    weights = resamples(questions, 15, seed=3).weights(questions)
    draws = bootstrap(truth, CLASSES, predictions, weights)
    assert set(draws) == set(METRICS) == set(DEFINITIONS) == set(BY_HAND)
    for b, weight in enumerate(weights):
        rows = np.repeat(np.arange(220), weight.astype(int))
        for name, plain in BY_HAND.items():
            assert draws[name][b] == pytest.approx(plain(*one(truth, predictions, rows)), abs=1e-12), name


def test_many_rows_are_taken_in_blocks_with_the_same_result(monkeypatch):
    truth, predictions = made_up(220, 1, repeats=2)
    weights = resamples(np.arange(220).astype(str), 15, seed=3).weights(np.arange(220).astype(str))
    whole = bootstrap(truth, CLASSES, predictions, weights)
    monkeypatch.setattr("inspector_training.evaluation.metrics.BLOCK", 500)
    blocks = bootstrap(truth, CLASSES, predictions, weights)
    divided, split = [], np.array_split
    monkeypatch.setattr(np, "array_split", lambda values, n: divided.append(n) or split(values, n))
    for size, parts in ((500, 8), (1, 16), (220 * 16, 1), (10**6, 1)):
        monkeypatch.setattr("inspector_training.evaluation.metrics.BLOCK", size)
        METRICS["accuracy"].draws(truth, CLASSES, predictions.repeats()[0], weights)
        assert divided.pop() == parts
    for name, draws in whole.items():
        np.testing.assert_allclose(blocks[name], draws, rtol=1e-12, err_msg=name)


def test_kappa_measures_distances_on_the_scale_and_not_between_positions():
    truth, score = np.array([1, 1, 2, 5, 5, 2]), np.array([1, 2, 5, 5, 2, 2])
    got = METRICS["qwk"](truth, [1, 2, 5], Predictions(score, score, score, score))
    assert got == pytest.approx(cohen_kappa_score(truth, score, weights="quadratic", labels=CLASSES))
    assert got != pytest.approx(cohen_kappa_score(truth, score, weights="quadratic"))


def test_plain_kappa_takes_all_disagreements_for_alike():
    truth, score = np.array([1, 1, 2, 5, 5, 2]), np.array([1, 2, 5, 5, 2, 2])
    weights = np.array([[1.0] * 6, [2, 0, 1, 3, 1, 1]])
    for weight, got in zip(weights, cohen_kappa(truth, score, weights), strict=True):
        assert got == pytest.approx(cohen_kappa_score(truth, score, sample_weight=weight))
    places = quadratic_kappa(truth, score, weights, np.array([0.0, 3.0, 4.0, 0.0, 0.0, 9.0]))
    scaled = [{1: 3, 2: 4, 5: 9}[label] for label in truth], [{1: 3, 2: 4, 5: 9}[label] for label in score]
    assert places[0] == pytest.approx(cohen_kappa_score(*scaled, weights="quadratic", labels=range(3, 10)))


def test_good_is_one_where_labels_are_nought_and_one():
    truth, good = np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.5])
    prediction = Predictions(good, good, good, (good > 0.5).astype(np.int64))
    assert METRICS["auroc"](truth, [0, 1], prediction) == 0.75
    assert METRICS["brier"](truth, [0, 1], prediction) == pytest.approx((0.01 + 0.01 + 0.36 + 0.25) / 4)


def test_what_is_undefined_is_not_a_number():
    flat, rising = np.full(6, 3.0), np.arange(6.0)
    truth, threes = np.array([1, 2, 3, 3, 4, 5]), np.full(6, 3)
    constant = Predictions(flat, flat, np.full(6, np.nan), threes)
    found = {name: metric(truth, CLASSES, constant) for name, metric in METRICS.items()}
    assert (found["auroc"], found["spearman"], found["qwk"]) == (0.5, 0.0, 0.0)
    assert np.isnan(found["brier"]) and np.isnan(found["ece"])
    found = {
        name: metric(threes, CLASSES, Predictions(rising, rising, flat, threes)) for name, metric in METRICS.items()
    }
    assert np.isnan([found["auroc"], found["spearman"], found["qwk"]]).all() and found["accuracy"] == 1
    missing = np.where(rising == 2, np.nan, rising)
    found = {n: m(truth, CLASSES, Predictions(missing, missing, missing, truth)) for n, m in METRICS.items()}
    assert np.isnan([found[name] for name in ("auroc", "spearman", "mae", "brier", "ece")]).all()


def test_calibration_error_needs_two_hundred_rows():
    for n, there in ((199, False), (200, True)):
        truth, predictions = made_up(n, 0)
        assert ("ece" in measure(truth, CLASSES, predictions)) is there


def test_repeats_are_measured_one_by_one_and_averaged():
    truth, predictions = made_up(210, 4, repeats=3)
    found = measure(truth, CLASSES, predictions)
    for name, metric in METRICS.items():
        assert found[name] == pytest.approx(np.mean([metric(truth, CLASSES, p) for p in predictions.repeats()])), name


def test_rows_without_a_prediction_are_refused():
    predictions = Predictions.blank(2, 5)
    rows = np.array([0, 2, 3])
    for repeat in range(2):
        predictions.put(repeat, rows, Predictions(rows * 1.0, rows * 2.0, rows / 10, rows + 1))
    with pytest.raises(ValueError, match=r"predictions of all rows, but 2 of 5 have none"):
        measure(np.array([1, 2, 3, 4, 5]), CLASSES, predictions)
    taken = predictions.take(rows)
    np.testing.assert_array_equal(taken.good, [[0, 4, 6]] * 2)
    assert measure(np.array([1, 3, 4]), CLASSES, taken)["accuracy"] == 1


def test_resamples_draw_whole_questions_as_many_as_there_are():
    questions = np.array(["b", "a", "c", "a", "b", "a"])
    samples = resamples(questions, 200, seed=0)
    weights = samples.weights(questions)
    np.testing.assert_array_equal(weights[0], 1)
    assert (samples.counts.dtype, weights.dtype) == (np.int64, np.float64)
    np.testing.assert_array_equal(weights[:, 1], weights[:, 3])
    np.testing.assert_array_equal(samples.counts.sum(axis=1), 3)
    assert len(np.unique(samples.counts, axis=0)) == 10  # all ways to draw 3 of 3
    np.testing.assert_array_equal(resamples(questions, 200, seed=0).counts, samples.counts)
    assert (resamples(questions, 200, seed=1).counts != samples.counts).any()
    with pytest.raises(KeyError, match="z"):
        samples.weights(np.array(["z"]))


def test_an_interval_is_of_the_resamples_and_says_what_it_left_out():
    draws = np.concatenate([[0.123456], np.linspace(0, 1, 1001)])
    assert interval(draws) == {"value": 0.1235, "low": 0.025, "high": 0.975}
    assert interval(np.concatenate([draws, [np.nan] * 3])) == {
        "value": 0.1235,
        "low": 0.025,
        "high": 0.975,
        "left_out": 3,
    }
    assert interval(np.full(5, np.nan)) == {"value": None, "low": None, "high": None, "left_out": 4}


def test_resamples_without_both_kinds_of_label_are_left_out_and_counted():
    truth = np.array([5, 1, 1, 1])
    predictions = Predictions(*(np.array([[4.0, 1, 2, 3]]) / d for d in (1, 1, 5)), np.array([[5, 1, 1, 3]]))
    questions = np.array(list("abcd"))
    weights = resamples(questions, 300, seed=0).weights(questions)
    without = int(((weights[:, 0] == 0) | (weights[:, 0] == 4)).sum())
    found = interval(bootstrap(truth, CLASSES, predictions, weights)["auroc"])
    assert found == {"value": 1.0, "low": 1.0, "high": 1.0, "left_out": without} and without > 50


def test_an_interval_covers_the_true_value_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        questions = np.repeat(np.arange(80), 2).astype(str)
        hit = np.repeat(rng.random(80) < 0.7, 2)  # both rows of a question are right, or neither
        truth = np.where(hit, 4, 2)
        fours = np.full((1, 160), 4)
        weights = resamples(questions, 200, seed=trial).weights(questions)
        found = interval(bootstrap(truth, CLASSES, Predictions(fours, fours, fours / 5, fours), weights)["accuracy"])
        covered += found["low"] <= 0.7 <= found["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_differences_are_paired_and_a_gain_is_above_nought_for_errors_too():
    truth, ours = made_up(210, 5, repeats=2)
    worse = Predictions(ours.expected + 7, ours.good, 1 - ours.good_probability, ours.score)
    weights = resamples(np.arange(210).astype(str), 100, seed=0).weights(np.arange(210).astype(str))
    draws, base = bootstrap(truth, CLASSES, ours, weights), bootstrap(truth, CLASSES, worse, weights)
    found = compared(draws, {"surface": base})
    assert found["surface"]["mae"]["value"] > found["mae"]["value"]
    assert found["gain_over_surface"]["mae"]["low"] > 0
    assert found["gain_over_surface"]["auroc"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # paired, so no spread
    assert found["gain_over_surface"].keys() == found["surface"].keys() == METRICS.keys()
    fewer = {name: values for name, values in base.items() if name != "ece"}
    assert "ece" not in gains(draws, fewer) and "ece" not in averaged([draws, fewer])
    np.testing.assert_allclose(averaged([draws, base])["mae"], (draws["mae"] + base["mae"]) / 2)


@pytest.mark.parametrize("name", METRICS)
def test_what_is_right_gains_over_what_is_wrong_by_every_metric(name):
    truth, _ = made_up(210, 5)
    right, wrong = truth[None] * 1.0, 6.0 - truth[None]
    best, worst = ((truth >= 4)[None] * 1.0, (truth < 4)[None] * 1.0)
    weights = resamples(np.arange(210).astype(str), 50, seed=0).weights(np.arange(210).astype(str))
    ours, baseline = (
        bootstrap(truth, CLASSES, Predictions(value, value, probability, value.astype(np.int64)), weights)
        for value, probability in ((right, best), (wrong, worst))
    )
    found = compared(ours, {"wrong": baseline})
    assert found["gain_over_wrong"][name]["low"] > 0
    assert found[name]["value"] == (0 if METRICS[name].lower_is_better else 1)
    assert METRICS[name].lower_is_better == (name in ("mae", "brier", "ece"))


def test_reliability_bins_hold_like_many_rows_and_ties_stay_together():
    rng = np.random.default_rng(0)
    probability = rng.random((2, 400))
    good = rng.random(400) < probability[0]
    bins = reliability(good, probability)
    assert len(bins) == 10 and {b["n"] for b in bins} == {40}
    assert [b["predicted"] for b in bins] == sorted(b["predicted"] for b in bins)
    first = probability[0]
    bins = reliability(good, first[None])
    assert all(abs(b["predicted"] - b["observed"]) < 0.3 for b in bins)
    lowest = np.argsort(first)[:40]
    assert bins[0] == {
        "predicted": round(float(first[lowest].mean()), 4),
        "observed": round(float(good[lowest].mean()), 4),
        "n": 40,
    }
    assert [b["n"] for b in reliability(good[:70], probability[:1, :70])] == [23, 24, 23]
    assert len(reliability(good[:70], probability[:, :70])) == 3 and len(reliability(good[:5], probability[:, :5])) == 1
    flat = reliability(good, np.full((3, 400), 0.25))
    assert flat == [{"predicted": 0.25, "observed": round(float(good.mean()), 4), "n": 400}]
    assert reliability(good, np.full((3, 400), np.nan)) == []


def test_confusion_counts_labels_by_scores_on_average():
    truth = np.array([3, 3, 5])
    score = np.array([[3, 5, 5], [3, 3, 4]])
    values = score.astype(float)
    predictions = Predictions(values, values, values, score)
    assert confusion(truth, [3, 4, 5], predictions) == {
        "classes": [3, 4, 5],
        "matrix": [[1.5, 0, 0.5], [0, 0, 0], [0, 0.5, 0.5]],
    }
    thrice = Predictions(*(np.repeat(one[:1], 3, axis=0) for one in predictions))
    thrice.score[0, 0] = 4
    assert confusion(truth, [3, 4, 5], thrice)["matrix"] == [[0.67, 0.33, 1.0], [0, 0, 0], [0, 0, 1.0]]
    with pytest.raises(ValueError, match="4 is not in list"):
        confusion(truth, [3, 5], predictions)


def test_labels_are_described_with_their_prior():
    described = label_counts(np.array([3, 4, 5, 5]), [2, 3, 4, 5])
    assert described == {
        "classes": [2, 3, 4, 5],
        "n": 4,
        "class_counts": {"2": 0, "3": 1, "4": 1, "5": 2},
        "label_prior": 0.75,
    }
    assert label_counts(np.array([3, 4, 5]), [3, 4, 5])["label_prior"] == 0.6667


def test_a_thousand_resamples_take_seconds():
    truth, predictions = made_up(400, 0, repeats=3, steps=1000)
    questions = np.arange(400).astype(str)
    weights = resamples(questions, 1000, seed=0).weights(questions)
    start = time.process_time()
    bootstrap(truth, CLASSES, predictions, weights)
    assert time.process_time() - start < 3  # 20 of these (5 aspects, 4 methods) are to take less than a minute


@pytest.mark.parametrize(
    ("left_out", "not_above", "not_below", "p"),
    [(0, 2, 97, 0.06), (5, 2, 97, 0.06), (0, 97, 2, 0.06), (0, 50, 49, 1.0), (0, 0, 99, 0.02)],
)
def test_a_p_value_doubles_the_smaller_side_of_the_resamples(left_out, not_above, not_below, p):
    draws = np.array([0.5, *[np.nan] * left_out, *[-1.0] * not_above, *[1.0] * not_below])
    nought = np.zeros(len(draws))
    assert gains({"auroc": draws}, {"auroc": nought}, tested=True)["auroc"]["p"] == p
    assert gains({"mae": draws}, {"mae": nought}, tested=True)["mae"]["p"] == p
    level = {"auroc": np.array([0.5, 0.0, 0.0, 0.0, 1.0])}, {"auroc": np.zeros(5)}
    assert gains(*level, tested=True)["auroc"]["p"] == 1.0, "what is level lies on either side"
    empty = np.array([0.5, np.nan])
    assert gains({"auroc": empty}, {"auroc": np.zeros(2)}, tested=True)["auroc"]["p"] is None
