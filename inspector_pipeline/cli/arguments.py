"""Kinds of arguments, and those that several commands share; nothing heavy is imported before they are parsed."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SOME_REJECTED = 3  # exit code
JUDGE = "Hub id, folder, folder of classifiers such as *_clfs, or embedded-int8 (embedded)"
TEXTS = (".json", ".jsonl", ".csv")  # which may be compressed as .gz or .zst
SUFFIXES = (*TEXTS, ".parquet", ".arrow")  # those of files.tables, which takes seconds to import
READABLE = (*SUFFIXES, *(one + more for one in TEXTS for more in (".gz", ".zst")))
ADVICE = {  # for files of other tools
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "Save the sheet as CSV in UTF-8."),
    ".tsv": "Save it with commas, as CSV.",
    ".eval": "Write it as JSON: inspect log convert FILE --to json --output-dir FOLDER.",
    **dict.fromkeys((".yaml", ".yml", ".html", ".xml"), "Write it as .json or .jsonl where the tool can."),
}
DTYPES = ("float32", "bfloat16", "float16")


def _kind(expected: str, parse: Callable[[str], Any], fits: Callable[[Any], bool]) -> Callable[[str], Any]:
    """Return argparse's `type` of what a function parses, without a ValueError, and another one accepts."""

    def parsed(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"expects {expected}, but got {text}")
        return value

    return parsed


def _column_and_number(text: str) -> tuple[str, float]:
    name, value = text.split("=", 1)
    return name, float(value)


positive = _kind("1 or more", int, lambda number: 1 <= number <= sys.maxsize)
seed = _kind("a whole number from 0 to 4294967295", int, lambda number: 0 <= number < 2**32)
share = _kind("a share from 0 to 1", float, lambda number: 0 <= number <= 1)
shard = _kind(
    "I/N with 0 <= I < N, such as 0/4",
    lambda text: tuple(map(int, text.split("/"))),
    lambda found: len(found) == 2 and 0 <= found[0] < found[1],
)
assignment = _kind("NAME=VALUE", lambda text: tuple(text.split("=", 1)), lambda found: len(found) == 2 and all(found))
threshold = _kind(
    "COLUMN=N with a number, such as factuality=4",
    _column_and_number,
    lambda found: bool(found[0]) and not math.isnan(found[1]),
)


def check_input(place: str) -> None:
    """Refuse what can be refused at once: torch, which everything else needs, takes seconds to import.

    Raises:
        ValueError: No such file or folder is there, or the file is of an unknown kind.
    """
    path = Path(place)
    if not path.exists():
        raise ValueError(f"{place} could not be read: No such file or directory. Check the path.")
    if path.is_file() and not path.name.lower().endswith(READABLE):
        advice = f" {ADVICE[path.suffix.lower()]}" if path.suffix.lower() in ADVICE else ""
        raise ValueError(
            f"{place} expects a suffix of {', '.join(SUFFIXES)}, but got {path.suffix or 'none'!r}.{advice}"
        )


def once(pairs: Sequence[tuple[str, Any]], option: str) -> dict[str, Any]:
    """Return name -> value of an option's pairs.

    Raises:
        ValueError: A name comes twice.
    """
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{option} expects each name once, but {twice!r} comes twice. Leave one out.")
    return dict(pairs)


def check_output(output: str | None, *inputs: str | None) -> None:
    """Refuse a file to write that is a folder, or one of those that are read, before anything takes long.

    Raises:
        ValueError: It is.
    """
    if output is None:
        return
    if Path(output).is_dir() or output.endswith("/"):
        raise ValueError(f"--output expects a file, but got the folder {output}. Name a file in it.")
    if any(place and Path(place).resolve() == Path(output).resolve() for place in inputs):
        raise ValueError(f"--output expects another file than the input, but got {output} for both.")


def check_judge_folder(output: str) -> None:
    """Refuse a folder for a judge that is a file, or holds something else than a judge, which would be overwritten.

    Raises:
        ValueError: It does.
    """
    place = Path(output)
    if place.is_dir():
        names = [path.name for path in place.iterdir()]
        known = any(name in ("config.json", "results.json") or name.startswith("model") for name in names)
        if names and not known:
            raise ValueError(
                f"--output expects a new folder or that of a judge, but {output} holds others, such as {min(names)}. "
                "Choose another."
            )
    elif any(path.exists() and not path.is_dir() for path in (place, *place.parents)):
        raise ValueError(f"--output expects a folder, but got {output}, where a file is. Choose another.")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """Add how a judge is loaded, and of classifiers --rubrics and --backbone."""
    parser.add_argument("--revision", metavar="NAME", help="commit, branch or tag of a judge on the Hub (main)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the first accelerator, else cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on a GPU that has it, else float32")
    engine = "another arithmetic than the judge was fitted in: scores change (default: the judge's own)"
    parser.add_argument("--engine", choices=("torch", "torch-int8"), help=engine)
    rubrics = "of classifiers: probing set, or JSON, with the rubrics that they were fitted in (this project's own)"
    parser.add_argument("--rubrics", metavar="FILE", help=rubrics)
    parser.add_argument("--backbone", metavar="ID_OR_PATH", help="of classifiers: its backbone (the one they name)")


def add_column_option(parser: Any) -> None:
    """Add --column, which every door has."""
    parser.add_argument(
        "--column",
        metavar="KEY=NAME",
        type=assignment,
        action="append",
        default=[],
        help="what a column is: question, prediction, reference, context, messages, system; such as prediction=output",
    )


def add_column_options(parser: Any) -> None:
    """Add --column and --prefix, which engines have too."""
    add_column_option(parser)
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
