"""What a pair must be to be scored, and its tokens under every reading of a judge."""

from collections.abc import Iterable, Mapping
from typing import Any

from .errors import PairError
from .reading import EncodedPair, Reading, ReadingEncoder

PAIR_KEYS = ("question", "prediction")
QUESTION_KEYS = ("question",)  # what a judge needs whose readings all hold the question alone
EXPECTED = '{"question": str, "prediction": str}'


class PairEncoder:
    """Checks a pair and tokenises it under every reading of a judge; can be sent to worker processes."""

    def __init__(self, encoders: dict[str, ReadingEncoder]) -> None:
        """Keep one encoder per reading."""
        self.encoders = encoders
        self.keys = needed_keys(encoder.reading for encoder in encoders.values())

    def __call__(self, pair: Any, index: int | None = None) -> dict[str, EncodedPair]:
        """Tokenise a pair.

        Args:
            pair: A mapping with `question` and `prediction`, which may be absent where every reading holds the question
                alone; further keys are ignored.
            index: Its position in the input, for the error message.

        Returns:
            The encoded pair by reading.

        Raises:
            PairError: The pair is not what a judge accepts.
        """
        check_pair(pair, index, self.keys)
        texts = pair["question"], pair["prediction"] if "prediction" in self.keys else ""
        return {name: encoder(*texts) for name, encoder in self.encoders.items()}


def needed_keys(readings: Iterable[Reading]) -> tuple[str, ...]:
    """Return the texts that pairs need to be read so: the prediction only where a reading holds it."""
    return QUESTION_KEYS if all(reading.question_only for reading in readings) else PAIR_KEYS


def check_pair(pair: Any, index: int | None = None, keys: tuple[str, ...] = PAIR_KEYS) -> None:
    """Check that a pair can be scored.

    Args:
        pair: What the user gave.
        index: Its position in the input, for the error message.
        keys: The texts that it needs.

    Raises:
        PairError: It is no mapping, a key is missing, or a text is no string, is blank or is not valid Unicode.
    """
    where = "A pair" if index is None else f"Pair {index}"
    if not isinstance(pair, Mapping):
        raise PairError(f"{where} expects {EXPECTED}, but got {type(pair).__name__}: {pair!r:.80}.")
    for key in keys:
        if key not in pair:
            raise PairError(
                f"{where} expects the keys {' and '.join(keys)}, but {key!r} is missing; got {sorted(map(str, pair))}."
            )
        text = pair[key]
        if not isinstance(text, str):
            raise PairError(f"{where} expects a string for {key!r}, but got {type(text).__name__}: {text!r:.80}.")
        if not text.strip():
            raise PairError(f"{where} expects text for {key!r}, but got a blank string. Leave such pairs out.")
        if not text.isascii():
            _check_unicode(text, key, where)


def _check_unicode(text: str, key: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PairError(
            f"{where} expects valid Unicode for {key!r}, but got a lone surrogate at {error.start}."
        ) from error
