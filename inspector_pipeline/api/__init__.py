"""From a judge's name to scores: loading, lists of samples, mean scores, and export to plain checkpoints."""
