"""`inspector rank`, `inspector agreement` and `inspector audit-judge`.

They are imported each time the command starts, so they import nothing that takes long before they run.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from inspector_cli.arguments import JUDGE, add_judge_options, check_input, check_output, once, positive, seed
from inspector_cli.printable import say

SCORED = "a file that `inspector score` has written, or any with question and prediction, which is scored first"


def rank(parser: argparse.ArgumentParser) -> None:
    """Rank systems on the same prompts, with the judge's own error between systems in the intervals."""
    parser.set_defaults(command=_rank)
    parser.add_argument("files", nargs="+", metavar="FILE", help=f"responses of one system: {SCORED}")
    parser.add_argument("--judge", metavar="ID_OR_PATH", help=f"{JUDGE}; of scored files the one that scored them")
    add_judge_options(parser)
    parser.add_argument("--system", metavar="COLUMN", help="names each row's system; files are then taken together")
    parser.add_argument("--rank-by", metavar="FIELD", help="such as expected_factuality (what the judge ranks by)")
    parser.add_argument("--label", metavar="COLUMN", help="the truth of some rows, drawn at random; empty elsewhere")
    by = "means of scores, or Bradley-Terry strengths of who is higher at each prompt (means)"
    parser.add_argument("--by", choices=("means", "wins"), default="means", help=by)
    parser.add_argument("--level", type=float, default=0.95, metavar="P", help="of all intervals at once (0.95)")
    error = "standard deviation of its error between systems, where its evidence does not say it"
    parser.add_argument("--judge-error", type=float, metavar="SD", help=error)
    _add_output(parser)
    parser.add_argument("--batch-size", type=positive, metavar="N", help="pairs scored together (default: 256)")


def agreement(parser: argparse.ArgumentParser) -> None:
    """Test whether a judge may replace an annotator, by labels of three or more."""
    parser.set_defaults(command=_agreement)
    parser.add_argument("file", metavar="FILE", help="rows with a column of each annotator's labels, and the judge's")
    parser.add_argument("--raters", nargs="+", required=True, metavar="COLUMN", help="the annotators' columns")
    parser.add_argument("--scores", metavar="COLUMN", help="the judge's column (what `rank_by` in the rows names)")
    told = "agreement with the others: rmse, for scores on a scale, or accuracy, for the same label (rmse)"
    parser.add_argument("--measure", choices=("rmse", "accuracy"), default="rmse", help=told)
    told = "what the labels are to alpha (interval)"
    parser.add_argument("--scale", choices=("nominal", "ordinal", "interval"), default="interval", help=told)
    told = "what an annotator may be better by, as they cost more: 0.2 for experts, 0.15 skilled, 0.1 a crowd (0.2)"
    parser.add_argument("--epsilon", type=float, default=0.2, metavar="E", help=told)
    parser.add_argument("--words", nargs="+", default=[], type=_word, metavar="WORD=N", help="labels that are words")
    parser.add_argument("--question", default="question", metavar="COLUMN", help="of the questions (question)")
    _add_output(parser)


def audit_judge(parser: argparse.ArgumentParser) -> None:
    """Measure what moves a judge beside quality: edits of your own rows."""
    parser.set_defaults(command=_audit_judge)
    parser.add_argument("judge", metavar="JUDGE", help=JUDGE.replace(" (embedded)", " or embedded"))
    parser.add_argument("file", metavar="FILE", help="rows with question and prediction")
    add_judge_options(parser)
    parser.add_argument("--label", metavar="COLUMN", help="the truth, larger for better; of some rows is enough")
    parser.add_argument("--generator", metavar="COLUMN", help="who wrote the response, for preferences (with --label)")
    parser.add_argument("--edits", nargs="+", default=[], metavar="NAME", help="such as longer flattery (all)")
    parser.add_argument("--edited-rows", type=positive, default=40, metavar="N", help="rows to edit (40)")
    parser.add_argument("--rows", type=positive, default=400, metavar="N", help="rows to read, from the first (400)")
    parser.add_argument("--rank-by", metavar="FIELD", help="what is shown (what the judge ranks by)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all chance (0)")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="JSON of all figures (standard output, where that is a pipe)")


def _word(text: str) -> tuple[str, float]:
    word, mark, number = text.rpartition("=")
    try:
        if word and mark:
            return word, float(number)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expects WORD=N with a number, such as yes=1, but got {text}")


def _rank(args: argparse.Namespace) -> None:
    for place in args.files:
        check_input(place)
    check_output(args.output, *args.files)

    from inspector_cli.judge import check_judge_options, load
    from rich.console import Console

    from .rank import rank as rank_files
    from .rank import show

    check_judge_options(args)
    same = ("system", "rank_by", "label", "by", "level", "batch_size", "revision")
    settings = {name: getattr(args, name) for name in same}
    report = rank_files(args.files, args.judge, sd=args.judge_error, load=lambda: load(args), **settings)
    show(report, Console(stderr=True))
    _write(report, args.output)


def _agreement(args: argparse.Namespace) -> None:
    check_input(args.file)
    check_output(args.output, args.file)

    from rich.console import Console

    from .agreement import agreement_of_file, show

    settings = {
        "measure": args.measure,
        "level": args.scale,
        "epsilon": args.epsilon,
        "words": once(args.words, "--words"),
    }
    report = agreement_of_file(Path(args.file), args.raters, args.scores, question=args.question, **settings)
    show(report, Console(stderr=True))
    _write(report, args.output)


def _audit_judge(args: argparse.Namespace) -> None:
    check_input(args.file)
    check_output(args.output, args.file)

    from inspector_cli.judge import check_judge_options, load
    from rich.console import Console

    from ..evaluation.scored import read_entries
    from .judge_audit import audit_judge as audit
    from .judge_audit import show

    check_judge_options(args)
    rows = read_entries([Path(args.file)], ("question", "prediction"))
    if len(rows) > args.rows:
        say(f"of {len(rows)} rows the first {args.rows} are read; --rows takes more")
    settings = {name: getattr(args, name) for name in ("label", "generator", "edits", "rank_by", "seed")}
    report = audit(load(args), rows[: args.rows], n_edited=args.edited_rows, **settings)
    show(report, Console(stderr=True))
    _write(report, args.output)


def _write(report: dict[str, Any], output: str | None) -> None:
    if output:
        from inspector_pipeline.files.disk import json_text, write_atomically

        write_atomically(Path(output), json_text(report))
        say(f"wrote {output}")
    elif not sys.stdout.isatty():
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
