"""Score-token logits of all labelled rows, read once by a judge's passes and kept beside a comparison."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError

from ...probing.table import Labels
from ...rows.records import LabelledPair
from ...runs.manifest import FOLDERS_MANIFEST, Manifest
from ...score_tokens.logits import layer_logits
from .base import LayerLogits


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
    config = InspectorConfig.from_pretrained(settings.judge)
    scales = {aspect.name: aspect.classes for aspect in config.parsed_aspects if aspect.name in labels.names}
    if not scales:
        raise DataFileError(f"{settings.judge} expects to score an aspect of the labels, {', '.join(labels.names)}.")
    manifest = Manifest.of("layer_logits", settings, (settings.pairs, str(Path(settings.judge) / FOLDERS_MANIFEST)))
    if not manifest.vouches_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _read(settings, scales, pairs, labels, path)
        manifest.write(path, [path])
    with safe_open(path, framework="numpy") as file:
        return LayerLogits({name: file.get_tensor(name) for name in scales}, scales, labels)


def _read(
    settings: LogitsSettings,
    scales: dict[str, tuple[int, ...]],
    pairs: list[LabelledPair],
    labels: Labels,
    path: Path,
) -> None:
    judge = load_judge(Path(settings.judge), dtype="stored")
    texts = [(pair.question, pair.prediction) for pair in pairs]
    values = {
        name: layer_logits(judge, name, [texts[i] for i in labels.pair[labels.aspect == a]])
        for a, name in enumerate(labels.names)
        if name in scales
    }
    save_file(values, path)
