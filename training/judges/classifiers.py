"""Fitted classifiers on the disk, published or own: NAME.pkl, or NAME.skops with NAME.json, and the judge they make.

Unpickling runs code, so nothing is unpickled: a file is read once, as plain data, and the estimators are made anew of
its numbers (`inert`, `skops_files`, `estimators`).
"""

import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sklearn
import skops.io
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from transformers import PreTrainedConfig

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.disk import json_text, write_whole
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.template import PairTemplate

from ..rows.probing_set import ASPECTS
from .build import AspectHead, BackboneSpec, build_judge
from .estimators import estimator_of
from .fields import Reading
from .inert import UnsafePickleError, read_once, read_pickle, shown
from .port import NotPortableError, port
from .skops_files import read_skops

logger = logging.getLogger(__name__)

POOLINGS = ("mean", "last", "min", "max", "concat")
CONCATENATED = ("min", "max", "mean")  # what the published pooling `concat` puts side by side
CLASSIFICATIONS = ("binary", "multi")
BINARY = {"0": "the teacher scored it 1, 2 or 3 of 5", "1": "the teacher scored it 4 or 5 of 5"}
NAMES = {"LogisticRegression": "logistic regression", "SVC": "linear SVC"}
METADATA: dict[str, tuple[str, Callable[[Any], object]]] = {  # key -> what it is to be
    "layers": (
        "a list of layer numbers from 0",
        lambda value: isinstance(value, (list, tuple)) and value and all(type(n) is int and n >= 0 for n in value),
    ),
    "pool": (f"one of {POOLINGS}", POOLINGS.__contains__),
    "classification": (f"one of {CLASSIFICATIONS}", CLASSIFICATIONS.__contains__),
    "use_attn": ("one of (False, True)", (False, True).__contains__),
    **dict.fromkeys(
        ("llm", "dimension"), ("a name", lambda value: isinstance(value, str) and value.isprintable() and value)
    ),
}


@dataclass(frozen=True)
class Metadata:
    """What a published classifier says of its features.

    Attributes:
        llm: Hub id of the backbone.
        dimension: The aspect.
        classification: `binary` (0 and 1) or `multi`.
        layers: Decoder outputs counted from 0; their states are concatenated in this order.
        pool: mean, last, min, max or concat.
        use_attn: Whether attention entropies are among the features; such classifiers are refused.
    """

    llm: str
    dimension: str
    classification: str
    layers: tuple[int, ...]
    pool: str
    use_attn: bool

    @classmethod
    def of(cls, data: Any, where: str) -> "Metadata":
        """Check a classifier's metadata.

        Args:
            data: Its JSON-like object; further keys are ignored.
            where: The file, for the message.

        Raises:
            DataFileError: A key is missing or has a wrong value; the message names it.
            NotPortableError: The classifier needs attention features.
        """
        if not isinstance(data, Mapping):
            raise DataFileError(f"{where}: metadata expects an object, but got {type(data).__name__}.")
        missing = [name for name in METADATA if name not in data]
        if missing:
            found = ", ".join(sorted(map(shown, data)))
            raise DataFileError(f"{where}: metadata needs {', '.join(missing)}, which are missing; it has {found}.")
        for name, (expected, is_right) in METADATA.items():
            if not is_right(data[name]):
                raise DataFileError(f"{where}: metadata.{name} expects {expected}, but got {shown(data[name])}.")
        if data["use_attn"]:
            raise NotPortableError(
                f"{where}: the classifier of {data['dimension']} needs attention features (use_attn), which a judge "
                "does not compute. Use one without them."
            )
        return cls(**{**{name: data[name] for name in METADATA}, "layers": tuple(data["layers"])})


@dataclass(frozen=True)
class Classifier:
    """A fitted estimator with its metadata."""

    estimator: Any
    metadata: Metadata


def load_classifiers(folder: Path, *, allow_pickle: bool = False) -> dict[str, Classifier]:
    """Load every classifier of a folder.

    Args:
        folder: Holds NAME.pkl, or NAME.skops with NAME.json.
        allow_pickle: Whether pickles are read too; nothing in them is run.

    Returns:
        Aspect -> classifier; the published aspects first, in their order.

    Raises:
        DataFileError: There is none, or metadata are wrong.
        UnsafePickleError: A pickle is not allowed, or a file holds something else than a classifier needs.
    """
    files = sorted([*folder.glob("*.pkl"), *folder.glob("*.skops")])
    if not files:
        raise DataFileError(f"{folder} expects classifiers, NAME.pkl or NAME.skops, but holds none.")
    found: dict[str, Classifier] = {}
    for path in files:
        if path.suffix == ".pkl" and not allow_pickle:
            raise UnsafePickleError(
                f"{path} is a pickle. Nothing in it would be run, only its numbers read. Pass --allow-pickle to say "
                "that this is wanted."
            )
        estimator, data = _load(path)
        metadata = Metadata.of(data, str(path))
        if metadata.dimension != path.stem:
            raise DataFileError(
                f"{path}: metadata.dimension expects the file's name, {path.stem}, but got {metadata.dimension}."
            )
        if path.stem in found:
            raise DataFileError(
                f"{folder} expects one classifier for {path.stem}, but holds a pickle and a .skops of it."
            )
        found[path.stem] = Classifier(estimator, metadata)
    return {name: found[name] for name in [*filter(found.__contains__, ASPECTS), *sorted(found.keys() - {*ASPECTS})]}


def _load(path: Path) -> tuple[Any, Any]:
    """Read a file once, make its estimator anew and return it with its metadata."""
    if path.suffix == ".skops":
        model, metadata = read_skops(read_once(path), str(path)), read_json(path.with_suffix(".json"))
    else:
        package = read_pickle(read_once(path), str(path))
        if type(package) is not dict or package.keys() != {"model", "metadata"}:
            found = sorted(map(shown, package)) if type(package) is dict else shown(package)
            raise DataFileError(f"{path} expects {{'model', 'metadata'}}, but holds {found}.")
        model, metadata = package["model"], package["metadata"]
    reading = Reading(str(path))
    estimator = estimator_of(model, f"{path}: model", reading)
    for version in sorted(reading.versions - {sklearn.__version__}):
        logger.warning("%s was fitted with scikit-learn %s and is read by %s.", path.name, version, sklearn.__version__)
    return estimator, metadata


def save_classifiers(classifiers: Mapping[str, Classifier], folder: Path) -> None:
    """Write classifiers as .skops with their metadata, from which the same judge can be made again."""
    folder.mkdir(exist_ok=True)
    for name, classifier in classifiers.items():
        estimator = classifier.estimator
        if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
            estimator = estimator.best_estimator_
        skops.io.dump(estimator, folder / f"{name}.skops")
        (folder / f"{name}.json").write_text(json_text(asdict(classifier.metadata)), encoding="utf-8")


def reported(classifier: Classifier) -> dict[str, Any]:
    """Say what was saved with a classifier, its macro F1 where there is one: an aspect's part of results.json."""
    estimator, metadata = classifier.estimator, classifier.metadata
    found: dict[str, Any] = {"classes": [int(c) for c in estimator.classes_]}
    if metadata.classification == "binary":
        found["meanings"] = BINARY
    score = getattr(estimator, "best_score_", None)
    if score is not None:
        kind = type(estimator.best_estimator_.steps[-1][1]).__name__
        found["reported"] = {
            "macro_f1": float(score),
            "layers": list(metadata.layers),
            "pool": metadata.pool,
            "classifier": NAMES.get(kind, kind),
        }
    return found


def save_published(classifiers: Mapping[str, Classifier], folder: Path, name: str) -> list[Path]:
    """Write classifiers in the published layout, NAME.pkl of {"model", "metadata"}, which the published tools read.

    Args:
        classifiers: Aspect -> a fitted search, with its metadata.
        folder: Where to; made where it is missing.
        name: What the metadata call the kind of classifier.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for aspect, classifier in classifiers.items():
        search, metadata = classifier.estimator, asdict(classifier.metadata)
        found = {"best_params": search.best_params_, "best_score": float(search.best_score_)}
        metadata |= {"layers": list(classifier.metadata.layers), "clf_name": name, **found}
        write_whole(folder / f"{aspect}.pkl", pickle.dumps({"model": search, "metadata": metadata}))
    return [folder / f"{aspect}.pkl" for aspect in classifiers]


def judge_of_classifiers(
    classifiers: Mapping[str, Classifier],
    rubrics: Mapping[str, PairTemplate],
    *,
    backbone_id: str | None = None,
    backbone_revision: str | None = None,
    backbone_config: PreTrainedConfig | None = None,
    classes: Mapping[str, list[int]] | None = None,
) -> InspectorModel:
    """Make a judge, probes only, of fitted classifiers.

    Args:
        classifiers: Aspect -> classifier.
        rubrics: Aspect -> its reading.
        backbone_id: Hub id or folder; None takes what the classifiers' metadata say.
        backbone_revision: Its revision.
        backbone_config: Its config, where it is at hand; None loads it by the id.
        classes: Aspect -> scores, for regressions, which do not know theirs.

    Returns:
        The judge, without its backbone.

    Raises:
        DataFileError: The classifiers disagree on the backbone, a rubric is missing, or a layer is not there.
        NotPortableError: A classifier is not linear.
    """
    llms = {classifier.metadata.llm for classifier in classifiers.values()}
    if backbone_id is None and len(llms) != 1:
        raise DataFileError(
            f"The classifiers expect one backbone, but name {sorted(llms)}. Name it with --backbone-id."
        )
    without = [name for name in classifiers if name not in rubrics]
    if without:
        raise DataFileError(
            f"The rubrics' file expects prompts for {', '.join(without)}, but has {', '.join(rubrics)}."
        )
    named = BackboneSpec(backbone_id or llms.pop(), backbone_revision)
    config = (backbone_config or named.config()).get_text_config()
    backbone = BackboneSpec(named.id, named.revision, max_length=config.max_position_embeddings)
    aspects = [
        _aspect_head(name, classifier, (classes or {}).get(name), config.num_hidden_layers)
        for name, classifier in classifiers.items()
    ]
    return build_judge(backbone, {name: rubrics[name].to_dict() for name in classifiers}, aspects, config)


def _aspect_head(name: str, classifier: Classifier, classes: list[int] | None, n_layers: int) -> AspectHead:
    """Port a classifier; published layers are numbered as transformers does, the last one after the final norm."""
    metadata = classifier.metadata
    try:
        probe = port(classifier.estimator, classes)
    except NotPortableError as error:
        raise NotPortableError(f"{name}: {error}") from error
    if (metadata.classification == "binary") != (set(probe.classes) <= {0, 1}):
        raise DataFileError(
            f"{name}: metadata.classification says {metadata.classification}, but the classifier has the classes "
            f"{probe.classes}."
        )
    if max(metadata.layers) >= n_layers:
        raise DataFileError(
            f"{name}: metadata.layers expects numbers from 0 to {n_layers - 1}, the layers of {metadata.llm}, but got "
            f"{max(metadata.layers)}."
        )
    features = [
        Feature(name, layer + 1, pooling, "final_norm" if layer + 1 == n_layers else "raw")
        for layer in metadata.layers
        for pooling in (CONCATENATED if metadata.pool == "concat" else (metadata.pool,))
    ]
    head = {"type": "linear", "rule": probe.rule, "members": probe.members}
    return AspectHead(name, features, head, probe.classes, probe)
