"""Steps: stages one after another, each with its settings, as a file of steps or a program names them."""

import logging
import reprlib
from collections.abc import Mapping
from string import Template
from typing import Any

import yaml

from inspector_pipeline.errors import DataFileError

from .command import STAGES, from_settings, import_stage

logger = logging.getLogger(__name__)

CHOICES = tuple(stage for stage in STAGES if stage != "make_judge")


def read_steps(path: str, variables: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Read a file of steps.

    Args:
        path: YAML file with a list of steps, each a mapping of `stage` and that stage's settings.
        variables: What `${name}` in the file stands for; None is written as null.

    Raises:
        DataFileError: The file is no list of steps, a stage is unknown, or a variable has no value.
    """
    written = {name: "null" if value is None else value for name, value in variables.items()}
    try:
        with open(path, encoding="utf-8") as file:
            steps = yaml.safe_load(Template(file.read()).substitute(written))
    except OSError as error:
        raise DataFileError(f"Expected steps at {path}, but it could not be read: {error}.") from error
    except KeyError as error:
        raise DataFileError(
            f"{path} expects a value of the variable {error}. Give it: --variables.{error.args[0]} ..."
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataFileError(f"{path} expects YAML with ${{name}} for variables, but: {error}.") from error
    if not isinstance(steps, list) or not all(isinstance(one, dict) and one.get("stage") in CHOICES for one in steps):
        raise DataFileError(
            f"{path} expects a list of steps, each with a stage of {', '.join(CHOICES)}, but got "
            f"{reprlib.repr(steps):.200}."
        )
    return steps


def checked_configs(steps: list[dict[str, Any]], where: str) -> list[tuple[str, Any]]:
    """Make the config of each step, so that a wrong setting is told before any stage runs.

    Args:
        steps: Mappings of `stage` and that stage's settings.
        where: What to name in an error.

    Returns:
        The stage's name and its config, for each step.

    Raises:
        DataFileError: A setting is unknown, missing or of another type.
    """
    found = []
    for number, step in enumerate(steps, start=1):
        stage, settings = step["stage"], {key: value for key, value in step.items() if key != "stage"}
        config = from_settings(import_stage(stage).Config, settings, f"{where}, step {number} ({stage})")
        found.append((stage, config))
    return found


def run_steps(steps: list[dict[str, Any]], where: str) -> None:
    """Check all steps, then run them; one whose output is there already, made from the same, says so and is over.

    Args:
        steps: Mappings of `stage` and that stage's settings.
        where: What to name in an error.

    Raises:
        DataFileError: See `checked_configs`; and whatever a stage raises.
    """
    for number, (stage, config) in enumerate(checked_configs(steps, where), start=1):
        logger.info("[%d/%d] %s", number, len(steps), stage)
        import_stage(stage).run(config)
