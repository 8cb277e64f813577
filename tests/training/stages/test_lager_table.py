"""LAGER's own files of logits give its table: ten scores under their published names."""

import json
from dataclasses import replace

import numpy as np
import pytest
from inspector_training.score_tokens.weights import TuningConfig
from inspector_training.stages import lager_table
from inspector_training.stages.lager_table import PUBLISHED_NAMES, Config, read_logits, run
from safetensors.numpy import save_file
from scipy.special import softmax
from scipy.stats import kendalltau, pearsonr, spearmanr

from inspector_pipeline.errors import DataFileError, SettingsError

N, LAYERS = 40, 4
LEVELS = np.arange(1, 6)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(lager_table, "BOOTSTRAPS", 20)


def write(path, seed, layers=LAYERS):
    """Layer 1 knows the score, the others are noise; one row has none."""
    rng = np.random.default_rng(seed)
    rows, truth = [], rng.integers(1, 6, N)
    logits = rng.normal(size=(N, layers, 5))
    logits[:, 1] -= 2.0 * np.abs(LEVELS - truth[:, None])
    for i in range(N):
        frame = {"layer_n": {str(n): n for n in range(layers)}}
        frame["logits"] = {str(n): logits[i, n].tolist() for n in reversed(range(layers))}
        rows.append({"idx": i, "human_score": int(truth[i]), "weighted_socre": 3.0, "df": frame})
    rows.append({"idx": N, "human_score": 2, "weighted_socre": -1, "df": {"layer_n": {"0": -1}}})
    path.write_text(json.dumps(rows))
    return logits, truth


def test_the_ten_scores_are_correlated_as_scipy_does(tmp_path):
    logits, truth = write(tmp_path / "m_logits.json", 0)
    write(tmp_path / "v_logits.json", 1)
    convex = TuningConfig(method="convex")
    config = Config(
        str(tmp_path / "m_logits.json"), str(tmp_path / "out"), str(tmp_path / "v_logits.json"), tuning=convex
    )
    run(config)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["scores"]) == list(PUBLISHED_NAMES) and (results["n"], results["n_null"]) == (N, 1)
    weights = np.array(results["layer_weights"])
    assert len(weights) == LAYERS - 1 and weights.argmax() == 1  # the layer that knows
    expected = {
        "direct_score": logits[:, -1].argmax(axis=1) + 1,
        "e_score": softmax(logits[:, -1], axis=1) @ LEVELS,
        "lager_wo": softmax(logits[:, :-1].mean(axis=1), axis=1) @ LEVELS,
        "lager_w": softmax(np.einsum("l,nlc->nc", weights, logits[:, :-1]), axis=1) @ LEVELS,
        "prob_agg_e_score": softmax(logits[:, :-1], axis=2).mean(axis=1) @ LEVELS,
        "prob_weighted_agg_max_score": np.einsum("l,nlc->nc", weights, softmax(logits[:, :-1], axis=2)).argmax(1) + 1,
    }
    for name, values in expected.items():
        for metric, of in (("spearman", spearmanr), ("pearson", pearsonr), ("kendall", kendalltau)):
            assert results["scores"][name][metric]["value"] == pytest.approx(of(truth, values).statistic, abs=2e-3)
    assert results["scores"]["lager_w"]["spearman"]["value"] > 0.8
    assert "| lager_w | 0." in (tmp_path / "out" / "table.md").read_text()


def test_without_a_validation_file_no_tuned_score_is_told(tmp_path):
    write(tmp_path / "m_logits.json", 0)
    run(Config(str(tmp_path / "m_logits.json"), str(tmp_path / "out"), layers="all"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["scores"]) == 6 and not [name for name in results["scores"] if "w" in name.split("_")[-1:]]


def test_files_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path / "m_logits.json", 0)
    write(tmp_path / "v_logits.json", 1, layers=6)
    with pytest.raises(SettingsError, match="of 3 layers that are summed, but has 5"):
        run(Config(str(tmp_path / "m_logits.json"), str(tmp_path / "out"), str(tmp_path / "v_logits.json")))
    with pytest.raises(DataFileError, match="expects logits of 9 scores"):
        read_logits(str(tmp_path / "m_logits.json"), 9)
    for text, message in (("[]", "expects a list of rows"), ('[{"df": {}}]', "row 0 expects human_score, a number")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataFileError, match=message):
            read_logits(str(tmp_path / "x.json"), 5)


def test_what_a_comparison_has_read_gives_the_table_with_paired_differences_and_weights_out_of_fold(tmp_path):
    logits, truth = write(tmp_path / "m_logits.json", 0)
    rows = [
        {"id": f"q{i // 2}", "question": f"{i // 2}?", "prediction": f"It is {i}.", "scores": {"tone": int(truth[i])}}
        for i in range(N)
    ]
    pairs, kept = tmp_path / "pairs.jsonl", tmp_path / "layer_logits.safetensors"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file({"tone": logits}, kept)
    config = Config(str(kept), str(tmp_path / "out"), pairs=str(pairs), aspect="tone")
    run(config)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["scores"]) == list(PUBLISHED_NAMES) and results["n"] == N
    assert results["layer_weights"] is None and results["intervals"].endswith("resamples of questions")
    found = {name: one["kendall"]["value"] for name, one in results["scores"].items()}
    assert found["lager_wo"] == pytest.approx(
        kendalltau(truth, softmax(logits[:, :-1].mean(axis=1), axis=1) @ LEVELS).statistic, abs=2e-4
    )
    assert found["lager_w"] > found["e_score"]
    over = results["scores"]["lager_w"]["over_e_score"]["kendall"]
    assert over["value"] == pytest.approx(found["lager_w"] - found["e_score"], abs=2e-4) and over["low"] > 0
    assert "over_e_score" not in results["scores"]["e_score"] and "| + " not in (tmp_path / "out/table.md").read_text()
    with pytest.raises(DataFileError, match="expects labels of 'wit', but has tone"):
        run(replace(config, aspect="wit", output=str(tmp_path / "other")))
    with pytest.raises(SettingsError, match="pairs and aspect expect to be given together"):
        replace(config, aspect=None)
    save_file({"tone": logits[1:]}, kept)
    with pytest.raises(DataFileError, match=f"expects logits of {N} labels on 5 scores, but has {N - 1} on 5"):
        run(config)
