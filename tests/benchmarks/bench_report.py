"""Say how long a report's page takes to write, to open, to sort, to filter and to search, in a headless Chromium.

    PYTHONPATH=.:tests python tests/benchmarks/bench_report.py scored.jsonl --rows 20000 --group generator
    PYTHONPATH=.:tests python tests/benchmarks/bench_report.py --made 20000 --rows 20000

The rows are scored ones, or as many made-up ones with explanations. It prints JSON: of each act the milliseconds until
the page is painted anew, and the longest task, for which a browser answers nobody; on a desktop's and a phone's width.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from inspector_training.reports.page import scored_page
from inspector_training.reports.scored import Asked
from support.browser import SIZES, WHY, chromium, launched
from support.scored_rows import scored_rows, write_rows

TASKS = """window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: true });"""  # those of 50 ms and more
PAINTED = """async ([id, event, value]) => {
  const start = performance.now();
  const element = document.getElementById(id) || document.querySelector(id);
  if (value !== null) element.value = value;
  element.dispatchEvent(new Event(event, { bubbles: true }));
  if (event === "input") await new Promise((done) => setTimeout(done, 150)); // for which the page waits too
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  return performance.now() - start;
}"""
REST_MS = 300
ACTS = {
    "best first": ("order", "change", "high"),
    "least certain first": ("order", "change", "doubt"),
    "by an aspect": ("order", "change", "e0"),
    "as they came": ("order", "change", "input"),
    "worst first": ("order", "change", "low"),
    "unfamiliar alone": ("flag", "change", "u"),
    "all": ("flag", "change", ""),
    "search": ("find", "input", "the"),
    "no search": ("find", "input", ""),
    "open a row": ("#body button", "click", None),
    "next page": ("after", "click", None),
}


def measure(browser, page, size):
    """Open a page, and do what a reader does."""
    width, height = SIZES[size]
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.add_init_script(TASKS)
    start = time.perf_counter()
    tab.goto(page.absolute().as_uri())
    tab.locator("#body tr").first.wait_for()
    found = {"open": {"ms": round(1000 * (time.perf_counter() - start)), "longest_task_ms": longest(tab)}}
    for name, act in ACTS.items():
        painted = tab.evaluate(PAINTED, list(act))
        found[name] = {"ms": round(painted), "longest_task_ms": longest(tab)}
    tab.close()
    return found


def longest(tab):
    """Return the longest task since the last call; 0 where none took 50 ms."""
    tab.wait_for_timeout(REST_MS)
    return round(max(tab.evaluate("window.tasks.splice(0)"), default=0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scored", nargs="?", type=Path, help="scored rows")
    parser.add_argument("--made", type=int, default=2000, metavar="N", help="made-up rows where none are given (2000)")
    parser.add_argument("--rows", type=int, default=5000, metavar="N", help="that the page holds (5000)")
    parser.add_argument("--group", help="a column")
    args = parser.parse_args()
    if chromium() is None:
        sys.exit(f"The benchmark {WHY}")
    with tempfile.TemporaryDirectory() as name, launched() as browser:
        scored = args.scored or write_rows(Path(name) / "made.jsonl", scored_rows(args.made))
        start, page = time.perf_counter(), Path(name) / "report.html"
        page.write_text(scored_page(scored, Asked(group=args.group), args.rows), encoding="utf-8")
        found = {"write_s": round(time.perf_counter() - start, 1), "page_mb": round(page.stat().st_size / 1e6, 1)}
        found |= {size: measure(browser, page, size) for size in SIZES}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
