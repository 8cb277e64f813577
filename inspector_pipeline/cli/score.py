"""`inspector score`: a file at once, or an input of any size as a job into a folder."""

import argparse
import glob
import io
import sys
from pathlib import Path
from typing import Any

from .arguments import (
    JUDGE,
    SOME_REJECTED,
    SUFFIXES,
    add_column_options,
    add_judge_options,
    check_input,
    columns_of,
    positive,
    shard,
    share,
)
from .judge import check_judge_options, load, needed_keys
from .printable import folded, printable_json, say
from .table import show_explanations, show_table
from .uncertain import add_options as add_options_of_doubt
from .uncertain import check_options as check_options_of_doubt
from .uncertain import escalate

STDIO = "-"
READING_DELAY_S = 2.0  # a quick read shows no bar
ARROW = (".parquet", ".arrow")
OF_EXPLANATIONS = (".json", ".jsonl")

EPILOG = f"""\
Without --output, scores go to NAME_BACKBONE_multi_evaled.json (or _binary_) beside INPUT, and are shown: as a table
on a terminal, as JSON Lines on a pipe. `inspector score - ` reads standard input and writes no file.

A big job: where --output is a folder (it exists, or ends in /), INPUT may be a file of {", ".join(SUFFIXES)},
a folder or glob of them, or with --split the id of a dataset. It is streamed into the folder's parts. A killed job goes
on where it stopped when the same command is given again. Rows that cannot be scored stand with the reason in _rejects/
there, and the exit code is 3.
"""


def score(parser: argparse.ArgumentParser) -> None:
    """Score the pairs of a file of objects with `question` and `prediction`."""
    parser.set_defaults(command=_score)
    parser.epilog = "\n\n".join(folded(" ".join(part.split()), 0) for part in EPILOG.split("\n\n"))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("input", metavar="INPUT", help="file, - for standard input; for a big job see below")
    parser.add_argument("--judge", metavar="ID_OR_PATH", help=JUDGE)
    add_judge_options(parser)
    parser.add_argument("--output", metavar="PATH", help="file to write, - for standard output, or a big job's folder/")
    parser.add_argument("--top-percent", type=share, default=1.0, metavar="P", help="keep the best share, 0 to 1 (1.0)")
    parser.add_argument(
        "--rank-by",
        metavar="FIELD",
        help="what the best share is of, such as expected_total or expected_factuality (what the judge ranks by)",
    )
    parser.add_argument("--batch-size", type=positive, metavar="N", help="pairs scored together (default: 256)")
    parser.add_argument("--explain", action="store_true", help="add what each token of a pair adds to its scores")
    shapes = ("auto", "table", "jsonl", "none")
    parser.add_argument("--format", choices=shapes, default="auto", help="what to show (auto: table on a terminal)")
    add_column_options(parser)
    parser.add_argument(
        "--strict", action="store_true", help="refuse an input with a reference or context that the judge does not read"
    )
    add_options_of_doubt(parser)
    job = parser.add_argument_group("big jobs", "only with a folder as --output")
    job.add_argument("--split", metavar="NAME", help="INPUT is the id of a dataset; score this split of it")
    job.add_argument("--subset", metavar="NAME", help="the dataset's subset")
    job.add_argument("--where", metavar="EXPR", help="score only rows such as len(prediction) > 20 and lang == 'en'")
    job.add_argument("--limit", type=positive, metavar="N", help="score the first N rows")
    job.add_argument(
        "--shard", type=shard, default=(0, 1), metavar="I/N", help="score share I of N, from 0; one folder"
    )
    job.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes of one core each (default: what is faster on this many cores; 1: one process of all cores)",
    )
    job.add_argument("--output-format", choices=("jsonl", "parquet"), help="of the parts (default: the input's kind)")
    job.add_argument(
        "--part-rows",
        type=positive,
        metavar="N",
        help="rows of a part, a multiple of 256; a killed run scores the part that it was at again (default: 1024)",
    )


def _score(args: argparse.Namespace) -> int:
    check_options_of_doubt(args)
    return _score_job(args) if _is_job(args) else _score_file(args)


def _is_job(args: argparse.Namespace) -> bool:
    """Say whether the input is streamed into a folder.

    Raises:
        ValueError: It should be, but no folder is given.
    """
    output = args.output or ""
    to_folder = output.endswith("/") or (output not in ("", STDIO) and Path(output).is_dir())
    many = args.split is not None or Path(args.input).is_dir() or _is_glob(args.input)
    of_jobs = ("subset", "where", "limit", "output_format", "part_rows", "workers")
    if not to_folder and (many or any(getattr(args, name) for name in of_jobs) or args.shard != (0, 1)):
        raise ValueError(
            "--output expects a folder, which ends in / or exists, for datasets, folders, globs and the options of big "
            f"jobs, but got {args.output or 'none'}."
        )
    return to_folder


def _is_glob(place: str) -> bool:
    return glob.has_magic(place) and not Path(place).exists()


def _score_job(args: argparse.Namespace) -> int:
    if args.top_percent != 1.0 or args.rank_by is not None:
        option = "--top-percent" if args.top_percent != 1.0 else "--rank-by"
        raise ValueError(f"{option} expects a file as --output. Run `inspector filter` on the folder afterwards.")
    if args.format not in ("auto", "none"):
        raise ValueError(f"--format expects a file as --output, but got {args.format} for a folder.")
    columns = columns_of(args.column)
    if args.split is None and Path(args.input).is_file():
        check_input(args.input)

    from inspector_pipeline.jobs.abstain import scored_rows
    from inspector_pipeline.jobs.flags import told
    from inspector_pipeline.jobs.score import ScoreJob, score_job, summary_of
    from inspector_pipeline.results import FlatColumns

    if args.escalate is not None and args.shard != (0, 1):
        raise ValueError("--escalate expects a whole job. Give it in one more call, without --shard.")
    same = (
        "input",
        "output",
        "split",
        "subset",
        "where",
        "limit",
        "shard",
        "prefix",
        "batch_size",
        "strict",
        "workers",
    )
    settings = {name: getattr(args, name) for name in (*same, "abstain", "explain")} | (
        {"part_rows": args.part_rows} if args.part_rows else {}
    )
    job = ScoreJob(**settings, columns=columns, format=args.output_format)
    check_judge_options(args)
    judge = load(args)
    counts = score_job(job, judge)
    say(summary_of(counts, args.output))
    config, keys = judge.model.config, judge.encode.keys
    escalate(args, FlatColumns(config, args.prefix), config, lambda: scored_rows(Path(args.output)), keys)
    _tell(told(counts, counts["scored"], args.output))
    return SOME_REJECTED if counts["rejected"] or "skipped" in counts else 0


def _score_file(args: argparse.Namespace) -> int:
    if args.input != STDIO:
        check_input(args.input)
        if args.output and Path(args.output).resolve() == Path(args.input).resolve():
            raise ValueError(f"--output expects another file than the input, but got {args.output} for both.")

    from inspector_pipeline.api.load import keep_top
    from inspector_pipeline.files.tables import check_target, file_source, read_rows, write_rows
    from inspector_pipeline.pairs import check_pair
    from inspector_pipeline.progress import Bar
    from inspector_pipeline.results import ABSTAINED, FlatColumns, rank_field
    from inspector_pipeline.rows import RowReader

    if args.output:
        check_target(args.output)
        _check_holds_explanations(args)
    check_judge_options(args)
    with Bar(desc="reading the input", unit=" rows", delay=READING_DELAY_S) as bar:  # stdin may take its time
        rows = read_rows(args.input)
        bar.n = len(rows)
    keys = needed_keys(args.judge, args.revision)
    where = "The input" if args.input == STDIO else args.input
    reader = RowReader(columns_of(args.column), keys, strict=args.strict, where=where)
    if not rows and args.input != STDIO:
        source = file_source(Path(args.input), args.input)
        reader.settle([], source.header())
        source.check_header((reader.layout.plain if reader.layout else None) or keys)
    rows, pairs = reader.read_all(rows)
    for index, pair in enumerate(pairs):
        check_pair(pair, index, keys)
    judge = load(args)
    target = args.output or (None if args.input == STDIO else default_output(args.input, judge.model.config))
    ranks = args.top_percent < 1 or args.rank_by is not None
    rank_by = rank_field(judge.model.config, args.rank_by) if ranks else None
    columns = FlatColumns(judge.model.config, args.prefix, rank_by, explain=args.explain)
    abstained = [args.prefix + ABSTAINED] if args.abstain else []
    _check_own_columns(rows, [*columns.kinds, *abstained])
    table = _check_writable(args.input, rows, target, reader.layout)
    results = judge(pairs, batch_size=args.batch_size, explain=args.explain)
    truncated = sum(result["truncated"] for result in results)
    if truncated:
        _tell(f"{truncated} of {len(rows)} pairs were longer than the judge's limit and were cut")
    flat = [{**row, **columns.values(result)} for row, result in zip(rows, results, strict=True)]
    escalate(args, columns, judge.model.config, lambda: flat, keys)
    if args.abstain:
        _mark(flat, columns, judge.model.config, args.abstain)
    sure = [row for row in flat if not row.get(args.prefix + ABSTAINED)] if args.top_percent < 1 else flat
    scored = keep_top(sure, args.top_percent, f"{args.prefix}{rank_by}")
    if target not in (None, STDIO):
        write_rows(scored, target) if table is None else _write_typed(table, flat, scored, columns, target)
    if target == STDIO:
        _print_rows(scored)
    else:
        _show(scored, args.format, columns, reader.text_columns)
    written = None if target in (None, STDIO) else target
    _tell_what_was_written(judge, flat, scored, args.prefix, written, reader.text_columns)
    return 0


def _check_holds_explanations(args: argparse.Namespace) -> None:
    if args.explain and Path(args.output).suffix.lower() not in ("", *OF_EXPLANATIONS):
        kinds = " or ".join(OF_EXPLANATIONS)
        raise ValueError(f"--explain expects a {kinds} file as --output, but got {args.output}.")


def _mark(flat: list[dict[str, Any]], columns: Any, config: Any, share: float) -> None:
    """Say in each row whether the judge abstains from it."""
    from inspector_pipeline.api.uncertain import abstained_rows, expected_errors
    from inspector_pipeline.jobs.abstain import judged_scales
    from inspector_pipeline.results import ABSTAINED

    errors, unfamiliar = expected_errors(flat, judged_scales(columns, config), columns.prefix)
    marks = abstained_rows(errors, unfamiliar, share)
    for row, mark in zip(flat, marks.tolist(), strict=True):
        row[columns.prefix + ABSTAINED] = mark
    _tell(f"{int(marks.sum())} of {len(flat)} pairs abstained from: their scores are expected to be the most wrong")


def _tell_what_was_written(
    judge: Any,
    flat: list[dict[str, Any]],
    scored: list[dict[str, Any]],
    prefix: str,
    written: str | None,
    texts: tuple[str, str],
) -> None:
    from inspector_pipeline.api.load import evidence_path
    from inspector_pipeline.jobs.drift import Drift
    from inspector_pipeline.jobs.flags import Flags, told

    flags = Flags(prefix)
    for row in scored:
        flags.add(row)
    if written:
        _tell(f"wrote {len(scored)} pairs to {written}")
    keys = dict(zip(("question", "prediction"), texts, strict=True))
    counts, drift = flags.counts(), Drift.of(evidence_path(judge.model), keys, prefix)
    if drift is not None and flat:
        for row in flat:  # all of them, not the best share alone
            drift.add(row)
        counts["drift"] = drift.report()
    _tell(told(counts, len(scored), written))


def _tell(line: str | None) -> None:
    if line:
        say(line)


def _check_writable(source: str, rows: list[dict[str, Any]], target: str | None, layout: Any) -> Any:
    """Refuse rows that the target cannot hold; gives those for Parquet as a table, those from Arrow in their types."""
    from inspector_pipeline.files.tables import check_rows, check_target, read_table, table_of

    if target is None:
        return None
    check_target(target)
    is_parquet = Path(target).suffix.lower() == ".parquet"
    is_arrow = Path(source).suffix.lower() in ARROW
    if is_parquet and is_arrow and layout.plain is not None:
        return read_table(source)
    check_rows(rows, target)
    if is_parquet and is_arrow:
        from inspector_pipeline.files.arrow import kept_types, read_schema

        return table_of(rows, kept_types(read_schema(Path(source)), layout.used))
    return table_of(rows) if is_parquet else None


def _check_own_columns(rows: list[dict[str, Any]], added: list[str]) -> None:
    """Refuse to write scores over the user's own columns."""
    taken = [name for name in added if any(name in row for row in rows)]
    if taken:
        raise ValueError(
            f"The input expects no column of the judge's, but has {', '.join(taken)}. Give --prefix, such as --prefix "
            "judge_."
        )


def _write_typed(
    table: Any, flat: list[dict[str, Any]], scored: list[dict[str, Any]], columns: Any, target: str
) -> None:
    """Write the rows' own columns in their types, and the scores beside them."""
    import pyarrow

    from inspector_pipeline.files.tables import write_table
    from inspector_pipeline.jobs.window import arrow_schema
    from inspector_pipeline.results import ABSTAINED

    places = {id(row): at for at, row in enumerate(flat)}
    kept = table if scored is flat else table.take([places[id(row)] for row in scored])
    schema, mark = arrow_schema(columns), columns.prefix + ABSTAINED
    if any(mark in row for row in scored):
        schema = schema.append(pyarrow.field(mark, pyarrow.bool_()))
    added = pyarrow.Table.from_pylist(scored, schema)
    for field in added.schema:
        kept = kept.append_column(field, added[field.name])
    write_table(kept, target)


def _show(scored: list[dict[str, Any]], shape: str, columns: Any, texts: tuple[str, str]) -> None:
    if shape == "table" or (shape == "auto" and sys.stdout.isatty()):
        show_table(scored, [aspect.name for aspect in columns.aspects], columns.prefix, columns.rank_by, texts)
        if columns.explains:
            show_explanations(scored, columns)
    elif shape != "none":
        _print_rows(scored)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Write JSON Lines on standard output: byte by byte what a file would hold, or what a terminal may be sent."""
    from inspector_pipeline.files.tables import write_jsonl, write_rows

    if not sys.stdout.isatty():
        write_rows(rows, STDIO)
        return
    held = io.BytesIO()
    write_jsonl(rows, held)
    sys.stdout.write(printable_json(held.getvalue().decode("utf-8")))


def default_output(source: str, config: Any) -> str:
    """Name the file of scores as the published tools do: `<name>_<backbone>_<multi|binary>_evaled.json`.

    Args:
        source: The input's path.
        config: The judge's config.
    """
    path = Path(source)
    backbone = config.backbone_id.rstrip("/").rsplit("/", 1)[-1] or config.backbone_config.model_type
    binary = all(set(aspect.classes) <= {0, 1} for aspect in config.parsed_aspects)
    return str(path.with_name(f"{path.stem}_{backbone}_{'binary' if binary else 'multi'}_evaled.json"))
