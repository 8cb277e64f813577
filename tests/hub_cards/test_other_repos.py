"""A dataset's repo and the metric's Space: what is staged, what is refused, what the Hub gets, and what runs there."""

import json
import logging
import re
import textwrap
import time
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, HfApi, SpaceCard, constants
from support.fresh import run_fresh
from support.hub_stand_in import TOKEN, running_hub
from support.models import PAIRS, aspect, feature
from support.paths import ROOT

import push_to_hub
from hub_cards.other_repos import ROWS_FILE, space_requirements, stage_metric
from hub_cards.space import stage_space
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_rows

# The client sends a large file by a way that its own HTTP library discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

CARD = """
license: apache-2.0
teacher: a-teacher
sources: [{name: made up, license: mit, what: the questions}]
meanings: {fluency: {1: bad, 5: good}}
"""


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "card.yaml").write_text(CARD)
    path = tmp_path / "labelled.jsonl"
    made = [{"id": i, **pair, "generator": "g", "scores": {"fluency": 1 + 4 * (i % 2)}} for i, pair in enumerate(PAIRS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def words(rows, *more):
    return [str(rows), "org/labels", "--card", str(rows.parent / "card.yaml"), *more, "--dataset"]


def test_a_dataset_is_staged_with_its_card_and_rows(rows, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    push_to_hub.main(words(rows, "--dry-run", "--output", str(tmp_path / "staged")))
    assert "come back as they were written" in caplog.text and "nothing was sent" in caplog.text
    assert {path.name for path in (tmp_path / "staged").iterdir()} == {"README.md", ROWS_FILE}
    assert read_rows(str(tmp_path / "staged" / ROWS_FILE)) == read_rows(str(rows))
    card = DatasetCard.load(tmp_path / "staged" / "README.md")
    assert (card.data.license, card.data.size_categories) == ("apache-2.0", ["n<1K"])
    for said in ("a-teacher", "**fluency**: 3 labels", "| 1 | 2 | bad |", "made up"):
        assert said in card.text


@pytest.mark.parametrize(
    ("card", "line", "message"),
    [
        ("teacher: x", None, "expects the labels' license"),
        ("{license: mit, sources: 5}", None, "expects a list of sources, and meanings by aspect"),
        ("{license: mit, meanings: {fluency: 5}}", None, "expects a list of sources, and meanings by aspect"),
        ("licence: mit", None, "expects an object of license, .*, but got licence"),
        (CARD, {"id": 1, "question": "q", "prediction": "p"}, "row 3 expects id, .* but lacks 'scores'"),
        (CARD, {"id": 1, "question": "hf_" + "A" * 30, "prediction": "p", "scores": {}}, "holds a Hugging Face|holds"),
    ],
)
def test_what_must_not_be_published_is_refused(rows, card, line, message):
    (rows.parent / "card.yaml").write_text(card)
    if line:
        rows.write_text(rows.read_text() + json.dumps(line) + "\n")
    with pytest.raises(DataFileError, match=message):
        push_to_hub.main(words(rows, "--dry-run"))


def test_arguments_that_do_not_fit_are_refused(rows, tmp_path):
    for given, message in (
        (["org/metric"], "but got one of them alone"),
        ([str(tmp_path), "org/judge", "--card", "x.yaml"], "--card expects --dataset"),
        ([str(rows), "org/labels", "--dataset"], "expects --card FILE"),
        ([str(tmp_path), "org/metric", "--metric"], "--metric expects the Space's id alone"),
        (["org/metric", "--metric"], "expects a Space that is called as its script, ORG/inspector_score"),
    ):
        with pytest.raises(DataFileError, match=re.escape(message)):
            push_to_hub.main([*given, "--dry-run"] if given[-1] != "--dataset" else ["--dry-run", *given])


def test_dataset_and_space_go_up_as_what_they_are_in_one_commit_each(rows, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    caplog.set_level(logging.INFO)
    with running_hub() as hub:
        monkeypatch.setattr(push_to_hub, "HfApi", lambda: HfApi(endpoint=hub.endpoint, token=TOKEN))
        push_to_hub.main(words(rows))
        push_to_hub.main(["org/inspector_score", "--metric"])
        push_to_hub.main(["org/inspector", "--space"])
        push_to_hub.main(words(rows))
        assert "Nothing had changed" in caplog.text
        assert [path for _, path in hub.requests if "/commit/" in path] == [
            "/api/datasets/org/labels/commit/main",
            "/api/spaces/org/inspector_score/commit/main",
            "/api/spaces/org/inspector/commit/main",
        ]
        assert [path for _, path in hub.requests].count("/api/validate-yaml") == 4
        assert ROWS_FILE in hub.repos["datasets/org/labels"].files()
        files = hub.repos["spaces/org/inspector_score"].files()
        shown = hub.repos["spaces/org/inspector"].files()
    assert {"app.py", "space.json", "inspector_training/reports/page.py", "gallery/embedded/config.json"} <= set(shown)
    assert {"app.py", "inspector_score.py", "requirements.txt", "inspector_pipeline/api/mean_scores.py"} <= set(files)
    assert not [name for name in files if name.startswith(("inspector_pipeline/cli", "hub_cards"))]


ALONE = """
    import importlib.metadata as metadata, json, re, sys
    from importlib.machinery import PathFinder
    folder, judge, pairs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    owners = metadata.packages_distributions()

    def name_of(line):
        return re.sub(r"[-_.]+", "-", re.match(r"[\\w.-]+", line)[0]).lower()

    allowed, new = set(), {name_of(line) for line in open(f"{folder}/requirements.txt") if line.strip()}
    while new:
        allowed |= new
        found = set()
        for name in new:
            try:
                lines = metadata.requires(name) or ()
            except metadata.PackageNotFoundError:  # gradio, which the page alone needs
                continue
            found |= {name_of(line) for line in lines if "extra ==" not in line}
        new = found - allowed

    OURS = ("inspector_pipeline", "inspector_score", "inspector_cli", "inspector_training")
    sys.meta_path[:] = [one for one in sys.meta_path if "__editable__" not in getattr(one, "__module__", str(one))]
    find_any = PathFinder.find_spec

    def find_allowed(name, path=None, target=None):
        top = name.partition(".")[0]
        own = {name_of(owner) for owner in owners.get(top, ())}
        foreign = own and not own & allowed
        return None if path is None and foreign and top not in OURS else find_any(name, path, target)

    PathFinder.find_spec = staticmethod(find_allowed)
    for hidden in sys.argv[4].split():
        assert find_allowed(hidden) is None, hidden
    import inspector_pipeline
    assert inspector_pipeline.__file__.startswith(folder), inspector_pipeline.__file__
"""
ANSWER = """
    import evaluate
    metric = evaluate.load(folder, cache_dir=f"{folder}/../cache")
    columns = {key + "s": [pair[key] for pair in pairs] for key in ("question", "prediction")}
    print(json.dumps(metric.compute(**columns, judge=judge)["scores"]))
"""
SHOW = """
    import app
    from pathlib import Path
    from inspector_training.reports.demo import judged, marks, probabilities, report_of
    judge = app.load_judge(judge)
    results = judged(judge, pairs[0]["question"], [pairs[0]["prediction"]])
    rows = Path(folder, "..", "pairs.jsonl")
    rows.write_text("".join(json.dumps(pair) + "\\n" for pair in pairs))
    page_of = lambda scored: app.scored_page(scored, app.Asked())
    page = report_of(judge, str(rows), page_of, Path(folder, ".."))
    row = app.gallery({"judge": Path(folder, "gallery", "embedded")})[0]
    files = [str(module.__file__) for name, module in sys.modules.items() if name.startswith("inspector_")]
    assert all(file.startswith(folder) for file in files), files
    is_report = "Report of pairs.jsonl" in open(page).read()
    print(json.dumps([probabilities(results, [1]), marks(judge, results[0]), is_report, row]))
"""


def run_alone(space, script, folder, hidden, tmp_path):
    """Run a script in a process that can import what a Space requires alone, and ours from its own folder."""
    (tmp_path / "work").mkdir()
    code = textwrap.dedent(ALONE) + textwrap.dedent(script)
    env = {"PYTHONPATH": str(space), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PATH": "/usr/bin:/bin"}
    done = run_fresh(code, space, folder, json.dumps(PAIRS), hidden, cwd=tmp_path / "work", env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_space_answers_with_nothing_but_what_it_holds_and_requires(make_judge, tmp_path):
    space = stage_metric(tmp_path / "inspector_score")
    data = SpaceCard.load(space / "README.md").data
    assert (data.sdk, data.title) == ("gradio", "Inspector") and not re.search(r"inspector.pipeline", space_text(space))
    folder = make_judge([aspect("clarity", [feature(2)])])
    found = run_alone(space, ANSWER, folder, "sklearn inspector_training pytest hypothesis", tmp_path)
    assert 1 <= found["clarity"]["mean"] <= 5


def space_text(space):
    return (Path(space) / "requirements.txt").read_text()


def test_requirements_are_those_of_the_package_and_of_metric_and_page():
    found = {re.match(r"[\w-]+", line)[0] for line in space_requirements()}
    assert {"torch", "transformers", "huggingface-hub", "safetensors", "evaluate", "gradio"} <= found
    assert "jsonargparse" not in found


def test_a_judges_space_shows_it_with_nothing_but_what_it_holds_and_pins(make_judge, tmp_path, monkeypatch):
    space = tmp_path / "space"
    push_to_hub.main(["org/inspector", "--space", "--dry-run", "--output", str(space)])
    pins = dict(line.split("==") for line in space_text(space).splitlines())
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    known = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    apart = {"gradio", "pillow"}  # Gradio, which wants an older one of the other, is in no environment of ours
    assert {name: pins[name] for name in pins.keys() - apart} == {name: known[name] for name in pins.keys() - apart}
    assert {re.match(r"[\w-]+", line)[0].replace("-", "_").lower() for line in space_requirements()} - {"evaluate"} <= {
        name.replace("-", "_").lower() for name in pins
    }
    data = SpaceCard.load(space / "README.md").data.to_dict()
    assert data["sdk_version"] == pins["gradio"] and "models" not in data
    folder = make_judge([aspect("clarity", [feature(2, "response_mean")])])
    shares, marked, is_report, row = run_alone(space, SHOW, folder, "datasets skops pytest hypothesis", tmp_path)
    assert shares[0][:2] == ["1", "clarity"] and is_report and row[0] == "judge" and "correctness" in row[2]
    assert "".join(text for text, _ in marked) == PAIRS[0]["prediction"]


def test_a_space_of_another_judge_names_or_holds_it(make_judge, tmp_path):
    space = stage_space(tmp_path / "space", "org/judge")
    assert json.loads((space / "space.json").read_text()) == {"judge": "org/judge"}
    assert SpaceCard.load(space / "README.md").data.to_dict()["models"] == ["org/judge"]
    with pytest.raises(DataFileError, match="expects a judge's folder or its id"):
        push_to_hub.main(["nowhere", "org/inspector", "--space", "--dry-run"])
    with pytest.raises(DataFileError, match="--gallery expects --space"):
        push_to_hub.main(["org/judge", "--gallery", str(tmp_path), "--dry-run"])
    with pytest.raises(DataFileError, match="--gallery expects folders of judges"):
        push_to_hub.main(["org/inspector", "--space", "--dry-run", "--gallery", str(tmp_path)])
