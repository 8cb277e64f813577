"""Limits of what is familiar come from rows of generators and questions that were held out."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.probing.familiarity import (
    FamiliarityConfig,
    distances,
    find_familiar,
    fit_space,
    states_of,
    unfamiliar_shares,
)
from inspector_training.probing.fitted import familiar_rows
from inspector_training.rows.records import LabelledPair
from support.made_up import HIDDEN, make_features

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.features import Feature

WORDS = ["first", "then", "we", "add", "the", "numbers", "of", "apples", "and", "pears", "which", "gives", "a", "sum"]
READ = [Feature("chat", layer, pooling, "rms_normed") for layer in (1, 2, 3) for pooling in ("last", "response_mean")]
CONFIG = FamiliarityConfig(n_layers=2, n_components=3)


def make_rows(n=100, generators=("a", "b", "c"), auxiliary=False, seed=0):
    """Answers of generators to n questions, in words of a small vocabulary and numbers."""
    rng = np.random.default_rng(seed)
    return [
        LabelledPair(
            f"q{i}",
            f"How much are {i + 10} apples and {rng.integers(10, 99)} pears?",
            f"{' '.join(rng.choice(WORDS, 12 + i % 9))} {i + 10} + {rng.integers(10, 99)}",
            {"logic": int(rng.integers(1, 6))},
            generator=generator,
            auxiliary=auxiliary,
        )
        for i in range(n)
        for generator in generators
    ]


@pytest.fixture
def shifted(monkeypatch):
    """Give the rows of a generator other states, by a number that is added."""

    def shift(features, by):
        plain = type(features).matrix

        def matrix(self, feature):
            values = plain(self, feature).copy()
            for name, number in by.items():
                values[[pair.generator == name for pair in self.pairs]] += number
            return values

        monkeypatch.setattr(type(features), "matrix", matrix)
        return features

    return shift


def test_a_generator_that_is_unlike_the_others_sets_the_threshold(tmp_path, shifted):
    features = make_features(tmp_path, make_rows())
    alike, other = find_familiar(features, READ, CONFIG), find_familiar(shifted(features, {"c": 9}), READ, CONFIG)
    assert [feature.layer for feature in alike.features] == [1, 3]
    assert {feature.pooling for feature in alike.features} == {"response_mean"}
    assert alike.report["held_out"].startswith("generators")
    for found in (alike, other):
        assert found.report["unfamiliar"] <= 0.01 and set(found.report["by_generator"]) == {"a", "b", "c"}
    states, _ = states_of(features, other.features, auxiliary=False)
    assert other.threshold > 3 * distances(other.tensors, states).max()  # with its rows there, they are not far
    assert alike.threshold < 0.5 * other.threshold


def test_rows_of_their_kind_are_familiar_and_others_are_not(tmp_path, shifted):
    found = find_familiar(make_features(tmp_path / "fit", make_rows(generators="abcdefgh")), READ, CONFIG)
    new = [replace(pair, generator="new") for pair in make_rows(generators=("x",), seed=1)]
    far = [replace(pair, generator="far states") for pair in new]
    echo = [replace(pair, prediction=pair.question, generator="echo") for pair in new]
    noise = [replace(pair, prediction="zxcv wqrt " * 8, generator="noise") for pair in new]
    talk = [replace(pair, prediction=" ".join(WORDS[:12]), generator="talk") for pair in new]
    poems = [replace(pair, question="Please write some lines on autumn, dear poet", generator="poem") for pair in new]
    features = make_features(tmp_path / "others", [*new, *far, *echo, *noise, *talk, *poems], seed=1)
    shares = unfamiliar_shares(found, shifted(features, {"far states": 9}))
    assert {name: own["rows"] for name, own in shares.items()} == dict.fromkeys(shares, 100)
    assert shares.pop("new")["unfamiliar"] <= 0.04
    assert len(shares) == 5 and all(own["unfamiliar"] >= 0.95 for own in shares.values()), shares


def test_auxiliary_and_unlabelled_rows_are_not_familiar(tmp_path):
    normal, strange = make_rows(), make_rows(20, ("form:noise",), auxiliary=True)
    others = [*strange, replace(normal[0], scores={})]
    features = make_features(tmp_path, [*normal, *others])
    found = find_familiar(features, READ, CONFIG)
    states = np.concatenate([features.matrix(feature)[: len(normal)] for feature in found.features], axis=1)
    np.testing.assert_allclose(found.tensors["center"], states.mean(axis=0), rtol=1e-5)
    assert found.report["rows"] == len(normal) and "form:noise" not in found.report["by_generator"]
    assert unfamiliar_shares(found, features, auxiliary=True).keys() == {"form:noise"}
    assert familiar_rows(features, READ, CONFIG).report["auxiliary"].keys() == {"form:noise"}


def test_one_generator_holds_out_questions_and_says_so(tmp_path):
    found = find_familiar(make_features(tmp_path, make_rows(generators=("a",))), READ, CONFIG)
    assert found.report["held_out"] == "questions, as there is one generator only"
    assert found.report["held_out_rows"] == 100 and found.report["unfamiliar"] <= 0.01


def test_too_few_rows_and_a_flag_rate_of_0_tell_nothing(tmp_path, caplog):
    assert find_familiar(make_features(tmp_path, make_rows()), READ, replace(CONFIG, flag_rate=0)) is None
    assert find_familiar(make_features(tmp_path / "a", make_rows(16)), READ, CONFIG) is None
    rows = [replace(row, question=f"How much are {row.id} apples?") for row in make_rows(4, tuple("abcdefghijklmnop"))]
    assert find_familiar(make_features(tmp_path / "b", rows), READ, CONFIG) is None
    assert "48 rows are too few to tell which pairs are unfamiliar; 50 are needed" in caplog.text
    just = make_features(tmp_path / "c", make_rows(5, tuple("abcdefghij")))
    assert find_familiar(just, READ, CONFIG).report["rows"] == 50


@pytest.mark.parametrize("n", [200, 20])  # more rows than numbers, and fewer
def test_main_directions_are_those_of_the_covariance(n):
    x = np.random.default_rng(0).normal(size=(n, 4 * HIDDEN)).astype(np.float32) * np.linspace(1, 3, 4 * HIDDEN)
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    found = fit_space(x.astype(np.float32), 5)
    u = (x - x.mean(axis=0)) / x.std(axis=0)
    values = np.linalg.eigvalsh(u.T @ u / n)[::-1]
    np.testing.assert_allclose(found["deviation"] ** 2, values[:5], rtol=1e-3)
    np.testing.assert_allclose(found["residual"], values[5:].sum(), rtol=1e-3)
    np.testing.assert_allclose(found["basis"].T @ found["basis"], np.eye(5), atol=1e-5)
    assert distances(found, x.astype(np.float32)).mean() == pytest.approx(1, rel=1e-3)


def test_a_number_that_never_changed_makes_another_one_far_and_nothing_infinite():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    x[:, 2] = 7
    found = fit_space(x, 2)
    near, far = distances(found, np.stack([x[0], x[0] + np.eye(6, dtype=np.float32)[2]]))
    assert near < 5 and 1000 < far < np.inf
    assert np.isfinite(distances(fit_space(np.ones((50, 6), dtype=np.float32), 2), x)).all()


@pytest.mark.parametrize("change", [{"flag_rate": -0.1}, {"folds": 1}, {"n_layers": 0}, {"flag_rate": float("nan")}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(SettingsError, match="familiarity expects"):
        FamiliarityConfig(**change)
