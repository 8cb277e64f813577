"""Import published or own classifiers into a judge, from pickles or .skops files.

    python -m training import_reference gsm8k_binary_clfs --probing-set probing.json --output judge --allow-pickle

A classifier folder holds one file per aspect: NAME.pkl, the published form {"model": ..., "metadata": ...}, or
NAME.skops with its metadata in NAME.json. The rubric of each aspect is read from the probing set. The judge's folder
gets the probes (the backbone too with --fuse) and, under skops/, every classifier as .skops with its metadata, from
which this command makes the same judge again.
"""

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import skops.io
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.modeling_inspector import InspectorModel

from ..judges.classifiers import Classifier, build_judge, load_classifiers
from ..rows.probing_set import ASPECTS, read_probing_set

logger = logging.getLogger(__name__)


def save_judge(
    model: InspectorModel, classifiers: Mapping[str, Classifier], output: Path, *, fuse: bool = False
) -> None:
    """Write the judge's folder and, under skops/, its classifiers.

    Args:
        model: From `build_judge`.
        classifiers: What it was made of.
        output: The folder.
        fuse: Whether to load the backbone and write it too.
    """
    config = model.config
    if fuse:
        model.set_backbone(load_backbone(config.backbone_id, config.backbone_revision, config.depth))
    model.save_pretrained(output, fused=fuse)
    (output / "skops").mkdir(exist_ok=True)
    for name, classifier in classifiers.items():
        estimator = classifier.estimator
        if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
            estimator = estimator.best_estimator_
        skops.io.dump(estimator, output / "skops" / f"{name}.skops")
        (output / "skops" / f"{name}.json").write_text(json_text(asdict(classifier.metadata)), encoding="utf-8")


def main() -> None:
    """Parse arguments and import."""
    parser = argparse.ArgumentParser(prog="python -m training import_reference", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder of NAME.pkl, or of NAME.skops and NAME.json")
    parser.add_argument("--probing-set", required=True, help="JSON whose prompts hold each aspect's rubric")
    parser.add_argument("--output", required=True, type=Path, help="the judge's folder")
    parser.add_argument("--allow-pickle", action="store_true", help="load pickles whose globals are all on the list")
    parser.add_argument("--fuse", action="store_true", help="put the truncated backbone into the judge")
    parser.add_argument("--backbone-id", help="Hub id or folder (default: what the classifiers name)")
    parser.add_argument("--backbone-revision", help="its revision")
    parser.add_argument(
        "--classes", type=json.loads, help='scores of regressions, as JSON: {"fluency": [1, 2, 3, 4, 5]}'
    )
    args = parser.parse_args()
    classifiers = load_classifiers(args.folder, allow_pickle=args.allow_pickle)
    _, readings = read_probing_set(args.probing_set)
    model = build_judge(
        classifiers,
        readings,
        backbone_id=args.backbone_id,
        backbone_revision=args.backbone_revision,
        classes=args.classes,
    )
    save_judge(model, classifiers, args.output, fuse=args.fuse)
    absent = [name for name in ASPECTS if name not in classifiers]
    logger.info("Wrote a judge for %s to %s.", ", ".join(classifiers), args.output)
    if absent:
        logger.info("It has no %s; its total is over the aspects it has.", ", ".join(absent))
