"""Pages that show a judge at work: what it said of rows, and what it is worth."""
