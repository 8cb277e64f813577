"""Show scored pairs as a table in a terminal."""

from collections.abc import Sequence
from typing import Any

MAX_ROWS = 50
MIN_TEXT = 10  # characters of question and of prediction, in however narrow a terminal


def show_table(scored: Sequence[dict[str, Any]], aspects: Sequence[str], prefix: str = "") -> None:
    """Print a table as wide as the terminal; without one, 80 columns, or what COLUMNS says.

    Args:
        scored: Rows with their scores.
        aspects: The aspects' names.
        prefix: What the scores' names begin with in the rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    headers = ["\n".join(name.split("_")) for name in [*aspects, "total"]]
    shown = scored[:MAX_ROWS]
    number_width = len(str(len(shown)))
    taken = number_width + sum(max(map(len, header.split("\n"))) for header in headers) + len(headers) + 2
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)  # so that columns are one space apart
    table.add_column("#", justify="right", min_width=number_width)
    for name in ("question", "prediction"):
        width = max(MIN_TEXT, (console.width - taken) // 2)
        table.add_column(name, min_width=MIN_TEXT, max_width=width, no_wrap=True, overflow="ellipsis")
    for header in headers:  # where the terminal is narrow they fold, and nothing is lost
        table.add_column(header, justify="right", overflow="fold")
    for number, row in enumerate(shown):
        texts = [_plain(" ".join(str(row.get(key) or "").split())) for key in ("question", "prediction")]
        table.add_row(str(number), *texts, *(str(row[prefix + name]) for name in [*aspects, "total_score"]))
    console.print(table)
    if len(scored) > len(shown):
        console.print(f"... and {len(scored) - len(shown)} more pairs")


def _plain(text: str) -> Any:
    """Take brackets in a response for no markup of rich's, and escape codes for none of the terminal's."""
    from rich.text import Text

    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))
