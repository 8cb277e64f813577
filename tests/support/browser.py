"""A headless Chromium for tests of pages, where one is installed."""

import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
WHY = "expects playwright (pip install 'inspector-pipeline[browser]') and Chromium (apt-get install chromium)"


def chromium():
    """Where Chromium is; None where it is not, or nothing drives it."""
    try:
        import playwright  # noqa: F401
    except ModuleNotFoundError:
        return None
    return next((found for name in NAMES if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(chromium() is None, reason=WHY)


@contextmanager
def launched():
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(page, size="desktop", asks=False, browser=None, **options):
    """Open a file, or what is served here, as a page; what goes wrong on it, and what it asks the network for, fails.

    Args:
        page: A path, or an address.
        size: One of `SIZES`.
        asks: Whether it may ask the network: what Gradio's page does for fonts, which it shows without too.
        browser: That of `launched`; one of its own where it is None.
        **options: Of the browser's page.
    """
    width, height = SIZES[size]
    with launched() if browser is None else nullcontext(browser) as running:
        tab = running.new_page(viewport={"width": width, "height": height}, **options)
        wrong, asked = [], []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        if not asks:
            tab.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
            tab.on("request", lambda one: asked.append(one.url) if not one.url.startswith(("file:", "data:")) else None)
        tab.goto(page.absolute().as_uri() if isinstance(page, Path) else page)
        yield tab
        tab.close()
    assert not wrong and not asked, (wrong, asked)
