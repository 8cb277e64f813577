"""What every stage's command shares: its arguments, and how it ends."""

import ast
import logging
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from inspector_pipeline.errors import DataFileError, InspectorError

Config = TypeVar("Config")

STAGES = (  # in the order of the work
    "make_judge",
    "data",
    "collect",
    "label",
    "correctness",
    "corrupt",
    "audit",
    "extract",
    "fit",
    "evaluate",
    "export",
    "lager",
    "lager_prompts",
    "feedback",
    "rubric_rows",
    "compare",
    "combine",
    "ablation",
    "benchmark",
    "job_cost",
    "convert",
    "reference",
    "import_reference",
    "port_table",
    "plots",
    "publish_family",
)


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help that keeps the lines of a stage's docstring, so that its commands can be copied."""


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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage that the command line names; list all where it names none.

    Args:
        argv: The stage and its arguments; None takes the process's own.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name not in STAGES:
        _list_stages(asked=name)
        return
    stage = import_stage(name)
    run(lambda: stage.run(parse(stage.Config, stage.__doc__, name, list(rest))))


def import_stage(name: str) -> Any:
    """Import a stage's module: its `Config`, a frozen dataclass, and its `run`."""
    return import_module(f"..stages.{name}", __package__)


def _list_stages(asked: str) -> None:
    """Print the first line of every stage's docstring, without importing it; a name that is no stage ends with 2."""
    out = sys.stdout if asked in ("-h", "--help") else sys.stderr
    if out is sys.stderr:
        out.write(f"python -m training expects a stage, but got {asked!r}.\n")
    out.write("usage: python -m training STAGE [--config FILE] [settings]; python -m training STAGE --help\n\n")
    for name in STAGES:
        source = (Path(__file__).parents[1] / "stages" / f"{name}.py").read_text(encoding="utf-8")
        out.write(f"  {name:<18}{(ast.get_docstring(ast.parse(source)) or '').partition(chr(10))[0]}\n")
    if out is sys.stderr:
        sys.exit(2)


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
    parser = _parser(config, prog=f"python -m training {name}", description=description)
    parser.add_argument("--config", action="config", help="YAML or JSON file with any of these settings")
    return _instantiate(parser, config, parser.parse_args(args))


def from_settings(config: type[Config], settings: dict[str, Any], where: str) -> Config:
    """Make a stage's config from plain data, with the checks of its command line.

    Args:
        config: The config's frozen dataclass.
        settings: Its settings.
        where: What to name in an error.

    Raises:
        DataFileError: A setting is unknown, missing or of another type.
    """
    parser = _parser(config, exit_on_error=False)
    try:
        return _instantiate(parser, config, parser.parse_object(settings))
    except ArgumentError as error:
        raise DataFileError(f"{where} expects the settings of that stage, but: {error}") from error


def _parser(config: type[Config], **options: Any) -> ArgumentParser:
    parser = ArgumentParser(formatter_class=HelpFormatter, **options)
    parser.add_class_arguments(config, as_group=False)
    return parser


def _instantiate(parser: ArgumentParser, config: type[Config], found: Any) -> Config:
    values = vars(parser.instantiate(found))
    return config(**{key: value for key, value in values.items() if key != "config"})
