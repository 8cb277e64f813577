"""Fit ridge probes for all aspects together, and choose one depth for the judge, from training rows alone.

A probe is one linear map over the pooled states of layers 1..depth. Aspects lend each other strength: an aspect's
weight is a part that all share plus a part of its own (Evgeniou and Pontil, KDD 2004), each aspect with its own centre.
Fits and predictions of every depth, penalty, sharing and fold come from Gram matrices that are computed once. Inner
cross-validation chooses: the best mean AUROC over aspects, then the shallowest depth that loses at most `tolerance`
against it. Probabilities come from a cumulative logit model, and the cuts between scores from quantiles, both on the
inner folds' held-out predictions.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedKFold

from training.extract import FeatureSet
from training.probing_set import is_positive

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit stage.

    Attributes:
        poolings: Which poolings a probe reads at each layer.
        depths: Depths to choose from; each reads all layers from 1 to itself.
        alphas: Ridge penalties to choose from, as multiples of the centred kernel's mean diagonal.
        sharings: Weights of the part that aspects share, against 1 for their own, to choose from; 0 fits each alone.
        tolerance: Mean AUROC that a shallower depth may lose against the best.
        threshold_weight: The regression's target is score + weight * (score is good), where good is 4 or 5, or 1 of 0
            and 1: what users filter by counts more than a step elsewhere on the scale.
        inner_folds: Of the cross-validation that chooses.
        seed: Of its folds.
    """

    poolings: tuple[str, ...] = ("response_mean", "last")
    depths: tuple[int, ...] = tuple(range(2, 31, 2))
    alphas: tuple[float, ...] = (1.0, 2.0, 4.0)
    sharings: tuple[float, ...] = (1.0, 3.0, 10.0)
    tolerance: float = 0.005
    threshold_weight: float = 4.0
    inner_folds: int = 5
    seed: int = 731


@dataclass(frozen=True)
class Labels:
    """All labels of all aspects, one row each.

    Attributes:
        names: The aspects.
        classes: For each aspect the scores that occur, ascending.
        aspect: (rows,) which aspect.
        pair: (rows,) which pair of the feature set.
        question: (rows,) its question's id.
        score: (rows,) the label.
    """

    names: tuple[str, ...]
    classes: tuple[list[int], ...]
    aspect: Index
    pair: Index
    question: NDArray[np.str_]
    score: Index

    @classmethod
    def of(cls, features: FeatureSet) -> "Labels":
        """Collect the labels, aspects in order of first appearance."""
        names = tuple(dict.fromkeys(name for pair in features.pairs for name in pair.scores))
        rows = [(names.index(n), i, str(p.id), s) for i, p in enumerate(features.pairs) for n, s in p.scores.items()]
        aspect, pair, question, score = (np.array(column) for column in zip(*sorted(rows), strict=True))
        classes = tuple(sorted({int(s) for s in score[aspect == a]}) for a in range(len(names)))
        return cls(names, classes, aspect, pair, question, score)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which labels are good ones, (rows,)."""
        good = np.zeros(len(self.score), dtype=bool)
        for a, classes in enumerate(self.classes):
            good[self.aspect == a] = is_positive(self.score[self.aspect == a], classes)
        return good

    def take(self, rows: Index) -> "Labels":
        """Return some of the rows."""
        return Labels(
            self.names, self.classes, self.aspect[rows], self.pair[rows], self.question[rows], self.score[rows]
        )


@dataclass(frozen=True)
class Choice:
    """What inner cross-validation chose.

    Attributes:
        depth: Of the judge.
        alpha: Ridge penalty.
        sharing: Weight of the part that aspects share.
        curve: depth -> inner AUROC at its best penalty and sharing, mean over aspects.
    """

    depth: int
    alpha: float
    sharing: float
    curve: dict[int, float]


@dataclass(frozen=True)
class JointRidge:
    """A ridge fit of all aspects in dual form.

    Attributes:
        train: The training rows.
        dual: (train rows,) coefficients.
        target_mean: (aspects,) the mean of each aspect's target.
        sharing: Weight of the part that aspects share.
    """

    train: Labels
    dual: Array
    target_mean: Array
    sharing: float

    def values(self, gram: Array, rows: Labels) -> Array:
        """Predict each row's target by its aspect's weight, (rows,)."""
        return _joint_kernel(gram, rows, self.train, self.sharing) @ self.dual + self.target_mean[rows.aspect]

    def weight(self, x: Array, aspect: int) -> tuple[Array, Array]:
        """Return an aspect's centre and weight, (features,) each, for all pairs' features x, (pairs, features)."""
        centers = np.stack(
            [x[self.train.pair[self.train.aspect == a]].mean(axis=0) for a in range(len(self.train.names))]
        )
        strength = ((self.train.aspect == aspect) + self.sharing) / (1 + self.sharing)
        return centers[aspect], (x[self.train.pair] - centers[self.train.aspect]).T @ (self.dual * strength)


@dataclass(frozen=True)
class Calibration:
    """How an aspect's predicted target becomes a score and probabilities.

    Attributes:
        slope: P(score > class k) = sigmoid(slope * value - thresholds[k]).
        thresholds: (classes - 1,), ascending.
        cuts: (classes - 1,), ascending, on the scale of slope * value; the score is the number of cuts passed. They
            are laid so that each score is given as often as it was observed in training.
    """

    slope: float
    thresholds: Array
    cuts: Array

    @classmethod
    def fit(cls, values: Array, scores: Index, classes: list[int]) -> "Calibration":
        """Fit on values of rows that were not fitted on, (n,), and their labels, (n,)."""
        slope, thresholds = fit_cumulative_logit(values, scores, classes)
        cuts = np.quantile(slope * values, [np.mean(scores <= c) for c in classes[:-1]])
        return cls(slope, thresholds, cuts)

    def probabilities(self, values: Array) -> Array:
        """Return class probabilities, (n, classes)."""
        return class_probabilities(self.slope * values, self.thresholds)

    def class_index(self, values: Array) -> Index:
        """Return how many cuts each value passes, (n,)."""
        passed: Index = (self.slope * values[:, None] > self.cuts).sum(axis=1)
        return passed


def load_grams(features: FeatureSet, config: FitConfig) -> dict[int, Array]:
    """Compute, for each depth to choose from, the inner products of all pairs' features, (pairs, pairs)."""
    deepest = max(layer for _, layer in features.values)
    depths = [depth for depth in config.depths if depth <= deepest]
    total = np.zeros((len(features.pairs), len(features.pairs)))
    grams = {}
    for layer in range(1, max(depths) + 1):
        x = design(features, config, [layer])
        total = total + x @ x.T
        if layer in depths:
            grams[layer] = total
    return grams


def design(features: FeatureSet, config: FitConfig, layers: list[int]) -> Array:
    """Stack features, (pairs, layers x poolings x hidden), in the order in which a judge's config lists them."""
    columns = [features.values[pooling, layer].numpy() for layer in layers for pooling in config.poolings]
    return np.concatenate(columns, axis=1).astype(np.float64)


def fit_ridge(gram: Array, train: Labels, alpha: float, sharing: float, config: FitConfig) -> JointRidge:
    """Fit all aspects' ridge regressions together.

    Args:
        gram: (pairs, pairs) inner products of the features.
        train: The training rows.
        alpha: Penalty, as a multiple of the kernel's mean diagonal.
        sharing: Weight of the part that aspects share.
        config: For the target.
    """
    target = train.score + config.threshold_weight * train.positive
    mean = np.array([target[train.aspect == a].mean() for a in range(len(train.names))])
    kernel = _joint_kernel(gram, train, train, sharing)
    penalty = alpha * float(np.trace(kernel)) / len(target)
    dual = np.linalg.solve(kernel + penalty * np.eye(len(target)), target - mean[train.aspect])
    return JointRidge(train, dual, mean, sharing)


def choose(grams: dict[int, Array], train: Labels, config: FitConfig) -> Choice:
    """Choose depth, penalty and sharing by inner cross-validation on the training rows."""
    best: dict[int, tuple[float, float, float]] = {}
    for depth, gram in grams.items():
        for alpha, sharing in product(config.alphas, config.sharings):
            held_out = held_out_values(gram, train, alpha, sharing, config)
            best[depth] = max(best.get(depth, (-1.0, 0.0, 0.0)), (mean_auroc(train, held_out), alpha, sharing))
    curve = {depth: value for depth, (value, _, _) in best.items()}
    depth = min(d for d, value in curve.items() if value >= max(curve.values()) - config.tolerance)
    _, alpha, sharing = best[depth]
    return Choice(depth, alpha, sharing, curve)


def calibrate(gram: Array, train: Labels, choice: Choice, config: FitConfig) -> list[Calibration]:
    """Fit every aspect's calibration on the inner folds' held-out predictions."""
    values = held_out_values(gram, train, choice.alpha, choice.sharing, config)
    return [
        Calibration.fit(values[train.aspect == a], train.score[train.aspect == a], classes)
        for a, classes in enumerate(train.classes)
    ]


def held_out_values(gram: Array, labels: Labels, alpha: float, sharing: float, config: FitConfig) -> Array:
    """Predict every row by the inner fold's fit that did not see its question, (rows,)."""
    values = np.full(len(labels.score), np.nan)
    for fit_rows, out_rows in question_folds(labels, config.inner_folds, config.seed):
        ridge = fit_ridge(gram, labels.take(fit_rows), alpha, sharing, config)
        values[out_rows] = ridge.values(gram, labels.take(out_rows))
    return values


def question_folds(labels: Labels, folds: int, seed: int) -> Iterator[tuple[Index, Index]]:
    """Divide questions, with all their rows of all aspects, into folds of like label shares.

    A question is stratified by its label of the rarest aspect that it carries. Without that, pooling the predictions
    of several folds misjudges a small aspect: a fold that holds more good rows is predicted by a fit that saw fewer.

    Args:
        labels: All rows.
        folds: Their number.
        seed: Of the shuffle.

    Yields:
        Positions of rows to fit on, and to hold out.
    """
    stratum: dict[str, str] = {}
    rarity = np.bincount(labels.aspect, minlength=len(labels.names))
    for row in np.argsort(rarity[labels.aspect], kind="stable"):
        stratum.setdefault(str(labels.question[row]), f"{labels.aspect[row]} {labels.score[row]}")
    questions = np.array(sorted(stratum))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a label rarer than folds is spread
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for _, held_out in splitter.split(questions, [stratum[question] for question in questions]):
            out = np.isin(labels.question, questions[held_out])
            yield np.flatnonzero(~out), np.flatnonzero(out)


def _joint_kernel(gram: Array, rows: Labels, train: Labels, sharing: float) -> Array:
    """Inner products of rows with training rows, each centred on its aspect's training mean, shared across aspects."""
    one_hot = np.eye(len(train.names))
    of_rows, of_train = one_hot[rows.aspect], one_hot[train.aspect]
    average = of_train.T / of_train.sum(axis=0)[:, None]
    block, within = gram[np.ix_(rows.pair, train.pair)], average @ gram[np.ix_(train.pair, train.pair)]
    centered = block - of_rows @ within - (block @ average.T) @ of_train.T + of_rows @ (within @ average.T) @ of_train.T
    joint: Array = centered * (of_rows @ of_train.T + sharing) / (1 + sharing)
    return joint


def fit_cumulative_logit(values: Array, scores: Index, classes: list[int], prior: float = 1.0) -> tuple[float, Array]:
    """Fit P(score > class k) = sigmoid(slope * value - threshold_k) by maximum likelihood (McCullagh 1980).

    Args:
        values: (n,) predictions of rows that were not fitted on.
        scores: (n,) labels.
        classes: All scores, ascending.
        prior: Weight of a log-normal prior that keeps the slope positive and finite.

    Returns:
        The slope, and ascending thresholds (classes - 1,).
    """
    index = np.searchsorted(classes, scores)
    spread = max(float(values.std()), 1e-6)
    shares = np.clip([(index > k).mean() for k in range(len(classes) - 1)], 0.02, 0.98)
    first = float(values.mean()) / spread - np.log(shares / (1 - shares))
    steps = np.log(np.maximum(np.diff(first), 1e-2))

    def unpack(parameters: Array) -> tuple[float, Array]:
        slope = float(np.exp(parameters[0])) / spread
        return slope, parameters[1] + np.concatenate([[0.0], np.cumsum(np.exp(parameters[2:]))])

    def loss(parameters: Array) -> float:
        slope, thresholds = unpack(parameters)
        p = class_probabilities(slope * values, thresholds)[np.arange(len(index)), index]
        return float(-np.log(np.maximum(p, 1e-12)).sum() + prior * parameters[0] ** 2 / 2)

    found = minimize(loss, np.concatenate([[0.0, first[0]], steps]), method="L-BFGS-B")
    return unpack(found.x)


def class_probabilities(values: Array, thresholds: Array) -> Array:
    """Return P(class) of a cumulative logit model, (n, classes)."""
    exceed: Array = expit(values[:, None] - thresholds)
    edge = np.ones((len(values), 1))
    probabilities: Array = np.hstack([edge, exceed]) - np.hstack([exceed, 0 * edge])
    return probabilities


def mean_auroc(labels: Labels, values: Array) -> float:
    """AUROC of good against other labels, mean over aspects."""
    positive = labels.positive
    by_aspect = [auroc(positive[labels.aspect == a], values[labels.aspect == a]) for a in range(len(labels.names))]
    return float(np.nanmean(by_aspect))


def auroc(positive: NDArray[np.bool_], values: Array) -> float:
    """Area under the ROC curve, by ranks; NaN where a class is absent."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(values)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
