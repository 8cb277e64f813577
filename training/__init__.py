"""What makes a judge: data -> extract -> fit and evaluate -> export, each a step of its own (`python -m training.X`)."""
