"""Fit a judge's probes on all labelled rows: search, fit, calibrate.

    python -m training fit --features work/features --output work/fit

The search is that of training/probing/search.py. With `--protocol reference` the published protocol runs instead, its
feature rankings included, on features of its own rubrics; its result stands beside a judge's evidence.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inspector_pipeline.files.disk import json_text, write_atomically

from ..features.store import FeatureSet, concatenate, load_features
from ..probing.fitted import CHOICE_FILE, PROBES_FILE, STAGE, fit, save_fitted
from ..probing.search import SearchConfig
from ..runs.manifest import Manifest, manifest_path
from .reference import ReferenceSettings, read_entropies, reference_protocol

logger = logging.getLogger(__name__)

REFERENCE_FILE = "reference.json"


@dataclass(frozen=True)
class Config:
    """Settings of the fit stage.

    Attributes:
        features: Folders of the extract stage: the labelled pairs, and auxiliary ones.
        output: Folder to write to.
        search: What to choose from, and how.
        protocol: `ours`, or `reference` for the published protocol.
        reference: What the published protocol leaves open.
    """

    features: tuple[str, ...]
    output: str
    search: SearchConfig = field(default_factory=SearchConfig)
    protocol: Literal["ours", "reference"] = "ours"
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)


def run(config: Config) -> None:
    """Run the stage: folders of features -> a folder of probes, or the published protocol's result.

    Raises:
        DataFileError: The features are incomplete, do not match, or carry too few labels.
    """
    folder = Path(config.output)
    manifest = Manifest.of(STAGE, config, [manifest_path(Path(one)) for one in config.features])
    if manifest.is_done(folder):
        return
    features = concatenate([load_features(one) for one in config.features])
    if config.protocol == "reference":
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / REFERENCE_FILE, json_text(_reference(features, config)))
        manifest.write(folder, [folder / REFERENCE_FILE])
        return
    fitted = fit(features, config.search)
    save_fitted(fitted, folder)
    manifest.write(folder, [folder / CHOICE_FILE, folder / PROBES_FILE])
    logger.info("Chose %s up to layer %d.", fitted.choice["view"], fitted.choice["depth"])


def _reference(features: FeatureSet, config: Config) -> Mapping[str, Any]:
    wants_attention = config.reference.attention != "none"
    entropies = read_entropies(config.features[0], features) if wants_attention else None
    found: dict[str, Any] = json.loads(json.dumps(reference_protocol(features, config.reference, entropies)))
    return found
