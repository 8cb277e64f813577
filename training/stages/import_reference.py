"""Import published or own classifiers into a judge: pickles or .skops in, safetensors out.

    python -m training import_reference gsm8k_binary_clfs --probing-set probing.json --output judge --allow-pickle

A classifier folder holds one file per aspect: NAME.pkl, the published form {"model": ..., "metadata": ...}, or
NAME.skops with its metadata in NAME.json. The rubric of each aspect is read from the probing set. The judge's folder
gets the probes (the backbone too with --fuse) and, under skops/, every classifier as .skops with its metadata, from
which this command makes the same judge again.
"""

import argparse
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from transformers import AutoConfig, PreTrainedConfig

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.template import PairTemplate
from inspector_pipeline.truncation import truncated_config

from ..judges.build import fill_probes
from ..judges.pickle_audit import ALLOWED_GLOBALS, UnsafePickleError, load_audited
from ..judges.port import NotPortableError, ProbeWeights, port
from ..rows.probing_set import ASPECTS, read_probing_set

logger = logging.getLogger(__name__)

POOLINGS = ("mean", "last", "min", "max")
CLASSIFICATIONS = ("binary", "multi")


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


def save_judge(
    model: InspectorModel, classifiers: Mapping[str, Classifier], output: Path, *, fuse: bool = False
) -> None:
    """Write the judge's folder and, under skops/, its classifiers.

    Args:
        model: From `build_judge`.
        classifiers: What it was made of.
        output: The folder.
        fuse: Whether to load the backbone and write it too.
    """
    config = model.config
    if fuse:
        model.set_backbone(load_backbone(config.backbone_id, config.backbone_revision, config.depth))
    model.save_pretrained(output, fused=fuse)
    (output / "skops").mkdir(exist_ok=True)
    for name, classifier in classifiers.items():
        estimator = classifier.estimator
        if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
            estimator = estimator.best_estimator_
        skops.io.dump(estimator, output / "skops" / f"{name}.skops")
        (output / "skops" / f"{name}.json").write_text(json_text(asdict(classifier.metadata)), encoding="utf-8")


def main() -> None:
    """Parse arguments and import."""
    parser = argparse.ArgumentParser(prog="python -m training import_reference", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder of NAME.pkl, or of NAME.skops and NAME.json")
    parser.add_argument("--probing-set", required=True, help="JSON whose prompts hold each aspect's rubric")
    parser.add_argument("--output", required=True, type=Path, help="the judge's folder")
    parser.add_argument("--allow-pickle", action="store_true", help="load pickles whose globals are all on the list")
    parser.add_argument("--fuse", action="store_true", help="put the truncated backbone into the judge")
    parser.add_argument("--backbone-id", help="Hub id or folder (default: what the classifiers name)")
    parser.add_argument("--backbone-revision", help="its revision")
    parser.add_argument(
        "--classes", type=json.loads, help='scores of regressions, as JSON: {"fluency": [1, 2, 3, 4, 5]}'
    )
    args = parser.parse_args()
    classifiers = load_classifiers(args.folder, allow_pickle=args.allow_pickle)
    _, readings = read_probing_set(args.probing_set)
    model = build_judge(
        classifiers,
        readings,
        backbone_id=args.backbone_id,
        backbone_revision=args.backbone_revision,
        classes=args.classes,
    )
    save_judge(model, classifiers, args.output, fuse=args.fuse)
    absent = [name for name in ASPECTS if name not in classifiers]
    logger.info("Wrote a judge for %s to %s.", ", ".join(classifiers), args.output)
    if absent:
        logger.info("It has no %s; its total is over the aspects it has.", ", ".join(absent))
