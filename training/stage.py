"""What every stage's command shares: its arguments, and how it ends."""

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

from inspector_pipeline.errors import InspectorError

Config = TypeVar("Config")


def run(main: Callable[[], None]) -> None:
    """Run a stage's main; what a person can act on ends as one line and exit code 1, not as a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for client in ("httpx", "httpx2"):  # the openai client's; they tell of every request
        logging.getLogger(client).setLevel(logging.WARNING)
    try:
        main()
    except (InspectorError, OSError) as error:
        logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
        sys.exit(1)


def parse(config: type[Config], description: str | None, name: str, args: list[str] | None = None) -> Config:
    """Read a stage's config from the command line, from a YAML or JSON file (`--config`), or both.

    Args:
        config: The config's frozen dataclass; its docstring's attributes become the help.
        description: The stage's docstring.
        name: The stage's name.
        args: The command line; None for the process's own.

    Returns:
        The config.
    """
    parser = ArgumentParser(prog=f"python -m training.{name}", description=description)
    parser.add_argument("--config", action="config", help="YAML or JSON file with any of these settings")
    parser.add_class_arguments(config, as_group=False)
    found: Any = parser.instantiate(parser.parse_args(args))
    return config(**{key: value for key, value in vars(found).items() if key != "config"})
