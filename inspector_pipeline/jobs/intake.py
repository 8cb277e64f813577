"""What a job is to score: its input's rows, chosen, numbered and checked, always in the same order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import DataFileError, PairError, SettingsError
from ..pairs import PAIR_KEYS, check_pair
from ..tables import Row
from .entries import Entry, is_unicode
from .sources import Source
from .where import Where


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse other names for what no judge reads.

    Raises:
        SettingsError: A key is neither question nor prediction.
    """
    unknown = sorted(set(columns) - set(PAIR_KEYS))
    if unknown:
        raise SettingsError(f"--column expects {' or '.join(PAIR_KEYS)} before the =, but got {unknown[0]!r}.")


@dataclass(frozen=True)
class Intake:
    """Reads the rows of all sources as often as it is iterated.

    A row that cannot be scored comes with its fault, and takes its place in a window as every other.

    Attributes:
        sources: Where the rows are.
        columns: `question` and `prediction` -> the input's column.
        where: Chooses rows; one that it cannot decide on comes with a fault.
        limit: How many rows are taken, after the choice.
        whole_rows: Whether all columns are wanted as Python values.
        unicode_only: Whether rows with any text that UTF-8 cannot hold are refused.
        keys: The texts of a pair that are needed.
    """

    sources: Sequence[Source]
    columns: dict[str, str] = field(default_factory=dict)
    where: Where | None = None
    limit: int | None = None
    whole_rows: bool = True
    unicode_only: bool = False
    keys: tuple[str, ...] = PAIR_KEYS

    def __iter__(self) -> Iterator[Entry]:
        """Read the rows."""
        taken = 0
        for entry in self._numbered():
            if self.limit is not None and taken >= self.limit:
                return
            if entry.row is not None and entry.fault is None and not self._chooses(entry):
                continue
            if entry.row is not None and entry.fault is None:
                entry.fault = self._fault(entry.row)
            taken += 1
            yield entry

    def pair(self, row: Row) -> Row:
        """Take from a row what a judge reads."""
        return {key: row[self.columns.get(key, key)] for key in self.keys if self.columns.get(key, key) in row}

    def _numbered(self) -> Iterator[Entry]:
        number = 0
        for source in self.sources:
            for entry in source.entries(self._wanted()):
                entry.number = number
                number += 1
                yield entry

    def _wanted(self) -> list[str] | None:
        """Name the columns that are read as Python values; None is all."""
        if self.whole_rows or (self.where is not None and self.where.takes_all):
            return None
        chosen = self.where.columns if self.where is not None else set()
        return sorted(chosen | {self.columns.get(key, key) for key in self.keys})

    def _chooses(self, entry: Entry) -> bool:
        if self.where is None or entry.row is None:
            return True
        try:
            return self.where(entry.row)
        except DataFileError as error:
            entry.fault = str(error)
            return True

    def _fault(self, row: Row) -> str | None:
        for key in self.keys:
            column = self.columns.get(key, key)
            if column not in row:
                return f"expects the column {column!r} for the {key}, but has {sorted(map(str, row))!r:.200}"
        try:
            check_pair(self.pair(row), keys=self.keys)
        except PairError as error:
            return str(error)
        if self.unicode_only and not is_unicode(row):
            return "expects text that UTF-8 can hold in every column, as Parquet does, but got a lone surrogate"
        return None
