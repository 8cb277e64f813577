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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from inspector_pipeline.checks import FINDERS, check_vectors
from inspector_pipeline.errors import DataFileError, ReadingError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.disk import file_sha256, json_text, write_whole
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.template import PairTemplate

from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import Manifest

STAGE = "extract"
FINGERPRINT_FILE = "fingerprint.json"
PAIRS_FILE = "pairs.jsonl"
CHAT = "chat"
QUESTION = "question"  # the chat template up to where the reply begins, with the question alone
RUBRIC = "rubric"  # every aspect's own reading
RUBRIC_PREFIX = "rubric:"  # and an aspect: covers only the pairs that carry a label of that aspect
OUTPUT_STATE = "output"  # the kind of state that the backbone itself gives: raw, but final_norm at its last layer
CHOSEN_FEATURES = ("readings", "layers", "poolings", "states")  # the fields of a fingerprint that a folder may exceed


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
        found = (
            (layer, pooling, output_kind(layer, self.n_layers) if state == OUTPUT_STATE else state)
            for layer in self.layers
            for state in self.states
            for pooling in self.poolings
        )
        return tuple(dict.fromkeys(found))

    @property
    def slots(self) -> tuple[str, ...]:
        """What its readings hold beside question and response: a reference, a context, both or none."""
        return tuple(dict.fromkeys(slot for reading in self.readings.values() for slot in reading.slots))

    def differences(self, other: "Fingerprint") -> list[str]:
        """Name the fields, other than those that say which features of each pair are held, in which two differ."""
        return [key for key, own in vars(self).items() if key not in CHOSEN_FEATURES and own != getattr(other, key)]

    def covers(self, other: "Fingerprint") -> bool:
        """Whether every feature of the other is one of these."""
        same_readings = all(self.readings.get(name) == reading for name, reading in other.readings.items())
        return not self.differences(other) and same_readings and set(other.columns) <= set(self.columns)

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
            if not (type(data["window"]) is int and data["window"] > 0):
                raise TypeError(f"a window of {data['window']!r:.60} rows")
            return cls(**data | {name: tuple(data[name]) for name in ("layers", "poolings", "states")})
        except (AttributeError, KeyError, TypeError, ReadingError) as error:
            raise DataFileError(
                f"{folder / FINGERPRINT_FILE} expects what python -m training {STAGE} writes, but: {error!r}. Delete "
                "the folder and run the stage again."
            ) from error

    def read_pairs(self, folder: Path) -> list[LabelledPair]:
        """Read the pairs of a folder with this fingerprint."""
        alone = all(reading.question_only for reading in self.readings.values())
        return labelled_pairs(read_records(folder / PAIRS_FILE), unlabelled=True, question_only=alone)


def output_kind(layer: int, n_layers: int) -> str:
    """Name the kind of state that a backbone of `n_layers` itself gives after a layer."""
    return "final_norm" if layer == n_layers else "raw"


@lru_cache(maxsize=1_000_000)
def _is_found(check: str, response: str) -> bool:
    """Say whether a check finds something, once for all folds and aspects."""
    return bool(FINDERS[check](response))


@dataclass(frozen=True)
class Shard:
    """One file of features.

    Attributes:
        path: The file.
        rows: Positions of its pairs among those of its folder, ascending.
    """

    path: Path
    rows: list[int]

    def is_of(self, digest: str) -> bool:
        """Whether the file is there, whole, and of the fingerprint with this digest."""
        try:
            with safe_open(self.path, framework="numpy") as file:
                lengths = {file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
                return lengths <= {len(self.rows)} and (file.metadata() or {}).get("fingerprint") == digest
        except (OSError, SafetensorError):
            return False

    def column(self, name: str) -> NDArray[np.float32]:
        """Read one feature, float32 (rows, width).

        Raises:
            DataFileError: The file cannot be read or holds another number of rows.
        """
        try:
            with safe_open(self.path, framework="numpy") as file:
                values: NDArray[np.float32] = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise DataFileError(f"{self.path} expects a tensor {name}, but could not be read: {error}.") from error
        if len(values) != len(self.rows):
            raise DataFileError(f"{self.path}: {name} expects {len(self.rows)} rows, but got {len(values)}.")
        return values

    def write(self, values: dict[str, NDArray[np.float32]], digest: str) -> None:
        """Write it whole or not at all.

        Args:
            values: Column -> float32 (rows, width).
            digest: That of the fingerprint.
        """
        # Not by save_file, which would make it private to its owner; one key, since their order is not fixed.
        write_whole(self.path, save(values, metadata={"fingerprint": digest}))


def column_name(feature: Feature) -> str:
    """Name a feature's tensor in a shard."""
    return f"{feature.pooling}.{feature.layer}.{feature.state}"


def plan_shards(
    folder: Path, reading: str, pairs: Sequence[LabelledPair], window: int, *, prefix: str = ""
) -> tuple[Shard, ...]:
    """Return a reading's shards: one for every `window` of the rows that it covers.

    Args:
        folder: Where they lie.
        reading: Its name.
        pairs: All pairs of the folder.
        window: Rows of a shard.
        prefix: Of the files' names, for what else is read of the same pairs.
    """
    aspect = reading.removeprefix(RUBRIC_PREFIX)
    rows = [i for i, pair in enumerate(pairs) if aspect == reading or aspect in pair.scores]
    parts = [rows[start : start + window] for start in range(0, len(rows), window)]
    stem = f"{prefix}{reading}".replace(":", "-")
    return tuple(Shard(folder / f"{stem}-{i:05d}.safetensors", part) for i, part in enumerate(parts))


@dataclass(frozen=True)
class FeatureSet(Fingerprint):
    """Features of pairs, read from disk when they are asked for, and what they are made from.

    Attributes:
        pairs: The pairs.
        rows: Reading -> positions in `pairs` that it covers, ascending. `rubric:<aspect>` covers the pairs that carry
            a label of that aspect, every other reading covers all.
        manifest: Where the features come from.
        shards: Reading -> its files, in the order of its rows.

    Example:
        >>> load_features("work/features").matrix(Feature("chat", 12, "last", "rms_normed"))  # doctest: +SKIP
    """

    pairs: list[LabelledPair]
    rows: dict[str, NDArray[np.int64]]
    manifest: Manifest
    shards: dict[str, tuple[Shard, ...]]

    def matrix(self, feature: Feature) -> NDArray[np.float32]:
        """Read one feature of every pair that its reading covers; a check is made of their texts.

        Args:
            feature: Reading, layer, pooling and state.

        Returns:
            float32 (len(rows[feature.reading]), hidden). Only this matrix and one shard's part of it are in memory.

        Raises:
            DataFileError: The feature is not there, or a shard cannot be read.
        """
        if feature.is_check and feature.reading in self.readings:
            rows = self.rows[feature.reading].tolist()
            found = [_is_found(feature.pooling, self.pairs[row].prediction) for row in rows]
            return check_vectors(found, self.hidden_size).numpy()
        column, columns = (feature.layer, feature.pooling, feature.state), self.columns
        if feature.reading not in self.readings or column not in columns:
            states = ", ".join(dict.fromkeys(state for _, _, state in columns))
            raise DataFileError(
                f"These features hold the readings {', '.join(self.readings)}, layers {_listed(self.layers)}, poolings "
                f"{', '.join(self.poolings)} and states {states}, but not {feature}. Run python -m training {STAGE} "
                "with it, into another folder."
            )
        values = np.empty((len(self.rows[feature.reading]), self.hidden_size), dtype=np.float32)
        start = 0
        for shard in self.shards[feature.reading]:
            end = start + len(shard.rows)
            values[start:end] = shard.column(column_name(feature))
            start = end
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
    made_from = Fingerprint.read(folder)
    pairs, digest = made_from.read_pairs(folder), made_from.digest
    shards = {name: plan_shards(folder, name, pairs, made_from.window) for name in made_from.readings}
    for shard in chain.from_iterable(shards.values()):
        if not shard.is_of(digest):
            raise DataFileError(
                f"{shard.path} expects {len(shard.rows)} rows of the features that {FINGERPRINT_FILE} names, but is "
                f"missing, damaged or of another run. Run python -m training {STAGE} again."
            )
    rows = {name: np.array([i for one in own for i in one.rows], dtype=np.int64) for name, own in shards.items()}
    return FeatureSet(**vars(made_from), pairs=pairs, rows=rows, manifest=manifest, shards=shards)


def concatenate(feature_sets: Sequence[FeatureSet]) -> FeatureSet:
    """Join features of different pairs, such as labelled ones and auxiliary ones that were extracted by themselves.

    Args:
        feature_sets: At least one; all of the same backbone, dtype, maximum length and readings.

    Returns:
        All pairs, in the order given, with the layers, poolings and states that all have. Its manifest names the
        inputs of all, and the settings of all where they differ.

    Raises:
        DataFileError: They do not match; the message names what differs.
    """
    if not feature_sets:
        raise DataFileError("concatenate expects at least one set of features, but got none.")
    first, *others = feature_sets
    mine = _must_match(first)
    for theirs in map(_must_match, others):
        different = [name for name in mine if mine[name] != theirs[name]]
        if different:
            name = different[0]
            raise DataFileError(
                f"concatenate expects features that match, but their {', '.join(different)} differ: {name} is "
                f"{mine[name]!r:.300} and {theirs[name]!r:.300}. Extract both with the same settings; a chat template "
                "that writes a date is frozen by giving the reading as a file."
            )
    shared: dict[str, Any] = {
        name: tuple(value for value in getattr(first, name) if all(value in getattr(one, name) for one in others))
        for name in ("layers", "poolings", "states")
    }
    lacking = [name for name, values in shared.items() if not values]
    if lacking:
        raise DataFileError(
            f"concatenate expects features that share {lacking[0]}, but these have "
            f"{' and '.join(str(getattr(one, lacking[0])) for one in feature_sets)}. Extract them with the same."
        )
    starts = np.cumsum([0, *(len(one.pairs) for one in feature_sets)])
    manifest = _joined_manifest([one.manifest for one in feature_sets])
    return replace(
        first,
        **shared,
        inputs=manifest.inputs,
        pairs=[pair for one in feature_sets for pair in one.pairs],
        rows={
            name: np.concatenate([one.rows[name] + start for one, start in zip(feature_sets, starts, strict=False)])
            for name in first.readings
        },
        manifest=manifest,
        shards={name: tuple(shard for one in feature_sets for shard in one.shards[name]) for name in first.readings},
        n_foreign=sum(one.n_foreign for one in feature_sets),
    )


def _must_match(features: FeatureSet) -> dict[str, Any]:
    return {
        **{name: features.manifest.settings.get(name) for name in ("backbone", "max_length")},
        **{name: getattr(features, name) for name in ("readings", "n_layers", "hidden_size")},
    }


def _joined_manifest(manifests: Sequence[Manifest]) -> Manifest:
    """Join inputs and settings; where files of one name differ, the later ones get a number."""
    inputs: dict[str, str] = {}
    for name, sha in chain.from_iterable(manifest.inputs.items() for manifest in manifests):
        free = (key for key in (name, *(f"{name} ({n})" for n in range(2, len(manifests) + 1))))
        inputs[next(key for key in free if inputs.get(key, sha) == sha)] = sha
    values = {key: [manifest.settings.get(key) for manifest in manifests] for key in manifests[0].settings}
    settings = {key: own[0] if own.count(own[0]) == len(own) else own for key, own in values.items()}
    return replace(manifests[0], inputs=inputs, settings=settings, outputs={})


def _listed(layers: tuple[int, ...]) -> str:
    contiguous = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if contiguous else ", ".join(map(str, layers))
