"""Tables of what is measured with a judge: degenerate answers beside worked ones, and what choosing by it brings."""

from collections.abc import Mapping
from typing import Any

from .cards import cell, interval

WAYS = ("judge", "random", "shortest", "longest", "majority", "judge_weighted", "oracle")

Part = Mapping[str, Any]


def degenerate_table(part: Part) -> list[str]:
    """Write the part `degenerate` of results.json as lines of Markdown.

    Args:
        part: `forms`: form -> `upper`, `lower`, `n`, `above` and `rule`, each with its interval, `solved_by_rule` and
            `unfamiliar`, a share or None; `worked` may have the last alone.
    """
    lines = ["| above | below | questions | judge | rule | the lower one flagged |", "|---|---|---|---|---|---|"]
    for form, entry in part["forms"].items():
        if "above" in entry:
            rule = f"{_shown(entry['rule'])}{', solved' if entry['solved_by_rule'] else ''}"
            flagged = part["forms"].get(entry["lower"], {}).get("unfamiliar")
            names = f"| {cell(entry['upper'])} | {cell(entry['lower'])} | {entry['n']}"
            lines.append(f"{names} | {_shown(entry['above'])} | {rule} | {_percent(flagged)} |")
        else:
            lines.append(f"| | {cell(form)} | | | | {_percent(entry['unfamiliar'])} |")
    return lines


def use_table(part: Part) -> list[str]:
    """Write the part `use` of results.json as lines of Markdown, a row for each way of choosing.

    Args:
        part: `best_of`: n -> way -> share right; `top`: way -> the same, of a share of all; both with intervals, and
            gains over each way.
    """
    columns = {f"best of {n}": entry for n, entry in part["best_of"].items()}
    columns[f"best {part['top']['share']:.0%} of all"] = part["top"]
    found = dict.fromkeys(way for entry in columns.values() for way in entry if _is_way(entry, way))
    ways = [*(way for way in WAYS if way in found), *(way for way in found if way not in WAYS)]
    lines = [f"| chosen by | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for way in ways:
        lines.append(f"| {cell(way)} | {' | '.join(_shown(entry.get(way)) for entry in columns.values())} |")
    return lines


def _is_way(entry: Part, key: str) -> bool:
    return isinstance(entry[key], Mapping) and not key.startswith("gain_over_")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return "not defined" if None in (value["value"], value["low"], value["high"]) else interval(value)


def _percent(share: float | None) -> str:
    return "not said" if share is None else f"{share:.1%}"
