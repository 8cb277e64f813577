"""Score-token logits of all labelled rows, read once by a judge's passes and kept on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError

from ..probing.table import Array, Index, Labels
from ..rows.records import LabelledPair
from ..runs.manifest import FOLDERS_MANIFEST, Manifest
from .logits import layer_logits


@dataclass(frozen=True)
class LayerLogits:
    """Score-token logits of every row of some aspects.

    Attributes:
        values: Aspect -> (rows of that aspect, layers, classes), in the table's order.
        scales: Aspect -> the scores of its tokens.
        labels: The table.
    """

    values: Mapping[str, Array]
    scales: Mapping[str, tuple[int, ...]]
    labels: Labels

    def of(self, aspect: str, rows: Index) -> Array:
        """Return the logits of some rows of the table, (rows, layers, classes)."""
        own = np.flatnonzero(self.labels.aspect == self.labels.names.index(aspect))
        return self.values[aspect][np.searchsorted(own, rows)]

    def by_scale(self) -> list[list[str]]:
        """Group the aspects by their scale."""
        scales = dict.fromkeys(self.scales.values())
        return [[name for name, own in self.scales.items() if own == scale] for scale in scales]


@dataclass(frozen=True)
class LogitsSettings:
    """What the logits depend on.

    Attributes:
        judge: Folder of the lager stage.
        pairs: File of the labelled rows.
        uncounted: Aspects that are left out.
    """

    judge: str
    pairs: str
    uncounted: tuple[str, ...]


def cached_layer_logits(settings: LogitsSettings, pairs: list[LabelledPair], labels: Labels, path: Path) -> LayerLogits:
    """Read them, or take what was read before.

    Args:
        settings: What they depend on.
        pairs: The rows' pairs.
        labels: The table.
        path: Where they are kept.

    Raises:
        DataFileError: The judge scores none of the labels' aspects.
    """
    aspects = InspectorConfig.from_pretrained(settings.judge).parsed_aspects
    scales = {aspect.name: aspect.classes for aspect in aspects if aspect.name in labels.names}
    if not scales:
        raise DataFileError(f"{settings.judge} expects to score an aspect of the labels, {', '.join(labels.names)}.")
    manifest = Manifest.of("layer_logits", settings, (settings.pairs, str(Path(settings.judge) / FOLDERS_MANIFEST)))
    if not manifest.vouches_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        judge = load_judge(Path(settings.judge), dtype="stored")
        texts = [(pair.question, pair.prediction) for pair in pairs]
        asked = {name: labels.pair[labels.aspect == a] for a, name in enumerate(labels.names) if name in scales}
        save_file({name: layer_logits(judge, name, [texts[i] for i in own]) for name, own in asked.items()}, path)
        manifest.write(path, [path])
    with safe_open(path, framework="numpy") as file:
        return LayerLogits({name: file.get_tensor(name) for name in scales}, scales, labels)
