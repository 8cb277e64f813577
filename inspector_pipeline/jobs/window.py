"""Score one window of pairs, each of which gets a result or a reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..engine import WINDOW_ROWS, windows
from ..errors import BackboneError, PairError, SettingsError
from ..files.entries import Row
from ..pipeline_inspector import InspectorPipeline
from ..template import EncodedPair


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a pair.

    Attributes:
        result: The judge's result; None where there is none.
        reason: Why there is none.
        tokens: How many tokens the judge read, in all readings together.
    """

    result: Row | None
    reason: str | None = None
    tokens: int = 0


def score_schema(judge: InspectorPipeline, prefix: str = "") -> pa.Schema:
    """Return the columns that are added to a row, in the order in which they are written.

    Args:
        judge: A loaded judge.
        prefix: What the columns' names begin with.

    Returns:
        int64 for each aspect's score and `total_score`, float64 for the `expected_` scores, bool for `truncated`, which
        is the last and says whether a pair was longer than the judge's limit and was cut.

    Raises:
        SettingsError: An aspect is called as another column, such as `expected_fluency` beside `fluency`.
    """
    aspects = [aspect.name for aspect in judge.model.config.parsed_aspects]
    integers = [(prefix + name, pa.int64()) for name in (*aspects, "total_score")]
    floats = [(f"{prefix}expected_{name}", pa.float64()) for name in aspects]
    schema = pa.schema([*integers, *floats, (f"{prefix}truncated", pa.bool_())])
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise SettingsError(f"A judge expects aspects whose columns differ, but two would be called {twice[0]!r}.")
    return schema


def added_values(schema: pa.Schema, result: Row) -> Row:
    """Flatten a judge's result into the columns of `score_schema`."""
    values = [*result["scores"].values(), result["total_score"], *result["expected"].values(), result["truncated"]]
    return dict(zip(schema.names, values, strict=True))


def score_window(judge: InspectorPipeline, pairs: Sequence[Any], batch_size: int | None = None) -> list[Outcome]:
    """Score the pairs of one window.

    Args:
        judge: A loaded judge.
        pairs: At most `WINDOW_ROWS` pairs; those that cannot be scored may be among them.
        batch_size: Pairs that are scored together; None is all of them.

    Returns:
        One outcome a pair, in order. They depend on nothing but this window's pairs.
    """
    outcomes: list[Outcome] = []
    sound: dict[int, dict[str, EncodedPair]] = {}
    for index, pair in enumerate(pairs):
        try:
            sound[index] = judge.encode(pair)
            outcomes.append(Outcome(None, None, sum(len(one.input_ids) for one in sound[index].values())))
        except PairError as error:
            outcomes.append(Outcome(None, str(error)))
    for index, found in zip(sound, _results(judge, list(sound.values()), batch_size), strict=True):
        tokens = outcomes[index].tokens
        outcomes[index] = Outcome(None, found, tokens) if isinstance(found, str) else Outcome(found, None, tokens)
    return outcomes


def _results(judge: InspectorPipeline, window: list[dict[str, EncodedPair]], batch_size: int | None) -> list[Row | str]:
    """Score sound pairs; where one of them has no finite score, all of them alone, so that only that one has none."""
    try:
        return [row for part in windows(window, batch_size or WINDOW_ROWS) for row in judge.score_encoded(part)]
    except BackboneError as error:
        if len(window) == 1:
            return [str(error)]
    return [_results(judge, [pair], None)[0] for pair in window]
