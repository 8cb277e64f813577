"""A student: a causal model that LoRA fine-tunes on responses (trl, peft), and that then answers questions."""

import gc
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers.utils import logging as hf_logging
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]  # exported by a lazy module

from inspector_pipeline.batches import plan_batches
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import Row
from inspector_pipeline.template import QUESTION_MARK

from ..evaluation.adapters import AdapterConfig, old_names_allowed
from ..labelling.endpoint import Message
from ..labelling.generate import Generated, LocalConfig, LocalGenerator


@dataclass(frozen=True)
class StudentConfig(AdapterConfig):
    """How a student is trained.

    Attributes:
        epochs: Passes over an arm's rows, equal for all arms.
        steps: Optimiser steps, equal for all arms, in place of epochs; None for epochs.
        learning_rate: At the end of the warm-up; it falls to 0 linearly.
        batch_size: Rows of a forward pass.
        accumulation: Passes of an optimiser step.
        warmup_steps: Optimiser steps of the warm-up; every arm must have more.
        weight_decay: Of AdamW.
        max_length: Longest row in tokens; longer ones are left out of all arms.
        validation: Share of an arm's rows that is held out to keep the best epoch by loss; 0 keeps the last.
        gradient_checkpointing: Whether to save memory at the cost of time.
    """

    epochs: int = 8
    steps: int | None = None
    learning_rate: float = 1e-4
    batch_size: int = 8
    accumulation: int = 4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_length: int = 1024
    validation: float = 0.1
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            SettingsError: One is.
        """
        if not 0 <= self.validation < 1:
            raise SettingsError(f"training.validation expects a share from 0 to below 1, but got {self.validation:g}.")
        if min(self.epochs, self.batch_size, self.accumulation, self.steps or 1) < 1 or self.steps == 0:
            raise SettingsError(
                "training expects epochs, steps, batch_size and accumulation of 1 at least, but got "
                f"{self.epochs}, {self.steps}, {self.batch_size} and {self.accumulation}."
            )

    @property
    def held_equal(self) -> str:
        """What all arms have alike, in words."""
        if self.steps is not None:
            return f"{self.steps} optimiser steps: an arm with fewer rows sees each of them more often"
        epochs = "an epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"{epochs}: an arm with more rows takes more optimiser steps"

    def n_held_out(self, n_rows: int) -> int:
        """Return how many of an arm's rows are held out for validation."""
        return math.ceil(n_rows * self.validation)

    def n_steps(self, n_rows: int) -> int:
        """Return how many optimiser steps an arm of so many rows takes.

        Raises:
            SettingsError: No row is left to train on, or the warm-up would not end.
        """
        n_train = n_rows - self.n_held_out(n_rows)
        if n_train < 1:
            raise SettingsError(
                f"training expects rows beside those held out, but of {n_rows} none is left. Raise share, or lower "
                "training.validation."
            )
        batches = math.ceil(n_train / self.batch_size)
        n_steps = self.steps or self.epochs * math.ceil(batches / self.accumulation)
        if n_steps <= self.warmup_steps:
            raise SettingsError(
                f"training.warmup_steps expects fewer than the optimiser steps of every arm, but got "
                f"{self.warmup_steps} where an arm of {n_rows} rows takes {n_steps}. Lower it, or train for longer."
            )
        return n_steps


@contextmanager
def student(model: str, local: LocalConfig, adapter: Path | None = None) -> Iterator[LocalGenerator]:
    """Load a student, with adapters or without, and let go of its memory afterwards.

    The adapters are not merged into the weights, since bfloat16 would round them off.

    Raises:
        BackboneError: The model cannot be used; see `LocalGenerator`.
    """
    loaded = LocalGenerator(model, local)
    if adapter is not None:
        with old_names_allowed():
            loaded.model = PeftModel.from_pretrained(loaded.model, str(adapter)).eval()
    try:
        yield loaded
    finally:
        del loaded.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def question_messages(prompt: str, question: str) -> list[Message]:
    """Write the messages that ask a student; the same in training and in the test.

    Args:
        prompt: User message; {question} stands for the question.
        question: The question.
    """
    return [{"role": "user", "content": prompt.replace(QUESTION_MARK, question)}]


def too_long(tokenizer: Any, prompt: str, rows: Sequence[Row], max_length: int) -> list[int]:
    """Find the rows that have more tokens than are trained on, by their indices."""
    replies = [{"role": "assistant", "content": row["prediction"]} for row in rows]
    talks = [[*question_messages(prompt, row["question"]), reply] for row, reply in zip(rows, replies, strict=True)]
    texts = [tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
    n_tokens = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    return [i for i, n in enumerate(n_tokens) if n > max_length]


def make_trainer(
    loaded: LocalGenerator, rows: Sequence[Row], prompt: str, config: StudentConfig, seed: int, folder: Path
) -> SFTTrainer:
    """Make trl's trainer: rows as prompt and completion in the student's chat format, loss on the completion alone.

    Args:
        loaded: The student; adapters are put into its model.
        rows: Rows with question and prediction, all of an arm.
        prompt: User message; {question} stands for the question.
        config: How to train.
        seed: Of the adapters, the order of the rows, the dropout, and which rows are held out.
        folder: For checkpoints.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    held_out, trained = np.split(order, [config.n_held_out(len(rows))])
    every = "epoch" if len(held_out) else "no"
    with old_names_allowed():
        arguments = SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=config.batch_size,
            gradient_accumulation_steps=config.accumulation,
            gradient_checkpointing=config.gradient_checkpointing,
            num_train_epochs=config.epochs,
            max_steps=config.steps or -1,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            eval_strategy=every,
            save_strategy=every,
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=bool(len(held_out)),
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            completion_only_loss=True,
            max_length=None,  # rows that are too long were left out of all arms, none is cut
            bf16=loaded.model.dtype == torch.bfloat16,
            use_cpu=loaded.model.device.type == "cpu",
            dataloader_pin_memory=loaded.model.device.type == "cuda",
            logging_steps=10,
            report_to=[],
            seed=seed,
            data_seed=seed,
        )
        return SFTTrainer(
            loaded.model,
            args=arguments,
            processing_class=loaded.tokenizer,
            train_dataset=_dataset([rows[i] for i in trained], prompt),
            eval_dataset=_dataset([rows[i] for i in held_out], prompt) if len(held_out) else None,
            peft_config=config.for_peft("CAUSAL_LM"),
        )


def train_student(
    loaded: LocalGenerator, rows: Sequence[Row], prompt: str, config: StudentConfig, seed: int, folder: Path
) -> dict[str, Any]:
    """Fine-tune a student and save its adapters.

    Args:
        loaded: The student; its model is changed.
        rows: Rows with question and prediction.
        prompt: User message; {question} stands for the question.
        config: How to train.
        seed: Of all chance.
        folder: For the adapters; what is in it is replaced.

    Returns:
        rows and held_out (how many), steps, epochs, train_loss (mean over the run), and of the epoch that was kept
        kept_step and validation_loss, None where nothing was held out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    trainer = make_trainer(loaded, rows, prompt, config, seed, folder / "checkpoints")
    with old_names_allowed():
        found = trainer.train()
        for adapters in trainer.model.peft_config.values():  # a set, whose order is another one in every process
            adapters.target_modules = sorted(adapters.target_modules)
        trainer.model.save_pretrained(str(folder))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    state, n_held_out = trainer.state, config.n_held_out(len(rows))
    return {
        "rows": len(rows) - n_held_out,
        "held_out": n_held_out,
        "steps": state.global_step,
        "epochs": round(state.epoch or 0.0, 2),
        "train_loss": round(found.training_loss, 4),
        "kept_step": state.best_global_step if n_held_out else None,
        "validation_loss": round(state.best_metric, 4) if n_held_out and state.best_metric is not None else None,
    }


def answer(
    loaded: LocalGenerator, questions: Sequence[str], prompt: str, max_tokens: int, batch_size: int
) -> list[Generated]:
    """Let a student answer questions, by the likeliest tokens.

    Args:
        loaded: The student.
        questions: The questions.
        prompt: User message; {question} stands for the question.
        max_tokens: Limit of new tokens.
        batch_size: Questions of a batch; batches are of like length.

    Raises:
        SettingsError: A question and its answer have no room in the model.
    """
    prompts = [loaded.encode(question_messages(prompt, question)) for question in questions]
    room = loaded.max_length - max_tokens if loaded.max_length else None
    longest = max(map(len, prompts), default=0)
    if room is not None and longest > room:
        raise SettingsError(
            f"max_new_tokens expects to leave room for every question, but one has {longest} tokens and the model "
            f"reads {loaded.max_length}. Lower max_new_tokens from {max_tokens}."
        )
    found: dict[int, Generated] = {}
    for batch in hf_logging.tqdm(plan_batches([len(ids) for ids in prompts], batch_size), desc="test", unit="batch"):
        replies = loaded.generate([prompts[i] for i in batch], max_tokens)
        found |= dict(zip(batch, replies, strict=True))
    return [found[i] for i in range(len(prompts))]


def _dataset(rows: Sequence[Row], prompt: str) -> Dataset:
    """Write rows as trl takes them: prompt and completion, each a list of messages."""
    completions = [[{"role": "assistant", "content": row["prediction"]}] for row in rows]
    prompts = [question_messages(prompt, row["question"]) for row in rows]
    return Dataset.from_dict({"prompt": prompts, "completion": completions})
