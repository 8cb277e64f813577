"""The methods of a comparison: their predictions in the same folds, what they cost, and their learning curves.

What a method gave is kept beside the comparison and not made again. Costs are timed once all predictions are there, so
that they stand beside each other.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..labelling.rubrics import chosen_rubrics
from ..probing.table import TooFewLabelsError, counted_table, question_folds
from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import FOLDERS_MANIFEST, Manifest
from ..score_tokens.stack import CombinedMethod
from ..score_tokens.weights import TuningConfig
from ..stages.evaluate import Fold, few_questions
from .comparison_config import TEXT_BASELINES, CompareConfig, ScoreTokensConfig
from .cost import Cost, judge_cost
from .methods.base import LagerMethod, LayerLogits, Method, ProbesMethod, TextMethod
from .methods.generated import EncoderMethod, GeneratedMethod, LoraMethod
from .methods.score_tokens import LogitsSettings, cached_layer_logits
from .metrics import Predictions
from .tables import mean_auroc

logger = logging.getLogger(__name__)

STAGE = "compare"
COMBINED = "combined"
METHODS = "methods"  # folder of what each method predicted
LEARNING_CURVE = "learning_curve"  # the stage that its manifests name
CURVE = ".curve.json"
COLUMNS = ("expected", "good", "good_probability", "score")


class Entry(NamedTuple):
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
class FoldSettings:
    """What every method's predictions depend on."""

    method: Any
    name: str
    folds: int
    seed: int
    uncounted: tuple[str, ...]


@dataclass(frozen=True)
class CostSettings:
    """What a method's cost depends on beside its predictions."""

    timed_pairs: int
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")
    threads: int = field(default_factory=torch.get_num_threads)


@dataclass(frozen=True)
class CurveSettings:
    """What a learning curve depends on."""

    fold: FoldSettings
    shares: tuple[float, ...]
    bootstraps: int


@dataclass(frozen=True)
class Outcome:
    """What a method predicted, and what it costs.

    Attributes:
        predictions: One repeat, of every row of the table; rows that it did not predict are unset.
        told: Description, budget, notes, seconds of all fits, and how many folds were run.
        cost: Of scoring a pair; timed once all methods have predicted.
    """

    predictions: Predictions
    told: dict[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


class Comparison:
    """The pairs, their folds, and the methods that are asked for.

    Args:
        config: Settings.
    """

    def __init__(self, config: CompareConfig) -> None:
        """Read the pairs; no method is loaded yet.

        Raises:
            DataFileError: The pairs cannot be read or are too few.
            SettingsError: A method is unknown, two share a name, the judge is none of them, or the learning curve names
                what is not compared or a share out of range.
        """
        self.config = config
        rows = read_records(config.pairs, ("id", "question", "prediction"))
        self.pairs: list[LabelledPair] = labelled_pairs(rows, unlabelled=True)
        self.labels = counted_table(self.pairs, config.uncounted)
        self._logits: LayerLogits | None = None
        self.entries = list(self._entries())
        names = [entry.name for entry in self.entries]
        if config.judge not in names or len(set(names)) != len(names):
            raise SettingsError(
                f"judge expects one of the methods, which have distinct names, but got {config.judge!r} of "
                f"{', '.join(names)}."
            )
        self._check_curve(names)

    def _check_curve(self, names: list[str]) -> None:
        """Refuse a learning curve that cannot be drawn, before the methods run for hours."""
        shares = self.config.learning_curve
        if not all(0 <= share < 1 for share in shares):
            raise SettingsError(f"learning_curve expects shares from 0 to below 1, but got {shares}.")
        unknown = [name for name in self.config.curve_methods if name not in names]
        if shares and unknown:
            raise SettingsError(f"curve_methods expects methods that are compared, but got {unknown[0]!r}.")

    def folds(self) -> list[Fold]:
        """Return the folds."""
        divided = question_folds(self.labels, self.config.folds, self.config.seed)
        return [
            Fold(0, number, self.labels.take(fit_rows), self.labels.take(out_rows))
            for number, (fit_rows, out_rows) in enumerate(divided)
        ]

    def outcomes(self) -> dict[str, Outcome]:
        """Run every method on its folds, then time them one after another; what was done before is read."""
        found = {entry.name: self._outcome(entry) for entry in self.entries}
        return {entry.name: replace(found[entry.name], cost=self._cost(entry, found)) for entry in self.entries}

    def _outcome(self, entry: Entry) -> Outcome:
        config, path = self.config, self._path(entry)
        manifest = Manifest.of(STAGE, self._settings(entry), (config.pairs, *entry.inputs))
        if not manifest.vouches_for(path):
            write_atomically(path, json_text(self._run(entry.build())))
            manifest.write(path, [path])
        data = read_json(path)
        return Outcome(read_predictions(data, len(self.labels.score)), data["told"])

    def _cost(self, entry: Entry, outcomes: Mapping[str, Outcome]) -> Cost:
        path = self._path(entry).with_suffix(".cost.json")
        made_from = (self.config.pairs, str(self._path(entry)), *entry.inputs)
        manifest = Manifest.of("cost", CostSettings(self.config.timed_pairs), made_from)
        if not manifest.vouches_for(path):
            cost = entry.build().cost(outcomes[entry.name].told["notes"])
            write_atomically(path, json_text(asdict(cost)))
            manifest.write(path, [path])
        return Cost(**read_json(path))

    def _path(self, entry: Entry) -> Path:
        return Path(self.config.output) / METHODS / f"{entry.name}.json"

    def _settings(self, entry: Entry) -> FoldSettings:
        config = self.config
        return FoldSettings(entry.settings, entry.name, config.folds, config.seed, config.uncounted)

    def _run(self, method: Method) -> dict[str, Any]:
        found: dict[str, list[Any]] = {name: [] for name in ("rows", *COLUMNS)}
        start = time.perf_counter()
        folds = self.folds()[: method.n_folds]
        for fold in hf_logging.tqdm(folds, desc=method.name, unit="fold"):
            for rows, prediction in method.predict(fold):
                for name, values in zip(found, (rows, *prediction), strict=True):
                    found[name] += [None if np.isnan(value) else value for value in values.tolist()]
        seconds = time.perf_counter() - start
        logger.info("%s: %d folds in %.0f s.", method.name, len(folds), seconds)
        told: dict[str, Any] = {"description": method.description, "budget": method.budget, "notes": method.notes()}
        told |= {"seconds_of_all_folds": round(seconds, 2), "folds": len(folds)}
        return {**found, "told": told}

    def _entries(self) -> Iterator[Entry]:
        config, pairs, sample = self.config, self.pairs, self.config.timed_pairs
        for name in config.baselines:
            if name not in TEXT_BASELINES:
                raise SettingsError(f"baselines expects some of {', '.join(TEXT_BASELINES)}, but got {name!r}.")
            baseline = TEXT_BASELINES[name]
            yield Entry(name, repr(baseline), (), partial(TextMethod, baseline, pairs, config.seed))
        for name, probes in config.probes.items():
            inputs = (str(Path(probes.features) / FOLDERS_MANIFEST),)
            yield Entry(
                name,
                probes,
                inputs,
                partial(ProbesMethod, name, probes, pairs, self.labels, sample),
            )
        if config.score_tokens is not None:
            yield from self._score_tokens(config.score_tokens)
        if config.combined is not None:
            yield self._combined(config.combined)
        if config.encoder is not None:
            encoder = config.encoder
            yield Entry("encoder", encoder, (), partial(EncoderMethod, encoder, pairs, self.labels, sample))
        if config.lora is not None:
            lora = config.lora
            yield Entry("lora", lora, (), partial(LoraMethod, lora, pairs, self.labels, sample))

    def _score_tokens(self, config: ScoreTokensConfig) -> Iterator[Entry]:
        tuning = {"adam": config.adam, "convex": TuningConfig(method="convex")}
        inputs = (str(Path(config.judge) / FOLDERS_MANIFEST),)
        for variant in config.variants:
            settings = {"variant": variant, "tuning": repr(tuning)}
            yield Entry(
                f"lager_{variant}",
                settings,
                inputs,
                partial(self._lager, variant, config, tuning),
            )
        if config.generated is not None:
            generated, rubrics = config.generated, chosen_rubrics(config.aspects, config.scale, config.custom_aspects)
            sample = self.config.timed_pairs
            yield Entry(
                "generated",
                {"generated": generated, "rubrics": repr(rubrics)},
                inputs,
                partial(GeneratedMethod, generated, config.judge, rubrics, self.pairs, self.labels, sample),
            )

    def _lager(self, variant: str, config: ScoreTokensConfig, tuning: Mapping[str, TuningConfig]) -> LagerMethod:
        return LagerMethod(variant, self.layer_logits(config), tuning)

    def _combined(self, probes: str) -> Entry:
        """Ask for probes stacked with score tokens.

        Raises:
            SettingsError: One of the two is not asked for.
        """
        tokens, own = self.config.score_tokens, self.config.probes.get(probes)
        if tokens is None or own is None:
            raise SettingsError(
                f"combined expects score_tokens and the name of probes, {', '.join(self.config.probes) or 'none'}, but "
                f"got {probes!r}."
            )
        inputs = (str(Path(own.features) / FOLDERS_MANIFEST), str(Path(tokens.judge) / FOLDERS_MANIFEST))

        def build() -> Method:
            method = ProbesMethod(probes, own, self.pairs, self.labels, self.config.timed_pairs)
            return CombinedMethod(COMBINED, method, self.layer_logits(tokens))

        return Entry(COMBINED, own, inputs, build)

    def learning_curve(self, outcomes: Mapping[str, Outcome]) -> dict[str, list[dict[str, Any]]]:
        """Fit methods on growing shares of each fold's training questions.

        Args:
            outcomes: What every method predicted from all training rows: the curves' last points.

        Returns:
            Method -> for each share that it can be fitted on, the mean number of labels (`n`) and the mean AUROC.
        """
        entries = {entry.name: entry for entry in self.entries}
        found = {}
        for name in self.config.curve_methods:
            whole = self.folds()[: outcomes[name].told["folds"]]
            found[name] = [*self._curve(entries[name]), self._point(1.0, whole, outcomes[name].predictions)]
        return found

    def _curve(self, entry: Entry) -> list[dict[str, Any]]:
        config, points = self.config, []
        path = self._path(entry).with_suffix(CURVE)
        settings = CurveSettings(self._settings(entry), config.learning_curve, config.bootstraps)
        manifest = Manifest.of(LEARNING_CURVE, settings, (config.pairs, *entry.inputs))
        if manifest.vouches_for(path):
            found: list[dict[str, Any]] = read_json(path)
            return found
        for share in config.learning_curve:
            method, predictions = entry.build(), Predictions.blank(1, len(self.labels.score))
            whole = self.folds()[: method.n_folds]
            folds = [replace(fold, train=few_questions(fold.train, share, config.seed)) for fold in whole]
            try:
                for fold in folds:
                    for rows, prediction in method.predict(fold):
                        predictions.put(0, rows, prediction)
            except TooFewLabelsError as error:
                logger.info("%s cannot be fitted on a share of %g: %s", entry.name, share, error)
                continue
            points.append(self._point(share, folds, predictions))
        write_atomically(path, json_text(points))
        manifest.write(path, [path])
        return points

    def _point(self, share: float, folds: list[Fold], predictions: Predictions) -> dict[str, Any]:
        auroc = mean_auroc(predictions, self.labels, self.config.bootstraps, self.config.seed)
        n = float(np.mean([(~fold.train.auxiliary).sum() for fold in folds]))
        return {"share": share, "n": round(n), "auroc": auroc}

    def layer_logits(self, config: ScoreTokensConfig) -> LayerLogits:
        """Read the score tokens' logits of every labelled row, once for all variants."""
        if self._logits is None:
            path = Path(self.config.output) / METHODS / "layer_logits.safetensors"
            settings = LogitsSettings(config.judge, self.config.pairs, self.config.uncounted)
            cost = cache(partial(judge_cost, config.judge, self.pairs[: self.config.timed_pairs]))
            self._logits = replace(cached_layer_logits(settings, self.pairs, self.labels, path), cost=cost)
        return self._logits


def read_predictions(data: Mapping[str, Any], n_rows: int) -> Predictions:
    """Take what a method's file predicts, one repeat of a table of so many rows; those not predicted are unset."""
    predictions = Predictions.blank(1, n_rows)
    for name in COLUMNS:
        column = getattr(predictions, name)
        column[0, data["rows"]] = np.array(data[name], dtype=column.dtype)
    return predictions
