"""Compare ways of judging in the same folds: quality with intervals and paired tests, beside what each costs.

    python -m training.compare --pairs work/labelled.jsonl --output work/compare --judge length

`training/configs/compare.yaml` is a chain of steps that compares all methods.

Every method predicts the rows that a fold holds out, from fits on its training rows alone. The quality of each, the
gain of the judge over it on the rows that both predict, the seconds and floating-point operations of scoring a pair,
and the budget that it was given go into results.json, table.md and quality_cost.png. A method that is done is not run
again.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError, SettingsError
from training.baselines import BASELINES
from training.baselines.tfidf import TfIdf
from training.combined import CombinedMethod
from training.compare_report import mean_auroc, plot, report, table
from training.cost import Cost
from training.evaluate import Fold, few_questions
from training.labels import UNCOUNTED, Labels, question_folds
from training.layer_weights import TuningConfig
from training.logits_cache import LogitsSettings, cached_layer_logits
from training.manifest import FOLDERS_MANIFEST, Manifest, write_atomically
from training.methods import LagerMethod, LayerLogits, Method, ProbesConfig, ProbesMethod, TextMethod
from training.metrics import DEFINITIONS, Predictions
from training.model_methods import (
    EncoderConfig,
    EncoderMethod,
    GeneratedConfig,
    GeneratedMethod,
    LoraConfig,
    LoraMethod,
)
from training.records import LabelledPair, json_text, labelled_pairs, read_json, read_records
from training.rubrics import FIVE_LEVELS, Rubric, chosen_rubrics
from training.stage import parse, run

logger = logging.getLogger(__name__)

STAGE = "compare"
TEXT_BASELINES = {baseline.name: baseline for baseline in (*BASELINES, TfIdf())}
LAGER_VARIANTS = (
    "last_argmax",
    "last_expectation",
    "logits_uniform_expectation",
    "logits_adam_expectation",
    "logits_convex_expectation",
)
COMBINED = "combined"
METHODS = "methods"  # folder of what each method predicted
COLUMNS = ("expected", "good", "good_probability", "score")


@dataclass(frozen=True)
class ScoreTokensConfig:
    """Methods that read or write score tokens.

    Attributes:
        judge: Folder of the lager stage, with all layers.
        variants: Which scores of the ablation: last_<decision>, or <logits or probabilities>_<weights>_<decision> with
            weights uniform, adam or convex, and the decision expectation or argmax.
        adam: How `adam` tunes.
        aspects: Which of the five aspects are the judge's, for the rubrics of free generation.
        scale: Theirs.
        custom_aspects: Further aspects of the judge.
        generated: Free generation of a score; null leaves it out.
    """

    judge: str
    variants: tuple[str, ...] = LAGER_VARIANTS
    adam: TuningConfig = field(default_factory=TuningConfig)
    aspects: tuple[str, ...] = tuple(FIVE_LEVELS)
    scale: Literal["1-5", "0-1"] = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    generated: GeneratedConfig | None = None


@dataclass(frozen=True)
class CompareConfig:
    """Settings of the compare stage.

    Attributes:
        pairs: Labelled rows.
        output: Folder to write to.
        judge: Name of the method that the others are compared with.
        baselines: Of majority, length, surface and tfidf.
        probes: Name -> probes on extracted features.
        combined: Name of the probes that are stacked with score tokens; null for no such method.
        score_tokens: Methods that read or write score tokens.
        encoder: An encoder to fine-tune.
        lora: Low-rank adapters of the backbone.
        uncounted: Aspects that are left out.
        folds: By question id over all aspects.
        bootstraps: Resamples of the questions for intervals and tests.
        learning_curve: Shares of the training questions to fit on besides; none to leave the curve out.
        curve_methods: Methods whose learning curves stand beside each other.
        timed_pairs: Pairs that each method is timed on.
        seed: Of folds, fits and resamples.
    """

    pairs: str
    output: str
    judge: str = "probes"
    baselines: tuple[str, ...] = tuple(TEXT_BASELINES)
    probes: dict[str, ProbesConfig] = field(default_factory=dict)
    combined: str | None = None
    score_tokens: ScoreTokensConfig | None = None
    encoder: EncoderConfig | None = None
    lora: LoraConfig | None = None
    uncounted: tuple[str, ...] = UNCOUNTED
    folds: int = 5
    bootstraps: int = 1000
    learning_curve: tuple[float, ...] = ()
    curve_methods: tuple[str, ...] = ("probes", "lager_logits_uniform_expectation", "combined")
    timed_pairs: int = 16
    seed: int = 731


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
    timed_pairs: int


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
        cost: Of scoring a pair.
        told: Description, budget, notes, seconds of all fits, and how many folds were run.
    """

    predictions: Predictions
    cost: Cost
    told: dict[str, Any]


class Comparison:
    """The pairs, their folds, and the methods that are asked for.

    Args:
        config: Settings.
    """

    def __init__(self, config: CompareConfig) -> None:
        """Read the pairs; no method is loaded yet.

        Raises:
            DataFileError: The pairs cannot be read or are too few.
            SettingsError: A method is unknown, two share a name, or the judge is none of them.
        """
        self.config = config
        rows = read_records(config.pairs, ("id", "question", "prediction"))
        self.pairs: list[LabelledPair] = labelled_pairs(rows, unlabelled=True)
        labels = Labels.of(self.pairs, config.uncounted)
        self.labels = labels.that_count()
        self.labels = replace(self.labels, row=np.arange(len(self.labels.score)))
        self._logits: LayerLogits | None = None
        self.entries = list(self._entries())
        names = [entry.name for entry in self.entries]
        if config.judge not in names or len(set(names)) != len(names):
            raise SettingsError(
                f"judge expects one of the methods, which have distinct names, but got {config.judge!r} of "
                f"{', '.join(names)}."
            )

    def folds(self) -> list[Fold]:
        """Return the folds."""
        divided = question_folds(self.labels, self.config.folds, self.config.seed)
        return [
            Fold(0, number, self.labels.take(fit_rows), self.labels.take(out_rows))
            for number, (fit_rows, out_rows) in enumerate(divided)
        ]

    def outcome(self, entry: Entry) -> Outcome:
        """Run a method on its folds, or read what it gave before."""
        config = self.config
        path = Path(config.output) / METHODS / f"{entry.name}.json"
        manifest = Manifest.of(STAGE, self._settings(entry), (config.pairs, *entry.inputs))
        if not manifest.vouches_for(path):
            write_atomically(path, json_text(self._run(entry.build())))
            manifest.write(path, [path])
        data = read_json(path)
        predictions = Predictions.blank(1, len(self.labels.score))
        for name in COLUMNS:
            column = getattr(predictions, name)
            column[0, data["rows"]] = np.array(data[name], dtype=column.dtype)
        return Outcome(predictions, Cost(**data["cost"]), data["told"])

    def _settings(self, entry: Entry) -> FoldSettings:
        config = self.config
        return FoldSettings(entry.settings, entry.name, config.folds, config.seed, config.uncounted, config.timed_pairs)

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
        return {**found, "cost": vars(method.cost()), "told": told}

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

    def learning_curve(self) -> dict[str, list[dict[str, Any]]]:
        """Fit methods on growing shares of each fold's training questions.

        Returns:
            Method -> for each share that it can be fitted on, the mean number of labels (`n`) and the mean AUROC.

        Raises:
            SettingsError: A method is not among those that are compared.
        """
        entries = {entry.name: entry for entry in self.entries}
        unknown = [name for name in self.config.curve_methods if name not in entries]
        if unknown:
            raise SettingsError(f"curve_methods expects methods that are compared, but got {unknown[0]!r}.")
        return {name: self._curve(entries[name]) for name in self.config.curve_methods}

    def _curve(self, entry: Entry) -> list[dict[str, Any]]:
        config, points = self.config, []
        path = Path(config.output) / METHODS / f"{entry.name}.curve.json"
        settings = CurveSettings(self._settings(entry), config.learning_curve, config.bootstraps)
        manifest = Manifest.of("learning_curve", settings, (config.pairs, *entry.inputs))
        if manifest.vouches_for(path):
            found: list[dict[str, Any]] = read_json(path)
            return found
        for share in (*config.learning_curve, 1.0):
            folds = [replace(fold, train=few_questions(fold.train, share, config.seed)) for fold in self.folds()]
            method, predictions = entry.build(), Predictions.blank(1, len(self.labels.score))
            try:
                for fold in folds:
                    for rows, prediction in method.predict(fold):
                        predictions.put(0, rows, prediction)
            except DataFileError as error:
                logger.info("%s cannot be fitted on a share of %g: %s", entry.name, share, error)
                continue
            outcome = Outcome(predictions, Cost(), {})
            auroc = mean_auroc(outcome, self.labels, config.bootstraps, config.seed)
            n = float(np.mean([(~fold.train.auxiliary).sum() for fold in folds]))
            points.append({"share": share, "n": round(n), "auroc": auroc})
        write_atomically(path, json_text(points))
        manifest.write(path, [path])
        return points

    def layer_logits(self, config: ScoreTokensConfig) -> LayerLogits:
        """Read the score tokens' logits of every labelled row, once for all variants."""
        if self._logits is None:
            path = Path(self.config.output) / METHODS / "layer_logits.safetensors"
            settings = LogitsSettings(config.judge, self.config.pairs, self.config.uncounted, self.config.timed_pairs)
            self._logits = cached_layer_logits(settings, self.pairs, self.labels, path)
        return self._logits


def compare(config: CompareConfig) -> dict[str, Any]:
    """Run the stage.

    Returns:
        The content of results.json.

    Raises:
        DataFileError: An input cannot be read or does not fit the pairs.
        SettingsError: A method is unknown.
        BackboneError: A model cannot be loaded.
    """
    comparison = Comparison(config)
    outcomes = {entry.name: comparison.outcome(entry) for entry in comparison.entries}
    results = report(outcomes, comparison.labels, config.judge, config.bootstraps, config.seed)
    results["protocol"] = {
        "cross_validation": f"{config.folds} folds by question id over all aspects, stratified by label, seed "
        f"{config.seed}; 1 repeat",
        "intervals": f"95 %, percentile, {config.bootstraps} resamples of questions, the same for all methods",
        "tests": "two-sided, the share of resamples on the other side of no difference, doubled; not corrected for the "
        "number of methods",
        "metrics": {name: DEFINITIONS[name] for name in ("auroc", "spearman", "macro_f1")},
        "cost": f"scoring a pair on all aspects, timed on {config.timed_pairs} pairs in batches once all is loaded; "
        "operations by formula, two for each weight and token, and those of attention",
    }
    if config.learning_curve:
        results["learning_curve"] = comparison.learning_curve()
    output = Path(config.output)
    write_atomically(output / "results.json", json_text(results))
    write_atomically(output / "table.md", table(results))
    plot(results, output / "quality_cost.png")
    logger.info("%s", table(results))
    return results


def main() -> None:
    """Parse arguments and run the stage."""
    compare(parse(CompareConfig, __doc__, STAGE))


if __name__ == "__main__":
    run(main)
