"""Ways of judging that are compared in the same folds: text baselines, probes, and score tokens.

Each predicts the rows that a fold holds out, from fits on its training rows alone. Those that train or run a whole
model are in `model_methods.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

import numpy as np

from inspector_pipeline.configuration_inspector import Feature
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.heads import AGGREGATIONS

from ...features.store import load_features
from ...probing.kernels import Design
from ...probing.search import Choice, SearchConfig, fit_judge, search
from ...probing.table import Array, Index, Labels, TooFewLabelsError
from ...rows.records import LabelledPair, is_good
from ...score_tokens.judge import BackboneSpec
from ...score_tokens.weights import TuningConfig, ten_scores, tune, uniform_weights
from ...stages.evaluate import Fold, predict
from ..cost import Cost, passes_cost
from ..metrics import Prediction
from .text import Baseline

DIRECT = {
    "argmax": "direct prompting: the likeliest score token of the last layer (VScore)",
    "expectation": "direct prompting: the expectation of the last layer's score tokens (E-Score)",
}
Predicted = Iterator[tuple[Index, Prediction]]


class Method(Protocol):
    """A way of judging."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""

    @property
    def budget(self) -> str:
        """What its fit was given beside the training labels, in a few words."""

    @property
    def n_folds(self) -> int | None:
        """How many of the folds it is run on; None for all."""

    def predict(self, fold: Fold) -> Predicted:
        """Fit on a fold's training rows and predict its test rows: their numbers in the table, and predictions."""

    def cost(self, notes: Mapping[str, Any]) -> Cost:
        """Measure what scoring a pair costs.

        Args:
            notes: Of the predictions; the method itself may be a new one that predicted nothing.
        """

    def notes(self) -> dict[str, Any]:
        """Say what else happened, such as failures."""


class TextMethod:
    """A baseline that reads texts alone."""

    n_folds: int | None = None
    budget = "one fit, nothing tuned"

    def __init__(self, baseline: Baseline, pairs: list[LabelledPair], seed: int) -> None:
        """Keep a baseline and all pairs."""
        self.baseline, self.pairs, self.seed = baseline, pairs, seed
        self.name, self.description = baseline.name, baseline.description

    def predict(self, fold: Fold) -> Predicted:
        """Fit and predict each aspect by itself."""
        train = fold.train.take(np.flatnonzero(~fold.train.auxiliary))
        for a in np.unique(fold.test.aspect):
            fitted, asked = np.flatnonzero(train.aspect == a), np.flatnonzero(fold.test.aspect == a)
            train_pairs = [self.pairs[i] for i in train.pair[fitted]]
            test_pairs = [self.pairs[i] for i in fold.test.pair[asked]]
            found = self.baseline.predict(train_pairs, train.score[fitted], test_pairs, train.classes[a], self.seed)
            yield fold.test.row[asked], found

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """No model is run, and what counting words costs is not worth a clock."""
        return Cost()

    def notes(self) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class ProbesConfig:
    """Probes on pooled states.

    Attributes:
        features: Folder of the extract stage: the same pairs, in the same order.
        search: What is searched inside each fold, and how it is fitted.
        description: What it is, in a few words.
    """

    features: str
    search: SearchConfig = field(default_factory=SearchConfig)
    description: str = "linear probes on pooled states, everything chosen inside each fold"


class ProbesMethod:
    """Probes, searched and fitted inside each fold."""

    n_folds: int | None = None

    def __init__(self, name: str, config: ProbesConfig, pairs: list[LabelledPair], labels: Labels, sample: int) -> None:
        """Open the features.

        Args:
            name: Its name in the table.
            config: Settings.
            pairs: The pairs that are compared on.
            labels: Their labels.
            sample: Number of pairs that are timed.

        Raises:
            DataFileError: The features are of other pairs.
        """
        self.name, self.description, self.search = name, config.description, config.search
        self.features = load_features(config.features)
        if _texts(self.features.pairs) != _texts(pairs):
            raise DataFileError(
                f"{config.features} expects features of the {len(pairs)} pairs that are compared, in the same order, "
                f"but holds {len(self.features.pairs)} others. Extract them from the same file."
            )
        self.timed = pairs[:sample]
        self.design = Design(self.features, labels)
        self.choices: list[Choice] = []

    @property
    def budget(self) -> str:
        """How much was searched."""
        config = self.search
        n_depths = len(config.depths or [n for n in self.features.layers if n > 0 and n % 2 == 0])
        n_settings = len(config.penalties) * len(config.sharings)
        n_heads = 1 + len(config.heads) * len(config.head_penalties)
        return (
            f"{len(config.views)} views x {n_depths} depths x {n_settings} settings by left-out errors; then "
            f"{n_heads} heads in {config.inner_folds} inner folds"
        )

    def predict(self, fold: Fold) -> Predicted:
        """Search, fit and predict.

        Raises:
            DataFileError: The training rows are too few.
        """
        check_both_kinds(fold.train, fold.test)
        choice = search(self.design, fold.train, self.search)
        self.choices.append(choice)
        judge = fit_judge(self.design, fold.train, choice, self.search)
        for own, prediction in predict(judge, self.design, fold.test):
            yield fold.test.row[own], prediction

    def cost(self, notes: Mapping[str, Any]) -> Cost:
        """Time the passes that the deepest choice needs, on a sample of pairs."""
        features = [Feature(*read) for read in notes["deepest_reads"]]
        settings = self.features.manifest.settings
        used = settings["backbone"]
        backbone = BackboneSpec(used["id"], used["revision"], used["dtype"], settings["max_length"])
        readings = {feature.reading: self.features.readings[feature.reading] for feature in features}
        return passes_cost(backbone, readings, features, self.timed)

    def notes(self) -> dict[str, Any]:
        """Say what was chosen, and what the deepest choice reads for all aspects."""
        depths, views = ([str(getattr(choice, name)) for choice in self.choices] for name in ("depth", "view"))
        found: dict[str, Any] = {"depths_chosen": depths, "views_chosen": views}
        if self.choices:
            deepest = max(self.choices, key=lambda choice: choice.depth)
            asked = (self.design.features(deepest.view, name, deepest.depth) for name in self._aspects)
            found["deepest_reads"] = list(dict.fromkeys(astuple(feature) for own in asked for feature in own))
        return found

    @property
    def _aspects(self) -> list[str]:
        labels = self.design.labels
        return [labels.names[a] for a in np.unique(labels.aspect)]


@dataclass(frozen=True)
class LayerLogits:
    """Score-token logits of every row of some aspects.

    Attributes:
        values: Aspect -> (rows of that aspect, layers, classes), in the table's order.
        scales: Aspect -> the scores of its tokens.
        labels: The table.
        cost: Times the passes; none are timed where it is not given.
    """

    values: Mapping[str, Array]
    scales: Mapping[str, tuple[int, ...]]
    labels: Labels
    cost: Callable[[], Cost] = Cost

    def of(self, aspect: str, rows: Index) -> Array:
        """Return the logits of some rows of the table, (rows, layers, classes)."""
        own = np.flatnonzero(self.labels.aspect == self.labels.names.index(aspect))
        return self.values[aspect][np.searchsorted(own, rows)]

    def by_scale(self) -> list[list[str]]:
        """Group the aspects by their scale."""
        scales = dict.fromkeys(self.scales.values())
        return [[name for name, own in self.scales.items() if own == scale] for scale in scales]


class LagerMethod:
    """Score tokens, without labels or with layer weights tuned on the training rows."""

    n_folds: int | None = None

    def __init__(self, variant: str, logits: LayerLogits, tuning: Mapping[str, TuningConfig]) -> None:
        """Take one of the ten scores of the ablation.

        Args:
            variant: `last_<decision>` or `<aggregation>_<weights>_<decision>`, the weights uniform or a key of tuning.
            logits: The score tokens' logits.
            tuning: Name -> how weights are tuned.

        Raises:
            SettingsError: The variant is none of these.
        """
        *how, self.decision = variant.split("_")
        self.aggregation, self.weights = (how[0], how[1]) if len(how) == 2 else ("logits", "last")
        known = self.aggregation in AGGREGATIONS and (self.weights in ("uniform", *tuning) or how == ["last"])
        if not known or self.decision not in ("expectation", "argmax"):
            raise SettingsError(
                f"A variant of score tokens expects last_<decision> or <logits or probabilities>_<uniform, "
                f"{' or '.join(tuning)}>_<decision>, with the decision expectation or argmax, but got {variant!r}."
            )
        self.name, self.logits, self.tuning = f"lager_{variant}", logits, tuning
        self.tuned: list[list[float]] = []

    @property
    def description(self) -> str:
        """What it is."""
        if self.weights == "last":
            return DIRECT[self.decision]
        return f"LAGER: {self.decision} of the {self.aggregation} of all layers, {self.weights} weights"

    @property
    def budget(self) -> str:
        """How weights were tuned."""
        tuning = self.tuning.get(self.weights)
        if tuning is None:
            return "no labels"
        if tuning.method == "convex":
            return "layer weights, one convex fit"
        return f"layer weights, {tuning.epochs} epochs of Adam"

    def predict(self, fold: Fold) -> Predicted:
        """Tune the weights of each scale on the training rows, and score the test rows."""
        for names in self.logits.by_scale():
            weights = self._tuned(fold.train, names)
            for name in names:
                asked = np.flatnonzero(fold.test.aspect == self.logits.labels.names.index(name))
                rows = fold.test.row[asked]
                yield rows, self._prediction(self.logits.of(name, rows), np.array(self.logits.scales[name]), weights)

    def _tuned(self, train: Labels, names: list[str]) -> Array:
        n_layers = self.logits.values[names[0]].shape[1]
        rows = [train.take(np.flatnonzero(self._is_of(train, name))) for name in names]
        if self.weights not in self.tuning or not any(len(own.score) for own in rows):
            return uniform_weights(n_layers)
        logits = np.concatenate([self.logits.of(name, own.row) for name, own in zip(names, rows, strict=True)])
        scores = np.concatenate([own.score for own in rows]).astype(float)
        scale = np.array(self.logits.scales[names[0]], dtype=float)
        weights = tune(logits, scores, scale, self.aggregation, self.tuning[self.weights])
        self.tuned.append(weights.round(4).tolist())
        return weights

    def _is_of(self, labels: Labels, name: str) -> Any:
        return (labels.aspect == self.logits.labels.names.index(name)) & ~labels.auxiliary

    def _prediction(self, logits: Array, scale: Index, weights: Array) -> Prediction:
        """Score rows; an argmax ranks by itself, as it is all that such a judge says."""
        scores = ten_scores(logits, dict.fromkeys(AGGREGATIONS, weights), scale.astype(float))
        key = "last" if self.weights == "last" else f"{self.aggregation}_tuned"
        found = scores[f"{key}_{self.decision}"]
        nearest = scale[np.abs(found[:, None] - scale).argmin(axis=1)]
        return Prediction(found, found, np.full(len(found), np.nan), nearest)

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """What the passes cost, the same for every variant."""
        return self.logits.cost()

    def notes(self) -> dict[str, Any]:
        """The weights, for each fold and scale."""
        return {"layer_weights": self.tuned} if self.tuned else {}


def with_both_kinds(train: Labels) -> list[int]:
    """Return the aspects that probes can be fitted for: those with good and with other labels."""
    positive = train.positive
    labelled = [int(a) for a in np.unique(train.aspect)]
    return [a for a in labelled if len(np.unique(positive[(train.aspect == a) & ~train.auxiliary])) == 2]


def check_both_kinds(train: Labels, asked: Labels) -> None:
    """Refuse training rows from which no probe can be fitted for the aspects that are asked for.

    Raises:
        TooFewLabelsError: An aspect lacks good or other labels.
    """
    known = with_both_kinds(train)
    lacking = [train.names[a] for a in np.union1d(train.aspect, asked.aspect) if a not in known]
    if lacking:
        raise TooFewLabelsError(
            f"Probes expect good and other labels of {lacking[0]} among the training rows, but got none or one kind."
        )


def from_probabilities(probabilities: Array, classes: list[int]) -> Prediction:
    """Predict by the likeliest class, and rank by P(good).

    Args:
        probabilities: (rows, classes).
        classes: The classes.
    """
    scale = np.array(classes)
    good = probabilities[:, is_good(scale, classes)].sum(axis=1)
    return Prediction(probabilities @ scale, good, good, scale[probabilities.argmax(axis=1)])


def _texts(pairs: list[LabelledPair]) -> list[tuple[str, str, dict[str, int]]]:
    return [(str(pair.id), pair.prediction, pair.scores) for pair in pairs]
