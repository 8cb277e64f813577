"""Correlations against scipy, on rows as they are and resampled, and where nothing can be correlated."""

import numpy as np
import pytest
from inspector_training.evaluation.correlations import _is_tiny, correlations, pearson
from scipy import stats


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 6, 40).astype(float)
    values = np.round(truth + rng.normal(0, 1.5, 40), 1)
    found = correlations(truth, values, 200, 0)
    plain = {
        "spearman": stats.spearmanr(truth, values).statistic,
        "pearson": stats.pearsonr(truth, values).statistic,
        "kendall": stats.kendalltau(truth, values).statistic,
    }
    assert {name: one["value"] for name, one in found.items()} == {name: round(one, 4) for name, one in plain.items()}
    assert all(one["low"] < one["value"] < one["high"] and one["high"] - one["low"] < 0.6 for one in found.values())
    turned = correlations(truth, -values, 200, 0)
    assert {name: one["value"] for name, one in turned.items()} == {name: -round(one, 4) for name, one in plain.items()}
    weights = rng.integers(0, 4, (5, 40)).astype(float)
    drawn = [np.repeat(np.arange(40), weight.astype(int)) for weight in weights]
    expected = [stats.pearsonr(truth[rows], values[rows]).statistic for rows in drawn]
    np.testing.assert_allclose(pearson(truth, values, weights), expected, atol=1e-12)


def test_what_is_constant_follows_nothing():
    rising, flat = np.arange(6.0) / 10, np.full(6, 0.1)  # of 0.1 a mean is rounded
    nothing = correlations(rising, flat, 50, 0)
    assert [one["value"] for one in nothing.values()] == [0.0, 0.0, 0.0]
    unknown = correlations(flat, rising, 50, 0)
    assert [one["value"] for one in unknown.values()] == [None, None, None]
    assert all(one["left_out"] == 50 for one in unknown.values())
    np.testing.assert_equal(pearson(flat, flat, np.ones((1, 6))), [np.nan])
    small = 1e-6 * rising  # small is not constant
    assert correlations(rising, small, 10, 0)["pearson"]["value"] == pytest.approx(1)
    assert correlations(small, rising, 10, 0)["pearson"]["value"] == pytest.approx(1)
    bound = 1e-20 * 3 * (1 + 3) ** 2
    found = _is_tiny(np.array([0.0, 0.99, 1.01]) * bound, np.array([0.0, -3.0, 1.0]))
    assert found.tolist() == [True, True, False]
