"""Features of pairs: what is extracted, and how it lies on disk."""
