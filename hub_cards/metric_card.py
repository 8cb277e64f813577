"""The card of a metric of the `evaluate` library that scores with a judge."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from huggingface_hub import SpaceCardData

from .rendering import render
from .sources import PAPER

SDK = "gradio"  # what `evaluate` hosts metrics with


@dataclass(frozen=True)
class MetricCard:
    """What the card of a metric says.

    Attributes:
        title: Its name, as people read it.
        description: What it computes, in a sentence or two.
        judge: The judge that it scores with where none is named.
        inputs: Argument of `compute` -> what it takes.
        outputs: Key of the result -> what it is and its range.
        snippet: Python that runs as it stands.
        limits: What it does not do, a sentence each.
        citations: What to cite.
    """

    title: str
    description: str
    judge: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    snippet: str
    limits: tuple[str, ...] = ()
    citations: tuple[str, ...] = (PAPER,)

    def metadata(self) -> SpaceCardData:
        """Build the metadata that the Hub reads: metrics are Spaces there."""
        return SpaceCardData(title=self.title, sdk=SDK, pinned=False, tags=["evaluate", "metric", "inspector-judge"])

    def render(self) -> str:
        """Render the card as Markdown with metadata; a variable that the template lacks is an error."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return render("metric_card.md.jinja", self.metadata(), **shown)
