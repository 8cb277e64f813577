"""The one place that writes a judge's folder: config and weights, results.json, audit, plots and card."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import CONFIG_NAME
from transformers.utils import logging as hf_logging

from hub_cards.judge_card import JudgeCard
from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from ..audits.report import audit_summary
from ..runs.manifest import FOLDERS_MANIFEST, Manifest
from .plots import draw

OF_THE_MAKER = {"sources", "meanings", "notes", "retrain", "cost"}
CARD_KEYS = OF_THE_MAKER | {"compared", "degenerate", "use", "ranking", "highlights", "trust"}


def write_judge(
    judge: InspectorModel | InspectorPipeline,
    output: Path,
    evidence: Mapping[str, Any] | None = None,
    *,
    audit: str | None = None,
    name: str | None = None,
    fused: bool = False,
    manifest: Manifest | None = None,
) -> None:
    """Write a judge's folder.

    Args:
        judge: The judge; a pipeline that is fused brings its tokenizer.
        output: The folder; an older judge in it is replaced.
        evidence: The content of results.json; without it there is no results.json, no plot and no card.
        audit: audit.json of the audit stage.
        name: What its card says to load it by; `./` and the folder's name where not given.
        fused: Whether the truncated backbone goes into it; it is loaded where the judge is without.
        manifest: Of the stage that made it, to vouch for the folder.

    Raises:
        BackboneError: The backbone cannot be loaded.
        DataFileError: The evidence is not in the form that the plots need.
    """
    model = judge if isinstance(judge, InspectorModel) else judge.model
    config = model.config
    if fused and model.backbone is None:
        model.set_backbone(load_backbone(config.backbone_id, config.backbone_revision, config.depth))
    scratch = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    scratch.mkdir(parents=True)
    shows = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # for what takes a second
    try:
        judge.save_pretrained(scratch, fused=fused)
    finally:
        if shows:
            hf_logging.enable_progress_bar()
    if audit:
        shutil.copyfile(audit, scratch / "audit.json")
    if evidence is not None:
        (scratch / "results.json").write_text(json_text(evidence), encoding="utf-8")
        drawn = [path.name for path in draw(evidence, scratch)]
        saved = InspectorConfig.from_pretrained(scratch)  # which says, too, whether the backbone is there
        card = JudgeCard(saved, evidence, judge=name or f"./{output.resolve().name}", plots=drawn)
        (scratch / "README.md").write_text(card.render(), encoding="utf-8")
    # Its config goes last: a folder without one is no judge that could be loaded.
    output.mkdir(exist_ok=True)
    for stale in (output / CONFIG_NAME, *output.glob("model*.safetensors*")):
        stale.unlink(missing_ok=True)
    for path in sorted(scratch.iterdir(), key=lambda path: path.name == CONFIG_NAME):
        os.replace(path, output / path.name)
    scratch.rmdir()
    if manifest is not None:
        files = [path for path in sorted(output.iterdir()) if path.is_file() and path.name != FOLDERS_MANIFEST]
        manifest.write(output, files)


def read_card(paths: str | tuple[str, ...] | None, audit: str | None = None) -> dict[str, Any]:
    """Read what only a judge's maker knows, for its card, and what was measured with the judge.

    Args:
        paths: YAML or JSON files, such as those of degenerate, use, compare and rank_report; each goes before those
            left of it.
        audit: audit.json of the audit stage, whose small numbers go on the card too.

    Returns:
        Some of `CARD_KEYS`, and `audit` before them; meanings as aspect -> score, as text -> words.

    Raises:
        DataFileError: A file cannot be read, or says other things.
    """
    card: dict[str, Any] = {"audit": audit_summary(read_json(audit))} if audit else {}
    for path in (paths,) if isinstance(paths, str) else paths or ():
        try:
            found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataFileError(f"Expected YAML or JSON for the card at {path}, but: {error}.") from error
        unknown = sorted(found.keys() - CARD_KEYS) if isinstance(found, dict) else ["no object"]
        if unknown:
            raise DataFileError(f"{path} expects an object of {', '.join(sorted(CARD_KEYS))}, but got {unknown[0]}.")
        card |= found
    meanings = card.get("meanings", {})
    return card | {"meanings": {name: {str(n): words for n, words in own.items()} for name, own in meanings.items()}}
