"""What a judge is worth: cross-validation, metrics, cost and tables."""
