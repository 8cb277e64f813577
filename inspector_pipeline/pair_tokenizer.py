"""From a (question, prediction) pair to token ids, and where the response lies among them, under one template.

Of a text that is far longer than its judge reads, only what can be left of it is tokenised.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, chain, takewhile
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from .bounds import Bounds, Short
from .encoded import EncodedPair, Finder, Place, Places, Span
from .errors import PairError, ReadingError
from .template import PairTemplate, Piece
from .turns import ChatTurns

MIN_TEXT_TOKENS = 16  # of the question, and of the response, that truncation leaves in place
FIRST_CHARACTERS = 8  # for each token of max_length, of either end of a text, that are tokenised at first
UNBROKEN_CHARACTERS = 1_000_000  # that are tokenised, at most, of a text that cannot be parted
PARTS = {"question": "question", "prediction": "response"}  # a text's name -> what its tokens' places call it
_OPENING_SAMPLES = ("A", "z", "7", " b", "\n\nc", ".", '"', "é", "的")  # what may merge with the text before it
_TOKENIZER_LOCK = threading.Lock()


class _Token(NamedTuple):
    id: int
    start: int  # first character of the whole text that it carries
    end: int


class _TooLongError(Exception):
    """A conversation does not fit however its earlier turns are cut."""


class PairTokenizer:
    """Binds a template to a tokenizer and a maximum length; call it with a question and a prediction.

    The whole text is tokenised at once, so tokens may merge across the borders of the template's literals, just as the
    backbone saw such text when it was trained. Only where the pair itself spells a control token is the text encoded
    in pieces, the pair's pieces with control tokens split.

    A text that is far longer than `max_length` loses its middle before it is tokenised, at places where that changes
    no token that truncation leaves; `bounds.py` says which, why, and for which tokenizers. The others' texts are
    tokenised whole, up to `UNBROKEN_CHARACTERS`; longer ones are refused, as is a text that has no such place in as
    many characters, which none in any language is.
    """

    def __init__(
        self,
        template: PairTemplate,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        checks: Mapping[str, Finder] | None = None,
    ) -> None:
        """Check that the tokenizer gives offsets and that the maximum length leaves room for a pair.

        `control_ids` are the ids that text of a pair never turns into: those of all special tokens.

        Args:
            template: The literal strings.
            tokenizer: A fast tokenizer.
            max_length: Upper bound on the tokens of a pair, the template's literals included.
            checks: Check -> what finds it in a response (`checks.FINDERS`).

        Raises:
            ReadingError: The tokenizer is not a fast one, or `max_length` is too small.
        """
        if not tokenizer.is_fast:
            raise ReadingError(
                f"A reading needs a fast tokenizer, since it needs offsets, but got {type(tokenizer).__name__}. "
                "Convert it with AutoTokenizer.from_pretrained(..., use_fast=True)."
            )
        self.template = template
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.checks = dict(checks or {})
        added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.control_ids = frozenset(added | set(tokenizer.all_special_ids))
        literals = (template.prefix, template.middle or "", template.suffix)
        n_own = sum(len(self._encode(text, add_special_tokens=False)) for text in literals)
        n_own += sum(map(len, self._added_around()))
        if max_length < n_own + 2 * MIN_TEXT_TOKENS:
            raise ReadingError(
                f"max_length expects at least {n_own + 2 * MIN_TEXT_TOKENS} tokens for this reading ({n_own} for its "
                f"own text and {MIN_TEXT_TOKENS} each for question and response), but got {max_length}."
            )

    def __call__(
        self, question: str, prediction: str, turns: Sequence[Any] = (), *, keep_places: bool = False, **further: str
    ) -> EncodedPair:
        """Tokenise a pair.

        Args:
            question: Non-blank text.
            prediction: Non-blank text; not looked at where the template holds the question alone.
            turns: The question as a conversation (`conversation.py`), which a chat template writes in its place.
            keep_places: Whether the encoded pair says which text each token carries.
            **further: The reference and the context, where the template has slots for them.

        Returns:
            The pair's token ids and the response's span. A pair longer than `max_length` is cut: in the middle of
            further texts and of the question, then in the middle of the response; and says so. A conversation is cut in
            the middle of its earlier turns, the oldest first, then loses the oldest, and is cut as a pair once none is
            left.

        Raises:
            PairError: The tokenizer leaves nothing of the response, or one stretch of a text is far too long.
        """
        lacking = [key for key in self.template.slots if key not in further]
        if lacking:
            raise PairError(f"This reading holds {{{lacking[0]}}}, but the pair has no {lacking[0]}. Give it one.")
        prediction = "" if self.template.question_only else prediction
        found = self._encode_texts(question, prediction, turns, further, keep_places=keep_places)
        return replace(found, checks=self.checked(prediction)) if self.checks else found

    def checked(self, response: str) -> dict[str, Sequence[Span]]:
        """Run the checks on a whole response, before truncation."""
        return {name: find(response) for name, find in self.checks.items()}

    def _encode_texts(
        self, question: str, prediction: str, turns: Sequence[Any], further: dict[str, str], *, keep_places: bool
    ) -> EncodedPair:
        """Tokenise a pair, or a conversation with as many of its turns as fit."""
        if not turns or self.chat_turns is None:
            return self._encode_whole(self.template.pieces(question, prediction, further), keep_places=keep_places)
        head = [turn for turn in turns[:1] if turn["role"] == "system"]
        kept, is_cut = list(turns[len(head) :]), False
        while True:
            own = [Piece(*piece) for piece in self.chat_turns.pieces([*head, *kept])]
            own += self.template.pieces("", prediction)[2:]  # what follows the question
            try:
                found = self._encode_whole(own, earlier_only=len(kept) > 1, keep_places=keep_places)
            except _TooLongError:
                kept, is_cut = kept[2 * max(1, len(kept) // 4) :], True
            else:
                return replace(found, truncated=found.truncated or is_cut)

    def _encode_whole(
        self, pieces: Sequence[Piece], *, earlier_only: bool = False, keep_places: bool = False
    ) -> EncodedPair:
        """Tokenise a pair's pieces, those of far too long ones without their middles.

        Args:
            pieces: The pieces.
            earlier_only: Whether earlier turns alone may be cut.
            keep_places: As in a call.

        Raises:
            _TooLongError: They would have to be cut further.
        """
        size = FIRST_CHARACTERS * self.max_length
        while True:
            own = [(key, Short(text) if key is None else self._shortened(text, size)) for key, text in pieces]
            wholes = [piece.text for piece in pieces] if keep_places else None
            encoded = self._encode_pieces(own, earlier_only=earlier_only, wholes=wholes)
            if encoded is not None:
                return encoded
            size *= 4

    @cached_property
    def chat_turns(self) -> ChatTurns | None:
        """The strings around a conversation's turns; None where the template is not the tokenizer's chat template."""
        template = self.template
        if template.slots or template.add_special_tokens:
            return None
        return ChatTurns.of(template.prefix, template.middle, template.suffix, self.tokenizer)

    @cached_property
    def _bounds(self) -> Bounds | None:
        return Bounds.of(self.tokenizer, self.control_ids)

    def _shortened(self, text: str, size: int) -> Short:
        """Drop what cannot be left of a text; at least `size` characters stay on either side.

        Raises:
            PairError: A stretch of it cannot be parted, and takes too long.
        """
        if len(text) <= 2 * size:
            return Short(text)
        if self._bounds is None and len(text) > UNBROKEN_CHARACTERS:
            raise PairError(
                f"A text of a pair expects at most {UNBROKEN_CHARACTERS} characters with this judge's tokenizer, but "
                f"got {len(text)} that begin with {text[:40]!r}. Shorten such texts."
            )
        short = Short(text) if self._bounds is None else self._bounds.shorten(text, size)
        if len(short.text) > UNBROKEN_CHARACTERS:
            raise PairError(
                f"A text of a pair expects a space, or a mark after a letter, at least every {UNBROKEN_CHARACTERS} "
                f"characters, but got {len(short.text)} without one that begin with {text[:40]!r}. Shorten such texts."
            )
        return short

    def _encode_pieces(
        self,
        pieces: Sequence[tuple[str | None, Short]],
        *,
        earlier_only: bool = False,
        wholes: Sequence[str] | None = None,
    ) -> EncodedPair | None:
        """Tokenise a pair, or return None where a text without its middle has too few tokens left."""
        text = "".join(short.text for _, short in pieces)
        ends = list(accumulate(len(short.text) for _, short in pieces))
        places = [Span(end - len(short.text), end) for end, (_, short) in zip(ends, pieces, strict=True)]
        texts = [(key, short, at) for (key, short), at in zip(pieces, places, strict=True) if key is not None]
        tokens = self._encode(text)
        written = [token for token in tokens if token.id in self.control_ids]
        spells = any(token.start < at.end and at.start < token.end for token in written for _, _, at in texts)
        if spells or any(short.has_control for _, short, _ in texts):
            literals = [at for (key, _), at in zip(pieces, places, strict=True) if key is None]
            tokens = self._encode_in_pieces(text, literals)
        for _, short, at in texts:
            if short.join is not None:
                join = at.start + short.join
                sides = Span(at.start, join), Span(join, at.end)
                counts = [sum(a.start <= t.start < t.end <= a.end for t in tokens) for a in sides]
                if min(counts) <= self.max_length // 2:
                    return None
        what = "question" if self.template.question_only else "prediction"
        judged = next((short, at) for key, short, at in texts if key == what)
        start, end = judged[1]
        response = _range([i for i, token in enumerate(tokens) if token.start < end and start < token.end])
        if not response.size:
            dropped = judged[0].text
            raise PairError(
                f"A {what} must hold text that the tokenizer keeps, but got {dropped[:80]!r}, which it drops."
            )
        others = [
            _range([i for i, token in enumerate(tokens) if at.start <= token.start < token.end <= at.end])
            for key, _, at in sorted(texts, key=lambda one: one[0] == "question")
            if key != what
        ]
        ids = [token.id for token in tokens]
        if earlier_only:  # the question is the last of the others
            spare = sum(max(0, span.size - MIN_TEXT_TOKENS) for span in others[:-1])
            if len(ids) - spare > self.max_length:
                raise _TooLongError
        found = self.cut(ids, others, response)
        if wholes is None:
            return found
        kept = self.cut(list(range(len(ids))), others, response).input_ids
        own = [
            (PARTS[key], short, at, whole)
            for (key, short), at, whole in zip(pieces, places, wholes, strict=True)
            if key is not None and key in PARTS
        ]
        held = {part: whole for part, _, _, whole in own}
        return replace(found, places=Places([self._place(tokens[i], text, own) for i in kept], held))

    def _place(self, token: "_Token", text: str, own: Sequence[tuple[str, Short, Span, str]]) -> Place:
        """Say which text a token carries: of two the later, as the response's mask has it."""
        for part, short, at, whole in reversed(own):
            if token.start < at.end and at.start < token.end:
                start, end = max(token.start, at.start) - at.start, min(token.end, at.end) - at.start
                dropped = len(whole) - len(short.text)
                start += dropped * (short.join is not None and start >= short.join)
                end += dropped * (short.join is not None and end > short.join)
                return Place(part, start, end, whole[start:end])
        written = text[token.start : token.end] or str(self.tokenizer.convert_ids_to_tokens(token.id))
        return Place("template", token.start, token.end, written)

    @cached_property
    def opening_ids(self) -> list[int]:
        """Token ids that pairs begin with under this template, as far as no text of the question can change them."""
        further: Any = [dict.fromkeys(self.template.slots, one) for one in _OPENING_SAMPLES]
        samples = [self(one, "a", **own).input_ids for one, own in zip(_OPENING_SAMPLES, further, strict=True)]
        shared = zip(*samples, strict=False)
        return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, shared)]

    def cut(self, input_ids: list[int], others: Sequence[Span], response: Span) -> EncodedPair:
        """Cut token ids to `max_length` where they are more: in the other texts' middles, then in the response's.

        Args:
            input_ids: Token ids of a whole pair.
            others: The tokens that carry nothing but each other text, in the order in which they are cut.
            response: The tokens that carry the response.

        Returns:
            What is left of the pair.

        Raises:
            PairError: The texts cannot be cut that far.
        """
        surplus = len(input_ids) - self.max_length
        if surplus <= 0:
            return EncodedPair(input_ids, response, False)
        spans, left = [*others, response], surplus
        from_each = []
        for span in spans:
            from_each.append(min(left, max(0, span.size - MIN_TEXT_TOKENS)))
            left -= from_each[-1]
        for at, span in enumerate(others):
            further = min(left, span.size - from_each[at])
            from_each[at] += further
            left -= further
        if left:
            asked = sum(span.size for span in others)
            raise PairError(
                f"A pair must fit into max_length={self.max_length} tokens once its texts are cut to {MIN_TEXT_TOKENS} "
                f"tokens, but got {len(input_ids)} tokens, {asked} of the question and {response.size} of the "
                "response. Give the judge a larger max_length."
            )
        holes = sorted(span.middle(n) for span, n in zip(spans, from_each, strict=True) if n)
        ends = [0, *(hole.end for hole in holes)]
        kept = [input_ids[end:start] for end, start in zip(ends, [*(hole.start for hole in holes), None], strict=True)]
        before = sum(hole.size for hole in holes if hole.end <= response.start)
        size = response.size - from_each[-1]
        return EncodedPair([*chain(*kept)], Span(response.start - before, response.start - before + size), True)

    def _encode(self, text: str, start: int = 0, **kwargs: Any) -> list[_Token]:
        """Encode a text that begins at the character `start` of the whole."""
        kwargs.setdefault("add_special_tokens", self.template.add_special_tokens)
        with _TOKENIZER_LOCK:  # whether control tokens are split is a state of the tokenizer, not of the call
            encoding = self.tokenizer(
                text, return_offsets_mapping=True, return_attention_mask=False, verbose=False, **kwargs
            )
        found = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        return [_Token(i, start + first, start + last) for i, (first, last) in found]

    def _encode_in_pieces(self, text: str, literals: Sequence[Span]) -> list[_Token]:
        """Encode with control tokens kept where the template wrote them and split where the pair did.

        Args:
            text: The whole text.
            literals: Where the template's own texts stand.
        """
        tokens: list[_Token] = []
        position = 0
        controls = [
            token
            for start, end in literals
            for token in self._encode(text[start:end], start, add_special_tokens=False)
            if token.id in self.control_ids
        ]
        for control in [*controls, None]:
            piece = text[position : control.start if control else None]
            if piece:
                tokens += self._encode(piece, position, add_special_tokens=False, split_special_tokens=True)
            if control:
                tokens.append(control)
                position = control.end
        before, after = self._added_around()
        return [*(_Token(i, 0, 0) for i in before), *tokens, *(_Token(i, len(text), len(text)) for i in after)]

    def _added_around(self) -> tuple[list[int], list[int]]:
        """Return the ids that the tokenizer itself puts before and after a text."""
        if not self.template.add_special_tokens:
            return [], []
        bare, full = ([token.id for token in self._encode("a", add_special_tokens=added)] for added in (False, True))
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return full[:start], full[start + len(bare) :]


def _range(positions: list[int]) -> Span:
    """Return the range from the first to the last of ascending positions; empty where there is none."""
    return Span(positions[0], positions[-1] + 1) if positions else Span(0, 0)
