"""The cases of `inspector_training.stages.benchmark`: what is measured, each in a process of its own."""
