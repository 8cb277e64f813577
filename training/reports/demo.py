"""`inspector demo`: a page on this machine that judges a question with pasted responses, or scores a file.

What is shown is made here, without Gradio; `make_app` lays it out. Texts are of strangers: they are shown as text,
with what turns its direction or moves the cursor as escapes, and no more of one than a reader takes in.
"""

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inspector_cli.printable import printable

from inspector_pipeline.api.load import evaluate_samples
from inspector_pipeline.errors import DataFileError, InspectorError, PairError
from inspector_pipeline.explain import NO_TOKEN
from inspector_pipeline.files.tables import read_rows, write_rows
from inspector_pipeline.jobs.flags import TRUNCATED
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.results import EXPLANATION, REASON, SEEN, UNFAMILIAR, own_rank_field

from .fragments import marked_html, plain, table_html
from .gallery import HEADS

RESPONSES = 4
N_NAMED = 3  # pieces that raised and lowered a score most
MOST_ROWS = 500  # of a file: what a page is waited for
KEPT = 3600  # seconds that a report may be fetched
MOST_BYTES = "20mb"  # of a file
MOST_TEXT = 6000  # characters of a response that are shown; as much as a report shows
EXPECTED = (InspectorError, ValueError, OSError)  # what is told on the page, as the commands tell it
Mark = tuple[str, float | None]
PageOf = Callable[[Path], str]
ABOUT = (
    "# Inspector\nA small judge ranks many responses and decides about none. Marks describe the judge: they need not "
    "stand where a mistake is. What it says of a response that it flags as unfamiliar means nothing."
)
PROBABILITY_HEADS = ["response", "aspect", "probabilities"]


def judged(judge: InspectorPipeline, question: str, responses: Sequence[str]) -> list[dict[str, Any]]:
    """Judge the responses that are not blank, with explanations.

    Raises:
        PairError: The question or all responses are blank.
    """
    given = [responses[number - 1] for number in numbered(responses)]
    if not (question and question.strip()) or not given:
        raise PairError("The page expects a question and at least one response. Write both.")
    results: list[dict[str, Any]] = judge([{"question": question, "prediction": text} for text in given], explain=True)
    return results


def numbered(responses: Sequence[str]) -> list[int]:
    """Return the numbers, from 1, of the responses that are judged: those that are not blank."""
    return [number for number, text in enumerate(responses, 1) if text and text.strip()]


def table(
    judge: InspectorPipeline, results: Sequence[dict[str, Any]], numbers: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Lay out results: the heads, and a row for each response.

    It holds score (expected) of each aspect, the pieces that lowered and raised most, and flags.
    """
    names = [aspect.name for aspect in judge.model.aspects]
    rows = []
    for number, result in zip(numbers, results, strict=True):
        scores = [f"{printable(result['scores'][name])} ({result['expected'][name]:.2f})" for name in names]
        reason = f" ({result[REASON]})" if result[REASON] else ""
        flags = {UNFAMILIAR: UNFAMILIAR + reason, SEEN: SEEN, TRUNCATED: TRUNCATED}
        told = ", ".join(told for name, told in flags.items() if result[name])
        rows.append([str(number), *scores, told, *_extremes(result[EXPLANATION][ranked_aspect(judge)])])
    return ["response", *map(printable, names), "flags", "lowered most", "raised most"], rows


def _extremes(own: dict[str, Any]) -> list[str]:
    """Name the pieces that lowered and raised a value most, which marks tell by colour alone."""
    found = sorted((share, text.strip()) for text, share in own.get("response", []) if share and text.strip())
    low, high = ([one for one in found if one[0] < 0][:N_NAMED], [one for one in found[::-1] if one[0] > 0][:N_NAMED])
    return [", ".join(f"“{printable(text)}” {share:+.3f}" for share, text in some) for some in (low, high)]


def probabilities(results: Sequence[dict[str, Any]], numbers: Sequence[int]) -> list[list[str]]:
    """Lay out the probability of each score: under `PROBABILITY_HEADS` a row for each response and aspect."""
    return [
        [
            str(number),
            printable(name),
            ", ".join(f"{printable(score)}: {share:.3f}" for score, share in shares.items()),
        ]
        for number, result in zip(numbers, results, strict=True)
        for name, shares in result["probabilities"].items()
    ]


def ranked_aspect(judge: InspectorPipeline) -> str:
    """Name the aspect whose marks are shown: that of the field that the judge ranks by, or its first."""
    names = [aspect.name for aspect in judge.model.aspects]
    ranked = str(own_rank_field(judge.model.config)).removeprefix("expected_")
    return ranked if ranked in names else names[0]


def marks(judge: InspectorPipeline, result: dict[str, Any]) -> list[Mark]:
    """Return the response's pieces, each with its part of the largest share, -1 to 1, of the aspect ranked by."""
    own = result[EXPLANATION][ranked_aspect(judge)]
    if "why_not" in own:
        return [(f"No highlights: {printable(own['why_not'])}.", None)]
    if not own["response"]:
        return [(f"No highlights: {NO_TOKEN}.", None)]
    most = max((abs(share) for _, share in own["response"] if share), default=1.0)
    found: list[Mark] = []
    left = MOST_TEXT
    for text, share in own["response"]:
        if left <= 0:
            return [*found, ("… and more, which is not shown", None)]
        found.append((printable(text[:left], lines=True), None if share is None else share / most))
        left -= len(text)
    return found


def report_of(judge: InspectorPipeline, place: str | None, page_of: PageOf, folder: Path) -> str:
    """Score a file of pairs and write its report; gives the page's path.

    Args:
        judge: A loaded judge.
        place: The file; None where none was given.
        page_of: Writes the page of a scored file.
        folder: Of pages, of which those that were written more than an hour ago are removed.

    Raises:
        DataFileError: The file cannot be read, or is too large for a page that is waited for.
    """
    if place is None:
        raise DataFileError("The page expects a file of pairs, but got none. Upload one.")
    rows = read_rows(place)
    if not 1 <= len(rows) <= MOST_ROWS:
        todo = f"Score {place} by the command." if rows else "Upload another file."
        raise DataFileError(f"The page expects 1 to {MOST_ROWS} rows, but got {len(rows)}. {todo}")
    for old in folder.glob("*/report.html"):
        if old.stat().st_mtime < time.time() - KEPT:
            shutil.rmtree(old.parent, ignore_errors=True)
    page = Path(tempfile.mkdtemp(dir=folder)) / "report.html"
    with tempfile.TemporaryDirectory(prefix="inspector-") as work:  # strangers' rows do not stay
        scored = Path(work) / f"{Path(place).name.partition('.')[0]}.jsonl"
        write_rows(evaluate_samples(rows, judge, batch_size=None), str(scored))
        page.write_text(page_of(scored), encoding="utf-8", errors="backslashreplace")
    return str(page)


def make_app(judge: InspectorPipeline, page_of: PageOf, judges: Sequence[Sequence[str]] = ()) -> Any:
    """Lay out the page; `launch` serves it.

    Args:
        judge: A loaded judge.
        page_of: Writes the page of a scored file.
        judges: Rows of the gallery; without any there is none.
    """
    import gradio

    with gradio.Blocks(title="Inspector", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as app:
        gradio.Markdown(ABOUT)
        with gradio.Tab("Responses"):
            _lay_out_responses(judge)
        with gradio.Tab("File"):
            _lay_out_file(judge, page_of)
        if judges:
            with gradio.Tab("Judges"):
                gradio.HTML(table_html("A row for each judge", HEADS, judges, cards=True), apply_default_css=False)
    return app


def launch(app: Any, **settings: Any) -> None:
    """Serve the page until it is stopped, and take no larger file than a page is waited for."""
    app.launch(max_file_size=MOST_BYTES, quiet=True, **settings)


def shown_scores(judge: InspectorPipeline, results: Sequence[dict[str, Any]], numbers: Sequence[int]) -> str:
    """Write scores, flags and the pieces that moved most, a column for each response."""
    heads, rows = table(judge, results, numbers)
    columns = ["", *(f"Response {number}" for number in numbers)]
    lines = [[head, *cells] for head, *cells in zip(heads[1:], *(row[1:] for row in rows), strict=True)]
    return table_html("Score (expected)", columns, lines)


def _lay_out_responses(judge: InspectorPipeline) -> None:
    import gradio

    told = f"what lowered (wavy) and raised (straight) {printable(ranked_aspect(judge))}"

    def on_score(question: str, *responses: str) -> list[Any]:
        try:
            results = judged(judge, question, responses)
        except EXPECTED as error:
            raise gradio.Error(as_message(error), print_exception=False) from error
        numbers = numbered(responses)
        shown = [
            gradio.HTML(marked_html(f"Response {number}: {told}", marks(judge, result)), visible=True)
            for number, result in zip(numbers, results, strict=True)
        ]
        hidden = [gradio.HTML("", visible=False)] * (RESPONSES - len(results))
        shares = table_html("Probabilities", PROBABILITY_HEADS, probabilities(results, numbers))
        return [shown_scores(judge, results, numbers), shares, *shown, *hidden]

    question = gradio.Textbox(label="Question", lines=3)
    boxes = [gradio.Textbox(label=f"Response {i + 1}", lines=4) for i in range(RESPONSES)]
    button = gradio.Button("Score", variant="primary")
    scores = gradio.HTML(apply_default_css=False)
    texts = [gradio.HTML(visible=False, apply_default_css=False) for _ in range(RESPONSES)]
    shares = gradio.HTML(apply_default_css=False)
    button.click(on_score, [question, *boxes], [scores, shares, *texts])


def _lay_out_file(judge: InspectorPipeline, page_of: PageOf) -> None:
    import gradio

    folder = Path(tempfile.mkdtemp(prefix="inspector-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def on_file(place: str | None) -> str:
        try:
            return report_of(judge, place, page_of, folder)
        except EXPECTED as error:
            raise gradio.Error(as_message(error, place), print_exception=False) from error

    file = gradio.File(label=f"Pairs, at most {MOST_ROWS}", type="filepath")
    gradio.Button("Report").click(on_file, file, gradio.File(label="Report"))


def as_message(error: Exception, place: str | None = None) -> str:
    """Return an error's message for the page, which takes messages for markup; they may quote a stranger's file.

    Args:
        error: What is told.
        place: Where an upload stands on the server, of which the page says no more than the name.
    """
    told = str(error)
    return plain(told.replace(place, Path(place).name) if place else told)
