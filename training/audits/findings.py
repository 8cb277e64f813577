"""All faults among the pairs of an audit, by kind, and the rows to drop for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from .duplicates import Duplicate, find_duplicates, find_foreign
from .items import Item, Place
from .pairing import find_shifted

DROPPED_KINDS = ("foreign", "exact_duplicates", "near_duplicates", "shifted", "repeated_questions")


def find_faults(
    items: Sequence[Item], held_out: Sequence[str], dataset: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """Look for every kind of fault; duplicates in the order of precedence, pairing in the order of the files.

    Args:
        items: All pairs, in the files' order.
        held_out: Splits that others must not repeat.
        dataset: The questions of the dataset that the pairs are said to come from; None judges no pair foreign.

    Returns:
        Kind -> count of rows, items, and one entry a row of the files: where it stands, why, and the evidence.
    """
    order = sorted(range(len(items)), key=lambda i: items[i].split not in held_out)
    found = find_duplicates([items[i] for i in order])
    exact, near, repeated = (
        [replace(one, item=order[one.item], other=order[one.other]) for one in kind]
        for kind in (found.exact, found.near, found.repeated_questions)
    )
    groups = np.empty_like(found.groups)
    groups[order] = found.groups
    pairing = find_shifted(items, groups)
    foreign = None
    if dataset is not None:
        foreign = [
            (i, {"why": "its question is not in the dataset", "nearest": nearest, "likeness": likeness})
            for i, (nearest, likeness) in find_foreign(items, dataset, near).items()
        ]
    kinds = {
        "foreign": foreign,
        "exact_duplicates": [_duplicate(items, one) for one in exact],
        "near_duplicates": [_duplicate(items, one) for one in near],
        "shifted": [
            (one.item, {"why": one.why, "other": _where(items[one.other]), "own_fit": one.own, "best_fit": one.best})
            for one in pairing.shifted
        ],
        "repeated_questions": [_duplicate(items, one) for one in repeated],
        "undecidable_pairing": [
            (i, {"why": "the response shares too little with any question"}) for i in pairing.undecidable
        ],
    }
    return {kind: _finding(items, entries) for kind, entries in kinds.items()}


def _finding(items: Sequence[Item], entries: Iterable[tuple[int, dict[str, Any]]] | None) -> dict[str, Any]:
    if entries is None:
        return {"count": None, "items": None, "why": "the dataset's questions were not given", "rows": []}
    found = sorted(entries, key=lambda entry: entry[0])
    rows = [
        {**asdict(place), "id": items[i].id, "sample": items[i].sample, "generator": items[i].generator, **evidence}
        for i, evidence in found
        for place in items[i].places
    ]
    return {"count": len(rows), "items": len(found), "rows": rows}


def _duplicate(items: Sequence[Item], one: Duplicate) -> tuple[int, dict[str, Any]]:
    this, other = items[one.item], items[one.other]
    shared = this.scores.keys() & other.scores.keys()
    return one.item, {
        "why": one.why,
        "other": _where(other),
        "question_likeness": one.question,
        "response_likeness": one.response,
        "across_splits": this.split != other.split,
        "labels_differ": sorted(aspect for aspect in shared if this.scores[aspect] != other.scores[aspect]),
    }


def _where(item: Item) -> dict[str, Any]:
    return {**asdict(item.places[0]), "id": item.id, "sample": item.sample}


def rows_to_drop(findings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[Place]]:
    """Return the rows to drop by the first kind that names them; a repeated question is dropped across splits only."""
    dropped: dict[str, set[Place]] = {}
    seen: set[Place] = set()
    for kind in DROPPED_KINDS:
        places = {
            Place(row["split"], row["index"], row["aspect"])
            for row in findings[kind]["rows"]
            if kind != "repeated_questions" or row["across_splits"]
        }
        dropped[kind] = places - seen
        seen |= places
    return dropped


def dropped_rows(findings: Mapping[str, Mapping[str, Any]], gone: set[Place]) -> list[dict[str, Any]]:
    """List the rows to drop, each once, in the order of split, aspect and index."""
    kinds: dict[Place, list[str]] = {place: [] for place in gone}
    ids = {}
    for kind in DROPPED_KINDS:
        for row in findings[kind]["rows"]:
            place = Place(row["split"], row["index"], row["aspect"])
            if place in gone:
                kinds[place].append(kind)
                ids[place] = row["id"]
    order = sorted(gone, key=lambda place: (place.split, place.aspect or "", place.index))
    return [{**asdict(place), "id": ids[place], "kinds": kinds[place]} for place in order]
