"""Every exception of the project, in one place, and the check of a JSON object that raises them.

    InspectorError
    ├── JudgeConfigError (ValueError)     a judge's config has a wrong, missing or unknown field
    ├── PairError (ValueError)            a pair to score is not what a judge accepts
    ├── ReadingError (ValueError)         a reading cannot be made or does not fit the tokenizer
    ├── BackboneError (RuntimeError)      a backbone cannot be loaded, truncated or shared
    ├── DataFileError (ValueError)        a file to read or write is not as expected
    ├── SettingsError (ValueError)        settings of a stage contradict each other
    └── EndpointError (RuntimeError)      a model's endpoint cannot be used any further

Each is also the builtin that a caller would expect, so `except ValueError` works.
"""

from collections.abc import Mapping
from typing import Any


class InspectorError(Exception):
    """Base class of everything this project raises on purpose."""


class JudgeConfigError(InspectorError, ValueError):
    """A judge's config has a wrong, missing or unknown field; the message names it."""


class PairError(InspectorError, ValueError):
    """A (question, prediction) pair is not what a judge accepts."""


class ReadingError(InspectorError, ValueError):
    """A reading cannot be made, or leaves no room for the pair."""


class BackboneError(InspectorError, RuntimeError):
    """A backbone cannot be fetched, verified, loaded, truncated or shared."""


class DataFileError(InspectorError, ValueError):
    """A file of pairs or labels cannot be read or written."""


class SettingsError(InspectorError, ValueError):
    """Settings of a stage are out of range or contradict each other; the message names them."""


class EndpointError(InspectorError, RuntimeError):
    """A model's endpoint refuses, cannot be reached, or would cost more than allowed; what was answered is kept."""


def take_fields(
    data: Any,
    where: str,
    types: Mapping[str, Any],
    *,
    optional: tuple[str, ...] = (),
    error: type[InspectorError] = ReadingError,
) -> dict[str, Any]:
    """Check a JSON object's fields by name and type, and return them.

    Args:
        data: What should be such an object.
        where: Its place, for the error message.
        types: Each field's type.
        optional: Fields that may be absent.
        error: What to raise.

    Raises:
        InspectorError: Of the class `error`: it is no object, or a field is unknown, missing or of another type; the
            message names it.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where} expects a JSON object, but got {data!r}.")
    for name, value in data.items():
        if name not in types:
            raise error(f"{where} has no field named {name!r}; it has {', '.join(types)}.")
        kind = types[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise error(f"{where}.{name} expects {getattr(kind, '__name__', kind)}, but got {value!r}.")
    missing = [name for name in types if name not in data and name not in optional]
    if missing:
        raise error(f"{where} needs the field(s) {', '.join(missing)}, which are missing.")
    return dict(data)
