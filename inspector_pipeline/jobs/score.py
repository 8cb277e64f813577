"""Score an input of any size into a folder of parts, so that a killed run goes on where it stopped."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..engine import WINDOW_ROWS
from ..errors import DataFileError, SettingsError
from ..files.entries import Entry, cut, json_line
from ..files.sources import Source, find_sources
from ..pipeline_inspector import InspectorPipeline
from .input import Intake, check_columns, is_parquet, survey
from .manifest import job_manifest, settle_manifest, write_json
from .output import REJECTS, SUMMARY, JsonlWriter, ParquetWriter, Parts, RowWriter, reject_row, whole_file
from .progress import Progress
from .where import Where
from .window import ScoreColumns, score_window

FORMATS = ("jsonl", "parquet")
PART_ROWS = 4 * WINDOW_ROWS


@dataclass(frozen=True)
class ScoreJob:
    """What to score, and where the scores go.

    Attributes:
        input: A file, a folder, a glob, or with `split` the id of a dataset.
        output: The folder of the scores.
        split: The dataset's split.
        subset: The dataset's subset.
        columns: `question` and `prediction` -> the input's column, where it has another name.
        where: An expression on the input's columns that chooses rows.
        limit: How many rows to take.
        shard: Which of how many shares of the parts to score: (0, 1) is all of them.
        format: `jsonl` or `parquet`; None takes the input's kind.
        prefix: What the names of added columns begin with.
        batch_size: Pairs that are read ahead and scored together; None is 256.
        part_rows: Rows of a part, a multiple of 256; a killed run loses the part that it was at.
    """

    input: str
    output: str
    split: str | None = None
    subset: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    where: str | None = None
    limit: int | None = None
    shard: tuple[int, int] = (0, 1)
    format: str | None = None
    prefix: str = ""
    batch_size: int | None = None
    part_rows: int = PART_ROWS

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        index, of = self.shard
        if not 0 <= index < of:
            raise SettingsError(f"--shard expects i/n with 0 <= i < n, but got {index}/{of}.")
        check_columns(self.columns)
        if self.format not in (None, *FORMATS):
            raise SettingsError(f"--output-format expects {' or '.join(FORMATS)}, but got {self.format!r}.")
        if self.part_rows < 1 or self.part_rows % WINDOW_ROWS:
            raise SettingsError(f"--part-rows expects a multiple of {WINDOW_ROWS}, but got {self.part_rows}.")


def score_job(job: ScoreJob, judge: InspectorPipeline) -> dict[str, int]:
    """Score every row of the input, or say in the rejects why there is no score.

    Args:
        job: What to score.
        judge: A loaded judge.

    Returns:
        How many rows were `scored`, `rejected` and `truncated`, in this run's share and including earlier runs.

    Raises:
        DataFileError: The input or the folder cannot be used, or the folder is of another job.
        SettingsError: The settings do not fit the input.
    """
    return _Run(job, judge).run()


class _Run:
    """One run of a job."""

    def __init__(self, job: ScoreJob, judge: InspectorPipeline) -> None:
        self.job = job
        self.judge = judge
        sources = find_sources(job.input, job.split, job.subset)
        shape = job.format or ("parquet" if sources[0].schema is not None else "jsonl")
        self.parts = Parts(Path(job.output), f".{shape}")
        self.columns = ScoreColumns.of(judge, job.prefix)
        is_text = sources[0].schema is None
        self.intake = Intake(
            sources,
            job.columns,
            Where(job.where) if job.where is not None else None,
            job.limit,
            whole_rows=is_text or shape == "jsonl",
            unicode_only=is_text and shape == "parquet",
            keys=judge.encode.keys,
        )
        self.survey = survey(self.intake, typed=is_text and shape == "parquet")
        self._check_columns(sources, shape)

    def run(self) -> dict[str, int]:
        """Score what is not scored yet."""
        _make_folder(self.parts.folder)
        settle_manifest(self.parts.folder, job_manifest(self.job, self.judge, self.intake.sources, self.survey))
        counts = {"scored": 0, "rejected": 0, "truncated": 0}
        with Progress(self._my_rows(), f"shard {self.job.shard[0]}/{self.job.shard[1]}") as progress:
            for index, windows in self._my_parts():
                if self.parts.is_done(index):
                    progress.skip(sum(len(window) for window in windows))
                else:
                    self._write_part(index, windows, progress)
                expected = min(self.job.part_rows, self.survey.rows - index * self.job.part_rows)
                for key, number in self.parts.counts(index, expected, self.columns.truncated).items():
                    counts[key] += number
        name = SUMMARY if self.job.shard[1] == 1 else SUMMARY.replace(".", "-{}-of-{}.".format(*self.job.shard))
        write_json(self.parts.folder / name, counts)
        return counts

    def _my_rows(self) -> int:
        size = self.job.part_rows
        index, of = self.job.shard
        starts = range(index * size, self.survey.rows, of * size)
        return sum(min(size, self.survey.rows - start) for start in starts)

    def _my_parts(self) -> Iterator[tuple[int, Iterator[list[Entry]]]]:
        """Deal out the parts; each comes as a stream of its windows, which ends before the next one comes."""
        windows = cut(self.intake, WINDOW_ROWS)
        index = 0
        first = next(windows, [])
        while first or index == 0:  # an input without rows makes one part without rows
            mine = index % self.job.shard[1] == self.job.shard[0]
            stream = _some(first, windows, self.job.part_rows // WINDOW_ROWS)
            if mine:
                yield index, stream
            for _ in stream:
                pass
            first, index = next(windows, []), index + 1

    def _write_part(self, index: int, windows: Iterator[list[Entry]], progress: Progress) -> None:
        with ExitStack() as files:
            file = files.enter_context(whole_file(self.parts.path(index)))
            writer = self._writer(file)
            rejects: BinaryIO | None = None
            for window in windows:
                rejected, tokens = self._write_window(window, writer)
                if rejected and rejects is None:  # entered later, so closed earlier: before the part is whole
                    rejects = files.enter_context(whole_file(self.parts.rejects_path(index)))
                if rejects is not None:
                    rejects.writelines(json_line(reject_row(entry)) for entry in rejected)
                progress.add(len(window), tokens)
            writer.close()

    def _write_window(self, window: list[Entry], writer: RowWriter) -> tuple[list[Entry], int]:
        """Score and write one window; returns what was rejected, and how many tokens were read."""
        sound = [entry for entry in window if entry.fault is None]
        for entry, misfit in zip(sound, writer.misfits(sound), strict=True):
            entry.fault = misfit
        sound = [entry for entry in sound if entry.fault is None]
        pairs = [self.intake.pair(entry.row or {}) for entry in sound]
        outcomes = score_window(self.judge, pairs, self.job.batch_size)
        scored, values = [], []
        for entry, outcome in zip(sound, outcomes, strict=True):
            entry.fault = outcome.reason
            if outcome.result is not None:
                scored.append(entry)
                values.append(self.columns.values(outcome.result))
        writer.write(scored, values)
        rejected = [entry for entry in window if entry.fault is not None]
        return rejected, sum(outcome.tokens for outcome in outcomes)

    def _writer(self, file: BinaryIO) -> RowWriter:
        if self.parts.suffix == ".jsonl":
            return JsonlWriter(file)
        return ParquetWriter(file, self.survey, self.columns.schema)

    def _check_columns(self, sources: list[Source], shape: str) -> None:
        taken = [name for name in self.columns.names if name in self.survey.columns]
        if taken:
            raise SettingsError(
                f"The input expects no column of the judge's, but has {', '.join(taken)}. Give --prefix, such as "
                "--prefix judge_."
            )
        wanted = [self.job.columns.get(key, key) for key in self.intake.keys]
        missing = [name for name in wanted if name not in self.survey.columns]
        if sources[0].schema is not None and missing:
            raise SettingsError(
                f"The input expects the column {missing[0]!r}, but has {', '.join(self.survey.columns)}. Name it by "
                "--column question=... or --column prediction=...."
            )
        unheld = [one for one in self.survey.schema if shape == "parquet" and not is_parquet(one.type)]
        if unheld:
            raise SettingsError(
                f"Parquet cannot hold the column {unheld[0].name!r} of {unheld[0].type}. Give --output-format jsonl."
            )
        held = [one.name for one in self.survey.schema if "binary" in str(one.type)] if shape == "jsonl" else []
        if held:
            raise SettingsError(
                f"JSON expects text, but the column {held[0]!r} holds bytes. Give --output-format parquet."
            )


def _some(first: list[Entry], windows: Iterator[list[Entry]], count: int) -> Iterator[list[Entry]]:
    yield first
    for _ in range(count - 1):
        window = next(windows, None)
        if window is None:
            return
        yield window


def _make_folder(folder: Path) -> None:
    try:
        (folder / REJECTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFileError(f"{folder} expects to be a folder that can be written, but: {error.strerror}.") from error


def summary_of(counts: dict[str, Any], folder: str) -> str:
    """Say in one line what a job did."""
    parts = [f"{counts['scored']} pairs scored"]
    if counts["rejected"]:
        parts.append(f"{counts['rejected']} rejected (see {Path(folder) / REJECTS})")
    if counts["truncated"]:
        parts.append(f"{counts['truncated']} longer than the judge's limit and cut")
    return f"{', '.join(parts)}; in {folder}"
