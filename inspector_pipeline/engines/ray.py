"""Score with Ray Data, on a laptop or a cluster alike: a pool of actors, each of which loads the judge once.

python -m inspector_pipeline.engines.ray responses/*.parquet --output scored/ --actors 2

Without --address Ray starts on this machine; on a cluster's head node, or with its address, the same command uses the
cluster. An actor that dies is started again and its window is scored again.

The output differs from a job's folder: it is plain Parquet without a manifest, a row without scores stays in its place
and says why in the column `score_error` instead of going to the rejects, and a run that was broken off does not go on
but starts anew in another folder.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data
from inspector_cli.arguments import add_column_options, columns_of
from inspector_cli.printable import PrintableParser, log_to_terminal, printable
from ray.data.datasource import SaveMode

from ..batches import WINDOW_ROWS
from ..errors import DataFileError, InspectorError
from ..rows import check_columns
from .batch_scorer import InspectorBatchScorer

READERS = {"parquet": "read_parquet", "jsonl": "read_json", "csv": "read_csv"}
SUFFIXES = {"parquet": {".parquet"}, "jsonl": {".json", ".jsonl"}, "csv": {".csv"}}  # of what Ray reads in a folder


def score_dataset(
    dataset: Any,
    judge: str | None = None,
    *,
    actors: int = 1,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    scorer: type[InspectorBatchScorer] = InspectorBatchScorer,
    **settings: Any,
) -> Any:
    """Add a judge's scores to a Ray dataset, lazily; rows form the windows of a single process.

    Rows stay in order as a rule, but Ray does not promise it: under memory pressure, and where it runs something again
    after a failure, some were seen to come later. Give rows an id where their place matters.

    Args:
        dataset: A `ray.data.Dataset` with the columns question and prediction.
        judge: Folder or Hub id, which every node can reach; None is the embedded one.
        actors: How many processes score.
        num_cpus: CPUs of each.
        num_gpus: GPUs of each.
        scorer: The class that scores.
        **settings: For the scorer: columns, prefix, device, dtype, ...

    Returns:
        The dataset with the scorer's added columns.
    """
    dataset.context.execution_options.preserve_order = True  # a dataset keeps the context that it was made in
    windows = dataset.repartition(target_num_rows_per_block=WINDOW_ROWS, strict=True)
    return windows.map_batches(
        scorer,
        fn_constructor_kwargs={"judge": judge, **settings},
        batch_size=WINDOW_ROWS,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
        max_restarts=-1,
        max_task_retries=-1,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = PrintableParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="+", help="files, folders or URLs that Ray Data reads")
    parser.add_argument("--output", required=True, help="new folder or URL of the Parquet files to write")
    parser.add_argument("--kind", choices=READERS, default="parquet", help="of the input (parquet)")
    add_column_options(parser)
    parser.add_argument("--judge", help="Hub id or folder (embedded)")
    parser.add_argument("--actors", type=int, default=1, help="processes that score (1)")
    parser.add_argument("--cpus", type=float, default=1.0, help="CPUs of each (1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each (0)")
    parser.add_argument("--device", help="where each scores (default: the first accelerator, else cpu)")
    parser.add_argument("--dtype", help="default: bfloat16 on a GPU that has it, else float32")
    parser.add_argument("--engine", choices=("torch", "torch-int8"), help="default: the judge's own")
    parser.add_argument("--address", help="a cluster's address (default: the cluster of this machine, or a new one)")
    args = parser.parse_args(argv)
    log_to_terminal(logging.INFO)
    try:
        _score(args)
    except (InspectorError, OSError, ValueError) as error:
        sys.exit(printable(f"on_ray: {error}", lines=True))


def _score(args: argparse.Namespace) -> None:
    columns = columns_of(args.column)
    check_columns(columns)
    if Path(args.output).exists():  # said before a cluster is started; of URLs Ray says it
        raise DataFileError(f"--output expects a new folder, but {args.output} exists. Choose another, or delete it.")
    for place in args.input:
        check_folder(Path(place), args.kind)
    ray.init(address=args.address, ignore_reinit_error=True)
    dataset = getattr(ray.data, READERS[args.kind])(args.input)
    settings = {name: getattr(args, name) for name in ("device", "dtype", "engine") if getattr(args, name)}
    settings |= {"columns": columns, "prefix": args.prefix}
    pool = {"actors": args.actors, "num_cpus": args.cpus, "num_gpus": args.gpus}
    # Ray's own default adds to what is there, so that a second run would double the rows.
    score_dataset(dataset, args.judge, **pool, **settings).write_parquet(args.output, mode=SaveMode.ERROR)


def check_folder(place: Path, kind: str) -> None:
    """Refuse a folder of which Ray would read a part without a word; hidden files are no data.

    Raises:
        DataFileError: It holds files of another kind.
    """
    files = [one for one in sorted(place.rglob("*")) if one.is_file() and not one.name.startswith((".", "_"))]
    others = [str(one) for one in files if not SUFFIXES[kind].intersection(one.suffixes)]
    if others:
        raise DataFileError(
            f"{place} expects files of {kind} alone, but holds {others[0]} too. Name the files to read."
        )


if __name__ == "__main__":
    main()
