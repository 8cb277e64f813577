"""What every stage's run shares: its command and its manifest."""
