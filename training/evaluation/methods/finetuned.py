"""Fine-tuning baselines: an encoder, or the judge's own backbone with low-rank adapters (LoRA).

One model scores all aspects: a body, a pooled state, and a linear classifier for each aspect, trained together on the
labels that each pair carries. Fitted in a judge's own folds, it never sees a question that it is tested on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from inspector_pipeline.engine import collate, plan_batches
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.features import last_token, pool
from inspector_pipeline.template import EncodedPair

from ...probing.table import Array, Labels

MAX_GRADIENT = 1.0
UNLABELLED = -100


@dataclass(frozen=True)
class TrainingConfig:
    """How a body and its classifiers are trained.

    Attributes:
        epochs: Passes over the training pairs.
        batch_size: Pairs of a step.
        learning_rate: Of the body, at its height.
        head_learning_rate: Of the classifiers, which begin at zero.
        weight_decay: Of AdamW.
        warmup: Share of the steps in which the learning rate rises; it falls to 0 in the others.
        pass_tokens: Upper bound on the tokens of one pass, padding included: a step's pairs run in as many passes as
            that takes, and their gradients add up; so it bounds the memory and, but for dropout, changes nothing else.
        seed: Of the order of pairs and of dropout.
    """

    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    pass_tokens: int = 2048
    seed: int = 731

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            SettingsError: One is; a warm-up as long as the training, say.
        """
        if min(self.epochs, self.batch_size, self.pass_tokens) < 1:
            raise SettingsError("epochs, batch_size and pass_tokens expect 1 or more.")
        if min(self.learning_rate, self.head_learning_rate) <= 0:
            raise SettingsError("learning_rate and head_learning_rate expect more than 0.")
        if not 0 <= self.warmup < 1:
            raise SettingsError(f"warmup expects a share of the steps below 1, but got {self.warmup}.")

    def factor(self, step: int, n_steps: int) -> float:
        """Return the share of the learning rate's height that a step, counted from 0, is taken with."""
        rising = min(math.ceil(self.warmup * n_steps), n_steps - 1)  # at least one step at the full height
        if step < rising:
            return (step + 1) / (rising + 1)
        return max(0.0, (n_steps - step) / (n_steps - rising))


class PairClassifier(nn.Module):
    """A body, a pooled state, and a linear classifier for each aspect.

    Args:
        body: Any transformers model that gives hidden states.
        pooling: `mean` over tokens, or `last`.
        n_classes: Number of classes of each aspect.
    """

    def __init__(self, body: PreTrainedModel, pooling: str, n_classes: Sequence[int]) -> None:
        """Make the classifiers, zero until trained."""
        super().__init__()
        self.body = body
        self.pooling = pooling
        self.heads = nn.ModuleList(nn.Linear(body.config.hidden_size, n) for n in n_classes)
        for head in self.heads:
            nn.init.zeros_(head.get_parameter("weight"))
            nn.init.zeros_(head.get_parameter("bias"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return float32 (batch, classes) logits of each aspect."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling == "last":
            pooled = last_token(states, attention_mask).float()
        else:
            pooled = pool(states, attention_mask, "mean")
        return [head(pooled) for head in self.heads]


def train(model: PairClassifier, encoded: Sequence[EncodedPair], labels: Labels, config: TrainingConfig) -> int:
    """Train in place.

    Args:
        model: A body with classifiers in the order of `labels.names`.
        encoded: All pairs, tokenised; those without a row are left out.
        labels: The training rows.
        config: How.

    Returns:
        The number of steps.
    """
    torch.manual_seed(config.seed)
    targets = targets_of(labels, len(encoded))
    units = np.unique(labels.pair)
    heads = list(model.heads.parameters())
    body = [parameter for parameter in model.body.parameters() if parameter.requires_grad]
    groups = [{"params": body, "lr": config.learning_rate}, {"params": heads, "lr": config.head_learning_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    n_steps = config.epochs * math.ceil(len(units) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: config.factor(step, n_steps))
    order = np.random.default_rng(config.seed)
    model.train()
    for _ in hf_logging.tqdm(range(config.epochs), desc="train", unit="epoch"):
        shuffled = order.permutation(units)
        for start in range(0, len(shuffled), config.batch_size):
            batch = shuffled[start : start + config.batch_size]
            optimizer.zero_grad()
            add_gradients(model, [encoded[i] for i in batch], targets[batch], config.pass_tokens)
            nn.utils.clip_grad_norm_([*body, *heads], MAX_GRADIENT)
            optimizer.step()
            schedule.step()
    return n_steps


def predict(model: PairClassifier, encoded: Sequence[EncodedPair]) -> list[Array]:
    """Return the probabilities of each aspect, (pairs, classes), whatever labels the pairs carry."""
    model.eval()
    found = [np.zeros((len(encoded), head.get_parameter("bias").shape[0])) for head in model.heads]
    for batch in plan_batches([len(pair.input_ids) for pair in encoded]):
        with torch.inference_mode():
            for values, logits in zip(found, _logits(model, [encoded[i] for i in batch]), strict=True):
                values[batch] = logits.softmax(dim=1).double().cpu().numpy()
    return found


def _logits(model: PairClassifier, pairs: Sequence[EncodedPair]) -> list[Tensor]:
    device = next(model.parameters()).device
    batch = collate(pairs, pad_id=0)
    logits: list[Tensor] = model(batch["input_ids"].to(device), batch["attention_mask"].to(device))
    return logits


def targets_of(labels: Labels, n_pairs: int) -> Tensor:
    """Return the class of every pair and aspect, int64 (pairs, aspects); `UNLABELLED` where there is no label."""
    targets = torch.full((n_pairs, len(labels.names)), UNLABELLED)
    for aspect, pair, score in zip(labels.aspect, labels.pair, labels.score, strict=True):
        targets[pair, aspect] = labels.classes[aspect].index(int(score))
    return targets


def add_gradients(model: PairClassifier, pairs: Sequence[EncodedPair], targets: Tensor, pass_tokens: int) -> None:
    """Add the gradients of the mean cross-entropy over all labels of some pairs.

    Args:
        model: Whose gradients.
        pairs: A step's pairs, tokenised.
        targets: int64 (pairs, aspects), from `targets_of`.
        pass_tokens: See `TrainingConfig`.
    """
    n_labels = int((targets != UNLABELLED).sum())
    for rows in plan_batches([len(pair.input_ids) for pair in pairs], token_budget=pass_tokens):
        own = targets[rows].to(model.heads[0].get_parameter("bias").device)
        losses = [
            nn.functional.cross_entropy(values, own[:, a], ignore_index=UNLABELLED, reduction="sum")
            for a, values in enumerate(_logits(model, [pairs[i] for i in rows]))
        ]
        (torch.stack(losses).sum() / n_labels).backward()  # type: ignore[no-untyped-call]
