"""`inspector calibrate` and `inspector estimate`: how far a judge can be believed on rows of one's own.

They are imported each time the command starts, so nothing that takes long is imported before they run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspector_cli.arguments import JUDGE, add_judge_options, check_judge_folder, check_output, once, positive, seed
from inspector_cli.printable import printable, say

METHODS = ("none", "ordinal", "beta", "isotonic")


def calibrate(parser: argparse.ArgumentParser) -> None:
    """Calibrate a judge on 50 to 500 labels of your own domain."""
    parser.set_defaults(command=_calibrate)
    parser.add_argument("judge", metavar="JUDGE", help=JUDGE.replace(" (embedded)", ", or embedded"))
    labels = (
        "tables with question, prediction and labels, as label_ASPECT or ASPECT; rows without a label are passed over"
    )
    parser.add_argument("labelled", nargs="+", metavar="LABELLED", help=labels)
    parser.add_argument("--output", required=True, metavar="FOLDER", help="of the calibrated judge")
    parser.add_argument("--labels", nargs="+", metavar="ASPECT=COLUMN", help="columns of the labels, and of no others")
    methods = f"to choose from: {', '.join(METHODS)} (all)"
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help=methods)
    parser.add_argument("--coverage", type=float, default=0.9, metavar="P", help="of the score sets (0.9)")
    parser.add_argument("--by-label", action="store_true", help="cover the labels of each level by themselves")
    parser.add_argument("--group", metavar="COLUMN", help="cover the rows of each group by themselves")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="pairs scored together (256)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of folds and resamples (0)")
    add_judge_options(parser)


def _calibrate(args: argparse.Namespace) -> None:
    check_judge_folder(args.output)

    from inspector_cli.judge import check_judge_options, load

    from inspector_pipeline.api.load import evidence_path
    from inspector_pipeline.files.tables import read_json, read_rows

    from ..evaluation.scored import read_entries
    from ..judges.write import write_judge
    from .calibrate import CalibrationSettings, calibrate_judge

    names = [text.partition("=") for text in args.labels or ()]
    labels = once([(aspect, column or aspect) for aspect, _, column in names], "--labels") or None
    same = ("coverage", "by_label", "group", "seed")
    settings = CalibrationSettings(methods=tuple(args.methods), **{name: getattr(args, name) for name in same})
    args.dtype = args.dtype or "stored"  # as the weights are saved again
    check_judge_options(args)
    tables = {
        place: read_entries([Path(place)], ()) if Path(place).is_dir() else read_rows(place) for place in args.labelled
    }
    judge = load(args)
    place = evidence_path(judge.model)
    evidence = read_json(place) if place else {}
    judge, found = calibrate_judge(judge, tables, labels=labels, settings=settings, batch_size=args.batch_size)
    found = {"judge": args.judge, "files": [Path(place).name for place in args.labelled], **found}
    if "fitted_on" in evidence:  # that it gives other levels now is no drift
        evidence["fitted_on"]["levels"] |= {name: one["level_shares"] for name, one in found["aspects"].items()}
    write_judge(judge, Path(args.output), {**evidence, "calibration": found}, fused=judge.model.config.fused)
    _show_calibration(found)
    say(f"wrote the calibrated judge to {args.output}; next: inspector score RESPONSES --judge {args.output}")


def _show_calibration(found: dict[str, Any]) -> None:
    for name, one in found["aspects"].items():
        before, after, sets = one["before"], one["after"], one["sets"]
        scores = f"{_short(before['rps']['value'])} before, {_short(after['rps']['value'])} after"
        errors = f"{_short(before['calibration_error'])} before, {_short(after['calibration_error'])} after"
        title = f"{name}: {one['n']} labels of {one['n_questions']} questions, calibrated by {one['method']}"
        lines = (
            ("ranked probability score (0 is best)", f"{scores}, gain {_interval(one['gain']['rps'], '+')}"),
            ("calibration error (0 is best)", errors),
            (f"sets stated to hold {sets['stated']:.1%} hold", f"{_interval(sets['covered'])} of the labels"),
            ("levels in a set", f"{sets['mean_size']:.2f}"),
        )
        _figures(title, lines)
        for warning in one["warnings"]:
            say(f"{name}: {warning}")


def estimate(parser: argparse.ArgumentParser) -> None:
    """Estimate a system's mean score or pass rate from many judged rows and a few labels."""
    parser.set_defaults(command=_estimate)
    parser.add_argument("scored", metavar="SCORED", help="a file or a job's folder that `inspector score` wrote")
    parser.add_argument(
        "labelled", nargs="?", metavar="LABELLED", help="rows drawn at random from them, with labels (SCORED has them)"
    )
    parser.add_argument("--label", metavar="COLUMN", help="of the labels (label_ASPECT, label, or ASPECT)")
    parser.add_argument("--rank-by", metavar="FIELD", help="what stands for the label (what the rows name in rank_by)")
    parser.add_argument("--by", metavar="COLUMN", help="that names the system (all rows are of one)")
    parser.add_argument("--pass-at", type=float, metavar="N", help="estimate the share of labels of N or more")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of the intervals (0.95)")
    parser.add_argument("--output", metavar="FILE", help="write the figures as JSON")


def _estimate(args: argparse.Namespace) -> None:
    check_output(args.output, args.scored, args.labelled)

    from inspector_pipeline.files.disk import json_text, write_atomically

    from .estimate import estimate as estimate_rows

    if not 0 < args.confidence < 1:
        raise ValueError(f"--confidence expects a share between 0 and 1, but got {args.confidence}.")
    same = ("label", "rank_by", "by", "pass_at", "confidence")
    found = estimate_rows([args.scored], args.labelled, **{name: getattr(args, name) for name in same})
    heads = (
        "system",
        "labels",
        "judged",
        f"mean ({args.confidence:.0%})",
        "labels alone",
        "judge alone",
        "labels saved",
    )
    rows = []
    for name, one in found.systems.items():
        ends = {"value": one.value, "low": one.low, "high": one.high}
        alone = {"value": one.labels_alone, "low": one.labels_low, "high": one.labels_high}
        counts = (str(one.n), str(one.n + one.n_unlabelled))
        saved = f"{round(one.labels_saved):+d}"
        rows.append((name, *counts, _interval(ends), _interval(alone), _short(one.judge_alone), saved))
    _table(heads, rows)
    for warning in found.warnings:
        say(warning)
    if args.output:
        write_atomically(Path(args.output), json_text(found.to_dict()))


def _figures(title: str, lines: Sequence[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, text in lines:
        table.add_row(Text(label), Text(text))
    console = Console()
    console.print(Text(printable(title)), table, sep="\n")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(head, overflow="fold") for head in heads), box=SIMPLE_HEAD)  # no figure is cut
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def _short(value: float | None, sign: str = "") -> str:
    return "?" if value is None else format(value, f"{sign}.3f")


def _interval(found: dict[str, Any], sign: str = "") -> str:
    value, low, high = (_short(found[key], sign) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
