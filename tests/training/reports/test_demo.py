"""What the page for pasted responses shows; where Gradio is installed, the page itself."""

import importlib.util
import json

import pytest
from inspector_training.reports.demo import MOST_ROWS, as_message, judged, make_app, marks, report_of, table
from inspector_training.reports.page import scored_page
from inspector_training.reports.scored import Asked
from support.models import PAIRS, aspect, feature
from support.scored_rows import write_rows

from inspector_pipeline import load_judge
from inspector_pipeline.errors import DataFileError, PairError


def page_of(scored):
    return scored_page(scored, Asked())


@pytest.fixture
def judge(make_judge):
    aspects = [aspect("clarity", [feature(3, "response_mean")], "ordinal"), aspect("lows", [feature(1, "min")])]
    return load_judge(make_judge(aspects, rank_by="expected_clarity"))


def test_responses_get_a_row_and_marks_each(judge):
    pair = PAIRS[2]
    results = judged(judge, pair["question"], [pair["prediction"], "", "No."])
    heads, rows = table(judge, results)
    assert heads == ["response", "clarity", "lows", "flags"] and [row[0] for row in rows] == ["1", "2"]
    expected = judge(pair)
    assert rows[0][1] == f"{expected['scores']['clarity']} ({expected['expected']['clarity']:.2f})"
    found = marks(judge, results[0])
    assert "".join(text for text, _ in found) == pair["prediction"]
    assert max(abs(share) for _, share in found) == pytest.approx(1)
    with pytest.raises(PairError, match="a question and at least one response"):
        judged(judge, "Why?", ["", "  "])


def test_a_file_gets_its_report(judge, tmp_path):
    page = report_of(judge, str(write_rows(tmp_path / "pairs.jsonl", PAIRS)), page_of)
    with open(page, encoding="utf-8") as file:
        assert "Report of pairs.jsonl" in file.read()
    with pytest.raises(DataFileError, match=f"expects 1 to {MOST_ROWS} rows, but got {MOST_ROWS + 1}"):
        report_of(judge, str(write_rows(tmp_path / "many.jsonl", PAIRS[:1] * (MOST_ROWS + 1))), page_of)


def test_what_a_file_holds_is_no_markup_in_an_error():
    assert as_message(DataFileError("It has the columns <img src=x onerror=y>, \x1b[31m.")) == (
        "It has the columns &lt;img src=x onerror=y&gt;, \\x1b[31m."
    )


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="expects gradio (pip install gradio)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_is_laid_out(judge):
    described = json.dumps(make_app(judge, page_of).get_config_file(), default=str)
    assert "Response 4" in described and "Report" in described
