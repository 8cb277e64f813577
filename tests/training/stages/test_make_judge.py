"""A file of steps makes a judge that scores pairs as it was fitted; a second run makes nothing again."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from inspector_training.features.store import load_features
from inspector_training.probing.familiarity import states_of
from inspector_training.probing.fitted import load_fitted
from inspector_training.stages.make_judge import Config as MakeJudgeConfig
from inspector_training.stages.make_judge import run as make_judge
from support.chain import write_chain

from inspector_pipeline import load_judge
from inspector_pipeline.errors import DataFileError


@pytest.mark.parametrize("family", ["qwen3"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_judge_scores_as_it_was_fitted_and_a_second_run_makes_nothing_again(tmp_path, backbone_dir, bias):
    changes = {"poolings": [["last", "wrong_sums"]]} if bias else {"bias": False, "layers": ["one"]}
    config = write_chain(tmp_path, backbone_dir, **changes)
    make_judge(config)
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and "judge" not in p.parts}
    judged = {p: p.read_bytes() for p in (tmp_path / "judge").iterdir() if p.suffix != ".png"}
    make_judge(config)
    assert made == {p: p.stat().st_mtime_ns for p in made} and judged == {p: p.read_bytes() for p in judged}
    features, fitted = load_features(tmp_path / "features"), load_fitted(tmp_path / "fit")
    judge = load_judge(tmp_path / "judge", device="cpu")
    scored = judge([{"question": p.question, "prediction": p.prediction} for p in features.pairs])
    for aspect in fitted.aspects:
        x = np.concatenate([features.matrix(f) for f in aspect.features], axis=1).astype(float)
        values = (x - aspect.center) @ aspect.weight + aspect.bias
        expected = aspect.calibration.probabilities(values) @ np.array(aspect.classes)
        np.testing.assert_allclose([r["expected"][aspect.name] for r in scored], expected, atol=1e-4)
        scores = np.array(aspect.classes)[aspect.calibration.class_index(values)]
        assert [r["scores"][aspect.name] for r in scored] == scores.tolist()
        if not bias:
            assert not aspect.center.any() and aspect.bias == 0
    assert [check.pooling for check in judge.model.checks] == ["wrong_sums"] * bias
    familiar = fitted.familiar
    states, rows = states_of(features, familiar.features, auxiliary=None)
    assert rows == features.pairs
    assert [r["unfamiliar"] for r in scored] == familiar.flags(rows, states).tolist()
    assert json.loads((tmp_path / "judge/results.json").read_text())["unfamiliar"] == familiar.report
    labelled = {p.question for p in features.pairs if p.scores}
    assert [r["seen"] for r in scored] == [p.question in labelled for p in features.pairs]
    echo = judge({"question": rows[0].question, "prediction": "zxcv qwe " * 200})
    assert echo["unfamiliar"] and not judge({"question": "Another?", "prediction": "so"})["seen"]
    rules = {a["head"]["rule"] for a in json.loads((tmp_path / "judge/config.json").read_text())["aspects"]}
    assert rules == {"ordinal" if bias else "regression"}
    probes = Path(tmp_path / "fit" / "fit.json")
    probes.write_text(probes.read_text() + " ")
    with pytest.raises(DataFileError, match="It was changed after it was made"):
        load_fitted(tmp_path / "fit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- stage: dance\n", "a list of steps, each with a stage of data"),
        ("stage: fit\n", "a list of steps"),
        ("- stage: [fit]\n", "a list of steps"),
        ("- {stage: fit, features: [a], output: b, depth: 3}\n", r"step 1 \(fit\) expects the settings"),
        ("- {stage: fit, features: ['${gone}'], output: b}\n", "value of the variable 'gone'"),
        ("- {stage: [\n", "expects YAML"),
    ],
)
def test_unknown_stages_settings_and_variables_are_named(tmp_path, text, message):
    (tmp_path / "steps.yaml").write_text(text)
    with pytest.raises(DataFileError, match=message):
        make_judge(MakeJudgeConfig(str(tmp_path / "steps.yaml")))


@pytest.mark.parametrize("family", ["llama"])
def test_a_judge_of_two_folders_in_whole_numbers_says_the_larger_of_their_distances(tmp_path, backbone_dir):
    config = write_chain(tmp_path, backbone_dir)
    steps = yaml.safe_load(Path(config.steps).read_text())
    rows = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "more.jsonl").write_text("".join(rows[20:]))
    read = {**steps[1], "engine": "torch-int8"}
    folders = [str(tmp_path / name) for name in ("features", "more_features")]
    more = {**read, "pairs": str(tmp_path / "more.jsonl"), "output": folders[1]}
    fit, evaluate, export = ({**step, **({"features": folders} if "features" in step else {})} for step in steps[2:])
    Path(config.steps).write_text(yaml.safe_dump([steps[0], read, more, fit, evaluate, export]))
    make_judge(config)
    told = [json.loads((Path(one) / "manifest.json").read_text())["settings"]["state_error"] for one in folders]
    engine = load_judge(tmp_path / "judge", device="cpu").model.config.engine
    assert engine["name"] == "torch-int8" and engine["state_error"] == max(told) and told[0] != told[1]
