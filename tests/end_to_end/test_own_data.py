"""The walk-through of training/README.md: from a table of labelled responses to a judge that scores."""

import csv
import json
import shlex
import shutil

import pytest
import yaml
from inspector_cli.main import main as cli
from inspector_training import make_judge
from inspector_training.runs.command import main as training
from inspector_training.runs.steps import read_steps, run_steps
from support.paths import ROOT

from inspector_pipeline import load_judge
from inspector_pipeline.errors import DataFileError

README = ROOT / "training" / "README.md"
TABLE = ROOT / "training" / "examples" / "support_replies.csv"
QUICK = {"evaluate": {"repeats": 1, "bootstraps": 20}}
QUICKEST = {"evaluate": {**QUICK["evaluate"], "folds": 3, "learning_curve": []}}
OBSERVED = {"helpfulness": {1, 2, 3, 4, 5}, "politeness": {0, 1}}


def marked(mark, language="bash"):
    """Return the block that follows a marker of the README."""
    _, _, rest = README.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n```{language}\n")
    block, fence, _ = rest.partition("```")
    assert fence, f"training/README.md has no block of {mark}"
    return block.replace("\\\n", " ")


def change(path, changes):
    """Change settings of a steps file's stages."""
    steps = yaml.safe_load(path.read_text(encoding="utf-8"))
    for step in steps:
        step |= changes.get(step["stage"], {})
        step |= {"search": {**step["search"], **changes["search"]}} if "search" in step and "search" in changes else {}
    path.write_text(yaml.safe_dump(steps, sort_keys=False), encoding="utf-8")


def for_tiny(path, backbone, changes):
    """Turn a steps file to a tiny backbone, and change settings of its stages."""
    backbone = {"backbone_id": str(backbone), "backbone_revision": None}
    change(path, {"extract": backbone, "search": {"depths": [2, 4]}, **changes})


def run_here(command, *further):
    """Run one command of the README in this process, with further words."""
    words = [*shlex.split(command), *further]
    if words[0] == "cp":
        shutil.copy(*words[1:])
    elif words[:3] == ["python", "-m", "training"]:
        training(words[3:])
    else:
        assert words[0] == "inspector", command
        assert cli(words[1:]) == 0


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Stand where the README's commands are run: a folder with the configs and examples of a clone."""
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / "training" / name, tmp_path / "training" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_scored(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row.keys() >= {"question", "prediction", "total_score", *OBSERVED}
        assert all(row[aspect] in classes for aspect, classes in OBSERVED.items())
        assert row["total_score"] == sum(row[aspect] for aspect in OBSERVED)
    return rows


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_the_commands_make_a_judge_that_scores(clone, backbone_dir, capsys):
    copy, make, info, score = marked("own data").splitlines()
    run_here(copy)
    for_tiny(clone / shlex.split(copy)[-1], backbone_dir, QUICKEST)
    run_here(make)
    work = clone / "work" / "support"
    results = json.loads((work / "judge" / "results.json").read_text(encoding="utf-8"))
    assert {name: entry["n"] for name, entry in results["aspects"].items()} == dict.fromkeys(OBSERVED, 200)
    assert all({"low", "high", "value"} <= entry["surface"]["auroc"].keys() for entry in results["aspects"].values())
    assert "200 rows" in (work / "audit" / "audit.md").read_text(encoding="utf-8")
    run_here(info)
    assert "aspect        politeness: scores 0 1 by ordinal" in capsys.readouterr().out
    run_here(score)
    check_scored(work / "scored.jsonl")
    judge = load_judge(work / "judge", device="cpu")
    found = judge({"question": "Are you open on Sunday?", "prediction": "Yes, from ten to four."})
    for aspect, classes in OBSERVED.items():
        assert set(found["probabilities"][aspect]) == classes
        assert sum(found["probabilities"][aspect].values()) == pytest.approx(1, abs=1e-4)
    quick = ("audit", "judge")  # these run again
    made = {path: path.stat().st_mtime_ns for path in work.rglob("*") if not set(quick) & set(path.parts)}
    run_here(make)
    assert {path: path.stat().st_mtime_ns for path in made} == made, "a second run made something again"


@pytest.fixture
def chain(clone, backbone_dir):
    """Run the steps file up to the evaluation on some rows and aspects of the example, and return its results."""

    def run(rows, label=None):
        table, steps = clone / "few.jsonl", clone / "few.yaml"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        shutil.copy(clone / "training" / "configs" / "own_data.yaml", steps)
        columns = {"prediction": "reply", "label": label or {"politeness": "polite"}}
        for_tiny(steps, backbone_dir, {"data": {"columns": columns}, **QUICK})
        found = read_steps(str(steps), {"table": str(table), "work": str(clone / "few")})
        run_steps([step for step in found if step["stage"] != "export"], steps.name)
        return json.loads((clone / "few" / "results.json").read_text(encoding="utf-8"))

    return run


def example_rows(n):
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[:n]


@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_sixty_rows_of_one_binary_aspect_give_intervals_and_a_shortened_curve(chain):
    results = chain(example_rows(60))
    entry = results["aspects"]["politeness"]
    assert (entry["n"], entry["classes"]) == (60, [0, 1])
    assert 0 <= entry["auroc"]["low"] < entry["auroc"]["high"] <= 1
    shares = [point["share"] for point in results["learning_curve"]]
    assert shares == [share for share in (0.1, 0.2, 0.4, 0.7, 1.0) if share in shares]
    assert 0.1 not in shares, "one question cannot be divided into inner folds"
    assert 1.0 in shares


@pytest.mark.parametrize("family", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (example_rows(12), "at least 5 questions for 5 folds, but got 3. Label more"),
        ([row | {"polite": "yes"} for row in example_rows(40)], "two different labels of politeness, but all are 1"),
        ([row | {"polite": ""} for row in example_rows(40)], "none of 40 pairs has one"),
    ],
    ids=["three questions", "one class", "no labels"],
)
def test_too_few_labels_are_an_error_that_says_what_to_do(chain, rows, message):
    with pytest.raises(DataFileError, match=message):
        chain(rows)


def test_the_examples_labels_are_not_its_lengths():
    """Keep the example honest: neither label may be read off a reply's length."""
    from scipy.stats import spearmanr

    rows = example_rows(None)
    lengths = [len(row["reply"].split()) for row in rows]
    for labels in ([int(row["helpfulness"]) for row in rows], [row["polite"] == "yes" for row in rows]):
        assert abs(spearmanr(lengths, labels).statistic) < 0.15


@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_the_single_commands_make_a_judge_too(clone, backbone_dir):
    table = clone / "training" / "examples" / TABLE.name
    table.write_text("".join(TABLE.read_text(encoding="utf-8").splitlines(keepends=True)[:61]), encoding="utf-8")
    search = ("--search.depths", "2", "4", "--search.heads", "--search.inner-folds", "3")
    further = {
        "extract": ("--backbone-id", str(backbone_dir), "--backbone-revision", "null"),
        "fit": search,
        "evaluate": (*search, "--folds", "3", "--repeats", "1", "--bootstraps", "20", "--learning-curve"),
    }
    for command in marked("single commands").splitlines():
        run_here(command, *further.get(command.split()[3], ()))
    judge = load_judge(clone / "work" / "support" / "judge", device="cpu")
    assert judge({"question": "Are you open?", "prediction": "No."})["scores"].keys() == set(OBSERVED)


@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_one_command_or_one_call_makes_the_same_judge(clone, backbone_dir, monkeypatch, capsys):
    """The README's own words, on a tiny backbone and some of the rows."""
    table = clone / "training" / "examples" / TABLE.name
    table.write_text("".join(TABLE.read_text(encoding="utf-8").splitlines(keepends=True)[:61]), encoding="utf-8")
    steps = clone / "training" / "configs" / "own_data.yaml"
    for_tiny(steps, backbone_dir, QUICKEST)
    monkeypatch.setattr("inspector_training.judging.STEPS", steps)
    monkeypatch.setattr(make_judge, "__kwdefaults__", {**make_judge.__kwdefaults__, "backbone": str(backbone_dir)})
    train, score = marked("one command").splitlines()
    run_here(train)
    run_here(score, "--device", "cpu")
    scored = [json.loads(line) for line in (clone / "work" / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row.keys() >= {"helpfulness", "polite", "total_score"} for row in scored] == [True, True]
    capsys.readouterr()
    code = marked("from python", "python")
    assert len(code.splitlines()) < 10
    exec(compile(code, "README", "exec"), {})
    assert "'helpfulness': " in capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_on_the_embedded_backbone(clone):
    """Word for word as a reader runs them, but for a quick search and evaluation, on every eighth question."""
    lines = TABLE.read_text(encoding="utf-8").splitlines(keepends=True)
    table = clone / "training" / "examples" / TABLE.name
    table.write_text(lines[0] + "".join(line for i, line in enumerate(lines[1:]) if i // 4 % 8 == 0), encoding="utf-8")
    copy, *others = marked("own data").splitlines()
    run_here(copy)
    quick = {"search": {"depths": [6, 12], "heads": []}, "evaluate": {**QUICKEST["evaluate"], "folds": 5}}
    change(clone / shlex.split(copy)[-1], quick)
    for command in others:
        run_here(command)
    check_scored(clone / "work" / "support" / "scored.jsonl")
