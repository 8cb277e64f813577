"""Show scored pairs as a table in a terminal."""

from collections.abc import Sequence
from typing import Any

from .printable import printable

MAX_ROWS = 50
LEGEND = "? unlike what the judge was fitted on   = a question of its fit"
MAX_EXPLAINED = 10
N_NAMED = 3  # pieces that raised and lowered a score most
LITTLE, MUCH = 0.15, 0.5  # of the largest share
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


def show_explanations(scored: Sequence[dict[str, Any]], columns: Any) -> None:
    """Print what raised and lowered the first rows' scores, of the aspect that they are ranked by.

    Args:
        scored: Rows with their explanations.
        columns: The judge's `FlatColumns`.
    """
    from rich.console import Console
    from rich.text import Text

    from inspector_pipeline.explain import NO_TOKEN

    console = Console(highlight=False)
    for number, row in enumerate(scored[:MAX_EXPLAINED]):
        found = row[f"{columns.prefix}explanation"]
        ranked = str(columns.rank_by).removeprefix(f"{columns.prefix}expected_")
        name = ranked if ranked in found else next(iter(found))
        own = found[name]
        if "why_not" in own:
            console.print(f"{number} {printable(name)}: {printable(own['why_not'])}", markup=False)
            continue
        sums = ", ".join(
            f"{part} {sum(share or 0 for _, share in own[part]):+.2f}" for part in ("question", "response", "template")
        )
        console.print(
            f"\n{number} {printable(name)}: decision value {own['value']:+.2f} = "
            f"constant {own['constant']:+.2f}, {sums}",
            markup=False,
        )
        if not own["response"]:
            console.print(f"no highlights: {NO_TOKEN}", markup=False)
        pieces = [(printable(text, lines=True), share) for text, share in own["response"]]
        most = max((abs(share) for _, share in pieces if share), default=0)
        console.print(Text.assemble(*((text, _style(share, most)) for text, share in pieces)))
        ordered = sorted((piece for piece in pieces if piece[1]), key=lambda piece: piece[1])
        for word, some in (("lowered", ordered[:N_NAMED]), ("raised", ordered[::-1][:N_NAMED])):
            told = [
                f"{' '.join(text.split())!r} {share:+.3f}" for text, share in some if (share > 0) == (word == "raised")
            ]
            if told:
                console.print(f"{word} most by {', '.join(told)}", markup=False)
    if len(scored) > MAX_EXPLAINED:
        console.print(f"... and {len(scored) - MAX_EXPLAINED} more explanations, in the file")


def _style(share: float | None, most: float) -> str:
    """Return how a piece is shown: green where it raises, red where it lowers, bold where it does much."""
    if share is None or abs(share) < most * LITTLE:
        return "dim" if share is None else ""
    return ("bold " if abs(share) > most * MUCH else "") + ("green" if share > 0 else "red")


def _mark(row: dict[str, Any], prefix: str) -> str:
    """Return ? for a pair that is unfamiliar and = for one whose question the judge was fitted on."""
    return "?" * bool(row.get(f"{prefix}unfamiliar")) + "=" * bool(row.get(f"{prefix}seen"))
