"""A gallery of judges: a row each, with what it judges, how well, and what it cannot see, from its own folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector_cli.printable import printable

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json

from .numbers import interval

HEADS = (
    "judge",
    "reads with",
    "what it judges: AUROC (95 %), beside length and surface alone",
    "the right one of a right and a wrong answer (chance .5)",
    "the token that lowers most lies in the wrong step (chance; always naming the usual step)",
    "what it cannot see",
)
NONE = "–"


def gallery(folders: Mapping[str, Path]) -> list[list[str]]:
    """Lay out judges.

    Args:
        folders: Name -> folder with config.json and, where it was evaluated, results.json.

    Raises:
        DataFileError: A results.json is none of the evaluate stage.

    Returns:
        A row for each, under `HEADS`; a part that was not measured is a dash.
    """
    return [[printable(name), *map(printable, _row(folder))] for name, folder in folders.items()]


def _row(folder: Path) -> list[str]:
    config = InspectorConfig.from_pretrained(folder)
    place = folder / "results.json"
    results = read_json(place) if place.is_file() else {}
    backbone = f"{config.backbone_id or 'an unnamed backbone'}, {config.depth} layers"
    try:
        aspects = [_aspect(one.name, results.get("aspects", {}).get(one.name)) for one in config.parsed_aspects]
        return [backbone, "; ".join(aspects), _matched(results), _highlights(results), _notes(results)]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataFileError(
            f"{place} expects results of the evaluate stage, but got something else ({error!r})."
        ) from error


def _aspect(name: str, found: Mapping[str, Any] | None) -> str:
    if found and "preference" in found:
        own = found["preference"]
        length = interval(own["length"]["agreement"])
        return f"{name} (preferences) agrees in {interval(own['agreement'])}, length in {length}"
    if not found or "auroc" not in found:
        return f"{name} not evaluated"
    surface = f"beside {found['surface']['auroc']['value']:.3f}" if "surface" in found else "no baseline"
    return f"{name} {interval(found['auroc'])} {surface}"


def _matched(results: Mapping[str, Any]) -> str:
    found = {name: one["same_question"] for name, one in results.get("matched", {}).items()}
    return "; ".join(f"{name} {interval(one)}" for name, one in found.items()) or NONE


def _highlights(results: Mapping[str, Any]) -> str:
    sets = results.get("highlights", {}).get("sets", {})
    return "; ".join(_pointed(name, one) for name, one in sets.items()) or NONE


def _pointed(name: str, found: Mapping[str, Any]) -> str:
    first = found["figures"]["first"]
    place = f"; {found['usual_place']['share']:.3f}" if "usual_place" in found else ""
    return f"{name} {interval(first['share'])} ({first['chance']:.3f}{place})"


def _notes(results: Mapping[str, Any]) -> str:
    return " ".join(re.sub(r"[*`]", "", str(note)) for note in results.get("notes") or []) or "not said"
