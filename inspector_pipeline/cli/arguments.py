"""The big jobs' part of the command line; it imports nothing heavy before a job is given."""

import argparse
import glob
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SOME_REJECTED = 3  # exit code


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only big jobs know to `inspector score`."""
    job = parser.add_argument_group("big jobs", "only with a folder as --output")
    job.add_argument("--split", metavar="NAME", help="INPUT is the id of a dataset; score this split of it")
    job.add_argument("--subset", metavar="NAME", help="the dataset's subset")
    job.add_argument("--where", metavar="EXPR", help="score only rows such as len(prediction) > 20 and lang == 'en'")
    job.add_argument("--limit", type=_positive, metavar="N", help="score the first N rows")
    job.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="score share I of N, from 0; one folder"
    )
    job.add_argument("--output-format", choices=("jsonl", "parquet"), help="of the parts (default: the input's kind)")
    job.add_argument(
        "--part-rows",
        type=_positive,
        metavar="N",
        help="rows of a part, a multiple of 256; a killed run scores the part that it was at again (default: 1024)",
    )
    add_column_arguments(job)


def add_column_arguments(parser: Any) -> None:
    """Add --column and --prefix, which engines have too."""
    parser.add_argument(
        "--column",
        metavar="KEY=NAME",
        type=_assignment,
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


def add_filter_command(commands: Any) -> None:
    """Add `inspector filter`."""
    parser = commands.add_parser(
        "filter",
        help="keep the best of scored rows",
        description="Keep the best of scored rows, highest first and ties in input order.",
    )
    parser.set_defaults(command=filter_scored)
    parser.add_argument("input", metavar="SCORED", help="a scored file, or the folder of a big job")
    parser.add_argument(
        "--by",
        action="append",
        metavar="COLUMN",
        help="what to rank by (total_score); given more than once, by the columns' mean",
    )
    parser.add_argument(
        "--top", type=float, metavar="P", help="keep the best share, 0 to 1, of all rows or of each group"
    )
    parser.add_argument("--best", type=_positive, metavar="N", help="keep the best N of all rows or of each group")
    parser.add_argument("--per", metavar="COLUMN", help="rows with one value here are a group, such as question")
    parser.add_argument(
        "--at-least",
        metavar="COLUMN=N",
        type=_threshold,
        action="append",
        default=[],
        help="keep only rows with at least N here, such as factuality=4; may be given more than once",
    )
    parser.add_argument("--output", metavar="FILE", help="default: NAME_filtered.json beside SCORED")
    parser.add_argument("--explain", action="store_true", help="write beside the output why each row was kept")


def is_job(args: argparse.Namespace) -> bool:
    """Say whether `inspector score` is to stream into a folder."""
    output = args.output or ""
    to_folder = output.endswith("/") or (output != "-" and Path(output).is_dir() and bool(output))
    many = args.split is not None or Path(args.input).is_dir() or _is_glob(args.input)
    of_jobs = ("subset", "column", "where", "limit", "output_format", "part_rows", "prefix")
    given = [name for name in of_jobs if getattr(args, name)]
    if not to_folder and (many or given or args.shard != (0, 1)):
        raise ValueError(
            "--output expects a folder, which ends in / or exists, for datasets, folders, globs and the options of big "
            f"jobs, but got {args.output or 'none'}."
        )
    return to_folder


def _is_glob(place: str) -> bool:
    return glob.has_magic(place) and not Path(place).exists()


def score_as_job(args: argparse.Namespace, load: Callable[[argparse.Namespace], Any]) -> int:
    """Score into a folder.

    Args:
        args: The arguments of `inspector score`.
        load: Loads the judge that they name.

    Returns:
        The exit code: 3 where rows were rejected.
    """
    from ..jobs.score import ScoreJob, score_job, summary_of

    if args.top_percent != 1.0:
        raise ValueError("--top-percent expects a file as --output. Run `inspector filter` on the folder afterwards.")
    if args.format not in ("auto", "none"):
        raise ValueError(f"--format expects a file as --output, but got {args.format} for a folder.")
    same = ("input", "output", "split", "subset", "where", "limit", "shard", "prefix", "batch_size")
    settings = {name: getattr(args, name) for name in same}
    if args.part_rows:
        settings["part_rows"] = args.part_rows
    job = ScoreJob(**settings, columns=columns_of(args.column), format=args.output_format)
    counts = score_job(job, load(args))
    print(f"inspector: {summary_of(counts, args.output)}", file=sys.stderr)
    return SOME_REJECTED if counts["rejected"] else 0


def filter_scored(args: argparse.Namespace) -> int:
    """Run `inspector filter`; returns the exit code, 3 where rows had no score to rank by."""
    from ..jobs.filter import FilterJob, filter_job

    same = ("input", "output", "top", "best", "per", "explain")
    settings = {name: getattr(args, name) for name in same} | ({"by": tuple(args.by)} if args.by else {})
    found = filter_job(FilterJob(**settings, at_least=tuple(args.at_least)))
    print(f"inspector: kept {found.kept} of {found.rows} rows in {found.output}", file=sys.stderr)
    if found.unranked:
        print(f"inspector: {found.unranked} rows were left out: {found.reason}", file=sys.stderr)
    return SOME_REJECTED if found.unranked else 0


def _assignment(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not (name and mark and value):
        raise argparse.ArgumentTypeError(f"expects NAME=VALUE, but got {text}")
    return name, value


def _threshold(text: str) -> tuple[str, float]:
    name, value = _assignment(text)
    try:
        least = float(value)
    except ValueError:
        least = math.nan
    if math.isnan(least):
        raise argparse.ArgumentTypeError(f"expects COLUMN=N with a number, such as factuality=4, but got {text}")
    return name, least


def _shard(text: str) -> tuple[int, int]:
    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise argparse.ArgumentTypeError(f"expects I/N with 0 <= I < N, such as 0/4, but got {text}")
    return int(index), int(of)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expects 1 or more, but got {text}")
    return int(text)
