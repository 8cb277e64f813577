"""What is written around a pair of texts: the strings of a template, frozen when a judge is made.

A `PairTemplate` is three literal strings around two verbatim texts, prefix + question + middle + prediction + suffix,
frozen into the judge's config, as one of its readings, when the judge is made; one of the question alone is
prefix + question + suffix. Chat templates may add today's date, strip newlines or reparse `</think>`; frozen strings do
none of that. Text of the pair is data: whatever it holds, it never becomes a control token, and braces in it mean
nothing. The strings may hold `{reference}` and `{context}`, which further texts of the pair fill. Of a conversation a
chat template writes the earlier turns too (turns.py); other templates get them as plain text, with labels. A
`PairTokenizer` (pair_tokenizer.py) binds such strings to a tokenizer; a `PairEncoder` (pair_encoder.py) checks a pair
and tokenises it under every reading of a judge.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase

from .encoded import EncodedPair
from .errors import InspectorError, ReadingError
from .names import OPTIONAL, PAIR, QUESTION

QUESTION_MARK = "{question}"
PREDICTION_MARK = "{prediction}"
FALLBACK_TEMPLATE = f"Question:\n{QUESTION_MARK}\n\nAnswer:\n{PREDICTION_MARK}"
TEMPLATE_FIELDS = {"prefix": str, "middle": str | None, "suffix": str, "add_special_tokens": bool}
SLOTS = re.compile(rf"\{{({'|'.join(OPTIONAL)})\}}")

_SENTINELS = ("Inspector0question0here", "Inspector0prediction0here")


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


class Reading(Protocol):
    """What tokenises pairs under a template, as a `PairTokenizer` does.

    Attributes:
        template: The strings around a pair.
        max_length: Upper bound on the tokens of a pair.
    """

    template: PairTemplate
    max_length: int

    @property
    def opening_ids(self) -> list[int]:
        """Token ids that pairs begin with, as far as no text of the question can change them."""

    def __call__(
        self, question: str, prediction: str, turns: Sequence[Any] = (), *, keep_places: bool = False, **further: str
    ) -> EncodedPair:
        """Tokenise a pair."""


def needed_keys(templates: Iterable[PairTemplate]) -> tuple[str, ...]:
    """Return the texts that pairs need to be read so: besides the question those that a template has."""
    own = list(templates)
    slots = {slot for template in own for slot in template.slots}
    texts = (QUESTION,) if all(template.question_only for template in own) else PAIR
    return (*texts, *(key for key in OPTIONAL if key in slots))
