"""Curves of quality by number of labels: a judge of one's own beside cheaper methods, on rows that no fit saw.

The questions of a task are divided once: enough of them for the test rows, the others to draw training rows from. For
each number of labels several draws are made, the same for all methods; a method is fitted on each and predicts all test
rows. AUROC is the mean over draws, with intervals over the test questions, and differences are paired. Where a judge of
score tokens is given, the curve begins without any label: with that judge (LAGER), on which probes are stacked as
labels come.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..features.store import FeatureSet
from ..probing.kernels import Design
from ..probing.settings import SearchConfig
from ..probing.table import Array, Index, Labels, TooFewLabelsError
from ..rows.records import LabelledPair
from ..runs.manifest import Manifest
from .methods.base import Fold, Method
from .methods.beside import beside_baselines
from .methods.embedded import EmbeddedMethod, embed
from .methods.probes import ProbesMethod
from .methods.text import TEXT_BASELINES, TextMethod
from .metrics import Resamples, auroc, interval, resamples

logger = logging.getLogger(__name__)

STAGE = "own_data_curves"
JUDGE = "judge"
STACKED, LAGER = "stacked", "lager"  # they need no label
Made = tuple[Callable[[], Method], Any]  # what makes a method, and its settings
TEXTS = ("length", "surface", "tfidf")


@dataclass(frozen=True)
class Task:
    """The labelled rows of one aspect, divided.

    Attributes:
        name: Its name.
        features: Features of all pairs; those of other aspects and of rows that are left out carry no label.
        labels: All rows of the aspect.
        test: (rows,) places of the rows that are tested on.
        pool: (rows,) places of the others.
    """

    name: str
    features: FeatureSet
    labels: Labels
    test: Index
    pool: Index

    @classmethod
    def of(
        cls, name: str, features: FeatureSet, aspect: str, *, n_test: int, n_train: int, seed: int, good: float | None
    ) -> "Task":
        """Divide a task's questions.

        Args:
            name: Its name.
            features: Features of its pairs.
            aspect: Whose labels are learnt.
            n_test: Rows to test on, at least.
            n_train: Rows that the largest draw needs.
            seed: Of the division.
            good: From which level on labels are good; the usual rule where it is None.

        Raises:
            DataFileError: There are too few labels.
        """
        named = [pair for pair in features.pairs if aspect in pair.scores and not pair.auxiliary]
        order = np.random.default_rng(seed).permutation(len(named))
        kept: dict[str, list[LabelledPair]] = {}
        for i in order:
            kept.setdefault(str(named[i].id), []).append(named[i])
        chosen, n = set[int](), 0
        for pairs in kept.values():  # whole questions, so that tasks of any size fit in memory
            if n >= n_test + 2 * n_train:
                break
            chosen |= {id(pair) for pair in pairs}
            n += len(pairs)
        only = [
            replace(pair, scores={aspect: pair.scores[aspect]} if id(pair) in chosen else {}, weights={})
            for pair in features.pairs
        ]
        labels = Labels.of(only, (), {} if good is None else {aspect: good})
        questions = np.random.default_rng(seed).permutation(np.unique(labels.question))
        counts = {str(question): int((labels.question == question).sum()) for question in questions}
        ends = np.cumsum([counts[str(question)] for question in questions])
        of_test = questions[: int(np.searchsorted(ends, n_test)) + 1]
        is_test = np.isin(labels.question, of_test)
        if n - is_test.sum() < n_train or is_test.sum() < n_test:
            raise DataFileError(
                f"{name} expects {n_test} rows to test on and {n_train} others with labels of {aspect}, but has "
                f"{len(named)} in all. Ask for fewer."
            )
        return cls(name, replace(features, pairs=only), labels, np.flatnonzero(is_test), np.flatnonzero(~is_test))

    def fold(self, size: int, draw: int, seed: int) -> Fold:
        """Draw training rows: questions one after another, until there are so many rows."""
        rng = np.random.default_rng([seed, draw])
        questions = rng.permutation(np.unique(self.labels.question[self.pool]))
        place = {str(question): i for i, question in enumerate(questions)}
        turn = np.array([place[str(question)] for question in self.labels.question[self.pool]])
        rows = self.pool[np.argsort(turn, kind="stable")[:size]]
        return Fold(draw, 0, self.labels.take(np.sort(rows)), self.labels.take(self.test))


@dataclass(frozen=True)
class Drawn:
    """How often a curve is drawn, and where its predictions are kept.

    Attributes:
        folder: The folder.
        sizes: Numbers of labels.
        draws: Of training rows, for each number.
        seed: Of the draws.
        inputs: Files that the tasks are made from.
        settings: What predictions depend on beside them, by task.
    """

    folder: Path
    sizes: tuple[int, ...]
    draws: int
    seed: int
    inputs: Mapping[str, Sequence[Path]]
    settings: Mapping[str, Any]

    def values(self, task: Task, name: str, build: Callable[[], Method], settings: Any) -> dict[int, Array]:
        """Return what a method ranks the test rows by: size -> (draws, test rows); kept ones are read.

        A size that it cannot be fitted on, as where all labels are of one kind or there is none, is left out.
        """
        found: dict[int, Array] = {}
        method: Method | None = None
        for size in self.sizes:
            if not size and name not in (STACKED, LAGER):
                continue
            path = self.folder / task.name / f"{name}-{size}.json"
            described = {"task": self.settings[task.name], "method": settings, "size": size, "draws": self.draws}
            manifest = Manifest.of(STAGE, {**described, "seed": self.seed}, self.inputs[task.name])
            if not manifest.vouches_for(path):
                method = method or build()
                logger.info("%s: %s on %d labels.", task.name, name, size)
                values = self._predicted(task, method, size)
                write_atomically(path, json_text({"good": None if values is None else values.tolist()}))
                manifest.write(path, [path])
            if (kept := read_json(path)["good"]) is not None:
                found[size] = np.array(kept, dtype=np.float64)
        return found

    def _predicted(self, task: Task, method: Method, size: int) -> Array | None:
        place = np.full(len(task.labels.score), -1)
        place[task.test] = np.arange(len(task.test))
        values = np.full((self.draws, len(task.test)), np.nan)
        for draw in range(self.draws):
            fold = task.fold(size, draw, self.seed)
            try:
                for rows, predictions in method.fit(fold)(fold.test):
                    values[draw, place[rows]] = predictions.good
            except TooFewLabelsError as error:
                logger.info("%s cannot be fitted on %d labels of %s: %s", method.name, size, task.name, error)
                return None
        return values


def methods_of(
    task: Task,
    searches: Mapping[str, SearchConfig],
    embeddings: Mapping[str, str],
    seed: int,
    cache: Path,
    before: Mapping[str, Made] | None = None,
) -> dict[str, Made]:
    """Return name -> what makes a method, and its settings: `before`, the judges, and the others."""
    pairs, design = task.features.pairs, Design(task.features, task.labels)
    found = dict(before or {})
    found |= {name: (partial(ProbesMethod, name, design, search), search) for name, search in searches.items()}
    texts = (*(TEXT_BASELINES[name] for name in TEXTS), *beside_baselines(task.features.slots))
    found |= {one.name: (partial(TextMethod, one, pairs, seed), one.name) for one in texts}
    for name, folder in embeddings.items():
        found[name] = (partial(_embedded, name, folder, pairs, task, cache), {"embeddings": Path(folder).name})
    return found


def _embedded(name: str, folder: str, pairs: Sequence[LabelledPair], task: Task, cache: Path) -> Method:
    """Embed the texts of a task's labelled rows once, and keep the vectors."""
    path, used = cache / task.name / f"{name}.npy", np.unique(task.labels.pair)
    keys = ("question", "prediction", *task.features.slots)
    texts = [text for key in keys for text in (getattr(pairs[i], key) or "" for i in used)]
    vectors = np.load(path) if path.is_file() else None
    if vectors is None or len(vectors) != len(texts):
        vectors = embed(folder, texts)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    whole = np.zeros((len(keys), len(pairs), vectors.shape[1]), dtype=np.float32)
    whole[:, used] = vectors.reshape(len(keys), len(used), -1)
    return EmbeddedMethod(name, pairs, whole.reshape(len(keys) * len(pairs), -1))


def curve_of(task: Task, values: Mapping[str, Mapping[int, Array]], bootstraps: int, seed: int) -> list[dict[str, Any]]:
    """Measure a task's curve.

    Args:
        task: The task.
        values: Method -> size -> (draws, test rows); first the one that the others are compared with.
        bootstraps: Resamples of the test questions.
        seed: Of the resamples.

    Returns:
        For each size `n`, `auroc`, method -> AUROC with interval, and `gain_over`, method -> paired gain of the first.
    """
    first = next(iter(values))
    labels = task.labels.take(task.test)
    samples = resamples(labels.question, bootstraps, seed)
    points = []
    for size in sorted({size for own in values.values() for size in own}):
        draws = {name: _draws(labels, own[size], samples) for name, own in values.items() if size in own}
        ours = draws.get(first)
        others = {name: own for name, own in draws.items() if name != first and ours is not None}
        gains = {name: interval(ours - own) for name, own in others.items() if ours is not None}
        points.append({"n": size, "auroc": {name: interval(own) for name, own in draws.items()}, "gain_over": gains})
    return points


def _draws(labels: Labels, values: Array, samples: Resamples) -> Array:
    """AUROC on every resample, (resamples + 1,), the mean over draws of training rows."""
    weights, good = samples.weights(labels.question), labels.positive
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.mean([auroc(good, own, weights) for own in values], axis=0))


def curves_table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Write curves as Markdown tables, a row for each number of labels; gains whose interval holds 0 are marked."""
    lines = []
    for name, task in tasks.items():
        methods = list(dict.fromkeys(method for point in task["points"] for method in point["auroc"]))
        lines += [f"### {name}", "", f"{task['n_test']} test rows of {task['n_test_questions']} questions.", ""]
        lines += [f"| labels | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
        for point in task["points"]:
            cells = [_cell(point, method) for method in methods]
            lines.append(f"| {point['n']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(point: Mapping[str, Any], method: str) -> str:
    found, gain = point["auroc"].get(method), point["gain_over"].get(method)
    if found is None:
        return "-"
    value = f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
    mark = " =" if gain is not None and gain["low"] <= 0 <= gain["high"] else " >" if gain and gain["high"] < 0 else ""
    return f"{value}{mark}"
