"""Audit labels before a judge is fitted: duplicates, shifted pairing, filler.

python -m training audit --rows probing.json --questions gsm8k_train.jsonl --output work/audit --drop work/clean.json

Writes audit.json (every finding, with its row, its reason and its evidence) and audit.md (to be read). Only texts are
compared: no model is run, and the same files give the same findings.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.files.disk import file_sha256, json_text, write_atomically
from inspector_pipeline.files.tables import check_target

from ..audits.duplicates import Duplicate, Duplicates, find_duplicates
from ..audits.foreign import Foreign, find_foreign, read_dataset
from ..audits.items import Item, Place, Source, read_sources
from ..audits.labels import describe_fields, describe_labels, item_rows
from ..audits.pairing import Pairing, find_shifted
from ..audits.report import audit_summary, report
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

KINDS = ("foreign", "exact_duplicates", "near_duplicates", "shifted", "repeated_questions")


@dataclass(frozen=True)
class Config:
    """Settings of the audit stage.

    Attributes:
        rows: Labelled rows (JSON Lines or another table) or a probing set (JSON in the published format); several
            files as an object of split -> path, to look across splits as well. A row's own `split` goes before its
            file's.
        output: Folder of audit.json and audit.md.
        questions: The questions of the dataset that the rows are said to come from, JSON Lines with a `question` each.
            Without it, no row is judged foreign.
        drop: Where to write the rows without those that were found, in the form they came in: a file, or for several
            splits a folder. Not written if not given.
        held_out: Splits that others must not repeat: where a row stands in one of these and elsewhere, the row
            elsewhere is dropped. Between other rows the first stays, in the order of the files.
        scale: The classes that a label may take; aspects that hold only 0 and 1 are on that scale.
        tiny: A class with fewer labels than this is named as tiny.
    """

    rows: str | dict[str, str]
    output: str
    questions: str | None = None
    drop: str | None = None
    held_out: tuple[str, ...] = ("test", "validation", "valid", "val", "dev", "eval")
    scale: tuple[int, ...] = (1, 2, 3, 4, 5)
    tiny: int = 10


@dataclass(frozen=True)
class _Found:
    """All findings among the items; positions are the items' in the files' order."""

    duplicates: Duplicates
    pairing: Pairing
    foreign: list[Foreign] | None


def audit(config: Config) -> dict[str, Any]:
    """Audit the files and write the findings, and the cleaned rows where asked for.

    Returns:
        What stands in audit.json: files, findings by kind, dropped (counts by kind), dropped_rows (each row once, with
        every kind that names it), aspects, aspects_after_drop, fields, generators.

    Raises:
        DataFileError: A file cannot be read or written.
    """
    if config.drop and isinstance(config.rows, str):
        Path(config.drop).parent.mkdir(parents=True, exist_ok=True)
        check_target(config.drop)
    sources = read_sources(config.rows)
    items = [item for source in sources for item in source.items]
    logger.info("Comparing %d pairs.", len(items))
    found = _find(items, config)
    findings = _findings(items, found)
    dropped = _dropped(findings)
    gone = {place for kind in dropped.values() for place in kind}
    result = {
        "files": {
            source.split or "all": {
                "name": source.path.name,
                "sha256": file_sha256(source.path),
                "rows": sum(len(item.places) for item in source.items),
                "items": len(source.items),
            }
            for source in sources
        },
        "findings": findings,
        "dropped": {kind: len(places) for kind, places in dropped.items()} | {"total": len(gone)},
        "dropped_rows": _dropped_rows(findings, gone),
        "aspects": describe_labels(items, config.scale, config.tiny),
        "aspects_after_drop": describe_labels(_without(items, gone), config.scale, config.tiny),
        "fields": {
            source.split or "all": describe_fields(item_rows(source.items) if source.rows is None else source.rows)
            for source in sources
        },
        "generators": dict(Counter(item.generator or "unknown" for item in items)),
    }
    _write(config, sources, result, gone)
    return result


def _find(items: Sequence[Item], config: Config) -> _Found:
    """Look for every kind of fault; duplicates in the order of precedence, pairing in the order of the files."""
    order = sorted(range(len(items)), key=lambda i: items[i].split not in config.held_out)
    found = find_duplicates([items[i] for i in order])
    exact, near, repeated = (
        [replace(one, item=order[one.item], other=order[one.other]) for one in kind]
        for kind in (found.exact, found.near, found.repeated_questions)
    )
    groups = np.empty_like(found.groups)
    groups[order] = found.groups
    foreign = None
    if config.questions:
        foreign = find_foreign(items, read_dataset(config.questions), near)
    return _Found(Duplicates(exact, near, repeated, groups), find_shifted(items, groups), foreign)


def _findings(items: Sequence[Item], found: _Found) -> dict[str, dict[str, Any]]:
    """Write the findings by kind, one entry a row of the files."""
    unlisted = None
    if found.foreign is not None:
        unlisted = [
            (one.item, {"why": "its question is not in the dataset", "nearest": one.nearest, "likeness": one.likeness})
            for one in found.foreign
        ]
    misfits = [
        (one.item, {"why": one.why, "other": _where(items[one.other]), "own_fit": one.own, "best_fit": one.best})
        for one in found.pairing.shifted
    ]
    undecidable = [(i, {"why": "the response shares too little with any question"}) for i in found.pairing.undecidable]
    duplicates = found.duplicates
    kinds = {
        "foreign": unlisted,
        "exact_duplicates": [_duplicate(items, one) for one in duplicates.exact],
        "near_duplicates": [_duplicate(items, one) for one in duplicates.near],
        "shifted": misfits,
        "repeated_questions": [_duplicate(items, one) for one in duplicates.repeated_questions],
        "undecidable_pairing": undecidable,
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


def _dropped(findings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[Place]]:
    """Return the rows to drop by the first kind that names them; a repeated question is dropped across splits only."""
    dropped: dict[str, set[Place]] = {}
    seen: set[Place] = set()
    for kind in KINDS:
        places = {
            Place(row["split"], row["index"], row["aspect"])
            for row in findings[kind]["rows"]
            if kind != "repeated_questions" or row["across_splits"]
        }
        dropped[kind] = places - seen
        seen |= places
    return dropped


def _dropped_rows(findings: Mapping[str, Mapping[str, Any]], gone: set[Place]) -> list[dict[str, Any]]:
    """List the rows to drop, each once, in the order of split, aspect and index."""
    kinds: dict[Place, list[str]] = {place: [] for place in gone}
    ids = {}
    for kind in KINDS:
        for row in findings[kind]["rows"]:
            place = Place(row["split"], row["index"], row["aspect"])
            if place in gone:
                kinds[place].append(kind)
                ids[place] = row["id"]
    order = sorted(gone, key=lambda place: (place.split, place.aspect or "", place.index))
    return [{**asdict(place), "id": ids[place], "kinds": kinds[place]} for place in order]


def _without(items: Sequence[Item], gone: set[Place]) -> list[Item]:
    return [item for item in items if item.places[0] not in gone]


def _write(config: Config, sources: Sequence[Source], result: dict[str, Any], gone: set[Place]) -> None:
    """Write the findings, the cleaned rows and the manifests, these last."""
    manifest = _manifest(config)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "audit.json", json_text(result))
    write_atomically(folder / "audit.md", report(result))
    for source, target in zip(sources, _targets(config), strict=bool(config.drop)):
        kept = source.write_without(gone, target)
        manifest.write(target, [target])
        logger.info("Wrote %d rows to %s.", kept, target)
    manifest.write(folder, [folder / "audit.json", folder / "audit.md"])


def _targets(config: Config) -> list[Path]:
    if not config.drop:
        return []
    if isinstance(config.rows, str):
        return [Path(config.drop)]
    return [Path(config.drop) / f"{split}{Path(path).suffix}" for split, path in config.rows.items()]


def _manifest(config: Config) -> Manifest:
    paths = [config.rows] if isinstance(config.rows, str) else list(config.rows.values())
    named = replace(config, drop=config.drop and Path(config.drop).name)
    return Manifest.of("audit", named, [*paths, config.questions])


def run(config: Config) -> None:
    """Run the audit and log what was found, unless it is there already.

    Raises:
        DataFileError: A file cannot be read or written.
    """
    folder = Path(config.output)
    if all(target.is_file() for target in _targets(config)) and _manifest(config).is_done(folder):
        return
    found = audit_summary(audit(config))
    for kind, count in found["found"].items():
        logger.info("%s: %s", kind.replace("_", " "), "not looked for" if count is None else f"{count} rows")
    logger.info("See %s.", folder / "audit.md")
