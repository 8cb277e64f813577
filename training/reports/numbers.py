"""How pages write numbers."""

from collections.abc import Mapping


def figure(value: float | None) -> str:
    """Write a number as the page shows it."""
    return "–" if value is None or value != value else f"{value:.3f}"


def interval(found: Mapping[str, float | None] | None, sign: str = "") -> str:
    """Write a value with its interval."""
    if not found or found.get("value") is None:
        return "–"
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    told = "" if low is None or low != low else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{value:{sign}.3f}{told}"
