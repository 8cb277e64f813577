"""Write the screenshots of docs/: `python tests/benchmarks/screenshots.py docs/pictures`.

They show the examples of the package as the embedded judge explains them, and the judge itself, in a headless Chromium.
"""

import sys
import tempfile
from contextlib import chdir
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from inspector_cli.main import main  # noqa: E402
from support.browser import SIZES, WHY, chromium, opened  # noqa: E402


def shoot(folder: Path, scored: Path | None = None) -> None:
    """Write all of them.

    Args:
        folder: Where they go.
        scored: Rows that were scored with --explain; the examples of the package where it is None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder, scored = folder.absolute(), scored and scored.absolute()
    with tempfile.TemporaryDirectory() as held, chdir(held):
        work = Path(held)
        if scored is None:
            scored = Path("scored")
            examples = str(ROOT / "inspector_pipeline" / "assets" / "examples.jsonl")
            assert main(["score", examples, "--explain", "--output", f"{scored}/"]) == 0
        pages = {"report": str(scored), "judge": "embedded"}
        for name, place in pages.items():
            page = work / f"{name}.html"
            assert main(["report", place, "--output", str(page)]) == 0
            for size in SIZES:
                with opened(page, size) as tab:
                    tab.screenshot(path=folder / f"{name}-{size}.png")
                    if name == "report":
                        tab.locator("#body button").first.click()
                        tab.locator("#rows").scroll_into_view_if_needed()
                        tab.evaluate("document.getElementById('rows').scrollIntoView()")
                        tab.screenshot(path=folder / f"{name}-rows-{size}.png")


if __name__ == "__main__":
    if chromium() is None:
        sys.exit(f"screenshots {WHY}")
    shoot(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures"), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
