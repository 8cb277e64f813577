"""Prediction-powered means against simulations whose truth is known, and against the papers' formulas."""

import numpy as np
import pytest
from inspector_training.trust.prediction_powered import estimate_many, estimate_mean

DRAWS, N_UNLABELLED = 2000, 300


@pytest.mark.parametrize(("share", "n"), [(0.5, 60), (0.8, 60), (0.9, 100), (0.95, 60), (None, 40)])
@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_intervals_hold_the_truth_in_95_percent(share, n, strength):
    rng = np.random.default_rng(round(100 * (share or 0) + strength))
    size = (DRAWS, n + N_UNLABELLED)
    labels = rng.normal(2.0, 1.0, size) if share is None else (rng.random(size) < share).astype(float)
    truth = 2.0 if share is None else share
    said = 1 / (1 + np.exp(-(rng.normal(size=size) + strength * (labels - truth))))  # on a scale of its own
    found = estimate_many(labels[:, :n], said[:, :n], said[:, n:])
    covered = ((found["low"] <= truth) & (truth <= found["high"])).mean()
    assert 0.93 <= covered <= 0.97, covered
    assert found["value"].mean() == pytest.approx(truth, abs=0.005 + 0.005 * (share is None))
    saved = np.median(found["effective_n"]) - n
    assert saved > 0.2 * n if strength == 3.0 and share in (0.5, 0.8, None) else saved > -0.06 * n


def test_the_formula_of_the_paper():
    rng = np.random.default_rng(0)
    n, others = 50, 400
    y = rng.normal(size=n)
    f, rest = y + rng.normal(size=n), rng.normal(0, 2**0.5, others)
    found = estimate_mean(y, f, rest)
    variances = f.var(), rest.var()  # each of its own rows: Var(f)/n + Var(f)/N, as pooled in the paper
    tuning = np.cov(y, f, bias=True)[0, 1] / (variances[0] + variances[1] * n / others)
    assert found.tuning == pytest.approx(tuning)
    assert found.value == pytest.approx(y.mean() + tuning * (rest.mean() - f.mean()))
    left = (y - tuning * f).var() / n + tuning**2 * variances[1] / others
    assert ((found.high - found.low) / 2 / 2.0106) ** 2 == pytest.approx(left * 50 / 48, rel=1e-3)  # t of 48
    assert found.effective_n == pytest.approx(y.var() / n * 50 / 49 / (left * 50 / 48) * n)
    assert found.labels_saved == found.effective_n - n > 10


def test_a_judge_that_says_nothing_changes_nothing():
    y = np.array([0.0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1])
    found = estimate_mean(y, np.full(12, 0.7), np.full(90, 0.7))
    assert (found.tuning, found.value, found.effective_n) == (0, y.mean(), 12)
    assert (found.low, found.high) == (found.labels_low, found.labels_high)
    middle, half = 0.75 + 1.96**2 / 22, np.sqrt(1.96**2 / 11 * 0.75 * 0.25 + 1.96**4 / 4 / 11**2)
    wilson = [(middle - half) / (1 + 1.96**2 / 11), (middle + half) / (1 + 1.96**2 / 11)]  # of 11: one is estimated
    assert [found.low, found.high] == pytest.approx(wilson, abs=1e-4)
    alone = estimate_mean(y, np.linspace(0, 1, 12), np.empty(0))
    assert (alone.tuning, alone.value, alone.n_unlabelled) == (0, y.mean(), 0)


def test_labels_that_are_all_alike_leave_room():
    found = estimate_mean(np.ones(50), np.linspace(0, 1, 50), np.linspace(0, 1, 300))
    assert found.value == 1 and 0.91 < found.low < 0.95 and found.high == pytest.approx(1)


def test_many_draws_are_as_one():
    rng = np.random.default_rng(3)
    y, f, rest = (rng.random((4, size)) for size in (30, 30, 200))
    found = estimate_many(y, f, rest)
    for at in range(4):
        one = estimate_mean(y[at], f[at], rest[at])
        assert (one.value, one.low, one.high) == pytest.approx([found[key][at] for key in ("value", "low", "high")])


def test_rows_of_one_question_are_one_draw():
    rng, held, alone = np.random.default_rng(4), [], []
    for _ in range(300):
        question = np.repeat(np.arange(200), 4)
        y = rng.normal(size=200)[question] + 0.5 * rng.normal(size=800)
        f = 0.7 * y + 0.5 * rng.normal(size=800) + 3
        mine = np.isin(question, rng.choice(200, 30, replace=False)) & (np.arange(800) % 4 < 3)
        parts = y[mine], f[mine], f[~mine]
        own = {"question": question[mine], "question_unlabelled": question[~mine]}
        for kept, clusters in ((held, own), (alone, {})):
            found = estimate_mean(*parts, **clusters)
            kept.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(held) <= 0.98 and np.mean(alone) < 0.85


def test_two_questions_are_too_few():
    with pytest.raises(ValueError, match="3 or more questions, but got 2"):
        estimate_mean(np.array([1.0, 0, 1]), np.ones(3), np.ones(4), question=np.array(["a", "a", "b"]))
