"""How every card is rendered: Jinja, where a missing variable is an error, behind metadata that the Hub accepts."""

from pathlib import Path
from typing import Any

from huggingface_hub import CardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, metadata: CardData, **fields: Any) -> str:
    """Render a card.

    Args:
        template: File name of the template beside this module.
        metadata: The card's metadata.
        **fields: What the template names; one that is missing is an error.

    Returns:
        Markdown behind its metadata, with one newline at the end. The same fields give the same bytes.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["interval"] = interval
    environment.filters["cell"] = cell
    body = environment.get_template(template).render(fields)
    return f"---\n{metadata.to_yaml(line_break=chr(10))}\n---\n{body.rstrip()}\n"


def interval(value: dict[str, float]) -> str:
    """Write a value with its 95 % interval."""
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def cell(text: str) -> str:
    """Write text so that it stays in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
