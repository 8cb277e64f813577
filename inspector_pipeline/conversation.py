"""Finding the response in the token ids of a chat-formatted conversation, as a reward model is given them."""

from transformers import PreTrainedTokenizerBase

from .errors import PairError, ReadingError
from .reading import EncodedPair, Reading, ReadingEncoder, Span

_REASONING = "<think>"  # where a template writes an empty block of reasoning into its own header


class ConversationReader:
    """Binds a chat reading to its tokenizer; call it with a conversation's token ids.

    The response is what follows the last assistant header: the reading's `middle`, which closes the user's turn and
    opens the assistant's. Where the template writes an empty block of reasoning there, the header may also stand
    without it, and a filled block is part of the response. All other tokens are used as they are, so a system prompt
    or earlier turns are read too. Like the reading, what is read ends on the token that closes the turn: one that is
    missing is added, white space and special tokens after it are dropped.

    Ids alone cannot tell markup that the policy wrote as text from real markup.
    """

    def __init__(self, reading: Reading, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Find the header's and the closing tokens.

        Args:
            reading: The judge's only reading.
            tokenizer: Its tokenizer.
            max_length: Longer conversations are cut as the pipeline cuts pairs.

        Raises:
            ReadingError: The reading is not the chat reading of this tokenizer.
        """
        self.encoder = ReadingEncoder(reading, tokenizer, max_length)
        self.tokenizer = tokenizer
        self._refuse_other_readings(reading)
        middle = reading.middle or ""
        short, block, _ = middle.partition(_REASONING)
        self._header = self._ids(short.strip())
        after = len(short) - len(short.rstrip())
        white = short[len(short) - after :]
        # Text of the reading that may follow the header's ids, the longest first.
        self._tails = (middle[len(short.rstrip()) :], white) if block else (white,)
        self._prefix = self._ids(reading.prefix)
        self._closing = self._ids(reading.suffix)
        if not self._is_control(self._header[:1]) or (self._closing and not self._is_control(self._closing[:1])):
            raise ReadingError(
                "A reward model expects a chat template whose turns begin and end on special tokens, but got "
                f"{middle!r} between the turns and {reading.suffix!r} at the end. Use RewardFunction instead."
            )

    def _refuse_other_readings(self, reading: Reading) -> None:
        if not self.tokenizer.chat_template:
            raise ReadingError("A reward model expects a tokenizer with a chat template, but this judge's has none.")
        chat = Reading.from_chat_template(self.tokenizer)
        # The prefix may hold the date of the day on which the judge was made, so only its last words are compared.
        same = (reading.middle, reading.suffix, self._after_control(reading.prefix)) == (
            chat.middle,
            chat.suffix,
            self._after_control(chat.prefix),
        )
        if not same or reading.add_special_tokens:
            raise ReadingError(
                "A reward model expects a judge whose reading is its tokenizer's chat template, since that is all it "
                f"is given, but this judge reads {reading.text('{question}', '{prediction}')!r}. Use RewardFunction "
                "instead, which writes the judge's own text."
            )

    def __call__(self, ids: list[int]) -> EncodedPair | None:
        """Find the response.

        Args:
            ids: Token ids of a conversation, without padding.

        Returns:
            What the judge reads; None where the assistant's turn is blank or does not end the conversation.

        Raises:
            PairError: There is no assistant header.
        """
        header = self._last_header(ids)
        start = self._response_start(ids, header + len(self._header))
        end, rest = self._response_end(ids, start)
        if not self._text(ids[start:end]).strip() or self._text(rest).strip():
            return None
        begins = len(self._prefix) if ids[: len(self._prefix)] == self._prefix else 0
        return self.encoder.cut([*ids[:end], *self._closing], Span(begins, max(begins, header)), Span(start, end))

    def _last_header(self, ids: list[int]) -> int:
        width = len(self._header)
        for at in range(len(ids) - width, -1, -1):
            if ids[at] == self._header[0] and ids[at : at + width] == self._header:
                return at
        raise PairError(
            f"A reward model expects a chat-formatted conversation with {self.tokenizer.decode(self._header)!r} before "
            f"the response, but got {self.tokenizer.decode(ids)[-200:]!r}. Format prompts with the chat template."
        )

    def _response_start(self, ids: list[int], position: int) -> int:
        """Step over what the reading itself writes after the header's ids."""
        for tail in self._tails:
            end = position
            while end < len(ids) and tail.startswith(self._read(ids, position, end + 1)):
                end += 1
            # What is left of the tail lies in one token with the response's first characters, or is not there.
            left = tail[len(self._read(ids, position, end)) :]
            following = self._read(ids, position, end + 1)[len(tail) - len(left) :]
            if not left or (end < len(ids) and following.startswith(left)):
                return end
        return position

    def _response_end(self, ids: list[int], start: int) -> tuple[int, list[int]]:
        """Return where the response ends, and what follows its closing token."""
        for position in range(start, len(ids)):
            if self._closing and ids[position] == self._closing[0]:
                return position, ids[position + 1 :]
        end = len(ids)
        while end > start and self._is_control(ids[end - 1 : end]):
            end -= 1
        return end, []

    def _read(self, ids: list[int], start: int, end: int) -> str:
        """Return the text of tokens that follow a header; decoded with it, as some decoders strip what comes first."""
        before = self.tokenizer.decode(self._header)
        return str(self.tokenizer.decode([*self._header, *ids[start:end]]))[len(before) :]

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _is_control(self, ids: list[int]) -> bool:
        return bool(ids) and ids[0] in self.encoder.control_ids

    def _after_control(self, text: str) -> str:
        """Return what follows the last special token of a text."""
        ids = self._ids(text)
        last = max((i for i, id_ in enumerate(ids) if id_ in self.encoder.control_ids), default=-1)
        return str(self.tokenizer.decode(ids[last + 1 :]))
