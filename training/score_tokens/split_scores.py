"""Scales of which one score begins with another's token, as 10 does with that of 1 where each digit is a token."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from inspector_pipeline.template import PairTemplate

from .prompts import ScoreReading, before_own_tokens, ids_after


class SplitScore(NamedTuple):
    """A scale of which one score begins with another's token, as 10 with that of 1 where each digit is a token.

    Attributes:
        scores: The scale without the longer score.
        first: Reads these scores; the shorter one stands for both.
        both: The shorter score and the longer one.
        second: Reads on behind what both begin with: the token that ends a reply, or the longer score's second.
    """

    scores: list[int]
    first: ScoreReading
    both: tuple[int, int]
    second: ScoreReading


def split_score(
    reading: PairTemplate, tokenizer: PreTrainedTokenizerBase, scores: Sequence[int], end_id: int | None
) -> SplitScore | None:
    """Find how a scale is read of which one score begins with another's token, such as 1 to 10.

    The first state gives what the shared token has; by the chain rule it is shared between the two scores as the second
    state, behind that token, has it for the reply's end and for the longer score's second token.

    Args:
        reading: It ends right before the score.
        tokenizer: The backbone's.
        scores: The scale, ascending.
        end_id: The token that ends a reply; None where there is none.

    Returns:
        How, or None where every score has a token of its own, or where this rule does not do.
    """
    ended = before_own_tokens(reading, tokenizer, [str(score) for score in scores])
    if ended is None or end_id is None:
        return None
    ending, ids, before = ended
    alone = {own[0]: place for place, own in enumerate(ids) if len(own) == 1}
    longer = [place for place, own in enumerate(ids) if len(own) == 2 and own[0] in alone]
    if len(longer) != 1 or len(alone) != len(scores) - 1:
        return None
    place = longer[0]
    shorter = scores[alone[ids[place][0]]]
    begun = replace(ending, suffix=f"{ending.suffix}{before}{shorter}")
    rest = ids_after(begun, str(scores[place])[len(str(shorter)) :], tokenizer)
    if rest != ids[place][1:]:
        return None
    kept = [score for score in scores if score != scores[place]]
    first = ScoreReading(ending, [own[0] for own in ids if len(own) == 1])
    return SplitScore(kept, first, (shorter, scores[place]), ScoreReading(begun, [end_id, rest[0]]))
