"""Turn a judge's folder into the files of its Hub repo: weights, flat code, card, evidence, licences.

The same judge gives the same bytes, so a second push changes nothing.
"""

import logging
import shutil
from pathlib import Path

from huggingface_hub import eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # exported lazily

from inspector_pipeline.api.load import ASSETS
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json

from .backbone_license import BackboneLicense, notice
from .judge_card import PLOTS, JudgeCard
from .leaks import refuse_leaks
from .saved_judge import SavedJudge

logger = logging.getLogger(__name__)

PACKAGE = ASSETS.parent
PROJECT_LICENSE = PACKAGE.parent / "LICENSE"
AUDIT = "audit.json"
PNG = b"\x89PNG"
# Code that a repo carries beside what its config names, where the package has it.
EXTRA_CODE = ("handler.py", "reward.py")
NAMED_CODE = ("configuration_inspector.py", "modeling_inspector.py", "pipeline_inspector.py")


def stage(
    judge: SavedJudge,
    target: Path,
    *,
    repo_id: str,
    license_: BackboneLicense,
    probes_only: bool = False,
    dataset_id: str | None = None,
) -> Path:
    """Write the files of a judge's repo.

    Args:
        judge: What to publish.
        target: A folder that is not there yet, or is empty.
        repo_id: Where it will stand; the card's snippet names it.
        license_: Of the backbone.
        probes_only: Whether to leave the backbone out, which is then loaded by id and revision.
        dataset_id: Hub id of the labelled pairs, where they are published.

    Returns:
        The target.

    Raises:
        DataFileError: The target is not empty, the judge's files hold what must not be published, or its backbone is
            needed and not loaded.
    """
    check_empty(target)
    _write_model(judge, target, probes_only=probes_only)
    _write_code(target)
    for name in ("results.json", AUDIT, *PLOTS):
        if (judge.folder / name).is_file():
            _check_own(judge.folder / name)
            shutil.copyfile(judge.folder / name, target / name)
    config = InspectorConfig.from_pretrained(target)
    card = JudgeCard(
        config,
        judge.results,
        judge=repo_id,
        license=license_.id,
        audit=read_json(target / AUDIT) if (target / AUDIT).is_file() else None,
        plots=[name for name in PLOTS if (target / name).is_file()],
        dataset_id=dataset_id,
    )
    _write_text(target / "README.md", card.render())
    _write_eval_results(card, target)
    shutil.copyfile(PROJECT_LICENSE, target / "LICENSE")
    if license_.text is not None:
        _write_text(target / "BACKBONE_LICENSE", license_.text)
    _write_text(target / "NOTICE", notice(license_, config, probes=judge.results.get("probes")))
    refuse_leaks(target, [judge.folder, target])
    return target


def check_empty(target: Path) -> None:
    """Refuse a folder to stage in that holds files.

    Raises:
        DataFileError: It does.
    """
    if target.exists() and any(target.iterdir()):
        raise DataFileError(f"{target} expects an empty folder to stage in, but holds files. Remove them.")


def tree(folder: Path) -> list[tuple[str, int]]:
    """List the files of a staged repo with their sizes in bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def _write_model(judge: SavedJudge, target: Path, *, probes_only: bool) -> None:
    if judge.pipeline is not None:
        judge.pipeline.save_pretrained(target, fused=not probes_only)
    elif probes_only:
        judge.probes().save_pretrained(target, fused=False)
    else:
        raise DataFileError("A judge without its backbone expects to be staged as probes only. Pass --probes-only.")


def _check_own(path: Path) -> None:
    """Refuse to publish what a link in a judge's folder leads to elsewhere, and a picture that is none.

    Links into `blobs` beside the folder's own parent are those of the Hub's cache.

    Raises:
        DataFileError: It is such a file.
    """
    blobs = path.absolute().parents[2] / "blobs" if len(path.absolute().parents) > 2 else None
    if path.is_symlink() and path.resolve().parent not in (path.parent.resolve(), blobs and blobs.resolve()):
        raise DataFileError(f"{path} expects a file of the judge, but is a link to {path.resolve()}. Copy it there.")
    if path.suffix == ".png":
        with path.open("rb") as file:
            if file.read(len(PNG)) != PNG:
                raise DataFileError(f"{path} expects a picture in PNG, but holds something else. Leave it out.")


def _write_code(target: Path) -> None:
    """Add what the config does not name; a repo whose config names code that is not there would not load."""
    for name in EXTRA_CODE:
        if (PACKAGE / name).is_file():
            shutil.copyfile(PACKAGE / name, target / name)
    shutil.rmtree(target / "__pycache__", ignore_errors=True)
    for name in NAMED_CODE:
        if not (target / name).is_file():
            raise DataFileError(f"{target} expects {name}, which its config names, but it was not written.")


def _write_eval_results(card: JudgeCard, target: Path) -> None:
    if entries := card.eval_results():
        (target / ".eval_results").mkdir()
        text = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        _write_text(target / ".eval_results" / f"{card.name}.yaml", text)
    elif any(aspect.metrics for aspect in card.aspects):
        logger.info(
            "No .eval_results file is written: that form names a dataset on the Hub. Pass --dataset with the Hub id of "
            "the labelled pairs; model-index in the card has the results in the older form."
        )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
