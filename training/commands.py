"""`inspector train TABLE --output FOLDER` and `inspector report SCORED`: what training adds to the command `inspector`.

It is imported each time the command starts, so it imports nothing that takes long before it runs.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from inspector_cli.arguments import JUDGE, add_judge_options, assignment, check_input, check_judge_folder, positive
from inspector_cli.printable import folded, printable, say

LABELS = "columns of the labels, or ASPECT=COLUMN, of several raters ASPECT=A+B (default: all that look like scores)"
SCALE = "of an aspect's labels: 'ASPECT=bad<fair<good', ASPECT=0..10, ASPECT=real (default: what they look like)"
GOOD = "from which level on labels are good (default: 1 of 0 and 1, 4 of 1 to 5, else the upper quarter)"
RANKS = "column of a response's rank among those to its question, 1 for the best"
SAID = "what such labels say: first, second or tie (A, B, 1, 2, left, right, tie, 0 and the like are known)"
PASSED_ON = (
    *("output", "question", "prediction", "context", "reference", "responses", "generator", "domain"),
    "allow_unreadable",
    *("revision", "max_length", "dtype", "work", "rank_by", "checks"),
)
UNREADABLE = "leave labels out that cannot be read, even if they are more than 2 %%"


def train(parser: argparse.ArgumentParser) -> None:
    """Make a judge from a table of labels."""
    parser.set_defaults(command=_train)
    parser.add_argument("table", metavar="TABLE", help="a .csv, .jsonl, .json or .parquet file; a row a response")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the judge's folder")
    parser.add_argument("--labels", nargs="+", metavar="COLUMN", help=LABELS)
    parser.add_argument("--scale", nargs="+", type=_setting, metavar="ASPECT=SCALE", help=SCALE)
    parser.add_argument("--good", nargs="+", type=_setting, metavar="ASPECT=LEVEL", help=GOOD)
    parser.add_argument("--allow-unreadable", action="store_true", help=UNREADABLE)
    parser.add_argument("--question", default="question", metavar="COLUMN", help="of the questions (question)")
    parser.add_argument("--prediction", default="prediction", metavar="COLUMN", help="of the responses (prediction)")
    beside = "of what responses should rest on; the judge reads it too, and is measured without it beside (context)"
    parser.add_argument("--context", nargs="?", const="context", metavar="COLUMN", help=beside)
    right = "of right answers, which the judge reads too (reference)"
    parser.add_argument("--reference", nargs="?", const="reference", metavar="COLUMN", help=right)
    pair = "columns of two responses that each row compares; labels then say which is better (chosen rejected)"
    parser.add_argument("--responses", nargs=2, metavar="COLUMN", help=pair)
    parser.add_argument("--ranks", nargs="+", type=_setting, metavar="ASPECT=COLUMN", help=RANKS)
    parser.add_argument("--said", nargs="+", type=_setting, metavar="WORD=SIDE", help=SAID)
    parser.add_argument("--generator", metavar="COLUMN", help="of what wrote the responses (generator)")
    parser.add_argument("--domain", metavar="COLUMN", help="of what the questions are about (domain)")
    words = "labels that are words, and their scores (yes=1 no=0)"
    parser.add_argument("--words", nargs="+", type=_word, metavar="WORD=N", help=words)
    parser.add_argument("--backbone", metavar="ID_OR_PATH", help="model that reads the pairs (the embedded one)")
    parser.add_argument("--revision", metavar="NAME", help="of a backbone on the Hub (main)")
    parser.add_argument("--max-length", type=int, default=1024, metavar="N", help="tokens of a pair (1024)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(float32)")
    parser.add_argument("--work", metavar="FOLDER", help="of what is made on the way (OUTPUT.work)")
    parser.add_argument("--rank-by", metavar="FIELD", help="what it ranks by, such as expected_ASPECT (expected_total)")
    checks = "what is read of the texts by rule, too: wrong_sums, whether a written sum is wrong"
    parser.add_argument("--checks", nargs="+", default=(), choices=("wrong_sums",), help=checks)


def _word(text: str) -> tuple[str, int]:
    word, mark, score = text.rpartition("=")
    if not (word and mark and score.isdecimal()):
        raise argparse.ArgumentTypeError(f"expects WORD=N with a whole number, such as yes=1, but got {text}")
    return word, int(score)


def _setting(text: str) -> tuple[str, str]:
    aspect, mark, value = text.partition("=")
    if not (aspect and mark and value):
        raise argparse.ArgumentTypeError(f"expects ASPECT=..., but got {text}")
    return aspect, value


def _train(args: argparse.Namespace) -> None:
    from inspector_pipeline.files.tables import read_json

    from .judging import make_judge

    check_judge_folder(args.output)
    logging.getLogger(__package__).setLevel(logging.INFO)
    options: dict[str, Any] = {name: getattr(args, name) for name in ("backbone", "words") if getattr(args, name)}
    options |= {
        "scales": dict(args.scale or ()),
        "good": dict(args.good or ()),
        "said": dict(args.said or ()),
        "ranks": dict(args.ranks or ()),
    }
    make_judge(args.table, labels=_labels(args.labels), **options, **{name: getattr(args, name) for name in PASSED_ON})
    results = read_json(Path(args.output) / "results.json")
    _show_evidence(results)
    print(f"{printable('What it can and cannot do, on questions that it never saw:')}\n")
    for line in results["verdict"]:
        print(f"- {folded(printable(line), 2)}")
    work = args.work or f"{args.output.rstrip('/')}.work"
    read = f"Read {work}/audit/audit.md for what the labels hide, {args.output}/README.md for the judge's card."
    print(f"\n{folded(printable(f'{read} Next:'), 0)}\n")
    print(printable(f"    inspector score RESPONSES --judge {args.output}"))


def _labels(given: list[str] | None) -> dict[str, str] | None:
    """Return aspect -> column; a column without an aspect is one of its own name."""
    pairs = (text.partition("=") for text in given or ())
    return {aspect: column or aspect for aspect, _, column in pairs} or None


def report(parser: argparse.ArgumentParser) -> None:
    """Show scored rows, or a judge, on one page that needs no network."""
    parser.set_defaults(command=_report)
    parser.add_argument(
        "place", metavar="SCORED", help="a scored file, the folder of a big job, or a judge's folder or embedded"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="the page, such as report.html (NAME_report.html beside SCORED)"
    )
    parser.add_argument("--group", metavar="COLUMN", help="compare the rows by its values, such as generator")
    label = "a column of labels to set the scores beside, such as correctness=correct; may be given more than once"
    parser.add_argument("--label", metavar="ASPECT=COLUMN", type=assignment, action="append", default=[], help=label)
    parser.add_argument("--prefix", metavar="TEXT", help="what the judge's columns begin with (found, if one judge's)")
    shown = "rows whose texts the page holds: the best, the worst and the least certain (5000)"
    parser.add_argument("--rows", type=positive, default=5000, metavar="N", help=shown)


def _report(args: argparse.Namespace) -> None:
    from inspector_pipeline.api.load import EMBEDDED_JUDGES
    from inspector_pipeline.files.disk import write_whole

    place = Path(args.place)
    place = place if place.exists() else EMBEDDED_JUDGES.get(args.place, place)
    check_input(str(place))
    beside = Path() if args.place in EMBEDDED_JUDGES else place.absolute().parent
    output = Path(args.output or beside / f"{place.absolute().name.split('.')[0]}_report.html")
    if output.suffix.lower() not in (".html", ".htm") or not output.absolute().parent.is_dir():
        raise ValueError(f"--output expects a .html file in an existing folder, but got {output}.")
    of_judge = (place / "config.json").is_file()
    if of_judge and (args.group or args.label):
        raise ValueError(f"--group and --label expect scored rows, but {place} is a judge's folder. Leave them out.")

    from .reports.page import judge_page, scored_page
    from .reports.scored import Asked

    asked = Asked(dict(args.label), args.group, args.prefix)
    page = judge_page(place) if of_judge else scored_page(place, asked, args.rows)
    write_whole(output, page.encode("utf-8", "backslashreplace"))
    say(f"wrote {output}")


def demo(parser: argparse.ArgumentParser) -> None:
    """Serve a page on this machine that judges what is pasted, and reports what is uploaded."""
    parser.set_defaults(command=_demo)
    parser.add_argument("judge", nargs="?", metavar="JUDGE", help=JUDGE)
    add_judge_options(parser)
    gallery = "folders of judges that get a row in the page's gallery, beside the judge's own"
    parser.add_argument("--gallery", nargs="+", default=[], metavar="FOLDER", help=gallery)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (7860)")


def _demo(args: argparse.Namespace) -> None:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError("The page expects Gradio. Run pip install gradio") from error

    from inspector_cli.info import file_of
    from inspector_cli.judge import check_judge_options, load

    from hub_cards.space import named_folders
    from inspector_pipeline.api.load import judge_name

    from .reports.demo import launch, make_app
    from .reports.gallery import gallery
    from .reports.page import scored_page
    from .reports.scored import Asked

    check_judge_options(args)
    judge = load(args)
    own = [file_of(judge_name(args.judge), name, args.revision) for name in ("config.json", "results.json")]
    judges = named_folders(map(Path, args.gallery))
    if own[0] is not None:
        judges = {args.judge or "embedded": own[0].parent, **judges}
    app = make_app(judge, lambda scored: scored_page(scored, Asked()), gallery(judges))
    say(f"serving on http://{args.host}:{args.port} with gradio {gradio.__version__}")
    launch(app, server_name=args.host, server_port=args.port)


def _show_evidence(results: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("aspect", "labels", "AUROC (95 %)", "surface", "gain (95 %)", box=SIMPLE_HEAD)
    for name, found in results["aspects"].items():
        if "preference" in found:
            continue
        gain = found["gain_over_surface"]["auroc"]
        surface = f"{found['surface']['auroc']['value']:.3f}".removeprefix("0")
        table.add_row(Text(printable(name)), str(found["n"]), _interval(found["auroc"]), surface, _interval(gain, "+"))
    if table.rows:
        Console().print(table)


def _interval(found: dict[str, float], sign: str = "") -> str:
    value, low, high = (format(found[key], f"{sign}.3f").replace("0.", ".", 1) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
