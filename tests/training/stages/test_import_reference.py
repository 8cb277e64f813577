import copy
import json
import logging
import pickle

import numpy as np
import pytest
import torch
from inspector_cli.main import main as inspector
from inspector_training.judges.classifiers import (
    Classifier,
    Metadata,
    UnsafePickleError,
    judge_of_classifiers,
    load_classifiers,
    save_classifiers,
)
from inspector_training.judges.port import NotPortableError
from inspector_training.judges.port_check import compare
from inspector_training.judges.write import write_judge
from inspector_training.rows.probing_set import read_probing_set
from inspector_training.runs.command import main as train
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.models import PAIRS
from support.results import alike
from transformers import AutoModel

from inspector_pipeline import DataFileError, PairTemplate, evaluate_samples, load_judge

METADATA = {
    "llm": "org/model",
    "dimension": "clarity",
    "classification": "multi",
    "layers": [1, 3],
    "pool": "mean",
    "use_attn": False,
    "best_score": 0.5,
}
RUBRIC = PairTemplate.from_template("Rate.\n\nQ:\n{question}\n\nA:\n{prediction}\n\nScore:\n")


def fitted(n_features, classes=(1, 2, 3), seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, n_features)).astype(np.float32)
    y = np.array(classes)[rng.integers(0, len(classes), 200)]
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.01)).fit(x, y)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "clfs"
    path.mkdir()
    package = {"model": fitted(64), "metadata": METADATA}
    (path / "clarity.pkl").write_bytes(pickle.dumps(package))
    return path


def changed(folder, **changes):
    package = pickle.loads((folder / "clarity.pkl").read_bytes())
    metadata = {**package["metadata"], **changes}
    metadata = {name: value for name, value in metadata.items() if value is not ...}
    (folder / "clarity.pkl").write_bytes(pickle.dumps({**package, "metadata": metadata}))


def test_pickles_need_the_flag(folder):
    with pytest.raises(UnsafePickleError, match="Pass --allow-pickle"):
        load_classifiers(folder)
    assert load_classifiers(folder, allow_pickle=True)["clarity"].metadata.layers == (1, 3)


FAULTS = {
    "missing": ({"layers": ...}, "metadata needs layers"),
    "swapped": ({"pool": "binary", "classification": "mean"}, r"metadata.pool expects one of .*'binary'"),
    "swapped layers": ({"layers": "mean", "pool": [1]}, "metadata.layers expects a list of layer numbers"),
    "dimension": ({"dimension": "fluency"}, "metadata.dimension expects the file's name, clarity, but got fluency"),
    "pool": ({"pool": "median"}, "metadata.pool expects one of"),
    "negative": ({"layers": [-1]}, "numbers from 0"),
    "llm": ({"llm": None}, "metadata.llm expects a name"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_wrong_metadata_are_named(folder, case):
    changes, message = FAULTS[case]
    changed(folder, **changes)
    with pytest.raises(DataFileError, match=message):
        load_classifiers(folder, allow_pickle=True)


def test_attention_features_are_refused_by_name(folder):
    changed(folder, use_attn=True)
    with pytest.raises(NotPortableError, match="the classifier of clarity needs attention features"):
        load_classifiers(folder, allow_pickle=True)


def test_an_empty_folder_and_a_foreign_pickle_are_refused(tmp_path):
    with pytest.raises(DataFileError, match="holds none"):
        load_classifiers(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataFileError, match="expects {'model', 'metadata'}, but holds list"):
        load_classifiers(tmp_path, allow_pickle=True)


def save(model, classifiers, folder, fused=False):
    write_judge(model, folder, fused=fused)
    save_classifiers(classifiers, folder / "skops")


def build(classifiers, backbone_dir, readings=None):
    return judge_of_classifiers(
        classifiers, readings or dict.fromkeys(classifiers, RUBRIC), backbone_id=str(backbone_dir)
    )


def test_faults_of_the_judge_are_named(folder, backbone_dir):
    classifiers = load_classifiers(folder, allow_pickle=True)
    with pytest.raises(DataFileError, match="expects prompts for clarity, but has fluency"):
        build(classifiers, backbone_dir, {"fluency": RUBRIC})
    metadata = Metadata.of({**METADATA, "layers": [4]}, "x")
    with pytest.raises(DataFileError, match="numbers from 0 to 3.*but got 4"):
        build({"clarity": Classifier(fitted(32), metadata)}, backbone_dir)
    with pytest.raises(ValueError, match="expects 32 inputs, but the judge gives it 2 feature"):
        build({"clarity": Classifier(fitted(32), Metadata.of(METADATA, "x"))}, backbone_dir)
    with pytest.raises(DataFileError, match="says binary, but the classifier has the classes"):
        build(
            {"clarity": Classifier(fitted(64), Metadata.of({**METADATA, "classification": "binary"}, "x"))},
            backbone_dir,
        )
    other = Metadata.of({**METADATA, "llm": "org/other", "dimension": "b"}, "x")
    with pytest.raises(DataFileError, match="expect one backbone, but name"):
        judge_of_classifiers({**classifiers, "b": Classifier(fitted(64), other)}, {"clarity": RUBRIC, "b": RUBRIC})


def test_round_trip_through_skops_gives_identical_tensors(folder, backbone_dir, tmp_path):
    classifiers = load_classifiers(folder, allow_pickle=True)
    save(build(classifiers, backbone_dir), classifiers, tmp_path / "one")
    again = load_classifiers(tmp_path / "one" / "skops")
    save(build(again, backbone_dir), again, tmp_path / "two")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "one" / "config.json").read_text() == (tmp_path / "two" / "config.json").read_text()


def test_a_fused_import_needs_no_backbone_afterwards(folder, backbone_dir, tmp_path):
    classifiers = load_classifiers(folder, allow_pickle=True)
    save(build(classifiers, backbone_dir), classifiers, tmp_path / "fused", fused=True)
    save(build(classifiers, backbone_dir), classifiers, tmp_path / "probes")
    fused, probes = (load_judge(tmp_path / name, device="cpu") for name in ("fused", "probes"))
    assert fused.model.config.fused and fused(PAIRS) == probes(PAIRS)


def test_the_command_imports_classifiers_and_regressions(folder, backbone_dir, tmp_path):
    regression = make_pipeline(StandardScaler(), Ridge()).fit(np.eye(64), np.arange(64) % 3 + 1)
    package = {"model": regression, "metadata": {**METADATA, "dimension": "length"}}
    (folder / "length.pkl").write_bytes(pickle.dumps(package))
    rows = [{"id": i, "eval_prompt": RUBRIC.text(**pair), "score": 1} for i, pair in enumerate(PAIRS)]
    (tmp_path / "probing.json").write_text(json.dumps({"clarity": rows, "length": rows}))
    output = tmp_path / "judge"
    arguments = ["--folder", folder, "--probing_set", tmp_path / "probing.json", "--backbone_id", backbone_dir]
    arguments += ["--output", output, "--allow_pickle", "true", "--classes", '{"length": [1, 2, 3]}']
    train(["import_reference", *map(str, arguments)])
    judge = load_judge(output, device="cpu")
    assert [(a.name, a.head.rule, a.classes) for a in judge.model.aspects] == [
        ("clarity", "logistic", (1, 2, 3)),
        ("length", "regression", (1, 2, 3)),
    ]
    assert set(judge(PAIRS[0])["scores"]) == {"clarity", "length"}
    assert load_classifiers(output / "skops").keys() == {"clarity", "length"}


def literal_values(full, tokenizer, reading, pair, classifier):
    """Do the published steps one by one: full model, eager, one pair, hidden states, scikit-learn in float64."""
    ids = tokenizer(
        reading.text(**{"question": pair["question"], "prediction": pair["prediction"]}), return_tensors="pt"
    )
    with torch.no_grad():
        hidden = full(**ids, output_hidden_states=True, output_attentions=True).hidden_states
    pools = {
        "mean": lambda h: h.mean(dim=1),
        "last": lambda h: h[:, -1],
        "min": lambda h: h.min(dim=1)[0],
        "max": lambda h: h.max(dim=1)[0],
    }
    parts = [pools[classifier.metadata.pool](hidden[1:][layer]) for layer in classifier.metadata.layers]
    x = np.hstack([part.numpy() for part in parts]).astype(np.float64)
    model = copy.deepcopy(getattr(classifier.estimator, "best_estimator_", classifier.estimator))
    if "decision_function_shape" in model[-1].get_params():
        model[-1].decision_function_shape = "ovo"
        values = model.decision_function(x).reshape(-1)
        return -values if len(model.classes_) == 2 else values, model.predict(x)[0]
    return model.decision_function(x).reshape(-1), model.predict(x)[0]


def check_against_literal_steps(judge, classifiers, folder, readings, pairs):
    full = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        got = judge.model.decide(judge.reader([judge.preprocess(pair) for pair in pairs])).decision_values
    batch = judge(pairs)
    for row, (pair, scored) in enumerate(zip(pairs, batch, strict=True)):
        for a, (name, classifier) in enumerate(classifiers.items()):
            values, predicted = literal_values(full, judge.tokenizer, readings[name], pair, classifier)
            scale = np.abs(values).max() + 1e-6
            np.testing.assert_allclose(got[a][row].numpy() / scale, values / scale, atol=1e-3)
            assert scored["scores"][name] == predicted or np.sort(np.abs(values))[0] < 1e-3 * scale


@pytest.mark.parametrize("pool", ["mean", "last", "min", "max"])
def test_layers_are_numbered_as_published_and_the_last_is_post_norm(backbone_dir, tmp_path, pool):
    metadata = Metadata.of({**METADATA, "layers": [3, 0], "pool": pool}, "x")
    classifiers = {"clarity": Classifier(fitted(64), metadata)}
    save(build(classifiers, backbone_dir), classifiers, tmp_path / "judge")
    judge = load_judge(tmp_path / "judge", device="cpu")
    assert [(f.layer, f.state) for f in judge.model.features] == [(4, "final_norm"), (1, "raw")]
    check_against_literal_steps(judge, classifiers, backbone_dir, {"clarity": RUBRIC}, PAIRS)


@pytest.mark.parametrize("name", ["gsm8k_multi_clfs"])
@pytest.mark.parametrize("deep", ["qwen3"], indirect=True)  # the family that they were published for
def test_published_classifiers_give_the_published_steps_decision_values(deep, data_dir, tmp_path, name, caplog, capsys):
    _, folder = deep
    caplog.set_level(logging.WARNING)
    classifiers = load_classifiers(data_dir / "reference" / name, allow_pickle=True)
    assert "fitted with scikit-learn 1.6" in caplog.text  # said, not hidden
    path = data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
    _, readings = read_probing_set(path)
    save(judge_of_classifiers(classifiers, readings, backbone_id=str(folder)), classifiers, tmp_path / "judge")
    judge = load_judge(tmp_path / "judge", device="cpu")
    samples = [{**pair, "id": i} for i, pair in enumerate(PAIRS[:2])]
    check_against_literal_steps(judge, classifiers, folder, readings, samples)
    scored = evaluate_samples(samples, judge)
    published = ["question", "prediction", "id", *classifiers, "total_score"]
    assert [list(row)[: len(published)] for row in scored] == [published] * 2
    assert all(row["total_score"] == sum(row[aspect] for aspect in classifiers) for row in scored)
    assert ("informativeness" in classifiers) == (name != "gsm8k_multi_clfs")
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    judge_path = str(tmp_path / "judge")
    assert inspector(["score", str(tmp_path / "samples.json"), "--judge", judge_path, "--device", "cpu"]) == 0
    kind = "multi" if "multi" in name else "binary"
    assert alike(json.loads((tmp_path / f"samples_{folder.name}_{kind}_evaled.json").read_text()), scored)


@pytest.mark.parametrize("name", ["gsm8k_binary_clfs", "gsm8k_multi_clfs", "math_binary_clfs"])
def test_published_classifiers_are_ported_without_a_mismatch(data_dir, name):
    for classifier in load_classifiers(data_dir / "reference" / name, allow_pickle=True).values():
        report = compare(classifier.estimator)
        assert report.rows >= 2000 and report.smallest_share >= 0.05
        assert report.mismatches == 0 and report.probability_error < 1e-5
