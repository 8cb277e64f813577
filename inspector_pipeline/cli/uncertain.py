"""What `inspector score` does with the rows that a judge is least sure of: --abstain and --escalate."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .arguments import columns_of, positive, share
from .printable import say

TARGETS = (".csv", ".jsonl", ".json")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --abstain, --escalate and --escalate-to."""
    group = parser.add_argument_group("where the judge is not sure")
    group.add_argument(
        "--abstain",
        type=share,
        default=0.0,
        metavar="P",
        help="mark the share of rows with the largest expected error as `abstained`, unfamiliar ones first; filters "
        "and means leave them out (0)",
    )
    group.add_argument("--escalate", type=positive, metavar="N", help="write N rows whose labels would help most")
    group.add_argument(
        "--escalate-to", metavar="FILE", help=f"where to ({', '.join(TARGETS)}); `inspector calibrate` takes it back"
    )


def check_options(args: argparse.Namespace) -> None:
    """Refuse one of --escalate and --escalate-to without the other, and a file that could not be written.

    Raises:
        ValueError: The message says what is missing.
    """
    if (args.escalate is None) != (args.escalate_to is None):
        raise ValueError("--escalate expects a number of rows, and --escalate-to the file for them, both or none.")
    if args.escalate_to and (
        not args.escalate_to.lower().endswith(TARGETS) or not Path(args.escalate_to).absolute().parent.is_dir()
    ):
        raise ValueError(
            f"--escalate-to expects a file of {', '.join(TARGETS)} in an existing folder, but got {args.escalate_to}."
        )
    others = {"input": args.input, "output": args.output}
    for name, place in others.items():
        if args.escalate_to and place and Path(args.escalate_to).resolve() == Path(place).resolve():
            raise ValueError(f"--escalate-to expects another file than the {name}, but got {place} for both.")
    if args.escalate_to and Path(args.escalate_to).is_dir():
        raise ValueError(f"--escalate-to expects a file, but got the folder {args.escalate_to}. Name a file in it.")


def escalate(
    args: argparse.Namespace,
    columns: Any,
    config: Any,
    rows: Callable[[], Iterable[dict[str, Any]]],
    keys: Sequence[str],
) -> None:
    """Write the rows whose labels would help most.

    Args:
        args: With `escalate` and `escalate_to`; nothing is done where they are None.
        columns: The judge's `FlatColumns`.
        config: Its config.
        rows: Gives the scored rows, from the first on.
        keys: The texts that the judge reads.
    """
    if args.escalate is None:
        return

    from inspector_pipeline.api.uncertain import LABEL, expected_errors, rows_to_label
    from inspector_pipeline.files.tables import write_rows
    from inspector_pipeline.jobs.abstain import judged_scales

    scales = judged_scales(columns, config)
    errors, _ = expected_errors(rows(), scales, columns.prefix)
    chosen = rows_to_label(rows, errors, args.escalate, _text_columns(args, rows, keys), list(scales))
    own = {*columns.kinds, columns.prefix + "abstained"}
    write_rows([{name: value for name, value in row.items() if name not in own} for row in chosen], args.escalate_to)
    labels = ", ".join(f"{LABEL}{name}" for name in scales)
    say(
        f"wrote the {len(chosen)} rows whose labels would help most to {args.escalate_to}; fill in {labels}, then: "
        f"inspector calibrate {args.judge or 'embedded'} LABELLED {args.escalate_to} --output NEW_JUDGE"
    )


def _text_columns(
    args: argparse.Namespace, rows: Callable[[], Iterable[dict[str, Any]]], keys: Sequence[str]
) -> dict[str, str]:
    """Return the columns of scored rows that hold the texts: those of their names, or those that were read as such."""
    from inspector_pipeline.rows import SAMPLE_ROWS, RowReader

    sample = list(islice(rows(), SAMPLE_ROWS))
    columns = columns_of(args.column)
    if all(key in row for row in sample for key in keys) and not set(columns) & set(keys):
        return {key: key for key in keys}
    reader = RowReader(columns, keys)
    plain = reader.settle(sample, quiet=True).plain or {}
    return {key: plain.get(key, key) for key in keys}
