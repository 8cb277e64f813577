"""The metric's Space: score one response in the browser. Run it with `python app.py`."""

from functools import lru_cache
from typing import Any

from inspector_pipeline import InspectorPipeline, load_judge

TITLE = "Inspector"
DESCRIPTION = (
    "Scores a response to a question from the hidden states of a small frozen language model. It is a small judge: it "
    "ranks responses better than their length does, and should not decide about one."
)


@lru_cache(maxsize=1)
def embedded_judge() -> InspectorPipeline:
    """Load the embedded judge once."""
    return load_judge()


def score(question: str, response: str) -> dict[str, Any]:
    """Score one response.

    Args:
        question: The question.
        response: The response to it.

    Returns:
        The judge's result, its keys as text.

    Raises:
        PairError: A text is blank.
    """
    result = embedded_judge()({"question": question, "prediction": response})
    probabilities = {
        name: {str(value): p for value, p in classes.items()} for name, classes in result["probabilities"].items()
    }
    return {**result, "probabilities": probabilities}


def main() -> None:
    """Serve the page."""
    import gradio

    boxes = [gradio.Textbox(label="Question", lines=3), gradio.Textbox(label="Response", lines=6)]
    gradio.Interface(score, boxes, gradio.JSON(label="Scores"), title=TITLE, description=DESCRIPTION).launch()


if __name__ == "__main__":
    main()
