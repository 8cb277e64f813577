"""A folder of fitted classifiers as a judge, for the package's own doors: the entry point `inspector.judges`."""

import logging
import os
from pathlib import Path

from ..features.plan import read_readings
from ..labelling.readings import OWN
from .classifiers import judge_of_classifiers, load_classifiers
from .write import write_judge

logger = logging.getLogger(__name__)


def judge_of_folder(
    folder: str,
    output: str,
    rubrics: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | None = None,
) -> None:
    """Write a judge's folder, probes only, of classifiers in the published layout.

    Args:
        folder: Holds NAME.pkl, or NAME.skops and NAME.json. Pickles are read as plain data; nothing in them is run.
        output: The judge's folder.
        rubrics: `own`, a probing set or JSON of readings; None is `own`, with a warning: the classifiers were fitted in
            other words.
        backbone: Hub id or folder; None is what the classifiers name.

    Raises:
        DataFileError: The files are no classifiers, or do not fit each other, the rubrics or the backbone.
        NotPortableError: A classifier is not linear.
        UnsafePickleError: A file holds something else than a classifier needs.
    """
    classifiers = load_classifiers(Path(folder), allow_pickle=True)
    if rubrics is None:
        logger.warning(
            "%s is read in this project's own rubrics, since none were named; its scores may differ from those in the "
            "rubrics that it was fitted in. Name the probing set that holds these as rubrics.",
            folder,
        )
    readings = read_readings(OWN if rubrics is None else os.fspath(rubrics))
    named = None if backbone is None else os.fspath(backbone)
    write_judge(judge_of_classifiers(classifiers, readings, backbone_id=named), Path(output))
