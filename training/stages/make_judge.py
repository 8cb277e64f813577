"""Run a list of stages from one file of steps.

    python -m training make_judge --steps training/configs/gsm8k.yaml --variables.data downloads --variables.work work

The file is a list of steps in YAML; a step is the name of a stage and that stage's settings, just as its own command
takes them. `${name}` stands for a variable of the command line. A step whose output is there already, made from the
same inputs and settings, is not run again; so a chain that was stopped goes on where it was.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from inspector_pipeline.errors import DataFileError

from ..runs.command import STAGES, from_settings, import_stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Settings of the chain.

    Attributes:
        steps: YAML file with a list of steps, each a mapping of `stage` and that stage's settings.
        variables: What `${name}` in the file stands for.
    """

    steps: str
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step: a stage's name, its config and what runs it."""

    stage: str
    config: Any

    def run(self) -> None:
        """Run it."""
        import_stage(self.stage).run(self.config)


def read_steps(config: Config) -> list[Step]:
    """Read and check all steps before any is run.

    Raises:
        DataFileError: The file is no list of steps, a stage or setting is unknown, or a variable has no value.
    """
    try:
        text = Template(Path(config.steps).read_text(encoding="utf-8")).substitute(config.variables)
        found = yaml.safe_load(text)
    except OSError as error:
        raise DataFileError(f"Expected steps at {config.steps}, but it could not be read: {error}.") from error
    except KeyError as error:
        raise DataFileError(
            f"{config.steps} expects a value of the variable {error}. Give it: --variables.{error.args[0]}=..."
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise DataFileError(f"{config.steps} expects YAML with ${{name}} for variables, but: {error}.") from error
    if not isinstance(found, list) or not all(
        isinstance(step, dict) and str(step.get("stage")) in STAGES for step in found
    ):
        raise DataFileError(
            f"{config.steps} expects a list of steps, each with a stage of {', '.join(STAGES)}, but got {found!r:.200}."
        )
    steps = []
    for number, settings in enumerate(found, start=1):
        stage = settings.pop("stage")
        steps.append(
            Step(stage, from_settings(import_stage(stage).Config, settings, f"{config.steps}, step {number} ({stage})"))
        )
    return steps


def run(config: Config) -> None:
    """Run all steps.

    Raises:
        DataFileError: See `read_steps`; and whatever a stage raises.
    """
    steps = read_steps(config)
    for number, step in enumerate(steps, start=1):
        logger.info("[%d/%d] %s", number, len(steps), step.stage)
        step.run()
