"""What the page for pasted responses shows; where Gradio is installed, the page itself."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from inspector_cli.main import main
from inspector_training.reports.demo import (
    EXPECTED,
    MOST_ROWS,
    MOST_TEXT,
    as_message,
    judged,
    make_app,
    marks,
    numbered,
    probabilities,
    report_of,
    shown_scores,
    table,
)
from inspector_training.reports.fragments import marked_html, table_html
from inspector_training.reports.gallery import HEADS
from inspector_training.reports.page import scored_page
from inspector_training.reports.scored import Asked
from support.browser import needs_browser, opened
from support.models import PAIRS, aspect, feature
from support.scored_rows import write_rows
from support.space import judge_responses, needs_gradio, report_of_file, served

from hub_cards.space import JUDGE, named_folders, stage_space
from inspector_pipeline import load_judge
from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.errors import DataFileError, PairError
from inspector_pipeline.explain import NO_TOKEN
from inspector_pipeline.files.tables import write_rows as write_table


def page_of(scored):
    return scored_page(scored, Asked())


@pytest.fixture
def judge(make_judge):
    aspects = [aspect("clarity", [feature(3, "response_mean")], "ordinal"), aspect("lows", [feature(1, "min")])]
    return load_judge(make_judge(aspects, rank_by="expected_clarity"))


def test_responses_get_a_row_and_marks_each(judge):
    pair = PAIRS[2]
    results = judged(judge, pair["question"], [pair["prediction"], "", "No."])
    numbers = numbered([pair["prediction"], "", "No."])
    heads, rows = table(judge, results, numbers)
    assert heads == ["response", "clarity", "lows", "flags", "lowered most", "raised most"]
    assert all("“" in text for row in rows for text in row[-2:] if text) and any(rows[0][-2:])
    assert [row[0] for row in rows] == ["1", "3"]
    expected = judge(pair)
    assert rows[0][1] == f"{expected['scores']['clarity']} ({expected['expected']['clarity']:.2f})"
    shares = probabilities(results, numbers)
    assert [row[:2] for row in shares] == [["1", "clarity"], ["1", "lows"], ["3", "clarity"], ["3", "lows"]]
    lows = expected["probabilities"]["lows"]
    assert shares[1][2] == ", ".join(f"{score}: {share:.3f}" for score, share in lows.items())
    shown = shown_scores(judge, results, numbers)
    assert "<th scope='col'>Response 3</th>" in shown and f"<td data-label='Response 1'>{rows[0][1]}</td>" in shown
    found = marks(judge, results[0])
    assert "".join(text for text, _ in found) == pair["prediction"]
    assert max(abs(share) for _, share in found) == pytest.approx(1)
    with pytest.raises(PairError, match="a question and at least one response"):
        judged(judge, "Why?", ["", "  "])


def test_a_long_and_hostile_response_is_shown_in_part_and_as_text(judge):
    (result,) = judged(judge, "Why?", ["\u202e\x1b[31m <script>steal()</script> " + "word " * 9000])
    text = "".join(part for part, _ in marks(judge, result))
    assert text.startswith("\\u202e\\x1b[31m <script>") and len(text) < MOST_TEXT + 100
    assert text.endswith("… and more, which is not shown")


def test_tables_and_marks_hold_no_markup_of_strangers_and_read_without_colour():
    hostile = "<b>'\"&\x1b[31m\u202e"
    shown = "&lt;b&gt;&#x27;&quot;&amp;\\x1b[31m\\u202e"
    table_of = table_html("t_u", ["", hostile], [["a_row", hostile]])
    assert f"<td data-label='{shown}'>{shown}</td>" in table_of and "<th scope='row'>a_<wbr>row</th>" in table_of
    text = marked_html(hostile, [("a\n", 0.1), (hostile, -0.2), ("c", -0.6), ("d", 1.0), ("e", None)])
    assert f"<h3>{shown}</h3><p class='text'>a\n<mark class='lo'>{shown}</mark><mark class='lo much'>c</mark>" in text
    assert text.endswith("<mark class='hi much'>d</mark><span class='unread'>e</span></p></div>")


def test_a_judge_of_the_last_token_says_why_there_are_no_marks(make_judge, tmp_path, capsys):
    folder = make_judge([aspect("tone", [feature(3, "last")])])
    judge = load_judge(folder)
    (result,) = judged(judge, PAIRS[0]["question"], [PAIRS[0]["prediction"]])
    assert marks(judge, result) == [(f"No highlights: {NO_TOKEN}.", None)]
    rows, scored = str(write_rows(tmp_path / "pairs.jsonl", PAIRS)), str(tmp_path / "scored.jsonl")
    told = ["--explain", "--format", "table", "--output", scored]
    assert main(["score", rows, "--judge", str(folder), *told]) == 0
    assert capsys.readouterr().out.count("no highlights: its probe reads no token of the") == len(PAIRS)
    data = scored_page(Path(scored), Asked()).partition('id="data">')[2].partition("</script>")[0]
    for row in json.loads(data)["rows"]:
        assert row["x"] == {"why": NO_TOKEN} and row["p"] in {pair["prediction"] for pair in PAIRS}


def test_a_file_gets_its_report(judge, tmp_path):
    folder = tmp_path / "pages"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "report.html").write_text("somebody's")
    os.utime(folder / "old" / "report.html", (0, 0))
    page = report_of(judge, str(write_rows(tmp_path / "pairs.jsonl", PAIRS)), page_of, folder)
    assert not (folder / "old").exists() and Path(page).parent.parent == folder
    with open(page, encoding="utf-8") as file:
        assert "Report of pairs.jsonl" in file.read()
    for kind in ("csv", "parquet"):
        write_table(PAIRS, str(tmp_path / f"table.{kind}"))
        assert Path(report_of(judge, str(tmp_path / f"table.{kind}"), page_of, folder)).is_file()
        (tmp_path / f"wrong.{kind}").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
        with pytest.raises(EXPECTED, match=f"wrong.{kind}"):
            report_of(judge, str(tmp_path / f"wrong.{kind}"), page_of, folder)
    with pytest.raises(DataFileError, match="expects a file of pairs, but got none"):
        report_of(judge, None, page_of, folder)
    with pytest.raises(DataFileError, match=f"expects 1 to {MOST_ROWS} rows, but got {MOST_ROWS + 1}"):
        report_of(judge, str(write_rows(tmp_path / "many.jsonl", PAIRS[:1] * (MOST_ROWS + 1))), page_of, folder)


def test_what_a_file_holds_is_no_markup_in_an_error():
    assert as_message(DataFileError("It has the columns <img src=x onerror=y>, \x1b[31m.")) == (
        "It has the columns &lt;img src=x onerror=y&gt;, \\x1b[31m."
    )
    assert as_message(DataFileError("/tmp/7f/a_b.csv expects rows."), "/tmp/7f/a_b.csv") == "a_b.csv expects rows."


def test_two_judges_of_a_gallery_have_two_names(tmp_path):
    one, other = tmp_path / "a" / "judge", tmp_path / "b" / "judge"
    assert named_folders([one, one]) == {"judge": one}
    with pytest.raises(DataFileError, match=r"--gallery expects folders of different names, but got .*a.judge and"):
        named_folders([one, other])


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="expects gradio (pip install gradio)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_is_laid_out(judge):
    described = json.dumps(make_app(judge, page_of, [["one"] * len(HEADS)]).get_config_file(), default=str)
    assert "Response 4" in described and "Report" in described and HEADS[-1] in described


@needs_browser
@needs_gradio
def test_a_space_is_driven_in_a_browser(make_judge, tmp_path):
    """Paste, score, upload, report, gallery: on the page that push_to_hub.py --space stages, with hostile texts."""
    space = tmp_path / "space"
    aspects = [aspect("clarity", [feature(3, "response_mean")], "ordinal")]
    shutil.copytree(make_judge(aspects), space / JUDGE)
    stage_space(space, JUDGE, {"embedded": EMBEDDED_JUDGE})
    hostile = "</script><img src=x onerror='window.stolen = 1'> \u202e ${window.stolen = 1} {{7*7}}"
    with served(space, tmp_path / "log") as address, opened(address, asks=True) as tab:
        judge_responses(tab, f"Why? {hostile}", ["Since 2 + 2 = 4.", hostile * 3])
        assert "clarity" in tab.locator("table").first.inner_text()
        assert tab.get_by_text(re.compile(r"1: 0\.\d{3}, ")).count()
        rows = write_rows(tmp_path / "pairs.jsonl", [*PAIRS, {"question": "q", "prediction": hostile}])
        page = report_of_file(tab, rows)
        assert "Report of pairs.jsonl" in page and "onerror=" not in page.partition('id="data"')[0]
        tab.get_by_role("tab", name="Judges").click()
        assert "It checks sums that are written out" in tab.locator("body").inner_text()
        assert tab.evaluate("window.stolen") is None
