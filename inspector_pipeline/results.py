"""What a judge says of a pair as flat columns, and the field that results are ranked by: the one layout of all doors.

`evaluate_samples`, files, folders, engines and the metric write these columns; the pipeline's result nests the aspects.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import SettingsError

TOTAL = "expected_total"
RANK_BY = "rank_by"
UNFAMILIAR, REASON, SEEN = "unfamiliar", "unfamiliar_reason", "seen"
PROBABILITIES = "probabilities"
SETS = "score_sets"  # only of a judge that was calibrated with score sets
ABSTAINED = "abstained"  # marks that are made once all rows are scored
EXPLANATION = "explanation"  # only where it is asked for
PUBLISHED_TOTAL = "total_score"
ADDED_COLUMNS = (TOTAL, PROBABILITIES, UNFAMILIAR, REASON, SEEN, RANK_BY)  # which were not there at first


def rank_choices(aspects: Sequence[Any]) -> tuple[str, ...]:
    """Return what a judge of these aspects may rank by: the expected total, where one counts, or an expected score."""
    total = (TOTAL,) if any(aspect.counts_in_total for aspect in aspects) else ()
    return (*total, *(f"expected_{aspect.name}" for aspect in aspects))


def own_rank_field(config: Any) -> str | None:
    """Return the field that a judge ranks by; None where it names none and no aspect counts in its total."""
    return config.rank_by or next((name for name in rank_choices(config.parsed_aspects) if name == TOTAL), None)


def rank_field(config: Any, asked: str | None = None) -> str:
    """Return the field that results are ranked by.

    Args:
        config: The judge's config.
        asked: Goes before the judge's own: one of `rank_choices`, `total_score` or an aspect.

    Raises:
        SettingsError: There is no such field, or no aspect counts in the total that would be ranked by.
    """
    aspects = config.parsed_aspects
    choices = rank_choices(aspects)
    asked = asked or config.rank_by or TOTAL
    numbered = [aspect.name for aspect in aspects if not aspect.words]
    fields = (*choices, *([PUBLISHED_TOTAL] if TOTAL in choices else []), *numbered)
    if asked in fields:
        return asked
    if asked in (TOTAL, PUBLISHED_TOTAL):
        raise SettingsError(
            f"A ranking by {asked} expects a judge with an aspect that counts in the total score, but got one where "
            f"none does. Name another field to rank by: {', '.join(fields)}."
        )
    raise SettingsError(f"rank_by expects one of {', '.join(fields)}, but got {asked!r}.")


def ranked_value(result: Mapping[str, Any], field: str) -> float:
    """Return a field of a pair's result, by its name as a column."""
    if field in (TOTAL, PUBLISHED_TOTAL):
        return float(result[field])
    kind = "scores" if field in result["scores"] else "expected"
    return float(result[kind][field if kind == "scores" else field.removeprefix("expected_")])


def expected_error(
    probabilities: Mapping[str, Mapping[Any, float]], scales: Mapping[str, Mapping[str, float]]
) -> float:
    """Return how far a label is expected to lie from the expected score: its standard deviation under probabilities.

    Args:
        probabilities: Aspect -> level, or its text -> probability.
        scales: Aspects whose sum is scored, which are taken to err independently -> level as text -> number.
    """
    variance = 0.0
    for name, numbers in scales.items():
        scores = [(numbers[str(level)], share) for level, share in probabilities[name].items()]
        mean = math.fsum(score * share for score, share in scores)
        variance += math.fsum(share * (score - mean) ** 2 for score, share in scores)
    return math.sqrt(variance)


def scales_of(config: Any, field: str | None) -> dict[str, dict[str, float]]:
    """Return the scales of the aspects that a field is made of: aspect -> level as text -> number.

    Args:
        config: The judge's config.
        field: A total, of those that count, or the field of one aspect; None, as of a judge that ranks by nothing, is
            all aspects.
    """
    aspects = config.parsed_aspects
    if field in (TOTAL, PUBLISHED_TOTAL):
        aspects = [aspect for aspect in aspects if aspect.counts_in_total]
    elif field is not None:
        aspects = [aspect for aspect in aspects if field in (aspect.name, f"expected_{aspect.name}")]
    return {one.name: dict(zip(map(str, one.levels), map(float, one.classes), strict=True)) for one in aspects}


def column_kinds(aspects: Sequence[str], sets: bool = False) -> dict[str, type]:
    """Return the columns of a judge with these aspects, and score sets if it gives them; see `FlatColumns`.

    Raises:
        SettingsError: An aspect is called as another column, such as `expected_fluency` beside `fluency`.
    """
    columns = [
        *((name, int) for name in (*aspects, PUBLISHED_TOTAL)),
        *((name, float) for name in (*(f"expected_{name}" for name in aspects), TOTAL)),
        *((PROBABILITIES, dict), ("truncated", bool)),
        *((UNFAMILIAR, bool), (REASON, str), (SEEN, bool), (RANK_BY, str)),
        *([(SETS, list)] if sets else []),
    ]
    kinds = dict(columns)
    if len(kinds) < len(columns):
        names = [name for name, _ in columns]
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"A judge expects aspects whose columns differ, but two would be called {twice!r}.")
    return kinds


def level_kind(aspect: Any) -> type:
    """Return the type of an aspect's scores: str for words, float where one is no whole number, else int."""
    return str if aspect.words else int if all(isinstance(value, int) for value in aspect.classes) else float


class FlatColumns:
    """The columns that a judge adds to a row.

    Attributes:
        aspects: The judge's aspects.
        prefix: What the columns' names begin with.
        rank_by: The column that rows are ranked by; None where the judge names none and no aspect counts.
        with_sets: The aspects that the judge gives score sets of.
        kinds: Name -> int, float, dict, bool, str or list, in the order in which they are written: each aspect's score
            (int; float where a level is no whole number, str where levels are words) and `total_score`; `expected_`
            scores and `expected_total`; `probabilities`, aspect -> class, as text -> share; `truncated`, whether the
            pair was longer than the judge's limit and was cut; `unfamiliar`, whether it is unlike what the judge was
            fitted on, and `unfamiliar_reason`; `seen`, whether the judge was fitted on its question; `rank_by`, which
            of the columns the judge ranks by; and, where it was calibrated with them, `score_sets`, aspect -> list of
            classes. All but the scores, `probabilities` and `truncated` may be null. Last, where it is asked for,
            `explanation`.
    """

    def __init__(self, config: Any, prefix: str = "", rank_by: str | None = None, *, explain: bool = False) -> None:
        """Name the columns.

        Args:
            config: The judge's config.
            prefix: What their names begin with.
            rank_by: The column to rank by; the judge's own where it is None.
            explain: Whether results come with explanations.

        Raises:
            SettingsError: An aspect is called as another column, such as `expected_fluency` beside `fluency`.
        """
        aspects = self.aspects = config.parsed_aspects
        rank_by = rank_by or own_rank_field(config)
        self.prefix = prefix
        self.rank_by = rank_by and prefix + rank_by
        sets = config.parsed_calibration
        self.with_sets = [aspect for aspect in aspects if aspect.name in sets and sets[aspect.name].least]
        kinds = column_kinds([aspect.name for aspect in aspects], bool(self.with_sets))
        kinds |= {aspect.name: level_kind(aspect) for aspect in aspects}
        if any(level_kind(aspect) is float for aspect in aspects if aspect.counts_in_total):
            kinds[PUBLISHED_TOTAL] = float
        self.kinds = {prefix + name: kind for name, kind in kinds.items()}
        self.explains = explain
        if explain and prefix + EXPLANATION in self.kinds:
            raise SettingsError(f"An explanation expects a judge without an aspect that is called {EXPLANATION!r}.")
        if explain:
            self.kinds[prefix + EXPLANATION] = object

    def values(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Flatten a pair's result."""
        shares = {
            name: {str(score): share for score, share in classes.items()}
            for name, classes in result[PROBABILITIES].items()
        }
        values = [
            *(*result["scores"].values(), result[PUBLISHED_TOTAL]),
            *(*result["expected"].values(), result[TOTAL]),
            *(shares, result["truncated"]),
            *(result[UNFAMILIAR], result[REASON], result[SEEN], self.rank_by),
            *([result[SETS]] if self.with_sets else []),
            *([result[EXPLANATION]] if self.explains else []),
        ]
        return dict(zip(self.kinds, values, strict=True))
