"""Nested cross-validation: chance on noise, signal is found, rivals are paired, folds never saw what they predict."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.evaluation.crossval import CrossValidation
from inspector_training.probing.settings import SearchConfig
from inspector_training.rows.records import LabelledPair
from inspector_training.stages.evaluate import Config as EvaluateConfig
from inspector_training.stages.evaluate import _named, evaluate, joined, report
from inspector_training.stages.evaluate import run as evaluate_stage
from support.made_up import make_features, make_pairs

from inspector_pipeline.errors import DataFileError

SEARCH = SearchConfig(poolings=(("last",),), depths=(2,), sharings=(1.0,), heads=(), inner_folds=3)
CONFIG = EvaluateConfig(("features",), "out.json", SEARCH, folds=3, repeats=1, bootstraps=20, learning_curve=())


@pytest.mark.parametrize("bias", [True, False])
def test_noise_gives_chance_and_signal_is_found(tmp_path, bias):
    config = replace(CONFIG, search=replace(SEARCH, bias=bias))
    pairs = make_pairs(150)
    noise = evaluate(make_features(tmp_path / "noise", pairs), config)
    assert abs(noise["mean"]["auroc"]["value"] - 0.5) < 0.12
    signal = evaluate(make_features(tmp_path / "signal", pairs, signal=2.0), config)
    assert signal["mean"]["auroc"]["value"] > (0.85 if bias else 0.75)  # these features hold no constant to lean on
    assert "gain" in report(signal) and set(signal["aspects"]) == {"logic", "fluency", "correctness"}
    assert not signal["aspects"]["correctness"]["counts_in_total"]


def test_a_rival_is_paired_and_sets_are_predicted_by_folds_that_never_saw_their_questions(tmp_path):
    pairs = make_pairs(60, auxiliary=6)
    features = make_features(tmp_path / "main", pairs, signal=1.0)
    others = [replace(pair, prediction="another", sample=5) for pair in pairs if pair.scores and not pair.auxiliary]
    others += [LabelledPair(f"new{i}", f"New {i}?", "x", {"logic": 2 + i % 4}) for i in range(20)]
    others.append(LabelledPair("x0", "Only damaged?", "x", {"logic": 5}))  # every fold may fit on its auxiliary row
    other = make_features(tmp_path / "other", others, seed=1, signal=1.0)
    config = replace(CONFIG, rival=SEARCH, learning_curve=(0.01, 0.5))
    design, source = joined(features, {"other": other}, config.search.uncounted)
    seen = []
    for fold in CrossValidation(design.labels, config.folds, config.seed, 1, source > 0).divided:
        test, rows = fold.asked
        assert not {*rows.question, *test.question} & set(fold.train.question)
        seen += rows.row.tolist()
    own = (source == 1) & (design.labels.question != "x0")
    assert sorted(seen) == np.flatnonzero(own).tolist()
    with_rival = evaluate(features, config)
    assert with_rival["mean"]["rival"] == {k: with_rival["mean"][k] for k in with_rival["mean"]["rival"]}
    assert all(g["value"] == g["low"] == g["high"] == 0 for g in with_rival["mean"]["gain_over_rival"].values())
    assert [point["share"] for point in with_rival["learning_curve"]] == [0.5, 1.0]
    found = evaluate(features, CONFIG, transfer={"other": other})["transfer"]["other"]["logic"]
    assert found["n"] == int((own & (design.labels.aspect == 0)).sum())


def test_folders_of_one_name_are_told_apart():
    assert _named(["a/features", "b/features"]) == {"a/features": "a/features", "b/features": "b/features"}
    assert _named(["w/a", "w/b"]) == {"a": "w/a", "b": "w/b"} and _named([]) == {}
    with pytest.raises(DataFileError, match="transfer expects different folders"):
        _named(["a/x", "a/x"])


def test_the_stage_is_not_run_again_for_the_same_inputs(tmp_path, caplog):
    caplog.set_level("INFO")
    make_features(tmp_path / "features", make_pairs(40), signal=1.0)
    config = replace(CONFIG, features=(str(tmp_path / "features"),), output=str(tmp_path / "results.json"))
    evaluate_stage(config)
    assert "is already there" not in caplog.text
    evaluate_stage(config)
    assert "is already there" in caplog.text
    make_features(tmp_path / "other", make_pairs(10), signal=1.0)
    transfer, folder = (str(tmp_path / "other"),), tmp_path / "out_of_fold"
    evaluate_stage(replace(config, transfer=transfer, out_of_fold=str(folder)))
    assert sorted(path.name for path in folder.iterdir()) == ["fitted.jsonl", "other.jsonl"]
    assert '"expected_logic": ' in (folder / "other.jsonl").read_text()
