"""A cumulative logit model is recovered, cuts give scores as often as observed, and odd samples break nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.probing import calibration as calibrating
from inspector_training.probing.calibration import Calibration, Rounding, class_probabilities, fit_cumulative_logit

from inspector_pipeline.decisions import decide_regression


def test_the_cumulative_logit_recovers_its_own_parameters():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    thresholds = np.array([-1.0, 0.5, 2.0])
    p = class_probabilities(2.0 * values, thresholds)
    scores = 1 + (rng.random((20_000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    slope, found = fit_cumulative_logit(values, scores, [1, 2, 3, 4])
    assert slope == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(found, thresholds, atol=0.1)
    calibration = Calibration.fit(values, scores, [1, 2, 3, 4])
    given_shares = np.bincount(calibration.class_index(values), minlength=4) / len(values)
    np.testing.assert_allclose(given_shares, np.bincount(scores)[1:] / len(values), atol=0.01)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(5, 30))
def test_calibration_never_breaks_on_small_or_odd_samples(seed, n):
    rng = np.random.default_rng(seed)
    classes = [1, 2, 3, 4, 5]
    calibration = Calibration.fit(rng.normal(size=n) * 10.0 ** rng.integers(-3, 4), rng.integers(1, 6, n), classes)
    p = calibration.probabilities(rng.normal(size=10))
    assert np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(1), 1)
    assert (np.diff(calibration.cuts) >= 0).all() and (np.diff(calibration.thresholds) > 0).all()


@settings(deadline=None)
@given(st.lists(st.floats(-3, 9), min_size=1, max_size=20), st.sampled_from([[0, 1], [1, 2, 3, 4, 5], [2, 5]]))
def test_rounding_is_the_rule_that_a_judge_applies(values, classes):
    values = np.float32(np.round(values, 2)).astype(float)
    levels = torch.tensor(classes, dtype=torch.float32)
    index, p = decide_regression(torch.tensor(values, dtype=torch.float32)[:, None], levels)
    np.testing.assert_allclose(Rounding(classes).probabilities(values), p.numpy(), atol=1e-5)
    near = np.abs((values - 0.5) - np.round(values - 0.5)) > 1e-4
    np.testing.assert_array_equal(Rounding(classes).class_index(values)[near], index.numpy()[near])


def test_a_logit_is_found_on_any_scale_from_where_the_shares_are(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    scores = np.digitize(values + rng.normal(size=200), [-1, 0.5])
    slope, thresholds = fit_cumulative_logit(values, scores, [0, 1, 2])
    small, same = fit_cumulative_logit(values / 100, scores, [0, 1, 2])
    assert small == pytest.approx(100 * slope, rel=1e-3) and same == pytest.approx(thresholds, abs=1e-3)
    asked = []

    def minimize(loss, start, **how):
        asked.append((start, how))
        return SimpleNamespace(x=start)

    monkeypatch.setattr(calibrating, "minimize", minimize)
    values = np.array([-1.0, 1, 3, 5])
    fit_cumulative_logit(values, np.array([2, 3, 4, 4]), [1, 2, 3, 4, 5, 6])
    start, how = asked.pop()
    middle = 2 / np.sqrt(5)
    first = middle - np.log([0.98 / 0.02, 0.75 / 0.25, 1.0, 0.02 / 0.98, 0.02 / 0.98])
    steps = np.log([*np.diff(first)[:3], 0.01])
    assert start == pytest.approx([0.0, first[0], *steps]) and how == {"method": "L-BFGS-B"}
