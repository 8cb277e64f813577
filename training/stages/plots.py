"""Draw the plots of a judge's evidence for its card, from its results.json alone.

python -m training plots --results work/results.json --output work/plots
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.files.tables import read_json

from ..judges.plots import draw

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Settings of the plots.

    Attributes:
        results: The results.json of the evaluate stage, or of a judge.
        output: Folder for the PNG files.
    """

    results: str
    output: str


def run(config: Config) -> None:
    """Draw all plots that a results.json has data for.

    Raises:
        DataFileError: The results cannot be read, or are not those of the evaluate stage.
    """
    for path in draw(read_json(config.results), Path(config.output), config.results):
        logger.info("Drew %s.", path)
