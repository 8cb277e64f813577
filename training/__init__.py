"""What makes a judge: data -> extract -> fit and evaluate -> export, each a step: `python -m training X`."""
