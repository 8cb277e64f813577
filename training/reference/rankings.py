"""The published rankings of layers and poolings by how well simple features of their states tell the labels.

For each decoder output and pooling three kinds of features are ranked, as published:

- pca: the first 50 principal components of the pooled state;
- stats: three numbers of the pooled state h of width d: its L2 norm, its variance over the d dimensions, and the
  entropy of softmax(h), with h clipped to -50..50;
- attention: mean, standard deviation and maximum over a layer's heads of each head's attention entropy (see
  attention.py), the same for every pooling.

The measure is the accuracy of a logistic regression, 5-fold, on the scores and on whether they are good. Components and
scaling are fitted on all rows before the folds are made, as published, so the accuracies are a little optimistic.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from ..probing.table import Array, Index

SEED = 42
PCA_DIMENSIONS = 50
FOLDS = 5
CLIP = 50.0
LEAST_VARIANCE = 1e-12  # of a feature's values over rows; below it the feature is constant and left out
LEAST_ROWS = 2  # of the rarest class, for a fold to hold it out


@dataclass(frozen=True)
class Ranked:
    """One candidate of a ranking.

    Attributes:
        layer: Decoder output, counted from 0.
        pooling: Of its states; `heads` for attention features.
        kind: pca, stats or attention.
        n_features: How many numbers a row has.
        binary_accuracy: Of telling good scores from others, 5-fold mean; None where the rarer of the two has fewer than
            2 rows.
        binary_std: Its standard deviation over folds.
        multi_accuracy: Of telling the scores, 5-fold mean; None where the rarest score has fewer than 2 rows.
        multi_std: Its standard deviation over folds.
        pearson: Correlation of the features' first principal component with the scores; its sign means nothing.
        spearman: The same of ranks.
    """

    layer: int
    pooling: str
    kind: str
    n_features: int
    binary_accuracy: float | None
    binary_std: float | None
    multi_accuracy: float | None
    multi_std: float | None
    pearson: float
    spearman: float

    def accuracy(self, task: str) -> float:
        """Return what a task (binary or multi) ranks by; below every accuracy where there is none."""
        value = self.binary_accuracy if task == "binary" else self.multi_accuracy
        return -1.0 if value is None else value


def rank_candidate(layer: int, pooling: str, kind: str, features: Array, scores: Index, good: Index) -> Ranked:
    """Measure one candidate.

    Args:
        layer: Decoder output, counted from 0.
        pooling: Of its states.
        kind: A key of `STATE_KINDS`, or attention.
        features: (rows, n) what the kind makes of the states.
        scores: (rows,) labels.
        good: (rows,) 1 where the label is a good one, else 0.
    """
    features = without_constants(features)
    scaled = StandardScaler().fit_transform(features)
    binary, multi = (_accuracy(scaled, labels) for labels in (good, scores))
    first = PCA(1, random_state=SEED).fit_transform(features)[:, 0] if features.shape[1] > 1 else features[:, 0]
    pearson, spearman = _correlations(first, scores)
    return Ranked(layer, pooling, kind, features.shape[1], *binary, *multi, pearson, spearman)


def rank_states(layer: int, pooling: str, states: Array, scores: Index, good: Index) -> list[Ranked]:
    """Measure every kind of feature that pooled states give.

    Args:
        layer: Decoder output, counted from 0.
        pooling: Of its states.
        states: (rows, hidden).
        scores: (rows,) labels.
        good: (rows,) 1 where the label is a good one, else 0.
    """
    return [rank_candidate(layer, pooling, kind, make(states), scores, good) for kind, make in STATE_KINDS.items()]


def best_first(ranked: Iterable[Ranked], task: str) -> list[Ranked]:
    """Sort candidates by a task's accuracy; ties stay in their order."""
    return sorted(ranked, key=lambda one: one.accuracy(task), reverse=True)


def principal_components(states: Array) -> Array:
    """Project onto the first principal components: at most 50, and fewer than rows; (rows, components)."""
    varying = without_constants(states)
    n = min(PCA_DIMENSIONS, varying.shape[1], len(varying) - 1)
    return np.asarray(PCA(n, random_state=SEED).fit_transform(varying))


def state_statistics(states: Array) -> Array:
    """Return norm, variance over dimensions, and entropy (nats) of the softmax, (rows, 3)."""
    logs = log_softmax(np.clip(states, -CLIP, CLIP), axis=1)
    entropy = -(np.exp(logs) * logs).sum(axis=1)
    return np.stack([np.linalg.norm(states, axis=1), states.var(axis=1), entropy], axis=1)


def attention_statistics(entropies: Array) -> Array:
    """Return mean, standard deviation and maximum over heads, (rows, 3), of (rows, heads)."""
    return np.stack([entropies.mean(axis=1), entropies.std(axis=1), entropies.max(axis=1)], axis=1)


STATE_KINDS: Mapping[str, Callable[[Array], Array]] = {"pca": principal_components, "stats": state_statistics}


def without_constants(features: Array) -> Array:
    """Leave out features that are the same in all rows; one of them is kept, as zeros, where all are."""
    varying = features[:, features.var(axis=0) > LEAST_VARIANCE]
    return varying if varying.shape[1] else np.zeros((len(features), 1))


def _accuracy(scaled: Array, labels: Index) -> tuple[float | None, float | None]:
    """Cross-validate a logistic regression: mean and standard deviation of its accuracy over folds."""
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < LEAST_ROWS:
        return None, None
    folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=SEED)
    model = LogisticRegression(max_iter=1000, random_state=SEED)
    found = cross_val_score(model, scaled, labels, cv=folds, scoring="accuracy")
    return round(float(found.mean()), 4), round(float(found.std()), 4)


def _correlations(values: Array, scores: Index) -> tuple[float, float]:
    if np.std(values) <= LEAST_VARIANCE or np.ptp(scores) == 0:
        return 0.0, 0.0
    return round(float(pearsonr(values, scores)[0]), 4), round(float(spearmanr(values, scores)[0]), 4)
