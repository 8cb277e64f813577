"""Features of pairs, as later stages read them: from the extract stage's shards, when they are asked for."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.configuration_inspector import Feature
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.reading import Reading
from training.manifest import Manifest, file_sha256
from training.records import LabelledPair, labelled_pairs, read_records
from training.shards import (
    FINGERPRINT_FILE,
    PAIRS_FILE,
    STAGE,
    Fingerprint,
    Shard,
    column_name,
    covered_rows,
    plan_shards,
    read_column,
    shard_digest,
)


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
    readings: dict[str, Reading]
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
            feature: Reading, layer, pooling and state.

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
                f"folder and run python -m training.{STAGE} again."
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
                f"missing, damaged or of another run. Run python -m training.{STAGE} again."
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
