"""What a table with labels is taken for, before anything is computed: which columns are labels, and on which scales."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inspector_pipeline.columns import two_sides
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.names import normal

from .columns import BESIDE
from .compared import PREFERENCE
from .labels import Account
from .rated import RATERS, LabelReader
from .scales import MOSTLY, Scale, cells_of, is_blank, nearly_number, number_of, rater_columns

logger = logging.getLogger(__name__)

NO_LABELS = ("id", "sample", "generator", "domain", "answer", "final_answer", "gold_answer", "row_id", *BESIDE)
COUNTS = (  # that tools write beside labels: of runs, of raters and of a task's history
    *(
        "epoch",
        "epochs",
        "turn",
        "step",
        "index",
        "idx",
        "rank",
        "testidx",
        "promptidx",
        "num_turns",
        "latencyms",
        "cost",
    ),
    *(*RATERS, "completed_by", "updated_by", "lead_time", "project", "user", "users"),
    *("total_annotations", "cancelled_annotations", "total_predictions", "comment_count", "unresolved_comment_count"),
)
PLACES = ("_id", ".id", "_at", "_suggestion", ".suggestion", ".suggestion.score")  # of what numbers, dates or suggests
HIGHEST = 10  # of columns that are taken for labels where none are named
FEW_WORDS = 8  # different ones, of a column that may hold labels
USUAL_SCALES = ((0, 1), (1, 5))  # whose good labels need not be said

Named = Mapping[str, str] | Sequence[str] | None


@dataclass(frozen=True)
class Understood:
    """What a table is taken for.

    Attributes:
        data: Settings of the data stage.
        aspects: The aspects of the judge.
        told: The same in words.
        good: Aspect -> from which level on labels are good, where the usual rule does not say so.
    """

    data: Row
    aspects: Sequence[str]
    told: str
    good: dict[str, float] = field(default_factory=dict)


def understand_comparisons(
    columns: Row, responses: Sequence[str], labels: Named, said: Mapping[str, str]
) -> Understood:
    """Take each row for a comparison of two responses.

    Args:
        columns: Settings of the data stage's columns.
        responses: Columns of the two.
        labels: Aspect -> column of who is better, or such columns; None where the first is.
        said: What these say -> first, second or tie.
    """
    outcome = dict(labels) if isinstance(labels, Mapping) else {column: column for column in labels or ()}
    compared = {"first": responses[0], "second": responses[1], "outcome": outcome, "said": dict(said)}
    of_labels = ", ".join(f"{aspect!r} from {column!r}" for aspect, column in outcome.items())
    told = f"comparisons of {responses[0]!r} and {responses[1]!r}; labels: "
    told += of_labels or f"none, so the response in {responses[0]!r} is taken for the better one"
    return Understood({"columns": columns, "compared": compared}, list(outcome) or [PREFERENCE], told)


def understand_ranks(columns: Row, prediction: str, ranks: Mapping[str, str]) -> Understood:
    """Take each row for a response that is ranked among those to its question.

    Args:
        columns: Settings of the data stage's columns.
        prediction: Column of the responses.
        ranks: Aspect -> column of the ranks.
    """
    told = ", ".join(f"{aspect!r} from {column!r}" for aspect, column in ranks.items())
    data: Row = {"columns": {**columns, "prediction": prediction}, "compared": {"rank": dict(ranks)}}
    return Understood(data, list(ranks), f"responses from {prediction!r}, ranked: {told}; 1 is the best")


def understand_labels(
    rows: list[Row],
    columns: Row,
    prediction: str,
    labels: Named,
    words: Mapping[str, float],
    scales: Mapping[str, str],
    good: Mapping[str, Any],
) -> Understood:
    """Take each row for a response with labels.

    Args:
        rows: The table.
        columns: Settings of the data stage's columns.
        prediction: Column of the responses.
        labels: Aspect -> column of its labels, or such columns; None finds them.
        words: Label as it is written -> number.
        scales: Aspect -> its stated scale.
        good: Aspect -> from which level on labels are good.

    Raises:
        DataFileError: A column is missing, no label is found, or a scale must be stated.
    """
    good = {aspect: str(level) for aspect, level in good.items()}
    texts = (columns["question"], prediction, *(columns[name] for name in BESIDE if name in columns))
    named = _named_labels(rows, labels, texts, words, scales)
    accounts = LabelReader(rows, named, words, scales, good).accounts
    told = ", ".join(f"{aspect!r} from {column!r} ({_taken_for(accounts[aspect])})" for aspect, column in named.items())
    data: Row = {"columns": {**columns, "prediction": prediction, "label": named}, "words": words}
    data |= {"scales": dict(scales), "good": good, "merge_raters": True}
    said = _said_good({name: account.scale for name, account in accounts.items()})
    return Understood(data, list(named), f"responses from {prediction!r}; labels: {told}", said)


def _named_labels(
    rows: list[Row],
    labels: Named,
    texts: Sequence[str],
    words: Mapping[str, float],
    scales: Mapping[str, str],
) -> dict[str, str]:
    """Return aspect -> column of its labels.

    Raises:
        DataFileError: A column is missing, or no label is found.
    """
    present = list(dict.fromkeys(column for row in rows for column in row))
    if labels is None:
        rest = [column for column in present if column not in (*texts, *NO_LABELS)]
        cells = {column: [row.get(column) for row in rows] for column in rest}
        labels = [column for column in rest if column in scales or _may_be_labels(column, cells[column], words)]
        _log_the_rest({column: own for column, own in cells.items() if column not in labels})
    named = dict(labels) if isinstance(labels, Mapping) else {column: column for column in labels}
    columns = [name for column in named.values() for name in rater_columns(column, present)]
    columns = [*(name for text in texts for name in rater_columns(text, present)), *columns]
    missing = [column for column in columns if column not in present]
    if missing:
        shown = ", ".join(map(repr, present)) or "none"
        raise DataFileError(
            f"The table expects the column {missing[0]!r}, but has {shown}. Name its question, prediction and labels"
            f"{_two_responses(rows)}."
        )
    if not named:
        raise DataFileError(
            "The table expects a column of labels, 1 to 5 or 0 and 1 or another scale of 0 to 10, but none of "
            f"{', '.join(map(repr, present))} is. Name them as labels, and state the scale of labels that are words."
            f"{_nearly_labels(rows, present)}"
        )
    return named


def _two_responses(rows: Sequence[Row]) -> str:
    """Say how two columns of responses are named, where there seem to be such."""
    sides = next((found for row in rows[:1] if (found := two_sides(row))), None)
    return f", or two responses that are compared by --responses {' '.join(sides)}" if sides else ""


def _may_be_labels(column: str, cells: list[Any], words: Mapping[str, float]) -> bool:
    return not _is_of_a_tool(column) and _look_like_labels(cells, words)


def _is_of_a_tool(column: str) -> bool:
    """Whether a column is called as what a tool counts, numbers, dates or suggests."""
    name = normal(column)
    return name in COUNTS or name.endswith(PLACES)


def _look_like_labels(cells: list[Any], words: Mapping[str, float]) -> bool:
    """Whether nearly all cells that are not blank are levels of a scale of 0 to 10, two different ones at least."""
    given = [one for cell in cells for one in cells_of(cell) if not is_blank(one)]
    found = [number for number in (number_of(cell, words) for cell in given) if number is not None]
    levels = [number for number in found if 0 <= number <= HIGHEST and (2 * number) % 1 == 0]
    return len(set(levels)) > 1 and len(levels) >= MOSTLY * len(given)


def _nearly_labels(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Say which column would hold labels if its numbers were written otherwise."""
    for column in columns:
        given = [row.get(column) for row in rows if not is_blank(row.get(column))]
        hows = [how for how in map(nearly_number, given) if how]
        if given and len(hows) >= MOSTLY * len(given):
            return f" {column!r} holds {str(given[0])[:40]!r}: {hows[0]}, in every row."
    return ""


def _log_the_rest(columns: Mapping[str, list[Any]]) -> None:
    """Say which columns are not taken for labels, and how one that holds a few words could be."""
    if columns:
        logger.info("Columns that are no labels: %s.", ", ".join(map(repr, columns)))
    for column, cells in columns.items():
        found = list(dict.fromkeys(str(cell).strip() for cell in cells if not is_blank(cell)))
        if any(isinstance(cell, (dict, list)) for cell in cells):
            continue
        if 1 < len(found) <= min(FEW_WORDS, len(cells) / 4) and not _is_of_a_tool(column):
            shown = "<".join(found)
            logger.info(
                "%r holds %s: state its scale, lowest first, if these are labels: %s=%r.",
                column,
                ", ".join(found),
                column,
                shown,
            )


def _taken_for(account: Account) -> str:
    return f"{account.scale.describe()}, good is {account.scale.describe_good()}"


def _said_good(scales: Mapping[str, Scale]) -> dict[str, float]:
    """Return from which level on labels are good, of the aspects whose scale does not say it by itself."""
    return {
        aspect: float(scale.good)
        for aspect, scale in scales.items()
        if scale.good_is_stated or scale.words or scale.means or (scale.low, scale.high) not in USUAL_SCALES
    }
