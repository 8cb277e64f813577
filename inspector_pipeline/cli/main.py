"""The `inspector` command: `inspector score INPUT`, `inspector filter SCORED` and further ones.

Each command is a function that adds its arguments to a parser and sets the default `command`, which is called with what
was parsed and returns the exit code; the first line of its docstring is its help. Other packages add commands by the
entry-point group `inspector.commands`. What takes long to import (torch, transformers) is imported once a command runs.

Exit codes: 0 done, 1 the input, the judge or a file is not as expected (said in one line), 2 wrong arguments,
3 done, but some rows could not be scored and stand among the rejects, 130 interrupted.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version

from .printable import PrintableParser, log_to_terminal, say

PACKAGE = "inspector-pipeline"
GROUP = "inspector.commands"
OWN_COMMANDS = {
    "score": "inspector_cli.score:score",
    "filter": "inspector_cli.filter:filter_scored",
    "peek": "inspector_cli.peek:peek",
    "info": "inspector_cli.info:info",
    "export": "inspector_cli.export:export",
    "serve": "inspector_cli.serve:serve",
}
EXTRAS = {"score": "[jobs]", "filter": "", "peek": "", "info": "", "export": "", "serve": "[serve]"}
EXTRA_OF_OTHERS = "[training]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        The exit code.
    """
    args = make_parser().parse_args(argv)
    log_to_terminal(logging.WARNING)
    try:
        return args.command(args) or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone, as `head` does
        return 0
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(args.subcommand, EXTRA_OF_OTHERS)
        say(f"inspector {args.subcommand} expects {error.name}. Run pip install '{PACKAGE}{extra}'")
        return 1
    except _expected_errors() as error:
        say(error)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands, of this package and of others."""
    parser = PrintableParser(prog="inspector", description="Score (question, response) pairs with a judge.")
    parser.add_argument("--version", action="version", version=f"{PACKAGE} {version(PACKAGE)}")
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    own = [EntryPoint(name, value, GROUP) for name, value in OWN_COMMANDS.items()]
    for entry in {entry.name: entry for entry in [*own, *entry_points(group=GROUP)]}.values():
        add_arguments = entry.load()
        line = (add_arguments.__doc__ or "").strip().partition("\n")[0]
        add_arguments(commands.add_parser(entry.name, help=line.replace("%", "%%"), description=line))
    return parser


def _expected_errors() -> tuple[type[Exception], ...]:
    """Return what is said in one line: our own errors too, once the package that has them was imported."""
    errors = sys.modules.get("inspector_pipeline.errors")
    known = (OSError, ValueError, ImportError)  # the last of a package that a judge's config asks for
    return (*known, errors.InspectorError) if errors else known


if __name__ == "__main__":
    sys.exit(main())
