"""`inspector peek`: what would be read of a file, without a judge."""

import argparse
import glob
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from .arguments import SOME_REJECTED, add_column_option, check_input, columns_of, positive
from .printable import folded, printable, say

SHOWN = 300  # characters of a text
INDENT = 14  # of a text's further lines
AS_NAMED = "question = question; prediction = prediction"


def peek(parser: argparse.ArgumentParser) -> None:
    """Show what would be read of the first rows of a file, or write all of it as plain pairs."""
    parser.set_defaults(command=_peek)
    parser.add_argument("input", metavar="FILE", help="a file, folder or glob, as of inspector score")
    add_column_option(parser)
    parser.add_argument("--rows", type=positive, default=3, metavar="N", help="rows to show (3)")
    parser.add_argument("--requests", metavar="FILE", help="of the batch whose output FILE is; joined by custom_id")
    parser.add_argument("--output", metavar="PAIRS", help="write every pair there, as all commands read it")


def _peek(args: argparse.Namespace) -> int:
    """Show or write; the exit code is 3 where rows could not be read."""
    if not glob.has_magic(args.input):
        check_input(args.input)
    with _without_the_face():
        from inspector_pipeline.columns import advice
        from inspector_pipeline.files.sources import find_sources
        from inspector_pipeline.files.tables import check_target, read_rows, write_rows
        from inspector_pipeline.rows import SAMPLE_ROWS, RowReader

        if args.output:
            check_target(args.output)
        reader = RowReader(columns_of(args.column), where=args.input, further=True)
        sources = find_sources(args.input)
        requests = read_rows(args.requests) if args.requests else None
        entries = _with_requests(chain.from_iterable(source.entries(None) for source in sources), requests)
        first = list(islice(entries, SAMPLE_ROWS))
        sample = [entry.row for entry in first if entry.row is not None and entry.fault is None]
        layout = reader.settle(sample, sources[0].header(), quiet=True)
        told = "; ".join(filter(None, (layout.told, advice(sample) if reader.is_as_named else None))) or AS_NAMED
        print(folded(printable(f"{args.input}: {told}"), 0))
        rest = entries if args.output else ()
        found = list(_reads(reader, chain(first if args.output else first[: args.rows], rest)))
        for place, pair, _, fault in found[: args.rows]:
            _show(place, pair, fault)
        faults = [(place, fault) for place, _, _, fault in found if fault]
        if args.output:
            write_rows([row for _, _, row, fault in found if not fault], args.output)
            say(f"wrote {len(found) - len(faults)} pairs to {args.output}; {len(faults)} rows hold none")
            for place, fault in faults[: args.rows]:
                say(f"{place}: {fault}")
    return SOME_REJECTED if faults else 0


def _with_requests(entries: Iterator[Any], requests: list[dict[str, Any]] | None) -> Iterator[Any]:
    """Put beside each response of a batch its request."""
    if requests is None:
        yield from entries
        return
    from inspector_pipeline.errors import PairError
    from inspector_pipeline.shapes import joined_request, requests_by_name

    by_name, answered = requests_by_name(requests), set[str]()
    for entry in entries:
        if entry.row is not None and entry.fault is None:
            try:
                entry.row = joined_request(entry.row, by_name)
                answered.add(entry.row["custom_id"])
            except PairError as error:
                entry.fault = str(error)
        yield entry
    silent = [name for name in by_name if name not in answered]
    if silent:
        say(f"{len(silent)} of {len(by_name)} requests have no response here, such as {silent[0]!r:.60}")


def _reads(reader: Any, entries: Any) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], str | None]]:
    """Read entries: each pair's place, the pair, its row with the other columns, and why there is no pair."""
    from inspector_pipeline.errors import PairError
    from inspector_pipeline.names import OPTIONAL, PAIR, QUESTION_TURNS

    for number, entry in enumerate(entries):
        if entry.row is None or entry.fault is not None:
            yield entry.place, {}, {}, entry.fault
            continue
        try:
            for one in reader.reads(entry.row, number):
                pair = {key: one.pair[key] for key in (*PAIR, *OPTIONAL, QUESTION_TURNS) if key in one.pair}
                blank = [key for key in PAIR if not (isinstance(pair.get(key), str) and pair[key].strip())]
                fault = f"expects text for {blank[0]!r}, but has {pair.get(blank[0])!r:.80}" if blank else None
                own = next((key for key in PAIR if key in entry.row and entry.row[key] not in _told(pair, key)), None)
                if own and not reader.is_plain and one.row.get(own) == entry.row[own]:
                    fault = f"has a column {own!r} that is not the {own} which was read, and would be lost. Rename it"
                yield entry.place, pair, {**pair, **{k: v for k, v in one.row.items() if k not in pair}}, fault
        except PairError as error:
            yield entry.place, {}, {}, str(error)


def _told(pair: dict[str, Any], key: str) -> list[Any]:
    """Return a text of a pair, and those of its turns, in which a row's own column is kept."""
    from inspector_pipeline.names import QUESTION, QUESTION_TURNS

    turns = pair.get(QUESTION_TURNS) or () if key == QUESTION else ()
    return [pair.get(key), *(turn["content"] for turn in turns)]


def _show(place: str, pair: dict[str, Any], fault: str | None) -> None:
    print(printable(f"\n{place}", lines=True))
    if fault:
        print(f"  cannot be read: {folded(printable(fault), 18)}")
    for key in ("question", "prediction", "reference", "context"):
        text = pair.get(key)
        if isinstance(text, str):
            shown = f"{text[:SHOWN]}{' ...' if len(text) > SHOWN else ''}"
            print(f"  {key:<11} {folded(printable(shown, lines=True), INDENT)}")


@contextmanager
def _without_the_face() -> Iterator[None]:
    """Import modules of the package without its face, which imports torch: that takes longer than all of this."""
    name = "inspector_pipeline"
    if name in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.modules[name] = importlib.util.module_from_spec(spec)  # not executed
    try:
        yield
    finally:
        del sys.modules[name]
