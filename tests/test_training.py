"""The training chain on a tiny backbone, and its pieces against plain computations."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import PAIRS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score, roc_auc_score

from inspector_pipeline import DataFileError, load_judge
from inspector_pipeline.reading import Reading
from training import evaluate as evaluate_stage
from training.evaluate import EvaluateConfig, evaluate, report
from training.export import export
from training.extract import ExtractConfig, extract, load_features
from training.fit import (
    Calibration,
    FitConfig,
    Labels,
    auroc,
    class_probabilities,
    fit_cumulative_logit,
    fit_ridge,
    held_out_values,
    load_grams,
    question_folds,
)
from training.make_judge import make_judge as run_chain
from training.probing_set import (
    drop_foreign,
    find_rubric,
    observed_classes,
    read_probing_set,
    read_questions,
    split_prompt,
)

RUBRICS = {
    "logicality": "Judge the logic.\n5 - sound\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
    "fluency": "Judge the language.\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
}
FIT = FitConfig(depths=(1, 2, 4), alphas=(1.0,), sharings=(0.0, 1.0))
EVALUATE = EvaluateConfig(fit=FIT, repeats=2, bootstraps=20)


def made_up_pair(i):
    words = ["apple", "sum", "total", "river", "because", "then", "four", "nine"]
    rng = np.random.default_rng(i)
    question = f"Question {i}: " + " ".join(rng.choice(words, 6)) + "?"
    return question, " ".join(rng.choice(words, 5 + i % 9)) + "\n" * (i % 2) + " end"


@pytest.fixture(scope="module")
def probing_set(tmp_path_factory):
    """60 pairs, each with one label, some with two; the label follows the text's length, with noise."""
    rows = {name: [] for name in RUBRICS}
    for i in range(60):
        question, prediction = made_up_pair(i)
        for name in ["logicality"] if i % 3 else ["logicality", "fluency"]:
            prompt = Reading.from_template(RUBRICS[name]).text(question, prediction)
            rows[name].append({"id": i, "eval_prompt": prompt, "score": [2, 3, 4, 5][(i % 9) // 2 % 4]})
    rows["fluency"].append(
        {"id": 99, "eval_prompt": Reading.from_template(RUBRICS["fluency"]).text("Alien?", "x"), "score": 1}
    )
    folder = tmp_path_factory.mktemp("data")
    (folder / "probing.json").write_text(json.dumps(rows))
    questions = [json.dumps({"question": made_up_pair(i)[0], "answer": ""}) for i in range(60)]
    (folder / "questions.jsonl").write_text("\n".join(questions) + "\n")
    return folder


def extract_config(probing_set, output, backbone_dir):
    return ExtractConfig(
        str(probing_set / "probing.json"),
        str(output),
        str(probing_set / "questions.jsonl"),
        backbone_id=str(backbone_dir),
        backbone_revision=None,
        max_length=512,
    )


@pytest.fixture
def features(probing_set, tmp_path, backbone_dir):
    extract(extract_config(probing_set, tmp_path / "features", backbone_dir))
    return load_features(tmp_path / "features")


def test_rubrics_and_pairs_are_taken_out_of_the_prompts(probing_set):
    pairs, readings = read_probing_set(probing_set / "probing.json")
    assert readings == {name: Reading.from_template(text) for name, text in RUBRICS.items()}
    assert [(pair.question, pair.prediction) for pair in pairs[:60]] == [made_up_pair(i) for i in range(60)]
    assert pairs[3].scores.keys() == set(RUBRICS) and pairs[1].scores.keys() == {"logicality"}


def test_filler_is_dropped_by_its_question_and_takes_its_classes_along(probing_set):
    pairs, _ = read_probing_set(probing_set / "probing.json")
    kept, foreign = drop_foreign(pairs, read_questions(probing_set / "questions.jsonl"))
    assert [pair.id for pair in foreign] == [99] and len(kept) == 60
    assert 1 in observed_classes(pairs)["fluency"] and 1 not in observed_classes(kept)["fluency"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["fluency"][0].pop("score"), r"fluency\[0\] expects the keys id, eval_prompt and score"),
        (lambda rows: rows["fluency"].append({**rows["fluency"][0], "score": 9}), "two labels for fluency"),
        (lambda rows: rows.update(fluency=[]), "non-empty lists by aspect"),
    ],
)
def test_bad_probing_sets_are_refused(probing_set, tmp_path, change, message):
    rows = json.loads((probing_set / "probing.json").read_text())
    change(rows)
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    with pytest.raises(DataFileError, match=message):
        read_probing_set(tmp_path / "bad.json")


def test_prompts_without_a_common_rubric_are_refused():
    with pytest.raises(DataFileError, match="share none"):
        find_rubric(["abc", "xyz"])
    with pytest.raises(DataFileError, match="follows its aspect's rubric"):
        split_prompt("other", Reading("a", "b", "c"))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataFileError, match="gone.json"):
        read_probing_set(tmp_path / "gone.json")
    with pytest.raises(DataFileError, match="gone.jsonl"):
        read_questions(tmp_path / "gone.jsonl")


def test_extracted_features_are_those_of_the_full_model(features, full_model, tokenizer):
    for row in (0, 7):
        pair = features.pairs[row]
        text = features.reading.text(pair.question, pair.prediction)
        encoded = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_offsets_mapping=True)
        start = text.index(pair.prediction, len(features.reading.prefix + pair.question))
        touched = [b > start and a < start + len(pair.prediction) for a, b in encoded["offset_mapping"][0].tolist()]
        with torch.no_grad():
            states = full_model(encoded["input_ids"], output_hidden_states=True).hidden_states
        for layer in (0, 1, 3):
            h = torch.nn.functional.rms_norm(states[layer][0], (32,), eps=full_model.config.rms_norm_eps)
            torch.testing.assert_close(features.values["last", layer][row], h[-1], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(
                features.values["response_mean", layer][row], h[touched].mean(0), atol=1e-5, rtol=1e-4
            )


def test_extract_is_not_repeated_for_the_same_inputs(probing_set, tmp_path, backbone_dir, caplog, features):
    caplog.set_level("INFO")
    config = extract_config(probing_set, tmp_path / "features", backbone_dir)
    extract(config)
    assert "holds these features already" in caplog.text
    caplog.clear()
    (tmp_path / "features" / "manifest.json").unlink()
    extract(config)
    assert "holds these features already" not in caplog.text


def test_another_stages_output_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"stage": "other"}')
    with pytest.raises(DataFileError, match="stage 'extract'"):
        load_features(tmp_path)


def test_folds_keep_a_questions_rows_together_and_cover_all(features):
    labels = Labels.of(features)
    seen = []
    for fit_rows, out_rows in question_folds(labels, 5, 0):
        assert not set(labels.question[fit_rows]) & set(labels.question[out_rows])
        seen += out_rows.tolist()
    assert sorted(seen) == list(range(len(labels.score)))


def test_without_sharing_each_aspect_is_a_plain_ridge(features):
    labels, grams = Labels.of(features), load_grams(features, FIT)
    train = labels.take(np.flatnonzero(labels.question != "3"))
    ridge = fit_ridge(grams[2], train, 1.0, 0.0, FIT)
    values = ridge.values(grams[2], labels)
    x = np.concatenate([features.values[p, layer].numpy() for layer in (1, 2) for p in FIT.poolings], axis=1).astype(
        float
    )
    # The penalty is a multiple of the whole kernel's mean diagonal, which both aspects share.
    centred = np.concatenate(
        [x[train.pair[train.aspect == a]] - x[train.pair[train.aspect == a]].mean(0) for a in (0, 1)]
    )
    penalty = (centred**2).sum() / len(centred)
    for a in (0, 1):
        own, here = train.aspect == a, labels.aspect == a
        target = train.score[own] + FIT.threshold_weight * (train.score[own] >= 4)
        plain = Ridge(alpha=penalty, solver="svd").fit(x[train.pair[own]], target)
        np.testing.assert_allclose(values[here], plain.predict(x[labels.pair[here]]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sharing", [0.0, 0.5, 4.0])
def test_the_primal_weight_gives_the_dual_values(features, sharing):
    labels, grams = Labels.of(features), load_grams(features, FIT)
    ridge = fit_ridge(grams[2], labels, 1.0, sharing, FIT)
    x = np.concatenate([features.values[p, layer].numpy() for layer in (1, 2) for p in FIT.poolings], axis=1).astype(
        float
    )
    values = ridge.values(grams[2], labels)
    for a in (0, 1):
        center, weight = ridge.weight(x, a)
        here = labels.aspect == a
        np.testing.assert_allclose(
            (x[labels.pair[here]] - center) @ weight + ridge.target_mean[a], values[here], atol=1e-8
        )


def test_held_out_values_do_not_see_their_own_question(features):
    labels, grams = Labels.of(features), load_grams(features, FIT)
    before = held_out_values(grams[2], labels, 1.0, 1.0, FIT)
    folds = list(question_folds(labels, FIT.inner_folds, FIT.seed))
    rows = folds[0][1]
    changed = copy.deepcopy(labels)
    changed.score[rows] = 9 - changed.score[rows]
    ridge = fit_ridge(grams[2], labels.take(folds[0][0]), 1.0, 1.0, FIT)
    np.testing.assert_array_equal(before[rows], ridge.values(grams[2], changed.take(rows)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=40), st.integers(0, 99))
def test_auroc_equals_sklearn_with_ties(values, seed):
    positive = np.random.default_rng(seed).random(len(values)) < 0.5
    if positive.all() or not positive.any():
        assert np.isnan(auroc(positive, np.array(values, float)))
    else:
        assert auroc(positive, np.array(values, float)) == pytest.approx(roc_auc_score(positive, values))


def test_macro_f1_equals_sklearn():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(1, 6, 200), rng.integers(1, 6, 200)
    ours = evaluate_stage._macro_f1(truth, [1, 2, 3, 4, 5], evaluate_stage.Prediction(found, found, found))
    assert ours == pytest.approx(f1_score(truth, found, average="macro"))


def test_the_cumulative_logit_recovers_its_own_parameters():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    thresholds = np.array([-1.0, 0.5, 2.0])
    scores = 1 + (rng.random((20_000, 1)) < expit(2.0 * values[:, None] - thresholds)).argmin(1) * 0
    p = class_probabilities(2.0 * values, thresholds)
    scores = np.array([rng.choice(4, p=row) for row in p]) + 1
    slope, found = fit_cumulative_logit(values, scores, [1, 2, 3, 4])
    assert slope == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(found, thresholds, atol=0.1)
    calibration = Calibration.fit(values, scores, [1, 2, 3, 4])
    given_shares = np.bincount(calibration.class_index(values), minlength=4) / len(values)
    np.testing.assert_allclose(given_shares, np.bincount(scores)[1:] / len(values), atol=0.01)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(5, 30))
def test_calibration_never_breaks_on_small_or_odd_samples(seed, n):
    rng = np.random.default_rng(seed)
    classes = [1, 2, 3, 4, 5]
    calibration = Calibration.fit(rng.normal(size=n) * 10.0 ** rng.integers(-3, 4), rng.integers(1, 6, n), classes)
    p = calibration.probabilities(rng.normal(size=10))
    assert np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(1), 1)
    assert (np.diff(calibration.cuts) >= 0).all() and (np.diff(calibration.thresholds) > 0).all()


def test_the_whole_chain_makes_a_judge_that_scores_as_it_was_fitted(probing_set, tmp_path, backbone_dir, caplog):
    caplog.set_level("INFO")
    config = extract_config(probing_set, tmp_path / "features", backbone_dir)
    run_chain(config, EVALUATE, tmp_path / "judge", fused=False)
    assert "AUROC" in caplog.text and "Wrote a judge of depth" in caplog.text
    features = load_features(tmp_path / "features")
    results = json.loads((tmp_path / "judge" / "results.json").read_text())
    assert results["n_foreign"] == 1 and set(results["aspects"]) == set(RUBRICS)
    assert results["aspects"]["fluency"]["classes"] == [2, 3, 5]  # the filler's 1 was never observed
    assert sum(results["protocol"]["depths_chosen"].values()) == EVALUATE.folds * EVALUATE.repeats
    assert report(results).count("AUROC") == 3
    card = (tmp_path / "judge" / "README.md").read_text()
    assert "| logicality |" in card and "Undefined" not in card
    judge = load_judge(tmp_path / "judge", device="cpu")
    depth = judge.model.config.depth
    labels, grams = Labels.of(features), load_grams(features, FIT)
    choice = results["judge"]
    ridge = fit_ridge(grams[depth], labels, choice["alpha"], choice["sharing"], FIT)
    values = ridge.values(grams[depth], labels)
    held_out = held_out_values(grams[depth], labels, choice["alpha"], choice["sharing"], FIT)
    scored = judge([{"question": p.question, "prediction": p.prediction} for p in features.pairs])
    for a, name in enumerate(labels.names):
        here = labels.aspect == a
        calibration = Calibration.fit(held_out[here], labels.score[here], labels.classes[a])
        expected = calibration.probabilities(values[here]) @ np.array(labels.classes[a])
        got = [scored[i]["expected"][name] for i in labels.pair[here]]
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_fused_judge_can_be_exported(features, tmp_path):
    results = evaluate(features, EVALUATE)
    export(features, results, tmp_path / "judge", fused=True)
    judge = load_judge(tmp_path / "judge", device="cpu")
    assert judge.model.config.fused and judge(PAIRS[0])["scores"].keys() == set(RUBRICS)


def test_results_of_other_labels_are_refused(features, tmp_path):
    results = {"aspects": {"logicality": {"n": 3}}}
    with pytest.raises(DataFileError, match="expects the labels of the features given"):
        export(features, results, tmp_path / "judge")


def test_the_supplied_data_is_read_and_its_filler_found(data_dir):
    path = data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
    pairs, readings = read_probing_set(path)
    kept, foreign = drop_foreign(pairs, read_questions(data_dir / "gsm8k_train.jsonl"))
    assert (len(pairs), len(kept), len(foreign)) == (851, 811, 40)
    assert sum(len(pair.scores) for pair in foreign) == 93 and all(pair.id > 7472 for pair in foreign)
    assert observed_classes(kept)["fluency"] == [3, 4, 5]
    raw = json.loads(path.read_text())
    for name, reading in readings.items():
        prompts = {row["eval_prompt"] for row in raw[name]}
        assert {reading.text(p.question, p.prediction) for p in pairs if name in p.scores} == prompts


@pytest.mark.slow
def test_the_embedded_judge_beats_chance_on_what_it_was_fitted_on(data_dir, embedded):
    pairs, _ = read_probing_set(data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json")
    kept, _ = drop_foreign(pairs, read_questions(data_dir / "gsm8k_train.jsonl"))
    sample = [pair for pair in kept if "fluency" in pair.scores]
    results = embedded([{"question": pair.question, "prediction": pair.prediction} for pair in sample])
    good = np.array([pair.scores["fluency"] >= 4 for pair in sample])
    assert auroc(good, np.array([result["expected"]["fluency"] for result in results])) > 0.7
