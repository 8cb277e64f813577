"""Gold solutions damaged in known ways: what each damage does, and the labels that follow from it."""
