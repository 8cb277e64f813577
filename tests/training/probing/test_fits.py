"""Every head in dual form equals scikit-learn's fit in the primal; left-out errors equal refits."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.probing.fits import INTERCEPT_SCALE, Target, fit_each, left_out_errors
from inspector_training.probing.settings import Setting
from inspector_training.probing.table import Rows
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

RNG = np.random.default_rng(5)
N = 60
X = RNG.normal(size=(N, 5)) + 1
ROWS = Rows(
    np.arange(N) % 50, RNG.integers(0, 3, N), RNG.random(N) + 0.2, np.array([f"q{i}" for i in RNG.integers(0, 30, N)])
)
SCORE = np.clip(np.round(3.5 + X[ROWS.unit, 0] - 1 + RNG.normal(size=N)), 2, 5).astype(int)
TARGET = Target(SCORE + 4.0 * (SCORE >= 4), SCORE, SCORE >= 4)
GRAM = X @ X.T


def explicit(rows, train, sharing, centered):
    own = X[rows.unit].copy()
    for a in np.unique(train.aspect) if centered else ():
        here = train.aspect == a
        own[rows.aspect == a] -= np.average(X[train.unit[here]], axis=0, weights=train.weight[here])
    blocks = [own * np.sqrt(sharing), *(own * (rows.aspect == a)[:, None] for a in range(3))]
    return np.concatenate(blocks, axis=1) / np.sqrt(1 + sharing)


def fit(gram, train, target, setting, **options):
    return fit_each(gram, train, target, [setting], **options)[0]


def take(rows, keep):
    return Rows(*(column[keep] for column in (rows.unit, rows.aspect, rows.weight, rows.question)))


def plain_ridge(train, target, penalty, sharing, centered, rows):
    """Ridge with an unpenalised offset of each aspect, by scikit-learn on centred targets and explicit features."""
    offset = np.zeros(3)
    for a in np.unique(train.aspect) if centered else ():
        here = train.aspect == a
        offset[a] = np.average(target[here], weights=train.weight[here])
    model = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky")
    model.fit(explicit(train, train, sharing, centered), target - offset[train.aspect], sample_weight=train.weight)
    return model.predict(explicit(rows, train, sharing, centered)) + offset[rows.aspect]


@pytest.mark.parametrize("sharing", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("centered", [True, False])
def test_ridge_is_scikit_learns_on_explicit_features(sharing, centered):
    train = take(ROWS, np.arange(45))
    found = fit(
        GRAM,
        train,
        Target(*(column[:45] for column in vars(TARGET).values())),
        Setting("ridge", 2.0, sharing),
        centered=centered,
    )
    penalty = 2.0 * (explicit(train, train, sharing, centered) ** 2).sum() / 45
    expected = plain_ridge(train, TARGET.value[:45], penalty, sharing, centered, ROWS)
    np.testing.assert_allclose(found.values(GRAM, ROWS), expected, atol=1e-8)


@pytest.mark.parametrize("sharing", [0.0, 3.0])
@pytest.mark.parametrize("centered", [True, False])
def test_left_out_errors_are_those_of_refits_without_each_question(sharing, centered):
    aspect = ROWS.aspect.copy()
    aspect[aspect == 2] = 1
    aspect[[0, 7, 9]] = 2  # an aspect of three rows
    rows = replace(ROWS, aspect=aspect)
    penalties = (0.5, 2.0)
    found = left_out_errors(GRAM, rows, TARGET, sharing, penalties, centered=centered)
    scale = (explicit(rows, rows, sharing, centered) ** 2).sum() / N
    for penalty, errors in zip(penalties, found, strict=True):
        for question in np.unique(rows.question):
            out = rows.question == question
            train = take(rows, ~out)
            predicted = plain_ridge(train, TARGET.value[~out], penalty * scale, sharing, centered, take(rows, out))
            np.testing.assert_allclose(errors[out], TARGET.value[out] - predicted, atol=1e-7)


def test_a_question_that_holds_all_of_an_aspect_has_no_left_out_error_there():
    aspect, question = np.minimum(ROWS.aspect, 1), ROWS.question.copy()
    aspect[[0, 7]], question[[0, 7, 9]] = 2, "x"
    rows = replace(ROWS, aspect=aspect, question=question)
    found = left_out_errors(GRAM, rows, TARGET, 3.0, (1.0,))[0]
    assert np.flatnonzero(np.isnan(found)).tolist() == [0, 7]
    out = question == "x"
    scale = (explicit(rows, rows, 3.0, True) ** 2).sum() / N
    predicted = plain_ridge(take(rows, ~out), TARGET.value[~out], scale, 3.0, True, take(rows, np.array([9])))
    assert found[9] == pytest.approx(TARGET.value[9] - predicted[0], abs=1e-6)
    assert not np.isnan(left_out_errors(GRAM, rows, TARGET, 3.0, (1.0,), centered=False)).any()


@pytest.mark.parametrize("head", ["logistic", "svc", "ordinal"])
@pytest.mark.parametrize("sharing", [0.0, 3.0])
def test_classifiers_are_scikit_learns_on_explicit_features(head, sharing):
    features = explicit(ROWS, ROWS, sharing, True)
    features = features / np.sqrt((features**2).sum() / N)
    if head == "ordinal":
        parts = [
            (np.flatnonzero(ROWS.aspect == a), a, t) for a in range(3) for t in np.unique(SCORE[ROWS.aspect == a])[1:]
        ]
    else:
        parts = [(np.flatnonzero(ROWS.aspect == a), a, 4) for a in range(3)]
    rows = np.concatenate([part[0] for part in parts])
    column = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    above = np.concatenate([SCORE[own] >= threshold for own, _, threshold in parts])
    design = np.hstack([features[rows], INTERCEPT_SCALE * np.eye(len(parts))[column]])
    kind = LinearSVC if head == "svc" else LogisticRegression
    options = {"dual": False} if head == "svc" else {}
    model = kind(C=2.0, fit_intercept=False, max_iter=5000, tol=1e-8, **options)
    weight = model.fit(design, above, sample_weight=ROWS.weight[rows]).coef_[0]
    offsets = INTERCEPT_SCALE * weight[features.shape[1] :]
    offset = [offsets[[part[1] == a for part in parts]].mean() for a in range(3)]
    expected = features @ weight[: features.shape[1]] + np.array(offset)[ROWS.aspect]
    found = fit(GRAM, ROWS, TARGET, Setting(head, 0.5, sharing)).values(GRAM, ROWS)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert np.corrcoef(found, expected)[0, 1] > 0.99999


@pytest.mark.parametrize("head", ["ridge", "logistic", "svc", "ordinal"])
def test_labels_of_one_kind_and_constant_features_give_constant_values(head):
    same = Target(np.full(N, 9.0), np.full(N, 5), np.full(N, True))
    values = fit(GRAM, ROWS, same, Setting(head)).values(GRAM, ROWS)
    np.testing.assert_allclose(values, values[0], atol=1e-9)
    if head == "ridge":
        flat = fit(np.ones((50, 50)), ROWS, TARGET, Setting(head)).values(np.ones((50, 50)), ROWS)
        for a in range(3):
            own = ROWS.aspect == a
            mean = np.average(TARGET.value[own], weights=ROWS.weight[own])
            np.testing.assert_allclose(flat[own], mean, atol=1e-9)
