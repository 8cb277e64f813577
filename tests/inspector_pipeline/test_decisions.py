"""Every decision rule against scikit-learn or numbers worked out by hand, at its borders too."""

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC, LinearSVC

from inspector_pipeline import decisions
from inspector_pipeline.decisions import (
    PREFERENCE,
    RULES,
    Rule,
    count_votes,
    couple_pairwise,
    decide_calibrated,
    decide_calibrated_votes,
    decide_hard_votes,
    decide_logistic,
    decide_margin,
    decide_one_vs_rest,
    decide_ordinal,
    decide_regression,
    decide_votes,
    level_shares,
)


def data(n_classes):
    return make_classification(90, 6, n_informative=5, n_redundant=0, n_classes=n_classes, random_state=3)


def values_of(model, x):
    return torch.tensor(model.decision_function(x).reshape(len(x), -1), dtype=torch.float32)


def same(decision, classes, probabilities):
    np.testing.assert_array_equal(decision.class_index.numpy(), classes)
    np.testing.assert_allclose(decision.probabilities.numpy(), probabilities, atol=2e-5)
    assert decision.class_index.dtype == torch.int64 and decision.probabilities.dtype == torch.float32


def test_one_vs_rest_is_scikit_learns():
    x, y = data(3)
    model = OneVsRestClassifier(LogisticRegression()).fit(x, y)
    same(decide_one_vs_rest(values_of(model, x)), model.predict(x), model.predict_proba(x))
    nothing = decide_one_vs_rest(torch.full((1, 4), -300.0))  # whose sigmoids are all 0
    assert nothing.probabilities.tolist() == [[0.25] * 4]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_margins_and_hard_votes_are_certain_of_scikit_learns_class(n_classes):
    x, y = data(n_classes)
    model = LinearSVC(random_state=0).fit(x, y)
    predicted = model.predict(x)
    same(decide_margin(values_of(model, x)), predicted, np.eye(n_classes)[predicted])
    votes = SVC(kernel="linear", decision_function_shape="ovo").fit(x, y)
    sign = -1 if n_classes == 2 else 1  # scikit-learn turns the sign of the one pair of two classes
    predicted = votes.predict(x)
    same(decide_hard_votes(sign * values_of(votes, x)), predicted, np.eye(n_classes)[predicted])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", ["margins", "votes"])
def test_calibrated_members_are_averaged_as_scikit_learn_does(n_classes, kind):
    x, y = data(n_classes)
    model = LinearSVC(random_state=0) if kind == "margins" else SVC(kernel="linear")
    model = CalibratedClassifierCV(model, cv=3).fit(x, y)
    members = model.calibrated_classifiers_
    a, b = (
        torch.tensor([getattr(one, name) for member in members for one in member.calibrators], dtype=torch.float32)
        for name in ("a_", "b_")
    )
    if kind == "votes" and n_classes > 2:
        for member in members:
            member.estimator.decision_function_shape = "ovo"
        decide = decide_calibrated_votes
    else:
        decide = decide_calibrated
    values = torch.cat([values_of(member.estimator, x) for member in members], dim=1)
    for member in members:
        if kind == "votes":
            member.estimator.decision_function_shape = "ovr"
    same(decide(values, a, b, n_classes), model.predict(x), model.predict_proba(x))


def test_borders_of_two_classes_and_of_cuts_belong_to_the_lower_score():
    same(decide_logistic(torch.tensor([[0.0], [1e-6]])), [0, 1], [[0.5, 0.5]] * 2)
    same(decide_margin(torch.tensor([[0.0], [1e-6]])), [0, 1], np.eye(2))
    thresholds, cuts = torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 2.0])
    decision = decide_ordinal(torch.tensor([[0.0], [2.0], [2.1]]), thresholds, cuts)
    low, high = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))
    assert decision.class_index.tolist() == [0, 1, 2]
    np.testing.assert_allclose(decision.probabilities[0], [1 - low, low - high, high], atol=1e-6)
    assert level_shares(torch.tensor([[0.25, 0.5]])).tolist() == [[0.75, 0.0, 0.5]]  # crossed, so none is below 0


def test_regression_is_the_nearest_level_and_its_expected_score_the_prediction():
    levels = torch.tensor([1.0, 2.0, 4.0])
    said = torch.tensor([[-3.0], [1.25], [1.5], [2.0], [2.9], [3.0], [4.0], [9.0]])
    decision = decide_regression(said, levels)
    assert decision.class_index.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(decision.probabilities @ levels, said[:, 0].clamp(1, 4), atol=1e-6)
    np.testing.assert_allclose(decision.probabilities[1], [0.75, 0.25, 0], atol=1e-6)
    assert (decision.probabilities > 0).sum(dim=1).max() == 2
    assert decide_regression(torch.tensor([[0.5], [0.49]]), torch.tensor([0.0, 1.0])).class_index.tolist() == [1, 0]


def test_votes_of_many_classes_are_counted_and_pairs_stand_in_order():
    n = 20
    first, second = np.triu_indices(n, 1)
    strength = np.random.default_rng(0).permutation(n)
    votes = count_votes(torch.tensor(strength[first] - strength[second], dtype=torch.float32)[None])
    assert votes.tolist() == [strength.tolist()]  # who beats how many others
    assert count_votes(torch.zeros(1, 3)).tolist() == [[0, 1, 2]], "nought is a vote for the second"


def test_certain_pairs_keep_a_chance_of_one_in_ten_million():
    decision = decide_votes(torch.tensor([[1e4], [-1e4]]), torch.tensor([-1.0]), torch.tensor([0.0]))
    assert decision.probabilities[0].tolist() == pytest.approx([1, 1e-7], rel=0.1)
    assert 0 < decision.probabilities[1, 0] < 1e-6
    decision = decide_votes(torch.tensor([[2.0]]), torch.tensor([-1.0]).requires_grad_(), torch.tensor([0.5]))
    assert not decision.probabilities.requires_grad
    assert decision.probabilities[0, 0].item() == pytest.approx(1 / (1 + np.exp(-1.5)), abs=2e-3)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_coupling_finds_shares_that_all_pairs_agree_on(k):
    p = torch.arange(1.0, k + 1, dtype=torch.float64)[None]
    p = torch.cat([p, p.flip(1) ** 2])
    p = p / p.sum(dim=1, keepdim=True)
    r = p[:, :, None] / (p[:, :, None] + p[:, None, :])
    r.diagonal(dim1=1, dim2=2).zero_()
    torch.testing.assert_close(couple_pairwise(r), p, atol=0.01, rtol=0)


def test_coupling_minimises_the_pairs_disagreement():
    generator = torch.Generator().manual_seed(0)
    k = 4
    r = torch.rand(8, k, k, generator=generator, dtype=torch.float64).clamp(0.05, 0.95)
    r = torch.triu(r, 1) + torch.tril(1 - r.transpose(1, 2), -1)
    found = couple_pairwise(r)
    for one, own in zip(r.numpy(), found.numpy(), strict=True):
        q = np.diag((one**2).sum(axis=0)) - one.T * one  # Wu, Lin and Weng (2004), equations 18 and 21
        system = np.block([[q, np.ones((k, 1))], [np.ones((1, k)), np.zeros((1, 1))]])
        exact = np.linalg.solve(system, [0.0] * k + [1.0])[:k]
        np.testing.assert_allclose(own, exact, atol=0.01)


def test_every_rule_says_what_it_needs():
    def needs(n):
        return {
            name: (rule.n_values(n), {key: size(n) for key, size in rule.parameters.items()}, rule.takes_members)
            for name, rule in RULES.items()
        }

    assert needs(2) == {
        "logistic": (1, {}, False),
        "one_vs_rest": (2, {}, False),
        "margin": (1, {}, False),
        "ordinal": (1, {"thresholds": 1, "cuts": 1}, False),
        "regression": (1, {"levels": 2}, False),
        "votes": (1, {"platt_a": 1, "platt_b": 1}, False),
        "hard_votes": (1, {}, False),
        "calibrated": (1, {"slope": 1, "offset": 1}, True),
        "calibrated_votes": (1, {"slope": 2, "offset": 2}, True),
        PREFERENCE: (1, {}, False),
    }
    assert needs(5) == {
        "logistic": (5, {}, False),
        "one_vs_rest": (5, {}, False),
        "margin": (5, {}, False),
        "ordinal": (1, {"thresholds": 4, "cuts": 4}, False),
        "regression": (1, {"levels": 5}, False),
        "votes": (10, {"platt_a": 10, "platt_b": 10}, False),
        "hard_votes": (10, {}, False),
        "calibrated": (5, {"slope": 5, "offset": 5}, True),
        "calibrated_votes": (10, {"slope": 5, "offset": 5}, True),
        PREFERENCE: (1, {}, False),
    }


def test_numbers_on_which_coupling_rests_are_what_they_were():
    assert (decisions._COUPLING_MAX_ITER, decisions._MIN_PAIR_PROBABILITY) == (100, 1e-7)
    assert Rule(None, None).takes_members is False


@pytest.mark.parametrize("name", [name for name in RULES if name != "votes"])  # which are coupled on the CPU
def test_rules_stay_on_the_device_of_their_values(name):
    rule = RULES[name]
    sizes = {"calibrated": 2, "calibrated_votes": 2}.get(name, 1)  # members
    made = {one: torch.empty(sizes * size(4), device="meta") for one, size in rule.parameters.items()}
    further = {"n_classes": 4} if rule.takes_members else {}
    found = rule.decide(torch.empty(3, sizes * rule.n_values(4), device="meta"), **made, **further)
    assert found.class_index.device.type == found.probabilities.device.type == "meta"
    assert found.probabilities.shape == (3, 4 if rule.n_values(4) > 1 or made else 2)
