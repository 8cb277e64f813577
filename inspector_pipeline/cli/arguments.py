"""Kinds of arguments, and those that several commands share; nothing heavy is imported before they are parsed."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOME_REJECTED = 3  # exit code
JUDGE = "Hub id, folder or embedded-fast (embedded)"
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".arrow")  # those of files.tables, which takes seconds to import
DTYPES = ("float32", "bfloat16", "float16")


def positive(text: str) -> int:
    """Parse a whole number from 1.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expects 1 or more, but got {text}")
    return int(text)


def share(text: str) -> float:
    """Parse a share from 0 to 1.

    Raises:
        ArgumentTypeError: It is none.
    """
    value = number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"expects a share from 0 to 1, but got {text}")
    return value


def number(text: str) -> float:
    """Parse a number; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def assignment(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE.

    Raises:
        ArgumentTypeError: It is none.
    """
    name, mark, value = text.partition("=")
    if not (name and mark and value):
        raise argparse.ArgumentTypeError(f"expects NAME=VALUE, but got {text}")
    return name, value


def threshold(text: str) -> tuple[str, float]:
    """Parse COLUMN=N.

    Raises:
        ArgumentTypeError: It is none.
    """
    name, value = assignment(text)
    if math.isnan(number(value)):
        raise argparse.ArgumentTypeError(f"expects COLUMN=N with a number, such as factuality=4, but got {text}")
    return name, number(value)


def shard(text: str) -> tuple[int, int]:
    """Parse I/N with 0 <= I < N.

    Raises:
        ArgumentTypeError: It is none.
    """
    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise argparse.ArgumentTypeError(f"expects I/N with 0 <= I < N, such as 0/4, but got {text}")
    return int(index), int(of)


def check_input(place: str) -> None:
    """Refuse what can be refused at once: torch, which everything else needs, takes seconds to import.

    Raises:
        ValueError: No such file or folder is there, or the file is of an unknown kind.
    """
    path = Path(place)
    if not path.exists():
        raise ValueError(f"{place} could not be read: No such file or directory. Check the path.")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{place} expects a suffix of {', '.join(SUFFIXES)}, but got {path.suffix or 'none'!r}.")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """Add how a judge is loaded: --revision, --device and --dtype."""
    parser.add_argument("--revision", metavar="NAME", help="commit, branch or tag of a judge on the Hub (main)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the first accelerator, else cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: what the device is fastest in")


def add_column_options(parser: Any) -> None:
    """Add --column and --prefix, which engines have too."""
    parser.add_argument(
        "--column",
        metavar="KEY=NAME",
        type=assignment,
        action="append",
        default=[],
        help="the input's column for question or prediction, such as prediction=output",
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="what the names of the added columns begin with")


def columns_of(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return what --column said, key -> the input's column.

    Raises:
        ValueError: It names a key twice.
    """
    columns = dict(given)
    if len(columns) < len(given):
        raise ValueError("--column expects each of question and prediction at most once.")
    return columns
