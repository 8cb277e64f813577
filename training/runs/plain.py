"""Settings of a file are plain data: bounded, and naming no class, which jsonargparse would import.

A file of settings or steps may come from anywhere. jsonargparse takes `class_path`, and a text where settings of a
dataclass are expected, for the name of a class: it imports the module before it refuses the class. And a few lines of
YAML, whose aliases stand for each other, may stand for more values than any memory holds.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from inspector_pipeline.errors import DataFileError

from .arguments import types_of

MAX_VALUES = 100_000
MAX_DEPTH = 50
CLASS = "class_path"


def check_plain(config: type, settings: Any, where: str) -> None:
    """Refuse settings that are no plain data of a config.

    Args:
        config: The config's dataclass.
        settings: What a file holds.
        where: What to name in an error.

    Raises:
        DataFileError: They name a class, or are too many.
    """
    left = [(settings, (config,), 0)]
    seen = 0
    while left:
        value, kinds, depth = left.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise DataFileError(
                f"{where} expects at most {MAX_VALUES:,} values, at most {MAX_DEPTH} deep in each other, but has more."
            )
        names_class = isinstance(value, str) and any(map(is_dataclass, kinds)) and str not in kinds
        if names_class or (isinstance(value, dict) and CLASS in value):
            told = f"got {value!r:.60}" if isinstance(value, str) else f"names a {CLASS}"
            raise DataFileError(f"{where} expects settings by name and no class or file in their place, but {told}.")
        left += [(inner, types, depth + 1) for inner, types in _inside(value, kinds)]


def _inside(value: Any, kinds: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield what a mapping or a list holds, each with the types that it may have."""
    if isinstance(value, dict):
        named = {name: kind for one in kinds if is_dataclass(one) for name, kind in get_type_hints(one).items()}
        mapped = next((get_args(one)[1] for one in kinds if get_origin(one) is dict), None)
        yield from ((inner, types_of(named.get(key, mapped))) for key, inner in value.items())
    elif isinstance(value, list):
        items = next((get_args(one)[0] for one in kinds if get_origin(one) in (tuple, list)), None)
        yield from ((inner, types_of(items)) for inner in value)
