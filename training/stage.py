"""What every stage's command shares."""

import logging
import sys
from collections.abc import Callable

from inspector_pipeline.errors import InspectorError


def run(main: Callable[[], None]) -> None:
    """Run a stage's main; what a person can act on ends as one line and exit code 1, not as a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except (InspectorError, OSError) as error:
        logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
        sys.exit(1)
