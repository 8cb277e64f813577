"""The page at work in a real browser: found, sorted, filtered, by keyboard, on a phone, whatever the rows say."""

import re
import time
from functools import partial

import pytest
from inspector_training.reports.page import judge_page, scored_page
from inspector_training.reports.scored import Asked
from support import browser as browsers
from support.browser import needs_browser
from support.scored_rows import scored_rows, write_rows

from inspector_pipeline.api.load import EMBEDDED_JUDGE

pytestmark = needs_browser
ROWS = 2000


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    place = write_rows(folder / "scored.jsonl", scored_rows(ROWS))
    path = folder / "page.html"
    path.write_text(scored_page(place, Asked({"correctness": "correct"}, "generator")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    path = tmp_path_factory.mktemp("judge") / "judge.html"
    path.write_text(judge_page(EMBEDDED_JUDGE), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened():
    """Opens pages in one browser."""
    with browsers.launched() as browser:
        yield partial(browsers.opened, browser=browser)


def says(tab, text):
    """Wait until the line over the rows begins so."""
    from playwright.sync_api import expect

    expect(tab.locator("#status")).to_have_text(re.compile(f"^{text}"))


def first(tab):
    return float(tab.locator("#body tr:not(.detail) td").nth(1).inner_text())


def test_the_worst_row_is_the_first_and_every_order_and_filter_is_quick(opened, page):
    worst = min(row["expected_correctness"] for row in scored_rows(ROWS))
    with opened(page) as tab:
        assert first(tab) == pytest.approx(worst, abs=1e-3)
        assert tab.evaluate("window.stolen") is None
        assert tab.locator("#status").inner_text() == f"{ROWS} of {ROWS} rows, worst first"
        start = time.perf_counter()
        for order in ("high", "doubt", "e0", "l0", "input", "low"):
            tab.select_option("#order", order)
        assert time.perf_counter() - start < 3
        tab.select_option("#flag", "u")
        assert tab.locator("#status").inner_text().startswith(f"{ROWS // 4} of {ROWS}")
        tab.select_option("#flag", "")
        tab.fill("#find", "basket 77?")
        says(tab, "2 of")
        tab.fill("#find", "<script>")
        says(tab, "6 of")
        assert tab.locator("#body script, #body img").count() == 0


def test_a_row_opens_by_keyboard_and_shows_its_highlights(opened, page):
    with opened(page) as tab:
        tab.fill("#find", "basket 300?")
        says(tab, "2 of")
        tab.focus("#body button")
        tab.keyboard.press("Enter")
        assert tab.locator("#body button").first.get_attribute("aria-expanded") == "true"
        assert tab.evaluate("document.activeElement.dataset.row") is not None
        text = tab.locator(".detail .text").nth(1).text_content()
        rows = scored_rows(ROWS)
        assert text in {rows[600]["prediction"], rows[601]["prediction"]}
        marks = tab.locator(".detail mark")
        assert marks.count() > 3 and {"lo", "hi"} <= {m.get_attribute("class").split()[0] for m in marks.all()}
        assert "correctness: decision value" in tab.locator(".detail").inner_text()
        tab.keyboard.press("Enter")
        assert tab.locator(".detail").count() == 0


def test_heads_sort_and_say_so(opened, page):
    with opened(page) as tab:
        tab.get_by_role("button", name="clarity", exact=True).click()
        head = tab.locator("th", has=tab.get_by_role("button", name="clarity", exact=True))
        assert head.get_attribute("aria-sort") == "descending"
        tab.get_by_role("button", name="clarity", exact=True).click()
        assert head.get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nothing_stands_out_of_the_page(opened, page, judge, size):
    for path in (page, judge):
        with opened(path, size) as tab:
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert all(tab.evaluate("[...document.images].map((image) => image.naturalWidth > 0)"))
            if size == "phone" and path == page:  # a card is short until it is opened
                doubt = tab.locator("#body td[data-label=doubt]").first
                assert not doubt.is_visible()
                tab.locator("#body button").first.click()
                assert doubt.is_visible()


def test_without_its_script_the_numbers_are_there(opened, page):
    with opened(page, java_script_enabled=False) as tab:
        assert tab.locator("noscript").count() == 1 and "not said" in tab.locator("#overview").inner_text()
