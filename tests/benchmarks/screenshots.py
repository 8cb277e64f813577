"""Write the screenshots of docs/: `python tests/benchmarks/screenshots.py docs/pictures`.

They show the examples of the package as the embedded judge explains them, the judge itself, and where the variable
INSPECTOR_SPACE_PYTHON names an interpreter with a Space's requirements, that Space at work; in a headless Chromium.
"""

import sys
import tempfile
from contextlib import chdir
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from inspector_cli.main import main  # noqa: E402
from inspector_cli.printable import say  # noqa: E402
from support.browser import SIZES, WHY, chromium, opened  # noqa: E402
from support.space import WHY as WHY_NO_SPACE  # noqa: E402
from support.space import judge_responses, served, space_python  # noqa: E402

import push_to_hub  # noqa: E402
from inspector_pipeline.files.tables import read_rows  # noqa: E402

EXAMPLES = ROOT / "inspector_pipeline" / "assets" / "examples.jsonl"


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
            assert main(["score", str(EXAMPLES), "--explain", "--output", f"{scored}/"]) == 0
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
        if space_python() is None:
            say(f"the Space is left out: it {WHY_NO_SPACE}")
        else:
            shoot_space(folder, work / "space")


def shoot_space(folder: Path, space: Path) -> None:
    """Write those of the embedded judge's Space: responses to a question, and the gallery."""
    push_to_hub.main(["org/inspector", "--space", "--dry-run", "--output", str(space)])
    rows = read_rows(str(EXAMPLES))
    responses = [row["prediction"] for row in rows if row["question"] == rows[0]["question"]][:2]
    with served(space, space.with_suffix(".log")) as address:
        for size in SIZES:
            with opened(address, size, asks=True) as tab:
                judge_responses(tab, rows[0]["question"], responses)
                tab.screenshot(path=folder / f"space-{size}.png", full_page=True)
                tab.get_by_role("tab", name="Judges").click()
                tab.get_by_text("It checks sums that are written out").first.wait_for()
                tab.screenshot(path=folder / f"space-judges-{size}.png")


if __name__ == "__main__":
    if chromium() is None:
        sys.exit(f"screenshots {WHY}")
    shoot(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures"), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
