"""The published protocol: its rankings by their definitions, its probe against plain sklearn, and the whole of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.features.plan import ExtractConfig
from inspector_training.features.store import concatenate, load_features
from inspector_training.reference.attention import attention_entropies, head_entropies
from inspector_training.reference.figures import best_by_layer, layer_figure, pooling_table
from inspector_training.reference.protocol import (
    ReferenceSettings,
    balanced_rows,
    fit_and_test,
    reference_features,
    reference_protocol,
    why_not,
)
from inspector_training.reference.rankings import (
    Ranked,
    attention_statistics,
    best_first,
    principal_components,
    rank_candidate,
    state_statistics,
    without_constants,
)
from inspector_training.stages.extract import run as extract
from inspector_training.stages.reference import Config as ReferenceConfig
from inspector_training.stages.reference import run as run_reference
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.models import N_LAYERS, PAIRS
from transformers import AutoModel

from inspector_pipeline.errors import BackboneError, DataFileError, SettingsError
from inspector_pipeline.features import Feature
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.template import PairTemplate

RUBRICS = {
    "logicality": "Judge the logic.\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
    "fluency": "Judge the language.\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
}
WORDS = {2: "river apple", 3: "sum total", 4: "because then", 5: "four nine"}
ONLY_MEAN = ReferenceSettings(poolings=("mean",))
ONE_BACKBONE = pytest.mark.parametrize("family", ["llama"])  # where features are only handed on


def made_up_pair(i):
    score = 2 + i % 4
    return f"Question {i}?", f"{WORDS[score]} {i} " * (1 + i % 3) + WORDS[score], score


@pytest.fixture
def probing_set(tmp_path):
    """40 pairs labelled for logicality by what they say, and 5 of them for fluency too."""
    rows = {name: [] for name in RUBRICS}
    for i in range(40):
        question, prediction, score = made_up_pair(i)
        for name in ["logicality", "fluency"] if i < 5 else ["logicality"]:
            prompt = PairTemplate.from_template(RUBRICS[name]).text(question, prediction)
            rows[name].append({"id": i, "eval_prompt": prompt, "score": score})
    (tmp_path / "probing.json").write_text(json.dumps(rows))
    return tmp_path / "probing.json"


@pytest.fixture
def config(probing_set, tmp_path, backbone_dir):
    return ExtractConfig(
        str(probing_set),
        str(tmp_path / "judge-features"),
        backbone_id=str(backbone_dir),
        backbone_revision=None,
        max_length=256,
        window=16,
    )


@pytest.fixture
def features(config, tmp_path):
    extract(reference_features(config, str(tmp_path / "features")))
    return load_features(tmp_path / "features")


def states_of(features, layer, poolings, reading="rubric:logicality"):
    kind = "final_norm" if layer == N_LAYERS else "raw"
    return np.concatenate([features.matrix(Feature(reading, layer, p, kind)) for p in poolings], axis=1).astype(float)


def labels_of(features, aspect="logicality"):
    return np.array([pair.scores[aspect] for pair in features.pairs if aspect in pair.scores])


def separable(rows, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    return np.eye(classes)[labels] * 50 + rng.normal(size=(rows, classes)), labels


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(2, 20), st.integers(2, 30))
def test_state_statistics_are_norm_variance_and_entropy_of_the_softmax(seed, rows, width):
    states = np.random.default_rng(seed).normal(size=(rows, width)) * 40
    found = state_statistics(states)
    np.testing.assert_allclose(found[:, 0], np.sqrt((states**2).sum(1)))
    np.testing.assert_allclose(found[:, 1], ((states - states.mean(1, keepdims=True)) ** 2).mean(1))
    np.testing.assert_allclose(found[:, 2], entropy(softmax(np.clip(states, -50, 50), axis=1), axis=1), atol=1e-9)


def test_attention_statistics_are_over_heads():
    found = attention_statistics(np.array([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(found, [[2, 1, 3], [2, 0, 2]])


def test_components_leave_out_constants_and_stay_below_the_rows():
    states = np.random.default_rng(0).normal(size=(12, 80))
    states[:, 3] = 7.0
    assert without_constants(states).shape == (12, 79)
    assert principal_components(states).shape == (12, 11)
    assert principal_components(np.random.default_rng(0).normal(size=(90, 70))).shape == (90, 50)
    assert without_constants(np.ones((4, 2))).tolist() == [[0.0]] * 4


def test_a_candidate_is_measured_as_plain_sklearn_does():
    rng = np.random.default_rng(1)
    scores = np.repeat([1, 2, 4, 5], 12)
    states = rng.normal(size=(48, 20)) + scores[:, None] * rng.normal(size=20)
    good = (scores >= 4).astype(int)
    found = rank_candidate(3, "mean", "pca", principal_components(states), scores, good)
    scaled = StandardScaler().fit_transform(PCA(20).fit_transform(states))
    folds = StratifiedKFold(5, shuffle=True, random_state=42)
    for labels, mean, std in (
        (good, found.binary_accuracy, found.binary_std),
        (scores, found.multi_accuracy, found.multi_std),
    ):
        plain = cross_val_score(LogisticRegression(max_iter=1000), scaled, labels, cv=folds)
        assert (mean, std) == (pytest.approx(plain.mean(), abs=1e-4), pytest.approx(plain.std(), abs=1e-4))
    first = PCA(1).fit_transform(states)[:, 0]
    assert abs(found.pearson) == pytest.approx(abs(np.corrcoef(first, scores)[0, 1]), abs=1e-3)


def test_ranks_go_by_the_task_and_nulls_come_last():
    scores, good = np.array([1, 1, 2, 2, 3, 3]), np.array([0, 0, 0, 0, 0, 1])
    noise = np.random.default_rng(0).normal(size=(6, 1))
    candidates = [
        rank_candidate(0, "mean", "pca", noise, scores, good),
        rank_candidate(1, "mean", "pca", scores[:, None] * 10.0, scores, good),
    ]
    assert [one.binary_accuracy for one in candidates] == [None, None]
    assert [one.layer for one in best_first(candidates, "multi")] == [1, 0]
    assert [one.layer for one in best_first(candidates, "binary")] == [0, 1]


def test_constant_features_correlate_with_nothing():
    found = rank_candidate(0, "mean", "stats", np.ones((8, 3)), np.arange(8) % 2 + 3, np.arange(8) % 2)
    assert (found.n_features, found.pearson, found.spearman, found.binary_accuracy) == (1, 0.0, 0.0, 0.5)


@pytest.mark.parametrize("classifier", ["lr", "linear_svm"])
def test_a_probe_tells_what_can_be_told(classifier):
    inputs, labels = separable(60)
    found = fit_and_test(inputs, labels + 3, classifier)
    assert found["n_test"] == 12 and found["cv_macro_f1"] == 1.0
    for metric in ("auroc", "macro_f1"):
        assert found[metric].items() >= {"value": 1.0, "low": 1.0, "high": 1.0}.items()
    assert found["spearman"]["value"] > 0.85


def test_the_probe_is_the_published_search():
    rng = np.random.default_rng(5)
    labels = rng.integers(2, 5, 80)
    inputs = rng.normal(size=(80, 6)) + 0.7 * labels[:, None]
    found = fit_and_test(inputs, labels)
    x, test_x, y, test_y = train_test_split(inputs, labels, test_size=0.2, stratify=labels, random_state=731)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1]}
    plain = GridSearchCV(pipeline, grid, cv=5, scoring="f1_macro").fit(x, y)
    assert found["C"] == plain.best_params_["logisticregression__C"]
    assert found["cv_macro_f1"] == pytest.approx(plain.best_score_, abs=1e-4)
    expected = f1_score(test_y, plain.predict(test_x), average="macro")
    assert found["macro_f1"]["value"] == pytest.approx(expected, abs=1e-4)
    assert found["macro_f1"]["low"] <= found["macro_f1"]["value"] <= found["macro_f1"]["high"]


def test_what_the_test_rows_do_not_define_is_null():
    inputs, labels = separable(60)
    found = fit_and_test(inputs, labels + 1)
    assert found["auroc"].items() >= {"value": None, "low": None, "high": None}.items()
    assert found["macro_f1"]["value"] == 1.0


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=60))
def test_balancing_keeps_the_rarest_whole_and_as_many_of_the_others(scores):
    scores = np.array(scores)
    kept = balanced_rows(scores)
    counts = np.unique(scores, return_counts=True)[1]
    assert np.unique(scores[kept], return_counts=True)[1].tolist() == [counts.min()] * len(counts)
    assert sorted(set(kept.tolist())) == kept.tolist()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([3] * 9, "two classes or more"),
        ([3] * 9 + [4] * 2, "the rarest has 2"),
        ([1, 2, 3, 4] * 4 + [5] * 5, None),
        ([1, 2, 3, 4] * 3, "a test row for each of 4 classes"),
    ],
)
def test_labels_that_are_too_few_are_told_why(labels, reason):
    found = why_not(np.array(labels))
    assert found is None if reason is None else reason in found


def test_head_entropies_are_those_of_each_pair_alone(backbone_dir, tokenizer):
    eager = AutoModel.from_pretrained(backbone_dir, attn_implementation="eager").eval()
    encoder = PairTokenizer(PairTemplate.from_template(RUBRICS["fluency"]), tokenizer, 512)
    encoded = [encoder(pair["question"], pair["prediction"]) for pair in PAIRS]
    found = head_entropies(eager, encoded)
    assert sorted(found) == list(range(1, N_LAYERS + 1))
    for row, pair in enumerate(encoded):
        with torch.no_grad():
            attentions = eager(torch.tensor([pair.input_ids]), output_attentions=True).attentions
        for layer, weights in enumerate(attentions, start=1):
            plain = entropy(weights[0].numpy(), axis=-1).mean(-1)
            np.testing.assert_allclose(found[layer][row], plain, atol=1e-5)


def test_a_backbone_that_gives_no_attention_weights_is_refused(full_model, tokenizer):
    encoded = [PairTokenizer(PairTemplate("", " ", ""), tokenizer, 512)("a question", "a response")]
    with pytest.raises(BackboneError, match="attention weights of 4 layers, but .* gave those of 0"):
        head_entropies(full_model, encoded)


def test_entropies_are_read_once_in_the_rows_of_the_features(features, tmp_path):
    first = attention_entropies(features, "rubric:fluency")
    assert {layer: values.shape for layer, values in first.items()} == {n: (5, 4) for n in range(1, N_LAYERS + 1)}
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "features").glob("attention-*")}
    again = attention_entropies(features, "rubric:fluency")
    assert files and {p: p.stat().st_mtime_ns for p in (tmp_path / "features").glob("attention-*")} == files
    assert all((first[layer] == again[layer]).all() for layer in first)


@ONE_BACKBONE
def test_the_protocol_reads_the_first_of_its_ranking(features, caplog):
    chosen = ReferenceSettings(poolings=("last", "concat"))
    results = reference_protocol(features, chosen)
    assert set(results) == {"logicality"} and "leaves out rubric:fluency: it expects 3 rows" in caplog.text
    entry = results["logicality"]
    ranked = entry["rankings"]["pca"]
    accuracies = [one["multi_accuracy"] for one in ranked]
    assert accuracies == sorted(accuracies, reverse=True) and len(ranked) == 2 * N_LAYERS
    assert (entry["layer"], entry["pooling"]) == (ranked[0]["layer"], ranked[0]["pooling"])
    assert len(entry["rankings"]["stats"]) == 2 * N_LAYERS and "attention" not in entry["rankings"]
    poolings = ("min", "max", "mean") if entry["pooling"] == "concat" else (entry["pooling"],)
    alone = fit_and_test(states_of(features, entry["layer"] + 1, poolings), labels_of(features))
    assert {key: entry[key] for key in alone} == alone
    assert (entry["n"], entry["n_test"]) == (40, 8) and entry["cv_macro_f1"] > 0.5


@ONE_BACKBONE
def test_attention_can_be_ranked_and_read_by_the_probe(features):
    found = reference_protocol(features, replace(ONLY_MEAN, attention="probe", task="binary"))["logicality"]
    assert {one["pooling"] for one in found["rankings"]["attention"]} == {"heads"}
    assert len(found["rankings"]["attention"]) == N_LAYERS
    layer = found["layer"] + 1
    heads = attention_entropies(features, "rubric:logicality")[layer].astype(float)
    inputs = np.concatenate([states_of(features, layer, ("mean",)), heads], axis=1)
    alone = fit_and_test(inputs, (labels_of(features) >= 4).astype(int))
    assert {key: found[key] for key in alone} == alone


def test_entropies_of_joined_features_are_those_of_each(features, config, tmp_path):
    again = replace(reference_features(config, str(tmp_path / "again")), window=8)
    extract(again)
    joined = concatenate([features, load_features(tmp_path / "again")])
    for layer, values in attention_entropies(joined, "rubric:fluency").items():
        alone = attention_entropies(features, "rubric:fluency")[layer]
        np.testing.assert_allclose(values, np.concatenate([alone, alone]), atol=1e-5)


@ONE_BACKBONE
def test_auxiliary_pairs_are_left_out_and_scores_can_be_balanced(features):
    for pair in features.pairs[:6]:
        pair.auxiliary = True
    assert reference_protocol(features, ONLY_MEAN)["logicality"]["n"] == 34
    counts = np.unique(labels_of(features)[6:], return_counts=True)[1]
    balanced = reference_protocol(features, replace(ONLY_MEAN, balanced=True))["logicality"]
    assert balanced["n"] == 4 * counts.min() < 34


@ONE_BACKBONE
def test_features_without_a_rubric_are_refused(config):
    extract(config)
    with pytest.raises(DataFileError, match="readings named rubric:<aspect>, but got chat"):
        reference_protocol(load_features(config.output))


@ONE_BACKBONE
def test_the_command_extracts_once_and_is_not_repeated(config, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = ReferenceSettings(classifier="linear_svm", poolings=("mean",), attention="ranking")
    command = ReferenceConfig(
        config.pairs,
        str(tmp_path / "features"),
        str(tmp_path / "reference.json"),
        backbone_id=config.backbone_id,
        backbone_revision=None,
        max_length=256,
        settings=settings,
    )
    run_reference(command)
    written = Path(command.output).read_text()
    found = json.loads(written)["logicality"]
    assert f"logicality: layer {found['layer']}, mean, AUROC {found['auroc']}" in caplog.text
    caplog.clear()
    run_reference(command)
    assert Path(command.output).read_text() == written and f"AUROC {found['auroc']}" in caplog.text
    assert "holds these features already" in caplog.text and "is already there" in caplog.text
    assert (tmp_path / "reference_layers.png").stat().st_size > 5000
    run_reference(replace(command, settings=ONLY_MEAN))
    assert "attention" not in json.loads(Path(command.output).read_text())["logicality"]["rankings"]


def ranked(layer, pooling, kind, binary, multi=None):
    return Ranked(layer, pooling, kind, 3, binary, 0.1, multi, None if multi is None else 0.2, 0.0, 0.0)


def test_the_figure_takes_the_best_of_each_layer_and_the_table_every_pooling():
    candidates = [
        ranked(0, "mean", "pca", 0.6, 0.4),
        ranked(0, "last", "pca", 0.7),
        ranked(0, "mean", "stats", 0.8, 0.3),
        ranked(1, "last", "pca", 0.5),
    ]
    assert best_by_layer(candidates, "binary") == [(0, 0.8, 0.1), (1, 0.5, 0.1)]
    assert best_by_layer(candidates, "multi") == [(0, 0.4, 0.2)]
    rows = pooling_table({"fluency": candidates}).splitlines()
    start = rows.index("## fluency, binary")
    assert rows[start + 2 : start + 6] == [
        "| layer | mean | last |",
        "|---|---|---|",
        "| 0 | 0.600 ± 0.100 | **0.700 ± 0.100** |",
        "| 1 | - | 0.500 ± 0.100 |",
    ]
    binary, multi = layer_figure({"fluency": candidates, "logicality": candidates}).axes
    assert [container.get_label() for container in binary.containers] == ["fluency", "logicality"]
    assert binary.containers[0][0].get_ydata().tolist() == [0.8, 0.5] and len(multi.containers[0][0].get_ydata()) == 1


def test_classifiers_of_attention_features_are_refused():
    with pytest.raises(SettingsError, match="classifiers expects probes without attention features"):
        ReferenceConfig("p", "f", "o", classifiers="c", settings=replace(ONLY_MEAN, attention="probe"))
