"""Draw a judge's quality by number of labels, beside TF-IDF and embeddings.

    python -m training own_data_curves --config training/configs/own_data_curves.yaml

For each task, whose features the extract stage wrote, questions are held out until there are `--n-test` test rows
(1,000 where not said otherwise), and from the others training rows are drawn. `--embeddings.model2vec FOLDER` and
`--embeddings.minilm FOLDER` add logistic regressions on the embeddings of models on this machine. A task with
`score_tokens`, a judge that needs no label, may begin its curve at 0: probes are stacked with that judge as labels come
(training/configs/no_labels.yaml). OUTPUT holds curves.json, curves.md, and what each method predicted, so that a
stopped run goes on where it was.
"""

import logging
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically

from ..evaluation.curves import (
    JUDGE,
    LAGER,
    STACKED,
    STAGE,
    Drawn,
    Made,
    Task,
    curve_of,
    curves_table,
    methods_of,
)
from ..evaluation.methods.base import Method
from ..evaluation.methods.probes import ProbesMethod
from ..evaluation.methods.score_tokens import LagerMethod
from ..evaluation.methods.stacked import CombinedMethod
from ..features.store import concatenate, load_features
from ..probing.kernels import Design
from ..probing.settings import SearchConfig
from ..runs.manifest import Manifest, manifest_path
from ..score_tokens.logits import LayerLogits, LogitsSettings, cached_layer_logits
from ..score_tokens.stack import check_same_backbone

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.json"
TABLE_FILE = "curves.md"


@dataclass(frozen=True)
class TaskConfig:
    """A task.

    Attributes:
        features: Folders of the extract stage.
        aspect: Whose labels are learnt.
        good: From which level on labels are good; the usual rule where not given.
        reading: Which reading judges take, where it is none of the search's.
        without: Variants that are left out, as one with a prior whose judge saw these rows, or reads another reading.
        score_tokens: Folder of the lager stage, of the features' backbone, that scores the aspect; probes stacked with
            it are then what the others are compared with.
    """

    features: tuple[str, ...]
    aspect: str
    good: float | None = None
    reading: str | None = None
    without: tuple[str, ...] = ()
    score_tokens: str | None = None


@dataclass(frozen=True)
class Config:
    """Settings of the curves.

    Attributes:
        tasks: Name -> task.
        output: Folder to write to.
        sizes: Numbers of labels to fit on; 0 too where every task has score tokens.
        n_test: Rows to test on, at least; whole questions.
        draws: Draws of training rows for each number of labels.
        search: What the judge is searched and fitted with.
        variants: Name -> other settings of the search, as a judge to stand beside, such as one with a prior_judge.
        embeddings: Name -> folder of an embedding model on this machine.
        bootstraps: Resamples of the test questions for the intervals.
        seed: Of the division, draws and resamples.
    """

    tasks: dict[str, TaskConfig]
    output: str
    sizes: tuple[int, ...] = (50, 100, 300, 1000)
    n_test: int = 1000
    draws: int = 3
    search: SearchConfig = field(default_factory=lambda: SearchConfig(heads=("logistic",)))
    variants: dict[str, SearchConfig] = field(default_factory=dict)
    embeddings: dict[str, str] = field(default_factory=dict)
    bootstraps: int = 1000
    seed: int = 731


def run(config: Config) -> None:
    """Run the stage: folders of features -> OUTPUT/curves.json and curves.md.

    Raises:
        DataFileError: A task has too few labels.
        BackboneError: A folder holds no embedding model.
    """
    unknown = {name for task in config.tasks.values() for name in task.without} - config.variants.keys()
    if unknown:
        raise DataFileError(
            f"without expects some of {', '.join(config.variants) or 'no'} variants, but got {min(unknown)}."
        )
    if not config.tasks or not config.sizes or min(config.sizes) < 0 or 1 in config.sizes or config.draws < 1:
        raise DataFileError("own_data_curves expects a task, sizes of two or more and one draw or more, but got fewer.")
    bare = [name for name, task in config.tasks.items() if task.score_tokens is None]
    if 0 in config.sizes and bare:
        raise DataFileError(f"A size of 0 labels expects score_tokens in every task, but {bare[0]} has none. Add them.")
    output = Path(config.output)
    folders = {name: list(map(manifest_path, _inputs(task))) for name, task in config.tasks.items()}
    manifest = Manifest.of(STAGE, config, dict.fromkeys(path for own in folders.values() for path in own))
    if manifest.is_done(output):
        return
    shared = {"n_test": config.n_test, "largest": max(config.sizes), "division": config.seed}
    settings = {name: {**_settings(task), **shared} for name, task in config.tasks.items()}
    drawn = Drawn(output / "kept", tuple(sorted(config.sizes)), config.draws, config.seed, folders, settings)
    tasks = {name: _curve(name, task, config, drawn) for name, task in config.tasks.items()}
    write_atomically(output / CURVES_FILE, json_text({"tasks": tasks, "settings": manifest.settings}))
    write_atomically(output / TABLE_FILE, curves_table(tasks))
    manifest.write(output, [output / CURVES_FILE, output / TABLE_FILE])
    logger.info(curves_table(tasks))


def _inputs(task: TaskConfig) -> list[Path]:
    return [Path(folder) for folder in (*task.features, task.score_tokens) if folder is not None]


def _settings(task: TaskConfig) -> dict[str, Any]:
    """Collect what kept predictions depend on; those of a task without score tokens as before there were any."""
    kept = {**asdict(task), "features": None}
    return kept if task.score_tokens else {key: value for key, value in kept.items() if key != "score_tokens"}


def _curve(name: str, task: TaskConfig, config: Config, drawn: Drawn) -> dict[str, Any]:
    """Draw the curve of one task."""
    features = concatenate([load_features(folder) for folder in task.features])
    sizes = {"n_test": config.n_test, "n_train": max(config.sizes)}
    divided = Task.of(name, features, task.aspect, **sizes, seed=config.seed, good=task.good)
    kept = {name: one for name, one in config.variants.items() if name not in task.without}
    searches = {JUDGE: config.search, **kept}
    if task.reading is not None:
        searches = {name: replace(one, readings=(task.reading,)) for name, one in searches.items()}
    before: dict[str, Made] = {}
    if task.score_tokens is not None:
        before = _from_no_labels(divided, searches[JUDGE], task.score_tokens, drawn.folder / name)
    methods = methods_of(divided, searches, config.embeddings, config.seed, drawn.folder, before)
    values = {method: drawn.values(divided, method, *built) for method, built in methods.items()}
    return {
        "aspect": task.aspect,
        "n_test": len(divided.test),
        "n_test_questions": len(np.unique(divided.labels.question[divided.test])),
        "n_pool": len(divided.pool),
        "points": curve_of(divided, values, config.bootstraps, config.seed),
    }


def _from_no_labels(task: Task, search: SearchConfig, folder: str, kept: Path) -> dict[str, Made]:
    """Stack probes with a judge of score tokens, whose logits are read once and kept, beside that judge alone.

    Raises:
        DataFileError: It does not score the task's aspect, or runs another backbone.
    """
    check_same_backbone(InspectorConfig.from_pretrained(folder), task.features)
    rows = kept / "pairs.json"  # what is read depends on how the task was divided
    texts = [(task.features.pairs[i].question, task.features.pairs[i].prediction) for i in task.labels.pair]
    write_atomically(rows, json_text(texts))

    @cache
    def logits() -> LayerLogits:
        settings = LogitsSettings(folder, str(rows), ())
        return cached_layer_logits(settings, task.features.pairs, task.labels, kept / "layer_logits.safetensors")

    def stacked() -> Method:
        return CombinedMethod(STACKED, ProbesMethod(JUDGE, Design(task.features, task.labels), search), logits())

    def alone() -> Method:
        return LagerMethod("logits_uniform_expectation", logits(), {})

    return {STACKED: (stacked, {STACKED: search}), LAGER: (alone, LAGER)}
