"""Audit labels before a judge is fitted: duplicates, shifted pairing, filler.

python -m training audit --rows probing.json --questions gsm8k_train.jsonl --output work/audit --drop work/clean.json

Writes audit.json (every finding, with its row, its reason and its evidence) and audit.md (to be read). Only texts are
compared: no model is run, and the same files give the same findings.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspector_pipeline.files.disk import file_sha256, json_text, write_atomically
from inspector_pipeline.files.tables import check_target

from ..audits.findings import dropped_rows, find_faults, rows_to_drop
from ..audits.items import Place
from ..audits.labels import describe_fields, describe_labels, item_rows
from ..audits.report import audit_summary, report
from ..audits.sources import Source, read_sources
from ..rows.probing_set import read_questions
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)


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
    findings = find_faults(items, config.held_out, read_questions(config.questions) if config.questions else None)
    dropped = rows_to_drop(findings)
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
        "dropped_rows": dropped_rows(findings, gone),
        "aspects": describe_labels(items, config.scale, config.tiny),
        "aspects_after_drop": describe_labels(
            [item for item in items if item.places[0] not in gone], config.scale, config.tiny
        ),
        "fields": {
            source.split or "all": describe_fields(item_rows(source.items) if source.rows is None else source.rows)
            for source in sources
        },
        "generators": dict(Counter(item.generator or "unknown" for item in items)),
    }
    _write(config, sources, result, gone)
    return result


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
