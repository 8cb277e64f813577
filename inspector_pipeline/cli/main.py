"""The `inspector` command: `inspector score INPUT`, `inspector filter SCORED`, `inspector info` and `inspector export`.

Exit codes: 0 done, 1 the input, the judge or a file is not as expected (said in one line), 2 wrong arguments,
3 done, but some rows could not be scored and stand among the rejects, 130 interrupted.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .arguments import add_filter_command, add_score_arguments, is_job, score_as_job

DTYPES = ("float32", "bfloat16", "float16")
MAX_TABLE_ROWS = 50
TABLE_WIDTH = 140  # where there is no terminal to ask
MIN_TEXT_WIDTH = 10
CELL_PADDING = 3

EPILOG = """\
Without --output, scores go to NAME_BACKBONE_multi_evaled.json (or _binary_) beside INPUT, and are shown: as a table
on a terminal, as JSON Lines on a pipe. `inspector score - ` reads standard input and writes no file.

A big job: where --output is a folder (it exists, or ends in /), INPUT may be a .jsonl, .json, .csv, .parquet or .arrow
file, a folder or glob of them, or with --split the id of a dataset. It is streamed into the folder's parts. A killed
job goes on where it stopped when the same command is given again. Rows that cannot be scored stand with the reason in
_rejects/ there, and the exit code is 3.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from ..errors import InspectorError

    command: Callable[[argparse.Namespace], int | None] = args.command
    try:
        return command(args) or 0
    except (InspectorError, OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone, as `head` does
            return 0
        print(f"inspector: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("inspector: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="inspector", description="Score (question, response) pairs with a judge.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="score the pairs of a file",
        description="Score a file of objects with `question` and `prediction`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.set_defaults(command=_score)
    score.add_argument("input", metavar="INPUT", help="file, - for standard input; for a big job see below")
    score.add_argument("--judge", metavar="ID_OR_PATH", help="Hub id, folder or embedded-fast (embedded)")
    score.add_argument("--revision", metavar="NAME", help="commit, branch or tag of a judge on the Hub (main)")
    score.add_argument("--output", metavar="PATH", help="file to write, - for standard output, or a big job's folder/")
    score.add_argument("--top-percent", type=_share, default=1.0, metavar="P", help="keep the best share, 0 to 1 (1.0)")
    score.add_argument("--batch-size", type=_positive, metavar="N", help="pairs scored together (default: 256)")
    score.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the first accelerator, else cpu)")
    score.add_argument("--dtype", choices=DTYPES, help="default: what the device is fastest in")
    shapes = ("auto", "table", "jsonl", "none")
    score.add_argument("--format", choices=shapes, default="auto", help="what to show (auto: table on a terminal)")
    add_score_arguments(score)
    add_filter_command(commands)
    info = commands.add_parser(
        "info", help="describe a judge", description="Describe a judge without loading its backbone."
    )
    info.set_defaults(command=_info)
    info.add_argument("judge", nargs="?", metavar="JUDGE", help="Hub id, folder or embedded-fast (embedded)")
    export = commands.add_parser(
        "export",
        help="write a judge in a form that other engines run",
        description="Write a judge as a plain checkpoint that transformers, vLLM and SGLang run without our code.",
    )
    export.set_defaults(command=_export)
    export.add_argument("judge", metavar="JUDGE", help="Hub id or folder of a judge that was fitted for the form")
    export.add_argument("--to", required=True, choices=("sequence-classification",), help="the form")
    export.add_argument("--output", required=True, metavar="FOLDER", help="a new or empty folder")
    export.add_argument("--dtype", choices=DTYPES, help="of the decoder's weights (default: the judge's own)")
    serve = commands.add_parser(
        "serve",
        help="serve a judge over HTTP",
        description="Serve a judge over HTTP: POST /score, GET /health, /metrics and /docs. SIGTERM finishes what was "
        "accepted.",
    )
    serve.set_defaults(command=_serve)
    serve.add_argument("judge", nargs="?", metavar="JUDGE", help="Hub id, folder or embedded-fast (embedded)")
    serve.add_argument("--revision", metavar="NAME", help="commit, branch or tag of a judge on the Hub (main)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen at (8000)")
    serve.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the first accelerator, else cpu)")
    serve.add_argument("--dtype", choices=DTYPES, help="default: what the device is fastest in")
    serve.add_argument("--max-body", type=_positive, metavar="BYTES", default=8_000_000, help="of a request (8000000)")
    serve.add_argument("--max-pairs", type=_positive, metavar="N", default=256, help="of a request (256)")
    serve.add_argument("--max-queue", type=_positive, metavar="N", default=2048, help="pairs that may wait (2048)")
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"expects a share from 0 to 1, but got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expects 1 or more, but got {text}")
    return value


def _score(args: argparse.Namespace) -> int:
    _check_revision(args)
    if is_job(args):
        _check_device(args.device)
        return score_as_job(args, _loaded)
    _score_file(args)
    return 0


def _score_file(args: argparse.Namespace) -> None:
    from ..files.tables import STDIO, check_target, read_rows, write_rows
    from ..template import check_pair

    if args.output:
        check_target(args.output)
        if args.input != STDIO and args.output != STDIO and Path(args.output).absolute() == Path(args.input).absolute():
            raise ValueError(f"--output expects another file than the input, but got {args.output} for both.")
    _check_device(args.device)
    rows = read_rows(args.input)
    keys = _keys(args.judge, args.revision)
    for index, row in enumerate(rows):
        check_pair(row, index, keys)

    from ..api.load import flatten, keep_top

    judge = _loaded(args)
    target = args.output or (None if args.input == STDIO else default_output(args.input, judge.model.config))
    if target is not None:
        check_target(target)
    results = judge(rows, batch_size=args.batch_size)
    truncated = sum(result["truncated"] for result in results)
    if truncated:
        print(
            f"inspector: {truncated} of {len(rows)} pairs were longer than the judge's limit and were cut",
            file=sys.stderr,
        )
    scored = keep_top([flatten(row, result) for row, result in zip(rows, results, strict=True)], args.top_percent)
    if target is not None:
        write_rows(scored, target)
    shape = args.format
    if shape == "auto":
        shape = "table" if sys.stdout.isatty() else "jsonl"
    if target != STDIO and shape != "none":
        _show_table(scored, judge) if shape == "table" else write_rows(scored, STDIO)
    if target not in (None, STDIO):
        print(f"inspector: wrote {len(scored)} pairs to {target}", file=sys.stderr)


def _keys(judge: str | None, revision: str | None) -> tuple[str, ...]:
    """Return the texts that pairs need, before a judge is loaded; the embedded one needs both."""
    from ..template import PAIR_KEYS, needed_keys

    if judge is None:
        return PAIR_KEYS

    from ..api.load import judge_name
    from ..configuration_inspector import InspectorConfig

    return needed_keys(InspectorConfig.from_pretrained(judge_name(judge), revision=revision).parsed_readings.values())


def _loaded(args: argparse.Namespace) -> Any:
    """Load the judge that the arguments name."""
    from ..api.load import load_judge

    options = {name: getattr(args, name) for name in ("device", "dtype", "revision") if getattr(args, name)}
    with _without_loading_bars():
        return load_judge(args.judge, **options)


def _check_revision(args: argparse.Namespace) -> None:
    """Refuse a revision of what has none."""
    if not args.revision:
        return

    from ..api.load import judge_name

    if os.path.isdir(judge_name(args.judge)):
        raise ValueError(
            f"--revision expects a judge on the Hub, but got {args.judge or 'the embedded one'}. Leave --revision out."
        )


def _check_device(device: str | None) -> None:
    """Refuse a device that this machine or this torch does not have."""
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device expects a device of this machine, but got {device}: {str(error).splitlines()[0]}"
        ) from error


@contextmanager
def _without_loading_bars() -> Iterator[None]:
    """Silence transformers' bars for what takes a second; pip shows its own for a download."""
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()


def default_output(source: str, config: Any) -> str:
    """Name the file of scores as the published tools do: `<name>_<backbone>_<multi|binary>_evaled.json`.

    Args:
        source: The input's path.
        config: The judge's config.

    Returns:
        A path in the input's folder.
    """
    path = Path(source)
    backbone = config.backbone_id.rstrip("/").rsplit("/", 1)[-1] or config.backbone_config.model_type
    binary = all(set(aspect.classes) <= {0, 1} for aspect in config.parsed_aspects)
    return str(path.with_name(f"{path.stem}_{backbone}_{'binary' if binary else 'multi'}_evaled.json"))


def _show_table(scored: list[dict[str, Any]], judge: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    names = [aspect.name for aspect in judge.model.config.parsed_aspects]
    headers = [name.replace("_", " ").split() for name in [*names, "total"]]
    widths = [max(map(len, words)) for words in headers]
    room = (console.width - sum(width + CELL_PADDING for width in widths) - 4 * CELL_PADDING) // 2  # for each text
    table = Table(box=SIMPLE_HEAD)
    table.add_column("#", justify="right")
    for name in ("question", "prediction"):
        table.add_column(name, max_width=max(MIN_TEXT_WIDTH, room), no_wrap=True, overflow="ellipsis")
    for words, width in zip(headers, widths, strict=True):
        whole = width if room >= MIN_TEXT_WIDTH else None  # on a narrow terminal headers fold, and nothing is lost
        table.add_column("\n".join(words), justify="right", min_width=whole, overflow="fold")
    shown = scored[:MAX_TABLE_ROWS]
    for number, row in enumerate(shown):
        texts = [" ".join(str(row.get(key) or "").split()) for key in ("question", "prediction")]
        table.add_row(str(number), *map(_plain, texts), *(str(row[name]) for name in [*names, "total_score"]))
    console.print(table)
    if len(scored) > len(shown):
        console.print(f"... and {len(scored) - len(shown)} more pairs")


def _plain(text: str) -> Any:
    from rich.text import Text

    # Brackets in a response are not rich's markup, and escape codes are not for the terminal.
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))


def _info(args: argparse.Namespace) -> None:
    import json

    from huggingface_hub import hf_hub_download

    from ..api.load import judge_name
    from ..configuration_inspector import InspectorConfig

    judge = judge_name(args.judge)
    config = InspectorConfig.from_pretrained(judge)

    def local(name: str) -> Path | None:
        """Return a file of the judge, fetched where the judge is on the Hub; None where it has none."""
        if os.path.isdir(judge):
            path = Path(judge) / name
            return path if path.is_file() else None
        try:
            return Path(hf_hub_download(judge, name))
        except OSError:
            return None

    weights, evidence = local("model.safetensors"), local("results.json")
    results = json.loads(evidence.read_text(encoding="utf-8")) if evidence else {}
    for label, value in describe(config, weights.stat().st_size if weights else None, results):
        print(f"{label:<14}{value}")


def _export(args: argparse.Namespace) -> None:
    from ..api.export import export_sequence_classification
    from ..api.load import load_judge

    with _without_loading_bars():
        judge = load_judge(args.judge, device="cpu", dtype=args.dtype or "stored")
        folder = export_sequence_classification(judge, args.output)
    print(f"inspector: wrote {args.judge} as a sequence classifier to {folder}", file=sys.stderr)


def _serve(args: argparse.Namespace) -> None:
    try:
        import uvicorn

        from ..serving.app import Limits, make_app
    except ModuleNotFoundError as error:
        raise ValueError(
            f"inspector serve expects {error.name}. Run pip install 'inspector-pipeline[serve]'."
        ) from error
    _check_revision(args)
    _check_device(args.device)
    limits = Limits(args.max_body, args.max_pairs, args.max_queue)
    uvicorn.run(make_app(_loaded(args), limits), host=args.host, port=args.port, log_level="warning")


def describe(config: Any, size: int | None, results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what a judge is, in (label, text) lines.

    Args:
        config: The judge's config.
        size: Bytes of its weights.
        results: Its results.json, empty where it has none.
    """
    backbone = config.backbone_config
    form = "fused: backbone and probes" if config.fused else "probes only: the backbone is loaded by its id"
    lines = [
        (
            "backbone",
            f"{config.backbone_id or 'unnamed'} ({config.backbone_revision or 'no revision'}), {backbone.model_type}",
        ),
        ("depth", f"{config.depth} layers of width {backbone.hidden_size}"),
        ("passes", f"{len(config.readings)} a pair"),
        ("max length", f"{config.max_length} tokens"),
        ("files", f"{form}; {size / 1e6:.2f} MB" if size else form),
    ]
    for name, reading in config.parsed_readings.items():
        lines.append(("reading", f"{name}: {reading.text('{question}', '{prediction}')!r}"))
    for aspect in config.parsed_aspects:
        layers = sorted({feature.layer for feature in aspect.features})
        poolings = ", ".join(dict.fromkeys(feature.pooling for feature in aspect.features))
        states = ", ".join(dict.fromkeys(feature.state for feature in aspect.features))
        total = "" if aspect.counts_in_total else ", not in the total"
        classes = " ".join(map(str, aspect.classes))
        lines.append(("aspect", f"{aspect.name}: scores {classes} by {aspect.head.rule}{total}"))
        lines.append(("", f"layers {_ranges(layers)}, {poolings}, {states}"))
        lines.append(("", _evidence(results.get("aspects", {}).get(aspect.name))))
    return lines


def _evidence(entry: dict[str, Any] | None) -> str:
    if not entry or "auroc" not in entry:
        return "no evidence: this judge was not evaluated"
    ours, base = entry["auroc"], entry["surface"]["auroc"]
    text = f"AUROC {ours['value']:.3f} ({ours['low']:.3f} to {ours['high']:.3f}), surface baseline {base['value']:.3f}"
    return f"{text}, {entry['n']} pairs"


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers briefly: 1-4, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


if __name__ == "__main__":
    sys.exit(main())
