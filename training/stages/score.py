"""Score a file of responses with a judge, as `inspector score FILE` does.

    python -m training score --input work/results.json --judge work/judge --output work/results_model_multi_evaled.json

Rows keep their own keys and get the judge's columns: a score of each aspect and total_score first, as published. Rows
that cannot be scored stand with their reasons in OUTPUT.rejects.jsonl. A killed run goes on where it stopped.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from inspector_pipeline.api.load import holds_classifiers, load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row, read_rows, write_rows
from inspector_pipeline.jobs.score import ScoreJob, score_job, summary_of

from ..evaluation.scored import input_files
from ..rows.records import write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

STAGE = "score"


@dataclass(frozen=True)
class Config:
    """Settings of the score stage.

    Attributes:
        input: Rows with question and prediction, in any table format.
        judge: Folder or Hub id of a judge, or a folder of fitted classifiers.
        output: File of scored rows to write, in any table format.
        rubrics: Of classifiers: what they are read in, a probing set, JSON of readings or `own`.
        backbone: Of classifiers: another Hub id or folder of the backbone than they name.
        device: Where it runs; the first accelerator, else the CPU, by default.
        dtype: Of the backbone's computation; by default bfloat16 on a GPU that has it, else float32.
    """

    input: str
    judge: str
    output: str
    rubrics: str | None = None
    backbone: str | None = None
    device: str | None = None
    dtype: str | None = None


def run(config: Config) -> None:
    """Run the stage: responses -> scored rows.

    Raises:
        DataFileError: The input cannot be read, or none of its rows can be scored.
        JudgeConfigError: The judge cannot be used so.
        BackboneError: Its backbone cannot be loaded.
    """
    output = Path(config.output)
    rubrics = config.rubrics if config.rubrics and Path(config.rubrics).is_file() else None
    manifest = Manifest.of(STAGE, config, (config.input, rubrics, *_judge_files(config.judge)))
    if not manifest.vouches_for(output):
        named = {name: value for name, value in asdict(config).items() if name not in ("input", "judge", "output")}
        judge = load_judge(config.judge, **{name: value for name, value in named.items() if value is not None})
        digest = hashlib.sha256(json.dumps(asdict(manifest), sort_keys=True, default=str).encode()).hexdigest()
        parts = output.with_name(f"{output.name}.parts-{digest[:8]}")
        counts = score_job(ScoreJob(config.input, str(parts), format="jsonl"), judge)
        scored, rejected = (_gathered(folder) for folder in (parts, parts / "_rejects"))
        if not scored:
            raise DataFileError(
                f"{config.input} expects rows that can be scored, but {counts['rejected']} are rejected."
            )
        write_rows(scored, str(output))
        rejects = output.with_name(f"{output.name}.rejects.jsonl")
        rejects.unlink(missing_ok=True)
        if rejected:
            write_records(rejected, rejects)
        manifest.write(output, [output, rejects] if rejected else [output])
        logger.info("%s", summary_of(counts, str(output.parent)))
    else:
        logger.info("%s is already there.", output)
    for old in output.parent.glob(f"{output.name}.parts-*"):
        shutil.rmtree(old)


def _judge_files(judge: str) -> list[Path]:
    """Name the files that a judge consists of; none of one on the Hub."""
    if holds_classifiers(judge):
        return sorted(path for suffix in ("pkl", "skops", "json") for path in Path(judge).glob(f"*.{suffix}"))
    return input_files((), judge)


def _gathered(folder: Path) -> list[Row]:
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_rows(str(path))]
