"""Estimate a judge's quality by nested cross-validation, beside its baselines.

    python -m training evaluate --features work/features --output work/results.json

Whatever is chosen (reading, poolings, layers, depth, head, penalty, calibration) is chosen anew inside each fold from
its training rows. The majority, length and surface baselines, and another way of fitting if one is named, are fitted in
the same folds, and all differences are paired over the same resamples of questions.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically

from ..evaluation.methods.text import BASELINES
from ..evaluation.metrics import (
    DEFINITIONS,
    METRICS,
    UNSET,
    Prediction,
    Predictions,
    averaged,
    bootstrap,
    compared,
    confusion,
    label_counts,
    reliability,
    resamples,
)
from ..features.store import FeatureSet, concatenate, load_features
from ..probing.kernels import Design
from ..probing.search import Choice, FittedJudge, SearchConfig, fit_judge, search
from ..probing.table import Array, Index, Labels, question_folds
from ..rows.records import is_good
from ..runs.manifest import Manifest, manifest_path

logger = logging.getLogger(__name__)

STAGE = "evaluate"
JUDGE = "judge"
RIVAL = "rival"


@dataclass(frozen=True)
class Config:
    """Settings of the evaluate stage.

    Attributes:
        features: Folders of the extract stage: the labelled pairs, and auxiliary ones.
        output: results.json to write.
        search: Settings of the search and fit that are evaluated.
        rival: Settings of another fit of the aspects that count, to compare with in the same folds, such as the
            published form.
        rival_features: Folder of its features, of the same pairs; those of the judge where not given.
        transfer: Folders of other labelled pairs (another dataset or generator), predicted but never fitted on.
        folds: Outer folds, by question id over all aspects.
        repeats: Repetitions with other folds.
        bootstraps: Resamples of the questions for the intervals.
        learning_curve: Shares of the training questions to fit on, one repeat each; none to leave the curve out.
        seed: Of folds, forests and resamples.
        candidates_tried: How many other settings people looked at on this data before; said in the evidence.
    """

    features: tuple[str, ...]
    output: str
    search: SearchConfig = field(default_factory=SearchConfig)
    rival: SearchConfig | None = None
    rival_features: str | None = None
    transfer: tuple[str, ...] = ()
    folds: int = 5
    repeats: int = 3
    bootstraps: int = 1000
    learning_curve: tuple[float, ...] = (0.1, 0.2, 0.4, 0.7)
    seed: int = 731
    candidates_tried: int = 0


@dataclass(frozen=True)
class Fold:
    """One division of the labelled rows, by their numbers in the whole table."""

    repeat: int
    number: int
    train: Labels
    test: Labels


class Evaluation:
    """A nested cross-validation of one set of labelled pairs.

    Args:
        features: Features of labelled pairs.
        transfer: Name -> features of pairs that are predicted only.
        config: Settings.
    """

    def __init__(self, features: FeatureSet, transfer: Mapping[str, FeatureSet], config: Config) -> None:
        """Lay out the rows; nothing is fitted yet."""
        others = [replace(one, pairs=[replace(p, auxiliary=True) for p in one.pairs]) for one in transfer.values()]
        joined = concatenate([features, *others]) if others else features
        self.config = config
        self.main_pairs = features.pairs
        self.pairs = joined.pairs
        self.labels = Labels.of(joined.pairs, config.search.uncounted)
        self.design = Design(joined, self.labels)
        ends = np.cumsum([len(features.pairs), *(len(one.pairs) for one in others)])
        self.source = np.searchsorted(ends, self.labels.pair, side="right")
        self.transfer_names = tuple(transfer)
        self.main = self.labels.take(np.flatnonzero(self.source == 0))
        self.samples = resamples(self.main.question[~self.main.auxiliary], config.bootstraps, config.seed)

    def folds(self, repeats: int) -> list[Fold]:
        """Return the outer folds of some repeats."""
        return [
            Fold(repeat, number, self.main.take(fit_rows), self.main.take(out_rows))
            for repeat in range(repeats)
            for number, (fit_rows, out_rows) in enumerate(
                question_folds(self.main, self.config.folds, self.config.seed + repeat)
            )
        ]

    def blank(self, repeats: int) -> Predictions:
        """Make room for predictions of every row of the table."""
        return Predictions.blank(repeats, len(self.labels.score))

    def transfer_rows(self, fold: Fold) -> Labels:
        """Return the rows of other sets that this fold predicts: its held-out questions, and its share of new ones."""
        questions, known = np.unique(self.labels.question, return_inverse=True)
        is_known = np.isin(questions, self.main.question)
        turn = np.cumsum(~is_known) % self.config.folds
        held_out = np.isin(questions, fold.test.question) | (~is_known & (turn == fold.number))
        return self.labels.take(np.flatnonzero(held_out[known] & (self.source > 0)))


def evaluate(
    features: FeatureSet,
    config: Config,
    *,
    rival_features: FeatureSet | None = None,
    transfer: Mapping[str, FeatureSet] | None = None,
) -> dict[str, Any]:
    """Run the nested cross-validation.

    Args:
        features: Features of labelled pairs.
        config: Settings; the paths in it are not read.
        rival_features: Features of the same pairs, for the settings' rival.
        transfer: Name -> features of other labelled pairs.

    Returns:
        The evidence, in the form of results.json.
    """
    evaluation = Evaluation(features, transfer or {}, config)
    rival_design = _rival_design(evaluation, rival_features) if config.rival else None
    predictions = {name: evaluation.blank(config.repeats) for name in _methods(config)}
    choices = []
    folds = evaluation.folds(config.repeats)
    for fold in hf_logging.tqdm(folds, desc="evaluate", unit="fold"):
        choice = search(evaluation.design, fold.train, config.search)
        choices.append(choice)
        judge = fit_judge(evaluation.design, fold.train, choice, config.search)
        asked = [fold.test] if fold.repeat else [fold.test, evaluation.transfer_rows(fold)]
        for rows in asked:
            put(predictions[JUDGE], fold.repeat, judge, evaluation.design, rows)
            _put_baselines(predictions, evaluation, fold, rows)
        if rival_design and config.rival:
            train = fold.train.that_count()
            rival = fit_judge(rival_design, train, search(rival_design, train, config.rival), config.rival)
            put(predictions[RIVAL], fold.repeat, rival, rival_design, fold.test.that_count())
    results = _results(evaluation, predictions, choices)
    if config.learning_curve:
        results["learning_curve"] = learning_curve(evaluation)
    if evaluation.transfer_names:
        results["transfer"] = _transfer(evaluation, predictions)
    return results


def _methods(config: Config) -> list[str]:
    return [JUDGE, *(baseline.name for baseline in BASELINES), *([RIVAL] if config.rival else [])]


def _rival_design(evaluation: Evaluation, features: FeatureSet | None) -> Design:
    if features is None:
        return evaluation.design
    labels = evaluation.labels
    theirs = [(str(pair.id), pair.prediction, pair.scores) for pair in features.pairs]
    ours = [(str(pair.id), pair.prediction, pair.scores) for pair in evaluation.main_pairs if not pair.auxiliary]
    # A rival is fitted without auxiliary rows; those of the features come last, so that the others keep their numbers.
    if theirs != ours or any(pair.auxiliary for pair in evaluation.main_pairs[: len(ours)]):
        raise DataFileError(
            f"rival_features expects the same {len(ours)} labelled pairs as features, in the same order and before any "
            f"auxiliary ones, but got {len(features.pairs)} others. Extract both from one file, without auxiliary or "
            "transfer sets."
        )
    return Design(features, labels)


def predict(judge: FittedJudge, design: Design, rows: Labels) -> Iterator[tuple[Index, Prediction]]:
    """Predict rows of a table, aspect by aspect: their places among the rows, and what is predicted."""
    values = judge.values(design, rows)
    for a, calibration in judge.calibrations.items():
        own, classes = np.flatnonzero(rows.aspect == a), rows.classes[a]
        if len(own):
            scale = np.array(classes)
            probabilities = calibration.probabilities(values[own])
            expected = probabilities @ scale
            good = probabilities[:, is_good(scale, classes)].sum(axis=1)
            yield own, Prediction(expected, expected, good, scale[calibration.class_index(values[own])])


def put(predictions: Predictions, repeat: int, judge: FittedJudge, design: Design, rows: Labels) -> None:
    """Predict rows and write that into one repeat, at the rows' numbers in the whole table."""
    for own, prediction in predict(judge, design, rows):
        predictions.put(repeat, rows.row[own], prediction)


def _put_baselines(predictions: Mapping[str, Predictions], evaluation: Evaluation, fold: Fold, rows: Labels) -> None:
    train = fold.train.take(np.flatnonzero(~fold.train.auxiliary))
    for a, classes in enumerate(train.classes):
        fitted, asked = np.flatnonzero(train.aspect == a), np.flatnonzero(rows.aspect == a)
        train_pairs = [evaluation.pairs[i] for i in train.pair[fitted]]
        test_pairs = [evaluation.pairs[i] for i in rows.pair[asked]]
        for baseline in BASELINES if len(asked) else ():
            seed = evaluation.config.seed + fold.repeat
            found = baseline.predict(train_pairs, train.score[fitted], test_pairs, classes, seed)
            predictions[baseline.name].put(fold.repeat, rows.row[asked], found)


def _results(
    evaluation: Evaluation, predictions: Mapping[str, Predictions], choices: Sequence[Choice]
) -> dict[str, Any]:
    config, labels = evaluation.config, evaluation.labels
    aspects: dict[str, Any] = {}
    draws: dict[str, list[dict[str, Array]]] = {name: [] for name in predictions}
    for a, (name, classes) in enumerate(zip(labels.names, labels.classes, strict=True)):
        rows = evaluation.main.row[(evaluation.main.aspect == a) & ~evaluation.main.auxiliary]
        truth, weights = labels.score[rows], evaluation.samples.weights(labels.question[rows])
        own = {
            method: bootstrap(truth, classes, found.take(rows), weights)
            for method, found in predictions.items()
            if method != RIVAL or labels.counted[a]
        }
        if labels.counted[a]:
            for method, values in own.items():
                draws[method].append(values)
        judge = predictions[JUDGE].take(rows)
        aspects[name] = {
            **label_counts(truth, classes),
            "counts_in_total": labels.counted[a],
            **compared(own[JUDGE], {method: values for method, values in own.items() if method != JUDGE}),
            "reliability": reliability(is_good(truth, classes), judge.good_probability),
            "confusion": confusion(truth, classes, judge),
        }
    means = {method: averaged(values) for method, values in draws.items() if values}
    mean = compared(means[JUDGE], {m: values for m, values in means.items() if m != JUDGE}) if means else {}
    return {
        "aspects": aspects,
        "mean": mean,
        "protocol": _protocol(config, choices),
        "candidates_tried": config.candidates_tried,
    }


def _protocol(config: Config, choices: Sequence[Choice]) -> dict[str, Any]:
    depths = [choice.depth for choice in choices]
    views = [str(choice.view) for choice in choices]
    heads = [choice.settings[0].head for choice in choices]
    auxiliary = [choice.settings[0].auxiliary for choice in choices]
    settings = {"search": asdict(config.search), "rival": asdict(config.rival) if config.rival else None}
    for name in ("folds", "repeats", "bootstraps", "seed"):
        settings[name] = getattr(config, name)
    return {
        "cross_validation": (
            f"{config.folds} folds x {config.repeats} repeats, by question id over all aspects, stratified by label"
        ),
        "chosen_inside_each_fold": [
            "poolings",
            "depth",
            "head",
            "penalty",
            "sharing between aspects",
            "thresholds",
            "cuts",
            "centres",
        ],
        "metrics": {name: DEFINITIONS[name] for name in METRICS},
        "intervals": f"95 %, percentile, {config.bootstraps} resamples of questions",
        "baselines": {baseline.name: baseline.description for baseline in BASELINES},
        "depths_chosen": _counted(depths),
        "views_chosen": _counted(views),
        "heads_chosen": _counted(heads),
        "auxiliary_weights_chosen": _counted(auxiliary),
        "settings": settings,
    }


def _counted(values: Sequence[Any]) -> dict[str, int]:
    return {str(value): values.count(value) for value in sorted(set(values))}


def learning_curve(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Fit on growing shares of each fold's training questions, and predict its test rows.

    Only ridge is tried. A share that leaves an aspect but one class, or too few questions for the inner folds, is left
    out.

    Returns:
        For each share the mean number of labels (`n`), and the mean AUROC of judge and surface with intervals.
    """
    config = evaluation.config
    points = []
    for share in hf_logging.tqdm((*config.learning_curve, 1.0), desc="learning curve", unit="share"):
        predictions = {name: evaluation.blank(1) for name in _methods(replace(config, rival=None))}
        sizes = []
        for fold in evaluation.folds(1):
            few = few_questions(fold.train, share, config.seed)
            judge = _fit_few(evaluation, few)
            if judge is None:
                logger.info("The learning curve leaves out a share of %g: too few labels of some aspect.", share)
                break
            smaller = replace(fold, train=few)
            put(predictions[JUDGE], 0, judge, evaluation.design, fold.test)
            _put_baselines(predictions, evaluation, smaller, fold.test)
            sizes.append(int((~few.auxiliary).sum()))
        else:
            results = _results(evaluation, predictions, [])["mean"]
            if results:
                point = {"auroc": results["auroc"], "surface": results["surface"]["auroc"]}
                points.append({"n": round(float(np.mean(sizes))), "share": share, **point})
    return points


def _fit_few(evaluation: Evaluation, few: Labels) -> FittedJudge | None:
    """Fit on few rows; None where an aspect has one kind of label only, or labels of too few questions to divide."""
    own = [few.take(np.flatnonzero((few.aspect == a) & ~few.auxiliary)) for a in range(len(few.names))]
    if any(len(np.unique(labels.positive)) < 2 for labels in own):
        return None
    config = replace(evaluation.config.search, heads=())
    try:
        return fit_judge(evaluation.design, few, search(evaluation.design, few, config), config)
    except DataFileError:  # the same features and settings served all rows, so it is these that are too few
        return None


def few_questions(train: Labels, share: float, seed: int) -> Labels:
    """Keep a share of the training questions, at least one but for a share of 0, with all their rows."""
    questions = np.unique(train.question)
    n_kept = max(1, round(share * len(questions))) if share > 0 else 0
    kept = np.random.default_rng(seed).permutation(questions)[:n_kept]
    return train.take(np.flatnonzero(np.isin(train.question, kept)))


def _transfer(evaluation: Evaluation, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """Compare judge and surface on sets that were never fitted on, by folds that never saw their questions.

    Rows of a question that every fold may fit on, by auxiliary rows of its own, are left out.
    """
    labels, config = evaluation.labels, evaluation.config
    found: dict[str, Any] = {}
    for number, name in enumerate(evaluation.transfer_names, start=1):
        aspects = {}
        for a, aspect in enumerate(labels.names):
            unseen = predictions[JUDGE].score[0] != UNSET
            rows = np.flatnonzero((evaluation.source == number) & (labels.aspect == a) & unseen)
            truth, classes = labels.score[rows], sorted({*labels.classes[a], *labels.score[rows].tolist()})
            if len(np.unique(is_good(truth, classes))) == 2:
                samples = resamples(labels.question[rows], config.bootstraps, config.seed)
                weights = samples.weights(labels.question[rows])
                own = {
                    method: bootstrap(truth, classes, first_repeat(predictions[method]).take(rows), weights)
                    for method in (JUDGE, *(baseline.name for baseline in BASELINES))
                }
                compare = compared(own[JUDGE], {method: values for method, values in own.items() if method != JUDGE})
                aspects[aspect] = {**label_counts(truth, classes), **compare}
        found[name] = aspects
    return found


def first_repeat(predictions: Predictions) -> Predictions:
    """Return the first repeat alone."""
    return Predictions(
        predictions.expected[:1], predictions.good[:1], predictions.good_probability[:1], predictions.score[:1]
    )


def report(results: Mapping[str, Any]) -> str:
    """Write the AUROC of every aspect as a table for people."""

    def shown(x: Mapping[str, float]) -> str:
        return f"{x['value']:.3f} ({x['low']:.3f} to {x['high']:.3f})"

    lines = []
    mean = [("mean", results["mean"])] if results["mean"] else []
    for name, entry in [*results["aspects"].items(), *mean]:
        line = f"{name:<22} AUROC {shown(entry['auroc'])}"
        for other in ("surface", RIVAL):
            if other in entry:
                gain = entry[f"gain_over_{other}"]["auroc"]
                line += f"   {other} {entry[other]['auroc']['value']:.3f}, gain {shown(gain)}"
        lines.append(line)
    return "\n".join(lines)


def run(config: Config) -> None:
    """Run the stage: folders of features -> results.json.

    Raises:
        DataFileError: The features are incomplete, do not match, or carry too few labels.
    """
    output = Path(config.output)
    folders = [*config.features, *config.transfer, *([config.rival_features] if config.rival_features else [])]
    manifest = Manifest.of(STAGE, config, [manifest_path(Path(folder)) for folder in folders])
    if manifest.is_done(output):
        return
    results = evaluate(
        concatenate([load_features(folder) for folder in config.features]),
        config,
        rival_features=load_features(config.rival_features) if config.rival_features else None,
        transfer={name: load_features(folder) for name, folder in _named(config.transfer).items()},
    )
    write_atomically(output, json_text(results))
    manifest.write(output, [output])
    logger.info(report(results))


def _named(folders: Sequence[str]) -> dict[str, str]:
    """Name folders by their last part, and where several share it, by as many parts as tell them apart."""
    parts = [Path(folder).parts for folder in folders]
    for n in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(own[-n:]) for own in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, folders, strict=True))
    if folders:
        raise DataFileError(f"transfer expects different folders, but got {', '.join(folders)}. Name each once.")
    return {}
