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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from inspector_pipeline.configuration_inspector import Feature
from inspector_pipeline.errors import DataFileError, ReadingError
from inspector_pipeline.reading import Reading
from training.records import LabelledPair, json_text, read_json

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
    readings: dict[str, Reading]
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
            data["readings"] = {name: Reading.from_dict(reading) for name, reading in data["readings"].items()}
            data |= {name: tuple(data[name]) for name in ("layers", "poolings", "states")}
            return cls(**data)
        except (AttributeError, KeyError, TypeError, ReadingError) as error:
            raise DataFileError(
                f"{folder / FINGERPRINT_FILE} expects what python -m training.{STAGE} writes, but: {error!r}. Delete "
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
