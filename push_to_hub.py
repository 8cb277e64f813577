"""Publish a judge: stage its repo, reload it in a fresh process by the repo's own code, compare scores, upload.

    python push_to_hub.py work/judge org/inspector-gsm8k-multi --dry-run
    python push_to_hub.py work/judge org/inspector-gsm8k-multi --private
    python push_to_hub.py work/labelled.jsonl org/gsm8k-labels --card labels.yaml --dataset
    python push_to_hub.py org/inspector_score --metric
    python push_to_hub.py org/inspector --space
    python push_to_hub.py org/inspector-gsm8k-multi org/inspector --space --gallery staged/*

The repo holds the truncated backbone, the probes, the tokenizer, the code, the card, the evidence and the licences;
with --probes-only it holds no backbone, which is loaded by id and revision. All files go up in one commit, so an upload
that is cut leaves the old revision as it was, and the same judge pushed again changes nothing. The published judges
are built by `python -m training publish_family`.

--dataset without an id publishes labelled rows as a dataset, with a card of their counts and of what --card says: its
license, and where known teacher, sources, meanings and notes. --metric publishes the metric's Space, which holds the
package itself, so that its requirements are what an index has. --space publishes the page of `inspector demo` for the
embedded judge, for one on the Hub, or for a folder's, which goes along; --gallery names folders of the judges that get
a row on it, beside the judge's own.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from inspector_cli.printable import PrintableParser, log_to_terminal, printable

from hub_cards.backbone_license import BackboneLicense, base_model, find_license, known_license
from hub_cards.other_repos import stage_dataset, stage_metric
from hub_cards.saved_judge import SavedJudge
from hub_cards.space import JUDGE, named_folders, stage_space
from hub_cards.space_files import METRIC
from hub_cards.staging import check_empty, stage, tree
from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.errors import BackboneError, DataFileError, InspectorError
from inspector_pipeline.wheel_backbone import is_wheel_id

logger = logging.getLogger(__name__)

RepoType = Literal["model", "dataset", "space"]
NAMES = {"model": "judge", "dataset": "labelled rows", "space": "Space"}
KEPT_ON_HUB = (".gitattributes",)  # the Hub's own


@dataclass(frozen=True)
class Upload:
    """What an upload did.

    Attributes:
        commit: The revision that now stands.
        changed: Whether a commit was made.
        url: Where it stands.
    """

    commit: str
    changed: bool
    url: str


def upload(
    folder: Path,
    repo_id: str,
    api: HfApi,
    *,
    private: bool = False,
    revision: str | None = None,
    repo_type: RepoType = "model",
) -> Upload:
    """Create a repo where it is missing and make it hold just a folder's files, in one commit.

    Args:
        folder: A staged repo.
        repo_id: Where it goes.
        api: The client.
        private: Whether a new repo is private; an old one must be so already.
        revision: Branch to write to, made where it is missing; None for main.
        repo_type: Kind of the repo.

    Returns:
        What was done. Files that have not changed are not sent; where none has, no commit is made.

    Raises:
        DataFileError: The repo is public, but a private one was asked for.
        OSError: The Hub refuses, or cannot be reached.
    """
    sdk = "gradio" if repo_type == "space" else None
    api.create_repo(repo_id, private=private or None, exist_ok=True, repo_type=repo_type, space_sdk=sdk)
    if revision not in (None, constants.DEFAULT_REVISION):
        api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
    before = api.repo_info(repo_id, revision=revision, repo_type=repo_type)
    if private and not before.private:
        raise DataFileError(f"--private expects {repo_id} to be private, but it exists and is public. Change it there.")
    files = {name: folder / name for name, _ in tree(folder)}
    old = api.list_repo_files(repo_id, revision=before.sha, repo_type=repo_type)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()
    ]
    operations += [CommitOperationDelete(name) for name in old if name not in files and name not in KEPT_ON_HUB]
    commit = api.create_commit(
        repo_id,
        operations,
        commit_message=f"Upload the {NAMES[repo_type]}",
        repo_type=repo_type,
        revision=revision,
        parent_commit=before.sha,
    )
    return Upload(commit.oid, commit.oid != before.sha, commit.commit_url)


def _license(args: argparse.Namespace, judge: SavedJudge) -> BackboneLicense:
    """Decide the backbone's licence; its card on the Hub is asked only where nothing nearer says it."""
    text = args.backbone_license_file.read_text(encoding="utf-8") if args.backbone_license_file else None
    backbone_id, on_hub = judge.config.backbone_id, None
    model_id = base_model(backbone_id)
    here_only = args.dry_run or is_wheel_id(backbone_id) or model_id.count("/") != 1 or constants.HF_HUB_OFFLINE
    if not (args.backbone_license or known_license(backbone_id) or here_only):
        revision = judge.config.backbone_revision if model_id == backbone_id else None
        card = HfApi().model_info(model_id, revision=revision).card_data
        on_hub = card.license if card else None
    return find_license(backbone_id, args.backbone_license, text, on_hub)


def _stage_judge(args: argparse.Namespace, folder: Path, repo_id: str) -> str:
    """Stage a judge, reload it, and say what was compared."""
    read = {"with_backbone": not args.without_backbone, "allow_unevaluated": args.allow_unevaluated}
    judge = SavedJudge.read(args.judge, **read)
    stage(
        judge,
        folder,
        repo_id=repo_id,
        license_=_license(args, judge),
        probes_only=args.probes_only,
        dataset_id=args.dataset,
    )
    compared = judge.check_reload(folder)
    return f"Reloaded in a fresh process by its own code: the same expected scores on {compared}."


def _stage_space(args: argparse.Namespace, folder: Path) -> str:
    """Stage a judge's Space, with the judge where it is a folder, and say what was checked."""
    judges = named_folders(args.gallery)
    checked = "Its metadata are a Space's, its code compiles, and its requirements are pinned."
    if args.judge is None:
        stage_space(folder, None, {"embedded": EMBEDDED_JUDGE, **judges})
    elif args.judge.is_dir():
        check_empty(folder)
        checked += " " + _stage_judge(args, folder / JUDGE, f"./{JUDGE}")
        stage_space(folder, JUDGE, {args.judge.resolve().name: args.judge, **judges})
    elif args.judge.as_posix().count("/") == 1:
        stage_space(folder, args.judge.as_posix(), judges)
    else:
        raise DataFileError(f"--space expects a judge's folder or its id on the Hub, ORG/NAME, but got {args.judge}.")
    return checked


def _kind(args: argparse.Namespace) -> RepoType:
    """Say what is published, and refuse arguments that do not fit it.

    Raises:
        DataFileError: They do not.
    """
    kind: RepoType = "space" if args.metric or args.space else "dataset" if args.dataset is True else "model"
    if args.space and (args.metric or args.dataset or args.card):
        raise DataFileError("--space expects a judge, or none, and an id, but got --metric, --dataset or --card too.")
    if args.gallery and not args.space:
        raise DataFileError("--gallery expects --space, whose page has it, but got none.")
    if args.metric and (args.judge is not None or args.dataset):
        raise DataFileError("--metric expects the Space's id alone, but got a judge or a dataset too.")
    if args.metric and args.repo_id.rpartition("/")[2] != METRIC.name:
        raise DataFileError(
            f"--metric expects a Space that is called as its script, ORG/{METRIC.name}, since evaluate.load looks for "
            f"that, but got {args.repo_id}."
        )
    if kind != "space" and args.judge is None:
        raise DataFileError("Expected a judge's folder, or a file of rows, and ORG/NAME, but got one of them alone.")
    if (kind == "dataset") != (args.card is not None):
        raise DataFileError(
            "A dataset expects --card FILE, which names at least the labels' license; and --card expects --dataset."
        )
    return kind


def push(args: argparse.Namespace, folder: Path) -> None:
    """Stage, check and, unless it is a dry run, upload."""
    kind = _kind(args)
    if args.space:
        checked = _stage_space(args, folder)
    elif kind == "space":
        stage_metric(folder)
        checked = "Its metadata are a Space's, its code compiles, and an index has what it requires."
    elif kind == "dataset":
        stage_dataset(args.judge, folder, repo_id=args.repo_id, card_file=args.card, audit=args.audit)
        checked = "Its rows and its metadata come back as they were written."
    else:
        checked = _stage_judge(args, folder, args.repo_id)
    files = tree(folder)
    lines = [f"{size:>13,}  {name}" for name, size in files]
    logger.info("%s\n%13s  in %d files", "\n".join(lines), f"{sum(size for _, size in files):,}", len(files))
    logger.info("%s", checked)
    if args.dry_run:
        logger.info("A dry run: nothing was sent.")
        return
    try:
        done = upload(folder, args.repo_id, HfApi(), private=args.private, revision=args.revision, repo_type=kind)
    except (httpx2.HTTPError, RuntimeError) as error:  # the client wraps a failed upload of a large file in the latter
        raise BackboneError(
            f"The Hub did not take {args.repo_id}: {error or type(error).__name__}. What stood there before is "
            "unchanged; run this again."
        ) from error
    logger.info("%s %s", "Pushed" if done.changed else "Nothing had changed:", done.url)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command: argparse.ArgumentParser = PrintableParser(
        prog="push_to_hub.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "judge", nargs="?", type=Path, metavar="JUDGE", help="the judge's folder; with --dataset, the file of rows"
    )
    command.add_argument("repo_id", metavar="ORG/NAME", help="where it goes")
    command.add_argument("--dry-run", action="store_true", help="stop before the network and list the files")
    command.add_argument("--output", type=Path, help="keep the staged repo here (default: a temporary folder)")
    command.add_argument("--private", action="store_true", help="make the repo private")
    command.add_argument("--revision", help="branch to write to (default: main)")
    command.add_argument("--probes-only", action="store_true", help="leave the backbone out; it is loaded by its id")
    command.add_argument("--without-backbone", action="store_true", help="check the probes alone (no backbone here)")
    command.add_argument("--allow-unevaluated", action="store_true", help="publish without evidence; the card says so")
    command.add_argument("--backbone-license", metavar="SPDX_ID", help="licence of a backbone that is not known here")
    command.add_argument("--backbone-license-file", type=Path, help="its text")
    command.add_argument(
        "--dataset",
        nargs="?",
        const=True,
        metavar="ORG/NAME",
        help="of a judge: Hub id of its labelled pairs, where published; alone: JUDGE is labelled rows to publish",
    )
    command.add_argument(
        "--card", type=Path, metavar="FILE", help="of a dataset: YAML with license, teacher, sources, ..."
    )
    command.add_argument("--audit", type=Path, metavar="FILE", help="of a dataset: audit.json of the audit stage")
    command.add_argument("--metric", action="store_true", help="publish the metric's Space; only ORG/NAME is given")
    command.add_argument(
        "--space", action="store_true", help="publish a judge's Space; without JUDGE the embedded one's"
    )
    gallery = "of a Space: folders of judges that get a row on its page"
    command.add_argument("--gallery", nargs="+", type=Path, default=[], metavar="FOLDER", help=gallery)
    return command


def main(argv: Sequence[str] | None = None) -> None:
    """Parse arguments and publish."""
    args = parser().parse_args(argv)
    if args.output:
        push(args, args.output)
    else:
        with tempfile.TemporaryDirectory() as folder:
            push(args, Path(folder) / "repo")


if __name__ == "__main__":
    log_to_terminal(logging.INFO)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the Hub's client, which tells of every request
    try:
        main()
    except (InspectorError, OSError) as error:
        sys.exit(printable(f"{type(error).__name__}: {error}", lines=True))
