"""A table of labels becomes a judge in one call of Python, or of `inspector train`."""

import csv
import json
import math
import random
import shutil
import subprocess
import sys

import datasets
import pytest
from inspector_cli.main import main as cli
from inspector_training import make_judge
from support.paths import ROOT

from inspector_pipeline import InspectorPipeline, RewardFunction, load_judge
from inspector_pipeline.api.mean_scores import mean_scores
from inspector_pipeline.errors import InspectorError

TABLE = ROOT / "training" / "examples" / "support_replies.csv"
PAIR = {"question": "Are you open on Sunday?", "prediction": "Yes, from ten to four."}


@pytest.fixture(scope="session")
def family():
    return "llama"  # what makes a judge knows nothing of the backbone


@pytest.fixture(scope="module")
def rows():
    """Sixty rows of fifteen questions."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[:60]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Stand in for the steps of own_data.yaml with a quick evaluation."""
    import yaml
    from inspector_training import judging

    steps = yaml.safe_load(judging.STEPS.read_text(encoding="utf-8"))
    steps[4] |= {"repeats": 1, "folds": 2, "bootstraps": 20, "learning_curve": []}
    path = tmp_path_factory.mktemp("steps") / "own_data.yaml"
    path.write_text(yaml.safe_dump(steps), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "STEPS", path)
        yield


@pytest.fixture
def table(tmp_path, rows):
    path = tmp_path / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_judge_from_rows_goes_on_where_it_was_and_follows_its_table(tmp_path, backbone_dir, rows, quick, caplog):
    caplog.set_level("INFO", "inspector_training")
    options = {"prediction": "reply", "backbone": str(backbone_dir), "output": tmp_path / "judge"}
    judge = make_judge(rows, **options)
    assert isinstance(judge, InspectorPipeline)
    assert "60 rows; questions from 'question', responses from 'reply'; labels: 'helpfulness' from" in caplog.text
    found = judge(PAIR)
    assert found["scores"].keys() == {"helpfulness", "polite"} and set(found["probabilities"]["polite"]) == {0, 1}
    results = json.loads((tmp_path / "judge" / "results.json").read_text(encoding="utf-8"))
    assert {name: entry["n"] for name, entry in results["aspects"].items()} == {"helpfulness": 60, "polite": 60}
    assert {"README.md", "audit.json"} <= {path.name for path in (tmp_path / "judge").iterdir()}
    features = list((tmp_path / "judge.work").glob("features-*"))
    made = {path: path.stat().st_mtime_ns for path in features[0].iterdir()}
    again = make_judge(datasets.Dataset.from_list(rows), **options, labels=["helpfulness", "polite"])
    assert again(PAIR) == found
    assert {path: path.stat().st_mtime_ns for path in features[0].iterdir()} == made, "features were read again"
    assert "hold a sum" not in caplog.text
    slips = [{**row, "reply": f"{row['reply']} 2 + 2 = {4 + i % 2}."} for i, row in enumerate(rows[:40])]
    other = make_judge(slips, **options, labels={"courtesy": "polite"}, rank_by="expected_courtesy")
    assert "20 of 40 responses hold a sum that is wrong; --checks wrong_sums lets the judge read that." in caplog.text
    assert not other.model.checks
    assert other(PAIR)["scores"].keys() == {"courtesy"} and other.model.config.rank_by == "expected_courtesy"
    assert "It ranks responses by `expected_courtesy`" in (tmp_path / "judge" / "README.md").read_text("utf-8")
    assert len(list((tmp_path / "judge.work").glob("features-*"))) == 1 and not features[0].exists()


def test_a_judge_from_a_data_frame_reads_context_and_reference_and_stands_beside_itself_without(
    tmp_path, backbone_dir, rows, quick, caplog
):
    caplog.set_level("INFO", "inspector_training")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows).assign(polite=lambda table: table.polite == "yes", helpfulness=None)
    frame["passage"] = [f"Of {question}" if i else " " for i, question in enumerate(frame.question)]
    frame["correct"] = [str(1 + i // 4 % 3) for i in range(60)]  # which looks like labels
    options = {"prediction": "reply", "context": "passage", "reference": "correct", "backbone": backbone_dir}
    judge = make_judge(frame, **options, output=tmp_path / "judge", work=tmp_path / "w")
    assert "contexts from 'passage', references from 'correct', responses from 'reply'; labels: 'polite'" in caplog.text
    beside = {"context": "From ten.", "reference": "2"}
    assert judge({**PAIR, **beside})["scores"].keys() == {"polite"} and (tmp_path / "w" / "rows.jsonl").is_file()
    with pytest.raises(InspectorError, match="reference"):
        judge(PAIR)
    template = judge.model.config.parsed_readings["context_reference"]
    text = template.text("Q?", "R.", **beside)
    assert text.index("From ten.\n\nQ?") < text.index("R.") < text.index("user\nThe right answer is 2")
    results = json.loads(read_text(tmp_path / "judge"))
    entry = results["aspects"]["polite"]
    assert results["labels"]["rejected"] == {"the context is blank": 1} and entry["n"] == 59
    assert {"rival", "overlap", "exact_match", "math_verify", "tfidf"} <= entry.keys()
    assert results["protocol"]["rival_without"] == ["reference", "context"]
    assert any("without the reference and the context the same fit reaches" in line for line in results["verdict"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prediction": "text"},
            "expects the column 'text', but has 'question', 'reply', 'helpfulness', 'polite'. Name",
        ),
        ({"labels": ["stars"]}, "expects the column 'stars'"),
        (
            {"prediction": "reply", "rank_by": "expected_wit"},
            "rank_by expects one of expected_total, expected_helpfulness, expected_polite, but got 'expected_wit'",
        ),
        ({"prediction": "reply", "labels": {"seen": "polite"}}, "two would be called 'seen'"),
        ({"prediction": "reply", "words": {}, "question": "helpfulness"}, "expects a column of labels, 1 to 5 or 0"),
    ],
)
def test_what_a_table_lacks_is_said(tmp_path, rows, options, message):
    with pytest.raises(InspectorError, match=message):
        make_judge(rows, output=tmp_path / "judge", **options)


def test_the_command_makes_a_judge_and_shows_its_evidence(tmp_path, backbone_dir, table, quick, capsys):
    output = str(tmp_path / "my-judge")
    with pytest.raises(InspectorError, match="checks expects a list of some of wrong_sums, but got"):
        make_judge(table, output=output, prediction="reply", checks=["right_sums"])
    line = ["train", str(table), "--output", output, "--prediction", "reply", "--backbone", str(backbone_dir)]
    line += ["--checks", "wrong_sums"]
    assert cli([*line, "--labels", "useful=helpfulness", "polite", "--words", "yes=1", "no=0"]) == 0
    assert "sums that are written out and wrong" in (tmp_path / "my-judge" / "README.md").read_text(encoding="utf-8")
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines()]
    assert {line[0] for line in lines if len(line) > 1 and line[1] == "60"} == {"useful", "polite"}
    assert f"inspector score RESPONSES --judge {output}" in told.out
    assert "useful: it ranks a good response above another in" in told.out
    said = " ".join(told.out.split())
    assert all(f"- {line}" in said for line in json.loads(read_text(tmp_path / "my-judge"))["verdict"])
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    assert cli(["score", str(tmp_path / "pairs.jsonl"), "--judge", output, "--device", "cpu", "--output", "-"]) == 0
    assert {"useful", "polite"} <= json.loads(capsys.readouterr().out).keys()


def read_text(judge):
    return (judge / "results.json").read_text(encoding="utf-8")


def test_wrong_arguments_end_with_2_and_a_wrong_table_with_1(tmp_path, table, capsys):
    for line in (["train", str(table)], ["train", str(table), "--output", "x", "--words", "yes"]):
        with pytest.raises(SystemExit, match="2"):
            cli(line)
    assert "expects WORD=N with a whole number, such as yes=1, but got yes" in capsys.readouterr().err
    assert cli(["train", str(table), "--output", str(tmp_path / "judge"), "--prediction", "text"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("inspector: The table expects the column 'text'") and told.count("\n") == 1


def test_the_package_and_its_command_import_nothing_that_takes_long():
    code = (
        "import sys, inspector_training, inspector_training.commands\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'numpy', 'yaml', 'jsonargparse'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert inspector_training.__all__ == ['make_judge']\n"
        "assert not hasattr(inspector_training, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_comparisons_become_a_judge_whose_differences_are_log_odds(tmp_path, backbone_dir, quick, capsys):
    """From a file of raters' preferences by the command to a saved judge that ranks two answers."""
    rng = random.Random(0)
    lines = []
    for i in range(40):
        long, short = f"We are open from {i % 9 + 1} to five, every day.", f"Perhaps {i}."
        first, second = rng.sample([long, short], 2)
        better = 1 if first == long else 2
        said = dict(zip("abc", (better, better, rng.choice([better, 3 - better, 0])), strict=True))
        lines.append({"task": "Answer.", "input": f"When? {i // 2}", "one": first, "two": second, **said})
    table, output = tmp_path / "pairs.jsonl", str(tmp_path / "judge")
    table.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    line = ["train", str(table), "--output", output, "--question", "task+input", "--responses", "one", "two"]
    assert cli([*line, "--labels", "better=a+b+c", "--backbone", str(backbone_dir)]) == 0
    told = capsys.readouterr()
    assert "better: it agrees with the majority of raters in" in told.out and "length alone" in told.out
    results = json.loads((tmp_path / "judge" / "results.json").read_text(encoding="utf-8"))
    entry, labels = results["aspects"]["better"], results["labels"]["aspects"]["better"]
    assert entry["n"] == labels["n"] == 40 and entry["preference"]["raters"]["agreement"] > 0.8
    assert entry["preference"]["n_questions"] == 20 and labels["raters"]["rated_twice"] == 40
    card = (tmp_path / "judge" / "README.md").read_text(encoding="utf-8")
    assert "log\nodds" in card and "agrees with the majority" in card and "`expected_better`" in card
    judge = load_judge(tmp_path / "judge", device="cpu")
    config = judge.model.config
    assert config.rank_by == "expected_better" and config.format_version == 4
    pairs = [{"question": "Answer.\n\nWhen?", "prediction": text} for text in (lines[0]["one"], lines[0]["two"])]
    one, two = judge(pairs)
    for result in (one, two):
        odds, share = result["expected"]["better"], result["probabilities"]["better"][1]
        assert share == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-4)
        assert result["scores"]["better"] == (odds > 0) and result["expected_total"] is None
    (reward,) = RewardFunction(judge)([pairs[0]["question"]], [pairs[0]["prediction"]])
    assert reward == pytest.approx(one["expected"]["better"], abs=1e-4)


def test_a_judge_gives_the_levels_of_its_labels(tmp_path, backbone_dir, rows, quick, caplog):
    """Halves, words and several raters' rows go in and come out again."""
    caplog.set_level("INFO", "inspector_training")
    levels = ("bad", "fair", "good")
    table = [
        {"question": row["question"], "prediction": row["reply"], "half": 2.5 + i % 3 / 2, "word": levels[i % 3]}
        for i, row in enumerate(rows)
    ]
    options = {"backbone": str(backbone_dir), "output": tmp_path / "judge"}
    with pytest.raises(InspectorError, match="words whose order is stated, but are 'bad'"):
        make_judge(table, labels=["half", "word"], **options)
    judge = make_judge(
        [*table, {**table[0], "half": 3.0}],
        scales={"word": "bad<fair<good"},
        good={"half": 3.5, "word": "fair"},
        **options,
    )
    found = judge(PAIR)
    assert found["scores"]["half"] in (2.5, 3.0, 3.5) and found["scores"]["word"] in levels
    assert list(found["probabilities"]["half"]) == [2.5, 3, 3.5] and set(found["probabilities"]["word"]) == set(levels)
    assert found["total_score"] == found["scores"]["half"] + levels.index(found["scores"]["word"]) + 1
    assert 2.5 <= found["expected"]["half"] <= 3.5
    assert "half: 60 labels of 2 to 4 (as the labels look), 0 blank; good is 3.5 and more (stated)" in caplog.text
    results = json.loads((tmp_path / "judge" / "results.json").read_text(encoding="utf-8"))
    assert results["aspects"]["half"]["n"] == 60 and results["labels"]["aspects"]["half"]["raters"]["rated_twice"] == 1
    card = (tmp_path / "judge" / "README.md").read_text(encoding="utf-8")
    assert "bad \\< fair \\< good" in card and "fair or good" in card and "not stated" in card
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    out = str(tmp_path / "scored") + "/"
    assert cli(["score", str(tmp_path / "pairs.jsonl"), "--judge", str(tmp_path / "judge"), "--output", out]) == 0
    shutil.rmtree(out)
    means = mean_scores([PAIR["prediction"]], [PAIR["question"]], judge=judge)
    assert means["scores"]["word"]["mean"] == levels.index(found["scores"]["word"]) + 1


def test_typos_end_the_command_before_anything_is_computed(tmp_path, rows, backbone_dir, capsys):
    table = [{**row, "helpfulness": "5o" if i % 20 == 7 else row["helpfulness"]} for i, row in enumerate(rows)]
    (tmp_path / "typos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    line = ["train", str(tmp_path / "typos.jsonl"), "--output", str(tmp_path / "judge"), "--prediction", "reply"]
    assert cli([*line, "--backbone", str(backbone_dir)]) == 1
    told = capsys.readouterr().err
    assert "helpfulness expects labels of 1 to 5, but 3 of 60 (5.0%) cannot be read: row 7: '5o' is no number" in told
    assert "--allow-unreadable" in told and not (tmp_path / "judge").exists()


def test_ranked_responses_are_compared(tmp_path, backbone_dir, rows, quick, capsys):
    order = {row["reply"]: 1 + i % 4 for i, row in enumerate(rows)}
    ranked = [{**row, "place": order[row["reply"]], "context": f"About {row['question']}"} for row in rows]
    (tmp_path / "ranked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ranked), encoding="utf-8")
    line = ["train", str(tmp_path / "ranked.jsonl"), "--output", str(tmp_path / "judge"), "--prediction", "reply"]
    assert cli([*line, "--ranks", "best=place", "--backbone", str(backbone_dir), "--context"]) == 0
    assert "best: " in capsys.readouterr().out
    results = json.loads(read_text(tmp_path / "judge"))
    assert results["aspects"]["best"]["n"] == 90 and results["labels"]["aspects"]["best"]["ties"] == 0
    assert results["labels"]["rows"] == 60 and "rival" in results["aspects"]["best"]["preference"]
