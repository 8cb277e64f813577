"""A judge as a reward in RL training: on token ids, as reward models are given them, and as a function of texts.

`ConversationReader` finds the response in the token ids of a chat-formatted conversation; the model that scores what it
finds is `InspectorReward`. `RewardFunction` scores prompts and completions with any judge.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Pipeline, PreTrainedTokenizerBase

from .batches import collate
from .conversation import asked, divided, plain_turns
from .encoded import EncodedPair, Finder, Span
from .errors import PairError, ReadingError
from .names import OPTIONAL, PREDICTION, QUESTION, SYSTEM, TOOL, USER
from .pair_tokenizer import PairTokenizer
from .pairs import is_blank
from .results import rank_field, ranked_value
from .template import PairTemplate

logger = logging.getLogger(__name__)

Turns = str | Sequence[Mapping[str, Any]]

_REASONING = "<think>"  # where a template writes an empty block of reasoning into its own header


class ConversationReader:
    """Binds a frozen chat template to its tokenizer; call it with a conversation's token ids.

    The response is what follows the last assistant header: the template's `middle`, which closes the user's turn and
    opens the assistant's. Where the template writes an empty block of reasoning there, the header may also stand
    without it, and a filled block is part of the response. All other tokens are used as they are, so a system prompt
    or earlier turns are read too. As with the pipeline's pairs, what is read ends on the token that closes the turn:
    one that is missing is added, white space and special tokens after it are dropped.

    Ids alone cannot tell markup that the policy wrote as text from real markup.
    """

    def __init__(
        self,
        template: PairTemplate,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        checks: Mapping[str, Finder] | None = None,
    ) -> None:
        """Find the header's and the closing tokens.

        Args:
            template: The judge's only reading.
            tokenizer: Its tokenizer.
            max_length: Longer conversations are cut as the pipeline cuts pairs.
            checks: What is looked for in the response's text, see `PairTokenizer`.

        Raises:
            ReadingError: The template is not the chat template of this tokenizer.
        """
        self.encoder = PairTokenizer(template, tokenizer, max_length, checks)
        self.tokenizer = tokenizer
        self._refuse_other_templates(template)
        middle = template.middle or ""
        short, block, _ = middle.partition(_REASONING)
        self._header = self._ids(short.strip())
        before, white = short.rstrip(), short[len(short.rstrip()) :]
        # Text of the template that may follow the header's ids, the longest first.
        self._tails = (middle[len(before) :], white) if block else (white,)
        self._prefix = self._ids(template.prefix)
        self._closing = self._ids(template.suffix)
        if not self._is_control(self._header[:1]) or (self._closing and not self._is_control(self._closing[:1])):
            raise ReadingError(
                "A reward model expects a chat template whose turns begin and end on special tokens, but got "
                f"{middle!r} between the turns and {template.suffix!r} at the end. Use RewardFunction instead."
            )

    def _refuse_other_templates(self, template: PairTemplate) -> None:
        if not self.tokenizer.chat_template:
            raise ReadingError("A reward model expects a tokenizer with a chat template, but this judge's has none.")
        chat = PairTemplate.from_chat_template(self.tokenizer)
        # The prefix may hold the date of the day on which the judge was made, so only its last words are compared.
        own, now = ((one.middle, one.suffix, self._after_control(one.prefix)) for one in (template, chat))
        if own != now or template.add_special_tokens:
            raise ReadingError(
                "A reward model expects a judge whose reading is its tokenizer's chat template, since that is all it "
                f"is given, but this judge reads {template.text('{question}', '{prediction}')!r}. Use RewardFunction "
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
        response, after = (self.tokenizer.decode(part, skip_special_tokens=True) for part in (ids[start:end], rest))
        if is_blank(str(response)) or str(after).strip():
            return None
        begins = len(self._prefix) if ids[: len(self._prefix)] == self._prefix else 0
        found = self.encoder.cut([*ids[:end], *self._closing], [Span(begins, max(begins, header))], Span(start, end))
        return replace(found, checks=self.encoder.checked(str(response)))

    def batch(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[list[int], dict[str, Tensor]]:
        """Find the responses of a batch.

        Args:
            input_ids: int64 (batch, tokens).
            attention_mask: (batch, tokens), non-zero on real tokens, padding left or right; all are real where it is
                None.

        Returns:
            Which rows have a response, and their tensors for a judge, on the device of `input_ids`; none where no row
            has.

        Raises:
            PairError: A conversation has no assistant header.
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pairs = [self(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, real, strict=True)]
        found = {row: pair for row, pair in enumerate(pairs) if pair is not None}
        if len(found) < len(pairs):
            logger.warning(
                "%d of %d conversations have no reward: their assistant's turn is blank, or text follows its end.",
                len(pairs) - len(found),
                len(pairs),
            )
        tensors = collate(list(found.values()), pad_id=0) if found else {}
        return list(found), {name: tensor.to(input_ids.device) for name, tensor in tensors.items()}

    def _last_header(self, ids: list[int]) -> int:
        width = len(self._header)
        for at in range(len(ids) - width, -1, -1):
            if ids[at : at + width] == self._header:
                return at
        raise PairError(
            f"A reward model expects a chat-formatted conversation with {self.tokenizer.decode(self._header)!r} before "
            f"the response, but got {self.tokenizer.decode(ids)[-200:]!r}. Format prompts with the chat template."
        )

    def _response_start(self, ids: list[int], position: int) -> int:
        """Step over what the template itself writes after the header's ids."""
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
        if self._closing and self._closing[0] in ids[start:]:
            end = ids.index(self._closing[0], start)
            return end, ids[end + 1 :]
        end = len(ids)
        while end > start and self._is_control(ids[end - 1 : end]):
            end -= 1
        return end, []

    def _read(self, ids: list[int], start: int, end: int) -> str:
        """Return the text of tokens that follow a header; decoded with it, as some decoders strip what comes first."""
        before = self.tokenizer.decode(self._header)
        return str(self.tokenizer.decode([*self._header, *ids[start:end]]))[len(before) :]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _is_control(self, ids: list[int]) -> bool:
        return bool(ids) and ids[0] in self.encoder.control_ids

    def _after_control(self, text: str) -> str:
        """Return what follows the last special token of a text."""
        ids = self._ids(text)
        last = max((i for i, id_ in enumerate(ids) if id_ in self.encoder.control_ids), default=-1)
        return str(self.tokenizer.decode(ids[last + 1 :]))


class RewardFunction:
    """A judge as a reward function: prompts and completions in, what the judge ranks by out.

    Args:
        judge: A loaded judge of any kind.
        batch_size: Pairs that are scored together; None is 256.
        rank_by: The field that is the reward, such as `expected_total` or `expected_factuality`; None is the judge's.

    Raises:
        SettingsError: There is no such field, or the judge names none and no aspect counts in its total.

    Example:
        >>> from inspector_pipeline import load_judge
        >>> reward = RewardFunction(load_judge())  # doctest: +SKIP
        >>> reward(["What is 2 + 2?"], ["2 + 2 = 4."])  # doctest: +SKIP
        [19.8]
    """

    __name__ = "inspector"  # what trainers log it as

    def __init__(self, judge: Pipeline, batch_size: int | None = None, rank_by: str | None = None) -> None:
        """Keep the judge."""
        self.judge = judge
        self.batch_size = batch_size
        self.rank_by = rank_field(judge.model.config, rank_by)

    def __call__(self, prompts: Sequence[Turns], completions: Sequence[Turns], **kwargs: Any) -> list[float | None]:
        """Score completions.

        Args:
            prompts: Texts, each the question; or conversations as chat tools write them, whose last user's turn is
                asked and whose earlier turns are read before it. Of a conversation with one user's turn a system turn
                is not shown to the judge. What is asked of tools and what they say is text (conversation.py).
            completions: Texts, or the assistant's turn; also several, with what tools said between them, of which the
                last is judged.
            **kwargs: Trainers pass the data set's other columns: `reference` and `context` are for a judge that reads
                them, others are ignored.

        Returns:
            For each the field that is ranked by; None where the completion is blank.

        Raises:
            PairError: A prompt or a completion is of another form: with images, without content, or not ending with
                the user and the assistant; the message names the pair and the turn.
        """
        if len(prompts) != len(completions):
            raise PairError(f"A reward expects as many completions as prompts, but got {len(completions)}.")
        further = {key: kwargs[key] for key in self.judge.encode.keys if key in OPTIONAL and key in kwargs}
        found = [_pair(*both, row) for row, both in enumerate(zip(prompts, completions, strict=True))]
        pairs = [
            pair | {key: own[row] for key, own in further.items()}
            for row, pair in enumerate(found)
            if not is_blank(pair[PREDICTION])
        ]
        results = iter(self.judge(pairs, batch_size=self.batch_size) if pairs else [])
        return [None if is_blank(pair[PREDICTION]) else ranked_value(next(results), self.rank_by) for pair in found]


def _pair(prompt: Turns, completion: Turns, index: int) -> dict[str, Any]:
    """Read a prompt and a completion as a pair, whose prediction is blank where the completion is.

    Raises:
        PairError: One has another form.
    """
    turns, between, answer = _asked(prompt, index), list[tuple[str, str]](), completion
    if not isinstance(completion, str):
        where = f"Pair {index} expects a text or the assistant's turns as completion, but"
        raw = _list_of(completion, where)
        if is_blank(_plain_text(raw[-1])):
            return {QUESTION: "", PREDICTION: ""}
        try:
            between, answer = divided(plain_turns(raw), "A completion")
        except PairError as error:
            raise PairError(f"{where}: {error}") from error
    if not between and [role for role, _ in turns] == [USER]:
        return {QUESTION: turns[0][1], PREDICTION: answer}
    return {**asked([*turns, *between]), PREDICTION: answer}


def _asked(prompt: Turns, index: int) -> list[tuple[str, str]]:
    """Read a prompt as turns; where the user speaks once, without a system turn."""
    if isinstance(prompt, str):
        return [(USER, prompt)]
    where = f"Pair {index} expects a text or a conversation that ends with the user as prompt, but"
    given = _list_of(prompt, where)
    spoken = [turn for turn in given if not (isinstance(turn, Mapping) and turn.get("role") == SYSTEM)]
    try:
        turns = plain_turns(spoken if len(spoken) == 1 else given)
    except PairError as error:
        raise PairError(f"{where}: {error}") from error
    if turns[-1][0] not in (USER, TOOL):
        raise PairError(f"{where} it ends with the {turns[-1][0]}'s turn.")
    return turns


def _list_of(turns: Any, where: str) -> list[Any]:
    if not isinstance(turns, Sequence) or not turns:
        raise PairError(f"{where} got {type(turns).__name__}: {turns!r:.200}.")
    return list(turns)


def _plain_text(turn: Any) -> str:
    """Return an assistant's text that is nothing but text, to see whether it is blank; any other stands for some."""
    content = turn.get("content") if isinstance(turn, Mapping) and turn.keys() == {"role", "content"} else None
    return content if isinstance(content, str) else "..."
