"""Score sets hold what they say: on draws with a known truth, by hand, and with few labels."""

import numpy as np
import pytest
from inspector_training.trust.conformal import (
    ScoreSets,
    conformal_quantile,
    coverage_of,
    cross_conformal,
    least_probabilities,
    score_sets,
)


def drawn(rng, n, clusters):
    """Three classes; rows of a cluster share a part of their logits."""
    logits = rng.normal(0, 1.5, (n, 3)) + rng.normal(0, 1, (clusters, 3))[np.arange(n) % clusters]
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (rng.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1)
    said = truth**0.5 / (truth**0.5).sum(axis=1, keepdims=True)  # too cautious
    return said, label, (np.arange(n) % clusters).astype(str)


def test_the_quantile_of_split_conformal_prediction_by_hand():
    misfit, alone = np.array([0.4, 0.1, 0.3, 0.2]), np.arange(4).astype(str)
    assert conformal_quantile(misfit, alone, 0.6) == pytest.approx((0.3, 0.6))  # the third of four: ceil(5 * 0.6)
    assert conformal_quantile(misfit, alone, 0.7) == pytest.approx((0.4, 0.8))
    assert conformal_quantile(misfit, alone, 0.81) == (np.inf, 0.81)
    # Of two questions, each counts a third, and a new one the last third.
    assert conformal_quantile(misfit, np.array(["a", "b", "b", "b"]), 0.5)[0] == 0.4
    assert conformal_quantile(misfit, np.array(["a", "b", "b", "b"]), 1 / 3)[0] == 0.3
    # Equal misfits cannot be parted: four of ten are reached at once.
    assert conformal_quantile(np.repeat([0.0, 0.2], [4, 5]), np.arange(9).astype(str), 0.1) == pytest.approx((0.0, 0.4))


def test_what_the_likeliest_class_holds_is_stated():
    """Of 99 rows the likeliest class is right in 84: less cannot be held, and .9 takes the surest of the others."""
    share = np.linspace(0.51, 0.99, 99)
    probabilities, cluster = np.stack([1 - share, share], axis=1), np.arange(99).astype(str)
    label = np.ones(99, dtype=np.int64)
    label[:15] = 0  # of the rows it is least sure of
    least, stated = least_probabilities(probabilities, label, cluster, 0.8)
    assert stated == pytest.approx(0.84) and (score_sets(probabilities, least).sum(axis=1) == 1).all()
    least, stated = least_probabilities(probabilities, label, cluster, 0.9)
    assert stated == pytest.approx(0.9)
    assert score_sets(probabilities, least).sum() == 99 + 6, "six sets more hold both"


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_new_rows_are_covered_as_stated(coverage):
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        said, label, cluster = drawn(rng, 160, 160)
        least, stated = least_probabilities(said[:100], label[:100], cluster[:100], coverage)
        found.append((score_sets(said[100:], least)[np.arange(60), label[100:]].mean(), stated))
    held, stated = np.mean(found, axis=0)
    likeliest = (lambda said, label, _: (said.argmax(axis=1) == label).mean())(*drawn(rng, 9000, 9000))
    assert held == pytest.approx(stated, abs=0.015) and stated == pytest.approx(max(coverage, likeliest), abs=0.02)


def test_questions_with_many_rows_are_covered_too():
    rng, found = np.random.default_rng(1), []
    for _ in range(300):
        said, label, cluster = drawn(rng, 400, 50)
        old = cluster.astype(int) < 40
        least, _ = least_probabilities(said[old], label[old], cluster[old], 0.8)
        found.append(score_sets(said[~old], least)[np.arange((~old).sum()), label[~old]].mean())
    assert np.mean(found) == pytest.approx(0.81, abs=0.015)


def test_each_label_and_each_group_has_its_own_threshold():
    rng = np.random.default_rng(2)
    said, label, cluster = drawn(rng, 6000, 6000)
    said = said * [1, 1, 0.2]  # the judge hardly ever says the last class
    fold = np.arange(6000) % 5
    plain = cross_conformal(said, label, cluster, fold, 0.9).holds
    by_label = cross_conformal(said, label, cluster, fold, 0.9, by_label=True).holds
    held = by_label[np.arange(6000), label]
    assert plain[label == 2][:, 2].mean() < 0.8
    assert all(held[label == k].mean() > 0.885 for k in range(3))
    group = np.where(rng.random(6000) < 0.3, "hard", "easy")
    label = np.where(group == "hard", rng.integers(0, 3, 6000), label)
    held = cross_conformal(said, label, cluster, fold, 0.9, group=group).holds[np.arange(6000), label]
    assert all(abs(held[group == name].mean() - 0.9) < 0.02 for name in ("hard", "easy"))


def test_few_labels_give_whole_sets():
    said, label, cluster = drawn(np.random.default_rng(3), 5, 5)
    least, stated = least_probabilities(said, label, cluster, 0.9)
    sets = ScoreSets(score_sets(said, least), np.full(5, stated))
    found = coverage_of(sets, label, cluster, 50)
    assert sets.holds.all() and found["whole"] == 1 and found["covered"]["value"] == 1 and found["stated"] == 0.9
    assert score_sets(np.array([[0.2, 0.5, 0.3]]), np.array([0.6, 0.6, 0.6])).tolist() == [[False, True, False]]
