"""Matched rows: what could give away the answer is balanced, and what cannot be balanced is refused."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from inspector_training.rows.contrast import (
    alone,
    check_matched,
    matched,
    same_question,
    split_questions,
    verified_rows,
)
from inspector_training.stages.contrast import Config, run

from inspector_pipeline.errors import DataFileError, SettingsError

RATES = {"weak": 0.35, "fair": 0.55, "good": 0.65, "strong": 0.85}


def answers(n=300, seed=0):
    """Questions of two domains; strong generators are right more often, and wrong answers run on."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        ease = rng.normal(scale=0.3)
        for generator, rate in RATES.items():
            right = int(rng.random() < rate + ease)
            length = int(rng.integers(10, 60)) + (0 if right else 15)
            text = f"{generator} {i} says " + "so " * length
            domain = "sums" if i % 3 else "words"
            rows.append(
                {
                    "question": f"What is {i}?",
                    "prediction": text,
                    "generator": generator,
                    "correct": right,
                    "domain": domain,
                }
            )
    return rows


def test_nothing_alone_tells_matched_rows_apart():
    rows = verified_rows(answers(), "made up")
    before = alone(rows)
    assert before["generator"] > 0.65 and before["length"] > 0.6 and before["question"] > 0.65
    kept = matched(rows)
    assert len(kept) > 0.2 * len(rows)
    for key in ("id", "generator", "domain"):
        counts = Counter((row[key], row["scores"]["correctness"]) for row in kept)
        for value in {row[key] for row in kept}:  # a few rows fall where the corner is no whole number
            assert abs(counts[value, 1] - counts[value, 0]) <= (0 if key != "generator" else 3)
    assert max(check_matched(kept, "made up").values()) < 0.55
    assert [row for row in rows if row in kept] == kept  # their order is kept


def test_rows_that_cannot_be_matched_are_refused():
    rows = verified_rows(answers(), "made up")
    with pytest.raises(DataFileError, match="but (question|generator) gives 0"):
        check_matched(rows, "made up")
    for row in rows:  # every generator is always right or always wrong
        row["scores"] = {"correctness": int(row["generator"] in ("good", "strong"))}
    with pytest.raises(
        DataFileError, match="expect questions with right and wrong answers by generators that have both"
    ):
        matched(rows)


def test_answers_are_named_by_their_questions_text_and_said_once():
    rows = [
        {"id": 1, "question": "What  is 1?", "prediction": "one", "generator": "a", "correct": 1, "final": "1"},
        {"id": 2, "question": "what is 1?", "prediction": " one ", "generator": "b", "correct": 1},
        {"id": 2, "question": "what is 1?", "prediction": "two", "generator": "b", "correct": "0"},
        {"id": 3, "question": "what is 1?", "prediction": "  ", "generator": "b", "correct": False},
    ]
    found = verified_rows(rows, "f")
    assert [row["prediction"] for row in found] == ["one", "two"] and found[0]["final"] == "1"
    assert found[0]["id"] == found[1]["id"] and [row["scores"]["correctness"] for row in found] == [1, 0]
    for wrong in ({"correct": 2}, {"correct": None}, {"generator": None}):
        with pytest.raises(
            DataFileError, match=r"f: row 0 expects question, prediction, generator, correct \(0 or 1\)"
        ):
            verified_rows([rows[0] | wrong], "f")


def test_same_question_counts_pairs_within_questions_alone():
    right, value = np.array([1, 0, 0, 1, 0, 1]), np.array([0.3, 0.2, 0.3, 5.0, 6.0, 9.0])
    assert same_question(right == 1, value, ["a", "a", "a", "b", "b", "c"]) == (1 + 0.5 + 0) / 3
    assert np.isnan(same_question(right[:1] == 1, value[:1], ["a"]))


def test_the_stage_holds_questions_out_by_their_text_and_says_what_each_alone_gives(tmp_path, caplog):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    rows = answers(600)
    for file, part in zip(files, (rows[::2], rows[1::2]), strict=True):
        file.write_text("".join(json.dumps(row) + "\n" for row in part))
    config = Config(
        (str(tmp_path / "?.jsonl*"),),
        tmp_path / "fit.jsonl",
        everything=tmp_path / "all.jsonl",
        held_out=0.4,
        held_out_output=tmp_path / "test.jsonl",
    )
    with caplog.at_level("INFO"):
        found = run(config)
    assert set(found[str(config.output)]) == {"length", "generator", "question", "domain", "length_same_question"}
    assert "alone gives: length 0.5" in caplog.text
    fit, test = (
        [json.loads(line) for line in file.read_text().splitlines()] for file in (config.output, config.held_out_output)
    )
    assert not {row["id"] for row in fit} & {row["id"] for row in test}
    assert run(config) == {}  # done already
    everything = [json.loads(line) for line in config.everything.read_text().splitlines()]
    assert {row["id"] for row in fit} <= {row["id"] for row in everything} and len(everything) > len(fit)
    sides = split_questions(verified_rows(rows, "f"), 0.4, 731)
    assert {row["id"] for row in fit} <= {row["id"] for row in sides[0]}
    with pytest.raises(SettingsError, match="held_out expects a share"):
        run(replace(config, output=tmp_path / "x.jsonl", held_out_output=None))
    with pytest.raises(DataFileError, match="rows expects files, but .* matches none"):
        run(replace(config, rows=(str(tmp_path / "*.csv"),), output=tmp_path / "x.jsonl"))
