"""How features lie on disk: a fingerprint of what they are made from, and shards of rows.

A folder of features holds

    fingerprint.json               what the features are made from; written first
    pairs.jsonl                    the pairs, as labelled rows
    chat-00000.safetensors, ...    one shard for every `window` rows of a reading, in the order of the pairs
    stats.json                     how fast the last run went
    manifest.json                  written last; without it the folder is incomplete

A shard holds one float32 (rows, hidden) tensor for every feature, named "{pooling}.{layer}.{state}", and the hash of
the fingerprint, so that no shard of another run is ever taken for one of this.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from inspector_pipeline.configuration_inspector import Feature
from inspector_pipeline.errors import DataFileError, ReadingError
from inspector_pipeline.files.disk import file_sha256, json_text
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.template import PairTemplate

from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import Manifest

STAGE = "extract"
FINGERPRINT_FILE = "fingerprint.json"
PAIRS_FILE = "pairs.jsonl"
STATS_FILE = "stats.json"
CHAT = "chat"
QUESTION = "question"  # the chat template up to where the reply begins, with the question alone
RUBRIC = "rubric"  # every aspect's own reading
RUBRIC_PREFIX = "rubric:"  # and an aspect: covers only the pairs that carry a label of that aspect
OUTPUT_STATE = "output"  # the kind of state that the backbone itself gives: raw, but final_norm at its last layer


@dataclass(frozen=True)
class Fingerprint:
    """What features are made from: two folders with equal fingerprints hold the same features.

    Attributes:
        inputs: File name -> sha256 of the pairs and of the questions that decide which are kept.
        backbone: Id, revision and dtype of the backbone; for a local folder also the hash of its files.
        max_length: Upper bound on the tokens of a pair.
        window: Rows of a shard; batches never cross its border.
        readings: Name -> reading.
        layers: Which states, ascending.
        poolings: Which poolings.
        states: Which kinds of state, as asked.
        hidden_size: Width of a state.
        n_layers: Layers of the whole backbone.
        n_foreign: Pairs that were dropped since their question is not in the dataset.
        versions: Package -> version.
    """

    inputs: dict[str, str]
    backbone: dict[str, Any]
    max_length: int
    window: int
    readings: dict[str, PairTemplate]
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    states: tuple[str, ...]
    hidden_size: int
    n_layers: int
    n_foreign: int
    versions: dict[str, str]

    @property
    def columns(self) -> tuple[tuple[int, str, str], ...]:
        """Every (layer, pooling, state) of a shard, with `output` told apart."""
        found: dict[tuple[int, str, str], None] = {}
        for layer in self.layers:
            for state in self.states:
                last = "final_norm" if layer == self.n_layers else "raw"
                kind = last if state == OUTPUT_STATE else state
                found.update({(layer, pooling, kind): None for pooling in self.poolings})
        return tuple(found)

    def differences(self, other: "Fingerprint") -> list[str]:
        """Name the fields, other than those that say which features of each pair are held, in which two differ."""
        mine, theirs = self._identity(), other._identity()
        return [name for name in mine if mine[name] != theirs[name]]

    def covers(self, other: "Fingerprint") -> bool:
        """Whether every feature of the other is one of these."""
        same_readings = all(self.readings.get(name) == reading for name, reading in other.readings.items())
        return not self.differences(other) and same_readings and set(other.columns) <= set(self.columns)

    def _identity(self) -> dict[str, Any]:
        held = ("readings", "layers", "poolings", "states")
        return {name: value for name, value in asdict(self).items() if name not in held}

    @property
    def digest(self) -> str:
        """The sha256 of its text, which every shard carries."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """Write it as JSON, readings in their order."""
        return json_text(asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Fingerprint":
        """Read a folder's fingerprint.

        Raises:
            DataFileError: It is missing or malformed.
        """
        data = read_json(folder / FINGERPRINT_FILE)
        try:
            data["readings"] = {name: PairTemplate.from_dict(reading) for name, reading in data["readings"].items()}
            data |= {name: tuple(data[name]) for name in ("layers", "poolings", "states")}
            return cls(**data)
        except (AttributeError, KeyError, TypeError, ReadingError) as error:
            raise DataFileError(
                f"{folder / FINGERPRINT_FILE} expects what python -m training {STAGE} writes, but: {error!r}. Delete "
                "the folder and run the stage again."
            ) from error


@dataclass(frozen=True)
class Shard:
    """One file of features and how many rows it holds."""

    path: Path
    n_rows: int


def column_name(feature: Feature) -> str:
    """Name a feature's tensor in a shard."""
    return f"{feature.pooling}.{feature.layer}.{feature.state}"


def covered_rows(reading: str, pairs: Sequence[LabelledPair]) -> NDArray[np.int64]:
    """Return the positions of the pairs that a reading covers, ascending."""
    if not reading.startswith(RUBRIC_PREFIX):
        return np.arange(len(pairs), dtype=np.int64)
    aspect = reading.removeprefix(RUBRIC_PREFIX)
    return np.array([i for i, pair in enumerate(pairs) if aspect in pair.scores], dtype=np.int64)


def plan_shards(folder: Path, reading: str, n_rows: int, window: int) -> tuple[Shard, ...]:
    """Return a reading's shards: one for every `window` rows."""
    stem = reading.replace(":", "-")
    starts = range(0, n_rows, window)
    return tuple(
        Shard(folder / f"{stem}-{i:05d}.safetensors", min(window, n_rows - start)) for i, start in enumerate(starts)
    )


def shard_digest(shard: Shard) -> str | None:
    """Return which run wrote a shard, or None where it is missing, damaged, or has another number of rows."""
    try:
        with safe_open(shard.path, framework="numpy") as file:
            names = file.keys()
            whole = all(file.get_slice(name).get_shape()[0] == shard.n_rows for name in names)
            return (file.metadata() or {}).get("fingerprint") if whole else None
    except (OSError, SafetensorError):
        return None


def read_column(shard: Shard, name: str) -> NDArray[np.float32]:
    """Read one feature of a shard's rows, float32 (rows, width).

    Raises:
        DataFileError: The shard cannot be read or holds another number of rows.
    """
    try:
        with safe_open(shard.path, framework="numpy") as file:
            values: NDArray[np.float32] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise DataFileError(f"{shard.path} expects a tensor {name}, but could not be read: {error}.") from error
    if len(values) != shard.n_rows:
        raise DataFileError(f"{shard.path}: {name} expects {shard.n_rows} rows, but got {len(values)}.")
    return values


def write_shard(shard: Shard, values: dict[str, NDArray[np.float32]], fingerprint: Fingerprint) -> None:
    """Write a shard whole or not at all; what a kill leaves half written is overwritten by the next run.

    Args:
        shard: Where.
        values: Column -> float32 (rows, hidden).
        fingerprint: What the features are made from.
    """
    scratch = shard.path.with_name(f".{shard.path.name}.tmp")
    # Written by us, since save_file would make it private to its owner; one key, since their order is not fixed.
    scratch.write_bytes(save(values, metadata={"fingerprint": fingerprint.digest}))
    os.replace(scratch, shard.path)


@dataclass(frozen=True)
class FeatureSet:
    """Features of pairs, read from disk when they are asked for.

    Attributes:
        pairs: The pairs.
        readings: Name -> how pairs were read.
        rows: Reading -> positions in `pairs` that it covers, ascending. `rubric:<aspect>` covers the pairs that carry
            a label of that aspect, every other reading covers all.
        manifest: Where the features come from.
        hidden_size: Width of a state.
        n_layers: Layers of the whole backbone; a state after each, and the embeddings as layer 0.
        layers: Which layers are there, ascending.
        poolings: Which poolings are there.
        states: Which kinds of state are there.
        columns: Every (layer, pooling, state) that is there.
        shards: Reading -> its files, in the order of its rows.
        n_foreign: Pairs that were dropped since their question is not in the dataset.

    Example:
        >>> load_features("work/features").matrix(Feature("chat", 12, "last", "rms_normed"))  # doctest: +SKIP
    """

    pairs: list[LabelledPair]
    readings: dict[str, PairTemplate]
    rows: dict[str, NDArray[np.int64]]
    manifest: Manifest
    hidden_size: int
    n_layers: int
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    states: tuple[str, ...]
    columns: frozenset[tuple[int, str, str]]
    shards: dict[str, tuple[Shard, ...]]
    n_foreign: int = 0

    def holds(self, feature: Feature) -> bool:
        """Whether a feature is there."""
        return feature.reading in self.readings and (feature.layer, feature.pooling, feature.state) in self.columns

    def matrix(self, feature: Feature) -> NDArray[np.float32]:
        """Read one feature of every pair that its reading covers.

        Args:
            feature: PairTemplate, layer, pooling and state.

        Returns:
            float32 (len(rows[feature.reading]), hidden). Only this matrix and one shard's part of it are in memory.

        Raises:
            DataFileError: The feature is not there, or a shard cannot be read.
        """
        if not self.holds(feature):
            raise DataFileError(
                f"These features hold the readings {', '.join(self.readings)}, layers {_listed(self.layers)}, poolings "
                f"{', '.join(self.poolings)} and states {', '.join(self.states)}, but not {feature}. Run python -m "
                f"training.{STAGE} with it, into another folder."
            )
        values = np.empty((len(self.rows[feature.reading]), self.hidden_size), dtype=np.float32)
        start = 0
        for shard in self.shards[feature.reading]:
            values[start : start + shard.n_rows] = read_column(shard, column_name(feature))
            start += shard.n_rows
        return values


def load_features(folder: str | os.PathLike[str], *, check_hashes: bool = False) -> FeatureSet:
    """Open what the extract stage wrote.

    Args:
        folder: Its output.
        check_hashes: Whether to hash every shard too; that the shards are there, of this run and hold the right
            number of rows is always checked, from their headers.

    Raises:
        DataFileError: The folder is incomplete, or holds something else.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder, STAGE)
    for name, expected in manifest.outputs.items():
        small = not name.endswith(".safetensors")
        if not (folder / name).is_file() or ((small or check_hashes) and file_sha256(folder / name) != expected):
            raise DataFileError(
                f"{folder / name} expects the file that the manifest names, but it is gone or was changed. Delete the "
                f"folder and run python -m training {STAGE} again."
            )
    found = Fingerprint.read(folder)
    alone = all(reading.question_only for reading in found.readings.values())
    pairs = labelled_pairs(read_records(folder / PAIRS_FILE), unlabelled=True, question_only=alone)
    rows = {name: covered_rows(name, pairs) for name in found.readings}
    shards = {name: plan_shards(folder, name, len(own), found.window) for name, own in rows.items()}
    for name in shards:
        _check_shards(shards[name], found)
    columns = found.columns
    return FeatureSet(
        pairs=pairs,
        readings=found.readings,
        rows=rows,
        manifest=manifest,
        hidden_size=found.hidden_size,
        n_layers=found.n_layers,
        layers=found.layers,
        poolings=found.poolings,
        states=tuple(dict.fromkeys(state for _, _, state in columns)),
        columns=frozenset(columns),
        shards=shards,
        n_foreign=found.n_foreign,
    )


def concatenate(feature_sets: Sequence[FeatureSet]) -> FeatureSet:
    """Join features of different pairs, such as labelled ones and auxiliary ones that were extracted by themselves.

    Args:
        feature_sets: At least one; all of the same backbone, dtype, maximum length, readings and features.

    Returns:
        All pairs, in the order given. Its manifest names the inputs of all, and the settings of all where they differ.

    Raises:
        DataFileError: They do not match; the message names what differs.
    """
    if not feature_sets:
        raise DataFileError("concatenate expects at least one set of features, but got none.")
    first = feature_sets[0]
    for other in feature_sets[1:]:
        mine, theirs = _must_match(first), _must_match(other)
        different = [name for name in mine if mine[name] != theirs[name]]
        if different:
            name = different[0]
            raise DataFileError(
                f"concatenate expects features that match, but their {', '.join(different)} differ: {name} is "
                f"{mine[name]!r:.300} and {theirs[name]!r:.300}. Extract both with the same settings; a chat template "
                "that writes a date is frozen by giving the reading as a file."
            )
    starts = np.cumsum([0, *(len(one.pairs) for one in feature_sets)])
    names = first.readings
    return replace(
        first,
        pairs=[pair for one in feature_sets for pair in one.pairs],
        rows={
            name: np.concatenate([one.rows[name] + start for one, start in zip(feature_sets, starts, strict=False)])
            for name in names
        },
        manifest=_joined_manifest([one.manifest for one in feature_sets]),
        shards={name: tuple(shard for one in feature_sets for shard in one.shards[name]) for name in names},
        n_foreign=sum(one.n_foreign for one in feature_sets),
    )


def _check_shards(shards: Iterable[Shard], found: Fingerprint) -> None:
    digest = found.digest
    for shard in shards:
        if shard_digest(shard) != digest:
            raise DataFileError(
                f"{shard.path} expects {shard.n_rows} rows of the features that {FINGERPRINT_FILE} names, but is "
                f"missing, damaged or of another run. Run python -m training {STAGE} again."
            )


def _must_match(features: FeatureSet) -> dict[str, Any]:
    settings = features.manifest.settings
    return {
        **{name: settings.get(name) for name in ("backbone", "max_length")},
        "readings": features.readings,
        "n_layers": features.n_layers,
        "hidden_size": features.hidden_size,
        "features": sorted(features.columns),
    }


def _joined_manifest(manifests: Sequence[Manifest]) -> Manifest:
    """Join inputs and settings; where files of one name differ, the later ones get a number."""
    inputs: dict[str, str] = {}
    for manifest in manifests:
        for name, sha in manifest.inputs.items():
            free = (key for key in (name, *(f"{name} ({n})" for n in range(2, len(manifests) + 1))))
            inputs[next(key for key in free if inputs.get(key, sha) == sha)] = sha
    settings = {}
    for key in manifests[0].settings:
        values = [manifest.settings.get(key) for manifest in manifests]
        settings[key] = values[0] if all(value == values[0] for value in values) else values
    return replace(manifests[0], inputs=inputs, settings=settings, outputs={})


def _listed(layers: tuple[int, ...]) -> str:
    contiguous = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if contiguous else ", ".join(map(str, layers))
