"""Run a list of stages from one file of steps.

    python -m training make_judge --steps training/configs/embedded.yaml --variables.work work --variables.data DATA

The file is a list of steps in YAML; a step is the name of a stage and that stage's settings, just as its own command
takes them, but with underscores in their names. `${name}` stands for a variable of the command line. A step whose
output is there already, made from the same inputs and settings, is not run again; so a run that was stopped goes on
where it was.
"""

from dataclasses import dataclass, field

from ..runs.steps import read_steps, run_steps


@dataclass(frozen=True)
class Config:
    """Settings of the list of stages.

    Attributes:
        steps: YAML file with a list of steps, each a mapping of `stage` and that stage's settings.
        variables: What `${name}` in the file stands for; null is YAML's.
    """

    steps: str
    variables: dict[str, str | None] = field(default_factory=dict)


def run(config: Config) -> None:
    """Run all steps.

    Raises:
        DataFileError: The file is no list of steps, or a stage, a setting or a variable is not as expected; and
            whatever a stage raises.
    """
    run_steps(read_steps(config.steps, config.variables), config.steps)
