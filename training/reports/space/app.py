"""The Space of a judge: the page of `inspector demo`, served by `python app.py` in the folder that holds it.

`space.json` names the judge: nothing is the embedded one, `judge` the folder of that name here, else an id on the Hub.
"""

import json
from pathlib import Path

from inspector_training.reports.demo import launch, make_app
from inspector_training.reports.gallery import gallery
from inspector_training.reports.page import scored_page
from inspector_training.reports.scored import Asked

from inspector_pipeline import load_judge

HERE = Path(__file__).parent


def main() -> None:
    """Serve the page."""
    named = json.loads((HERE / "space.json").read_text(encoding="utf-8"))["judge"]
    judge = load_judge(str(HERE / named) if named == "judge" else named)
    judges = {path.name: path for path in sorted((HERE / "gallery").glob("*"))}
    launch(make_app(judge, lambda scored: scored_page(scored, Asked()), gallery(judges)))


if __name__ == "__main__":
    main()
