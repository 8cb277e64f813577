"""Fitted classifiers on the disk, published or own: NAME.pkl, or NAME.skops with NAME.json, and the judge they make.

Unpickling runs code. A pickle is loaded here only after every global in it was found on the list below; and while it
loads, an unpickler that knows nothing but that list resolves them, so that a pickle which fools the reading still
cannot reach anything else.
"""

import io
import logging
import pickle
import pickletools
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from transformers import PreTrainedConfig

from inspector_pipeline.errors import DataFileError, InspectorError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.template import PairTemplate

from ..rows.probing_set import ASPECTS
from .build import AspectHead, BackboneSpec, build_judge
from .port import PORTABLE, NotPortableError, port

logger = logging.getLogger(__name__)

ALLOWED_GLOBALS = frozenset(
    {
        ("builtins", "slice"),
        ("collections", "OrderedDict"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy", "float32"),
        ("numpy", "float64"),
        ("numpy", "int32"),
        ("numpy", "int64"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy.ma", "MaskedArray"),
        ("numpy.ma.core", "MaskedArray"),
        ("numpy.ma.core", "_mareconstruct"),
        ("sklearn.calibration", "CalibratedClassifierCV"),
        ("sklearn.calibration", "_CalibratedClassifier"),
        ("sklearn.calibration", "_SigmoidCalibration"),
        ("sklearn.decomposition._pca", "PCA"),
        ("sklearn.impute._base", "SimpleImputer"),
        *(
            ("sklearn.linear_model._ridge", name)
            for name in ("Ridge", "RidgeCV", "RidgeClassifier", "RidgeClassifierCV")
        ),
        ("sklearn.linear_model._base", "LinearRegression"),
        ("sklearn.linear_model._logistic", "LogisticRegression"),
        ("sklearn.metrics._classification", "f1_score"),
        ("sklearn.metrics._scorer", "_Scorer"),
        ("sklearn.metrics._scorer", "_PredictScorer"),
        ("sklearn.model_selection._search", "GridSearchCV"),
        ("sklearn.model_selection._search", "RandomizedSearchCV"),
        ("sklearn.model_selection._split", "StratifiedKFold"),
        ("sklearn.model_selection._split", "KFold"),
        ("sklearn.multiclass", "OneVsRestClassifier"),
        ("sklearn.pipeline", "Pipeline"),
        ("sklearn.preprocessing._data", "StandardScaler"),
        ("sklearn.preprocessing._label", "LabelBinarizer"),
        ("sklearn.preprocessing._label", "LabelEncoder"),
        ("sklearn.svm._classes", "LinearSVC"),
        ("sklearn.svm._classes", "SVC"),
    }
)


class UnsafePickleError(InspectorError, ValueError):
    """A pickle names something that is not on the list, or cannot be read without running it."""


def pickle_globals(data: bytes) -> set[tuple[str, str]]:
    """Return the (module, name) pairs that a pickle would import; nothing of it is run.

    Just enough of its opcodes is followed to tell those names.

    Args:
        data: The pickle's bytes.

    Returns:
        Every global, by GLOBAL, INST or STACK_GLOBAL.

    Raises:
        UnsafePickleError: The pickle is malformed, uses extension codes, or computes a name.
    """
    found: set[tuple[str, str]] = set()
    pushed: list[str | None] = []  # what each opcode left on the stack: a string, or None for anything else
    memo: dict[Any, str | None] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("PROTO", "FRAME", "MARK", "STOP"):
                continue
            if opcode.name == "MEMOIZE" or opcode.name.endswith("PUT"):
                memo[len(memo) if opcode.name == "MEMOIZE" else argument] = pushed[-1] if pushed else None
                continue
            if opcode.name.startswith("EXT"):
                raise UnsafePickleError("The pickle uses extension codes, which cannot be read. It was not loaded.")
            if opcode.name in ("GLOBAL", "INST"):
                found.add(tuple(str(argument).split(" ", 1)))  # type: ignore[arg-type]  # pickletools writes two words
            elif opcode.name == "STACK_GLOBAL":
                module, name = pushed[-2:] if len(pushed) > 1 else (None, None)
                if module is None or name is None:
                    raise UnsafePickleError(
                        "The pickle computes the name of a global, which cannot be read. It was not loaded."
                    )
                found.add((module, name))
            text = str(argument) if "UNICODE" in opcode.name else None
            pushed.append(memo.get(argument) if opcode.name.endswith("GET") else text)
    except UnsafePickleError:
        raise
    except (ValueError, IndexError, OverflowError, EOFError, struct.error) as error:
        raise UnsafePickleError(f"The file is no well-formed pickle: {error}. It was not loaded.") from error
    return found


def load_audited(path: Path) -> Any:
    """Load a pickle whose globals are all on the list.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        UnsafePickleError: A global is not on the list; nothing was run.
    """
    data = path.read_bytes()
    foreign = sorted(pickle_globals(data) - ALLOWED_GLOBALS)
    if foreign:
        names = ", ".join(".".join(item) for item in foreign)
        raise UnsafePickleError(
            f"{path} names {names}, which is not on the list of what a classifier needs. It was not loaded. "
            f"What can be ported: {PORTABLE}."
        )
    return _ListedUnpickler(io.BytesIO(data)).load()


class _ListedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global on the list; anything else stops the loading."""
        if (module, name) not in ALLOWED_GLOBALS:
            raise UnsafePickleError(
                f"The pickle reached for {module}.{name}, which is not on the list. Loading was stopped."
            )
        return super().find_class(module, name)


POOLINGS = ("mean", "last", "min", "max")
CLASSIFICATIONS = ("binary", "multi")
METADATA: dict[str, tuple[str, Callable[[Any], object]]] = {  # key -> what it is to be
    "layers": (
        "a list of layer numbers from 0",
        lambda value: isinstance(value, (list, tuple)) and value and all(type(n) is int and n >= 0 for n in value),
    ),
    "pool": (f"one of {POOLINGS}", POOLINGS.__contains__),
    "classification": (f"one of {CLASSIFICATIONS}", CLASSIFICATIONS.__contains__),
    "use_attn": ("one of (False, True)", (False, True).__contains__),
    "llm": ("a name", lambda value: isinstance(value, str) and value),
    "dimension": ("a name", lambda value: isinstance(value, str) and value),
}


@dataclass(frozen=True)
class Metadata:
    """What a published classifier says of its features.

    Attributes:
        llm: Hub id of the backbone.
        dimension: The aspect.
        classification: `binary` (0 and 1) or `multi`.
        layers: Decoder outputs counted from 0; their states are concatenated in this order.
        pool: mean, last, min or max.
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
            raise DataFileError(
                f"{where}: metadata needs {', '.join(missing)}, which are missing; it has {sorted(data)}."
            )
        for name, (expected, is_right) in METADATA.items():
            if not is_right(data[name]):
                raise DataFileError(f"{where}: metadata.{name} expects {expected}, but got {data[name]!r}.")
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
        allow_pickle: Whether pickles may be loaded, once all their globals are found on the list.

    Returns:
        Aspect -> classifier; the published aspects first, in their order.

    Raises:
        DataFileError: There is none, or metadata are wrong.
        UnsafePickleError: A pickle is not allowed, or names something else than a classifier needs.
    """
    files = sorted([*folder.glob("*.pkl"), *folder.glob("*.skops")])
    if not files:
        raise DataFileError(f"{folder} expects classifiers, NAME.pkl or NAME.skops, but holds none.")
    found: dict[str, Classifier] = {}
    for path in files:
        estimator, data = _load_pickle(path, allow_pickle) if path.suffix == ".pkl" else _load_skops(path)
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


def _load_pickle(path: Path, allow_pickle: bool) -> tuple[Any, Any]:
    if not allow_pickle:
        raise UnsafePickleError(
            f"{path} is a pickle, which runs code when it is loaded. Pass --allow-pickle if you trust where it is "
            "from; its globals are still checked against a list first."
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_audited(path)
    _report_versions(path, caught)
    if not isinstance(data, Mapping) or {"model", "metadata"} - data.keys():
        raise DataFileError(f"{path} expects {{'model', 'metadata'}}, but holds {type(data).__name__}.")
    return data["model"], data["metadata"]


def _report_versions(path: Path, caught: list[warnings.WarningMessage]) -> None:
    """Say once per file which scikit-learn wrote it; warnings of any other kind are passed on."""
    versions = set()
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            versions.add((warning.message.original_sklearn_version, warning.message.current_sklearn_version))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for original, current in sorted(versions):
        logger.warning("%s was fitted with scikit-learn %s and is read by %s.", path.name, original, current)


def _load_skops(path: Path) -> tuple[Any, Any]:
    named = skops.io.get_untrusted_types(file=path)
    foreign = sorted({*named} - {f"{module}.{name}" for module, name in ALLOWED_GLOBALS})
    if foreign:
        raise UnsafePickleError(f"{path} names {', '.join(foreign)}, which is not on the list. It was not loaded.")
    return skops.io.load(path, trusted=named), read_json(path.with_suffix(".json"))


def save_classifiers(classifiers: Mapping[str, Classifier], folder: Path) -> None:
    """Write classifiers as .skops with their metadata, from which the same judge can be made again."""
    folder.mkdir(exist_ok=True)
    for name, classifier in classifiers.items():
        estimator = classifier.estimator
        if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
            estimator = estimator.best_estimator_
        skops.io.dump(estimator, folder / f"{name}.skops")
        (folder / f"{name}.json").write_text(json_text(asdict(classifier.metadata)), encoding="utf-8")


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
        raise DataFileError(f"The probing set expects prompts for {', '.join(without)}, but has {', '.join(rubrics)}.")
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
        Feature(name, layer + 1, metadata.pool, "final_norm" if layer + 1 == n_layers else "raw")
        for layer in metadata.layers
    ]
    head = {"type": "linear", "rule": probe.rule, "members": probe.members}
    return AspectHead(name, features, head, probe.classes, probe)
