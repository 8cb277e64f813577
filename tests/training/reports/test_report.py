"""The page of scored rows, and of a judge: its numbers, its safety, its size."""

import base64
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from inspector_cli.main import main
from inspector_training.evaluation.metrics import Resamples, interval
from inspector_training.reports.gallery import gallery
from inspector_training.reports.page import embedded, judge_page, scored_page
from inspector_training.reports.rows import read_scored, shown_rows
from inspector_training.reports.scored import Asked
from inspector_training.reports.summary import clustered_mean, summary
from sklearn.metrics import brier_score_loss, roc_auc_score
from support.models import PAIRS, aspect, feature
from support.scored_rows import HOSTILE, scored_rows, write_rows

from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.errors import DataFileError

ALL = Asked({"correctness": "correct"}, "generator")
VOID = {"meta", "img", "input", "link", "br", "wbr"}


class Page(HTMLParser):
    """Reads a page as a browser does, and refuses tags that do not close."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.scripts, self.images, self.text, self.links = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1][1] += data
        else:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def rows():
    return scored_rows(240)


@pytest.fixture(scope="module")
def place(rows, tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "scored.jsonl", rows)


@pytest.fixture(scope="module")
def page(place):
    return Page(scored_page(place, ALL))


def test_the_page_is_whole_and_fetches_nothing(page):
    assert page.stack == [] and len(page.scripts) == 2
    assert all(link.startswith(("data:image/svg+xml;base64,", "#")) for link in page.links)
    assert len({image["alt"] for image in page.images}) == len(page.images) == 5
    for image in page.images:
        drawing = base64.b64decode(image["src"].partition(",")[2]).decode()
        assert not re.search(r"<script|href=\"http|onerror=\"", re.sub(r"<!DOCTYPE.*?>", "", drawing, flags=re.S))
        ElementTree.fromstring(drawing)


def test_the_numbers_are_those_of_the_rows(place, page, rows):
    found = summary(read_scored(place, ALL))
    flags = {name: sum(row[name] for row in rows) for name in ("truncated", "unfamiliar", "seen")}
    assert found["counts"] == {"scored": 240, "rejected": 0, **flags, "abstained": None}
    p, truth = (np.array([row[key] for row in rows]) for key in ("expected_correctness", "correct"))
    assert found["ranked"]["value"] == pytest.approx(p.mean())
    assert found["groups"][0]["n"] == sum(row["generator"] == found["groups"][0]["name"] for row in rows)
    largest = p[[row["generator"] == found["groups"][0]["name"] for row in rows]]
    assert found["groups"][0]["spread"] == pytest.approx(np.quantile(largest, [0.1, 0.5, 0.9]))
    own = found["labels"]["correctness"]["metrics"]
    assert own["auroc"]["value"] == round(roc_auc_score(truth, p), 4)
    assert own["brier"]["value"] == round(brier_score_loss(truth, p), 4)
    assert np.sum(found["labels"]["correctness"]["confusion"]["matrix"]) == 240
    assert f"unfamiliar {flags['unfamiliar']}" in page.words and f"seen {flags['seen']}" in page.words
    assert f"{p.mean():.3f}" in page.words and f"{own['auroc']['value']:.3f}" in page.words
    assert "not said" in page.words  # nothing says from which rows the judge abstains


def test_the_rows_are_all_there_as_data(page, rows):
    data = json.loads(page.scripts[0][1])
    assert page.scripts[0][0]["type"] == "application/json" and len(data["rows"]) == 240
    for row, own in zip(rows, data["rows"], strict=True):
        assert data["questions"][own["q"]] == row["question"]
        assert own["v"] == round(row["expected_correctness"], 4)
        assert own["d"] == pytest.approx((own["v"] * (1 - own["v"])) ** 0.5, abs=1e-3)
        ends = [end for end, _ in own["x"]["x"]]
        assert ends[-1] == len(own["p"]) and ends == sorted(ends)
    assert data["rows"][30]["p"] == rows[30]["prediction"]


def test_groups_of_any_cells_and_labels_of_yes_and_no(rows, tmp_path, capsys):
    cells = [3, 3.0, 0.5, True, ["a", 1], {"b": None}, "", None, "ü"]
    names = ["3", "3.0", "0.5", "true", '["a", 1]', '{"b": null}', "(none)", "(none)", "ü"]
    said = [True, "false", 1, 0.0, "1", 0.5, "maybe", None, ""]
    some = [row | {"kind": cells[i % 9], "ok": said[i % 9]} for i, row in enumerate(rows[20:110])]
    place = write_rows(tmp_path / "rows.jsonl", some)
    scored = read_scored(place, Asked({"correctness": "ok"}, "kind"))
    assert scored.groups[:9] == names and scored.unread == {"correctness": 20}
    assert scored.labels["correctness"][:9].tolist() == pytest.approx([1, 0, 1, 0, 1, *[np.nan] * 4], nan_ok=True)
    words = Page(scored_page(place, Asked({"correctness": "ok"}, "kind"))).words
    assert "50 (20 more are no whole number)" in words and '["a", 1]' in words
    many = write_rows(tmp_path / "many.jsonl", [row | {"kind": i, "ok": "maybe"} for i, row in enumerate(some)])
    assert "Shown are the 40 with most rows, of 90." in Page(scored_page(many, Asked({}, "kind"), rows=9)).words
    assert main(["report", str(many), "--label", "correctness=ok"]) == 1
    assert "in the column 'ok', but none of 90 is one" in capsys.readouterr().err


def test_strangers_text_cannot_become_markup(place, page):
    text = scored_page(place, ALL)
    assert text.count("<script") == text.count("</script") == 2 and "stolen = 1</script" not in text
    assert "<img src=x" not in text and "\x1b" not in text and "\u202e" not in text
    assert HOSTILE[0] in page.words  # as text, in the table of groups
    assert "49" not in page.words.split() and "{{ 7 * 7 }}" in page.scripts[0][1]
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy and "'unsafe-inline'; script-src 'sha256-" in policy


@pytest.mark.parametrize("text", HOSTILE)
def test_embedded_data_is_the_same_json_and_no_markup(text):
    data = {text: [text, float("nan")]}
    written = embedded(data)
    assert not set("<>&\u2028\u2029") & set(written) and written.encode()
    assert json.loads(written) == {text: [text, None]}


def test_five_thousand_rows_stay_small_and_of_more_the_ends_are_shown(tmp_path):
    place = write_rows(tmp_path / "many.jsonl", scored_rows(6000, hostile=False, explained=False))
    assert len(scored_page(place, Asked())) < 6_000_000
    scored = read_scored(place, Asked())
    shown = shown_rows(scored, 300)
    assert len(shown) == 300 and {int(scored.ranked.argmin()), int(scored.ranked.argmax())} <= set(shown)
    assert int(scored.doubt.argmax()) in shown and len(shown_rows(scored, 6000)) == 6000


def test_an_interval_over_clusters_is_that_of_the_bootstrap():
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(150), 4)
    values = generator.normal(size=150)[clusters] + generator.normal(size=600)
    found = clustered_mean(values, clusters)
    names = np.array([f"{c:03}" for c in range(150)])
    counts = generator.multinomial(150, np.full(150, 1 / 150), size=2000)
    weights = Resamples(names, np.vstack([np.ones((1, 150)), counts]).astype(int)).weights(names[clusters])
    bootstrapped = interval(weights @ values / weights.sum(axis=1))
    assert found["value"] == pytest.approx(values.mean())
    for end in ("low", "high"):
        assert found[end] == pytest.approx(bootstrapped[end], abs=0.03)
    assert np.isnan(clustered_mean(np.ones(3), np.zeros(3, int))["low"])


def test_the_command_reports_a_job_with_the_jobs_own_counts(make_judge, tmp_path, capsys):
    judge = make_judge([aspect("clarity", [feature(3, "response_mean")], "ordinal")])
    rows = [pair | {"of": ["a"]} for pair in [*PAIRS * 4, {"question": "Blank?", "prediction": " "}]]
    source = write_rows(tmp_path / "pairs.jsonl", rows)
    folder = tmp_path / "scored"
    assert main(["score", str(source), "--judge", str(judge), "--explain", "--output", f"{folder}/"]) == 3
    assert main(["report", str(folder), "--group", "of", "--output", str(tmp_path / "r.html")]) == 0
    counts = json.loads((folder / "_summary.json").read_text())
    words = Page((tmp_path / "r.html").read_text()).words
    assert 'All rows have one value there: ["a"].' in words
    assert f"scored {counts['scored']} rejected {counts['rejected']} truncated {counts['truncated']}" in words
    assert "judge, no revision" in words and "pairs.jsonl" in words and "unfamiliar not said" in words
    assert "wrote" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_other_formats_give_the_same_numbers(kind, rows, place, tmp_path):
    from inspector_pipeline.files.tables import write_rows as write

    plain = [{key: value for key, value in row.items() if key != "explanation"} for row in rows[20:]]
    write(plain, str(tmp_path / f"rows.{kind}"))
    write(plain, str(tmp_path / "rows.jsonl"))
    one, other = (summary(read_scored(tmp_path / f"rows.{end}", ALL)) for end in (kind, "jsonl"))
    assert json.dumps(one) == json.dumps(other)


def test_a_judges_page_says_whether_highlights_point_at_mistakes(make_judge):
    folder = make_judge([aspect("clarity", [feature(3)])])
    found = {"value": 0.4321, "low": 0.4, "high": 0.5}
    sets = {
        "<b>planted": {
            "n": 7,
            "usual_place": {"place": 0, "share": 0.5},
            "figures": {"first": {"chance": 0.25, "share": found, "late": found}},
        }
    }
    results = {"aspects": {}, "highlights": {"aspect": "clarity", "sets": sets, "sums": {}}}
    (folder / "results.json").write_text(json.dumps(results))
    words = Page(judge_page(folder)).words
    assert "most often step 1: always naming it hits 0.500." in words
    assert "<b>planted: 7 solutions" in words and "0.250" in words and "0.432 (0.400 to 0.500)" in words
    ((name, backbone, judged, matched, pointed, blind),) = gallery({"\x1b[31mred": folder})
    assert name == "\\x1b[31mred" and judged == "clarity not evaluated" and matched == "–" and blind == "not said"
    assert pointed == "<b>planted 0.432 (0.400 to 0.500) (0.250; 0.500)" and backbone.endswith("layers")
    (folder / "results.json").write_text('{"matched": []}')
    with pytest.raises(DataFileError, match="expects results of the evaluate stage"):
        gallery({"one": folder})


@pytest.mark.parametrize(
    "results",
    [
        '{"aspects": []}',
        '{"aspects": {"clarity": {"auroc": 1}}}',
        '{"unfamiliar": {"others": {"a": 3}}}',
        '{"notes": 3}',
        '{"highlights": {"sets": {"a": {}}}}',
        '{"degenerate": {"forms": {"a": {"above": {}}}}}',
        '{"judge": [1]}',
        "[]",
    ],
)
def test_results_of_something_else_are_told_in_one_line(results, make_judge, capsys, tmp_path):
    folder = make_judge([aspect("clarity", [feature(3)])])
    (folder / "results.json").write_text(results)
    assert main(["report", str(folder), "--output", str(tmp_path / "page.html")]) == 1
    assert "expects" in capsys.readouterr().err and not (tmp_path / "page.html").exists()


def test_the_gallery_has_the_released_judges_figures():
    ((_, _, judged, matched, _, blind),) = gallery({"embedded": EMBEDDED_JUDGE})
    results = json.loads((EMBEDDED_JUDGE / "results.json").read_text())
    own = results["aspects"]["correctness"]
    assert f"correctness {own['auroc']['value']:.3f} (" in judged
    assert f"beside {own['surface']['auroc']['value']:.3f}" in judged
    assert f"{results['matched']['correctness']['same_question']['value']:.3f}" in matched
    assert "It checks sums that are written out, not the solution." in blind


def test_a_judge_is_reported_from_its_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "embedded"]) == 0
    page = Page((tmp_path / "embedded_report.html").read_text())
    results = json.loads((EMBEDDED_JUDGE / "results.json").read_text())
    assert page.stack == [] and len(page.images) == 3 and not page.scripts
    assert "It checks sums that are written out, not the solution." in page.words
    mathematics = results["unfamiliar"]["others"]["math_l5_features"].values()
    told = sum(one["rows"] * one["unfamiliar"] for one in mathematics) / sum(one["rows"] for one in mathematics)
    assert f"{100 * told:.1f} %" in page.words and "math_l5_features" not in page.words
    assert "Not measured, or not in its results.json: learning curve" in page.words
    assert f"{results['aspects']['factuality']['auroc']['value']:.3f}" in page.words
    assert f"{results['degenerate']['forms']['echo']['above']['value']:.3f}" in page.words


FAULTS = {
    "no scores": (["question"], [], "expects rows that `inspector score` wrote"),
    "no column": ([], ["--group", "domain"], "expects the column 'domain'"),
    "no aspect": ([], ["--label", "grace=correct"], "--label expects an aspect of clarity, correctness"),
    "no page": ([], ["--output", "x.pdf"], "--output expects a .html file"),
}


PIECES = {"correctness": {"response": [["a"]], "question": []}}


@pytest.mark.parametrize(
    ("column", "cell"),
    [("explanation", "{"), ("explanation", [1]), ("explanation", PIECES), ("probabilities", "{"), ("probabilities", 3)],
)
def test_a_cell_of_something_else_is_told_by_its_row(column, cell, rows, tmp_path, capsys):
    path = write_rows(tmp_path / "in.jsonl", [{**rows[20], column: cell}])
    assert main(["report", str(path)]) == 1
    assert re.search(rf"(row 0|in.jsonl:1), {column}, expects", capsys.readouterr().err)


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_told_in_one_line(case, rows, tmp_path, capsys):
    keys, args, message = FAULTS[case]
    path = write_rows(tmp_path / "in.jsonl", [{key: row[key] for key in keys or row} for row in rows[20:30]])
    assert main(["report", str(path), *args]) == 1
    assert message in capsys.readouterr().err


DAMAGED = {
    "probabilities of a list": (
        {"probabilities": [1]},
        "expects an object, as `inspector score` writes it, but got [1]",
    ),
    "probabilities too deep": ({"probabilities": "[" * 10**5}, "expects an object, as `inspector score` writes it"),
    "no number": ({"expected_clarity": "inf"}, "expects a score and an expected score of 'clarity'"),
    "explanation of a list": ({"explanation": [1]}, "expects an object, as `inspector score` writes it, but got [1]"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_rows_that_are_no_scores_are_told_in_one_line(case, rows, tmp_path, capsys):
    change, message = DAMAGED[case]
    path = write_rows(tmp_path / "in.jsonl", [*rows[20:30], rows[30] | change])
    assert main(["report", str(path)]) == 1
    assert message in capsys.readouterr().err
