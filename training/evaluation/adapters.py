"""Low-rank adapters (LoRA), as students get them and the fine-tuned backbone of a comparison."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from peft import LoraConfig


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Low-rank adapters.

    Attributes:
        rank: Of the adapters.
        alpha: Their scale is alpha / rank.
        dropout: In the adapters.
        modules: Which linear maps get adapters.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    modules: tuple[str, ...] = ("q_proj", "v_proj")

    def for_peft(self, task_type: str | None = None) -> LoraConfig:
        """Write it as peft reads it."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self.modules),
            task_type=task_type,
        )


@contextmanager
def old_names_allowed() -> Iterator[None]:
    """Pass over what peft and trl ask transformers by names that are going."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield
