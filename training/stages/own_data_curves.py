"""Draw a judge's quality by number of labels, beside TF-IDF and embeddings.

    python -m training own_data_curves --config training/configs/own_data_curves.yaml

For each task, whose features the extract stage wrote, questions are held out until there are `--n-test` test rows
(1,000 where not said otherwise), and from the others training rows are drawn. `--embeddings.model2vec FOLDER` and
`--embeddings.minilm FOLDER` add logistic regressions on the embeddings of models on this machine. OUTPUT holds
curves.json, curves.md, and what each method predicted, so that a stopped run goes on where it was.
"""

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically

from ..evaluation.curves import JUDGE, STAGE, Drawn, Task, curve_of, curves_table, methods_of
from ..features.store import concatenate, load_features
from ..probing.settings import SearchConfig
from ..runs.manifest import Manifest, manifest_path

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
    """

    features: tuple[str, ...]
    aspect: str
    good: float | None = None
    reading: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """Settings of the curves.

    Attributes:
        tasks: Name -> task.
        output: Folder to write to.
        sizes: Numbers of labels to fit on.
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
    if not config.tasks or not config.sizes or min(config.sizes) < 2 or config.draws < 1:
        raise DataFileError("own_data_curves expects a task, sizes of two or more and one draw or more, but got fewer.")
    output = Path(config.output)
    folders = {name: [manifest_path(Path(one)) for one in task.features] for name, task in config.tasks.items()}
    manifest = Manifest.of(STAGE, config, dict.fromkeys(path for own in folders.values() for path in own))
    if manifest.is_done(output):
        return
    shared = {"n_test": config.n_test, "largest": max(config.sizes), "division": config.seed}
    settings = {name: {**asdict(task), **shared, "features": None} for name, task in config.tasks.items()}
    drawn = Drawn(output / "kept", tuple(sorted(config.sizes)), config.draws, config.seed, folders, settings)
    tasks = {name: _curve(name, task, config, drawn) for name, task in config.tasks.items()}
    write_atomically(output / CURVES_FILE, json_text({"tasks": tasks, "settings": manifest.settings}))
    write_atomically(output / TABLE_FILE, curves_table(tasks))
    manifest.write(output, [output / CURVES_FILE, output / TABLE_FILE])
    logger.info(curves_table(tasks))


def _curve(name: str, task: TaskConfig, config: Config, drawn: Drawn) -> dict[str, Any]:
    """Draw the curve of one task."""
    features = concatenate([load_features(folder) for folder in task.features])
    sizes = {"n_test": config.n_test, "n_train": max(config.sizes)}
    divided = Task.of(name, features, task.aspect, **sizes, seed=config.seed, good=task.good)
    kept = {name: one for name, one in config.variants.items() if name not in task.without}
    searches = {JUDGE: config.search, **kept}
    if task.reading is not None:
        searches = {name: replace(one, readings=(task.reading,)) for name, one in searches.items()}
    methods = methods_of(divided, searches, config.embeddings, config.seed, drawn.folder)
    values = {method: drawn.values(divided, method, *built) for method, built in methods.items()}
    return {
        "aspect": task.aspect,
        "n_test": len(divided.test),
        "n_test_questions": len(np.unique(divided.labels.question[divided.test])),
        "n_pool": len(divided.pool),
        "points": curve_of(divided, values, config.bootstraps, config.seed),
    }
