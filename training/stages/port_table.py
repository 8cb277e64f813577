"""Compare ported probes with scikit-learn, classifier by classifier.

    python -m training port_table --folders gsm8k_binary_clfs gsm8k_multi_clfs math_binary_clfs --allow-pickle

How the rows are chosen stands in training/judges/port_check.py.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from ..judges.classifiers import load_classifiers
from ..judges.port_check import compare

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Settings of the port_table stage.

    Attributes:
        folders: Folders of classifiers.
        allow_pickle: Whether pickles are read too; nothing in them is run, only their numbers are read.
    """

    folders: tuple[str, ...]
    allow_pickle: bool = False


def run(config: Config) -> None:
    """Print the table.

    Raises:
        DataFileError: A folder holds no classifiers, or rows of some class cannot be found.
        UnsafePickleError: A pickle is not allowed, or a file holds something else than a classifier needs.
    """
    columns = ("rows", "rarest", "mismatches", "unclear", "decision error", "probability error")
    logger.info(_line("classifier", "rule", *columns))
    for folder in map(Path, config.folders):
        for name, classifier in load_classifiers(folder, allow_pickle=config.allow_pickle).items():
            found = compare(classifier.estimator)
            error = "none" if found.probability_error is None else f"{found.probability_error:.1e}"
            share, counts = f"{found.smallest_share:.1%}", (found.mismatches, found.unclear)
            values = (found.rows, share, *counts, f"{found.decision_error:.1e}", error)
            logger.info(_line(f"{folder.name}/{name}", found.rule, *values))


def _line(name: str, rule: str, *values: object) -> str:
    return f"{name:<40}{rule:<12}" + "".join(f"{value:>18}" for value in values)
