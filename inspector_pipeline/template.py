"""From a (question, prediction) pair to token ids, and where the response lies among them.

A `PairTemplate` is three literal strings around two verbatim texts, prefix + question + middle + prediction + suffix,
frozen into the judge's config, as one of its readings, when the judge is made; one of the question alone is
prefix + question + suffix. Chat templates may add today's date, strip newlines or reparse `</think>`; frozen strings do
none of that. Text of the pair is data: whatever it holds, it never becomes a control token, and braces in it mean
nothing. The strings may hold `{reference}` and `{context}`, which further texts of the pair fill. Of a conversation a
chat template writes the earlier turns too (turns.py); other templates get them as plain text, with labels. A
`PairTokenizer` binds such strings to a tokenizer; a `PairEncoder` checks a pair and tokenises it under every reading of
a judge. Of a text that is far longer than its judge reads, only what can be left of it is tokenised.
"""

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain, takewhile
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from .bounds import Bounds, Short
from .errors import InspectorError, PairError, ReadingError
from .names import OPTIONAL, QUESTION_TURNS
from .turns import ChatTurns, is_question

QUESTION_MARK = "{question}"
PREDICTION_MARK = "{prediction}"
FALLBACK_TEMPLATE = f"Question:\n{QUESTION_MARK}\n\nAnswer:\n{PREDICTION_MARK}"
TEMPLATE_FIELDS = {"prefix": str, "middle": str | None, "suffix": str, "add_special_tokens": bool}
MIN_TEXT_TOKENS = 16  # of the question, and of the response, that truncation leaves in place
FIRST_CHARACTERS = 8  # for each token of max_length, of either end of a text, that are tokenised at first
UNBROKEN_CHARACTERS = 1_000_000  # that are tokenised, at most, of a text that cannot be parted
PAIR_KEYS = ("question", "prediction")
QUESTION_KEYS = ("question",)  # what a judge needs whose readings all hold the question alone
EXPECTED = '{"question": str, "prediction": str}'
SLOTS = re.compile(rf"\{{({'|'.join(OPTIONAL)})\}}")

# Categories Cc, Cf, Zs, Zl and Zp, what Unicode says to ignore by default (fillers, variation selectors, tags), the
# blank Braille pattern and noncharacters. Written out, so that it does not change with Python's Unicode version.
_INVISIBLE = (
    "\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5"
    "\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff" + "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(1, 17))
)
_VISIBLE = re.compile(f"[^{_INVISIBLE}]")
_OPENING_SAMPLES = ("A", "z", "7", " b", "\n\nc", ".", '"', "é", "的")  # what may merge with the text before it
PARTS = {"question": "question", "prediction": "response"}  # a text's name -> what its tokens' places call it
_SENTINELS = ("Inspector0question0here", "Inspector0prediction0here")
_TOKENIZER_LOCK = threading.Lock()


def take_fields(
    data: Any,
    where: str,
    types: Mapping[str, Any],
    *,
    optional: tuple[str, ...] = (),
    error: type[InspectorError] = ReadingError,
) -> dict[str, Any]:
    """Check a JSON object's fields by name and type, and return them.

    Args:
        data: What should be such an object.
        where: Its place, for the error message.
        types: Each field's type.
        optional: Fields that may be absent.
        error: What to raise.

    Raises:
        InspectorError: Of the class `error`: it is no object, or a field is unknown, missing or of another type; the
            message names it.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where} expects a JSON object, but got {data!r}.")
    for name, value in data.items():
        if name not in types:
            raise error(f"{where} has no field named {name!r}; it has {', '.join(types)}.")
        kind = types[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise error(f"{where}.{name} expects {getattr(kind, '__name__', kind)}, but got {value!r}.")
    missing = [name for name in types if name not in data and name not in optional]
    if missing:
        raise error(f"{where} needs the field(s) {', '.join(missing)}, which are missing.")
    return dict(data)


class Piece(NamedTuple):
    """A part of a pair's text.

    Attributes:
        key: Which of the pair's texts it is, `turn` for an earlier turn; None for the template's own.
        text: The part.
    """

    key: str | None
    text: str


@dataclass(frozen=True)
class PairTemplate:
    """Three literal strings around a pair.

    Attributes:
        prefix: Text before the question; may hold the tokenizer's control tokens.
        middle: Text between the question and the prediction; None where the template holds the question alone, which
            then is what is judged, and stands for the response in every pooling.
        suffix: Text after the prediction.
        add_special_tokens: Whether the tokenizer adds its own tokens (a BOS, say) around the whole, as it does to
            plain text. False for a frozen chat template, whose literals already hold them.

    Example:
        >>> PairTemplate.from_template("Q: {question} A: {prediction}").middle
        ' A: '
    """

    prefix: str = ""
    middle: str | None = ""
    suffix: str = ""
    add_special_tokens: bool = True

    @classmethod
    def from_template(
        cls, template: str, *, add_special_tokens: bool = True, question_only: bool = False
    ) -> "PairTemplate":
        """Split a template at its `{question}` and `{prediction}`, each of which it holds once and in this order.

        Args:
            template: Text with the marks.
            add_special_tokens: See the class.
            question_only: Whether the template holds `{question}` alone; said, so that no mark is forgotten unseen.

        Raises:
            ReadingError: A mark is missing, doubled, or the prediction comes first.
        """
        counts = template.count(QUESTION_MARK), template.count(PREDICTION_MARK)
        if counts != ((1, 0) if question_only else (1, 1)):
            wanted = "once and without" if question_only else "and"
            raise ReadingError(
                f"PairTemplate.from_template expects a template with {QUESTION_MARK} {wanted} {PREDICTION_MARK}"
                f"{'' if question_only else ' once each'}, but got {counts[0]} and {counts[1]} of them."
            )
        slots = SLOTS.findall(template)
        if len(slots) > len(set(slots)):
            raise ReadingError(f"PairTemplate.from_template expects {{{slots[0]}}} once, but got {len(slots)} slots.")
        prefix, rest = template.split(QUESTION_MARK)
        if question_only:
            return cls(prefix, None, rest, add_special_tokens)
        if PREDICTION_MARK not in rest:
            raise ReadingError(
                f"PairTemplate.from_template expects {QUESTION_MARK} before {PREDICTION_MARK}, but got them the other "
                "way round. Put the question first."
            )
        middle, suffix = rest.split(PREDICTION_MARK)
        return cls(prefix, middle, suffix, add_special_tokens)

    @classmethod
    def from_chat_template(cls, tokenizer: PreTrainedTokenizerBase) -> "PairTemplate":
        """Freeze the tokenizer's chat template: the question as the user's turn, the prediction as the assistant's.

        What the template adds by itself (a default system prompt, today's date, an empty `<think>` block) is frozen as
        it stands today. The white space that some templates write after the assistant's last token is left out, so
        that the text ends on the token that closes the turn. A tokenizer without a chat template gets
        `FALLBACK_TEMPLATE`, with the tokenizer's own special tokens.

        Raises:
            ReadingError: The template drops, repeats or changes the texts it is given.
        """
        if not tokenizer.chat_template:
            return cls.from_template(FALLBACK_TEMPLATE)
        roles = zip(("user", "assistant"), _SENTINELS, strict=True)
        messages = [{"role": role, "content": content} for role, content in roles]
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
        marked = text.rstrip().replace(_SENTINELS[0], QUESTION_MARK).replace(_SENTINELS[1], PREDICTION_MARK)
        try:
            return cls.from_template(marked, add_special_tokens=False)
        except ReadingError as error:
            raise ReadingError(
                "PairTemplate.from_chat_template expects a chat template that writes both turns once and in order, but "
                f"got {text!r}. Give the reading as a template instead (PairTemplate.from_template)."
            ) from error

    @classmethod
    def from_dict(cls, data: Any, where: str = "reading") -> "PairTemplate":
        """Make a template from a config's JSON object.

        Args:
            data: The object.
            where: Its place in the config, for the error message.

        Raises:
            ReadingError: A field is missing, unknown or has the wrong type; the message names it.
        """
        return cls(**take_fields(data, where, TEMPLATE_FIELDS))

    def to_dict(self) -> dict[str, Any]:
        """Return the template as a config's JSON object."""
        return asdict(self)

    @property
    def question_only(self) -> bool:
        """Whether it holds the question alone; a pair then needs no prediction."""
        return self.middle is None

    @property
    def slots(self) -> tuple[str, ...]:
        """The further texts of a pair that it holds: reference, context, both or none."""
        found = SLOTS.findall("".join((self.prefix, self.middle or "", self.suffix)))
        return tuple(key for key in OPTIONAL if key in found)

    def pieces(self, question: str, prediction: str, further: Mapping[str, str] | None = None) -> list[Piece]:
        """Return a pair's text in pieces: strings of the template's own, and the texts that stand between them.

        Args:
            question: The question.
            prediction: The response.
            further: What fills the slots; one that is not there stays as it is written.
        """
        found = [*self._filled(self.prefix, further), Piece("question", question)]
        if self.middle is not None:
            found += [*self._filled(self.middle, further), Piece("prediction", prediction)]
        return [*found, *self._filled(self.suffix, further)]

    def _filled(self, literal: str, further: Mapping[str, str] | None) -> list[Piece]:
        parts = SLOTS.split(literal)  # every second one is a slot's name
        slots = [Piece(name, further[name]) if further and name in further else None for name in parts[1::2]]
        found = [Piece(None, parts[0])]
        for slot, name, after in zip(slots, parts[1::2], parts[2::2], strict=True):
            found += [slot or Piece(None, f"{{{name}}}"), Piece(None, after)]
        return found

    def text(self, question: str, prediction: str, **further: str) -> str:
        """Return the whole text of a pair as this template writes it; further texts fill its slots."""
        return "".join(piece.text for piece in self.pieces(question, prediction, further))


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


@dataclass(frozen=True)
class EncodedPair:
    """One pair under one template.

    Attributes:
        input_ids: Token ids, without padding.
        response: The tokens that carry at least one character of the prediction, or of the question where the template
            holds it alone.
        truncated: Whether tokens were cut to fit the maximum length.
        places: Which text each token carries, where it was asked for.
    """

    input_ids: list[int]
    response: Span
    truncated: bool
    places: "Places | None" = field(default=None, compare=False, repr=False)

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

    def __init__(self, template: PairTemplate, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Check that the tokenizer gives offsets and that the maximum length leaves room for a pair.

        `control_ids` are the ids that text of a pair never turns into: those of all special tokens.

        Args:
            template: The literal strings.
            tokenizer: A fast tokenizer.
            max_length: Upper bound on the tokens of a pair, the template's literals included.

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

    def __init__(self, encoders: dict[str, PairTokenizer], find_facts: Callable[[str, str], Any] | None = None) -> None:
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


def needed_keys(templates: Iterable[PairTemplate]) -> tuple[str, ...]:
    """Return the texts that pairs need to be read so: besides the question those that a template has."""
    own = list(templates)
    slots = {slot for template in own for slot in template.slots}
    texts = QUESTION_KEYS if all(template.question_only for template in own) else PAIR_KEYS
    return (*texts, *(key for key in OPTIONAL if key in slots))


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
