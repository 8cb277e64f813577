"""Pair classifiers on the disk: each fold's model is kept, so that it can be loaded again and a killed run goes on.

A folder holds `body` (all weights, or the adapters alone), the tokenizer beside them, `heads.safetensors` and
`classifier.json`, which says how a pair is read and what the classes are. Its manifest is written last.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.encoded import EncodedPair, Span
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.pairs import PAIR_KEYS, check_pair
from inspector_pipeline.template import PairTemplate
from inspector_pipeline.wheel_backbone import NO_REMOTE_CODE

from ..probing.table import Labels
from ..runs.manifest import Manifest
from .adapters import AdapterConfig, old_names_allowed
from .pair_classifier import PairClassifier, device_of_baselines, predict

STAGE = "pair_classifier"
HEADS, BODY, DESCRIBED = "heads.safetensors", "body", "classifier.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class PairEncoder:
    """What turns a pair into token ids: a reading, or the tokenizer's own way to join two texts.

    Attributes:
        tokenizer: The model's.
        max_length: Upper bound on the tokens; of two texts the longer is cut first.
        reading: None for two texts.
    """

    tokenizer: Any
    max_length: int
    reading: PairTemplate | None = None

    def __call__(self, pair: Any) -> EncodedPair:
        """Tokenise an object with `question` and `prediction`."""
        if self.reading is not None:
            return self._in_reading(pair.question, pair.prediction)
        options = {"truncation": "longest_first", "max_length": self.max_length}
        ids = self.tokenizer(pair.question, pair.prediction, **options)["input_ids"]
        return EncodedPair(ids, Span(0, 0), len(ids) == self.max_length)

    @cached_property
    def _in_reading(self) -> PairTokenizer:
        return PairTokenizer(self.reading or PairTemplate(), self.tokenizer, self.max_length)


@dataclass(frozen=True)
class LoadedClassifier:
    """A pair classifier that was kept, ready to score.

    Attributes:
        model: The model.
        encode: What turns a pair into token ids.
        classes: Aspect -> its scores, ascending.
        fitted: The aspects that had a training row; of the others nothing is said.
    """

    model: PairClassifier
    encode: PairEncoder
    classes: dict[str, list[Any]]
    fitted: frozenset[str]

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, dict[Any, float]]]:
        """Return for each pair aspect -> score -> probability.

        Raises:
            PairError: A pair cannot be scored.
        """
        for index, pair in enumerate(pairs):
            check_pair(pair, index)
        found = predict(self.model, [self.encode(_Texts(*(pair[key] for key in PAIR_KEYS))) for pair in pairs])
        return [
            {
                name: dict(zip(own, values[i].tolist(), strict=True))
                for (name, own), values in zip(self.classes.items(), found, strict=True)
                if name in self.fitted
            }
            for i in range(len(pairs))
        ]


@dataclass(frozen=True)
class _Texts:
    question: str
    prediction: str


@dataclass(frozen=True)
class KeptClassifier:
    """Where a model that was trained on certain rows is kept.

    Attributes:
        parent: Folder of all that a method keeps; each has a folder named by what it was trained on.
        config: The method's settings.
        encoded: All pairs, tokenised.
        labels: The training rows.
    """

    parent: Path
    config: Any
    encoded: Sequence[EncodedPair]
    labels: Labels

    @cached_property
    def trained_on(self) -> str:
        """The sha256 of the training rows: their texts as token ids, aspects and labels."""
        digest, rows = hashlib.sha256(), self.labels
        for aspect, pair, score in zip(rows.aspect, rows.pair, rows.score.tolist(), strict=True):
            digest.update(f"{rows.names[aspect]} {score} {self.encoded[pair].input_ids}\n".encode())
        digest.update(repr(rows.classes).encode())
        return digest.hexdigest()

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.parent / self.trained_on[:12]

    @cached_property
    def _manifest(self) -> Manifest:
        return Manifest.of(STAGE, {**asdict(self.config), "trained_on": self.trained_on}, ())

    @property
    def is_there(self) -> bool:
        """Whether it was kept, whole and unchanged, with just these settings."""
        return self._manifest.vouches_for(self.folder)

    def save(self, model: PairClassifier, steps: int, encode: PairEncoder) -> None:
        """Keep a model; its manifest comes last."""
        body = self.folder / BODY
        body.mkdir(parents=True, exist_ok=True)
        is_adapted = isinstance(model.body, PeftModel)
        state = (
            get_peft_model_state_dict(model.body, save_embedding_layers=False)
            if is_adapted
            else model.body.state_dict()
        )
        files = [self.folder / WEIGHTS, self.folder / HEADS, self.folder / DESCRIBED]
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}, files[0])
        save_file({name: tensor.cpu() for name, tensor in model.heads.state_dict().items()}, files[1])
        model.body.config.save_pretrained(body)
        encode.tokenizer.save_pretrained(body)
        told = {
            "pooling": model.pooling,
            "classes": dict(zip(self.labels.names, self.labels.classes, strict=True)),
            "fitted": sorted({self.labels.names[a] for a in self.labels.aspect}),
            "reading": None if encode.reading is None else encode.reading.to_dict(),
            "max_length": encode.max_length,
            "steps": steps,
            "adapters": asdict(self.config) if is_adapted else None,
        }
        write_atomically(files[2], json_text(told))
        self._manifest.write(self.folder, files)

    def load(self, model: PairClassifier) -> tuple[PairClassifier, int]:
        """Load what was kept into a model as it is before training; return it with the steps that were taken."""
        _load_state(model, self.folder)
        return model, int(read_json(self.folder / DESCRIBED)["steps"])


def _load_state(model: PairClassifier, folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    if isinstance(model.body, PeftModel):
        set_peft_model_state_dict(model.body, state)
    else:
        model.body.load_state_dict(state)
    model.heads.load_state_dict(load_file(folder / HEADS))


def load_classifier(folder: str | Path) -> LoadedClassifier:
    """Load a model that a comparison has kept, on an accelerator where there is one.

    Args:
        folder: One of OUTPUT/methods/METHOD/ of the compare stage.

    Raises:
        DataFileError: It holds no such model, or one that was changed.
        BackboneError: The backbone of adapters cannot be loaded.
    """
    place = Path(folder)
    manifest = Manifest.read(place, STAGE)
    if not manifest.vouches_for(place):
        raise DataFileError(f"{place} expects the files that its manifest names, but they differ. Run compare again.")
    told = read_json(place / DESCRIBED)
    model = PairClassifier(_body(place, told["adapters"]), told["pooling"], [*map(len, told["classes"].values())])
    _load_state(model, place)
    reading = None if told["reading"] is None else PairTemplate.from_dict(told["reading"])
    encode = PairEncoder(AutoTokenizer.from_pretrained(place / BODY), told["max_length"], reading)
    return LoadedClassifier(model.to(device_of_baselines()), encode, told["classes"], frozenset(told["fitted"]))


def _body(folder: Path, adapters: Mapping[str, Any] | None) -> Any:
    """Make a body before its weights are loaded: of the config that was kept, or the backbone with fresh adapters."""
    if adapters is None:
        return AutoModel.from_config(AutoConfig.from_pretrained(folder / BODY, **NO_REMOTE_CODE))
    shape = {one.name: adapters[one.name] for one in fields(AdapterConfig)}
    body = load_backbone(adapters["backbone_id"], adapters["backbone_revision"], None, dtype="float32")
    with old_names_allowed():
        return get_peft_model(body, AdapterConfig(**shape).for_peft())
