"""Fitted classifiers from disk, published or own: NAME.pkl, or NAME.skops with NAME.json, and the judge they make.

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from transformers import AutoConfig, PreTrainedConfig

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError, InspectorError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.template import PairTemplate
from inspector_pipeline.truncation import truncated_config

from ..rows.probing_set import ASPECTS
from .build import fill_probes
from .port import PORTABLE, NotPortableError, ProbeWeights, port

logger = logging.getLogger(__name__)

POOLINGS = ("mean", "last", "min", "max")
CLASSIFICATIONS = ("binary", "multi")
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

    Args:
        data: The pickle's bytes.

    Returns:
        Every global, by GLOBAL, INST or STACK_GLOBAL.

    Raises:
        UnsafePickleError: The pickle is malformed, uses extension codes, or computes a name.
    """
    reader = _GlobalReader()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            reader.read(opcode.name, argument)
    except UnsafePickleError:
        raise
    except (ValueError, IndexError, OverflowError, EOFError, struct.error) as error:
        raise UnsafePickleError(f"The file is no well-formed pickle: {error}. It was not loaded.") from error
    return reader.found


class _GlobalReader:
    """Follows just enough of a pickle's opcodes to tell the names of its globals."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()
        self.pushed: list[str | None] = []  # what each opcode left on the stack: a string, or None for anything else
        self.memo: dict[Any, str | None] = {}

    def read(self, opcode: str, argument: Any) -> None:
        """Take one opcode and its argument."""
        if opcode in ("PROTO", "FRAME", "MARK", "STOP"):
            return
        if opcode == "MEMOIZE" or opcode.endswith("PUT"):
            self.memo[len(self.memo) if opcode == "MEMOIZE" else argument] = self.pushed[-1] if self.pushed else None
            return
        if opcode.startswith("EXT"):
            raise UnsafePickleError("The pickle uses extension codes, which cannot be read. It was not loaded.")
        value = None
        if opcode in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            self.found.add((module, name))
        elif opcode == "STACK_GLOBAL":
            self.found.add(_two_strings(self.pushed))
        elif opcode.endswith("GET"):
            value = self.memo.get(argument)
        elif "UNICODE" in opcode:
            value = str(argument)
        self.pushed.append(value)


def _two_strings(pushed: list[str | None]) -> tuple[str, str]:
    module, name = pushed[-2:] if len(pushed) > 1 else (None, None)
    if module is None or name is None:
        raise UnsafePickleError("The pickle computes the name of a global, which cannot be read. It was not loaded.")
    return module, name


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
        names = ("llm", "dimension", "classification", "layers", "pool", "use_attn")
        missing = [name for name in names if name not in data]
        if missing:
            raise DataFileError(
                f"{where}: metadata needs {', '.join(missing)}, which are missing; it has {sorted(data)}."
            )
        layers = data["layers"]
        whole = isinstance(layers, (list, tuple)) and all(
            isinstance(n, int) and not isinstance(n, bool) for n in layers
        )
        if not whole or not layers or min(layers) < 0:
            raise DataFileError(f"{where}: metadata.layers expects a list of layer numbers from 0, but got {layers!r}.")
        for name, choices in (("pool", POOLINGS), ("classification", CLASSIFICATIONS), ("use_attn", (False, True))):
            if isinstance(data[name], (list, dict)) or data[name] not in choices:
                raise DataFileError(f"{where}: metadata.{name} expects one of {choices}, but got {data[name]!r}.")
        for name in ("llm", "dimension"):
            if not isinstance(data[name], str) or not data[name]:
                raise DataFileError(f"{where}: metadata.{name} expects a name, but got {data[name]!r}.")
        if data["use_attn"]:
            raise NotPortableError(
                f"{where}: the classifier of {data['dimension']} needs attention features (use_attn), which a "
                "judge does not "
                "compute. Use one without them."
            )
        return cls(**{**{name: data[name] for name in names}, "layers": tuple(layers)})


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
    order = {name: i for i, name in enumerate(ASPECTS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def _load_pickle(path: Path, allow_pickle: bool) -> tuple[Any, Any]:
    if not allow_pickle:
        raise UnsafePickleError(
            f"{path} is a pickle, which runs code when it is loaded. Pass --allow-pickle if you trust where "
            "it is from; "
            "its globals are still checked against a list first."
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
    listed = {f"{module}.{name}" for module, name in ALLOWED_GLOBALS}
    foreign = sorted(set(skops.io.get_untrusted_types(file=path)) - listed)
    if foreign:
        raise UnsafePickleError(f"{path} names {', '.join(foreign)}, which is not on the list. It was not loaded.")
    estimator = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    return estimator, read_json(path.with_suffix(".json"))


def build_judge(
    classifiers: Mapping[str, Classifier],
    readings: Mapping[str, PairTemplate],
    *,
    backbone_id: str | None = None,
    backbone_revision: str | None = None,
    backbone_config: PreTrainedConfig | None = None,
    classes: Mapping[str, list[int]] | None = None,
) -> InspectorModel:
    """Make a judge, probes only, of fitted classifiers.

    Args:
        classifiers: Aspect -> classifier.
        readings: Aspect -> its rubric.
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
    backbone_id = backbone_id or next(iter(llms))
    without = [name for name in classifiers if name not in readings]
    if without:
        raise DataFileError(f"The probing set expects prompts for {', '.join(without)}, but has {', '.join(readings)}.")
    if backbone_config is None:
        location, pinned = backbone_location(backbone_id, backbone_revision, None)
        backbone_config = AutoConfig.from_pretrained(location, **pinned)
    backbone = backbone_config.get_text_config()
    probes: dict[str, ProbeWeights] = {}
    aspects: list[dict[str, Any]] = []
    for name, classifier in classifiers.items():
        try:
            probes[name] = port(classifier.estimator, (classes or {}).get(name))
        except NotPortableError as error:
            raise NotPortableError(f"{name}: {error}") from error
        _check_classes(name, classifier.metadata, probes[name].classes)
        head = {"type": "linear", "rule": probes[name].rule, "members": probes[name].members}
        features = [_feature(name, layer, classifier.metadata, backbone) for layer in classifier.metadata.layers]
        aspect = {"name": name, "features": features, "head": head, "classes": probes[name].classes}
        aspects.append({**aspect, "counts_in_total": True})
    depth = max(feature["layer"] for aspect in aspects for feature in aspect["features"])
    config = InspectorConfig(
        backbone_config=truncated_config(backbone, depth),
        backbone_id=backbone_id,
        backbone_revision=backbone_revision,
        fused=False,
        depth=depth,
        readings={name: readings[name].to_dict() for name in classifiers},
        aspects=aspects,
        max_length=backbone.max_position_embeddings,
        dtype="float32",
    )
    model = InspectorModel(config)
    fill_probes(model, probes)
    return model


def _feature(name: str, layer: int, metadata: Metadata, backbone: Any) -> dict[str, Any]:
    """Number a published layer as transformers does; its last one is after the final norm."""
    n_layers = backbone.num_hidden_layers
    if layer >= n_layers:
        raise DataFileError(
            f"{name}: metadata.layers expects numbers from 0 to {n_layers - 1}, the layers of "
            f"{metadata.llm}, but got {layer}."
        )
    state = "final_norm" if layer + 1 == n_layers else "raw"
    return {"reading": name, "layer": layer + 1, "pooling": metadata.pool, "state": state}


def _check_classes(name: str, metadata: Metadata, classes: list[int]) -> None:
    if (metadata.classification == "binary") != (set(classes) <= {0, 1}):
        raise DataFileError(
            f"{name}: metadata.classification says {metadata.classification}, but the classifier has the "
            f"classes {classes}."
        )
