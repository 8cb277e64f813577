"""Run the whole chain from one config file: data, labels, audit, extract, fit, evaluate, export.

    python -m training.make_judge --config training/configs/gsm8k.yaml

Each section of the file is a stage's settings; a section that is missing is a stage that does not run, and `work` is
the folder where the stages' outputs go and find each other. A stage whose output is there already, made from the same
inputs and settings, is not run again; so a chain that was stopped goes on where it was.
"""
