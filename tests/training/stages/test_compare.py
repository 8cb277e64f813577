"""The comparison of all methods in the same folds, end to end on tiny models; and the baselines that it adds."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from inspector_training.evaluation.cost import pass_flops
from inspector_training.evaluation.kept_classifier import load_classifier
from inspector_training.evaluation.methods import finetuned, generated
from inspector_training.evaluation.methods.finetuned import EncoderConfig, LoraConfig, encoder_method, lora_method
from inspector_training.evaluation.methods.generated import (
    GeneratedConfig,
    GeneratedMethod,
    PromptedConfig,
    read_last_score,
    read_score,
)
from inspector_training.evaluation.methods.log_probability import LogProbabilityConfig
from inspector_training.evaluation.methods.probes import ProbesConfig
from inspector_training.evaluation.methods.score_tokens import LagerMethod
from inspector_training.evaluation.methods.text import TfIdf
from inspector_training.evaluation.metrics import METRICS
from inspector_training.evaluation.pair_classifier import (
    FROZEN_C,
    PairClassifier,
    TrainingConfig,
    fit_heads,
    pooled_states,
    predict,
    train,
)
from inspector_training.evaluation.tables import table
from inspector_training.features.plan import ExtractConfig
from inspector_training.judges.write import read_card
from inspector_training.labelling.rubrics import Rubric
from inspector_training.probing.settings import SearchConfig
from inspector_training.probing.table import Labels
from inspector_training.rows.records import LabelledPair, read_records
from inspector_training.score_tokens import logits
from inspector_training.score_tokens.logits import LayerLogits, LogitsSettings, cached_layer_logits
from inspector_training.score_tokens.weights import TuningConfig
from inspector_training.stages.compare import LAGER_VARIANTS, ScoreTokensConfig, prepare
from inspector_training.stages.compare import Config as CompareConfig
from inspector_training.stages.compare import run as compare
from inspector_training.stages.extract import run as extract
from inspector_training.stages.lager import Config as LagerConfig
from inspector_training.stages.lager import run as lager
from inspector_training.stages.own_data_curves import Config as CurvesConfig
from inspector_training.stages.own_data_curves import TaskConfig
from inspector_training.stages.own_data_curves import run as curves
from inspector_training.stages.rubric_rows import Config as RubricRowsConfig
from inspector_training.stages.rubric_rows import run as rubric_rows
from support.causal import save_causal
from transformers import BertConfig, BertModel

from hub_cards.measured import compared_table
from inspector_pipeline import load_judge
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.tables import read_json

RUBRICS = (Rubric("tone", "How kind it is.", 1, 5), Rubric("wit", "How witty it is.", 1, 5))
KIND, RUDE = ("thank you", "please", "well done"), ("go away", "no", "nonsense")


@pytest.fixture(scope="module")
def labelled():
    """Pairs whose tone is said by a word, and whose wit by none."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(40):
        kind = i % 2 == 0
        words = " ".join(rng.choice(KIND if kind else RUDE, 3))
        tone, wit = int(rng.integers(4, 6) if kind else rng.integers(1, 4)), int(rng.integers(1, 6))
        scores = {"tone": tone, "wit": wit, "correctness": int(i % 3 == 0)}  # the last does not count
        pairs.append(LabelledPair(f"q{i}", f"What of {i}?", f"{words}, {i}.", scores))
    return pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer, labelled):
    """A folder with labelled rows, features, a judge of score tokens and an encoder, all tiny."""
    folder = tmp_path_factory.mktemp("compare")
    backbone = str(save_causal(folder / "backbone", "llama", tokenizer))
    rows = folder / "labelled.jsonl"
    rows.write_text("".join(json.dumps(vars(pair)) + "\n" for pair in labelled))
    shared = {"backbone_id": backbone, "backbone_revision": None}
    extract(ExtractConfig(str(rows), str(folder / "features"), **shared))
    lager(LagerConfig(str(folder / "lager"), aspects=(), custom_aspects=RUBRICS, **shared))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=512, **sizes)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    return folder


@pytest.fixture
def config(made, tmp_path):
    search = SearchConfig(heads=(), finalists=1, inner_folds=2, penalties=(1.0,), sharings=(1.0,))
    score_tokens = ScoreTokensConfig(
        str(made / "lager"),
        LAGER_VARIANTS,
        aspects=(),
        custom_aspects=RUBRICS,
        generated=GeneratedConfig(max_new_tokens=3, folds=1),
        prompted={"few_shot": PromptedConfig(max_new_tokens=3, folds=1, shots=2)},
    )
    training = TrainingConfig(epochs=1)
    return CompareConfig(
        str(made / "labelled.jsonl"),
        str(tmp_path / "out"),
        baselines=("majority", "length", "tfidf"),  # the surface forest is slow
        log_probability=LogProbabilityConfig(str(made / "backbone"), None, max_length=64),
        probes={"probes": ProbesConfig(str(made / "features"), search)},
        score_tokens=score_tokens,
        combined="probes",
        learning_curve=(0.0, 0.02, 0.5),
        encoder=EncoderConfig(str(made / "encoder"), max_length=64, training=training),
        encoder_frozen=EncoderConfig(str(made / "encoder"), max_length=64),
        lora=LoraConfig(str(made / "backbone"), None, training=training),
        folds=3,
        bootstraps=50,
        timed_pairs=3,
    )


def test_a_curve_begins_with_score_tokens_and_stacks_probes_as_labels_come(made, tmp_path):
    task = TaskConfig((str(made / "features"),), "tone", score_tokens=str(made / "lager"))
    search = SearchConfig(depths=(2,), poolings=(("last",),), heads=(), inner_folds=2, penalties=(1.0,))
    config = CurvesConfig({"tone": task}, str(tmp_path), (0, 20), 15, 1, search, bootstraps=20)
    curves(config)
    none, some = read_json(tmp_path / "curves.json")["tasks"]["tone"]["points"]
    assert none["n"] == 0 and set(none["auroc"]) == {"stacked", "lager"}, "nothing else is there without labels"
    assert none["auroc"]["stacked"] == none["auroc"]["lager"] == some["auroc"]["lager"]
    assert none["gain_over"]["lager"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert set(some["gain_over"]) == {"lager", "judge", "length", "surface", "tfidf"}
    assert some["auroc"]["stacked"] != some["auroc"]["lager"]
    first, second = (tmp_path / "curves.md").read_text().splitlines()[-2:]
    assert first.startswith("| 0 | ") and first.endswith(" = | - | - | - | - |") and second.startswith("| 20 | ")
    read = tmp_path / "kept" / "tone" / "layer_logits.safetensors"
    before = read.stat().st_mtime_ns
    curves(replace(config, sizes=(0, 18, 20)))
    assert read.stat().st_mtime_ns == before, "logits are read once"
    with pytest.raises(DataFileError, match="0 labels expects score_tokens in every task, but tone has none"):
        curves(replace(config, tasks={"tone": replace(task, score_tokens=None)}))


def test_all_methods_are_compared(config, tmp_path):
    results = compare(config)
    methods = results["methods"]
    tokens = [f"lager_{variant}" for variant in LAGER_VARIANTS]
    others = ("combined", "majority", "length", "tfidf", "probes", "encoder", "lora", "generated")
    others = (*others, "encoder_frozen", "few_shot", "log_probability")
    assert set(methods) == {*tokens, *others} and len(tokens) == 11
    for name in (*tokens, "combined", "majority", "tfidf", "probes", "encoder", "encoder_frozen", "log_probability"):
        assert methods[name]["rows"] == methods[name]["rows_of"] == 80, name
        assert set(methods[name]["aspects"]) == {"tone", "wit"}
        assert methods[name]["mean"]["auroc"]["low"] <= methods[name]["mean"]["auroc"]["high"]
    assert methods["tfidf"]["aspects"]["tone"]["auroc"]["value"] > 0.9  # the words say it
    assert (
        methods["lora"]["rows"] < 80 and methods["lora"]["folds"] == 1 and "1 of the folds" in methods["lora"]["budget"]
    )
    failures = methods["generated"]["notes"]["failures"]
    assert failures["tone"]["failed"] == failures["tone"]["of"] > 0  # a random model says no score
    assert methods["generated"]["rows"] == 0 and methods["generated"]["mean"] == {}
    assert methods["probes"]["gain_of_judge"] == {}
    gain = methods["tfidf"]["gain_of_judge"]["auroc"]
    expected = methods["probes"]["mean"]["auroc"]["value"] - methods["tfidf"]["mean"]["auroc"]["value"]
    assert gain["value"] == pytest.approx(expected, abs=1e-3) and 0 < gain["p"] <= 1
    for weights in methods["lager_logits_convex_expectation"]["notes"]["layer_weights"]:
        assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert methods["majority"]["flops_per_pair"] == 0 < methods["log_probability"]["flops_per_pair"]
    one_pass, two_passes = methods["probes"]["flops_per_pair"], methods[tokens[0]]["flops_per_pair"]
    assert methods["combined"]["flops_per_pair"] == pytest.approx(one_pass + two_passes)
    assert all(0 <= share <= 1 for share in methods["combined"]["notes"]["probe_share"])
    curve = results["learning_curve"]
    # The combined judge is that of score tokens where probes cannot be fitted.
    assert [point["share"] for point in curve["combined"]] == [
        0,
        0.02,
        0.5,
        1,
    ]  # by score tokens where probes cannot be
    assert [point["share"] for point in curve["probes"]] == [0.5, 1]
    untuned = methods["lager_logits_uniform_expectation"]["mean"]["auroc"]
    for name in ("combined", "lager_logits_uniform_expectation", "lager_logits_adam_expectation"):
        assert curve[name][0]["n"] == 0 and curve[name][0]["auroc"] == untuned  # no label: all are the same judge
    assert curve["combined"][-1]["auroc"] == methods["combined"]["mean"]["auroc"]
    assert 0 < one_pass < two_passes and methods["probes"]["seconds_per_pair"] > 0
    written = (tmp_path / "out" / "table.md").read_text()
    assert all(f"\n| {name} |" in written or f"\n| **{name}** |" in written for name in methods)
    assert written.count("\n- probes ") == 11  # whether it beats each method of score tokens
    failed = sum(count["of"] for count in failures.values())
    assert f"{failed} of {failed} replies held no score" in written
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results))
    for name in ("quality_cost.png", "learning_curve.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"


def test_what_is_done_is_not_run_again(config, tmp_path):
    few = replace(
        config,
        baselines=("tfidf",),
        score_tokens=None,
        combined=None,
        learning_curve=(),
        log_probability=None,
        lora=None,
        encoder=None,
        encoder_frozen=None,
    )
    first = compare(few)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "methods").iterdir()}
    again = compare(replace(few, baselines=("majority", "tfidf")))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert again["methods"]["tfidf"] == first["methods"]["tfidf"]
    assert not (tmp_path / "out" / "compared.json").exists(), "no generators are named"
    other = compare(replace(few, seed=1))
    assert other["methods"]["probes"] != first["methods"]["probes"]


def test_answers_of_generators_that_no_fit_saw_are_compared_apart(config, tmp_path, labelled):
    rows, output = tmp_path / "answers.jsonl", tmp_path / "apart"
    order = [name for i in range(10) for name in np.random.default_rng(i).permutation(list("abcd")).tolist()]
    given = [
        vars(replace(pair, id=f"q{i // 4}", question=f"{i // 4}?", generator=order[i]))
        for i, pair in enumerate(labelled)
    ]
    rows.write_text("".join(json.dumps(row | {"sample": i % 4}) + "\n" for i, row in enumerate(given)))
    few = CompareConfig(str(rows), str(output), judge="tfidf", baselines=("length", "tfidf"), folds=2, bootstraps=20)
    found = compare(replace(few, generator_groups=2))
    tone = found["matched"]["tone"]
    n = {part: own["tfidf"]["n_rows"] for part, own in tone.items()}
    assert n["all"] == 40 and 0 < n["seen"] <= 20 and 0 < n["unseen"] <= 20
    assert tone["unseen"]["tfidf"]["auroc"]["value"] > 0.9 and found["protocol"]["generator_groups"] == 2
    assert f"| tone | unseen | length | {n['unseen']} |" in (output / "table.md").read_text()
    part = read_card(str(output / "compared.json"))["compared"]
    assert part["aspects"] == found["matched"] and part["methods"]["length"]["folds"] == 2 == part["generator_groups"]
    assert f"| tone | unseen | length | {n['unseen']} | " in compared_table(part)
    with pytest.raises(SettingsError, match="at least 2 groups and rows of as many generators, but got 5 groups and 4"):
        prepare(replace(few, generator_groups=5))


def test_every_row_is_predicted_by_a_fit_that_never_saw_its_question(config):
    kept, _ = prepare(config)
    tested = []
    for fold in kept.validation.divided:
        assert not set(fold.train.question) & set(fold.test.question)
        tested += fold.test.row.tolist()
    assert sorted(tested) == list(range(80))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combined": "other"}, "combined expects score_tokens and the name of probes, probes, but got 'other'"),
        ({"learning_curve": (0.5, 1.0)}, r"learning_curve expects shares from 0 to below 1, but got \(0.5, 1.0\)"),
        ({"curve_methods": ("luck",)}, "curve_methods expects methods that are compared, but got 'luck'"),
        ({"judge": "other"}, "judge expects one of the methods, which have distinct names, but got 'other'"),
        (
            {"baselines": ("majority", "luck")},
            "baselines expects some of majority, length, surface, tfidf, but got 'luck'",
        ),
    ],
)
def test_unknown_methods_are_refused(config, changes, message):
    with pytest.raises(SettingsError, match=message):
        prepare(replace(config, **changes))


@pytest.mark.parametrize("variant", ["logits_guessed_expectation", "last_uniform", "argmax", "logits_uniform_mean"])
def test_variants_that_are_none_are_refused(labelled, variant):
    logits = LayerLogits({}, {}, Labels.of(labelled))
    with pytest.raises(SettingsError, match=rf"A variant of score tokens expects .* but got '{variant}'"):
        LagerMethod(variant, logits, {"adam": TuningConfig()})


def test_logits_that_a_killed_run_had_read_are_not_read_again(made, labelled, tmp_path, monkeypatch):
    settings, path = LogitsSettings(str(made / "lager"), str(made / "labelled.jsonl"), ()), tmp_path / "l.safetensors"
    table, read, asked = Labels.of(labelled), logits.layer_logits, []

    def dies_at(call):
        def layer_logits(judge, aspect, pairs):
            asked.append(len(pairs))
            if len(asked) == call:
                raise KeyboardInterrupt
            return read(judge, aspect, pairs)

        return layer_logits

    monkeypatch.setattr(logits, "WINDOW", 16)  # 16, 16 and 8 pairs of each aspect
    monkeypatch.setattr(logits, "layer_logits", dies_at(5))
    with pytest.raises(KeyboardInterrupt):
        cached_layer_logits(settings, labelled, table, path)
    monkeypatch.setattr(logits, "layer_logits", dies_at(0))
    found = cached_layer_logits(settings, labelled, table, path)
    assert asked == [16, 16, 8, 16, 16, 16, 8] and [one.name for one in tmp_path.glob("*.parts")] == []
    texts = [(pair.question, pair.prediction) for pair in labelled]
    judge = load_judge(made / "lager", dtype="stored")
    for name, values in found.values.items():
        np.testing.assert_allclose(values, read(judge, name, texts), atol=1e-4)


def test_features_of_other_pairs_are_refused(config, tmp_path):
    rows = read_records(config.pairs)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    with pytest.raises(DataFileError, match="expects features of the 39 pairs that are compared"):
        compare(replace(config, pairs=str(fewer), baselines=()))


# Baselines


def test_words_are_learnt(labelled):
    tone = np.array([pair.scores["tone"] for pair in labelled])
    found = TfIdf().predict(labelled[:30], tone[:30], labelled[30:], [1, 2, 3, 4, 5], 0)
    assert METRICS["auroc"](tone[30:], [1, 2, 3, 4, 5], found) == 1
    assert set(found.score) <= set(tone[:30])


@pytest.fixture
def encoder(made, labelled):
    config = EncoderConfig(str(made / "encoder"), max_length=64, training=TrainingConfig(epochs=15, learning_rate=2e-3))
    return encoder_method(config, labelled, Labels.of(labelled), 4)


def test_an_encoder_learns_what_it_is_trained_on(encoder, labelled):
    labels = Labels.of(labelled)
    model = encoder.build()
    encoded = [encoder.encode(pair) for pair in labelled]
    before = predict(model, encoded)
    assert np.ptp(before[0]) == 0  # the classifiers begin at zero
    steps = train(model, encoded, labels.take(np.flatnonzero(labels.aspect == 0)), encoder.training)
    assert steps == 15 * 3
    tone, *_ = predict(model, encoded)
    good = tone[:, [c >= 4 for c in labels.classes[0]]].sum(axis=1)
    is_good = np.array([pair.scores["tone"] >= 4 for pair in labelled])
    assert ((good > 0.5) == is_good).mean() > 0.9
    assert tone.sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pass_tokens", [1, 200])
def test_a_step_in_several_passes_is_the_same_step(made, labelled, pass_tokens):
    """Whatever memory a step gets, its gradients are those of the mean loss over all its labels."""
    labels = Labels.of(
        [replace(pair, scores={"tone": 2, **pair.scores} if i % 4 else {"tone": 5}) for i, pair in enumerate(labelled)]
    )
    whole = TrainingConfig(epochs=2, learning_rate=2e-3, head_learning_rate=1e-2, warmup=0)
    method = encoder_method(EncoderConfig(str(made / "encoder"), max_length=64), labelled, labels, 4)
    encoded, found = [method.encode(pair) for pair in labelled], []
    longest = max(len(pair.input_ids) for pair in encoded)
    assert pass_tokens < 16 * longest < whole.pass_tokens
    for config in (whole, replace(whole, pass_tokens=pass_tokens)):
        model = method.build()
        for module in model.modules():  # dropout is drawn anew in each pass
            module.p = 0.0
        assert train(model, encoded, labels, config) == 2 * 3
        found.append(predict(model, encoded))
    for one, other in zip(*found, strict=True):
        assert np.ptp(one) > 0.01
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_passes_are_bounded_by_their_tokens(tmp_path):
    for pass_tokens, pairs in ((1, 1), (200, 4), (100 * 16, 16), (10_000, 16)):
        found = TrainingConfig(pass_tokens=pass_tokens).arguments(40, 100 if pass_tokens > 200 else 45, str(tmp_path))
        assert found.per_device_train_batch_size == pairs
        assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 16


def make(name, made, labelled, labels, keep=None):
    training = TrainingConfig(epochs=1, learning_rate=1e-2)
    if name == "lora":
        return lora_method(LoraConfig(str(made / "backbone"), None, training=training), labelled, labels, 4, keep)
    config = EncoderConfig(str(made / "encoder"), training=training)
    return encoder_method(config, labelled, labels, 4, keep, frozen=name == "encoder_frozen")


@pytest.mark.parametrize("name", ["encoder", "encoder_frozen", "lora"])
def test_a_model_that_was_kept_is_loaded_again_and_not_trained_again(
    made, labelled, config, tmp_path, name, monkeypatch
):
    validation = prepare(config)[0].validation
    fold, shared = validation.divided[0], (name, made, labelled, validation.labels, tmp_path / name)
    first = make(*shared)
    expected = {a: found.expected for a, (_, found) in enumerate(first.fit(fold)(fold.test))}
    for trainer in ("train", "fit_heads"):
        monkeypatch.setattr(finetuned, trainer, lambda *_: pytest.fail("trained again"))
    again = make(*shared)
    for a, (_, found) in enumerate(again.fit(fold)(fold.test)):
        np.testing.assert_allclose(found.expected, expected[a], atol=1e-5)
    assert again.steps == first.steps and again.cost({}).parameters > 1000
    (folder,) = (tmp_path / name).iterdir()
    tested = [labelled[i] for i in np.unique(fold.test.pair)]
    scored = load_classifier(folder)([{"question": pair.question, "prediction": pair.prediction} for pair in tested])
    assert [*scored[0]] == ["tone", "wit"]
    for a, aspect in enumerate(scored[0]):
        own = [sum(int(score) * share for score, share in one[aspect].items()) for one in scored]
        np.testing.assert_allclose(own, expected[a], atol=1e-5)
    with pytest.raises(pytest.fail.Exception, match="trained again"):  # other rows are another model
        again.fit(replace(fold, train=fold.train.take(np.arange(20))))
    (folder / "classifier.json").write_text("{}")
    with pytest.raises(DataFileError, match="expects the files that its manifest names"):
        load_classifier(folder)


def test_a_frozen_body_gets_the_logistic_regressions_of_scikit_learn(made, labelled):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    two = [replace(pair, scores={**pair.scores, "pass": int(pair.scores["tone"] > 3)}) for pair in labelled]
    labels = Labels.of(two)
    method = make("encoder_frozen", made, two, labels)
    model, encoded = method.build(), [method.encode(pair) for pair in two]
    fit_heads(model, encoded, labels)
    states, found = pooled_states(model, encoded).double().numpy(), predict(model, encoded)
    for a, name in enumerate(labels.names):
        truth = [pair.scores[name] for pair in two]
        regression = LogisticRegression(C=FROZEN_C, max_iter=2000)
        theirs = make_pipeline(StandardScaler(), regression).fit(states, truth).predict_proba(states)
        np.testing.assert_allclose(found[a], theirs, atol=1e-3)
    few = labels.take(np.flatnonzero(np.isin(labels.score, [5, 1])))
    fit_heads(model, encoded, few)  # classes that no training row has get nothing
    assert predict(model, encoded)[0][:, 1:-1].max() < 1e-6


def test_examples_of_the_training_rows_stand_before_the_question(made, labelled, config, tmp_path, monkeypatch):
    labels, fold = Labels.of(labelled), prepare(config)[0].validation.divided[0]
    prompted = PromptedConfig(max_new_tokens=3, shots=2)
    shared = (prompted, str(made / "lager"), RUBRICS, labelled, labels, 2)
    method = GeneratedMethod(*shared, name="few_shot", keep=tmp_path)
    encoders, held_out = method._encoders(fold.train), [labelled[i] for i in np.unique(fold.test.pair)]
    text = method.judge.tokenizer.decode(encoders["tone"](**held_out[0].texts).input_ids)
    own = fold.train.take(np.flatnonzero(fold.train.aspect == 0))
    assert f"Score: {own.score.min()}\n" in text and f"Score: {own.score.max()}\n" in text
    assert text.count("Question:\n") == 3 and text.index("Score: ") < text.index(held_out[0].question)
    assert not any(pair.question in text for pair in held_out[1:])
    list(method.fit(fold)(fold.test))
    monkeypatch.setattr(generated, "generate_replies", lambda *_: pytest.fail("asked again"))
    again = GeneratedMethod(*shared, name="few_shot", keep=tmp_path)
    list(again.fit(fold)(fold.test))
    assert again.failures == method.failures and again.failures["tone"]["of"] > 0
    with pytest.raises(SettingsError, match="shots expects 0 or more, and 0 with reasoning"):
        PromptedConfig(shots=1, reasoning=True)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It is kind.\nScore: 4", 4),
        ("Score: 3? No, it is more. Score: **5**.", 5),
        ("I give it 4 of 5.", None),
        ("Score: 4.5", None),
        ("Score: 9", None),
    ],
)
def test_the_last_score_of_a_justified_reply_is_read(reply, score):
    assert read_last_score(reply, [1, 2, 3, 4, 5]) == score


@pytest.mark.parametrize("name", ["encoder", "lora"])
def test_the_seed_decides_all_chance(made, labelled, config, name):
    labels, fold = Labels.of(labelled), prepare(config)[0].validation.divided[0]
    found = []
    for seed in (1, 1, 2):
        training = TrainingConfig(epochs=1, learning_rate=1e-2, seed=seed)
        method = (
            encoder_method(EncoderConfig(str(made / "encoder"), training=training), labelled, labels, 4)
            if name == "encoder"
            else lora_method(LoraConfig(str(made / "backbone"), None, training=training), labelled, labels, 4)
        )
        found.append(np.concatenate([prediction.expected for _, prediction in method.fit(fold)(fold.test)]))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_adapters_alone_are_trained(made, labelled):
    method = lora_method(LoraConfig(str(made / "backbone"), None), labelled, Labels.of(labelled), 4)
    model = method.build()
    trained = [name for name, parameter in model.body.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in trained)
    frozen = {n: p.clone() for n, p in model.body.named_parameters() if not p.requires_grad}
    encoded = [method.encode(pair) for pair in labelled]
    train(model, encoded, Labels.of(labelled), method.training)
    state = dict(model.body.named_parameters())
    assert all(torch.equal(state[name], value) for name, value in frozen.items())
    assert any(state[name].abs().sum() > 0 for name in trained if "lora_B" in name)  # it begins at zero


def test_the_test_rows_are_never_trained_on(encoder, labelled, config):
    fold = prepare(config)[0].validation.divided[0]
    with pytest.raises(DataFileError, match="A fold expects test questions that are not trained on"):
        encoder.fit(replace(fold, train=fold.test))


def test_the_learning_rate_rises_for_less_than_the_training_and_falls_to_zero(encoder, labelled, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def counted(optimizer, *args, **kwargs):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    labels, encoded = Labels.of(labelled), [encoder.encode(pair) for pair in labelled]
    for warmup, epochs, factors in (
        (0.34, 2, [0, 1 / 2, 1, 3 / 4, 2 / 4, 1 / 4]),
        (0, 1, [1, 2 / 3, 1 / 3]),
        (0.99, 1, [0, 1 / 2, 1]),
    ):
        rates.clear()
        config = TrainingConfig(warmup=warmup, epochs=epochs, learning_rate=1e-4, head_learning_rate=1e-2)
        train(encoder.build(), encoded, labels, config)
        np.testing.assert_allclose(rates, np.outer(factors, [1e-4, 1e-2]), atol=1e-9)
    rates.clear()
    train(encoder.build(), encoded, labels, TrainingConfig(warmup=0.5, epochs=1, batch_size=40))
    assert rates == [[5e-5, 1e-3]]  # a single step is taken at the full height
    with pytest.raises(SettingsError, match="warmup expects a share of the steps below 1, but got 1"):
        TrainingConfig(warmup=1)


def test_an_encoder_is_unpacked_from_its_wheel(made, labelled, tmp_path):
    inner = tmp_path / "model.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        for path in (made / "encoder").iterdir():
            archive.write(path, path.name)
        archive.writestr("1_Pooling/config.json", "{}")
    wheel = tmp_path / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(inner, "some_model/model.zip")
    method = encoder_method(EncoderConfig(str(wheel)), labelled, Labels.of(labelled), 4)
    assert isinstance(method.build(), PairClassifier)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_model/other.txt", "")
    with pytest.raises(DataFileError, match="expects to hold a model.zip with a config.json, but has none"):
        encoder_method(EncoderConfig(str(wheel)), labelled, Labels.of(labelled), 4)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("4", 4),
        (" Score: 5.", 5),
        ("score:1\n", 1),
        ("4/5", None),
        ("4.5", None),
        ("7", None),
        ("It is 4", None),
        ("", None),
    ],
)
def test_replies_are_read_strictly(reply, score):
    assert read_score(reply, [1, 2, 3, 4, 5]) == score


def test_operations_are_those_of_the_weights_and_of_attention():
    from support.models import tiny_config

    config = tiny_config("llama")
    attention = 32 * 32 * 2 + 32 * 16 * 2  # q and o; k and v
    weights = 4 * (attention + 3 * 32 * 48 + 2 * 32) + 32  # with norms
    assert pass_flops(config, 10) == 2 * weights * 10 + 4 * 10**2 * 32 * 4 / 2
    assert pass_flops(config, 10, 2) < pass_flops(config, 10) / 1.9
    assert pass_flops(config, 10, causal=False) > pass_flops(config, 10)


def test_a_table_names_what_is_undefined():
    entry = {"mean": {}, "gain_of_judge": {}, "rows": 0, "rows_of": 8, "budget": "none", "description": "says nothing"}
    entry |= {"seconds_per_pair": None, "flops_per_pair": 0.0}
    assert "| silent | undefined | undefined | undefined | undefined |" in table(
        {"judge": "j", "methods": {"silent": entry}}
    )


# Responses with rubrics of their own


def prometheus(task, response, score):
    prompt = (
        "###Task Description:\nScore it.\n\n###The instruction to evaluate:\n{}\n\n###Response to evaluate:\n{}\n\n"
        "###Reference Answer (Score 5):\nThe best.\n\n###Score Rubrics:\n[Is it good?]\nScore 1: No.\n\n###Feedback: "
    )
    return {"instruction": prompt.format(task, response), "gpt4_score": score, "response_source": "someone"}


def test_responses_with_a_rubric_of_their_own_become_rows(tmp_path):
    source = tmp_path / "scored.json"
    source.write_text(json.dumps([prometheus("Why?", "So.", [5, 4, 4]), prometheus("Why?", "Eh.", 1)]))
    output = tmp_path / "rows.jsonl"
    rows = rubric_rows(RubricRowsConfig(str(source), str(output)))
    assert [row["scores"] for row in rows] == [{"quality": 4}, {"quality": 1}]
    assert rows[0]["question"] == "Why?\n\nRubric:\n[Is it good?]\nScore 1: No."
    assert [row["prediction"] for row in rows] == ["So.", "Eh."] and [row["sample"] for row in rows] == [0, 1]
    assert rows[0]["id"] == rows[1]["id"] and rows[0]["answer"] == "The best."
    assert read_records(output) == rows


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"instruction": "Rate it.", "gpt4_score": 3}, "row 0 expects an instruction with task, response, reference"),
        (prometheus("Why?", "So.", [3.5]), r"row 0 expects whole numbers as gpt4_score, but got \[3.5\]"),
        (prometheus("Why?", "So.", []), "row 0 expects whole numbers as gpt4_score"),
    ],
)
def test_responses_in_another_form_are_refused(tmp_path, entry, message):
    source = tmp_path / "scored.json"
    source.write_text(json.dumps([entry]))
    with pytest.raises(DataFileError, match=message):
        rubric_rows(RubricRowsConfig(str(source), str(tmp_path / "rows.jsonl")))


def test_the_supplied_general_responses_are_read(data_dir, tmp_path):
    rows = rubric_rows(RubricRowsConfig(str(data_dir / "general" / "vicuna_eval.json"), str(tmp_path / "rows.jsonl")))
    assert len(rows) == 320 and len({row["id"] for row in rows}) == 80
    assert {score for row in rows for score in row["scores"].values()} == {1, 2, 3, 4, 5}
