"""A pair under every reading of a judge: checked, then tokenised."""

from collections.abc import Callable, Mapping
from typing import Any

from .encoded import EncodedPair
from .errors import PairError
from .names import OPTIONAL, QUESTION_TURNS
from .pairs import check_pair
from .template import Reading, needed_keys


class EncodedReadings(dict[str, EncodedPair]):
    """A pair under every reading of a judge, by the reading's name.

    Attributes:
        facts: What else is known of its texts, which are not kept.
    """

    facts: Any = None


class PairEncoder:
    """Checks a pair and tokenises it under every reading of a judge; can be sent to worker processes.

    Args:
        encoders: Reading's name -> what tokenises pairs under it.
        find_facts: What finds out more of a pair's question and response, whole; the response is empty where every
            reading holds the question alone.

    Attributes:
        keys: The texts that a pair needs.
    """

    def __init__(self, encoders: dict[str, Reading], find_facts: Callable[[str, str], Any] | None = None) -> None:
        """Keep one encoder per reading."""
        self.encoders = encoders
        self.find_facts = find_facts
        self.keys = needed_keys(encoder.template for encoder in encoders.values())

    def __call__(
        self,
        pair: Any,
        index: int | None = None,
        *,
        checked: bool = False,
        read: Callable[[Mapping[str, Any]], Any] | None = None,
        keep_places: bool = False,
    ) -> EncodedReadings:
        """Tokenise a pair.

        Args:
            pair: A mapping with `question` and `prediction`, which may be absent where every reading holds the question
                alone, `reference` and `context` where one has slots for them, and perhaps `question_turns`; further
                keys are ignored.
            index: Its position in the input, for the error message.
            checked: Whether `check_pair` has seen it.
            read: Makes a pair of a row as other tools write it.
            keep_places: Whether it is wanted which text each token carries, to explain the score.

        Returns:
            The encoded pair by reading.

        Raises:
            PairError: The pair is not what a judge accepts.
        """
        if read is not None and isinstance(pair, Mapping):
            pair = read(pair)
        if not checked:
            check_pair(pair, index, self.keys)
        texts = pair["question"], pair["prediction"] if "prediction" in self.keys else ""
        further = {key: pair[key] for key in self.keys if key in OPTIONAL}
        turns = pair.get(QUESTION_TURNS) or ()
        options: dict[str, Any] = {"keep_places": keep_places, **further}
        try:
            encoded = EncodedReadings({name: one(*texts, turns, **options) for name, one in self.encoders.items()})
        except PairError as error:
            if index is None:
                raise
            raise PairError(f"Pair {index} cannot be read: {error}") from error
        if self.find_facts is not None:
            encoded.facts = self.find_facts(*texts)
        return encoded
