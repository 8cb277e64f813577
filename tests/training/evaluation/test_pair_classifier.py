"""Pair classifiers by hand: logits, losses, steps, predictions and regressions on states that are known."""

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from inspector_training.evaluation import kept_classifier, pair_classifier
from inspector_training.evaluation.kept_classifier import KeptClassifier
from inspector_training.evaluation.pair_classifier import (
    UNLABELLED,
    PairClassifier,
    TrainingConfig,
    fit_heads,
    mean_loss,
    pooled_states,
    predict,
    train,
)
from inspector_training.probing.table import Labels
from inspector_training.rows.records import LabelledPair
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from inspector_pipeline.encoded import EncodedPair, Span
from inspector_pipeline.errors import PairError, SettingsError

STATES = torch.tensor([[9.0, -9.0], [1.0, 0.0], [0.0, 2.0], [-1.0, 1.0], [3.0, 3.0]])  # of each token id; 0 is padding


class Body(nn.Module):
    """A state for each token, whatever stands before it; padding has a state too."""

    config = SimpleNamespace(hidden_size=2)

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(STATES.clone(), freeze=False)

    def forward(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def encoded(*ids):
    return [EncodedPair(list(own), Span(0, 0), False) for own in ids]


PAIRS = encoded((1,), (1, 2, 2), (3, 2), (4, 1))


def labels_of(*scores):
    return Labels.of([LabelledPair(i, f"Q{i}", "x", own) for i, own in enumerate(scores)], ())


def test_logits_are_of_pooled_tokens_without_padding():
    for pooling, expected in (("mean", [[1, 0], [1 / 3, 4 / 3]]), ("last", [[1, 0], [0, 2]])):
        model = PairClassifier(Body(), pooling, [2, 3])
        assert not any(parameter.any() for parameter in model.heads.parameters())
        assert pooled_states(model, PAIRS[:2]).numpy() == pytest.approx(np.array(expected))
        with torch.no_grad():
            model.heads.weight.copy_(torch.arange(10.0).reshape(5, 2))
            model.heads.bias.copy_(torch.arange(5.0))
        ids, mask = torch.tensor([[1, 0, 0], [1, 2, 2]]), torch.tensor([[1, 0, 0], [1, 1, 1]])
        first, second = model(ids, mask)
        logits = np.array(expected) @ np.arange(10.0).reshape(5, 2).T + np.arange(5)
        assert first.detach().numpy() == pytest.approx(logits[:, :2])
        assert second.detach().numpy() == pytest.approx(logits[:, 2:])


def test_a_pass_has_its_part_of_its_steps_loss():
    logits = [torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), torch.zeros(2, 3)]
    targets = torch.tensor([[0, UNLABELLED], [1, 2]])
    assert float(mean_loss(logits, targets, 4)) == pytest.approx((math.log(2) + math.log(4) + math.log(3)) / 4)


def test_a_steps_pairs_run_in_as_many_passes_as_the_longest_needs(tmp_path):
    config = TrainingConfig(epochs=3, batch_size=12, pass_tokens=90, warmup=0.25, seed=5)
    sizes = {}
    for longest in (91, 90, 30, 31, 7, 8):
        found = config.arguments(25, longest, str(tmp_path))
        sizes[longest] = (found.per_device_train_batch_size, found.gradient_accumulation_steps)
    assert sizes == {91: (1, 12), 90: (1, 12), 30: (3, 4), 31: (2, 6), 7: (12, 1), 8: (6, 2)}
    assert (found.num_train_epochs, found.warmup_steps, found.seed, found.max_grad_norm) == (3, 2, 5, 1.0)
    assert (found.lr_scheduler_type, found.save_strategy, found.logging_strategy) == ("linear", "no", "no")
    assert found.disable_tqdm and not found.remove_unused_columns and found.report_to == []
    assert found.use_cpu == (not torch.cuda.is_available()) and found.output_dir == str(tmp_path)


def test_settings_of_training_are_what_they_were_and_those_out_of_range_are_refused():
    usual = TrainingConfig()
    assert (usual.epochs, usual.batch_size, usual.pass_tokens, usual.seed) == (4, 16, 2048, 731)
    assert (usual.learning_rate, usual.head_learning_rate, usual.weight_decay, usual.warmup) == (5e-5, 1e-3, 0.01, 0.1)
    assert (pair_classifier.FROZEN_C, pair_classifier.NEVER, UNLABELLED) == (0.01, -1e4, -100)
    TrainingConfig(epochs=1, batch_size=1, pass_tokens=1, warmup=0.0, learning_rate=1e-9)
    for name in ("epochs", "batch_size", "pass_tokens"):
        with pytest.raises(SettingsError, match="epochs, batch_size and pass_tokens expect 1 or more"):
            TrainingConfig(**{name: 0})
    for name in ("learning_rate", "head_learning_rate"):
        with pytest.raises(SettingsError, match="expect more than 0"):
            TrainingConfig(**{name: 0.0})
    for warmup in (1.0, -0.1):
        with pytest.raises(SettingsError, match=f"warmup expects a share of the steps below 1, but got {warmup}"):
            TrainingConfig(warmup=warmup)


def test_training_takes_the_steps_of_adamw_on_labelled_pairs_alone():
    labels = labels_of({"a": 2, "b": 5}, {"a": 4}, {"b": 1}, {})
    config = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.125, head_learning_rate=0.5, weight_decay=0.25)
    ours, theirs = (PairClassifier(Body(), "mean", [2, 2]) for _ in range(2))
    with torch.no_grad():
        for model in (ours, theirs):
            model.heads.weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 0.25], [0.5, 1.0], [0.25, -1.0]]))
    assert train(ours, PAIRS, labels, config) == 2
    body, heads = list(theirs.body.parameters()), list(theirs.heads.parameters())
    groups = [{"params": body, "lr": 0.125}, {"params": heads, "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.25)
    ids = torch.tensor([[1, 0, 0], [1, 2, 2], [3, 2, 0]])
    targets = torch.tensor([[0, 1], [1, UNLABELLED], [UNLABELLED, 0]])
    for factor in (1.0, 0.5):  # falls to 0 in a straight line
        for group, rate in zip(optimizer.param_groups, (0.125, 0.5), strict=True):
            group["lr"] = factor * rate
        optimizer.zero_grad()
        mean_loss(theirs(ids, (ids > 0).long()), targets, 4).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(ours.body.table.weight[1], STATES[1])


def test_predictions_are_in_the_pairs_order_and_without_dropout():
    model = PairClassifier(Body(), "last", [2, 3])
    with torch.no_grad():
        model.heads.weight.copy_(torch.tensor([[1.0, 0], [0, 1.0], [0, 0], [1, 1], [2, 0]]))
    assert model.training
    first, second = predict(model, PAIRS)
    assert not model.training and (first.dtype, second.shape) == (np.float64, (4, 3))
    last = STATES[[1, 2, 2, 1]].numpy()
    odds = last[:, 0] - last[:, 1]
    assert first[:, 0] == pytest.approx(1 / (1 + np.exp(-odds)))
    logits = np.exp(np.stack([np.zeros(4), last.sum(axis=1), 2 * last[:, 0]], axis=1))
    assert second == pytest.approx(logits / logits.sum(axis=1, keepdims=True))


def test_frozen_states_get_scikit_learns_regression_and_unseen_classes_nothing(monkeypatch):
    monkeypatch.setattr(pair_classifier, "FROZEN_C", 2.0)
    rng = np.random.default_rng(0)
    pairs = encoded(*(rng.integers(1, 5, int(rng.integers(1, 6))).tolist() for _ in range(24)))
    scores = [{"two": i % 2, "three": (1, 4, 9)[i % 3], "one": 1 + (i == 23)} for i in range(24)]
    labels = labels_of(*scores)
    labels = labels.take(np.flatnonzero((labels.pair < 20) & ~((labels.aspect == 1) & (labels.score == 4))))
    model = PairClassifier(Body(), "mean", [2, 3, 2])
    fit_heads(model, pairs, labels)
    states, found = pooled_states(model, pairs).numpy(), predict(model, pairs)
    scaler = StandardScaler().fit(states[:20])
    for a, classes in enumerate(([0, 1], [1, 9])):
        own = labels.aspect == a
        plain = make_pipeline(LogisticRegression(C=2.0, max_iter=2000))
        plain.fit(scaler.transform(states[labels.pair[own]]), labels.score[own])
        expected = np.zeros((24, len(labels.classes[a])))
        expected[:, np.searchsorted(labels.classes[a], classes)] = plain.predict_proba(scaler.transform(states))
        assert found[a] == pytest.approx(expected, abs=1e-4)
    assert found[2] == pytest.approx(np.tile([1.0, 0.0], (24, 1)))
    more = labels_of(*({"three": (1, 4, 9)[i % 3]} for i in range(24)))
    alone = PairClassifier(Body(), "mean", [3])
    fit_heads(alone, pairs, more)
    x = StandardScaler().fit_transform(states)
    plain = LogisticRegression(C=2.0, max_iter=2000).fit(x, [i % 3 for i in range(24)])
    assert predict(alone, pairs)[0] == pytest.approx(plain.predict_proba(x), abs=1e-4)


def test_a_kept_model_is_named_by_what_it_was_trained_on(tmp_path):
    labels = labels_of({"a": 2, "b": 5}, {"a": 4}, {"b": 1}, {})
    kept = KeptClassifier(tmp_path, TrainingConfig(), PAIRS, labels)
    text = "a 2 [1]\na 4 [1, 2, 2]\nb 5 [1]\nb 1 [3, 2]\n([2, 4], [1, 5])"
    assert kept.trained_on == hashlib.sha256(text.encode()).hexdigest()
    assert kept.folder == tmp_path / kept.trained_on[:12] and not kept.is_there


def test_a_loaded_model_says_of_each_pair_what_it_was_fitted_for(monkeypatch):
    asked = []

    def tokenizer(*texts, **options):
        asked.append((texts, options))
        return {"input_ids": [*range(min(options["max_length"], len(" ".join(texts))))]}

    read = []
    monkeypatch.setattr(kept_classifier, "predict", lambda model, pairs: read.extend(pairs) or found)
    found = [np.array([[0.25, 0.75], [0.5, 0.5]]), np.zeros((2, 2)), np.array([[1.0, 0.0], [0.125, 0.875]])]
    encode = kept_classifier.PairEncoder(tokenizer, 5)
    loaded = kept_classifier.LoadedClassifier(
        "model", encode, {"a": [1, 2], "b": [0, 1], "c": [3, 9]}, frozenset({"a", "c"})
    )
    pairs = [{"question": "Q?", "prediction": "x", "more": 1}, {"question": "Q?", "prediction": "long"}]
    assert loaded(pairs) == [
        {"a": {1: 0.25, 2: 0.75}, "c": {3: 1.0, 9: 0.0}},
        {"a": {1: 0.5, 2: 0.5}, "c": {3: 0.125, 9: 0.875}},
    ]
    assert asked[1] == (("Q?", "long"), {"truncation": "longest_first", "max_length": 5})
    assert read == [EncodedPair([0, 1, 2, 3], Span(0, 0), False), EncodedPair([0, 1, 2, 3, 4], Span(0, 0), True)]
    with pytest.raises(PairError, match="Pair 1 "):
        loaded([pairs[0], {"question": "Q?", "prediction": " "}])
