"""`python -m training STAGE`: finds the stage, reads its config, runs it, and ends an expected error in one line."""

import ast
import logging
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from inspector_cli.printable import log_to_terminal, printable
from jsonargparse import ArgumentError, ArgumentParser

from inspector_pipeline.allocation import keep_freed_memory
from inspector_pipeline.errors import DataFileError, InspectorError

from .arguments import show_help, translated
from .plain import check_plain

Config = TypeVar("Config")

FOLDER = Path(__file__).parents[1]  # `training` in a clone, `inspector_training` where it is installed
STAGES = (  # in the order of the work
    "make_judge",
    "data",
    "collect",
    "label",
    "correctness",
    "known_questions",
    "contrast",
    "restate",
    "corrupt",
    "degenerate",
    "audit",
    "extract",
    "fit",
    "evaluate",
    "own_data_curves",
    "export",
    "score",
    "lager",
    "lager_prompts",
    "lager_table",
    "feedback",
    "rubric_rows",
    "compare",
    "combine",
    "use",
    "explain_check",
    "rank_responses",
    "rank_report",
    "trust_report",
    "rate_texts",
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


def run(main: Callable[[], object]) -> None:
    """Run a stage's main; what a person can act on ends as one line and exit code 1, not as a traceback."""
    log_to_terminal(logging.INFO)
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
    asked, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    name = asked.replace("-", "_")
    if asked in ("-h", "--help"):
        sys.stdout.write(f"usage: python -m {FOLDER.name} STAGE [settings]; STAGE --help tells which\n\n")
        sys.stdout.writelines(f"  {stage:<18}{told}\n" for stage, told in stage_lines())
    elif name not in STAGES:
        sys.exit(_refusal(f"python -m {FOLDER.name}", f"expects a stage of {', '.join(STAGES)}, but got {asked!r}"))
    else:
        stage = import_stage(name)
        keep_freed_memory()
        run(lambda: stage.run(parse(stage.Config, stage.__doc__, name, rest)))


def import_stage(name: str) -> Any:
    """Import a stage's module: its `Config`, a frozen dataclass, and its `run`."""
    return import_module(f"..stages.{name}", __package__)


def stage_lines() -> list[tuple[str, str]]:
    """Return each stage with the first line of its docstring, without importing it."""
    sources = {name: (FOLDER / "stages" / f"{name}.py").read_text(encoding="utf-8") for name in STAGES}
    return [(name, (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]) for name, text in sources.items()]


def parse(config: type[Config], description: str | None, name: str, args: Sequence[str] | None = None) -> Config:
    """Read a stage's config from the command line, from a YAML or JSON file (`--config`), or both.

    Args:
        config: The config's frozen dataclass; its docstring's attributes become the help.
        description: The stage's docstring.
        name: The stage's name.
        args: The command line; None for the process's own.

    Returns:
        The config. Wrong arguments end the process in one line, with exit code 2.
    """
    words, prog = list(sys.argv[1:] if args is None else args), f"python -m {FOLDER.name} {name}"
    if {"-h", "--help"} & set(words):
        show_help(config, prog, description)
        sys.exit(0)
    parser = _parser(config, print_config="--print-config")
    parser.add_argument("--config", action="config")
    try:
        for path in _config_files(words):
            _check_file(config, path)
        return _instantiate(parser, config, parser.parse_args(translated(config, words)))
    except (ArgumentError, DataFileError) as error:
        told = re.sub(r'Parser key "(.*?)"', lambda found: f"--{found[1].replace('_', '-')}", str(error))
        sys.exit(_refusal(prog, " ".join(told.split())))


def from_settings(config: type[Config], settings: dict[str, Any], where: str) -> Config:
    """Make a stage's config from plain data, with the checks of its command line.

    Args:
        config: The config's frozen dataclass.
        settings: Its settings.
        where: What to name in an error.

    Raises:
        DataFileError: A setting is unknown, missing or of another type.
    """
    check_plain(config, settings, where)
    parser = _parser(config)
    try:
        return _instantiate(parser, config, parser.parse_object(settings))
    except ArgumentError as error:
        raise DataFileError(f"{where} expects the settings of that stage, but: {error}") from error


def _config_files(words: Sequence[str]) -> list[str]:
    following = [word for option, word in pairwise(words) if option == "--config"]
    return [*following, *(word.partition("=")[2] for word in words if word.startswith("--config="))]


def _check_file(config: type[Any], path: str) -> None:
    """Refuse a file of settings that holds more than plain data; what is wrong with its form is told later.

    Raises:
        DataFileError: It names a class or another file, or holds too much.
    """
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return
    except RecursionError as error:
        raise DataFileError(f"{path} expects settings, but nests too deep.") from error
    check_plain(config, settings, path)
    if isinstance(settings, dict) and "config" in settings:
        raise DataFileError(f"{path} expects settings and no further file of settings, but names one as 'config'.")


def _parser(config: type[Any], **options: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, **options)
    parser.add_class_arguments(config, as_group=False)
    return parser


def _instantiate(parser: ArgumentParser, config: type[Config], found: Any) -> Config:
    values = vars(parser.instantiate(found))
    return config(**{key: value for key, value in values.items() if key != "config"})


def _refusal(prog: str, message: str) -> int:
    sys.stderr.write(printable(f"{prog}: {message}. See {prog} --help.\n", lines=True))
    return 2
