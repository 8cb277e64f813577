"""A folder of published classifiers is a judge at every door, in the rubrics of a probing set or in our own words."""

import json
import pickle

import numpy as np
import pytest
from inspector_cli.main import main as inspector
from inspector_training.features.plan import read_readings
from inspector_training.judges.classifiers import judge_of_classifiers, load_classifiers
from inspector_training.labelling.readings import own_readings
from inspector_training.labelling.rubrics import FIVE_LEVELS
from inspector_training.rows.probing_set import ASPECTS, find_rubric, split_prompt
from inspector_training.score_tokens.judge import open_judge
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.models import PAIRS
from support.results import alike

from inspector_pipeline import PairTemplate, evaluate_samples, load_judge
from inspector_pipeline.api import load as loading
from inspector_pipeline.errors import JudgeConfigError

CHOSEN = {"logicality": ([1, 3], "mean"), "factuality": ([2], "last"), "fluency": ([0], "concat")}


@pytest.fixture
def clfs(tmp_path, backbone_dir):
    """Write classifiers as the published folders hold them, of random numbers, and a probing set with rubrics."""
    folder = tmp_path / "gsm8k_multi_clfs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    prompts = {}
    for name, (layers, pool) in CHOSEN.items():
        x = rng.normal(size=(60, 32 * len(layers) * (3 if pool == "concat" else 1)))
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, rng.integers(1, 6, 60))
        metadata = {"llm": str(backbone_dir), "dimension": name, "classification": "multi", "layers": layers}
        package = {"model": fitted, "metadata": {**metadata, "pool": pool, "use_attn": False, "clf_name": "lr"}}
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(package))
        rubric = PairTemplate.from_template(f"Rate {name}.\n\nQ:\n{{question}}\n\nA:\n{{prediction}}\n\nScore:\n")
        prompts[name] = [{"id": i, "eval_prompt": rubric.text(**pair), "score": 1} for i, pair in enumerate(PAIRS)]
    (tmp_path / "probing.json").write_text(json.dumps(prompts))
    return folder


def scored_by(clfs, rubrics):
    judge = open_judge(judge_of_classifiers(load_classifiers(clfs, allow_pickle=True), rubrics))
    return evaluate_samples(PAIRS, judge)


def test_samples_are_scored_as_by_the_published_function(clfs, tmp_path, caplog):
    rubrics = tmp_path / "probing.json"
    found = evaluate_samples(PAIRS, clf_root=clfs, batch_size=16, top_percent=1.0, rubrics=rubrics)
    assert "rubrics" not in caplog.text
    assert alike(found, scored_by(clfs, read_readings(str(rubrics))))
    assert list(found[0])[:6] == ["question", "prediction", "logicality", "fluency", "factuality", "total_score"]
    assert evaluate_samples([], clf_root="gone") == []
    own = evaluate_samples(PAIRS, clf_root=str(clfs), model_name=str(load_judge(clfs).model.config.backbone_id))
    assert "read in this project's own rubrics" in caplog.text
    assert alike(own, scored_by(clfs, own_readings())) and not alike(own, found)


def test_the_command_scores_with_the_folder_and_names_its_file_as_published(clfs, backbone_dir, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(PAIRS))
    words = ["score", str(tmp_path / "results.json"), "--judge", str(clfs), "--device", "cpu", "--format", "none"]
    words += ["--rubrics", str(tmp_path / "probing.json"), "--backbone", str(backbone_dir)]
    assert inspector(words) == 0
    written = json.loads((tmp_path / f"results_{backbone_dir.name}_multi_evaled.json").read_text())
    assert alike(written, scored_by(clfs, read_readings(str(tmp_path / "probing.json"))))
    assert inspector([*words[:-2], "--output", f"{tmp_path}/job/"]) == 0  # a job goes on only with the same judge
    assert inspector([*words[:-2], "--output", f"{tmp_path}/job/"]) == 0
    assert inspector(["info", str(clfs)]) == 1
    assert "holds fitted classifiers" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(clfs, judge, monkeypatch):
    with pytest.raises(JudgeConfigError, match="expect a folder of fitted classifiers as the judge, but got"):
        load_judge(judge, backbone="org/other")
    with pytest.raises(JudgeConfigError, match=r"embedded, which brings its own"):
        load_judge(rubrics="probing.json")
    with pytest.raises(ValueError, match="expects a judge or clf_root, but got both"):
        evaluate_samples(PAIRS, judge, clf_root=clfs)
    monkeypatch.setattr(loading, "entry_points", lambda **_: [])
    with pytest.raises(JudgeConfigError, match=r"pip install 'inspector-pipeline\[training\]'") as caught:
        evaluate_samples(PAIRS, clf_root=clfs)
    assert "\n" not in str(caught.value)


def test_own_rubrics_are_found_again_in_the_prompts_that_they_make():
    readings = own_readings()
    assert tuple(readings) == ASPECTS
    for name, reading in readings.items():
        assert all(words in reading.prefix for words in FIVE_LEVELS[name].levels.values())
        prompts = [reading.text(pair["question"], pair["prediction"]) for pair in PAIRS]
        found = find_rubric(prompts)
        assert [split_prompt(prompt, found) for prompt in prompts] == [tuple(pair.values()) for pair in PAIRS]
        assert (found.prefix, found.middle, found.suffix) == (reading.prefix, reading.middle, reading.suffix)
