"""A pair as token ids, and where its texts lie among them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

WRONG_SUMS = "wrong_sums"
CHECKS = (WRONG_SUMS,)  # what is found in a response's text and read from no state, see `checks.py`


class Span(NamedTuple):
    """A half-open range of positions, `start` to `end - 1`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.end - self.start

    def middle(self, n: int) -> "Span":
        """Return the n positions in its middle."""
        start = self.start + (self.size - n + 1) // 2
        return Span(start, start + n)


Finder = Callable[[str], Sequence[Span]]  # where, in characters, a response holds what a check looks for


@dataclass(frozen=True)
class EncodedPair:
    """One pair under one template.

    Attributes:
        input_ids: Token ids, without padding.
        response: The tokens that carry at least one character of the prediction, or of the question where the template
            holds it alone.
        truncated: Whether tokens were cut to fit the maximum length.
        places: Which text each token carries, where it was asked for.
        checks: Check -> where, in characters, it found something in the response, whole, for those that were asked for.
    """

    input_ids: list[int]
    response: Span
    truncated: bool
    places: "Places | None" = field(default=None, compare=False, repr=False)
    checks: Mapping[str, Sequence[Span]] = field(default_factory=dict)

    @property
    def response_mask(self) -> list[int]:
        """1 on the response's tokens, 0 elsewhere, as long as `input_ids`."""
        return [int(self.response.start <= i < self.response.end) for i in range(len(self.input_ids))]


class Place(NamedTuple):
    """Which text a token carries: `question`, `response` or `template`, from where to where, and what it says."""

    part: str
    start: int
    end: int
    text: str


class Places(NamedTuple):
    """Which texts the tokens of an encoded pair carry.

    Attributes:
        of_tokens: Each token's; the earlier turns of a conversation, a reference and a context count to the template.
        texts: The question and the response, whole, by the part's name.
    """

    of_tokens: list[Place]
    texts: dict[str, str]
