"""Fit a judge's probes on all labelled rows: search, fit, calibrate.

    python -m training fit --features work/features --output work/fit

The search is that of training/probing/search.py. With `--protocol reference` the published protocol runs instead, its
feature rankings included, on features of its own rubrics; its result stands beside a judge's evidence.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inspector_pipeline.files.disk import json_text, write_atomically

from ..features.store import concatenate, load_features
from ..probing.familiarity import FamiliarityConfig, unfamiliar_shares
from ..probing.fitted import CHOICE_FILE, FITTED_ON_FILE, PROBES_FILE, STAGE, fit, save_fitted
from ..probing.settings import SearchConfig
from ..reference.protocol import ReferenceSettings, reference_protocol
from ..runs.manifest import Manifest, manifest_path

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
        familiarity: How it is found out which pairs are like the normal rows.
        others: Folders of features of other pairs, such as other generators, degenerate forms or other domains: how
            many of them are called unfamiliar is told beside.
    """

    features: tuple[str, ...]
    output: str
    search: SearchConfig = field(default_factory=SearchConfig)
    protocol: Literal["ours", "reference"] = "ours"
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    familiarity: FamiliarityConfig = field(default_factory=FamiliarityConfig)
    others: tuple[str, ...] = ()


def run(config: Config) -> None:
    """Run the stage: folders of features -> a folder of probes, or the published protocol's result.

    Raises:
        DataFileError: The features are incomplete, do not match, or carry too few labels.
    """
    folder = Path(config.output)
    manifest = Manifest.of(STAGE, config, [manifest_path(Path(one)) for one in (*config.features, *config.others)])
    if manifest.is_done(folder):
        return
    features = concatenate([load_features(one) for one in config.features])
    if config.protocol == "reference":
        write_atomically(folder / REFERENCE_FILE, json_text(reference_protocol(features, config.reference)))
        manifest.write(folder, [folder / REFERENCE_FILE])
        return
    fitted = fit(features, config.search, config.familiarity)
    if fitted.familiar is not None:
        found = {one: unfamiliar_shares(fitted.familiar, load_features(one)) for one in config.others}
        fitted.familiar.report["others"] = {Path(one).name: shares for one, shares in found.items()}
    save_fitted(fitted, folder)
    manifest.write(folder, [folder / name for name in (CHOICE_FILE, PROBES_FILE, FITTED_ON_FILE)])
    logger.info("Chose %s up to layer %d.", fitted.choice["view"], fitted.choice["depth"])
