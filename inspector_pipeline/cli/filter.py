"""`inspector filter`: the best of scored rows."""

import argparse
import glob

from .arguments import SOME_REJECTED, check_input, positive, share, threshold
from .printable import say


def filter_scored(parser: argparse.ArgumentParser) -> None:
    """Keep the best of scored rows, highest first and ties in input order."""
    parser.set_defaults(command=_filter)
    parser.add_argument("input", metavar="SCORED", help="a scored file, or the folder of a big job")
    parser.add_argument(
        "--by",
        "--rank-by",
        action="append",
        metavar="COLUMN",
        help="what to rank by (what the judge ranks by; total_score where rows do not say it); given more than once, "
        "by the columns' mean",
    )
    parser.add_argument(
        "--top", type=share, metavar="P", help="keep the best share, 0 to 1, of all rows or of each group"
    )
    parser.add_argument("--best", type=positive, metavar="N", help="keep the best N of all rows or of each group")
    parser.add_argument("--per", metavar="COLUMN", help="rows with one value here are a group, such as question")
    parser.add_argument(
        "--at-least",
        metavar="COLUMN=N",
        type=threshold,
        action="append",
        default=[],
        help="keep only rows with at least N here, such as factuality=4; may be given more than once",
    )
    parser.add_argument(
        "--drop-unfamiliar", action="store_true", help="leave out rows unlike what their judge was fitted on"
    )
    parser.add_argument(
        "--keep-abstained", action="store_true", help="keep rows that `score --abstain` marked; they are left out else"
    )
    parser.add_argument("--output", metavar="FILE", help="default: NAME_filtered.json beside SCORED")
    parser.add_argument("--reasons", action="store_true", help="write beside the output why each row was kept")
    parser.add_argument("--explain", action="store_true", help=argparse.SUPPRESS)  # as it was called


def _filter(args: argparse.Namespace) -> int:
    """Run the filter; the exit code is 3 where rows had no score to rank by, or files were skipped."""
    if not glob.has_magic(args.input):
        check_input(args.input)

    from inspector_pipeline.jobs.filter import FilterJob, filter_job

    if args.explain:
        say("--explain is now called --reasons, since `inspector score --explain` shows what tokens add to a score")
    same = ("input", "output", "top", "best", "per", "drop_unfamiliar", "keep_abstained")
    settings = {name: getattr(args, name) for name in same} | ({"by": tuple(args.by)} if args.by else {})
    settings["reasons"] = args.reasons or args.explain
    found = filter_job(FilterJob(**settings, at_least=tuple(args.at_least)))
    say(f"kept {found.kept} of {found.rows} rows in {found.output}")
    if args.drop_unfamiliar:
        say(f"{found.unfamiliar} unfamiliar rows were left out")
    if found.abstained:
        say(f"{found.abstained} rows were left out, since their judge abstains from them (--keep-abstained keeps them)")
    if found.unranked:
        say(f"{found.unranked} rows were left out: {found.reason}")
    if found.skipped:
        say(f"the input's files that were not read: {', '.join(found.skipped)}")
    return SOME_REJECTED if found.unranked or found.skipped else 0
