"""Finding the response in the token ids of a chat-formatted conversation, as a reward model is given them."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_inspector import InspectorConfig
from .engine import collate
from .errors import BackboneError, JudgeConfigError, PairError, ReadingError
from .modeling_inspector import InspectorModel
from .pipeline_inspector import InspectorPipeline, load_tokenizer
from .template import EncodedPair, PairTemplate, PairTokenizer, Span

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

    def __init__(self, reading: PairTemplate, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Find the header's and the closing tokens.

        Args:
            reading: The judge's only reading.
            tokenizer: Its tokenizer.
            max_length: Longer conversations are cut as the pipeline cuts pairs.

        Raises:
            ReadingError: The reading is not the chat reading of this tokenizer.
        """
        self.encoder = PairTokenizer(reading, tokenizer, max_length)
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

    def _refuse_other_readings(self, reading: PairTemplate) -> None:
        if not self.tokenizer.chat_template:
            raise ReadingError("A reward model expects a tokenizer with a chat template, but this judge's has none.")
        chat = PairTemplate.from_chat_template(self.tokenizer)
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


logger = logging.getLogger(__name__)

Turns = str | Sequence[Mapping[str, Any]]


class InspectorReward(InspectorModel):
    """A judge whose logit is the expected total of a chat-formatted prompt with its completion.

    Args:
        config: Config of a judge with one reading, its tokenizer's chat template.

    Raises:
        JudgeConfigError: The judge has several readings, as rubric judges have, or no aspect counts in its total.

    Example:
        >>> from transformers import AutoModelForSequenceClassification
        >>> reward = AutoModelForSequenceClassification.from_pretrained(
        ...     "org/inspector-gsm8k-multi", num_labels=1, trust_remote_code=True
        ... )  # doctest: +SKIP
    """

    def __init__(self, config: InspectorConfig) -> None:
        """Build the judge; its tokenizer is loaded by `from_pretrained`."""
        super().__init__(config)
        if len(self.reading_names) > 1:
            raise JudgeConfigError(
                "A reward model expects a judge with one reading, its chat template, since it is given token ids and "
                f"no texts to write into rubrics, but this one has {', '.join(self.reading_names)}. Use RewardFunction "
                "instead."
            )
        if not any(aspect.counts_in_total for aspect in self.aspects):
            raise JudgeConfigError(
                "A reward model expects an aspect that counts in the total, but this judge has none."
            )
        self._reader: ConversationReader | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a judge and its tokenizer; see `InspectorModel.from_pretrained`.

        Raises:
            ReadingError: The judge's reading is not its tokenizer's chat template.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        (reading,) = model.config.parsed_readings.values()
        model._reader = ConversationReader(reading, load_tokenizer(model), model.config.max_length)
        return (model, info) if wants_info else model

    def forward(  # type: ignore[override]  # what sequence classifiers take and give
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Score a batch of conversations.

        Args:
            input_ids: int64 (batch, tokens): chat-formatted prompts with their completions.
            attention_mask: (batch, tokens), non-zero on real tokens, padding left or right; all are real where it is
                None.
            **kwargs: Ignored, as trainers pass some of their own.

        Returns:
            `logits`, float32 (batch, 1): the sum of the expected scores of all aspects that count. NaN, which trainers
            take for "no reward", where the assistant's turn is blank or does not end the conversation.

        Raises:
            PairError: A conversation has no assistant header.
            BackboneError: The judge was not loaded by `from_pretrained`, or its states are not finite.
        """
        if self._reader is None:
            raise BackboneError("A reward model expects its tokenizer. Load the judge with from_pretrained.")
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, real, strict=True)]
        pairs = [self._reader(ids) for ids in rows]
        found = [pair for pair in pairs if pair is not None]
        logits = torch.full((len(pairs), 1), torch.nan, device=input_ids.device)
        if found:
            batch = {name: tensor.to(input_ids.device) for name, tensor in collate(found, pad_id=0).items()}
            totals = self._totals(**batch).to(input_ids.device)
            logits[[i for i, pair in enumerate(pairs) if pair is not None], 0] = totals
        if len(found) < len(pairs):
            logger.warning(
                "%d of %d conversations have no reward: their assistant's turn is blank, or text follows its end.",
                len(pairs) - len(found),
                len(pairs),
            )
        return SequenceClassifierOutput(logits=logits)

    def _totals(self, **batch: Tensor) -> Tensor:
        output = super().forward(**batch)
        if output.expected is None or output.decision_values is None:
            raise BackboneError("A judge expects to give expected scores, but gave none.")
        if not all(values.isfinite().all() for values in output.decision_values):
            raise BackboneError(
                f"A judge expects finite states, but got others in {self.dtype}. Load it with dtype=torch.float32 or "
                "torch.bfloat16."
            )
        return output.expected[:, [aspect.counts_in_total for aspect in self.aspects]].sum(dim=1)


class RewardFunction:
    """A judge as a reward function: prompts and completions in, expected totals out.

    Args:
        judge: A loaded judge of any kind.
        batch_size: Pairs that are scored together; None is 256.

    Example:
        >>> from inspector_pipeline import load_judge
        >>> reward = RewardFunction(load_judge())  # doctest: +SKIP
        >>> reward(["What is 2 + 2?"], ["2 + 2 = 4."])  # doctest: +SKIP
        [19.8]
    """

    __name__ = "inspector"  # what trainers log it as

    def __init__(self, judge: InspectorPipeline, batch_size: int | None = None) -> None:
        """Keep the judge."""
        self.judge = judge
        self.batch_size = batch_size
        self._counting = [a.name for a in judge.model.config.parsed_aspects if a.counts_in_total]

    def __call__(self, prompts: Sequence[Turns], completions: Sequence[Turns], **kwargs: Any) -> list[float | None]:
        """Score completions.

        Args:
            prompts: Texts, each the question; or conversations with one user turn, whose content is the question, and
                where wanted a system turn, which is not shown to the judge.
            completions: Texts, or conversations of one assistant turn.
            **kwargs: Ignored; trainers pass the data set's other columns.

        Returns:
            For each, the sum of the expected scores of all aspects that count; None where the completion is blank.

        Raises:
            PairError: A prompt or a completion is of another form.
        """
        if len(prompts) != len(completions):
            raise PairError(f"A reward expects as many completions as prompts, but got {len(completions)}.")
        questions = [_content(turns, "user", i) for i, turns in enumerate(prompts)]
        predictions = [_content(turns, "assistant", i) for i, turns in enumerate(completions)]
        rewards: list[float | None] = [None] * len(predictions)
        scored = [i for i, text in enumerate(predictions) if text.strip()]
        pairs = [{"question": questions[i], "prediction": predictions[i]} for i in scored]
        results = self.judge(pairs, batch_size=self.batch_size) if pairs else []
        for i, result in zip(scored, results, strict=True):
            rewards[i] = sum(result["expected"][name] for name in self._counting)
        return rewards


def _content(turns: Turns, role: str, index: int) -> str:
    """Return a text as it is, or the content of the one turn of a role."""
    if isinstance(turns, str):
        return turns
    contents = [turn["content"] for turn in turns if turn["role"] == role]
    others = {turn["role"] for turn in turns} - {role, "system"}
    if len(contents) != 1 or others or not isinstance(contents[0], str):
        raise PairError(
            f"Pair {index} expects a text or a conversation with one {role} turn of text, but got {turns!r:.200}. "
            "Write longer conversations as one text."
        )
    return str(contents[0])


InspectorReward.register_for_auto_class("AutoModelForSequenceClassification")
