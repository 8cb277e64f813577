"""Score one window of pairs, each of which gets a result or a reason."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from ..batches import WINDOW_ROWS, windows
from ..encoded import EncodedPair
from ..errors import BackboneError, PairError
from ..files.entries import Row
from ..pipeline_inspector import InspectorPipeline
from ..progress import Progress
from ..results import FlatColumns, level_kind
from .workers import Relay

ARROW_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}


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


def arrow_schema(columns: FlatColumns) -> pa.Schema:
    """Return a judge's columns with their types in Arrow and Parquet."""
    classes = [(aspect.name, [(str(score), pa.float64()) for score in aspect.levels]) for aspect in columns.aspects]
    shares = pa.struct([(name, pa.struct(fields)) for name, fields in classes])
    sets = pa.struct([(aspect.name, pa.list_(ARROW_TYPES[level_kind(aspect)])) for aspect in columns.with_sets])
    types = {**ARROW_TYPES, dict: shares, list: sets, object: pa.string()}  # explanations: in JSON Lines alone
    return pa.schema([(name, types[kind]) for name, kind in columns.kinds.items()])


def score_window(
    judge: InspectorPipeline,
    pairs: Sequence[Any],
    batch_size: int | None = None,
    *,
    explain: bool = False,
    progress: Progress | Relay | None = None,
    rows: int | None = None,
) -> list[Outcome]:
    """Score the pairs of one window.

    Args:
        judge: A loaded judge.
        pairs: At most `WINDOW_ROWS` pairs; those that cannot be scored may be among them.
        batch_size: Pairs that are scored together; None is all of them.
        explain: Whether results come with explanations.
        progress: Told of the pairs and of each pass.
        rows: How many the pairs count for there, with those that are not among them any more; None is as many.

    Returns:
        One outcome a pair, in order. They depend on nothing but this window's pairs.
    """
    outcomes: list[Outcome] = []
    sound: dict[int, dict[str, EncodedPair]] = {}
    for index, pair in enumerate(pairs):
        try:
            sound[index] = judge.encode(pair, keep_places=True) if explain else judge.encode(pair)
            outcomes.append(Outcome(None, None, sum(len(one.input_ids) for one in sound[index].values())))
        except PairError as error:
            outcomes.append(Outcome(None, str(error)))
    score = partial(judge.score_encoded, explain=True) if explain else judge.score_encoded
    if progress is not None:
        progress.begin(len(pairs) if rows is None else rows, sum(outcome.tokens for outcome in outcomes))
        score = partial(score, on_pass=progress.passed)
    for index, found in zip(sound, _results(score, list(sound.values()), batch_size), strict=True):
        tokens = outcomes[index].tokens
        outcomes[index] = Outcome(None, found, tokens) if isinstance(found, str) else Outcome(found, None, tokens)
    return outcomes


def _results(
    score: Callable[[list[dict[str, EncodedPair]]], Iterator[Row]],
    window: list[dict[str, EncodedPair]],
    batch_size: int | None,
) -> list[Row | str]:
    """Score sound pairs; where one of them has no finite score, all of them alone, so that only that one has none."""
    try:
        return [row for part in windows(window, batch_size or WINDOW_ROWS) for row in score(part)]
    except BackboneError as error:
        if len(window) == 1:
            return [str(error)]
    return [_results(score, [pair], None)[0] for pair in window]
