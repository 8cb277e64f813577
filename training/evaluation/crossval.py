"""THE cross-validation: folds x repeats x methods, and what is kept of it.

A method is fitted on a fold's training rows and predicts the rows that the fold asks for; it is known by its protocol
alone. What methods predicted, what they cost and their learning curves can be kept in a folder and are then not made
again. Costs are timed once all predictions are there, so that they stand beside each other.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging as hf_logging

from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..probing.table import Labels, TooFewLabelsError, question_folds
from ..runs.manifest import Manifest
from .cost import Cost
from .evidence import Outcome, mean_auroc
from .methods.base import Fold, Method
from .metrics import UNSET, Predictions, Resamples, resamples

logger = logging.getLogger(__name__)

COMPARE = "compare"  # the stages that manifests of what is kept name
COST = "cost"
LEARNING_CURVE = "learning_curve"
METHODS = "methods"  # a comparison's folder of what is kept
CURVE = ".curve.json"


@dataclass(frozen=True)
class CrossValidation:
    """How the rows of a table are divided, and what methods predict of them.

    Attributes:
        labels: The whole table.
        folds: Their number, by question id over all aspects.
        seed: Of the folds, and of shares of their training questions.
        repeats: Repetitions with other folds.
        of_others: (rows,) which rows are of other sets: never fitted on, but predicted in the first repeat by the folds
            that hold out their questions, and for questions of theirs alone each by one fold; None without any.
        generators: (rows,) who wrote each row's response, "" where not known; None where it does not matter.
        left_out: Groups of generators; each fold's training rows are without one of them, in turn.
    """

    labels: Labels
    folds: int
    seed: int
    repeats: int = 1
    of_others: NDArray[np.bool_] | None = None
    generators: NDArray[np.str_] | None = None
    left_out: Sequence[Sequence[str]] = ()

    @cached_property
    def divided(self) -> list[Fold]:
        """All folds of all repeats."""
        others = np.zeros(len(self.labels.score), dtype=bool) if self.of_others is None else self.of_others
        main = self.labels.take(np.flatnonzero(~others))
        questions, known = np.unique(self.labels.question, return_inverse=True)
        is_new = ~np.isin(questions, main.question)
        turn = np.cumsum(is_new) % self.folds
        found = []
        for repeat in range(self.repeats):
            for number, (fit, out) in enumerate(question_folds(main, self.folds, self.seed + repeat)):
                held_out = np.isin(questions, main.question[out]) | (is_new & (turn == number))
                of_others = self.labels.take(np.flatnonzero(held_out[known] & others))
                more = of_others if repeat == 0 and len(of_others.score) else None
                found.append(Fold(repeat, number, main.take(fit), main.take(out), more))
        if self.generators is None or not self.left_out:
            return found
        return [fold.without(self.generators, self.left_out[fold.number % len(self.left_out)]) for fold in found]

    def resamples(self, n: int) -> Resamples:
        """Draw questions of the labelled rows anew, so often."""
        return resamples(self.labels.question[~self.labels.auxiliary], n, self.seed)

    def predict(self, method: Method, folds: Sequence[Fold]) -> Predictions:
        """Fit a method on folds and predict what they ask for; rows that it does not predict stay unset."""
        found = Predictions.blank(1 + max(fold.repeat for fold in folds), len(self.labels.score), self.labels.score)
        for fold in hf_logging.tqdm(folds, desc=method.name, unit="fold"):
            predict = method.fit(fold)
            for asked in fold.asked:
                for rows, prediction in predict(asked):
                    found.put(fold.repeat, rows, prediction)
        return found

    def learning_curve(
        self, build: Callable[[], Method], shares: Sequence[float], samples: Resamples
    ) -> Iterator[dict[str, Any]]:
        """Fit a method on growing shares of the training questions of the first repeat's folds.

        Args:
            build: Makes the method anew.
            shares: Of the questions; one that it cannot be fitted on is left out.
            samples: For the intervals.

        Yields:
            See `point`.
        """
        for share in shares:
            method = build()
            folds = [fold.with_share(share, self.seed) for fold in self.divided if fold.repeat == 0][: method.n_folds]
            try:
                predictions = self.predict(method, folds)
            except TooFewLabelsError as error:
                logger.info("%s cannot be fitted on a share of %g: %s", method.name, share, error)
                continue
            yield self.point(share, folds, predictions, samples)

    def point(
        self, share: float, folds: Sequence[Fold], predictions: Predictions, samples: Resamples
    ) -> dict[str, Any]:
        """Give a share, the mean number of labels (`n`), and the mean AUROC with its interval."""
        n = float(np.mean([(~fold.train.auxiliary).sum() for fold in folds]))
        return {"share": share, "n": round(n), "auroc": mean_auroc(predictions, self.labels, samples)}


class Candidate(NamedTuple):
    """A method that is asked for, before anything of it is loaded.

    Attributes:
        name: Its name.
        settings: What it depends on beside the folds.
        inputs: Files that it reads beside the pairs.
        build: Makes it.
    """

    name: str
    settings: Any
    inputs: tuple[str, ...]
    build: Callable[[], Method]


@dataclass(frozen=True)
class KeptResults:
    """A folder of what methods gave in a cross-validation of one repeat.

    Attributes:
        folder: The folder.
        validation: The cross-validation.
        pairs: File of the labelled rows.
        uncounted: Aspects that are left out of the table.
    """

    folder: Path
    validation: CrossValidation
    pairs: str
    uncounted: tuple[str, ...]

    def outcomes(self, candidates: Sequence[Candidate], timed_pairs: int) -> dict[str, Outcome]:
        """Run every method on its folds, then time them one after another; what was done before is read."""
        data = {}
        for one in candidates:
            manifest = Manifest.of(COMPARE, self._settings(one), (self.pairs, *one.inputs))
            data[one.name] = self._kept(one, ".json", manifest, partial(self._run, one))
        return {one.name: self._outcome(one, data[one.name], timed_pairs) for one in candidates}

    def _outcome(self, candidate: Candidate, data: Mapping[str, Any], timed_pairs: int) -> Outcome:
        told = data["told"]
        inputs = (self.pairs, str(self.folder / f"{candidate.name}.json"), *candidate.inputs)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = {"timed_pairs": timed_pairs, "device": device, "threads": torch.get_num_threads()}
        manifest = Manifest.of(COST, settings, inputs)
        cost = self._kept(candidate, ".cost.json", manifest, lambda: asdict(candidate.build().cost(told["notes"])))
        return Outcome(read_predictions(data, self.validation.labels), told, Cost(**cost))

    def curve(self, candidate: Candidate, outcome: Outcome, shares: tuple[float, ...], bootstraps: int) -> list[Any]:
        """Draw a method's learning curve.

        Args:
            candidate: The method.
            outcome: What it predicted from all training rows: the last point.
            shares: Of the training questions.
            bootstraps: Resamples of the questions.

        Returns:
            The points; see `CrossValidation.point`.
        """
        samples, validation = self.validation.resamples(bootstraps), self.validation
        settings = {"fold": self._settings(candidate), "shares": shares, "bootstraps": bootstraps}
        manifest = Manifest.of(LEARNING_CURVE, settings, (self.pairs, *candidate.inputs))
        points = self._kept(
            candidate, CURVE, manifest, lambda: list(validation.learning_curve(candidate.build, shares, samples))
        )
        whole = validation.divided[: outcome.told["folds"]]
        return [*points, validation.point(1.0, whole, outcome.predictions, samples)]

    def _kept(self, candidate: Candidate, suffix: str, manifest: Manifest, make: Callable[[], Any]) -> Any:
        """Read a JSON file of a method; make it first where the manifest does not vouch for it."""
        path = self.folder / f"{candidate.name}{suffix}"
        if not manifest.vouches_for(path):
            write_atomically(path, json_text(make()))
            manifest.write(path, [path])
        return read_json(path)

    def _settings(self, candidate: Candidate) -> dict[str, Any]:
        """Collect what a method's predictions depend on beside its inputs."""
        folds: dict[str, Any] = {"folds": self.validation.folds, "seed": self.validation.seed}
        left_out = self.validation.left_out
        folds |= {"left_out": left_out} if left_out else {}  # what was kept before stays valid
        return {"method": candidate.settings, "name": candidate.name, **folds, "uncounted": self.uncounted}

    def _run(self, candidate: Candidate) -> dict[str, Any]:
        method = candidate.build()
        folds = self.validation.divided[: method.n_folds]
        start = time.perf_counter()
        predictions = self.validation.predict(method, folds)
        seconds = time.perf_counter() - start
        logger.info("%s: %d folds in %.0f s.", method.name, len(folds), seconds)
        rows = np.flatnonzero(predictions.score[0] != UNSET)
        columns = {
            name: [None if np.isnan(value) else value for value in column[0, rows].tolist()]
            for name, column in predictions._asdict().items()
        }
        told: dict[str, Any] = {"description": method.description, "budget": method.budget, "notes": method.notes()}
        told |= {"seconds_of_all_folds": round(seconds, 2), "folds": len(folds)}
        return {"rows": rows.tolist(), **columns, "told": told}


def read_predictions(data: Mapping[str, Any], labels: Labels) -> Predictions:
    """Take what a method's file predicts, one repeat of a table's rows; those not predicted are unset."""
    predictions = Predictions.blank(1, len(labels.score), labels.score)
    for name, column in predictions._asdict().items():
        column[0, data["rows"]] = np.array(data[name], dtype=column.dtype)
    return predictions
