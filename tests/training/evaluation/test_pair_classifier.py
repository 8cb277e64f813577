"""Pair classifiers by hand: logits, losses, steps, predictions and regressions on states that are known."""

import hashlib
import json
import math
from dataclasses import asdict
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
from inspector_pipeline.errors import DataFileError, PairError, SettingsError

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


def test_training_takes_the_steps_of_adamw_on_labelled_pairs_alone(capsys):
    labels = labels_of({"a": 2, "b": 5}, {"a": 4}, {"b": 1}, {})
    config = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.125, head_learning_rate=0.5, weight_decay=0.25)
    ours, theirs = (PairClassifier(Body(), "mean", [2, 2]) for _ in range(2))
    with torch.no_grad():
        for model in (ours, theirs):
            model.heads.weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 0.25], [0.5, 1.0], [0.25, -1.0]]))
    assert train(ours, PAIRS, labels, config) == 2 and capsys.readouterr().out == ""
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


@pytest.mark.parametrize("bf16", [False, True])
def test_passes_compute_in_bfloat16_where_asked_and_weights_and_predictions_stay_float32(bf16):
    labels, seen = labels_of({"a": 2}, {"a": 4}, {"a": 2}, {"a": 4}), []
    model = PairClassifier(Body(), "mean", [2])
    model.heads.register_forward_hook(lambda _map, _states, logits: seen.append(logits.dtype))
    assert train(model, PAIRS, labels, TrainingConfig(epochs=2, batch_size=2, bf16=bf16)) == 4
    assert set(seen) == {torch.bfloat16 if bf16 else torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and model.heads.weight.any()
    seen.clear()
    predict(model, PAIRS)
    assert seen == [torch.float32]


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


class Away:
    """A tensor of another device, which has to be brought here."""

    def __init__(self, here, *done):
        self.here, self.done = here, done

    def cpu(self):
        return self.here

    def softmax(self, dim):
        return Away(self.here.softmax(dim=dim))

    def double(self):
        return Away(self.here.double())


def test_what_an_accelerator_gives_is_brought_back():
    ended, asked = [], []
    states = torch.arange(8.0).reshape(4, 2)
    heads = SimpleNamespace(in_features=2, weight=torch.zeros(1))

    class Model:
        n_classes = [2]

        def __init__(self):
            self.heads = heads

        def eval(self):
            ended.append(True)

        def pooled(self, ids, mask):
            asked.append((ids, mask))
            return Away(states[: len(ids)])

        def __call__(self, ids, mask):
            return [Away(states[: len(ids)])]

    found = pooled_states(Model(), PAIRS)
    assert sorted(found.tolist()) == states[: len(asked[0][0])].tolist() and found.dtype == torch.float32
    (shares,) = predict(Model(), PAIRS[:1])
    assert shares == pytest.approx(states[:1].softmax(dim=1).numpy())
    assert ended == [True, True]


def test_states_are_standardised_in_double_precision(monkeypatch):
    states = (1e5 + np.random.default_rng(0).normal(size=(24, 2))).astype(np.float32)
    asked = []

    def regression(x, y, n_classes):
        asked.append((x, y, n_classes))
        return np.ones((n_classes, 2)), np.zeros(n_classes)

    monkeypatch.setattr(pair_classifier, "pooled_states", lambda model, encoded: torch.tensor(states[: len(encoded)]))
    monkeypatch.setattr(pair_classifier, "_regression", regression)
    model = PairClassifier(Body(), "mean", [2])
    fit_heads(model, encoded(*([1],) * 24), labels_of(*({"a": i % 2} for i in range(24))))
    wide = states.astype(np.float64)
    np.testing.assert_allclose(asked[0][0], (wide - wide.mean(axis=0)) / wide.std(axis=0), rtol=1e-9)
    weight = 1 / wide.std(axis=0)
    np.testing.assert_allclose(model.heads.weight.detach().numpy(), np.tile(weight, (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(model.heads.bias.detach().numpy(), -weight @ wide.mean(axis=0), rtol=1e-5)
    flat = np.ones((24, 2), np.float32)
    monkeypatch.setattr(pair_classifier, "pooled_states", lambda model, encoded: torch.tensor(flat))
    fit_heads(model, encoded(*([1],) * 24), labels_of(*({"a": i % 2} for i in range(24))))
    assert not asked[1][0].any() and model.heads.weight.detach().numpy() == pytest.approx(np.full((2, 2), 1e6))


def test_a_regression_is_asked_for_as_little_as_some_hundred_labels_need(monkeypatch):
    asked = []

    class Model:
        def __init__(self, **how):
            asked.append(how)

        def fit(self, x, y):
            self.coef_, self.intercept_ = np.ones((1, 2)), np.array([3.0])
            return self

    monkeypatch.setattr(pair_classifier, "LogisticRegression", Model)
    weight, bias = pair_classifier._regression(np.zeros((4, 2)), np.array([0, 2, 2, 0]), 4)
    assert asked == [{"C": pair_classifier.FROZEN_C, "max_iter": 2000}]
    never = pair_classifier.NEVER
    assert weight.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]] and bias.tolist() == [0.0, never, 3.0, never]
    weight, bias = pair_classifier._regression(np.zeros((4, 2)), np.array([1, 1, 1, 1]), 2)
    assert len(asked) == 1 and not weight.any() and bias.tolist() == [never, 0.0]


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


def test_weights_are_loaded_into_a_model_as_it_was_made(tmp_path, monkeypatch):
    trained, fresh = (PairClassifier(Body(), "mean", [2]) for _ in range(2))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    states = {"model.safetensors": trained.body.state_dict(), "heads.safetensors": trained.heads.state_dict()}
    monkeypatch.setattr(kept_classifier, "load_file", lambda path: states[path.relative_to(kept.folder).as_posix()])
    kept = KeptClassifier(tmp_path, TrainingConfig(), PAIRS, labels_of({"a": 1}, {"a": 2}))
    kept.folder.mkdir()
    (kept.folder / "classifier.json").write_text('{"steps": 7.0}')
    model, steps = kept.load(fresh)
    assert model is fresh and repr(steps) == "7"
    for one, other in zip(fresh.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)
    told = []
    monkeypatch.setattr(kept_classifier, "PeftModel", Body)
    monkeypatch.setattr(kept_classifier, "set_peft_model_state_dict", lambda *given: told.append(given))
    kept_classifier._load_state(fresh, kept.folder)
    assert told == [(fresh.body, states["model.safetensors"])]


def test_adapters_are_written_by_themselves(tmp_path, monkeypatch):
    told, written = [], {}
    saved = SimpleNamespace(save_pretrained=lambda folder: told.append(folder.name))
    monkeypatch.setattr(kept_classifier, "PeftModel", Body)
    monkeypatch.setattr(
        kept_classifier, "get_peft_model_state_dict", lambda body, **how: told.append(how) or {"a": torch.ones(1)}
    )
    monkeypatch.setattr(
        kept_classifier, "save_file", lambda state, path: written.update({path.name: [*state]}) or path.touch()
    )
    model = PairClassifier(Body(), "last", [2])
    model.body.config = SimpleNamespace(save_pretrained=saved.save_pretrained)
    config = TrainingConfig(epochs=3)
    kept = KeptClassifier(tmp_path, config, PAIRS, labels_of({"a": 1}, {"a": 2}))
    reading = SimpleNamespace(to_dict=lambda: {"kind": "x"})
    kept.save(model, 4, kept_classifier.PairEncoder(saved, 9, reading))
    assert told == [{"save_embedding_layers": False}, "body", "body"]
    assert written == {"model.safetensors": ["a"], "heads.safetensors": ["weight", "bias"]}
    described = json.loads((kept.folder / "classifier.json").read_text())
    assert described["adapters"] == asdict(config) and described["reading"] == {"kind": "x"}
    assert described["fitted"] == ["a"] and described["pooling"] == "last"


def test_a_kept_model_is_made_again_from_what_is_said_of_it(tmp_path, monkeypatch):
    told = {"pooling": "last", "classes": {"a": [1, 2], "b": [0, 1, 2]}, "fitted": ["b"], "max_length": 6, "steps": 3}
    told |= {"reading": None, "adapters": None}
    asked = []
    manifest = SimpleNamespace(vouches_for=lambda place: place == tmp_path)
    monkeypatch.setattr(kept_classifier.Manifest, "read", lambda place, stage: asked.append((place, stage)) or manifest)
    monkeypatch.setattr(kept_classifier, "read_json", lambda path: asked.append(path) or told)
    monkeypatch.setattr(kept_classifier, "_body", lambda place, adapters: asked.append((place, adapters)) or Body())
    monkeypatch.setattr(kept_classifier, "_load_state", lambda model, place: asked.append((model.n_classes, place)))
    tokenizers = SimpleNamespace(from_pretrained=lambda place: f"tokenizer of {place.name}")
    monkeypatch.setattr(kept_classifier, "AutoTokenizer", tokenizers)
    monkeypatch.setattr(kept_classifier, "device_of_baselines", lambda: "meta")
    found = kept_classifier.load_classifier(str(tmp_path))
    described = tmp_path / "classifier.json"
    assert asked == [(tmp_path, "pair_classifier"), described, (tmp_path, None), ([2, 3], tmp_path)]
    assert found.model.pooling == "last" and found.model.heads.weight.device.type == "meta"
    assert found.encode == kept_classifier.PairEncoder("tokenizer of body", 6, None)
    assert (found.classes, found.fitted) == (told["classes"], frozenset({"b"}))
    told["reading"] = "it"
    monkeypatch.setattr(kept_classifier.PairTemplate, "from_dict", lambda reading: f"reading {reading}")
    assert kept_classifier.load_classifier(tmp_path).encode.reading == "reading it"
    manifest.vouches_for = lambda place: False
    with pytest.raises(DataFileError, match="expects the files that its manifest names, but they differ"):
        kept_classifier.load_classifier(tmp_path)


def test_a_body_is_that_of_the_kept_config_or_the_backbone_with_fresh_adapters(tmp_path, monkeypatch):
    configs = SimpleNamespace(from_pretrained=lambda place, **how: (place, how))
    monkeypatch.setattr(kept_classifier, "AutoConfig", configs)
    monkeypatch.setattr(kept_classifier, "AutoModel", SimpleNamespace(from_config=lambda config: config))
    place, how = kept_classifier._body(tmp_path, None)
    assert place == tmp_path / "body" and how == kept_classifier.NO_REMOTE_CODE
    monkeypatch.setattr(kept_classifier, "load_backbone", lambda *given, **how: (given, how))
    monkeypatch.setattr(kept_classifier, "get_peft_model", lambda body, config: (body, config))
    adapters = {"backbone_id": "b", "backbone_revision": "r", "epochs": 3}
    shape = {"rank": 3, "alpha": 5, "dropout": 0.5, "modules": ["x"]}
    body, config = kept_classifier._body(tmp_path, {**adapters, **shape})
    assert body == (("b", "r", None), {"dtype": "float32"})
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (3, 5, 0.5, {"x"})


def test_texts_are_read_as_a_reading_writes_them_where_there_is_one(monkeypatch):
    made = []

    class Tokenizer:
        def __init__(self, *given):
            made.append(given)

        def __call__(self, question, prediction):
            return f"{question} {prediction}"

    monkeypatch.setattr(kept_classifier, "PairTokenizer", Tokenizer)
    encode = kept_classifier.PairEncoder("tokenizer", 7, "reading")
    pair = SimpleNamespace(question="Q", prediction="p")
    assert [encode(pair), encode(pair)] == ["Q p", "Q p"] and made == [("reading", "tokenizer", 7)]


def test_devices_are_the_accelerator_where_there_is_one(monkeypatch):
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pair_classifier.device_of_baselines() == device
