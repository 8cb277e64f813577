"""Import published or own classifiers into a judge, from pickles or .skops files.

    python -m training import_reference --folder gsm8k_binary_clfs --probing-set probing.json --output judge \
        --allow-pickle

A classifier folder holds one file per aspect: NAME.pkl, the published form {"model": ..., "metadata": ...}, or
NAME.skops with its metadata in NAME.json. The rubric of each aspect is read from the probing set. The judge's folder
gets the probes (the backbone too with --fuse) and, under skops/, every classifier as .skops with its metadata, from
which this command makes the same judge again.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..features.plan import read_readings
from ..judges.classifiers import Classifier, judge_of_classifiers, load_classifiers, reported, save_classifiers
from ..judges.write import write_judge
from ..rows.probing_set import ASPECTS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Settings of the import_reference stage.

    Attributes:
        folder: Folder of NAME.pkl, or of NAME.skops and NAME.json.
        probing_set: JSON whose prompts hold each aspect's rubric, JSON of readings by aspect, or `own` for the rubrics
            of this project.
        output: The judge's folder.
        allow_pickle: Whether pickles are read too; nothing in them is run, only their numbers are read.
        fuse: Whether the truncated backbone goes into the judge.
        backbone_id: Hub id or folder; by default what the classifiers name.
        backbone_revision: Its revision.
        classes: Scores of regressions, which do not know theirs, such as {"fluency": [1, 2, 3, 4, 5]}.
        reported: Whether results.json and a card say what was saved with the classifiers, which is no evidence.
    """

    folder: str
    probing_set: str
    output: str
    allow_pickle: bool = False
    fuse: bool = False
    backbone_id: str | None = None
    backbone_revision: str | None = None
    classes: dict[str, list[int]] = field(default_factory=dict)
    reported: bool = False


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: There are no classifiers, their metadata are wrong, or they do not fit each other.
        UnsafePickleError: A pickle is not allowed, or a file holds something else than a classifier needs.
        NotPortableError: A classifier is not linear.
        BackboneError: The backbone cannot be loaded.
    """
    classifiers = load_classifiers(Path(config.folder), allow_pickle=config.allow_pickle)
    rubrics = read_readings(config.probing_set)
    named = {"backbone_id": config.backbone_id, "backbone_revision": config.backbone_revision}
    model, output = judge_of_classifiers(classifiers, rubrics, classes=config.classes, **named), Path(config.output)
    evidence = _evidence(classifiers) if config.reported else None
    write_judge(model, output, evidence, fused=config.fuse)
    save_classifiers(classifiers, output / "skops")
    logger.info("Wrote a judge for %s to %s.", ", ".join(classifiers), output)
    absent = [name for name in ASPECTS if name not in classifiers]
    if absent:
        logger.info("It has no %s; its total is over the aspects it has.", ", ".join(absent))


def _evidence(classifiers: Mapping[str, Classifier]) -> dict[str, Any]:
    """Say what is known of a judge that was not evaluated itself: what was saved with its classifiers."""
    note = "It needs a pass per aspect, each in that aspect's rubric."
    return {"aspects": {name: reported(one) for name, one in classifiers.items()}, "sources": [], "notes": [note]}
