"""Ways of judging that are compared in the same folds."""
