"""Run one stage: `python -m training STAGE`."""

from inspector_training.runs.command import main

main()
