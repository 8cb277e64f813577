"""How well scores rank generators whose truth is known."""

import json

import numpy as np
import pytest
from inspector_training.rows.records import write_records
from inspector_training.stages.rank_report import Config, run
from inspector_training.trust.rank_evidence import rank_evidence

from inspector_pipeline.errors import DataFileError


def table(rng, k=9, n=300, sd=0.0, slope=0.5):
    accuracy, hard = np.linspace(0.35, 0.9, k), rng.normal(0, 0.1, (n, 1))
    right = (rng.random((n, k)) < np.clip(accuracy - hard, 0, 1)) * 1.0
    score = slope * right - hard + rng.normal(0, sd, k) + rng.normal(0, 0.1, (n, k))
    question, generator = (place.ravel().astype(str) for place in np.indices((n, k)))
    return score.ravel(), right.ravel(), question, generator


def test_a_judge_that_reads_ranks_and_a_judge_that_prefers_does_not():
    rng = np.random.default_rng(0)
    score, right, question, generator = table(rng)
    ways = {"judge": score, "biased": table(np.random.default_rng(0), sd=0.5)[0], "noise": rng.normal(size=len(score))}
    found = rank_evidence(ways, right, question, generator, n_prompts=(60, 250, 999), draws=40)
    assert (found["n_generators"], found["n_questions"], set(found["generators"])) == (9, 300, set(generator))
    good = found["ways"]["judge"]
    assert set(good["by_prompts"]) == {"60", "250"} and good["spearman"]["value"] > 0.9
    assert good["n_pairs"] == 36 and 20 <= good["n_pairs_that_differ"] <= 30
    for kinds in good["by_prompts"].values():
        for one in kinds.values():
            assert one["worse_called"]["most"] <= 0.05 and one["above_5_percent"] == 0
    few, many = (good["by_prompts"][n]["two_compared"] for n in ("60", "250"))
    assert few["called"] < many["called"] and many["mostly"] > 0.8
    assert good["by_prompts"]["60"]["all_compared"]["called"] <= few["called"]
    needed = good["prompts_needed"]
    assert needed["two_compared"]["for_half_of_the_pairs"] <= needed["all_compared"]["for_half_of_the_pairs"] < 400
    for kinds in found["with_labels"].values():
        assert (
            kinds["judge"]["worse_called"]["mean"] <= 0.02
            and kinds["judge"]["called"] >= kinds["labels_alone"]["called"]
        )
    assert set(found["with_labels"]) == {"60", "250"}
    for way in ("biased", "noise"):
        own = found["ways"][way]
        assert own["by_prompts"]["60"]["two_compared"]["worse_called"]["mean"] <= 0.05
        assert own["prompts_needed"]["two_compared"]["for_half_of_the_pairs"] == "never"


def test_the_stage_reads_rows_and_compares_with_length(tmp_path, caplog):
    score, right, question, generator = table(np.random.default_rng(1), k=6, n=80)
    rows = [
        {"question": f"What is {q}?", "generator": g, "prediction": "x" * (10 + int(g)), "score": s, "correct": bool(r)}
        for s, r, q, g in zip(score.tolist(), right.tolist(), question, generator, strict=True)
    ]
    write_records([*rows, {"question": "Who?", "generator": None}], tmp_path / "oof.jsonl")
    config = Config((tmp_path / "oof.jsonl",), tmp_path / "rank.json", score="score", n_prompts=(20, 60), draws=10)
    with caplog.at_level("INFO"):
        found = run(config)
    assert json.loads((tmp_path / "rank.json").read_text()) == {"ranking": found} and set(found["ways"]) == {
        "judge",
        "length",
    }
    assert found["ways"]["length"]["spearman"]["value"] > 0.9, "here the better ones write more"
    assert "480 of 481 rows have generator, score, correct." in caplog.text
    assert "Spearman of judged with true means" in caplog.text and "| length | 60 | all |" in caplog.text
    assert run(config) == {}
    with pytest.raises(DataFileError, match="expects 6 generators or more, but got 2"):
        rank_evidence({"judge": score}, right, question, np.where(generator == "1", "a", "b"))
    with pytest.raises(DataFileError, match="10 questions that all generators answer, but got 0"):
        rank_evidence({"judge": score}, right, np.arange(len(score)).astype(str), generator)
    with pytest.raises(DataFileError, match="rows with generator, expected_correctness, correct, but none has all"):
        run(Config((tmp_path / "oof.jsonl",), tmp_path / "other.json"))
    with pytest.raises(DataFileError, match="draws 1 or more"):
        run(Config((tmp_path / "oof.jsonl",), tmp_path / "other.json", draws=0))
