"""What a page is made of: the numbers of scored rows, and what is asked for beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspector_pipeline.jobs.flags import Flags

from ..evaluation.metrics import Array, Index


@dataclass
class Scored:
    """The numbers of scored rows.

    Attributes:
        place: Where they stand.
        prefix: What the judge's columns begin with.
        aspects: The judge's aspects.
        ranked_by: The column that rows are ranked by.
        scores: Aspect -> each row's score: a number, or a word where the labels were words.
        expected: Aspect -> (rows,) expected scores.
        ranked: (rows,) the field that rows are ranked by.
        doubt: (rows,) how far a label is expected to lie from the ranked field: the standard deviation under the
            probabilities, of aspects that err independently.
        good: Aspect -> class -> (rows,) probabilities, for the aspects that have labels.
        labels: Aspect -> (rows,) labels, NaN where a row has none.
        groups: (rows,) each row's group; all of one where none was asked for.
        questions: (rows,) a number for each question.
        flags: Counts of flagged rows, as the job counts them.
        abstained: From how many rows the judge abstains; None where rows do not say it.
        rejected: Rows of the job that have no score.
        manifest: The job's; empty where the rows are a file.
        unread: Aspect -> how many cells of its labels' column hold something that is no label.
    """

    place: Path
    prefix: str
    aspects: list[str]
    ranked_by: str
    scores: dict[str, list[Any]]
    expected: dict[str, Array]
    ranked: Array
    doubt: Array
    good: dict[str, dict[int, Array]]
    labels: dict[str, Array]
    groups: list[str]
    questions: Index
    flags: Flags
    abstained: int | None
    rejected: int
    manifest: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, str]:
        """The columns of question and response, as the job was told them."""
        return text_columns(self.manifest)

    @property
    def rows(self) -> int:
        """How many rows were scored."""
        return len(self.ranked)


def text_columns(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return the columns of question and response that a job's manifest names."""
    named = manifest.get("settings", {}).get("columns") or {}
    return named.get("question", "question"), named.get("prediction", "prediction")


@dataclass(frozen=True)
class Asked:
    """What to read beside the scores.

    Attributes:
        labels: Aspect -> column of its labels.
        group: The column whose values make groups.
        prefix: What the judge's columns begin with; found where it is None.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    prefix: str | None = None
