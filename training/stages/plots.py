"""Draw the plots of a judge's evidence for its card, from its results.json alone.

python -m training plots --results work/results.json --output work/plots
"""

import logging

from ..judges.plots import PlotsConfig as Config
from ..judges.plots import plots

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Draw all plots that a results.json has data for."""
    for path in plots(config):
        logger.info("Drew %s.", path)
