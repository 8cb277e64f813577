import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from inspector_pipeline.decisions import RULES, couple_pairwise, decide_logistic, decide_ordinal, decide_votes
from inspector_pipeline.heads import LinearProbe


def data(n_classes, seed=0):
    x, y = make_classification(
        400, 12, n_informative=8, n_classes=n_classes, n_clusters_per_class=1, class_sep=0.7, random_state=seed
    )
    return x * 3 + 5, y


def probe_of(coef, intercept, n_classes, rule, center):
    probe = LinearProbe(3, 4, n_classes, rule)
    probe.weight.data = torch.tensor(coef.reshape(-1, 3, 4), dtype=torch.float32)
    probe.bias.data = torch.tensor(intercept + coef @ center, dtype=torch.float32)
    return probe


def features(x, center):
    return torch.tensor(x - center, dtype=torch.float32).reshape(-1, 3, 4)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_logistic_equals_sklearn_on_coefficients_and_probabilities(n_classes):
    x, y = data(n_classes)
    model = LogisticRegression(max_iter=2000).fit(x, y)
    probe = probe_of(model.coef_, model.intercept_, n_classes, "logistic", x.mean(0))
    values = probe(features(x, x.mean(0)))
    truth = model.decision_function(x).reshape(len(x), -1)
    np.testing.assert_allclose(values.numpy(), truth, atol=1e-4)
    decision = probe.decide(values)
    np.testing.assert_array_equal(decision.class_index.numpy(), model.predict(x))
    np.testing.assert_allclose(decision.probabilities.numpy(), model.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_votes_equal_libsvm_in_classes_and_coupled_probabilities(n_classes):
    x, y = data(n_classes, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # SVC(probability=True) goes away; its files stay
        model = SVC(kernel="linear", probability=True, random_state=0, decision_function_shape="ovo").fit(x, y)
        truth = model.predict_proba(x)
        platt_a, platt_b = model.probA_, model.probB_
    sign = -1.0 if n_classes == 2 else 1.0  # sklearn turns the sign of the one pair of two classes
    probe = probe_of(sign * model.coef_, sign * model.intercept_, n_classes, "votes", x.mean(0))
    probe.platt_a.data = torch.tensor(platt_a, dtype=torch.float32)
    probe.platt_b.data = torch.tensor(platt_b, dtype=torch.float32)
    values = probe(features(x, x.mean(0)))
    decision = probe.decide(values)
    clear = values.abs().amin(dim=1).numpy() > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(decision.class_index.numpy()[clear], model.predict(x)[clear])
    np.testing.assert_allclose(decision.probabilities.numpy(), truth, atol=1e-5)


def test_a_tie_of_votes_goes_to_the_lower_class():
    circle = torch.tensor([[1.0, -1.0, 1.0]])  # 0 beats 1, 2 beats 0, 1 beats 2
    assert decide_votes(circle, -torch.ones(3), torch.zeros(3)).class_index.item() == 0


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_coupling_of_a_row_does_not_depend_on_the_batch(k, seed):
    generator = torch.Generator().manual_seed(seed)
    r = torch.rand(4, k, k, generator=generator, dtype=torch.float64).clamp(1e-7, 1 - 1e-7)
    r = torch.triu(r, 1) + torch.tril(1 - r.transpose(1, 2), -1)
    together = couple_pairwise(r)
    assert torch.equal(together, torch.cat([couple_pairwise(r[i : i + 1]) for i in range(4)]))
    torch.testing.assert_close(together.sum(1), torch.ones(4, dtype=torch.float64))


@given(st.floats(-8, 8), st.lists(st.floats(-5, 5), min_size=1, max_size=4), st.floats(-2, 2))
def test_ordinal_score_counts_cuts_and_probabilities_follow_the_cumulative_logit(value, thresholds, shift):
    value = torch.tensor(value).item()  # as float32 holds it
    thresholds = torch.tensor(sorted(thresholds))
    decision = decide_ordinal(torch.tensor([[value]]), thresholds, thresholds + shift)
    p = decision.probabilities[0].double()
    assert p.min() >= 0 and abs(p.sum() - 1) < 1e-5
    above = 1 - p.cumsum(0)[:-1]
    torch.testing.assert_close(above, torch.sigmoid(value - thresholds.double()), atol=1e-5, rtol=0)
    assert decision.class_index.item() == sum(value > cut for cut in (thresholds + shift).tolist())


def test_two_logistic_classes_keep_small_probabilities():
    decision = decide_logistic(torch.tensor([[30.0], [-30.0]]))
    assert decision.probabilities[0, 0].item() == pytest.approx(9.4e-14, rel=0.01)
    assert decision.class_index.tolist() == [1, 0]


def test_probes_stay_float32_under_autocast():
    probe = LinearProbe(1, 4, 3, "logistic")
    probe.weight.data = torch.randn(3, 1, 4)
    x = torch.randn(2, 1, 4)
    plain = probe(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(probe(x), plain)


def test_number_of_decision_values():
    assert [RULES[rule].n_values(2) for rule in ("logistic", "votes", "ordinal")] == [1, 1, 1]
    assert [RULES[rule].n_values(5) for rule in ("logistic", "votes", "ordinal")] == [5, 10, 1]
