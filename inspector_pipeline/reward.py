"""A judge as a reward: a model that TRL loads by the judge's id, and a function of prompts and completions.

    GRPOTrainer(reward_funcs="org/inspector-gsm8k-multi", args=GRPOConfig(trust_remote_code=True), ...)
    GRPOTrainer(reward_funcs=RewardFunction(load_judge("org/inspector-gsm8k-multi")), ...)

The model sees token ids only, so it takes judges whose single reading is the chat template, and cannot tell chat markup
that a policy writes as text from real markup. The function takes every judge, and scores texts as the pipeline does.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from .batching import collate
from .configuration_inspector import InspectorConfig
from .conversation import ConversationReader
from .errors import BackboneError, JudgeConfigError, PairError
from .modeling_inspector import InspectorModel
from .pipeline_inspector import InspectorPipeline, load_tokenizer

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
