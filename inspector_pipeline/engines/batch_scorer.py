"""One class that engines such as Ray Data run: it loads a judge once and scores batches of columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..api.load import Judge, load_judge
from ..batches import WINDOW_ROWS
from ..errors import PairError, SettingsError
from ..files.entries import Row, cut
from ..jobs.window import Outcome, arrow_schema, score_window
from ..names import OPTIONAL, QUESTION_TURNS, normal
from ..results import FlatColumns
from ..rows import SAMPLE_ROWS, check_columns


class InspectorBatchScorer:
    """Adds scores to batches; a batch that begins at a window's border gets what a single process gives.

    Added are the columns of `FlatColumns`, and `score_error`: why a row has no scores, else null. No row is dropped.
    Rows as other tools write them (rows.py) get `question` and `prediction` as they were read too, and one with several
    responses becomes several, with its place in the batch as `source_row`. What is taken for what is settled by the
    first batch.

    Example:
        >>> scorer = InspectorBatchScorer()  # doctest: +SKIP
        >>> scorer({"question": ["2 + 2?"], "prediction": ["4"]})["total_score"]  # doctest: +SKIP
        [21]
    """

    def __init__(
        self,
        judge: Judge = None,
        *,
        columns: Mapping[str, str] | None = None,
        prefix: str = "",
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load the judge.

        Args:
            judge: Folder, Hub id or loaded pipeline; None is the embedded one.
            columns: `question`, `prediction`, ... -> the batch's column, where its name does not say.
            prefix: What the names of added columns begin with.
            strict: Whether a reference or a context that the judge does not read is an error.
            **kwargs: For `load_judge`: device, dtype, revision, ...

        Raises:
            SettingsError: `columns` has another key.
        """
        check_columns(columns or {})
        self.judge = load_judge(judge, **kwargs)
        self.reader = self.judge.row_reader(columns, strict=strict)
        self.scores = FlatColumns(self.judge.model.config, prefix)
        self.error = f"{prefix}score_error"
        self.schema = arrow_schema(self.scores).append(pa.field(self.error, pa.string()))  # of the added columns

    def __call__(self, batch: Any) -> Any:
        """Score a batch.

        Args:
            batch: Columns by name, each a list or an array, or a pyarrow Table.

        Returns:
            The same with the added columns; of a Table a Table, else a dict whose added columns are lists.

        Raises:
            SettingsError: A column is missing, or one of the added is there already.
            DataFileError: The columns may be meant in several ways; the message lists them.
        """
        names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        columns = {name: _values(batch[name]) for name in self._wanted(names)}
        given = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        layout = self.reader.layout or self.reader.settle(given[:SAMPLE_ROWS], names)
        if layout.plain is None:
            return self._of_other_rows(batch, given)
        self._check(names, list(layout.plain.values()))
        pairs = [self._plain_pair(row) for row in given]
        scores = iter(self._scored([pair for pair in pairs if not isinstance(pair, str)]))
        rows = [self.values(Outcome(None, pair)) if isinstance(pair, str) else next(scores) for pair in pairs]
        if isinstance(batch, pa.Table):
            found = pa.Table.from_pylist(rows, self.schema)
            for field in self.schema:
                batch = batch.append_column(field, found[field.name])
            return batch
        return {**batch, **{name: [row[name] for row in rows] for name in self.schema.names}}

    def _plain_pair(self, row: Row) -> Row | str:
        """Return a row's pair, or why it has none."""
        try:
            return self.reader.plain_pair(row)
        except PairError as error:
            return str(error)

    def _wanted(self, names: Sequence[str]) -> list[str]:
        """Name the columns that become Python values: all, until it is known that a few are enough."""
        plain = self.reader.layout.plain if self.reader.layout else None
        if plain is None and all(key in names for key in self.judge.encode.keys) and not self.reader.columns:
            plain = {key: key for key in (*self.judge.encode.keys, *OPTIONAL)}
        late = self.reader.layout.late.watched if self.reader.layout else frozenset()
        wanted = () if plain is None else (*plain.values(), QUESTION_TURNS)
        return [name for name in names if plain is None or name in wanted or normal(name) in late]

    def _scored(self, pairs: Sequence[Any]) -> list[Row]:
        windows = [score_window(self.judge, window) for window in cut(pairs, WINDOW_ROWS)]
        return [self.values(outcome) for outcomes in windows for outcome in outcomes]

    def _of_other_rows(self, batch: Any, given: Sequence[Row]) -> Any:
        """Score rows that pairs are put together from."""
        self._check(list(given[0]) if given else [], [])
        found: list[tuple[Row, Row | None, str | None]] = []
        for number, row in enumerate(given):
            try:
                found += [(one.row, one.pair, None) for one in self.reader.reads(row, number)]
            except PairError as error:
                found.append((row, None, str(error)))
        scores = iter(self._scored([pair for _, pair, _ in found if pair is not None]))
        rows = [
            {**row, **(next(scores) if pair is not None else self.values(Outcome(None, reason)))}
            for row, pair, reason in found
        ]
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
        if not isinstance(batch, pa.Table):
            return columns
        known = {field.name: field for field in (*batch.schema, *self.schema)}
        return pa.table(
            {name: pa.array(own, known[name].type if name in known else None) for name, own in columns.items()}
        )

    def values(self, outcome: Outcome) -> Row:
        """Flatten an outcome into the added columns."""
        if outcome.result is None:
            return {**dict.fromkeys(self.scores.kinds), self.error: outcome.reason}
        return {**self.scores.values(outcome.result), self.error: None}

    def _check(self, names: Sequence[str], needed: Sequence[str]) -> None:
        missing = [name for name in needed if name not in names]
        taken = [name for name in self.schema.names if name in names]
        if missing or taken:
            raise SettingsError(
                f"A batch expects the columns {', '.join(needed)} and none of the added ones, but "
                f"{'lacks' if missing else 'has'} {(missing or taken)[0]!r}. Pass columns=... or prefix=...."
            )


def _values(column: Any) -> list[Any]:
    to_list = getattr(column, "to_pylist", None) or getattr(column, "tolist", None)
    found = list(to_list() if to_list else column)
    return [one.tolist() if isinstance(one, np.ndarray) else one for one in found]  # lists in an array of objects
