"""Rows: where they come from, what they hold, and the published formats."""
