"""The Space of a judge: the page of `inspector demo`, the code that it runs, and what that requires, pinned.

Our packages stand in the Space itself, under the names that they are imported by, beside a record of their version: an
index need not have them. The same files give the same bytes, so a second push changes nothing.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import SpaceCard

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text

from .leaks import refuse_leaks
from .space_files import OWN_NAME, REQUIREMENTS, check_space, copy_files, copy_package
from .staging import PACKAGE, PROJECT_LICENSE, check_empty

TRAINING = "inspector_training"
CLI = "inspector_cli"
PAGE_FOLDERS = ("corruptions", "evaluation", "judges", "probing", "reports", "rows", "runs")
"""What the page reads of training."""
FILES = ("*.py", "*.css", "*.js", "*.jinja")
SPACE, JUDGE, GALLERY = "space.json", "judge", "gallery"
OF_A_JUDGE = ("config.json", "results.json")  # what its row in the gallery is made of
TAG = "inspector-judge"


def stage_space(target: Path, judge: str | None = None, judges: Mapping[str, Path] | None = None) -> Path:
    """Write the files of a judge's Space.

    Args:
        target: A folder that is not there yet, or holds the judge's own folder, `judge`, alone.
        judge: `judge`, where the target holds it; else its id on the Hub; None is the embedded one.
        judges: Name -> folder of each judge that the page's gallery has a row of.

    Returns:
        The target.

    Raises:
        DataFileError: The target holds files, a folder is no judge's, training is not installed, or a file holds what
            must not be published.
    """
    if judge != JUDGE:
        check_empty(target)
    target.mkdir(parents=True, exist_ok=True)
    training = _training()
    copy_package(target / PACKAGE.name)
    copy_files(PACKAGE / "cli", target / CLI, FILES)
    for name in PAGE_FOLDERS:
        copy_files(training / name, target / TRAINING / name, FILES, ("space", "methods"))
    copy_files(training, target / TRAINING, ("__init__.py",), deep=False)
    copy_files(training / "reports" / "space", target, ("app.py", REQUIREMENTS), deep=False)
    _record_version(target)
    for name, folder in (judges or {}).items():
        _copy_row(folder, target / GALLERY / name)
    (target / SPACE).write_text(json_text({"judge": judge}), encoding="utf-8", newline="\n")
    shutil.copyfile(PROJECT_LICENSE, target / "LICENSE")
    _write_card(training, target, judge if judge != JUDGE else None)
    check_space(target, TAG)
    _check_pins(target)
    refuse_leaks(target, [target, *(judges or {}).values()])
    return target


def named_folders(folders: Iterable[Path]) -> dict[str, Path]:
    """Name the folders of judges, by which their rows of a gallery are told apart.

    Raises:
        DataFileError: Two have one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        other = found.setdefault(folder.resolve().name, folder)
        if other.resolve() != folder.resolve():
            told = f"--gallery expects folders of different names, but got {other} and {folder}. Rename one."
            raise DataFileError(told)
    return found


def _training() -> Path:
    found = find_spec(TRAINING)
    if found is None or found.origin is None:
        raise DataFileError(f"A Space expects {TRAINING}, which holds its page, but it is not installed.")
    return Path(found.origin).parent


def _record_version(target: Path) -> None:
    """Write what importlib.metadata reads a package's version from, which the page states."""
    record = target / f"{OWN_NAME.replace('-', '_')}-{version(OWN_NAME)}.dist-info"
    record.mkdir()
    text = f"Metadata-Version: 2.1\nName: {OWN_NAME}\nVersion: {version(OWN_NAME)}\n"
    (record / "METADATA").write_text(text, encoding="utf-8", newline="\n")


def _copy_row(folder: Path, target: Path) -> None:
    if not (folder / OF_A_JUDGE[0]).is_file():
        raise DataFileError(f"--gallery expects folders of judges, but {folder} has no {OF_A_JUDGE[0]}.")
    copy_files(folder, target, OF_A_JUDGE, deep=False)


def _write_card(training: Path, target: Path, judge: str | None) -> None:
    card = SpaceCard.load(training / "reports" / "space" / "README.md")
    if judge is not None:
        card.data["models"] = [judge]
    (target / "README.md").write_text(str(card), encoding="utf-8", newline="\n")


def _check_pins(target: Path) -> None:
    """Refuse requirements that are not pinned, and an SDK of another version than Gradio's pin.

    Raises:
        DataFileError: They are such.
    """
    lines = (target / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    loose = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+]+", line)]
    sdk = f"gradio=={SpaceCard.load(target / 'README.md').data.to_dict().get('sdk_version')}"
    if loose or sdk not in lines:
        raise DataFileError(f"{target} expects pinned requirements, {sdk} among them, but has {loose or lines}.")
