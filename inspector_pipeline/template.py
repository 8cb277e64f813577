"""Readings: how a (question, prediction) pair becomes token ids, and where the response lies among them.

A reading is three literal strings around two verbatim texts, prefix + question + middle + prediction + suffix, frozen
into the judge's config when the judge is made; one of the question alone is prefix + question + suffix. Chat templates
may add today's date, strip newlines or reparse `</think>`; a frozen reading does none of that. Text of the pair is
data: whatever it holds, it never becomes a control token, and braces in it mean nothing.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from .errors import PairError, ReadingError

QUESTION_MARK = "{question}"
PREDICTION_MARK = "{prediction}"
FALLBACK_TEMPLATE = f"Question:\n{QUESTION_MARK}\n\nAnswer:\n{PREDICTION_MARK}"
MIN_TEXT_TOKENS = 16  # of the question, and of the response, that truncation leaves in place

_OPENING_SAMPLES = ("A", "z", "7", " b", "\n\nc", ".", '"', "é", "的")  # what may merge with the text before it

_TOKENIZER_LOCK = threading.Lock()
_SENTINELS = ("Inspector0question0here", "Inspector0prediction0here")


@dataclass(frozen=True)
class PairTemplate:
    """Three literal strings around a pair.

    Attributes:
        prefix: Text before the question; may hold the tokenizer's control tokens.
        middle: Text between the question and the prediction; None where the reading holds the question alone, which
            then is what is judged, and stands for the response in every pooling.
        suffix: Text after the prediction.
        add_special_tokens: Whether the tokenizer adds its own tokens (a BOS, say) around the whole, as it does to
            plain text. False for a chat reading, whose literals already hold them.

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
        if question_only and counts != (1, 0):
            raise ReadingError(
                f"A reading of the question alone expects a template with {QUESTION_MARK} once and without "
                f"{PREDICTION_MARK}, but got {counts[0]} and {counts[1]} of them."
            )
        if question_only:
            prefix, suffix = template.split(QUESTION_MARK)
            return cls(prefix, None, suffix, add_special_tokens)
        if counts != (1, 1):
            raise ReadingError(
                f"PairTemplate.from_template expects a template with {QUESTION_MARK} and {PREDICTION_MARK} once each, but "
                f"got {counts[0]} and {counts[1]} of them."
            )
        prefix, rest = template.split(QUESTION_MARK)
        if PREDICTION_MARK not in rest:
            raise ReadingError(
                f"PairTemplate.from_template expects {QUESTION_MARK} before {PREDICTION_MARK}, but got them the other way "
                "round. Put the question first."
            )
        middle, suffix = rest.split(PREDICTION_MARK)
        return cls(prefix, middle, suffix, add_special_tokens)

    @classmethod
    def from_chat_template(cls, tokenizer: PreTrainedTokenizerBase) -> "PairTemplate":
        """Freeze the tokenizer's chat template: the question as the user's turn, the prediction as the assistant's.

        What the template adds by itself (a default system prompt, today's date, an empty `<think>` block) is frozen as
        it stands today. The white space that some templates write after the assistant's last token is left out, so
        that the reading ends on the token that closes the turn. A tokenizer without a chat template gets
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
                "PairTemplate.from_chat_template expects a chat template that writes both turns once and in order, but got "
                f"{text!r}. Give the reading as a template instead (PairTemplate.from_template)."
            ) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PairTemplate":
        """Make a reading from a config's JSON object.

        Raises:
            ReadingError: A field is unknown or has the wrong type; the message names it.
        """
        types = {field.name: bool if field.name == "add_special_tokens" else str for field in fields(cls)}
        for name, value in data.items():
            if name not in types:
                raise ReadingError(f"A reading has the fields {', '.join(types)}, but got {name!r}.")
            if not isinstance(value, types[name]) and not (name == "middle" and value is None):
                raise ReadingError(f"A reading's {name} is a {types[name].__name__}, but got {value!r}.")
        missing = types.keys() - data.keys()
        if missing:
            raise ReadingError(f"A reading needs the field(s) {', '.join(sorted(missing))}, which are missing.")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the reading as a config's JSON object."""
        return asdict(self)

    @property
    def question_only(self) -> bool:
        """Whether it holds the question alone; a pair then needs no prediction."""
        return self.middle is None

    def text(self, question: str, prediction: str) -> str:
        """Return the whole text of a pair as this reading writes it."""
        if self.middle is None:
            return f"{self.prefix}{question}{self.suffix}"
        return f"{self.prefix}{question}{self.middle}{prediction}{self.suffix}"


class Span(NamedTuple):
    """A half-open range of positions, `start` to `end - 1`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.end - self.start


@dataclass(frozen=True)
class EncodedPair:
    """One pair under one reading.

    Attributes:
        input_ids: Token ids, without padding.
        response: The tokens that carry at least one character of the prediction, or of the question where the reading
            holds it alone.
        truncated: Whether tokens were cut to fit the maximum length.
    """

    input_ids: list[int]
    response: Span
    truncated: bool

    @property
    def response_mask(self) -> list[int]:
        """1 on the response's tokens, 0 elsewhere, as long as `input_ids`."""
        return [int(self.response.start <= i < self.response.end) for i in range(len(self.input_ids))]


class _Token(NamedTuple):
    id: int
    start: int  # first character of the whole text that it carries
    end: int


class PairTokenizer:
    """Binds a reading to a tokenizer and a maximum length; call it with a question and a prediction.

    The whole text is tokenised at once, so tokens may merge across the borders of the reading's literals, just as the
    backbone saw such text when it was trained. Only where the pair itself spells a control token is the text encoded
    in pieces, the pair's pieces with control tokens split.
    """

    def __init__(self, reading: PairTemplate, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Check that the tokenizer gives offsets and that the maximum length leaves room for a pair.

        `control_ids` are the ids that text of a pair never turns into.

        Args:
            reading: The literal strings.
            tokenizer: A fast tokenizer.
            max_length: Upper bound on the tokens of a pair, the reading's literals included.

        Raises:
            ReadingError: The tokenizer is not a fast one, or `max_length` is too small.
        """
        if not tokenizer.is_fast:
            raise ReadingError(
                f"A reading needs a fast tokenizer, since it needs offsets, but got {type(tokenizer).__name__}. "
                "Convert it with AutoTokenizer.from_pretrained(..., use_fast=True)."
            )
        self.reading = reading
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.control_ids = _control_token_ids(tokenizer)
        literals = (reading.prefix, reading.middle or "", reading.suffix)
        n_own = sum(len(self._encode(text, add_special_tokens=False)) for text in literals)
        n_own += sum(map(len, self._added_around()))
        if max_length < n_own + 2 * MIN_TEXT_TOKENS:
            raise ReadingError(
                f"max_length expects at least {n_own + 2 * MIN_TEXT_TOKENS} tokens for this reading ({n_own} for its "
                f"own text and {MIN_TEXT_TOKENS} each for question and response), but got {max_length}."
            )

    def __call__(self, question: str, prediction: str) -> EncodedPair:
        """Tokenise a pair.

        Args:
            question: Non-blank text.
            prediction: Non-blank text; not looked at where the reading holds the question alone.

        Returns:
            The pair's token ids and the response's span. A pair longer than `max_length` is cut in the middle of the
            question first, then in the middle of the response, and says so.

        Raises:
            PairError: The tokenizer leaves nothing of the response.
        """
        alone = self.reading.question_only
        text = self.reading.text(question, prediction)
        question_at = Span(len(self.reading.prefix), len(self.reading.prefix) + len(question))
        prediction_start = question_at.end + len(self.reading.middle or "")
        prediction_at = Span(prediction_start, prediction_start + (0 if alone else len(prediction)))
        tokens = self._encode(text)
        pair_spans = (question_at, prediction_at)
        if any(token.id in self.control_ids and _overlaps(token, pair_spans) for token in tokens):
            tokens = self._encode_in_pieces(text, pair_spans)
        response = _tokens_touching(tokens, question_at if alone else prediction_at)
        if not response.size:
            what, dropped = ("question", question) if alone else ("prediction", prediction)
            raise PairError(
                f"A {what} must hold text that the tokenizer keeps, but got {dropped[:80]!r}, which it drops."
            )
        before = Span(0, 0) if alone else _tokens_inside(tokens, question_at)
        return self.cut([token.id for token in tokens], before, response)

    @cached_property
    def opening_ids(self) -> list[int]:
        """Token ids that pairs begin with under this reading, as far as no text of the question can change them."""
        samples = [self(question, "a").input_ids for question in _OPENING_SAMPLES]
        shared = zip(*samples, strict=False)
        return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, shared)]

    def cut(self, input_ids: list[int], question: Span, response: Span) -> EncodedPair:
        """Cut token ids to `max_length` where they are more: in the question's middle, then in the response's.

        Args:
            input_ids: Token ids of a whole pair.
            question: The tokens that carry nothing but the question.
            response: The tokens that carry the response.

        Returns:
            What is left of the pair.

        Raises:
            PairError: Question and response cannot be cut that far.
        """
        cuts = self._plan_cuts(len(input_ids), question, response)
        kept = [id_ for i, id_ in enumerate(input_ids) if not any(cut.start <= i < cut.end for cut in cuts)]
        before = sum(cut.size for cut in cuts if cut.end <= response.start)
        start = response.start - before
        within = sum(cut.size for cut in cuts) - before
        return EncodedPair(kept, Span(start, start + response.size - within), bool(cuts))

    def _encode(self, text: str, **kwargs: Any) -> list[_Token]:
        kwargs.setdefault("add_special_tokens", self.reading.add_special_tokens)
        with _TOKENIZER_LOCK:  # whether control tokens are split is a state of the tokenizer, not of the call
            encoding = self.tokenizer(
                text, return_offsets_mapping=True, return_attention_mask=False, verbose=False, **kwargs
            )
        return [_Token(i, *at) for i, at in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)]

    def _encode_in_pieces(self, text: str, pair_spans: tuple[Span, Span]) -> list[_Token]:
        """Encode with control tokens kept where the reading wrote them and split where the pair did."""
        question_at, prediction_at = pair_spans
        borders = (0, *question_at, *prediction_at, len(text))
        literals = (Span(*borders[0:2]), Span(*borders[2:4]), Span(*borders[4:6]))
        controls = []
        for span in literals:
            for token in self._encode(text[span.start : span.end], add_special_tokens=False):
                if token.id in self.control_ids:
                    controls.append(_Token(token.id, token.start + span.start, token.end + span.start))
        tokens: list[_Token] = []
        position = 0
        for control in [*controls, _Token(-1, len(text), len(text))]:
            piece = text[position : control.start]
            if piece:
                pieces = self._encode(piece, add_special_tokens=False, split_special_tokens=True)
                tokens += [_Token(token.id, token.start + position, token.end + position) for token in pieces]
            if control.id >= 0:
                tokens.append(control)
            position = control.end
        before, after = self._added_around()
        return [*(_Token(i, 0, 0) for i in before), *tokens, *(_Token(i, len(text), len(text)) for i in after)]

    def _added_around(self) -> tuple[list[int], list[int]]:
        """Return the ids that the tokenizer itself puts before and after a text."""
        if not self.reading.add_special_tokens:
            return [], []
        bare = [token.id for token in self._encode("a", add_special_tokens=False)]
        full = [token.id for token in self._encode("a")]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return full[:start], full[start + len(bare) :]

    def _plan_cuts(self, n_tokens: int, question: Span, response: Span) -> list[Span]:
        """Choose what to drop so that at most `max_length` tokens stay: the question's middle, then the response's."""
        surplus = max(0, n_tokens - self.max_length)
        from_question = min(surplus, max(0, question.size - MIN_TEXT_TOKENS))
        from_response = min(surplus - from_question, max(0, response.size - MIN_TEXT_TOKENS))
        from_question += min(surplus - from_question - from_response, question.size - from_question)
        if from_question + from_response < surplus:
            raise PairError(
                f"A pair must fit into max_length={self.max_length} tokens once its texts are cut to {MIN_TEXT_TOKENS} "
                f"tokens, but got {n_tokens} tokens, {question.size} of the question and {response.size} of the "
                "response. Give the judge a larger max_length."
            )
        return [_middle(span, n) for span, n in ((question, from_question), (response, from_response)) if n]


def _middle(span: Span, n: int) -> Span:
    """Return the n positions in the middle of a span."""
    start = span.start + (span.size - n + 1) // 2
    return Span(start, start + n)


def _control_token_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens that text must not turn into: all special ones."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _overlaps(token: _Token, spans: tuple[Span, ...]) -> bool:
    return any(token.start < span.end and span.start < token.end for span in spans)


def _tokens_touching(tokens: list[_Token], at: Span) -> Span:
    """Return the range of tokens that carry at least one character of `at`; empty where there is none."""
    hits = [i for i, token in enumerate(tokens) if token.start < at.end and at.start < token.end]
    return Span(hits[0], hits[-1] + 1) if hits else Span(0, 0)


def _tokens_inside(tokens: list[_Token], at: Span) -> Span:
    """Return the range of tokens that carry nothing but characters of `at`."""
    hits = [i for i, token in enumerate(tokens) if at.start <= token.start < token.end <= at.end]
    return Span(hits[0], hits[-1] + 1) if hits else Span(0, 0)


PAIR_KEYS = ("question", "prediction")
QUESTION_KEYS = ("question",)  # what a judge needs whose readings all hold the question alone
EXPECTED = '{"question": str, "prediction": str}'


class PairEncoder:
    """Checks a pair and tokenises it under every reading of a judge; can be sent to worker processes."""

    def __init__(self, encoders: dict[str, PairTokenizer]) -> None:
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


def needed_keys(readings: Iterable[PairTemplate]) -> tuple[str, ...]:
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
