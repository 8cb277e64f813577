"""Score one window of pairs, each of which gets a result or a reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..engine import WINDOW_ROWS, windows
from ..errors import BackboneError, PairError
from ..files.tables import Row
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


@dataclass(frozen=True)
class ScoreColumns:
    """The columns that a job adds to a row.

    Attributes:
        aspects: The judge's aspects.
        prefix: What their names begin with.
    """

    aspects: tuple[str, ...]
    prefix: str = ""

    @classmethod
    def of(cls, judge: InspectorPipeline, prefix: str = "") -> "ScoreColumns":
        """Name the columns for a judge."""
        return cls(tuple(aspect.name for aspect in judge.model.config.parsed_aspects), prefix)

    @property
    def integers(self) -> tuple[str, ...]:
        """Scores and their total."""
        return tuple(self.prefix + name for name in (*self.aspects, "total_score"))

    @property
    def floats(self) -> tuple[str, ...]:
        """Expected scores."""
        return tuple(f"{self.prefix}expected_{name}" for name in self.aspects)

    @property
    def truncated(self) -> str:
        """Whether a pair was longer than the judge's limit and was cut."""
        return f"{self.prefix}truncated"

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the order in which they are written."""
        return (*self.integers, *self.floats, self.truncated)

    @property
    def schema(self) -> pa.Schema:
        """Their types in Arrow."""
        kinds = [(self.integers, pa.int64()), (self.floats, pa.float64()), ((self.truncated,), pa.bool_())]
        return pa.schema([(name, kind) for names, kind in kinds for name in names])

    def values(self, result: Row) -> Row:
        """Flatten a judge's result."""
        scores, expected = result["scores"], result["expected"]
        numbers = [*(scores[name] for name in self.aspects), result["total_score"]]
        values = [*numbers, *(expected[name] for name in self.aspects), result["truncated"]]
        return dict(zip(self.names, values, strict=True))


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
    sound: list[int] = []
    window: list[dict[str, EncodedPair]] = []
    for pair in pairs:
        try:
            encoded = judge.encode(pair)
        except PairError as error:
            outcomes.append(Outcome(None, str(error)))
            continue
        sound.append(len(outcomes))
        window.append(encoded)
        outcomes.append(Outcome(None, None, sum(len(one.input_ids) for one in encoded.values())))
    for at, found in zip(sound, _results(judge, window, batch_size), strict=True):
        tokens = outcomes[at].tokens
        outcomes[at] = Outcome(None, found, tokens) if isinstance(found, str) else Outcome(found, None, tokens)
    return outcomes


def _results(judge: InspectorPipeline, window: list[dict[str, EncodedPair]], batch_size: int | None) -> list[Row | str]:
    """Score sound pairs; where one of them has no finite score, all of them alone, so that only that one has none."""
    try:
        return [row for part in windows(window, batch_size or WINDOW_ROWS) for row in judge.score_encoded(part)]
    except BackboneError as error:
        if len(window) == 1:
            return [str(error)]
    return [_results(judge, [pair], None)[0] for pair in window]
