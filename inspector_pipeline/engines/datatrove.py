"""Steps for datatrove: read rows as a job does, score them, keep the good ones; for its local, Slurm and Ray executors.

    from datatrove.pipeline.writers import JsonlWriter

    from inspector_pipeline.engines.datatrove_executor import RestartingExecutor

    RestartingExecutor(
        [
            InspectorReader("responses/"),
            InspectorAnnotator(),
            InspectorFilter("factuality", 4, exclusion_writer=JsonlWriter("dropped/")),
            JsonlWriter("kept/"),
        ],
        tasks=8, workers=2, logging_dir="log/",
    ).run()

A document's text is the response; its metadata holds the question, the row's other columns and, once annotated, the
scores; what datatrove's JsonlWriter cannot hold is text there, bytes in base64. The reader deals out whole windows, so
that any number of tasks gives what a single process gives. Tasks that were completed are skipped when the same pipeline
is run again, as datatrove does. datatrove's own LocalPipelineExecutor runs these steps too, but waits for ever for a
worker that was killed (stop it, and run the same pipeline again).

On a Slurm cluster, where each task is a job of an array, the same steps go into

    from datatrove.executor import SlurmPipelineExecutor

    SlurmPipelineExecutor(
        [InspectorReader("/data/responses/"), InspectorAnnotator(device="cuda"), JsonlWriter("/data/scored/")],
        tasks=64, workers=16, time="04:00:00", partition="gpu", gpus_per_task=1, mem_per_cpu_gb=16,
        logging_dir="/data/log/", venv_path="/data/venv/bin/activate",
    ).run()

and on a Ray cluster, after `ray.init()`, into `datatrove.executor.ray.RayPipelineExecutor(steps, tasks=64, ...)`. Paths
must be on a disk that all nodes share.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.logging import logger

from ..api.load import load_judge
from ..batches import WINDOW_ROWS
from ..errors import SettingsError
from ..files.entries import Entry, cut
from ..files.sources import find_sources, skipped_files
from ..jobs.input import JobInput, settled
from ..jobs.manifest import check_finished
from ..jobs.where import Where
from ..jobs.window import score_window
from ..names import OPTIONAL, QUESTION_TURNS
from ..pairs import PAIR_KEYS
from ..results import FlatColumns
from ..rows import RowReader

ERROR = "score_error"


class InspectorReader(PipelineStep):
    """Reads the rows of a job's input; each task takes every so many-th window."""

    name = "Inspector"
    type = "📖 - READER"

    def __init__(
        self,
        input: str,
        split: str | None = None,
        columns: dict[str, str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        keys: tuple[str, ...] = PAIR_KEYS,
    ) -> None:
        """Keep the settings; they are those of `ScoreJob`.

        Args:
            input: File, folder or glob.
            split: Of a dataset.
            columns: Their names, where these do not say what they hold.
            where: Which rows are taken.
            limit: How many rows are taken.
            keys: The texts that the judge needs: `("question",)` for one whose readings hold the question alone.
        """
        super().__init__()
        self.input = input
        self.split = split
        self.columns = columns or {}
        self.where = where
        self.limit = limit
        self.keys = keys

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Give a task's documents, after those of a step before."""
        yield from data or ()
        if self.split is None:
            check_finished(Path(self.input))
        skipped = skipped_files(self.input) if self.split is None and rank == 0 else []
        if skipped:
            logger.warning(f"The input's files that were not read: {', '.join(map(ascii, skipped))}")
        where = Where(self.where) if self.where is not None else None
        reader = RowReader(self.columns, self.keys, where=self.input)
        sources, columns, is_read = settled(find_sources(self.input, self.split), reader)
        job_input = JobInput(sources, columns, where, self.limit, keys=self.keys, is_read=is_read)
        job_input.check_headers()
        for window in islice(cut(job_input, WINDOW_ROWS), rank, None, world_size):
            for entry in window:
                document = self._document(entry, job_input)
                self.update_doc_stats(document)
                yield document

    def _document(self, entry: Entry, job_input: JobInput) -> Document:
        row, columns = entry.row or {}, job_input.key_columns
        self._check_names(row, columns)
        if entry.fault is None:
            entry.fault = _misfit(row)
        row, entry.fault, entry.raw, pair = _writable([row, entry.fault, entry.raw, job_input.pair(entry)])
        beside = {key: value for key, value in pair.items() if key != "prediction"}
        metadata = {**row, "question": None, **beside, "place": entry.place, ERROR: entry.fault}
        metadata.pop(columns.get("prediction", "prediction"), None)
        text = pair.get("prediction")
        if entry.raw is not None:
            metadata["raw"] = entry.raw
        return Document(text if isinstance(text, str) else "", str(entry.number), metadata=metadata)

    def _check_names(self, row: dict[str, Any], columns: dict[str, str]) -> None:
        """Refuse a row whose own columns this step would overwrite."""
        added = ["place", ERROR, *(["question"] if columns["question"] != "question" else [])]
        taken = [name for name in added if name in row]
        if taken:
            raise SettingsError(
                f"InspectorReader expects no column of its own, but the input has {taken[0]!r}. Rename that column."
            )


def _misfit(row: dict[str, Any]) -> str | None:
    """Say why no writer can hold a row: lone surrogates, or whole numbers of more than 64 bits."""
    try:
        orjson.dumps(row, default=str)
    except TypeError as error:
        return f"expects values that can be written, but: {error}"
    return None


def _writable(value: Any) -> Any:
    """Write as text what datatrove's writers cannot hold."""
    if isinstance(value, dict):
        return {_writable(key): _writable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(one) for one in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    try:
        orjson.dumps(value)
    except TypeError:
        return str(value)
    return value


class InspectorAnnotator(PipelineStep):
    """Adds a judge's scores to the metadata, window by window; `score_error` says where there are none, and why."""

    name = "Inspector"
    type = "✍️ - ANNOTATOR"

    def __init__(self, judge: str | None = None, prefix: str = "", **kwargs: Any) -> None:
        """Keep the settings; the judge is loaded once a task.

        Args:
            judge: Folder or Hub id; None is the embedded one.
            prefix: What the names of the scores begin with.
            **kwargs: For `load_judge`: device, dtype, revision, ...
        """
        super().__init__()
        self.judge = judge
        self.prefix = prefix
        self.kwargs = kwargs

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Score a task's documents."""
        judge = load_judge(self.judge, **self.kwargs)
        columns = FlatColumns(judge.model.config, self.prefix)
        for window in cut(data or (), WINDOW_ROWS):
            with self.track_time("window"):
                self._annotate(window, judge, columns)
            yield from window

    def _annotate(self, window: list[Document], judge: Any, columns: FlatColumns) -> None:
        sound = [document for document in window if document.metadata.get(ERROR) is None]
        beside = ("question", *(key for key in judge.encode.keys if key in OPTIONAL))
        pairs = [{**{key: one.metadata.get(key) for key in beside}, "prediction": one.text} for one in sound]
        for pair, document in zip(pairs, sound, strict=True):
            pair[QUESTION_TURNS] = document.metadata.get(QUESTION_TURNS)
        outcomes = score_window(judge, pairs)
        for document in window:
            taken = [name for name in columns.kinds if name in document.metadata]
            if taken:
                raise SettingsError(
                    f"InspectorAnnotator expects no column of the judge's, but a document has {taken[0]!r}. Give a "
                    "prefix, such as prefix='judge_'."
                )
            document.metadata.update(dict.fromkeys(columns.kinds))
        for document, outcome in zip(sound, outcomes, strict=True):
            document.metadata[ERROR] = outcome.reason
            if outcome.result is not None:
                document.metadata.update(columns.values(outcome.result))
                self.stat_update("tokens", value=outcome.tokens, unit="pair")


class InspectorFilter(BaseFilter):
    """Keeps documents with at least some score; one without any is dropped with the reason `no_score`."""

    name = "Inspector"

    def __init__(self, by: str = "total_score", at_least: float = 0.0, exclusion_writer: Any = None) -> None:
        """Keep the settings.

        Args:
            by: The score.
            at_least: The least that is kept.
            exclusion_writer: Writes what is dropped.
        """
        super().__init__(exclusion_writer)
        self.by = by
        self.at_least = at_least

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Say whether to keep a document.

        Raises:
            SettingsError: It was not annotated with that score.
        """
        if self.by not in doc.metadata:
            raise SettingsError(
                f"InspectorFilter expects the score {self.by!r} in the metadata, but document {doc.id} has none. Put "
                "InspectorAnnotator before it."
            )
        score = doc.metadata[self.by]
        if score is None:
            return False, "no_score"
        return True if score >= self.at_least else (False, f"{self.by}_below_{self.at_least:g}")
