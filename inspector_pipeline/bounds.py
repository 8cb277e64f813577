r"""What of a long text truncation can leave: the middle is found and dropped before anything is tokenised.

Truncation keeps the two ends of a text, max_length tokens at most. A text of megabytes therefore needs no more than its
two ends tokenised, provided that their tokens do not depend on what lies between. That holds where the text is parted
at a *break*: a place between two characters which no token spans, whatever comes before and after, and on whose either
side the tokens are a function of that side alone. With text = head + middle + tail, parted at two breaks,
tokens(text) = tokens(head) + tokens(middle) + tokens(tail), and tokens(head + tail) = tokens(head) + tokens(tail), as
head and tail meet at a break too. So what truncation leaves is the same, token for token, once head and tail hold half
of max_length each.

Breaks are known for two kinds of BPE, which never write a token for what they do not know:

- Byte-level BPE after regular expressions of which each alternative is in `ALTERNATIVES` (GPT-2, SmolLM, Llama 3, Qwen,
  GPT-4o and their kin). None of them looks behind, none matches across a break, and none looks past one: the
  character before a break ends every alternative that it is part of. A break is what lies before a space that follows
  no white space, or between a letter or digit and a character of another kind.
- SentencePiece's BPE with all bytes, whose one word is the whole text. Merges never cross a place that no token spans,
  and merges on either side do not see each other, so such a place divides the result. A break is what lies before a
  space that follows no white space, where no token of the vocabulary holds a space after another character.

A tokenizer of another kind (Unigram, WordPiece, other expressions or normalisers, added tokens that take in the white
space around them) has no break that is proven here: its texts are tokenised whole, however long.
"""

import json
import re
from collections import deque
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_CASED = (
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
GPT2 = _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ALTERNATIVES = (
    *_CONTRACTIONS.split("|"),
    *(f"(?i:{_CONTRACTIONS})", r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?\p{N}+", r"\p{N}", r"\p{N}{1,3}"),
    *(rf"[^\r\n\p{{L}}\p{{N}}]?{cased}{end}" for cased in _CASED for end in (f"(?i:{_CONTRACTIONS})?", "")),
    *(rf" ?[^\s\p{{L}}\p{{N}}]+{end}" for end in ("", r"[\r\n]*", r"[\r\n/]*")),
    *(r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
)
_MARKS = r"\n,.;:!?()，。、；：！？（）「」"
_LETTERS = "A-Za-zа-яА-Яα-ωא-תء-يก-ฮぁ-ゖァ-ヺ一-龥가-힣"
_WORD_BREAK = re.compile(rf"\S(?= )|[{_LETTERS}](?=[0-9{_MARKS}])|[0-9](?=[A-Za-z{_MARKS}])")
_PIECE_BREAK = re.compile(r"[^\s▁](?= )")
_FIRST_WIDTH = 1024  # characters in which the last break is looked for at first


class Short(NamedTuple):
    """A text without its middle.

    Attributes:
        text: What is left.
        join: Where its two parts meet; None where nothing was dropped.
        has_control: Whether what was dropped spells a control token.
    """

    text: str
    join: int | None = None
    has_control: bool = False


class Bounds(NamedTuple):
    """Drops the middle of long texts.

    Attributes:
        breaks: Matches the character before a break.
        controls: Matches what spells a control token.
    """

    breaks: re.Pattern[str]
    controls: re.Pattern[str]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, control_ids: frozenset[int]) -> "Bounds | None":
        """Find a tokenizer's breaks.

        Args:
            tokenizer: A fast tokenizer.
            control_ids: The ids of its control tokens.

        Returns:
            What drops middles; None where no break is proven for this tokenizer.
        """
        breaks = _breaks(tokenizer)
        added = tokenizer.added_tokens_decoder
        if breaks is None or not control_ids <= added.keys():
            return None
        controls = {added[i].content for i in control_ids}
        others = {token.content for token in added.values()} - controls
        normalised = tokenizer.backend_tokenizer.normalizer is not None
        for token in added.values():
            reaches = token.rstrip or token.single_word or breaks.search(token.content)
            if reaches or (token.content in controls and normalised and token.normalized):
                return None
        for text in controls:
            ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            hidden = any(_overlaps(other, text) for other in others)
            if hidden or text != text.strip() or not control_ids.isdisjoint(ids):
                return None
        return cls(breaks, re.compile("|".join(map(re.escape, sorted(controls))) or r"(?!)"))

    def shorten(self, text: str, size: int) -> Short:
        """Drop a text's middle between two breaks, so that at least `size` characters stay on either side.

        Returns:
            What is left: the whole text where it has no such breaks.
        """
        first = self.breaks.search(text, size)
        start = len(text) if first is None else first.end()
        end = self._last(text, start, len(text) - size)
        if end <= start:
            return Short(text)
        return Short(text[:start] + text[end:], start, self.controls.search(text, start, end) is not None)

    def _last(self, text: str, start: int, end: int) -> int:
        """Return the last break between two places; the first of them where there is none."""
        width = _FIRST_WIDTH
        while end > start:
            begin = max(start, end - width)
            found = deque(self.breaks.finditer(text, begin, end), maxlen=1)
            if found:
                return found[0].end()
            width, end = 2 * width, begin + 1 if begin > start else start
        return start


def _breaks(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    backend, vocabulary = tokenizer.backend_tokenizer, tokenizer.get_vocab()
    model = backend.model
    parts = "dropout", "continuing_subword_prefix", "end_of_word_suffix"
    if type(model).__name__ != "BPE" or any(getattr(model, name) for name in parts):
        return None
    normalizers, splits = _steps(backend.normalizer, "normalizers"), _steps(backend.pre_tokenizer, "pretokenizers")
    is_plain = all(step["type"] == "NFC" for step in normalizers)
    knows_all = model.unk_token is None or set(_bytes_alphabet()) <= vocabulary.keys()
    if splits and splits[-1]["type"] == "ByteLevel" and is_plain and knows_all:
        return _WORD_BREAK if all(map(_is_local, splits)) and any(map(_parts_words, splits)) else None
    replaces = [step for step in normalizers if step["type"] == "Replace"]
    is_piece = (
        all(step["type"] in ("Prepend", "Replace") for step in normalizers)
        and all((step["pattern"], step["content"]) == ({"String": " "}, "▁") for step in replaces)
        and all(
            step.get("replacement") == "▁" or (replaces and step.get("pattern") == {"String": " "}) for step in splits
        )
        and (replaces or splits)
    )
    writes_all = model.byte_fallback and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    if is_piece and writes_all and not any(re.search("[^▁]▁", token) for token in vocabulary):
        return _PIECE_BREAK
    return None


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    """Describe the steps of a normaliser or pre-tokeniser."""
    found: dict[str, Any] = {"type": "Sequence", name: []} if part is None else json.loads(part.__getstate__())
    steps = found[name] if found["type"] == "Sequence" else [found]
    return list(steps)


def _bytes_alphabet() -> list[str]:
    """Return the character that byte-level BPE writes for each byte: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printable), *(chr(0x100 + i) for i in range(256 - len(printable)))]


def _pattern(step: dict[str, Any]) -> str:
    return GPT2 if step.get("use_regex") else str(step.get("pattern", {}).get("Regex", ""))


def _is_local(step: dict[str, Any]) -> bool:
    """Whether no piece of a pre-tokeniser's step depends on what lies beyond a break."""
    if step["type"] in ("Digits", "Punctuation"):
        return True
    if step["type"] == "ByteLevel":
        return not step["add_prefix_space"]
    behaviour = step.get("behavior"), step.get("invert")
    known = "|".join(map(re.escape, ALTERNATIVES))
    is_known = re.fullmatch(rf"(?:{known})(?:\|(?:{known}))*", _pattern(step)) is not None
    return step["type"] == "Split" and behaviour in (("Isolated", False), ("Removed", True)) and is_known


def _parts_words(step: dict[str, Any]) -> bool:
    """Whether a step has a piece end at every break: letters, digits and white space all end pieces."""
    pattern = _pattern(step)
    return pattern.endswith(r"|\s+") and r"\p{N}" in pattern and (r"\p{L}+" in pattern or _CASED[0] in pattern)


def _overlaps(other: str, control: str) -> bool:
    """Whether an added token, where it is matched first, could hide a control token."""
    return any(other[i:].startswith(control) or control.startswith(other[i:]) for i in range(len(other)))
