"""Markdown that text of strangers cannot change: what a template shows is escaped unless a filter here says how.

Names of aspects, judges, datasets, licences, generators, columns and files come from data. In a card each stays the
words that it is: no link, image, heading, table, code, HTML or second front matter can be made of it.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspector_cli.printable import printable
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined

MARKUP = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])")  # `_` within a word marks nothing
PROSE_MARKUP = re.compile(r"[\[\]<|]")  # a sentence may hold `code` and emphasis
FIRST = re.compile(r"^(?=#|=|>|[-+]{2}|[-+]\s|[-+]$)|^(\d+)(?=[.)](?:\s|$))")  # of a line: a heading, a rule, a list
FENCE = re.compile(r"`{3,}")


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def environment(filters: dict[str, Callable[..., Any]], folder: Path = Path(__file__).parent) -> Environment:
    """Build the environment of templates of Markdown.

    Args:
        filters: Further filters, beside `code`, `quoted`, `fence` and `prose`.
        folder: Of the templates; those of the cards where none is given.
    """
    made = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # of HTML, which Markdown is not; `finalize` escapes what Markdown reads
        finalize=words,
    )
    made.filters |= {"code": code, "quoted": quoted, "fence": fence, "prose": prose, **filters}
    return made


def words(value: Any) -> Any:
    """Write a value as the words that it is, on one line."""
    if isinstance(value, (Markdown, bool, int, float, Undefined)):
        return value
    kept = _edges(str(value))
    return Markdown(FIRST.sub(_escaped_first, MARKUP.sub(lambda found: f"\\{found[0]}", kept)))


def prose(value: Any) -> Markdown:
    """Write sentences on one line: `code` and emphasis stay, links, HTML and tables do not."""
    kept = PROSE_MARKUP.sub(lambda found: f"\\{found[0]}", one_line(value))
    return Markdown(FIRST.sub(_escaped_first, FENCE.sub("``", kept)))


def code(value: Any) -> Markdown:
    """Write a value for between two backticks."""
    return Markdown(one_line(value).replace("`", "'").replace("|", "\\|"))


def quoted(value: Any) -> Markdown:
    """Write text as a string of Python, with its quotes."""
    return Markdown(printable(json.dumps(str(value), ensure_ascii=False)))


def fence(value: Any, language: str = "") -> Markdown:
    """Write lines as a block of code, whose fence is longer than any in them."""
    text = printable(value, lines=True).strip("\n")
    longest = max((len(run) for run in FENCE.findall(text)), default=2)
    mark = "`" * (longest + 1)
    return Markdown(f"{mark}{language}\n{text}\n{mark}")


def one_line(value: Any) -> str:
    """Join the lines of text, and show what cannot be printed."""
    line: str = printable(" ".join(str(value).split()))
    return line


def _edges(text: str) -> str:
    """Join lines but keep a blank at either end, where a template's own words may follow."""
    start, end = " " * text.startswith(" "), " " * text.endswith(" ")
    return f"{start}{one_line(text)}{end}" if text.strip() else text[:1].replace("\n", " ")


def _escaped_first(found: re.Match[str]) -> str:
    return f"{found[1] or ''}\\"
