"""What Spaces hold of us: the package itself, so that what they require is what an index has."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import SpaceCard

from inspector_pipeline.api.load import ASSETS
from inspector_pipeline.errors import DataFileError

PACKAGE = ASSETS.parent
METRIC = PACKAGE / "inspector_score"
SPACE_FILES = ("*.py", "py.typed", "assets/*.jsonl", "assets/*.md", "assets/embedded/*")
NO_CODE_OF_THE_SPACE = ("cli", "engines", "serving")  # commands and servers, which a Space has no use for
REQUIREMENTS = "requirements.txt"
OWN_NAME = "inspector-pipeline"


def copy_package(target: Path) -> None:
    """Copy the package with the embedded judge, without what serves and commands, into a Space."""
    copy_files(PACKAGE, target, SPACE_FILES, (*NO_CODE_OF_THE_SPACE, METRIC.name))


def copy_files(
    folder: Path, target: Path, patterns: Sequence[str], without: Sequence[str] = (), *, deep: bool = True
) -> None:
    """Copy files to the same places under another folder.

    Args:
        folder: Where they are.
        target: Where they go.
        patterns: What their names are like.
        without: Folders directly under it that are left out.
        deep: Whether those of its folders are copied too.
    """
    found = {path for one in patterns for path in (folder.rglob(one) if deep else folder.glob(one)) if path.is_file()}
    for path in sorted(found):
        place = path.relative_to(folder)
        if place.parts[0] not in without:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / place)


def check_space(target: Path, tag: str) -> None:
    """Refuse a Space whose metadata or code would not do.

    Args:
        target: Its folder.
        tag: One that its card must have.

    Raises:
        DataFileError: They would not.
    """
    data = SpaceCard.load(target / "README.md").data.to_dict()
    wrong = [name for name in ("title", "sdk", "app_file") if not isinstance(data.get(name), str)]
    app = target / str(data.get("app_file"))
    if wrong or not app.is_file() or tag not in data.get("tags", ()):
        raise DataFileError(
            f"{target} expects a Space's metadata (title, sdk, app_file, the tag {tag}), but has {data}."
        )
    for path in sorted(target.rglob("*.py")):
        try:
            compile(path.read_text(encoding="utf-8"), str(path.relative_to(target)), "exec")
        except SyntaxError as error:
            raise DataFileError(f"{target} expects code that compiles, but: {error}.") from error
    if any(re.match(rf"{OWN_NAME}\b", line) for line in (target / REQUIREMENTS).read_text().splitlines()):
        raise DataFileError(f"{target} expects requirements that an index has, but they name {OWN_NAME}.")
