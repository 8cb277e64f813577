"""What a pair of texts must be to be scored."""

import re
from collections.abc import Mapping
from typing import Any

from .errors import PairError
from .names import PAIR, QUESTION, QUESTION_TURNS
from .turns import is_question

PAIR_KEYS = PAIR
QUESTION_KEYS = (QUESTION,)  # what a judge needs whose readings all hold the question alone
EXPECTED = '{"question": str, "prediction": str}'

# Categories Cc, Cf, Zs, Zl and Zp, what Unicode says to ignore by default (fillers, variation selectors, tags), the
# blank Braille pattern and noncharacters. Written out, so that it does not change with Python's Unicode version.
_INVISIBLE = (
    "\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5"
    "\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff" + "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(1, 17))
)
_VISIBLE = re.compile(f"[^{_INVISIBLE}]")


def is_blank(text: str) -> bool:
    """Return whether a text has no character that can be seen: only white space, control and format characters.

    Those are the categories Cc, Cf, Zs, Zl and Zp, and what is drawn as nothing though its category is another: Hangul
    and Khmer fillers, variation selectors, tags, the blank Braille pattern and noncharacters. Other unassigned code
    points count as text, since a later Unicode may give them a shape.
    """
    return _VISIBLE.search(text) is None


def check_pair(pair: Any, index: int | None = None, keys: tuple[str, ...] = PAIR_KEYS) -> None:
    """Check that a pair can be scored.

    Args:
        pair: What the user gave.
        index: Its position in the input, for the error message.
        keys: The texts that it needs.

    Raises:
        PairError: It is no mapping, a key is missing, or a text is no string, is blank (`is_blank`) or is not valid
            Unicode.
    """
    where = "A pair" if index is None else f"Pair {index}"
    if not isinstance(pair, Mapping):
        raise PairError(f"{where} expects {EXPECTED}, but got {type(pair).__name__}: {pair!r:.80}.")
    for key in keys:
        if key not in pair:
            raise PairError(
                f"{where} expects the keys {' and '.join(keys)}, but {key!r} is missing; got {sorted(map(str, pair))}. "
                "Name them by --column or columns=, such as question=ask."
            )
        text = pair[key]
        if not isinstance(text, str):
            raise PairError(f"{where} expects a string for {key!r}, but got {type(text).__name__}: {text!r:.80}.")
        if is_blank(text):
            what = f" of characters that nobody sees, {ascii(text[:8])}" if text.strip() else ""
            raise PairError(f"{where} expects text for {key!r}, but got a blank string{what}. Leave such pairs out.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PairError(
                f"{where} expects valid Unicode for {key!r}, but got a lone surrogate at {error.start}."
            ) from error
    turns = pair.get(QUESTION_TURNS)
    if turns is not None and not is_question(turns):
        raise PairError(
            f"{where} expects {QUESTION_TURNS} with role and content each, the user's and the assistant's in turn, the "
            f"user's last, but got {turns!r:.120}."
        )
