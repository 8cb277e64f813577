"""One label of several raters', and an account of what became of all labels, by reason."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row

from .alpha import krippendorff_alpha
from .scales import MOST_UNREADABLE, Level, Scale, cells_of, plain, rater_columns

TIED = "its raters are divided evenly"


@dataclass(frozen=True)
class Settled:
    """One label, of one rater or several.

    Attributes:
        level: The label; None where there is none.
        reason: Why there is none.
        weight: Share of the raters who gave that very level.
    """

    level: Level | None
    reason: str | None = None
    weight: float = 1.0


def settle(ratings: Sequence[float], scale: Scale) -> Settled:
    """Make one label of several raters' numbers: their median, which of two middle ones is the lower.

    Of 0 and 1 evenly divided nothing is made; of real numbers their mean.

    Example:
        >>> settle([4, 5, 5], Scale(1, 5)), settle([0, 1], Scale(0, 1)).reason
        (Settled(level=5, reason=None, weight=0.6666666666666666), 'its raters are divided evenly')
    """
    ordered = sorted(ratings)
    if scale.means:
        levels = [scale.level(number) for number in ordered]
        level = scale.level(float(np.mean(ordered)))
        return Settled(level, weight=max(1, levels.count(level)) / len(levels))
    lower, upper = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if lower != upper and scale.is_binary:
        return Settled(None, TIED)
    return Settled(plain(lower), weight=ordered.count(lower) / len(ordered))


def agreement(units: Iterable[Sequence[float]], level: str) -> float | None:
    """Say how well raters agree: Krippendorff's alpha, 1 where they do, 0 where they agree as by chance.

    Args:
        units: What each unit's raters said; units of one rater are left out.
        level: nominal, ordinal or interval.

    Returns:
        Alpha; None where nothing was rated twice, or all values are the same.
    """
    rated = [list(unit) for unit in units if len(unit) > 1]
    if len({value for unit in rated for value in unit}) < 2:
        return None
    table = np.full((len(rated), max(map(len, rated))), np.nan)
    for row, unit in zip(table, rated, strict=True):
        row[: len(unit)] = unit
    return float(krippendorff_alpha(table, level)[0])


@dataclass
class Account:
    """What became of the labels of one aspect: each one that is not used is counted by its reason.

    Attributes:
        aspect: The aspect.
        column: Where its labels stand.
        scale: Their scale.
        n_read: Cells that could be read.
        used: Labels that are used.
        blank: Blank ones.
        unused: Reason -> count, of the others.
        examples: The first unreadable ones, each with its row.
        ratings: What several raters said of each response.
    """

    aspect: str
    column: str
    scale: Scale
    n_read: int = 0
    used: int = 0
    blank: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    ratings: list[list[float]] = field(default_factory=list)

    def check(self, allow_unreadable: bool) -> None:
        """Refuse more unreadable labels than by a few slips.

        Raises:
            DataFileError: More than 2 % cannot be read.
        """
        unreadable = sum(n for reason, n in self.unused.items() if reason != TIED)
        given = self.n_read + unreadable
        if not allow_unreadable and unreadable > MOST_UNREADABLE * given:
            raise DataFileError(
                f"{self.aspect} expects labels of {self.scale.describe()}, but {unreadable} of {given} "
                f"({unreadable / given:.1%}) cannot be read: {'; '.join(self.examples)}. Correct them, state the scale "
                f"(such as {self.aspect}=0..10), or leave them out with --allow-unreadable."
            )

    def to_dict(self) -> dict[str, Any]:
        """Write it for results.json and the card."""
        scale = self.scale
        several = [unit for unit in self.ratings if len(unit) > 1]
        metric = "interval" if scale.means else "nominal" if scale.is_binary else "ordinal"
        alpha = agreement(several, metric)
        return {
            "column": self.column,
            "scale": scale.describe(),
            "scale_stated": scale.is_stated,
            "words": list(scale.words),
            "good": scale.describe_good(),
            "good_from": scale.good,
            "good_stated": scale.good_is_stated,
            "n": self.used,
            "blank": self.blank,
            "unused": dict(self.unused.most_common()),
            "examples": self.examples,
            "raters": {
                "most": max(map(len, several), default=1),
                "rated_twice": len(several),
                "alpha": None if alpha is None else round(alpha, 4),
                "metric": metric,
            },
        }


def kind_of(reason: str) -> str:
    """Return why a label is not used without what it says, so that like ones are counted together."""
    return re.sub(r"^(['\"]).*\1 ", "", reason)


def read_cells(source: Row, column: str, scale: Scale) -> tuple[list[float], list[str]]:
    """Read the cells of one row: of one column, or of several raters, in a list or in columns joined by `+`.

    Returns:
        The numbers, and why others are none.
    """
    found = [scale.read(cell) for name in rater_columns(column, source) for cell in cells_of(source.get(name))]
    return [number for number, _ in found if number is not None], [reason for _, reason in found if reason]
