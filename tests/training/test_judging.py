"""A table of labels becomes a judge in one call of Python, or of `inspector train`."""

import csv
import json
import shutil
import subprocess
import sys

import datasets
import pytest
from inspector_cli.main import main as cli
from inspector_training import make_judge
from support.paths import ROOT

from inspector_pipeline import InspectorPipeline
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
    steps[4] |= {"repeats": 1, "bootstraps": 20, "learning_curve": []}
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
    other = make_judge(rows[:40], **options, labels={"courtesy": "polite"}, rank_by="expected_courtesy")
    assert other(PAIR)["scores"].keys() == {"courtesy"} and other.model.config.rank_by == "expected_courtesy"
    assert "It ranks responses by `expected_courtesy`" in (tmp_path / "judge" / "README.md").read_text("utf-8")
    assert len(list((tmp_path / "judge.work").glob("features-*"))) == 1 and not features[0].exists()


def test_a_judge_from_a_data_frame(tmp_path, backbone_dir, rows, quick):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows).assign(polite=lambda table: table.polite == "yes", helpfulness=None)
    judge = make_judge(frame, prediction="reply", backbone=backbone_dir, output=tmp_path / "judge", work=tmp_path / "w")
    assert judge(PAIR)["scores"].keys() == {"polite"} and (tmp_path / "w" / "rows.jsonl").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expects the column 'prediction', but has 'question', 'reply', 'helpfulness', 'polite'. Name its"),
        ({"prediction": "reply", "labels": ["stars"]}, "expects the column 'stars'"),
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
    line = ["train", str(table), "--output", output, "--prediction", "reply", "--backbone", str(backbone_dir)]
    assert cli([*line, "--labels", "useful=helpfulness", "polite", "--words", "yes=1", "no=0"]) == 0
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines()]
    assert {line[0] for line in lines if len(line) > 1 and line[1] == "60"} == {"useful", "polite"}
    assert f"inspector score RESPONSES --judge {output}" in told.out
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    assert cli(["score", str(tmp_path / "pairs.jsonl"), "--judge", output, "--device", "cpu", "--output", "-"]) == 0
    assert {"useful", "polite"} <= json.loads(capsys.readouterr().out).keys()


def test_wrong_arguments_end_with_2_and_a_wrong_table_with_1(tmp_path, table, capsys):
    for line in (["train", str(table)], ["train", str(table), "--output", "x", "--words", "yes"]):
        with pytest.raises(SystemExit, match="2"):
            cli(line)
    assert "expects WORD=N with a whole number, such as yes=1, but got yes" in capsys.readouterr().err
    assert cli(["train", str(table), "--output", str(tmp_path / "judge")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("inspector: The table expects the column 'prediction'") and told.count("\n") == 1


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


@pytest.mark.slow
def test_sixty_rows_on_the_embedded_backbone(tmp_path, table):
    assert cli(["train", str(table), "--output", str(tmp_path / "judge"), "--prediction", "reply"]) == 0
    shutil.rmtree(tmp_path / "judge.work")
