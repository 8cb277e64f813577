"""What people said with a labelling tool: Label Studio's tasks and tables, Argilla's records of both major versions.

Each label gets a column under its own name: one person's value alone, several people's as a list. What was cancelled,
discarded or is a draft is none.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

SUBMITTED = (None, "submitted")
SUFFIX = ".responses"  # of a question in Argilla's flat rows; who answered, and whether it was submitted, stands beside
BESIDE = (".users", ".status")
PREDICTIONS = "predictions"
KINDS = ("rating", "choices", "number", "selected")  # of the values in Label Studio's tables


def is_label_studio(row: Row) -> bool:
    """Whether a row is a task of Label Studio."""
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list)


def is_argilla(row: Row) -> bool:
    """Whether a row is a record of Argilla."""
    return isinstance(row.get("fields"), Mapping) and bool({"responses", "suggestions"} & row.keys())


def label_studio_row(row: Row) -> Row:
    """Lay a task of Label Studio flat."""
    given: dict[str, list[Any]] = {}
    for annotation in row.get("annotations") or ():
        for one in [] if annotation.get("was_cancelled") else annotation.get("result") or ():
            value = one.get("value")
            kind = {"textarea": "text", "pairwise": "selected"}.get(one.get("type"), one.get("type"))
            if isinstance(one.get("from_name"), str) and isinstance(value, Mapping) and value.get(kind) is not None:
                given.setdefault(one["from_name"], []).append(_alone_or_joined(value[kind]))
    return _beside_its_columns(row, "data", given, "annotations")


def argilla_row(row: Row) -> Row:
    """Lay a record of Argilla flat, whose answers stand by question (2.x) or by person (1.x)."""
    given: dict[str, list[Any]] = {}
    answers = row.get("responses") or {}
    if isinstance(answers, Mapping):
        for name, own in answers.items():
            given[name] = _submitted(own) if isinstance(own, list) else []
    else:
        for person in answers:
            for name, one in (person.get("values") or {}).items() if person.get("status") in SUBMITTED else ():
                given.setdefault(name, []).append(_alone_or_joined(one.get("value")))
    return _beside_its_columns(row, "fields", given, "responses")


def _submitted(answers: Iterable[Any]) -> list[Any]:
    """Return what people submitted, of answers with a value and a status each."""
    return _known(_alone_or_joined(one.get("value")) for one in answers if one.get("status") in SUBMITTED)


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _alone_or_joined(value: Any) -> Any:
    """Return one person's value: of a list, such as several choices or a ranking, its parts in one text."""
    if not isinstance(value, list):
        return value
    ranked = all(isinstance(one, Mapping) and {"rank", "value"} <= one.keys() for one in value)
    parts = [one["value"] for one in sorted(value, key=lambda one: one["rank"])] if ranked else value
    return parts[0] if len(parts) == 1 else ", ".join(map(str, parts)) if parts else None


def _beside_its_columns(row: Row, inner: str, given: Mapping[str, list[Any]], place: str) -> Row:
    """Put the columns that a labelling tool was given, and the labels, beside the row's own keys.

    What is called as one of the columns gets its place before its name, such as `task.id` and `annotations.rating`, and
    so do Label Studio's `predictions`, which are labels of a model and no responses.
    """
    found = dict(row[inner])
    outer = {key: value for key, value in row.items() if key != inner}
    labels = {name: _alone(values) for name, own in given.items() if (values := _known(own))}
    for names, own in ((place, labels), ("task" if inner == "data" else "record", outer)):
        for key, value in own.items():
            found[f"{names}.{key}" if key in found or key == PREDICTIONS else key] = value
    return found


def _alone(values: Sequence[Any]) -> Any:
    """Return the one person's value; several people's stay a list."""
    return values[0] if len(values) == 1 else list(values)


def with_plain_labels(rows: list[Row]) -> list[Row]:
    """Give a labelling tool's rows the columns that it was given, and labels columns of their own names.

    Args:
        rows: Tasks and records, which hold them within; or of Argilla's flat export (`rating.responses`, with `.users`
            and `.status` beside), of its data sets on the Hub (cells with a value, a user and a status for each person)
            and of Label Studio's JSON-MIN and CSV (`[{"rating": 4}]`). Others are returned as they are.

    Example:
        >>> with_plain_labels([{"rating": [{"rating": 4}]}, {"rating": '[{"rating": 2}]'}])
        [{'rating': 4}, {'rating': 2}]
    """
    rows = _laid_flat(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    flat = [
        name
        for name in names
        if name.endswith(SUFFIX)
        and any(f"{name}{one}" in names for one in BESIDE)
        and name.removesuffix(SUFFIX) not in names
    ]
    cells = {name: [row.get(name) for row in rows if row.get(name) not in (None, "")] for name in names}
    opened = [name for name, own in cells.items() if own and all(_people(cell) is not None for cell in own)]
    return [_plain(row, flat, opened) for row in rows] if flat or opened else rows


def _laid_flat(rows: list[Row]) -> list[Row]:
    for is_one, flat in ((is_label_studio, label_studio_row), (is_argilla, argilla_row)):
        if 2 * sum(map(is_one, rows)) > len(rows):
            return [_flat_or_as_it_is(flat, row) for row in rows]
    return rows


def _flat_or_as_it_is(flat: Callable[[Row], Row], row: Row) -> Row:
    try:
        return flat(row)
    except (AttributeError, KeyError, TypeError):  # which is told once its columns are missed
        return row


def _plain(row: Row, flat: Sequence[str], opened: Sequence[str]) -> Row:
    gone = {f"{name}{one}" for name in flat for one in ("", *BESIDE)}
    found = {key: value for key, value in row.items() if key not in gone}
    for name in flat:
        values, states = (row.get(key) or [] for key in (name, f"{name}.status"))
        states = states if len(states) == len(values) else [None] * len(values)
        given = [{"value": value, "status": state} for value, state in zip(values, states, strict=True)]
        found[name.removesuffix(SUFFIX)] = _alone(_submitted(given)) or None
    for name in opened:
        people = _people(row.get(name))
        found[name] = _alone(people) if people else None
    return found


def _people(cell: Any) -> list[Any] | None:
    """Return what people said in a cell of a labelling tool's table; None where it is no such cell."""
    if isinstance(cell, str) and cell.lstrip().startswith("[{"):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    if isinstance(cell, Mapping) and {"value", "user_id"} <= cell.keys():  # a list of objects, as an object of lists
        columns = {key: own for key, own in cell.items() if isinstance(own, list)}
        cell = [dict(zip(columns, own, strict=False)) for own in zip(*columns.values(), strict=False)]
    if not isinstance(cell, list) or not cell or not all(isinstance(one, Mapping) for one in cell):
        return None
    if all("value" in one and {"user_id", "status"} & one.keys() for one in cell):
        return _submitted(cell)
    if all(len(one) == 1 and next(iter(one)) in KINDS for one in cell):
        return _known(_alone_or_joined(next(iter(one.values()))) for one in cell)
    return None
