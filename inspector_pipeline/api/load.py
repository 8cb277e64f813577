"""Score lists of samples with any judge; the embedded one where none is named."""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME, cached_file

from ..devices import preferred_dtype
from ..errors import JudgeConfigError
from ..files.entries import share_of
from ..modeling_inspector import InspectorModel
from ..pipeline_inspector import TASK, InspectorPipeline
from ..results import ADDED_COLUMNS, PUBLISHED_TOTAL, RANK_BY, FlatColumns, rank_field

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1] / "assets"
EMBEDDED_JUDGE = ASSETS / "embedded"
EMBEDDED_JUDGES = {folder.name: folder for folder in (EMBEDDED_JUDGE, ASSETS / "embedded-int8")}
EXAMPLES = ASSETS / "examples.jsonl"

EVIDENCE = "results.json"
HUB_KWARGS = ("token", "cache_dir", "local_files_only")
MAKERS = "inspector.judges"  # entry points that make a judge's folder of another kind of folder
CLASSIFIERS = ("*.pkl", "*.skops")  # as the published folders *_clfs hold them, one for each aspect

Judge = str | os.PathLike[str] | InspectorPipeline | None


def load_judge(
    judge: Judge = None,
    *,
    rubrics: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> InspectorPipeline:
    """Load a judge.

    Args:
        judge: Folder or Hub id, or the name of a judge in `EMBEDDED_JUDGES`; None is `embedded`; a loaded pipeline is
            returned as it is. A folder of fitted classifiers, as the published `*_clfs`, is a judge too, where the
            training extra is installed; pickles in it are read as plain data, and nothing in them is run.
        rubrics: Of a folder of classifiers: the probing set (or JSON of readings) with the rubrics that they were
            fitted in; None takes this project's own, with a warning.
        backbone: Of a folder of classifiers: another Hub id or folder of the backbone than they name.
        **kwargs: `device`, `batch_size`, `num_workers` for the pipeline; others (dtype, device_map, revision, token,
            share_backbone_with, ...) for `InspectorModel.from_pretrained`. The dtype is bfloat16 on a GPU that has
            it, else float32, where none is given.

    Returns:
        The judge's pipeline.

    Raises:
        FileNotFoundError: The judge looks like a local path, but there is none.
        JudgeConfigError: Rubrics or a backbone are given for a judge that brings its own, or classifiers without what
            reads them.
        ValueError: A shared backbone is on another device than the one asked for.
    """
    if judge is not None and not isinstance(judge, (str, os.PathLike)):
        _refuse_brought(type(judge).__name__, rubrics, backbone)
        return judge
    name = judge_name(judge)
    if holds_classifiers(name):
        with tempfile.TemporaryDirectory() as made:
            _make_judge(name, made, rubrics, backbone)
            loaded = load_judge(made, **kwargs)
        loaded.model.name_or_path = name  # what a job's manifest says, and its next run finds again
        return loaded
    _refuse_brought(name, rubrics, backbone)
    # Loaded here and not by pipeline(), which retries and wraps every error until its message is lost.
    options = {key: kwargs.pop(key) for key in ("device", "batch_size", "num_workers") if key in kwargs}
    shared = kwargs.get("share_backbone_with")
    if shared is not None:
        asked = options.setdefault("device", shared.device)
        if asked is not None and torch.device(asked) != shared.device:
            raise ValueError(
                f"share_backbone_with brings its own backbone, on {shared.device}, but got device={str(asked)!r}. "
                "Leave device out."
            )
        options["device"] = shared.device
    elif kwargs.get("dtype", "auto") == "auto" and kwargs.get("device_map") is None:
        kwargs["dtype"] = preferred_dtype(options.get("device"))
    model = InspectorModel.from_pretrained(name, **kwargs)
    tokenizer = model.load_tokenizer(**{key: kwargs[key] for key in HUB_KWARGS if key in kwargs})
    return InspectorPipeline(model=model, tokenizer=tokenizer, task=TASK, **options)


def holds_classifiers(name: str) -> bool:
    """Whether a folder holds fitted classifiers, and is no judge's folder."""
    folder = Path(name)
    is_judge = (folder / CONFIG_NAME).is_file()
    return folder.is_dir() and not is_judge and any(any(folder.glob(pattern)) for pattern in CLASSIFIERS)


def _make_judge(name: str, made: str, rubrics: Any, backbone: Any) -> None:
    """Have the training part write a judge's folder of a folder of classifiers.

    Raises:
        JudgeConfigError: It is not installed.
    """
    try:
        (maker,) = entry_points(group=MAKERS, name="classifiers")
        write = maker.load()
    except (ModuleNotFoundError, ValueError) as error:
        raise JudgeConfigError(
            f"{name} holds fitted classifiers, which expect the training extra. Run pip install "
            "'inspector-pipeline[training]'."
        ) from error
    write(name, made, rubrics, backbone)


def _refuse_brought(name: str, rubrics: Any, backbone: Any) -> None:
    """Refuse rubrics and a backbone for a judge that brings its own.

    Raises:
        JudgeConfigError: One is given.
    """
    if rubrics is not None or backbone is not None:
        raise JudgeConfigError(
            f"rubrics and backbone expect a folder of fitted classifiers as the judge, but got {name}, which brings "
            "its own. Leave them out."
        )


def judge_name(judge: str | os.PathLike[str] | None) -> str:
    """Return a judge's folder or Hub id; for None and the names in `EMBEDDED_JUDGES`, a folder of this package.

    Raises:
        FileNotFoundError: It looks like a local path, but there is none.
    """
    if judge is None or (isinstance(judge, str) and judge in EMBEDDED_JUDGES):
        return str(EMBEDDED_JUDGES[judge or EMBEDDED_JUDGE.name])
    name = os.fspath(judge)
    if not os.path.isdir(name) and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(
            f"A judge expects a folder or a Hub id such as org/name, but got {name!r}, where no folder is."
        )
    return name


def evidence_path(model: InspectorModel) -> str | None:
    """Return the path of a judge's results.json, fetched where the judge is on the Hub; None where it has none."""
    if not model.name_or_path:
        return None
    path: str | None = cached_file(
        model.name_or_path,
        EVIDENCE,
        revision=model.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return path


def evaluate_samples(
    samples: Sequence[Mapping[str, Any]],
    judge: Judge = None,
    batch_size: int | None = 16,
    top_percent: float = 1.0,
    rank_by: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    clf_root: str | os.PathLike[str] | None = None,
    model_name: str | None = None,
    rubrics: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Score samples and keep the best share, by the contract of the published `evaluate_samples`.

    Args:
        samples: Mappings with `question` and `prediction`; further keys are kept, but for those that a judge adds.
            Never changed. Or rows as other tools write them (rows.py), such as `messages`: they get `question` and
            `prediction` as they were read, and one with several responses becomes several, with its place as
            `source_row`.
        judge: Folder, Hub id or loaded pipeline; None is the embedded judge. Pass a loaded one to call this often.
        batch_size: Pairs that are read ahead and scored together; None is 256.
        top_percent: Share to keep, 0 to 1. At 1.0 all are returned in input order; below, they are sorted, highest
            first and ties in input order, and cut to floor(n * top_percent).
        rank_by: What they are sorted by: `expected_total`, `expected_<aspect>` or another field with a number. None is
            `total_score`, as published; `judge.model.config.rank_field` is what the judge itself ranks by.
        columns: Text -> the samples' key, where names do not say it: `{"question": "q", "prediction": "a"}`.
        strict: Whether a reference or a context that the judge does not read is an error.
        clf_root: Folder of published classifiers, such as gsm8k_multi_clfs, in the judge's place.
        model_name: Of such a folder, the backbone; None is the one that the classifiers name.
        rubrics: Of such a folder, the probing set with the rubrics that they were fitted in; see `load_judge`.

    Returns:
        Copies of the samples with the columns of `FlatColumns`: one whole number per aspect and `total_score` first.

    Raises:
        PairError: A sample cannot be scored.
        DataFileError: The samples may be meant in several ways; the message lists them.
        ValueError: `top_percent` is out of range, nothing ranks the samples, or there are both a judge and a clf_root.

    Example:
        >>> evaluate_samples([{"question": "2 + 2?", "prediction": "4"}])  # doctest: +SKIP
    """
    if isinstance(top_percent, (bool, str)) or not 0.0 <= top_percent <= 1.0:
        raise ValueError(f"top_percent expects a share from 0 to 1, but got {top_percent!r}.")
    if judge is not None and clf_root is not None:
        raise ValueError(f"evaluate_samples expects a judge or clf_root, but got both. Leave {clf_root} out.")
    if not len(samples):
        return []
    loaded = load_judge(clf_root if judge is None else judge, rubrics=rubrics, backbone=model_name)
    reader = loaded.row_reader(columns, strict=strict)
    samples, pairs = reader.read_all(samples)
    return _scored(pairs, samples, loaded, batch_size, top_percent, rank_by)


def _scored(
    pairs: list[dict[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    loaded: InspectorPipeline,
    batch_size: int | None,
    top_percent: float,
    rank_by: str | None,
) -> list[dict[str, Any]]:
    """Score pairs, and put the columns beside the samples that they were read from."""
    columns = FlatColumns(loaded.model.config, rank_by=rank_by)
    if top_percent < 1.0 or rank_by is not None:
        rank_by = rank_field(loaded.model.config, rank_by or PUBLISHED_TOTAL)
    replaced = [name for name in columns.kinds if any(name in sample for sample in samples)]
    if set(replaced) & set(ADDED_COLUMNS) and RANK_BY not in replaced:  # with it, they were a judge's already
        logger.warning("The samples' own %s are replaced by the judge's in the copies.", ", ".join(replaced))
    results = loaded(pairs, batch_size=batch_size)
    n_truncated = sum(result["truncated"] for result in results)
    if n_truncated:
        logger.warning("%d of %d pairs were longer than the judge's limit and were cut.", n_truncated, len(results))
    scored = [{**sample, **columns.values(result)} for sample, result in zip(samples, results, strict=True)]
    return keep_top(scored, top_percent, rank_by or PUBLISHED_TOTAL)


def keep_top(scored: list[dict[str, Any]], top_percent: float, by: str = PUBLISHED_TOTAL) -> list[dict[str, Any]]:
    """Keep the best share by a field, highest first and ties in input order; all of them, in their order, at 1.0."""
    if top_percent == 1.0:
        return scored
    ranked = sorted(scored, key=lambda sample: sample[by], reverse=True)
    return ranked[: share_of(len(ranked), top_percent)]
