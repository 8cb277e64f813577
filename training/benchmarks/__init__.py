"""The cases of `training.benchmark`: what is measured, each in a process of its own."""
