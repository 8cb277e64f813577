"""A judge's error between generators: known truths, and what the interval of its spread covers."""

import numpy as np
import pytest
from inspector_training.evaluation.between import (
    Effects,
    _within_slope,
    between_generators,
    generator_effects,
    rank_correlation,
)


def simulated(rng, *, k=23, n=200, sd=0.05, slope=0.3, same_quality=False, share=1.0):
    """Scores and labels of k generators on n questions; of each question only a share of the answers is kept."""
    quality = np.full(k, 0.5) if same_quality else rng.uniform(0.3, 0.9, k)
    hard = rng.normal(0, 0.15, n)
    right = (rng.random((n, k)) < np.clip(quality - hard[:, None], 0, 1)).astype(float)
    score = 0.4 + slope * right - hard[:, None] + rng.normal(0, sd, k) + rng.normal(0, 0.1, (n, k))
    question, generator = (place.ravel() for place in np.indices((n, k)).astype(str))
    kept = rng.random(n * k) < share
    return score.ravel()[kept], right.ravel()[kept], question[kept], generator[kept]


def test_where_all_answer_all_the_effects_are_plain_means():
    score, label, question, generator = simulated(np.random.default_rng(0), k=5, n=30)
    found = generator_effects(score, label, question, generator)
    table = score.reshape(30, 5)
    assert found.adjusted and found.mean[:, 0] == pytest.approx(table.mean(axis=0) - table.mean())
    spread = table - table.mean(axis=1, keepdims=True)
    assert found.covariance[:, 0, 0] == pytest.approx(spread.var(axis=0, ddof=1) / 30)


def test_questions_that_only_some_answer_are_adjusted_for():
    rng = np.random.default_rng(1)
    question, generator = np.repeat(np.arange(300), 2).astype(str), np.tile(["a", "b"], 300)
    generator[:300:2] = "c"  # c and b answer the first half, a and b the second, which is easier by 1
    easy = (np.arange(600) >= 300).astype(float)
    effect = {"a": 0.0, "b": 0.2, "c": 0.1}
    score = easy + np.array([effect[name] for name in generator]) + rng.normal(0, 0.01, 600)
    mean = generator_effects(score, score, question, generator).mean[:, 0]
    assert mean - mean.mean() == pytest.approx([-0.1, 0.1, 0.0], abs=0.005)
    alone = generator_effects(score, score, np.arange(600).astype(str), generator)
    assert not alone.adjusted, "each question is answered by one"
    means = np.array([score[generator == name].mean() for name in "abc"])
    assert alone.mean[:, 0] - alone.mean[:, 0].mean() == pytest.approx(means - means.mean())
    assert alone.residual.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize(("same_quality", "share"), [(False, 1.0), (True, 0.3)])
def test_the_spread_is_found_and_its_interval_covers_it(same_quality, share):
    rng, found = np.random.default_rng(2), []
    for _ in range(60):
        found.append(between_generators(*simulated(rng, n=120, same_quality=same_quality, share=share)))
    sds = np.array([[one["sd"][name] for name in ("value", "low", "high")] for one in found])
    assert np.sqrt(np.mean(sds[:, 0] ** 2)) == pytest.approx(0.05, abs=0.003)
    assert np.mean((sds[:, 1] <= 0.05) & (sds[:, 2] >= 0.05)) >= 0.88  # 95 % but for the luck of 60
    assert {one["slope"]["from"] for one in found} == ({"answers"} if same_quality else {"generators"})
    slopes = np.array([[one["slope"][name] for name in ("value", "low", "high")] for one in found])
    assert slopes[:, 0].mean() == pytest.approx(0.3, abs=0.02)
    assert np.mean((slopes[:, 1] <= 0.3) & (slopes[:, 2] >= 0.3)) >= 0.88
    assert found[0]["df"] == (22 if same_quality else 21)


def test_a_judge_without_a_preference_has_none():
    rng = np.random.default_rng(3)
    found = [between_generators(*simulated(rng, sd=0.0, n=150)) for _ in range(20)]
    assert np.median([one["sd"]["value"] for one in found]) < 0.008 and min(one["sd"]["low"] for one in found) == 0
    errors = [one["error"] for one in found[0]["by_generator"].values()]
    assert sum(errors) == pytest.approx(0, abs=1e-3) and len(errors) == 23
    assert found[0]["spearman"]["low"] > 0.9


def test_too_few_generators_or_one_label_tell_nothing():
    score, label, question, generator = simulated(np.random.default_rng(4), k=3)
    assert between_generators(score, label, question, generator) is None
    score, label, question, generator = simulated(np.random.default_rng(4), k=6)
    assert between_generators(score, np.ones_like(label), question, generator) is None
    named = np.where(generator == "5", "", generator)
    assert between_generators(score, label, question, named)["n_generators"] == 5


def test_of_two_questions_each_counts_once():
    table = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 8.0]])
    question, generator = (place.ravel().astype(str) for place in np.indices((2, 3)))
    found = generator_effects(table.ravel(), table.ravel(), question, generator)
    spread = table - table.mean(axis=1, keepdims=True)
    assert found.covariance[:, 0, 0] == pytest.approx(spread.var(axis=0, ddof=1) / 2)


def test_one_generator_has_no_effect():
    found = generator_effects(np.array([1.0, 2.0, 5.0]), np.array([0.0, 1.0, 1.0]), ["q", "q", "r"], ["a"] * 3)
    assert found.adjusted and found.mean.tolist() == [[0.0, 0.0]] and not found.covariance.any()
    assert found.residual.tolist() == [[-0.5, -0.5], [0.5, 0.5], [0.0, 0.0]] and found.question.tolist() == [0, 0, 1]


def test_answers_that_are_all_alike_beside_question_and_generator_have_no_slope():
    found = Effects(
        np.array(["a"]), np.zeros((1, 2)), np.zeros((1, 2, 2)), np.array([[1.0, 0.0]]), np.zeros(1, int), True
    )
    assert _within_slope(found) == (0.0, 0.0)
    told = found._replace(residual=np.array([[1.0, 2], [0, -1], [1, 1]]), question=np.array([0, 0, 2]))
    slope = (2 + 1) / (4 + 1 + 1)
    parts = [2 * (1 - slope * 2) - (0 + slope), 1 - slope]
    assert _within_slope(told) == pytest.approx((slope, np.hypot(*parts) / 6))


def test_rank_correlation_has_the_published_interval():
    one = np.arange(10.0)
    other = np.array([0, 1, 2, 3, 4, 9, 8, 7, 6, 5.0])
    found = rank_correlation(one, other)
    r = 1 - 6 * np.sum((one - other) ** 2) / (10 * 99)
    reach = 1.96 * np.sqrt((1 + r**2 / 2) / 7)
    assert found == {"value": round(r, 4)} | {
        name: round(float(np.tanh(np.arctanh(r) + sign * reach)), 4) for name, sign in (("low", -1), ("high", 1))
    }
    for turned in (one, -one):  # a perfect one has an interval, if none that is seen
        assert rank_correlation(one, turned)["high"] == rank_correlation(one, turned)["low"] == np.sign(turned @ one)
    assert rank_correlation(one[:5], other[:5]) is not None and rank_correlation(np.zeros(10), one) is None
    assert rank_correlation(one[:4], other[:4]) is None and rank_correlation(one, np.zeros(10)) is None
