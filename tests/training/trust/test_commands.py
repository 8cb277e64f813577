"""`inspector calibrate` and `inspector estimate`, from files of rows to a judge and to means."""

import csv
import json
import re

import numpy as np
import pytest
from inspector_cli.main import main
from inspector_training.trust.calibrate import CalibrationSettings, calibrate_judge
from inspector_training.trust.estimate import estimate
from inspector_training.trust.slices import labelled_rows
from support.models import aspect, feature
from support.results import alike

from inspector_pipeline import load_judge
from inspector_pipeline.configuration_inspector import Aspect, Head
from inspector_pipeline.errors import DataFileError, PairError, SettingsError
from inspector_pipeline.files.tables import read_rows

WORDS = ["yes", "no", "four", "five", "because", "so", "it", "is"]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [
        {
            "question": f"What is {i // 2}?",
            "prediction": " ".join(rng.choice(WORDS, rng.integers(1, 9))),
            "system": "ab"[i % 2],
        }
        for i in range(80)
    ]


@pytest.fixture
def folder(make_judge):
    return make_judge(
        [aspect("right", [feature(2)], classes=(0, 1)), aspect("tone", [feature(1)], "ordinal", classes=(1, 2, 3))]
    )


@pytest.fixture
def table(folder, texts, tmp_path):
    """Rows with labels by chance of the judge's own expected score, squeezed: an overconfident judge."""
    judge = load_judge(folder, device="cpu")
    expected = np.array([result["expected"]["right"] for result in judge(texts)])
    share = 0.2 + 0.6 * (expected > np.median(expected))
    right = np.random.default_rng(1).random(len(texts)) < share
    rows = [
        {**row, "right": int(label), "tone": 1 + i % 3} for i, (row, label) in enumerate(zip(texts, right, strict=True))
    ]
    path = tmp_path / "labelled.csv"
    _write(path, rows)
    return path


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run(*args):
    return main([*map(str, args)])


def test_labels_make_a_calibrated_judge_with_its_evidence(folder, table, tmp_path, texts, capsys):
    output = tmp_path / "new"
    assert run("calibrate", folder, table, "--output", output, "--labels", "right", "--device", "cpu") == 0
    shown = capsys.readouterr()
    assert "right: 80 labels of 40 questions, calibrated by" in shown.out and max(map(len, shown.out.split("\n"))) <= 80
    assert f"wrote the calibrated judge to {output}" in shown.err
    found = json.loads((output / "results.json").read_text())["calibration"]
    assert found["files"] == ["labelled.csv"] and list(found["aspects"]) == ["right"]
    part = found["aspects"]["right"]
    assert part["n"] == 80 and part["n_questions"] == 40 and part["class_counts"]["1"] + part["class_counts"]["0"] == 80
    assert part["after"]["rps"]["value"] < part["before"]["rps"]["value"] and part["gain"]["rps"]["low"] > 0
    assert part["sets"]["coverage"] == 0.9 and part["risk_coverage"][-1]["coverage"] == 1.0
    card = (output / "README.md").read_text()
    assert "### Calibrated on labels of a domain" in card and "| right | 80 |" in card
    result = load_judge(output, device="cpu")(texts[0])
    assert set(result["score_sets"]) == {"right"} and abs(sum(result["probabilities"]["right"].values()) - 1) < 1e-6
    assert main(["info", str(output)]) == 0
    assert "calibrated    right: by " in capsys.readouterr().out


def test_rows_that_were_scored_before_are_not_read_again(folder, table, tmp_path, monkeypatch):
    judge = load_judge(folder, device="cpu")
    rows = read_rows(str(table))
    _, anew = calibrate_judge(judge, rows, labels={"right": "right"}, settings=CalibrationSettings(bootstraps=20))
    scored = tmp_path / "scored.jsonl"
    plain = [{"question": r["question"], "prediction": r["prediction"], "label_right": r["right"]} for r in rows]
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    assert (
        run(
            "score",
            tmp_path / "plain.jsonl",
            "--judge",
            folder,
            "--output",
            scored,
            "--format",
            "none",
            "--device",
            "cpu",
        )
        == 0
    )
    judge, read = load_judge(folder, device="cpu"), []
    encode = type(judge.encode).__call__
    monkeypatch.setattr(type(judge.encode), "__call__", lambda *args, **more: read.append(1) or encode(*args, **more))
    _, before = calibrate_judge(judge, read_rows(str(scored)), settings=CalibrationSettings(bootstraps=20))
    assert len(read) == 3, "three rows are read, to see that this judge scored them"
    assert alike(before["aspects"], anew["aspects"], 1e-3)
    faulty = [
        {**row, "probabilities": {**row["probabilities"], "right": {"0": 0.999, "1": 0.001}}}
        for row in read_rows(str(scored))
    ]
    with pytest.raises(DataFileError, match="expects rows that this judge has scored"):
        calibrate_judge(judge, faulty)


def test_a_judge_is_calibrated_anew_from_what_it_was(folder, table, texts):
    judge = load_judge(folder, device="cpu")
    settings = CalibrationSettings(methods=("ordinal",), bootstraps=20, group="system")
    rows = read_rows(str(table))
    once, first = calibrate_judge(judge, rows, labels={"right": "right"}, settings=settings)
    said = once(texts[:5])
    twice, second = calibrate_judge(once, rows, labels={"right": "right"}, settings=settings)
    assert first == second and alike(twice(texts[:5]), said)
    sets = first["aspects"]["right"]["sets"]
    assert sets["by"] == "group" and set(sets["by_group"]) == {"a", "b"}
    least = np.min(list(sets["least_by_group"].values()), axis=0)
    assert twice.model.level_maps["right"].least == pytest.approx(least)
    some = [{**row, "system": "" if i < 7 else row["system"]} for i, row in enumerate(rows)]
    _, blank = calibrate_judge(judge, some, labels={"right": "right"}, settings=settings)
    assert "7 of 80 rows have no 'system': they are taken for a group" in " ".join(
        blank["aspects"]["right"]["warnings"]
    )


QUICK = CalibrationSettings(methods=("none",), bootstraps=20)


def test_few_or_chosen_labels_are_said_to_be_few(folder, table):
    judge = load_judge(folder, device="cpu")
    rows = read_rows(str(table))[:30]
    _, found = calibrate_judge(judge, rows, labels={"tone": "tone"}, settings=QUICK)
    warnings = " ".join(found["aspects"]["tone"]["warnings"])
    assert "30 labels on 15 questions are few" in warnings and "do not show that calibration helps" in warnings
    chosen = [{**row, "escalated": "True"} for row in rows]
    _, found = calibrate_judge(judge, chosen, labels={"tone": "tone"}, settings=QUICK)
    assert "chosen for their doubt" in " ".join(found["aspects"]["tone"]["warnings"])
    mixed = [*rows, *({**row, "escalated": "true", "question": row["question"] + "!"} for row in rows[:10])]
    _, found = calibrate_judge(judge, mixed, labels={"tone": "tone"}, settings=QUICK)
    assert found["aspects"]["tone"]["n"] == 40 and found["aspects"]["tone"]["sets"]["n"] == 30


FAULTS = {
    "no rows": (lambda rows: [], None, "The table expects rows with labels, but has none"),
    "blank text": (
        lambda rows: [{**r, "prediction": " "} for r in rows],
        None,
        "The table, row 0: A pair expects text",
    ),
    "the judge's column": (
        lambda rows: [{**r, "expected_right": 0.5, "rank_by": "expected_right"} for r in rows],
        {"right": "right"},
        "expects labels as 'right', but there stand the scores of the judge",
    ),
    "too few": (lambda rows: rows[:12], {"right": "right"}, "expects 20 or more labels.*but got 12"),
    "no column": (
        lambda rows: [{"question": "a", "prediction": "b"}],
        None,
        "expects a column of labels, 'label_right' or",
    ),
    "another level": (lambda rows: [{**r, "right": 7} for r in rows], None, "one of 0, 1, the scores that.*but got 7"),
    "no number": (
        lambda rows: [{**r, "right": "good"} for r in rows],
        None,
        "label of right one of 0, 1, the scores.*but got 'good'",
    ),
    "blank": (lambda rows: [{**r, "right": "", "tone": None} for r in rows], None, "all cells of labels are blank"),
    "no aspect": (lambda rows: rows, {"wit": "right"}, "expects aspects of the judge.*'wit'"),
    "scores for labels": (
        lambda rows: [{**r, "expected_right": 0.5, "expected_tone": 2.0} for r in rows],
        None,
        "holds the judge's scores, no labels",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_labels_are_told(folder, table, fault):
    change, labels, message = FAULTS[fault]
    with pytest.raises((DataFileError, PairError), match=message):
        calibrate_judge(load_judge(folder, device="cpu"), change(read_rows(str(table))), labels=labels)


def test_labels_are_words_or_numbers_as_the_judge_knows_them():
    words = Aspect("tone", (), Head(), (1, 2, 3), words=("bad", "fair", "good"))
    real = Aspect("share", (), Head(), (0.1, 0.35, 0.8))
    rows = [{"question": "q", "label_tone": "Fair", "label_share": 0.3}, {"question": "q", "label_tone": "good"}]
    found = labelled_rows([("table", rows)], [words, real])
    assert found.labels == {"tone": {0: 2, 1: 3}, "share": {0: 0.35}}
    for wrong, message in (({"label_tone": "2"}, "one of bad, fair, good"), ({"label_share": 2.0}, "but got 2.0")):
        with pytest.raises(DataFileError, match=message):
            labelled_rows([("table", [{"question": "q", **wrong}])], [words, real])


def test_wrong_settings_are_told(folder, table, tmp_path, capsys):
    with pytest.raises(SettingsError, match="coverage expects a share between 0 and 1"):
        CalibrationSettings(coverage=1.0)
    assert run("calibrate", folder, table, "--output", tmp_path / "x", "--group", "team", "--labels", "right") == 1
    assert "--group expects a column of the labelled rows, but none has 'team'" in capsys.readouterr().err


def test_nothing_that_is_no_output_is_written_over(tmp_path, capsys):
    table, notes = tmp_path / "rows.csv", tmp_path / "notes"
    table.write_text("question,prediction,a,b,c\nq,p,1,1,1\n")
    notes.mkdir()
    (notes / "README.md").write_text("mine")
    agreement = ("agreement", table, "--raters", *"abc", "--scores", "a")
    for command, target, message in (
        (agreement, table, "expects another file than the input, but got"),
        (("rank", table), tmp_path, "expects a file, but got the folder"),
        (("audit-judge", "embedded", table), table, "expects another file than the input"),
        (("estimate", table), notes, "expects a file, but got the folder"),
        (("calibrate", "embedded", table), table, "expects a folder, but got .*, where a file is"),
        (("calibrate", "embedded", table), table / "judge", "expects a folder, but got .*, where a file is"),
        (("calibrate", "embedded", table), notes, "or that of a judge, but .* holds others, such as README.md"),
        (("train", table), notes, "or that of a judge, but .* holds others, such as README.md"),
    ):
        assert run(*command, "--output", target) == 1
        assert re.search(message, capsys.readouterr().err)
    assert table.read_text().startswith("question,") and [path.name for path in notes.iterdir()] == ["README.md"]


@pytest.fixture
def scored(tmp_path):
    """Two systems of 150 scored rows, one a question; the judge favours b, which is no better."""
    rng = np.random.default_rng(5)
    rows = []
    for system, bonus in (("a", 0.0), ("b", 0.25)):
        right = rng.random(150) < 0.6
        said = np.clip(0.3 * right + bonus + rng.uniform(0, 0.4, 150), 0, 1)
        for i in range(150):
            shares = {"right": {"0": 1 - said[i], "1": said[i]}}
            rows.append(
                {"question": f"q{i}", "prediction": f"p{i}", "system": system, "truth": int(right[i]), "right": 1}
            )
            rows[-1] |= {"expected_right": said[i], "probabilities": shares, "rank_by": "expected_right"}
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "truth"}) + "\n" for row in rows))
    labelled = [
        {k: row[k] for k in ("question", "prediction", "system")} | {"label": row["truth"]}
        for row in rows
        if int(row["question"][1:]) % 3 == 0
    ]
    _write(tmp_path / "labels.csv", labelled)
    return path, tmp_path / "labels.csv", rows


def test_few_labels_correct_what_the_judge_says_of_systems(scored, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path, labels, rows = scored
    assert run("estimate", path, labels, "--by", "system", "--output", tmp_path / "means.json") == 0
    found = json.loads((tmp_path / "means.json").read_text())
    assert found["field"] == "expected_right" and found["label"] == "label" and set(found["systems"]) == {"a", "b"}
    for name, one in found["systems"].items():
        truth = np.mean([row["truth"] for row in rows if row["system"] == name])
        assert one["low"] <= truth <= one["high"] and (one["n"], one["n_unlabelled"]) == (50, 100)
        assert one["labels_saved"] > 10 and one["high"] - one["low"] < one["labels_high"] - one["labels_low"]
    assert found["systems"]["b"]["judge_alone"] > found["systems"]["a"]["judge_alone"] + 0.15, "it favours b"
    shown = capsys.readouterr().out
    assert "labels saved" in shown and "mean (95%)" in shown


def test_rows_that_call_their_texts_otherwise_are_found_again(scored, tmp_path):
    path, labels, _ = scored
    names = {"question": "prompt", "prediction": "response"}
    renamed = [{names.get(key, key): value for key, value in row.items()} for row in read_rows(str(path))]
    (tmp_path / "renamed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    found, plain = (estimate([place], labels, by="system") for place in (tmp_path / "renamed.jsonl", path))
    assert found.systems == plain.systems and set(found.systems) == {"a", "b"}
    with pytest.raises(DataFileError, match="pass_at expects a number, but got nan"):
        estimate([path], labels, pass_at=float("nan"))
    assert "No label is 7 or more" in estimate([path], labels, pass_at=7).warnings[0]


def test_labels_may_stand_in_the_scored_rows_and_a_pass_mark_be_set(scored, tmp_path):
    path, _, rows = scored
    own = [{**row, "label_right": row["truth"] + 3 if i % 2 else None} for i, row in enumerate(rows)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    assert run("estimate", tmp_path / "own.jsonl", "--pass-at", 4, "--output", tmp_path / "m.json") == 0
    one = json.loads((tmp_path / "m.json").read_text())["systems"]["all rows"]
    assert (
        one["n"] == 150
        and one["n_questions"] < 150
        and one["low"] <= np.mean([r["truth"] for r in rows]) <= one["high"]
    )


def test_what_cannot_be_estimated_is_told(scored, tmp_path, capsys):
    path, labels, _ = scored
    rows = read_rows(str(labels))
    for change, message in (
        (lambda r: {**r, "prediction": "other"}, "50 of 50 are not among the scored ones, such as 'q0'"),
        (lambda r: {**r, "escalated": "True"}, "labels are left out: their rows were chosen for doubt"),
        (lambda r: {**r, "label": "well"}, "expects numbers as labels, but a row has 'well'"),
        (
            lambda r: {"question": r["question"], "prediction": r["prediction"]},
            "expects a column of labels, 'label_right'",
        ),
    ):
        _write(tmp_path / "faulty.csv", [change(row) for row in rows if row["system"] == "a"])
        assert run("estimate", path, tmp_path / "faulty.csv", "--by", "system") == 1
        assert re.search(message, capsys.readouterr().err)
    _write(tmp_path / "twice.csv", [*rows, rows[0]])
    assert run("estimate", path, tmp_path / "twice.csv", "--by", "system") == 1
    assert (
        "expects each scored row labelled once, but 1 more labels are of rows that have one" in capsys.readouterr().err
    )
    assert run("estimate", path, "--label", "right") == 1
    assert "expects labels as 'right', but there stand the scores of the judge" in capsys.readouterr().err
