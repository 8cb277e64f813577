"""Maps to a domain's levels, against known truths: the probabilities that made the labels."""

import numpy as np
import pytest
from inspector_training.evaluation.metrics import resamples
from inspector_training.trust.level_maps import (
    Slice,
    apply_map,
    choose_method,
    fit_map,
    levels_of,
    nested_maps,
    ranked_probability_scores,
)
from inspector_training.trust.reliability import brier_parts, fit_of_probabilities
from inspector_training.trust.selective import area_under_risk, risk_coverage
from scipy.special import expit

from inspector_pipeline.calibration import METHODS, LevelMap


def made(n=4000, seed=0, classes=(1, 2, 3, 4, 5), slope=1.5, shift=0.7, per_question=1):
    """Labels of proportional odds in the logit of what an overconfident judge expects."""
    rng = np.random.default_rng(seed)
    place = expit(rng.normal(0, 1.5, n))
    thresholds = np.linspace(-1.5, 1.5, len(classes) - 1) if len(classes) > 2 else np.zeros(1)
    exceed = expit(slope * np.log(place / (1 - place))[:, None] / 2 + shift - thresholds)
    edge = np.ones((n, 1))
    truth = np.hstack([edge, exceed]) - np.hstack([exceed, 0 * edge])
    label = (rng.random((n, 1)) < exceed).sum(axis=1) if len(classes) == 2 else _draw(rng, truth)
    low, high = classes[0], classes[-1]
    own = np.stack([np.interp(place, np.linspace(0, 1, len(classes)), corner) for corner in np.eye(len(classes))], 1)
    question = np.array([f"q{i // per_question}" for i in range(n)])
    return Slice(classes, low + (high - low) * place, own, label, question, np.ones(n, np.bool_)), truth


def _draw(rng, truth):
    return (rng.random((len(truth), 1)) > truth.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("classes", [(0, 1), (1, 2, 3, 4, 5)])
def test_each_method_finds_the_probabilities_that_made_the_labels(method, classes):
    rows, truth = made(classes=classes)
    found = fit_map(method, rows)
    assert LevelMap.from_dict(found.to_dict(), "map", len(classes)) == found, "a judge's config takes it"
    error = np.abs(apply_map(found, rows) - truth).mean()
    assert error < (0.02 if method == "ordinal" else 0.04) < np.abs(rows.probabilities - truth).mean()
    counts = np.bincount(levels_of(found, rows), minlength=len(classes)) / len(rows.label)
    assert np.allclose(counts, np.bincount(rows.label) / len(rows.label), atol=2e-3), "levels are as frequent as labels"


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_map_keeps_the_judges_order_and_leaves_no_class_without_probability(method):
    rows, _ = made(60)
    some = rows.take((rows.label > 0) & (rows.label < 4))  # neither the lowest nor the highest level
    shares = apply_map(fit_map(method, some), rows)
    order = np.argsort(rows.expected)
    assert (np.diff(shares[order] @ np.arange(5)) > 0).all()
    assert (shares[:, [0, 4]] >= 0).all() and shares[:, [0, 4]].max() < 0.01
    assert set(levels_of(fit_map(method, some), rows)) <= {1, 2, 3}


def test_one_level_alone_is_given_to_all():
    rows, _ = made(30)
    same = rows._replace(label=np.full(30, 2))
    assert (apply_map(fit_map("isotonic", same), rows)[:, 2] > 0.99).all()


def test_the_ranked_probability_score_by_hand():
    shares = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    assert np.allclose(ranked_probability_scores(shares, np.array([1, 2])), [(0.2**2 + 0.5**2) / 2, 1.0])
    assert np.allclose(ranked_probability_scores(np.array([[0.3, 0.7]]), np.array([1])), 0.09)


def test_a_calibrated_judge_is_left_as_it_is():
    rows, _ = made(200, classes=(0, 1), per_question=2)
    chance = rows._replace(probabilities=np.full((200, 2), 0.5), label=np.arange(200) // 2 % 2)
    assert choose_method(chance, METHODS, 5, 0) == "none"
    assert choose_method(rows, ("beta",), 5, 0) == "beta"
    rows, _ = made(300, classes=(0, 1), slope=0.4, shift=1.5)
    nested = nested_maps(rows)
    assert "none" not in nested.chosen and sum(nested.chosen.values()) == 5
    ours, own = (ranked_probability_scores(p, rows.label).mean() for p in (nested.probabilities, rows.probabilities))
    assert ours < 0.9 * own


def test_no_question_is_fitted_on_and_held_out():
    rows, _ = made(120, per_question=4)
    fold = nested_maps(rows, ("ordinal",)).fold
    assert all(len(set(fold[rows.question == name])) == 1 for name in set(rows.question))


def test_the_parts_of_the_brier_score_without_bias():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        p = rng.uniform(0.2, 0.8, 60)
        found.append(brier_parts(rng.random(60) < p, p))
    parts = np.mean(found, axis=0)
    assert parts[0] == pytest.approx(0, abs=0.0015), "calibrated: the plain reliability would be about 0.011"
    assert parts[2] == pytest.approx(0.25, abs=0.002) and 0.015 < parts[1] < 0.03
    p = rng.uniform(0.2, 0.8, 20_000)
    shifted = brier_parts(rng.random(20_000) < p - 0.1, p)
    assert shifted.reliability == pytest.approx(0.01, abs=0.002)


def test_reliability_has_an_interval_that_holds_the_truth():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(40):
        p = rng.uniform(0.2, 0.8, 200)
        label = (rng.random(200) < p - 0.1).astype(np.int64)
        questions = np.arange(200).astype(str)
        weights = resamples(questions, 200, seed).weights(questions)
        found, _ = fit_of_probabilities(np.stack([1 - p, p], axis=1), label, (0, 1), weights)
        held += found["reliability"]["low"] <= 0.01 <= found["reliability"]["high"]
    assert held >= 34


def test_risk_falls_with_coverage_where_doubt_is_honest():
    rng = np.random.default_rng(2)
    doubt = rng.uniform(0, 1, 2000)
    error = np.abs(rng.normal(0, doubt))
    questions = np.arange(2000).astype(str)
    curve = risk_coverage(doubt, {"error": error}, resamples(questions, 50, 0).weights(questions))
    assert [point["coverage"] for point in curve] == [round(0.1 * i, 1) for i in range(1, 11)]
    values = [point["error"]["value"] for point in curve]
    assert values == sorted(values) and values[-1] == pytest.approx(error.mean(), abs=1e-4)
    assert area_under_risk(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == 0.25
