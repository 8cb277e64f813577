"""Run a chain of stages from one file.

    python -m training make_judge --steps training/configs/gsm8k.yaml --variables.data downloads --variables.work work

The file is a list of steps in YAML; a step is the name of a stage and that stage's settings, just as its own command
takes them. `${name}` stands for a variable of the command line. A step whose output is there already, made from the
same inputs and settings, is not run again; so a chain that was stopped goes on where it was.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from inspector_pipeline.errors import DataFileError

from ..evaluation.comparison_config import CompareConfig
from ..runs.command import from_settings, parse
from .ablation import AblationConfig, ablation
from .audit import AuditConfig, audit_stage
from .collect import CollectConfig, collect
from .combine import CombineConfig, combine
from .compare import compare
from .correctness import CorrectnessConfig, label_correctness
from .corrupt import CorruptConfig, corrupt
from .data import DataConfig, data
from .evaluate import EvaluateConfig, evaluate_stage
from .export import ExportConfig, export
from .extract import ExtractConfig, extract
from .feedback import FeedbackConfig, feedback
from .fit import FitConfig, fit_stage
from .label import LabelConfig, label
from .lager import LagerConfig, lager
from .lager_prompts import LagerPromptsConfig, lager_prompts
from .rubric_rows import RubricRowsConfig, rubric_rows

logger = logging.getLogger(__name__)

STAGES: Mapping[str, tuple[type[Any], Callable[[Any], object]]] = {
    "data": (DataConfig, data),
    "collect": (CollectConfig, collect),
    "label": (LabelConfig, label),
    "correctness": (CorrectnessConfig, label_correctness),
    "corrupt": (CorruptConfig, corrupt),
    "audit": (AuditConfig, audit_stage),
    "extract": (ExtractConfig, extract),
    "fit": (FitConfig, fit_stage),
    "evaluate": (EvaluateConfig, evaluate_stage),
    "export": (ExportConfig, export),
    "lager": (LagerConfig, lager),
    "lager_prompts": (LagerPromptsConfig, lager_prompts),
    "feedback": (FeedbackConfig, feedback),
    "rubric_rows": (RubricRowsConfig, rubric_rows),
    "compare": (CompareConfig, compare),
    "combine": (CombineConfig, combine),
    "ablation": (AblationConfig, ablation),
}


@dataclass(frozen=True)
class MakeJudgeConfig:
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
        STAGES[self.stage][1](self.config)


def read_steps(config: MakeJudgeConfig) -> list[Step]:
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
        steps.append(Step(stage, from_settings(STAGES[stage][0], settings, f"{config.steps}, step {number} ({stage})")))
    return steps


def make_judge(config: MakeJudgeConfig) -> None:
    """Run all steps.

    Raises:
        DataFileError: See `read_steps`; and whatever a stage raises.
    """
    steps = read_steps(config)
    for number, step in enumerate(steps, start=1):
        logger.info("[%d/%d] %s", number, len(steps), step.stage)
        step.run()


def main() -> None:
    """Parse arguments and run the chain."""
    make_judge(parse(MakeJudgeConfig, __doc__, "make_judge"))
