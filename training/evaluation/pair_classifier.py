"""A pair classifier: a body, a pooled state, a linear classifier for each aspect; its training and predictions."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from inspector_pipeline.batches import collate, plan_batches
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.features import pool

from ..probing.table import Array, Labels
from .adapters import old_names_allowed

UNLABELLED = -100  # what cross-entropies and the trainer's count of labels leave out
FROZEN_C = 0.01  # of the logistic regressions on a frozen body: as strong as some hundred labels need; nothing is tuned
NEVER = -1e4  # logit of a class that no training row has


def device_of_baselines() -> str:
    """Return where they run: a CUDA device where there is one, as the trainer takes it."""
    return "cuda" if torch.cuda.is_available() else "cpu"


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
        pass_tokens: Upper bound on the tokens of one pass, padding included: a step's pairs run in as many passes of
            like many pairs as that takes for the longest, and their gradients add up; so it bounds the memory and, but
            for dropout, changes nothing else. A single longer pair is a pass of its own.
        bf16: Whether passes compute in bfloat16 (autocast); weights, gradients of weights and steps stay float32, and
            predictions are made in it.
        seed: Of the order of pairs, of fresh adapters and of dropout.
    """

    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    pass_tokens: int = 2048
    bf16: bool = False
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

    def arguments(self, n_pairs: int, longest: int, folder: str) -> TrainingArguments:
        """Say it to the trainer.

        Args:
            n_pairs: How many pairs are trained on.
            longest: Tokens of the longest pair.
            folder: For what the trainer may write.
        """
        sizes = (n for n in range(self.batch_size, 0, -1) if self.batch_size % n == 0)
        pairs_of_pass = next(n for n in sizes if n * longest <= self.pass_tokens or n == 1)
        n_steps = self.epochs * math.ceil(n_pairs / self.batch_size)
        return TrainingArguments(
            output_dir=folder,
            num_train_epochs=self.epochs,
            per_device_train_batch_size=pairs_of_pass,
            gradient_accumulation_steps=self.batch_size // pairs_of_pass,
            lr_scheduler_type="linear",
            warmup_steps=int(self.warmup * n_steps),  # rounded down, so that a step is taken at the full height
            max_grad_norm=1.0,
            use_cpu=not torch.cuda.is_available(),
            bf16=self.bf16,
            seed=self.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )


class PairClassifier(nn.Module):
    """A body, a pooled state, and a linear classifier for each aspect.

    Args:
        body: Any transformers model that gives hidden states.
        pooling: `mean` over tokens, or `last`.
        n_classes: Number of classes of each aspect.
    """

    def __init__(self, body: PreTrainedModel, pooling: str, n_classes: Sequence[int]) -> None:
        """Make the classifiers, zero until trained and side by side in one map."""
        super().__init__()
        self.body, self.pooling, self.n_classes = body, pooling, list(n_classes)
        self.heads = nn.Linear(body.config.hidden_size, sum(n_classes))
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the body's pooled state, float32 (batch, hidden)."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(states, attention_mask, self.pooling)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return float32 (batch, classes) logits of each aspect; `collate` gives a mask besides that is not read."""
        logits: Tensor = self.heads(self.pooled(input_ids, attention_mask))
        return torch.split(logits, self.n_classes, dim=1)


def mean_loss(logits: Sequence[Tensor], targets: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
    """Return the cross-entropy over all labels of a pass as its part of the mean over those of its whole step.

    Args:
        logits: (pairs, classes) of each aspect.
        targets: int64 (pairs, aspects), the class, or `UNLABELLED` where there is no label.
        num_items_in_batch: Labels of the step.
    """
    losses = [nn.functional.cross_entropy(x, targets[:, a], reduction="sum") for a, x in enumerate(logits)]
    return torch.stack(losses).sum() / num_items_in_batch


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
    units, targets = np.unique(labels.pair), torch.full((len(encoded), len(labels.names)), UNLABELLED)
    for aspect, pair, score in zip(labels.aspect, labels.pair, labels.score, strict=True):
        targets[pair, aspect] = labels.classes[aspect].index(score)
    body = [parameter for parameter in model.body.parameters() if parameter.requires_grad]
    groups = [
        {"params": body, "lr": config.learning_rate},
        {"params": list(model.heads.parameters()), "lr": config.head_learning_rate},
    ]

    def batch(rows: Sequence[int]) -> dict[str, Tensor]:
        return {**collate([encoded[i] for i in rows], pad_id=0), "labels": targets[rows]}

    with tempfile.TemporaryDirectory() as folder, old_names_allowed():
        trainer = Trainer(
            model,
            config.arguments(len(units), max(len(encoded[i].input_ids) for i in units), folder),
            data_collator=batch,
            train_dataset=units.tolist(),
            optimizers=(torch.optim.AdamW(groups, weight_decay=config.weight_decay), None),
            compute_loss_func=mean_loss,
        )
        trainer.remove_callback(PrinterCallback)
        steps = int(trainer.train().global_step)
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # else it would stay in bfloat16 to predict
        return steps


def predict(model: PairClassifier, encoded: Sequence[EncodedPair]) -> list[Array]:
    """Return the probabilities of each aspect, (pairs, classes), whatever labels the pairs carry."""
    model.eval()
    found, device = [np.zeros((len(encoded), n)) for n in model.n_classes], model.heads.weight.device
    for batch in plan_batches([len(pair.input_ids) for pair in encoded]):
        with torch.inference_mode():
            inputs = collate([encoded[i] for i in batch], pad_id=0)
            logits = model(inputs["input_ids"].to(device), inputs["attention_mask"].to(device))
            for values, own in zip(found, logits, strict=True):
                values[batch] = own.softmax(dim=1).double().cpu().numpy()
    return found


def pooled_states(model: PairClassifier, encoded: Sequence[EncodedPair]) -> Tensor:
    """Return the body's pooled states, float32 (pairs, hidden)."""
    model.eval()
    found, device = torch.zeros(len(encoded), model.heads.in_features), model.heads.weight.device
    for batch in plan_batches([len(pair.input_ids) for pair in encoded]):
        with torch.inference_mode():
            inputs = collate([encoded[i] for i in batch], pad_id=0)
            found[batch] = model.pooled(inputs["input_ids"].to(device), inputs["attention_mask"].to(device)).cpu()
    return found


def fit_heads(model: PairClassifier, encoded: Sequence[EncodedPair], labels: Labels) -> None:
    """Fit the classifiers alone in place: a logistic regression for each aspect on standardised pooled states.

    Args:
        model: A body with classifiers in the order of `labels.names`; the body stays as it is.
        encoded: All pairs, tokenised; those without a row are left out.
        labels: The training rows.
    """
    units = np.unique(labels.pair)
    states = pooled_states(model, [encoded[i] for i in units]).double().numpy()
    center, scale = states.mean(axis=0), np.maximum(states.std(axis=0), 1e-6)
    weights, biases = [], []
    for a, classes in enumerate(labels.classes):
        own = labels.aspect == a
        x = (states[np.searchsorted(units, labels.pair[own])] - center) / scale
        weight, bias = _regression(x, np.searchsorted(classes, labels.score[own]), len(classes))
        weights.append(weight / scale)
        biases.append(bias - weights[-1] @ center)
    with torch.no_grad():
        model.heads.weight.copy_(torch.tensor(np.concatenate(weights)))
        model.heads.bias.copy_(torch.tensor(np.concatenate(biases)))


def _regression(x: Array, y: Array, n_classes: int) -> tuple[Array, Array]:
    """Fit a logistic regression; return (classes, features) weights and (classes,) biases, also of unseen classes."""
    seen = np.unique(y)
    weight, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, NEVER)
    bias[seen] = 0.0
    if len(seen) > 1:
        model = LogisticRegression(C=FROZEN_C, max_iter=2000).fit(x, y)
        two = len(seen) == 2  # the second class against the first
        weight[seen[-len(model.coef_) :]], bias[seen[-1:] if two else seen] = model.coef_, model.intercept_
    return weight, bias
