"""One class that engines such as Ray Data run: it loads a judge once and scores batches of columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..api.load import Judge, load_judge
from ..engine import WINDOW_ROWS
from ..errors import SettingsError
from ..files.entries import Row, cut
from ..jobs.input import check_columns
from ..jobs.window import Outcome, arrow_schema, score_window
from ..results import FlatColumns


class InspectorBatchScorer:
    """Adds scores to batches; a batch that begins at a window's border gets what a single process gives.

    Added are the columns of `FlatColumns`, and `score_error`: why a row has no scores, else null. No row is dropped.

    Example:
        >>> scorer = InspectorBatchScorer()  # doctest: +SKIP
        >>> scorer({"question": ["2 + 2?"], "prediction": ["4"]})["total_score"]  # doctest: +SKIP
        [21]
    """

    def __init__(
        self, judge: Judge = None, *, columns: Mapping[str, str] | None = None, prefix: str = "", **kwargs: Any
    ) -> None:
        """Load the judge.

        Args:
            judge: Folder, Hub id or loaded pipeline; None is the embedded one.
            columns: `question` and `prediction` -> the batch's column, where it has another name.
            prefix: What the names of added columns begin with.
            **kwargs: For `load_judge`: device, dtype, revision, ...

        Raises:
            SettingsError: `columns` has another key.
        """
        check_columns(columns or {})
        self.judge = load_judge(judge, **kwargs)
        self.columns = {key: (columns or {}).get(key, key) for key in self.judge.encode.keys}
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
        """
        names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        self._check(names)
        texts = [_values(batch[column]) for column in self.columns.values()]
        pairs = [dict(zip(self.columns, pair, strict=True)) for pair in zip(*texts, strict=True)]
        windows = [score_window(self.judge, window) for window in cut(pairs, WINDOW_ROWS)]
        rows = [self.values(outcome) for outcomes in windows for outcome in outcomes]
        if isinstance(batch, pa.Table):
            found = pa.Table.from_pylist(rows, self.schema)
            for field in self.schema:
                batch = batch.append_column(field, found[field.name])
            return batch
        return {**batch, **{name: [row[name] for row in rows] for name in self.schema.names}}

    def values(self, outcome: Outcome) -> Row:
        """Flatten an outcome into the added columns."""
        if outcome.result is None:
            return {**dict.fromkeys(self.scores.kinds), self.error: outcome.reason}
        return {**self.scores.values(outcome.result), self.error: None}

    def _check(self, names: Sequence[str]) -> None:
        missing = [name for name in self.columns.values() if name not in names]
        taken = [name for name in self.schema.names if name in names]
        if missing or taken:
            raise SettingsError(
                f"A batch expects the columns {', '.join(self.columns.values())} and none of the added ones, but "
                f"{'lacks' if missing else 'has'} {(missing or taken)[0]!r}. Pass columns=... or prefix=...."
            )


def _values(column: Any) -> list[Any]:
    to_list = getattr(column, "to_pylist", None) or getattr(column, "tolist", None)
    return list(to_list() if to_list else column)
