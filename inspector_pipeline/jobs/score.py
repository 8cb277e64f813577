"""Score an input of any size into a folder of parts, so that a killed run goes on where it stopped."""

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import torch

from ..api.load import evidence_path
from ..batches import WINDOW_ROWS
from ..errors import DataFileError, SettingsError
from ..files.entries import Entry, cut, json_line
from ..files.sources import find_sources, skipped_files
from ..pipeline_inspector import InspectorPipeline
from ..progress import Progress, Sizes, Tally
from ..results import ABSTAINED, ADDED_COLUMNS, FlatColumns
from ..rows import RowReader, check_columns
from .abstain import mark_abstained
from .drift import Drift
from .flags import Flags
from .input import JobInput, is_parquet, settled, survey_input
from .manifest import check_finished, is_older_job, job_manifest, settle_manifest, threads_of, write_json
from .output import REJECTS, JsonlWriter, ParquetWriter, Parts, reject_row, whole_file
from .where import Where
from .window import arrow_schema, score_window
from .workers import Relay, default_workers, run_workers

logger = logging.getLogger(__name__)

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
        columns: `question`, `prediction`, ... (`names.COLUMN_KEYS`) -> the input's column, where its name does not say.
        where: An expression on the input's columns that chooses rows.
        limit: How many rows to take.
        shard: Which of how many shares of the parts to score: (0, 1) is all of them.
        format: `jsonl` or `parquet`; None takes the input's kind.
        prefix: What the names of added columns begin with.
        batch_size: Pairs that are read ahead and scored together; None is 256.
        part_rows: Rows of a part, a multiple of 256; a killed run loses the part that it was at.
        strict: Whether a reference or a context that the judge does not read is an error.
        abstain: Share of the rows to mark as those with the largest expected error, once all are scored; 0 marks none.
        explain: Whether each row gets what its tokens add to its scores; into JSON Lines only.
        workers: Processes of one thread each that score parts side by side, on a CPU; 1 is this one, with all threads,
            and None what is faster (`workers.default_workers`), unless the job was begun otherwise.
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
    strict: bool = False
    abstain: float = 0.0
    explain: bool = False
    workers: int | None = 1

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        index, of = self.shard
        if not 0 <= index < of:
            raise SettingsError(f"--shard expects i/n with 0 <= i < n, but got {index}/{of}.")
        check_columns(self.columns)
        if not 0 <= self.abstain <= 1 or (self.abstain and of > 1):
            raise SettingsError(
                f"--abstain expects a share from 0 to 1 of a whole job, but got {self.abstain} of shard {index}/{of}. "
                "Give it in one more call without --shard, once all shards are done."
            )
        if self.format not in (None, *FORMATS):
            raise SettingsError(f"--output-format expects {' or '.join(FORMATS)}, but got {self.format!r}.")
        if self.part_rows < 1 or self.part_rows % WINDOW_ROWS:
            raise SettingsError(f"--part-rows expects a multiple of {WINDOW_ROWS}, but got {self.part_rows}.")


def score_job(job: ScoreJob, judge: InspectorPipeline) -> dict[str, Any]:
    """Score every row of the input, or say in the rejects why there is no score.

    Args:
        job: What to score.
        judge: A loaded judge.

    Returns:
        How many rows were `scored`, `rejected` and `truncated`, in this run's share and including earlier runs; where
        the judge can say so how many are `unfamiliar` (with `unfamiliar_reasons`) and `seen`; from how many the judge
        `abstained`, where it was to; and how many files of the input were `skipped`, where there are any.

    Raises:
        DataFileError: The input or the folder cannot be used, or the folder is of another job.
        SettingsError: The settings do not fit the input.
    """
    return _Run(job, judge).run()


def _check_place(job: ScoreJob) -> None:
    """Refuse an output that the same job, when it goes on, would read as its input."""
    place, output = Path(job.input), Path(job.output)
    fixed = Path(re.split(r"[*?[]", job.input)[0] + "x").parent  # what stands before the first sign of a glob
    folder = place if place.is_dir() else fixed if "**" in job.input else None
    is_within = folder is not None and output.resolve().is_relative_to(folder.resolve())
    parts = [output.absolute() / f"part-000000.{one}" for one in FORMATS]
    if job.split is None and (is_within or any(part.match(str(place.absolute())) for part in parts)):
        raise SettingsError(f"--output expects a folder outside of the input, but got {job.output} within {job.input}.")


class _Run:
    """One run of a job."""

    def __init__(self, job: ScoreJob, judge: InspectorPipeline) -> None:
        self.job = job
        self.judge = judge
        if job.split is None:
            check_finished(Path(job.input))  # another job's folder, which may lack parts
        sources = find_sources(job.input, job.split, job.subset)
        self.skipped = skipped_files(job.input) if job.split is None else []
        _check_place(job)
        self.format = job.format or ("jsonl" if sources[0].schema is None else "parquet")
        self.parts = Parts(Path(job.output), f".{self.format}")
        if job.explain and self.format == "parquet":
            raise SettingsError(
                "Explanations expect JSON Lines, which hold lists of texts with numbers. Give --output-format jsonl."
            )
        self.columns = FlatColumns(judge.model.config, job.prefix, explain=job.explain)
        self.is_older = is_older_job(self.parts.folder)
        added = [*arrow_schema(self.columns)]
        lacking = {job.prefix + name for name in ADDED_COLUMNS} if self.is_older else set()
        self.added = pa.schema([one for one in added if one.name not in lacking])
        keys = judge.encode.keys
        sources, columns, is_read = settled(sources, RowReader(job.columns, keys, strict=job.strict, where=job.input))
        is_text = sources[0].schema is None
        self.input = JobInput(
            sources,
            columns,
            Where(job.where) if job.where is not None else None,
            job.limit,
            whole_rows=is_text or self.format == "jsonl",
            unicode_only=is_text and self.format == "parquet",
            keys=keys,
            is_read=is_read,
        )
        typed = is_text and self.format == "parquet"
        size_of = Sizes(judge.encode.keys, judge.encode.encoders.values())
        self.survey = survey_input(self.input, typed=typed, size_of=size_of)
        self._check_columns(is_text)

    def _check_columns(self, is_text: bool) -> None:
        columns, schema = self.survey.columns, self.survey.schema
        marks = [self.job.prefix + ABSTAINED] if self.job.abstain else []
        taken = [name for name in (*self.added.names, *marks) if name in columns]
        if taken:
            raise SettingsError(
                f"The input expects no column of the judge's, but has {', '.join(taken)}. Give --prefix, such as "
                "--prefix judge_."
            )
        missing = [name for name in self.input.key_columns.values() if name not in columns]
        if missing and not is_text:
            raise SettingsError(
                f"{self.job.input} expects the column {missing[0]!r}, but has {', '.join(columns)}. Name it by "
                "--column question=... or --column prediction=...."
            )
        for one in schema:
            if self.format == "parquet" and not is_parquet(one.type):
                raise SettingsError(
                    f"Parquet cannot hold the column {one.name!r} of {one.type}. Give --output-format jsonl."
                )
            if self.format == "jsonl" and "binary" in str(one.type):
                raise SettingsError(
                    f"JSON expects text, but the column {one.name!r} holds bytes. Give --output-format parquet."
                )

    def run(self) -> dict[str, Any]:
        """Score what is not scored yet."""
        folder = self.parts.folder
        try:
            (folder / REJECTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFileError(
                f"{folder} expects to be a folder that can be written, but: {error.strerror}."
            ) from error
        workers = self._workers()
        threads = torch.get_num_threads()
        torch.set_num_threads(1 if workers > 1 else threads)
        try:
            return self._run(workers)
        finally:
            torch.set_num_threads(threads)

    def _workers(self) -> int:
        """Say in how many processes the parts are scored."""
        job, parts = self.job, -(-self.survey.rows // self.job.part_rows)
        if job.shard != (0, 1) or self.judge.device.type != "cpu":
            return 1
        if job.workers is not None:
            return max(1, min(job.workers, parts))
        cores, begun = torch.get_num_threads(), threads_of(self.parts.folder)
        if begun is None:
            return default_workers(parts, cores)
        return max(1, min(cores, parts)) if begun == 1 else 1  # it goes on in the threads that it was begun with

    def _run(self, workers: int) -> dict[str, Any]:
        job, folder, rows = self.job, self.parts.folder, self.survey.rows
        columns = None if self.is_older else self.added.names
        settle_manifest(folder, job_manifest(job, self.judge, self.input.sources, self.survey, columns))
        self.parts.check_names(max(1, -(-rows // job.part_rows)))
        index, of = job.shard
        if workers > 1:
            run_workers(self._work, [self._tally(number, workers) for number in range(workers)])
        counts: dict[str, Any] = {"scored": 0, "rejected": 0}
        evidence = Drift.of(evidence_path(self.judge.model), self.input.key_columns, job.prefix)
        flags = Flags(job.prefix, drift=evidence)
        with Progress(f"shard {index}/{of}", self._tally(index, of), disable=workers > 1) as progress:
            for part in self._done_parts(index, of, progress):
                expected = min(job.part_rows, rows - part * job.part_rows)
                for key, number in self.parts.counts(part, expected, flags).items():
                    counts[key] += number
                self.parts.seal(part)
        for source in self.input.sources:
            source.check_unchanged()
        counts |= flags.counts()
        if job.abstain:
            counts[ABSTAINED] = mark_abstained(self.parts, self.columns, self.judge.model.config, job.abstain)
        if self.skipped:
            counts["skipped"] = len(self.skipped)
            logger.warning("The input's files that were not read: %s", ", ".join(self.skipped))
        write_json(folder / ("_summary.json" if of == 1 else f"_summary-{index}-of-{of}.json"), counts)
        return counts

    def _done_parts(self, index: int, of: int, progress: Progress | Relay) -> Iterator[int]:
        """Score the parts of a share that are not there yet; gives each once it is there."""
        for part, windows in self._my_parts(index, of):
            if self.parts.path(part).is_file():
                self.parts.check(part)
                progress.skip(sum(len(window) for window in windows))
            else:
                self.parts.forget(part)
                self._write_part(part, windows, progress)
            yield part

    def _work(self, number: int, of: int, relay: Relay) -> None:
        """Do the parts of one of several workers."""
        for part in self._done_parts(number, of, relay):
            self.parts.seal(part)

    def _tally(self, index: int, of: int) -> Tally:
        """Return what there is to do in a share, window by window."""
        job, survey = self.job, self.survey
        starts = range(index * job.part_rows, survey.rows, of * job.part_rows)
        size = job.part_rows // WINDOW_ROWS
        sizes = [one for start in starts for one in survey.sizes[start // WINDOW_ROWS :][:size]]
        return Tally(sum(min(job.part_rows, survey.rows - start) for start in starts), sizes, WINDOW_ROWS)

    def _check_unchanged(self) -> None:
        for source in self.input.begun:
            source.check_unchanged()
        del self.input.begun[:-1]  # the last one may not be at its end

    def _my_parts(self, index: int, of: int) -> Iterator[tuple[int, Iterator[list[Entry]]]]:
        """Deal out the parts; each comes as a stream of its windows, which ends before the next one comes."""
        windows = cut(self.input, WINDOW_ROWS) if self.survey.rows else iter([[]])  # without rows it is one part
        size = self.job.part_rows // WINDOW_ROWS
        for part, group in groupby(enumerate(windows), key=lambda numbered: numbered[0] // size):
            if part % of == index:
                yield part, (window for _, window in group)

    def _write_part(self, index: int, windows: Iterator[list[Entry]], progress: Progress | Relay) -> None:
        with ExitStack() as files:
            file = files.enter_context(whole_file(self.parts.path(index)))
            is_jsonl = self.format == "jsonl"
            writer = JsonlWriter(file) if is_jsonl else ParquetWriter(file, self.survey, self.added)
            rejects: BinaryIO | None = None
            for window in windows:
                rejected = self._write_window(window, writer, progress)
                if rejected and rejects is None:  # entered later, so closed earlier: before the part is whole
                    rejects = files.enter_context(whole_file(self.parts.rejects_path(index)))
                if rejects is not None:
                    rejects.writelines(json_line(reject_row(entry)) for entry in rejected)
            progress.end()
            writer.close()
            self._check_unchanged()  # while the part is not there yet

    def _write_window(
        self, window: list[Entry], writer: JsonlWriter | ParquetWriter, progress: Progress | Relay
    ) -> list[Entry]:
        """Score and write one window; returns what was rejected."""
        sound = [entry for entry in window if entry.fault is None]
        for entry, misfit in zip(sound, writer.misfits(sound), strict=True):
            entry.fault = misfit
        sound = [entry for entry in sound if entry.fault is None]
        pairs = [self.input.pair(entry) for entry in sound]
        options: dict[str, Any] = {"explain": self.job.explain, "progress": progress, "rows": len(window)}
        outcomes = score_window(self.judge, pairs, self.job.batch_size, **options)
        scored = []
        for entry, outcome in zip(sound, outcomes, strict=True):
            entry.fault = outcome.reason
            if outcome.result is not None:
                values = self.columns.values(outcome.result)
                scored.append((entry, {name: values[name] for name in self.added.names}))
        writer.write([entry for entry, _ in scored], [values for _, values in scored])
        return [entry for entry in window if entry.fault is not None]


def summary_of(counts: dict[str, Any], folder: str) -> str:
    """Say in one line what a job did."""
    parts = [f"{counts['scored']} pairs scored"]
    if counts["rejected"]:
        parts.append(f"{counts['rejected']} rejected (see {Path(folder) / REJECTS})")
    if ABSTAINED in counts:
        parts.append(f"{counts[ABSTAINED]} abstained from")
    if counts.get("skipped"):
        parts.append(f"{counts['skipped']} of the input's files skipped")
    if counts["truncated"]:
        parts.append(f"{counts['truncated']} longer than the judge's limit and cut")
    return f"{', '.join(parts)}; in {folder}"
