"""How a chat template writes several turns: the strings between them, found once by writing marks.

A judge's reading is frozen for one question. Of a conversation it writes the earlier turns too, by the strings with
which its tokenizer's own template, which is saved with the judge, stands around them. Only these strings hold control
tokens; the turns' texts are data, as the pair's are.
"""

from collections.abc import Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

FAULTS = (  # of a template, which a stranger may have written
    *(chat_template_utils.jinja2.TemplateError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)
_ROUNDS = 3  # of question and reply that must be written alike

Piece = tuple[str | None, str]  # what it is, None for a string of the template's own; and its text


class ChatTurns(NamedTuple):
    """The strings around turns.

    Attributes:
        opening: Before the first user's text, where there is no system turn.
        system: Before a system's text, and from it to the first user's; None where the template has no such turn.
        reply: From a user's text to an earlier reply.
        again: From an earlier reply to the next user's text.
    """

    opening: str
    system: tuple[str, str] | None
    reply: str
    again: str

    @classmethod
    def of(cls, prefix: str, middle: str | None, suffix: str, tokenizer: PreTrainedTokenizerBase) -> "ChatTurns | None":
        """Find the strings of a reading.

        Args:
            prefix: The reading's.
            middle: The reading's.
            suffix: The reading's.
            tokenizer: The tokenizer with its chat template.

        Returns:
            None where the reading is not that chat template, or does not write all rounds of a conversation alike.
        """
        if not tokenizer.chat_template or middle is None:
            return None
        single = _written(tokenizer, ["user", "assistant"])
        rounds = _written(tokenizer, ["user", "assistant"] * _ROUNDS)
        if single is None or rounds is None:
            return None
        now, *between, end = rounds
        replies, agains = set(between[:-1:2]), set(between[1::2])
        is_chat = (single[1], single[2].rstrip()) == (middle, suffix) and _end(single[0]) == _end(prefix)
        if not is_chat or [now, between[-1], end] != single or len(replies) > 1 or len(agains) > 1:
            return None
        found = _written(tokenizer, ["system", *["user", "assistant"] * _ROUNDS])
        around = None
        if found is not None and found[2:] == rounds[1:]:
            # The prefix may hold the day on which the judge was made: a system turn is then written with that day.
            own = _as_then(found[0], now, prefix)
            around = (own, found[1]) if own is not None else None
        return cls(prefix, around, replies.pop(), agains.pop())

    def pieces(self, turns: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
        """Write turns, the user's last, up to the last user's text, which is the piece `question`."""
        head = turns[0]["content"] if turns[0]["role"] == "system" else None
        spoken = turns if head is None else turns[1:]
        if head is not None and self.system:
            yield from ((None, self.system[0]), ("turn", head), (None, self.system[1]))
        else:
            yield None, self.opening
        lead = f"{head}\n\n" if head is not None and not self.system else ""
        for number, turn in enumerate(spoken):
            if number:
                yield None, self.reply if number % 2 else self.again
            text = turn["content"] if number else lead + turn["content"]
            yield "question" if number == len(spoken) - 1 else "turn", text


def _written(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str]) -> list[str] | None:
    """Return the strings around the turns of these roles; None where not each is written once, in order."""
    marks = [f"Inspector{number}turn{number}here" for number in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except FAULTS:  # it refuses such a turn
        return None
    strings = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or any(other in before for other in marks) or mark in text:
            return None
        strings.append(before)
    return [*strings, text]


def _end(text: str) -> str:
    """Return a string's last line and the one before it, which hold no date."""
    return "\n".join(text.split("\n")[-2:])


def _as_then(text: str, now: str, then: str) -> str | None:
    """Put what an earlier prefix holds in the place of what today's has; None where that is not found once."""
    if now == then:
        return text
    start = len(commonprefix([now, then]))
    end = min(len(commonprefix([now[start:][::-1], then[start:][::-1]])), len(now) - start, len(then) - start)
    new, old = now[start : len(now) - end], then[start : len(then) - end]
    return text.replace(new, old) if new and text.count(new) == 1 else None


def is_question(turns: Any) -> bool:
    """Say whether a value is a question as turns: perhaps a system's, then the user's and the assistant's in turn.

    The user's is the last one; each has a text as `content`.
    """
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in turns):
        return False
    roles = [turn.get("role") for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    in_turn = all(role == ("assistant" if i % 2 else "user") for i, role in enumerate(spoken)) and len(spoken) % 2
    return bool(in_turn) and all(isinstance(turn.get("content"), str) and turn["content"] for turn in turns)
