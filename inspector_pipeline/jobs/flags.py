"""What scored rows say of themselves beside scores: which were cut, which are unfamiliar, which were seen."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..results import REASON, SEEN, UNFAMILIAR
from .drift import Drift, drift_told

TRUNCATED = "truncated"
FLAGS = (TRUNCATED, UNFAMILIAR, REASON, SEEN)
COMMONEST = 3  # reasons that are told
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?(?: %)?")


@dataclass
class Flags:
    """Counts of flagged rows.

    Attributes:
        prefix: What the columns' names begin with.
        rows: Rows that were counted.
        truncated: Rows whose pair was longer than the judge's limit and was cut.
        unfamiliar: Rows unlike what the judge was fitted on; None where the judge could not say it of any.
        seen: Rows whose question the judge was fitted on; None where it could not say it of any.
        drift: Compares the rows with those of the judge's fit; None where the judge does not say what they were like.
        reasons: Why rows are unfamiliar, with how many; the number that a reason begins with, a row's own, is left out.
    """

    prefix: str = ""
    rows: int = 0
    truncated: int = 0
    unfamiliar: int | None = None
    seen: int | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    drift: Drift | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of a row that are looked at."""
        own = [self.prefix + name for name in FLAGS]
        return own if self.drift is None else list(dict.fromkeys([*own, *self.drift.columns]))

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row, or a pipeline's result.

        Raises:
            KeyError: It does not say whether it was truncated.
        """
        self.truncated += bool(row[self.prefix + TRUNCATED])
        self.rows += 1
        unfamiliar, reason, seen = (row.get(self.prefix + name) for name in (UNFAMILIAR, REASON, SEEN))
        if unfamiliar is not None:
            self.unfamiliar = (self.unfamiliar or 0) + bool(unfamiliar)
        if seen is not None:
            self.seen = (self.seen or 0) + bool(seen)
        if unfamiliar:
            self.reasons[NUMBER.sub("…", reason or "no reason given", count=1)] += 1
        if self.drift is not None:
            self.drift.add(row)

    def counts(self) -> dict[str, Any]:
        """Return the numbers by name; what the judge cannot say is not there."""
        found: dict[str, Any] = {TRUNCATED: self.truncated}
        if self.unfamiliar is not None:
            found |= {UNFAMILIAR: self.unfamiliar, "unfamiliar_reasons": dict(self.reasons.most_common())}
        if self.seen is not None:
            found[SEEN] = self.seen
        return found if self.drift is None or not self.rows else {**found, "drift": self.drift.report()}


def told(counts: Mapping[str, Any], rows: int, output: str | None) -> str | None:
    """Say in one line how many rows are unfamiliar or seen, or what else is new in them, and what to do.

    Args:
        counts: Those of `Flags`.
        rows: Of how many.
        output: The file or folder of the rows, for the next command; None where nothing was written.

    Returns:
        None where there is nothing to say.
    """
    parts = []
    if counts.get(UNFAMILIAR):
        reasons = Counter(counts["unfamiliar_reasons"]).most_common()
        named = ", ".join(f'{number} x "{reason}"' for reason, number in reasons[:COMMONEST])
        more = ", ..." if len(reasons) > COMMONEST else ""
        parts.append(f"{counts[UNFAMILIAR]} of {rows} pairs are unlike what the judge was fitted on ({named}{more})")
    if counts.get(SEEN):
        parts.append(f"{counts[SEEN]} of {rows} pairs ask what the judge was fitted on, so it knows them too well")
    if drifted := drift_told(counts["drift"]) if "drift" in counts else None:
        parts.append(drifted)
    if counts.get(UNFAMILIAR) and output is not None:
        parts.append(f"leave the unlike ones out: inspector filter {shlex.quote(output)} --drop-unfamiliar")
    return "; ".join(parts) or None
