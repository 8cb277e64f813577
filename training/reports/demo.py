"""`inspector demo`: a page on this machine that judges a question with pasted responses, or scores a file.

What is shown is made here, without Gradio; `make_app` lays it out.
"""

import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from inspector_cli.printable import printable

from inspector_pipeline.api.load import evaluate_samples
from inspector_pipeline.errors import DataFileError, PairError
from inspector_pipeline.files.tables import read_rows, write_rows
from inspector_pipeline.jobs.flags import TRUNCATED
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.results import EXPLANATION, REASON, SEEN, UNFAMILIAR, own_rank_field

RESPONSES = 4
MOST_ROWS = 500  # of a file: what a page is waited for
Mark = tuple[str, float | None]
PageOf = Callable[[Path], str]


def judged(judge: InspectorPipeline, question: str, responses: Sequence[str]) -> list[dict[str, Any]]:
    """Judge the responses that are not blank, with explanations.

    Raises:
        PairError: The question or all responses are blank.
    """
    given = [text for text in responses if text and text.strip()]
    if not (question and question.strip()) or not given:
        raise PairError("The page expects a question and at least one response. Write both.")
    results: list[dict[str, Any]] = judge([{"question": question, "prediction": text} for text in given], explain=True)
    return results


def table(judge: InspectorPipeline, results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Lay out results: the heads, and a row for each response with score (expected) of each aspect, and its flags."""
    names = [aspect.name for aspect in judge.model.aspects]
    rows = []
    for number, result in enumerate(results, 1):
        scores = [f"{printable(result['scores'][name])} ({result['expected'][name]:.2f})" for name in names]
        reason = f" ({result[REASON]})" if result[REASON] else ""
        flags = {UNFAMILIAR: UNFAMILIAR + reason, SEEN: SEEN, TRUNCATED: TRUNCATED}
        rows.append([str(number), *scores, ", ".join(told for name, told in flags.items() if result[name])])
    return ["response", *map(printable, names), "flags"], rows


def marks(judge: InspectorPipeline, result: dict[str, Any]) -> list[Mark]:
    """Return the response's pieces, each with its part of the largest share, -1 to 1, of the aspect ranked by."""
    ranked = str(own_rank_field(judge.model.config)).removeprefix("expected_")
    found = result[EXPLANATION]
    own = found.get(ranked) or next(iter(found.values()))
    if "why_not" in own:
        return [(f"No highlights: {own['why_not']}.", None)]
    most = max((abs(share) for _, share in own["response"] if share), default=1.0)
    return [(text, None if share is None else share / most) for text, share in own["response"]]


def report_of(judge: InspectorPipeline, place: str, page_of: PageOf) -> str:
    """Score a file of pairs and write its report; gives the page's path.

    Args:
        judge: A loaded judge.
        place: The file.
        page_of: Writes the page of a scored file.

    Raises:
        DataFileError: The file cannot be read, or is too large for a page that is waited for.
    """
    rows = read_rows(place)
    if not 1 <= len(rows) <= MOST_ROWS:
        raise DataFileError(f"The page expects 1 to {MOST_ROWS} rows, but got {len(rows)}. Score them by the command.")
    folder = Path(tempfile.mkdtemp(prefix="inspector-"))
    scored = folder / f"{Path(place).name.partition('.')[0]}.jsonl"
    write_rows(evaluate_samples(rows, judge, batch_size=None), str(scored))
    page = folder / "report.html"
    page.write_text(page_of(scored), encoding="utf-8", errors="backslashreplace")
    return str(page)


def as_message(error: Exception) -> str:
    """Return an error's message for the page, which takes messages for markup; they may quote a stranger's file."""
    return escape(printable(error))


def make_app(judge: InspectorPipeline, page_of: PageOf) -> Any:
    """Lay out the page; `launch()` serves it.

    Args:
        judge: A loaded judge.
        page_of: Writes the page of a scored file.
    """
    import gradio

    def on_score(question: str, *responses: str) -> list[Any]:
        try:
            results = judged(judge, question, responses)
        except PairError as error:
            raise gradio.Error(as_message(error)) from error
        heads, rows = table(judge, results)
        shown = [gradio.HighlightedText(marks(judge, result), visible=True) for result in results]
        hidden = [gradio.HighlightedText([], visible=False)] * (RESPONSES - len(results))
        return [gradio.Dataframe(rows, headers=heads), *shown, *hidden]

    def on_file(place: str) -> str:
        try:
            return report_of(judge, place, page_of)
        except (DataFileError, PairError) as error:
            raise gradio.Error(as_message(error)) from error

    with gradio.Blocks(title="Inspector", analytics_enabled=False) as app:
        gradio.Markdown("# Inspector\nA small judge ranks many responses and decides about none. Marks describe it.")
        with gradio.Tab("Responses"):
            question = gradio.Textbox(label="Question", lines=3)
            boxes = [gradio.Textbox(label=f"Response {i + 1}", lines=4) for i in range(RESPONSES)]
            button = gradio.Button("Score", variant="primary")
            scores = gradio.Dataframe(label="Score (expected)", interactive=False)
            texts = [gradio.HighlightedText(label=f"Response {i + 1}", visible=False) for i in range(RESPONSES)]
            button.click(on_score, [question, *boxes], [scores, *texts])
        with gradio.Tab("File"):
            file = gradio.File(label=f"Pairs, at most {MOST_ROWS}", type="filepath")
            gradio.Button("Report").click(on_file, file, gradio.File(label="Report"))
    return app
