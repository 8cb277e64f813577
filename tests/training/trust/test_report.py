"""The report on answers of made-up generators, whose truth is known."""

import csv
import json

import numpy as np
import pytest
from inspector_training.runs.command import from_settings
from inspector_training.stages import trust_report
from inspector_training.trust.report import (
    KINDS,
    Outcomes,
    conformal_report,
    decision_report,
    mean_report,
    report_lines,
)
from scipy.special import expit

from hub_cards.measured import trust_table
from inspector_pipeline.errors import DataFileError


@pytest.fixture(scope="module")
def answers():
    """Twelve generators of other strength answer 200 questions of other difficulty; the score knows a little of it."""
    rng = np.random.default_rng(0)
    n_questions, n_generators = 200, 12
    logit = rng.normal(0, 1, n_questions)[:, None] + np.linspace(-1, 2, n_generators)
    right = rng.random(logit.shape) < expit(logit)
    value = expit(0.5 * logit + right + rng.normal(0, 0.7, logit.shape))
    question, generator = np.meshgrid(np.arange(n_questions), np.arange(n_generators), indexing="ij")
    names = np.char.add("q", question.ravel().astype(str)), np.char.add("g", generator.ravel().astype(str))
    return Outcomes(value.ravel(), right.ravel(), *names)


def test_sets_hold_what_they_say_for_new_questions_and_generators(answers):
    found = conformal_report(answers, (0.75, 0.9, 0.95), bootstraps=20)
    assert set(KINDS) < set(found)
    assert found["questions"]["0.75"]["stated"] == pytest.approx(0.83, abs=0.02), "by the likeliest of right and wrong"
    for stated in (0.75, 0.9, 0.95):
        for kind in ("questions", "generators"):
            one = found[kind][f"{stated:g}"]
            assert one["covered"]["value"] == pytest.approx(one["stated"], abs=0.02) and one["stated"] >= stated
        by_label = found["questions_by_label"][f"{stated:g}"]
        assert min(by_label["of_right"], by_label["of_wrong"]) > stated - 0.02
    assert found["generators_guarded"]["0.9"]["covered"]["value"] >= 0.9
    assert found["generators"]["0.9"]["n_clusters"] == len(found["generators"]["0.9"]["by_generator"]) == 12


def test_the_surest_decisions_are_right_more_often(answers):
    found = decision_report(answers, bootstraps=20)
    values = [found["curve"][str(share)]["value"] for share in (0.1, 0.3, 0.5, 1.0)]
    assert values == sorted(values, reverse=True) and values[0] > 0.93
    threshold = found["by_threshold"]["0.3"]
    assert threshold["covered"] == pytest.approx(0.3, abs=0.03)
    assert threshold["right"]["value"] == pytest.approx(values[1], abs=0.03)


def test_means_hold_the_truth_and_save_labels(answers):
    found = mean_report(answers, (50,), n_draws=400)["labels"]["50"]
    assert 0.935 <= found["covered"] <= 0.975 and found["lowest"] > 0.91
    assert found["n_generators"] == 12 and found["labels_saved"] > 10 and abs(found["bias"]) < 0.005
    assert found["width"] < found["width_of_labels_alone"]


def test_the_stage_reads_a_table_and_says_it_in_lines(answers, tmp_path, caplog):
    path = tmp_path / "oof.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "generator", "correctness", "expected_correctness"])
        writer.writerows(
            zip(answers.question, answers.generator, answers.right.astype(int), answers.value, strict=True)
        )
    settings = {"scores": [str(path)], "output": str(tmp_path / "out.json"), "n_draws": 20, "bootstraps": 5}
    settings |= {"coverages": [0.9], "n_labels": [50]}
    caplog.set_level("INFO")
    found = trust_report.run(from_settings(trust_report.Config, settings, "test"))["expected_correctness"]
    part = json.loads((tmp_path / "out.json").read_text())["trust"]
    assert part["expected_correctness"]["means"] == found["means"]
    table = trust_table(part).splitlines()
    held = found["conformal"]["generators"]["0.9"]["covered"]["value"]
    assert any("(90.0% were asked), new questions and generators" in one and f"{held:.3f}" in one for one in table)
    assert len(table) == 2 + 2 + 4 + 1 and {one.count("|") for one in table} == {4}
    assert all(line in caplog.text for line in report_lines(found))
    assert "sets stated to hold 90." in caplog.text and "decisions between two answers" in caplog.text
    assert trust_report.run(from_settings(trust_report.Config, settings, "test")) == {}, "it is done"
    with pytest.raises(DataFileError, match="expects a number as 'tone'"):
        trust_report.run(from_settings(trust_report.Config, settings | {"fields": ["tone"]}, "test"))
