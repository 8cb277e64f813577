"""Curves by number of labels: known truth, test rows apart, a stopped run, and embeddings of local folders."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from inspector_training.evaluation.curves import Task, curves_table
from inspector_training.evaluation.methods.embedded import embed
from inspector_training.probing.settings import SearchConfig
from inspector_training.rows.records import LabelledPair
from inspector_training.stages.own_data_curves import Config, TaskConfig, run
from support.made_up import make_features, make_pairs
from support.models import tiny_config
from support.paths import TOKENIZER
from transformers import AutoModel, AutoTokenizer

from inspector_pipeline.errors import BackboneError, DataFileError
from inspector_pipeline.files.tables import read_json

SEARCH = SearchConfig(depths=(2, 4), poolings=(("last",),), penalties=(1.0,), heads=(), inner_folds=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features of 160 questions whose labels stand in layers from 2 on."""
    folder = tmp_path_factory.mktemp("features")
    make_features(folder, make_pairs(160, aspects=("logic",), auxiliary=4), signal=2.0)
    return folder


def test_a_curve_rises_beside_the_cheap_ways_and_a_stopped_run_goes_on(folder, tmp_path):
    task = TaskConfig((str(folder),), "logic")
    variants = {"one_layer": replace(SEARCH, depths=(4,), layers=("one",))}
    config = Config({"logic": task}, str(tmp_path), (20, 60), 80, 2, SEARCH, variants, bootstraps=50)
    run(config)
    found = read_json(tmp_path / "curves.json")["tasks"]["logic"]
    assert found["n_test"] >= 80 and [point["n"] for point in found["points"]] == [20, 60]
    few, many = found["points"]
    assert set(many["auroc"]) == {"judge", "one_layer", "length", "surface", "tfidf"}
    assert many["auroc"]["judge"]["value"] > max(0.85, few["auroc"]["judge"]["value"] - 0.02)
    assert many["gain_over"]["tfidf"]["low"] > 0.1
    assert "| 60 | 0." in (tmp_path / "curves.md").read_text()
    kept = sorted((tmp_path / "kept").rglob("*.json"))
    times = {path: path.stat().st_mtime_ns for path in kept}
    (tmp_path / "curves.json").unlink()
    (tmp_path / "kept" / "logic" / "length-20.json").unlink()
    run(config)
    again = {path: path.stat().st_mtime_ns for path in kept}
    assert sum(times[path] != again[path] for path in kept) == 2, "the one that was gone, and its manifest"
    assert read_json(tmp_path / "curves.json")["tasks"]["logic"] == found


def test_test_rows_and_drawn_rows_share_no_question(folder):
    from inspector_training.features.store import load_features

    features = load_features(folder)
    options = {"n_test": 60, "n_train": 40, "seed": 3, "good": None}
    task = Task.of("x", features, "logic", **options)
    for draw in range(3):
        fold = task.fold(40, draw, 3)
        assert len(fold.train.score) == 40 and not set(fold.train.question) & set(fold.test.question)
        smaller = task.fold(20, draw, 3)
        assert set(smaller.train.row) < set(fold.train.row), "more labels are added to the same ones"
    assert (task.fold(40, 0, 3).train.row != task.fold(40, 1, 3).train.row).any()
    assert not task.labels.auxiliary.any() and len(task.labels.names) == 1
    assert (fold.repeat, fold.number) == (2, 0) and fold.test.row.tolist() == task.labels.row[task.test].tolist()
    with pytest.raises(DataFileError, match="x expects 600 rows to test on and 40 others with labels of logic"):
        Task.of("x", features, "logic", **{**options, "n_test": 600})


@dataclass(frozen=True)
class Held:
    pairs: list


def test_a_task_takes_as_many_questions_as_it_needs_and_no_other_label():
    more = {"logic": 5, "other": 1}
    pairs = [LabelledPair(i, f"Q{i}", "x", more | {"logic": 1 + i % 5}, {"logic": 0.5}) for i in range(120)]
    pairs += [LabelledPair("a", "A", "x", {"logic": 3}, auxiliary=True), LabelledPair("b", "B", "x", {"other": 3})]
    task = Task.of("x", Held(pairs), "logic", n_test=20, n_train=30, seed=1, good=None)
    assert (len(task.labels.score), len(task.test), len(task.pool)) == (20 + 2 * 30, 20, 60)
    assert task.labels.names == ("logic",) and set(task.labels.weight) == {1.0}
    assert sum(bool(pair.scores) for pair in task.features.pairs) == 80 and len(task.features.pairs) == 122
    whole = Task.of("x", Held(pairs[:50]), "logic", n_test=20, n_train=30, seed=1, good=None)
    assert (len(whole.test), len(whole.pool)) == (20, 30)
    two = [replace(pair, id=i // 2, question=f"Q{i // 2}") for i, pair in enumerate(pairs[:50])]
    odd = Task.of("x", Held(two), "logic", n_test=19, n_train=30, seed=1, good=None)
    assert (len(odd.test), len(odd.pool)) == (20, 30), "whole questions"
    for n, n_test, n_train in ((49, 20, 30), (50, 51, 0), (50, 20, 31)):
        with pytest.raises(DataFileError, match=f"but has {n} in all"):
            Task.of("x", Held(pairs[:n]), "logic", n_test=n_test, n_train=n_train, seed=1, good=None)


def test_embeddings_are_read_from_local_folders(tmp_path, folder):
    model2vec = pytest.importorskip("model2vec")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    static, averaged = tmp_path / "static", tmp_path / "averaged"
    vectors = np.random.default_rng(0).normal(size=(len(tokenizer), 5)).astype(np.float32)
    model2vec.StaticModel(vectors, tokenizer.backend_tokenizer).save_pretrained(static)
    config = tiny_config("llama", vocab_size=len(tokenizer))
    AutoModel.from_config(config).save_pretrained(averaged)
    tokenizer.save_pretrained(averaged)
    texts = ["one two", "", "three", "one two"]
    for place, width in ((static, 5), (averaged, config.hidden_size)):
        found = embed(str(place), texts)
        assert found.shape == (4, width) and (found[1] == 0).all() and (found[0] == found[3]).all()
        assert (found[0] != found[2]).any()
    np.testing.assert_allclose(np.linalg.norm(embed(str(averaged), texts)[[0, 2]], axis=1), 1, atol=1e-5)
    with pytest.raises(BackboneError, match="expects a folder with a config.json"):
        embed(str(tmp_path), texts)
    named = read_json(static / "config.json") | {"model_type": "model2vec"}  # as distilled ones are
    (static / "config.json").write_text(json.dumps(named), encoding="utf-8")
    tasks = {"logic": TaskConfig((str(folder),), "logic")}
    run(Config(tasks, str(tmp_path / "out"), (40,), 60, 1, SEARCH, {}, {"model2vec": str(static)}, 20))
    (point,) = read_json(tmp_path / "out" / "curves.json")["tasks"]["logic"]["points"]
    assert 0.3 < point["auroc"]["model2vec"]["value"] < 0.75 and point["gain_over"]["model2vec"]["low"] > 0
    assert (tmp_path / "out" / "kept" / "logic" / "model2vec.npy").is_file()


def test_what_does_as_well_is_marked_in_the_table():
    def point(value, low, high):
        return {"value": value, "low": low, "high": high}

    auroc = {"judge": point(0.7, 0.6, 0.8), "tfidf": point(0.7, 0.6, 0.8), "length": point(0.8, 0.7, 0.9)}
    gains = {"tfidf": point(0, -0.1, 0.1), "length": point(-0.1, -0.2, -0.05)}
    task = {"n_test": 9, "n_test_questions": 3, "points": [{"n": 50, "auroc": auroc, "gain_over": gains}]}
    assert curves_table({"x": task}).splitlines()[-1] == (
        "| 50 | 0.700 (0.600 to 0.800) | 0.700 (0.600 to 0.800) = | 0.800 (0.700 to 0.900) > |"
    )
