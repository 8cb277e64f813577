"""Does filtering help a student? Choice of rows, fine-tuning, report."""
