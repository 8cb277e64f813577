"""A judge's Space at work: served by a Python that has its requirements, for a browser of this one to drive."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

NAMED = "INSPECTOR_SPACE_PYTHON"
WHY = f"expects the interpreter of an environment with a Space's requirements.txt, named by {NAMED}"


def space_python():
    """The interpreter that serves; None where none is known to have Gradio."""
    return os.environ.get(NAMED) or (sys.executable if importlib.util.find_spec("gradio") else None)


needs_gradio = pytest.mark.skipif(space_python() is None, reason=WHY)


@contextmanager
def served(space, log):
    """Serve a staged Space; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w", encoding="utf-8") as told:
        process = subprocess.Popen([space_python(), "app.py"], cwd=space, env=env, stdout=told, stderr=told)
        try:
            yield _answering(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.terminate()
            process.wait(20)


def _answering(address, process, log, seconds=150):
    for _ in range(seconds * 2):
        assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return address
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text(encoding="utf-8")[-3000:])


def judge_responses(tab, question, responses):
    """Paste and score; wait until the table has a row for each response."""
    from playwright.sync_api import expect

    tab.get_by_label("Question").fill(question)
    for number, response in enumerate(responses, 1):
        tab.get_by_label(f"Response {number}", exact=True).fill(response)
    tab.get_by_role("button", name="Score", exact=True).click()
    last = tab.get_by_text(f"Response {len(responses)}: what lowered")
    expect(last.first).to_be_visible(timeout=60_000)


def report_of_file(tab, rows):
    """Upload a file and return the text of the report that comes back."""
    from playwright.sync_api import expect

    tab.get_by_role("tab", name="File").click()
    with tab.expect_file_chooser() as chooser:
        tab.get_by_text("Click to Upload").click()
    chooser.value.set_files(str(rows))
    expect(tab.get_by_text("Click to Upload")).to_be_hidden(timeout=30_000)
    tab.get_by_role("button", name="Report", exact=True).click()
    link = tab.locator("a[href*='report.html']").first
    expect(link).to_be_visible(timeout=60_000)
    with urllib.request.urlopen(link.get_attribute("href"), timeout=30) as page:
        return page.read().decode()
