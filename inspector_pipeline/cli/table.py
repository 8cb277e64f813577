"""Show scored pairs as a table in a terminal."""

from collections.abc import Sequence
from typing import Any

from .printable import printable

MAX_ROWS = 50
LEGEND = "? unlike what the judge was fitted on   = a question of its fit"
MIN_TEXT = 10  # characters of question and of prediction, in however narrow a terminal


def show_table(
    scored: Sequence[dict[str, Any]],
    aspects: Sequence[str],
    prefix: str = "",
    rank_by: str | None = None,
    texts: tuple[str, str] = ("question", "prediction"),
) -> None:
    """Print a table as wide as the terminal; without one, 80 columns, or what COLUMNS says.

    Args:
        scored: Rows with their scores.
        aspects: The aspects' names.
        prefix: What the scores' names begin with in the rows.
        rank_by: The column that the rows are ordered by, highest first and ties in the order of `scored`; each keeps
            its number there. Where it is None they stand as they are.
        texts: The columns of question and prediction.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # brackets in it are no markup

    console = Console()
    numbered = list(enumerate(scored))
    if rank_by is not None:
        numbered.sort(key=lambda pair: pair[1][rank_by], reverse=True)
    shown = numbered[:MAX_ROWS]
    marks = [_mark(row, prefix) for _, row in shown]
    columns = {prefix + name: name for name in aspects} | {f"{prefix}total_score": "total"}
    if rank_by is not None and rank_by not in columns:
        columns[rank_by] = rank_by.removeprefix(prefix)
    headers = ["\n".join(printable(name).split("_")) for name in columns.values()]
    number_width = max((len(str(number)) for number, _ in shown), default=1)
    taken = number_width + sum(max(map(len, header.split("\n"))) for header in headers) + len(headers) + 2
    taken += 3 * any(marks)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)  # so that columns are one space apart
    table.add_column("#", justify="right", min_width=number_width)
    for name in ("question", "prediction"):
        width = max(MIN_TEXT, (console.width - taken) // 2)
        table.add_column(name, min_width=MIN_TEXT, max_width=width, no_wrap=True, overflow="ellipsis")
    for header in headers:  # where the terminal is narrow they fold, and nothing is lost
        table.add_column(Text(header), justify="right", overflow="fold")
    if any(marks):
        table.add_column("", min_width=2)
    for (number, row), mark in zip(shown, marks, strict=True):
        shown_texts = [Text(printable(" ".join(str(row.get(key) or "").split()))) for key in texts]
        cells = [f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in columns]
        table.add_row(str(number), *shown_texts, *cells, *([mark] if any(marks) else []))
    console.print(table)
    if len(scored) > len(shown):
        console.print(f"... and {len(scored) - len(shown)} more pairs")
    if any(marks):
        console.print(LEGEND, highlight=False)


def _mark(row: dict[str, Any], prefix: str) -> str:
    """Return ? for a pair that is unfamiliar and = for one whose question the judge was fitted on."""
    return "?" * bool(row.get(f"{prefix}unfamiliar")) + "=" * bool(row.get(f"{prefix}seen"))
