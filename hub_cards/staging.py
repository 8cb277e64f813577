"""Turn a judge's folder into the files of its Hub repo: weights, flat code, card, evidence, licences.

The same judge gives the same bytes, so a second push changes nothing.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # exported lazily

import inspector_pipeline
from inspector_pipeline.api.load import load_judge
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from .backbone_license import BackboneLicense, notice
from .fresh_process import load_probes
from .judge_card import PLOTS, JudgeCard, evidence_gaps
from .leaks import refuse_leaks

logger = logging.getLogger(__name__)

PACKAGE = Path(inspector_pipeline.__file__).parent
PROJECT_LICENSE = PACKAGE.parent / "LICENSE"
EVIDENCE = ("results.json", "audit.json")
# Code that a repo carries beside what its config names, where the package has it.
EXTRA_CODE = ("handler.py", "reward.py")


@dataclass(frozen=True)
class Judge:
    """A judge's folder, read.

    Attributes:
        folder: Where it stands.
        config: Its config.
        results: Its results.json; None where it has none.
        pipeline: It, loaded; None where its backbone is not at hand.
    """

    folder: Path
    config: InspectorConfig
    results: dict[str, Any] | None
    pipeline: InspectorPipeline | None

    @classmethod
    def read(cls, folder: Path, *, with_backbone: bool = True, allow_unevaluated: bool = False) -> "Judge":
        """Read a judge's folder.

        Args:
            folder: Where it stands.
            with_backbone: Whether to load it with its backbone.
            allow_unevaluated: Whether a judge without evidence may pass.

        Raises:
            DataFileError: There is no judge, or no evidence for it.
        """
        if not (folder / "config.json").is_file():
            raise DataFileError(f"{folder} expects a judge's folder with a config.json, but has none.")
        config = InspectorConfig.from_pretrained(folder)
        results = read_json(folder / "results.json") if (folder / "results.json").is_file() else None
        gaps = evidence_gaps(config, results)
        if gaps and not allow_unevaluated:
            raise DataFileError(
                f"A judge expects evidence for every aspect (intervals, with the surface baseline beside), but "
                f"{folder / 'results.json'} has none for {', '.join(gaps)}. Run python -m training evaluate, or pass "
                "--allow-unevaluated, and the card will say so."
            )
        return cls(folder, config, results, load_judge(folder, device="cpu", dtype="stored") if with_backbone else None)

    def probes(self) -> InspectorModel:
        """Build the judge without a backbone.

        Raises:
            DataFileError: Its weights are not there.
        """
        if not (self.folder / "model.safetensors").is_file():
            raise DataFileError(f"{self.folder} expects the judge's weights in model.safetensors, but has none.")
        config = InspectorConfig.from_pretrained(self.folder)
        config.fused = False
        model: InspectorModel = load_probes(InspectorModel(config), self.folder)
        return model


def stage(
    judge: Judge,
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
    if target.exists() and any(target.iterdir()):
        raise DataFileError(f"{target} expects an empty folder to stage in, but holds files. Remove them.")
    _write_model(judge, target, probes_only=probes_only)
    _write_code(target)
    plots = [name for name in PLOTS if (judge.folder / name).is_file()]
    for name in (*EVIDENCE, *plots):
        if (judge.folder / name).is_file():
            shutil.copyfile(judge.folder / name, target / name)
    config = InspectorConfig.from_pretrained(target)
    audit = judge.folder / "audit.json"
    card = JudgeCard.from_judge(
        config,
        judge.results or {},
        judge=repo_id,
        license=license_.id,
        audit=read_json(audit) if audit.is_file() else None,
        plots=plots,
        dataset_id=dataset_id,
    )
    _write_text(target / "README.md", card.render())
    _write_eval_results(card, target)
    _write_licenses(config, license_, target, probes=(judge.results or {}).get("probes"))
    refuse_leaks(target, [judge.folder, target])
    return target


def tree(folder: Path) -> list[tuple[str, int]]:
    """List the files of a staged repo with their sizes in bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def _write_model(judge: Judge, target: Path, *, probes_only: bool) -> None:
    if judge.pipeline is not None:
        judge.pipeline.save_pretrained(target, fused=not probes_only)
    elif probes_only:
        judge.probes().save_pretrained(target, fused=False)
    else:
        raise DataFileError("A judge without its backbone expects to be staged as probes only. Pass --probes-only.")


def _write_code(target: Path) -> None:
    """Add what the config does not name; a repo whose config names code that is not there would not load."""
    for name in EXTRA_CODE:
        if (PACKAGE / name).is_file():
            shutil.copyfile(PACKAGE / name, target / name)
    shutil.rmtree(target / "__pycache__", ignore_errors=True)
    for name in ("configuration_inspector.py", "modeling_inspector.py", "pipeline_inspector.py"):
        if not (target / name).is_file():
            raise DataFileError(f"{target} expects {name}, which its config names, but it was not written.")


def _write_eval_results(card: JudgeCard, target: Path) -> None:
    entries = card.eval_results()
    if entries:
        text = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        (target / ".eval_results").mkdir()
        _write_text(target / ".eval_results" / f"{card.name}.yaml", text)
    elif any(aspect.metrics for aspect in card.aspects):
        logger.info(
            "No .eval_results file is written: that form names a dataset on the Hub. Pass --dataset with the Hub id of "
            "the labelled pairs; model-index in the card has the results in the older form."
        )


def _write_licenses(config: InspectorConfig, license_: BackboneLicense, target: Path, probes: str | None) -> None:
    shutil.copyfile(PROJECT_LICENSE, target / "LICENSE")
    if license_.text is not None:
        _write_text(target / "BACKBONE_LICENSE", license_.text)
    text = notice(
        license_,
        depth=config.depth,
        fused=config.fused,
        backbone_id=config.backbone_id,
        revision=config.backbone_revision,
        probes=probes,
    )
    _write_text(target / "NOTICE", text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
