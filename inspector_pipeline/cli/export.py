"""`inspector export`: a judge as a plain checkpoint."""

import argparse

from .arguments import DTYPES
from .judge import loading
from .printable import say


def export(parser: argparse.ArgumentParser) -> None:
    """Write a judge as a plain checkpoint that transformers and vLLM run without our code."""
    parser.set_defaults(command=_export)
    parser.add_argument("judge", metavar="JUDGE", help="Hub id or folder of a judge that was fitted for the form")
    parser.add_argument("--to", required=True, choices=("sequence-classification",), help="the form")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--dtype", choices=DTYPES, help="of the decoder's weights (default: the judge's own)")


def _export(args: argparse.Namespace) -> None:
    from inspector_pipeline.api.export import export_sequence_classification
    from inspector_pipeline.api.load import load_judge

    with loading(args.judge):
        judge = load_judge(args.judge, device="cpu", dtype=args.dtype or "stored")
        folder = export_sequence_classification(judge, args.output)
    say(f"wrote {args.judge} as a sequence classifier to {folder}")
