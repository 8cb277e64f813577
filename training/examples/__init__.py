"""Examples of what judges are used for; each runs by itself."""
