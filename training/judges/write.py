"""A judge's folder: config and weights, results.json, audit, plots and card."""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import CONFIG_NAME

from hub_cards.judge_card import JudgeCard
from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.modeling_inspector import InspectorModel

from .plots import PlotsConfig, plots

CARD_KEYS = {"sources", "meanings", "notes", "retrain", "cost"}


def write_judge(
    model: InspectorModel,
    output: Path,
    evidence: dict[str, Any],
    audit: str | None = None,
    *,
    name: str | None = None,
    fused: bool = False,
) -> None:
    """Write a judge's folder: config and weights, results.json, audit, plots and card.

    Args:
        model: A judge without its backbone.
        output: The folder; an older judge in it is replaced.
        evidence: The content of results.json.
        audit: audit.json of the audit stage.
        name: What its card says to load it by; `./` and the folder's name where not given.
        fused: Whether the truncated backbone goes into it.

    Raises:
        BackboneError: The backbone cannot be loaded.
    """
    if fused:
        backbone = load_backbone(model.config.backbone_id, model.config.backbone_revision, model.config.depth)
        model.set_backbone(backbone)
    scratch = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    scratch.mkdir(parents=True)
    model.save_pretrained(scratch, fused=fused)
    (scratch / "results.json").write_text(json_text(evidence), encoding="utf-8")
    if audit:
        shutil.copyfile(audit, scratch / "audit.json")
    drawn = [path.name for path in plots(PlotsConfig(str(scratch / "results.json"), str(scratch)))]
    card = JudgeCard.from_judge(model.config, evidence, judge=name or f"./{output.resolve().name}", plots=drawn)
    (scratch / "README.md").write_text(card.render(), encoding="utf-8")
    _put_in_place(scratch, output)


def _put_in_place(made: Path, output: Path) -> None:
    """Move a whole judge into its folder, its config last: a folder without one is no judge that could be loaded."""
    output.mkdir(exist_ok=True)
    for stale in (output / CONFIG_NAME, *output.glob("model*.safetensors*")):
        stale.unlink(missing_ok=True)
    for path in sorted(made.iterdir(), key=lambda path: path.name == CONFIG_NAME):
        os.replace(path, output / path.name)
    made.rmdir()


def read_card(path: str) -> dict[str, Any]:
    """Read what only a judge's maker knows, for its card.

    Raises:
        DataFileError: It cannot be read, or says other things than `CARD_KEYS`.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataFileError(f"Expected YAML or JSON for the card at {path}, but: {error}.") from error
    unknown = sorted(found.keys() - CARD_KEYS) if isinstance(found, dict) else ["no object"]
    if unknown:
        raise DataFileError(f"{path} expects an object of {', '.join(sorted(CARD_KEYS))}, but got {unknown[0]}.")
    return dict(found)
