"""What is printed: text of strangers must not move the cursor, colour the screen or turn its direction.

Questions, responses, names of files, columns and aspects come from anywhere, and a terminal obeys what it is sent.
Everything that the commands print goes through `printable`.
"""

import argparse
import json
import logging
import re
import shutil
import sys
from textwrap import wrap
from typing import NoReturn
from unicodedata import east_asian_width

# C0, DEL and C1; marks that turn the direction; separators of lines; tags, which nobody sees; halves of characters.
HARMFUL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
LINES = "\n\t"
MIN_WIDTH = 20  # of text, in however narrow a terminal


def printable(text: object, *, lines: bool = False) -> str:
    r"""Write text so that a terminal shows it and does nothing else.

    Args:
        text: What to print.
        lines: Whether line breaks and tabs stay as they are.

    Returns:
        The text with every control character, mark of direction and half of a character as an escape such as `\x1b`.

    Example:
        >>> printable("red: \x1b[31m")
        'red: \\x1b[31m'
    """
    return HARMFUL.sub(lambda found: found[0] if lines and found[0] in LINES else ascii(found[0])[1:-1], str(text))


def printable_json(text: str) -> str:
    """Write JSON Lines so, and so that they are the same JSON: what is harmful stands in strings alone."""
    return HARMFUL.sub(lambda found: "\n" if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def folded(text: str, indent: int) -> str:
    """Break lines where the terminal ends, without one at 80 columns or what COLUMNS says; further ones are indented.

    Args:
        text: What will be printed behind `indent` columns.
        indent: Columns that its first line does not have either.
    """
    width = max(MIN_WIDTH, shutil.get_terminal_size((80, 24)).columns - indent)
    if any(east_asian_width(character) in "WF" for character in text):
        width //= 2  # such characters take two columns
    lines = [part for line in text.split("\n") for part in wrap(line, width, break_on_hyphens=False) or [""]]
    return f"\n{' ' * indent}".join(lines)


def say(message: object) -> None:
    """Print a message on standard error; further lines of it are indented, so that none passes for another message."""
    text = printable(message, lines=True).replace("\n", "\n    ")
    print(f"inspector: {text}", file=sys.stderr)


def log_to_terminal(level: int) -> None:
    """Write log messages to standard error, of a level and above."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Write a message, with its traceback where it has one."""
        return printable(super().format(record), lines=True)


class PrintableParser(argparse.ArgumentParser):
    """A parser whose complaints repeat arguments, such as names of files that a shell has filled in, as printable."""

    def error(self, message: str) -> NoReturn:
        """End the process with a message."""
        super().error(printable(message, lines=True))
