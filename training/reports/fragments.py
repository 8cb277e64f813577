"""Pieces of a page that takes markup: tables, and texts with what lowered and raised a value.

Every text is a stranger's: it is escaped, and what moves a cursor or turns a direction is shown as an escape. Marks are
those of the report: wavy where they lower and straight where they raise, so that they read without colour.
"""

from collections.abc import Sequence
from html import escape

from inspector_cli.printable import printable

LITTLE, MUCH = 0.15, 0.5  # of the largest share; as in the report
STYLE = """<style>
.inspector { font-size: 1rem; line-height: 1.5; overflow-x: auto; }
.inspector table { border-collapse: collapse; width: 100%; }
.inspector th, .inspector td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid #bdbdbd; overflow-wrap: break-word; }
.inspector th { font-weight: 600; }
.inspector thead th { border-bottom: 2px solid currentColor; }
.inspector h3 { font-size: 1rem; font-weight: 600; margin: .8rem 0 .2rem; }
.inspector .text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 30rem; overflow-y: auto; margin: 0; }
.inspector mark { color: #1a1a1a; }
.inspector .lo { background: #ffd9c7; text-decoration: underline wavy 1px; text-underline-offset: 3px; }
.inspector .hi { background: #cfe6f7; text-decoration: underline solid 1px; text-underline-offset: 3px; }
.inspector .much { font-weight: 700; text-decoration-thickness: 2px; }
.inspector .unread { opacity: .75; font-style: italic; }
@media (max-width: 40rem) {
  .inspector table { font-size: .8rem; }
  .inspector th, .inspector td { padding-right: .4rem; }
  .inspector table.cards { font-size: 1rem; }
  .inspector .cards thead { display: none; }
  .inspector .cards tr { display: block; border-bottom: 2px solid currentColor; padding: .4rem 0; }
  .inspector .cards th, .inspector .cards td { display: block; border: 0; padding: .2rem 0; }
  .inspector .cards td::before { content: attr(data-label); display: block; font-size: .85rem; opacity: .75; }
}
</style>"""


def table_html(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, cards: bool = False) -> str:
    """Write a table, whose first column names its rows.

    Args:
        title: What stands above it.
        heads: A head for each column.
        rows: Cells.
        cards: Whether a row becomes a card on a phone, for cells of sentences.

    Example:
        >>> "<td data-label='a'>&lt;b&gt;</td>" in table_html("t", ["", "a"], [["one", "<b>"]])
        True
    """
    shown = [plain(head) for head in heads]
    columns = "".join(f"<th scope='col'>{_broken(head)}</th>" for head in shown)
    lines = [
        f"<tr><th scope='row'>{_broken(plain(row[0]))}</th>"
        + "".join(_cell(head, cell) for head, cell in zip(shown[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    ]
    kind = " class='cards'" if cards else ""
    body = f"<table{kind}><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"{STYLE}<div class='inspector'><h3>{plain(title)}</h3>{body}</div>"


def marked_html(title: str, pieces: Sequence[tuple[str, float | None]]) -> str:
    """Write a text with marks.

    Args:
        title: What stands above it.
        pieces: Text and its part of the largest share, -1 to 1; None where it was not read, or is no part of the text.
    """
    text = "".join(_piece(piece, part) for piece, part in pieces)
    return f"{STYLE}<div class='inspector'><h3>{plain(title)}</h3><p class='text'>{text}</p></div>"


def plain(text: object) -> str:
    """Return text as markup that shows it, and does nothing else."""
    return escape(printable(text))


def _cell(head: str, text: str) -> str:
    return f"<td data-label='{head}'>{_broken(plain(text))}</td>"


def _broken(name: str) -> str:
    """Let a name's line end behind each underscore, on a screen that is narrow."""
    return name.replace("_", "_<wbr>")


def _piece(text: str, part: float | None) -> str:
    shown = escape(printable(text, lines=True))
    if part is None:
        return f"<span class='unread'>{shown}</span>"
    if abs(part) < LITTLE:
        return shown
    kind = ("lo" if part < 0 else "hi") + (" much" if abs(part) > MUCH else "")
    return f"<mark class='{kind}'>{shown}</mark>"
