"""Score sets of a stated coverage: the classes that are as likely as those of enough labelled rows were.

A class is in a row's set where its probability reaches a least one, which is set on rows that the probabilities were
not fitted on (split conformal prediction, Vovk et al. 2005). The score of misfit is 1 - P(label), and 0 where the label
is the likeliest one: sets are never empty, so what they hold for that is not paid for a second time by the threshold.
Rows of one question, or of one generator, are no independent draws: each such cluster counts once, its rows sharing its
weight, and one more is held to lie beyond every threshold (hierarchical conformal prediction, Lee, Barber and Willett
2023). With one row a cluster it is the usual rule. The coverage then holds, on average over draws, for a row of a new
cluster.

What is stated is what the threshold reaches, which may be more than was asked: where the likeliest label alone is right
in 84 %, no set that is not empty holds 80 %, and equal misfits cannot be parted.

By class (`by_label`) each has a threshold of its own, so that rare ones are covered too; by group (Mondrian) each group
has.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..evaluation.metrics import interval, resamples, weighted_mean
from ..probing.table import Array, Index
from .level_maps import Mask

Names = NDArray[np.str_]
MARGIN = 1e-6  # so that float32 loses no class that float64 holds


class Thresholds(NamedTuple):
    """From where on classes are in sets.

    Attributes:
        least: (classes,) probabilities.
        stated: The share of labels that such sets hold: what was asked or more; by label the least of them.
    """

    least: Array
    stated: float


class ScoreSets(NamedTuple):
    """Rows' sets.

    Attributes:
        holds: (rows, classes) whether the class is in the set.
        stated: (rows,) the share of labels that is stated of it.
    """

    holds: Mask
    stated: Array

    def take(self, rows: Index | Mask) -> "ScoreSets":
        """Return some of the rows'."""
        return ScoreSets(self.holds[rows], self.stated[rows])


def conformal_quantile(misfit: Array, cluster: Names, coverage: float) -> tuple[float, float]:
    """Return the misfit that a new cluster's row exceeds in at most 1 - coverage; infinite where there are too few.

    Args:
        misfit: (rows,).
        cluster: (rows,) those that are drawn together.
        coverage: Between 0 and 1.

    Returns:
        It, and the coverage that it reaches: more than was asked where several rows have this misfit.
    """
    _, place, size = np.unique(cluster, return_inverse=True, return_counts=True)
    order = np.argsort(misfit, kind="stable")
    reached = np.cumsum(1 / (size[place][order] * (len(size) + 1)))
    enough = np.flatnonzero(reached >= coverage - 1e-12)
    if not len(enough):
        return float("inf"), coverage
    found = misfit[order][enough[0]]
    return float(found), max(coverage, float(reached[np.flatnonzero(misfit[order] <= found)[-1]]))


def misfits(probabilities: Array, label: Index) -> Array:
    """Return 1 - P(label), (rows,), and 0 where the label is the likeliest class, which every set holds."""
    own = probabilities[np.arange(len(label)), label]
    return np.asarray(np.where(probabilities.argmax(axis=1) == label, 0.0, 1 - own), dtype=np.float64)


def least_probabilities(
    probabilities: Array, label: Index, cluster: Names, coverage: float, *, by_label: bool = False
) -> Thresholds:
    """Return from which probability on each class is in a set.

    Args:
        probabilities: (rows, classes), by fits that did not see these rows' clusters.
        label: (rows,) the place of the label among the classes.
        cluster: (rows,) those that are drawn together, such as questions.
        coverage: The share of labels that sets are to hold.
        by_label: Whether each class gets its own threshold; one without labels is in every set.
    """
    n, misfit = probabilities.shape[1], misfits(probabilities, label)
    if not by_label:
        found = [conformal_quantile(misfit, cluster, coverage)] * n
    else:
        found = [conformal_quantile(misfit[label == k], cluster[label == k], coverage) for k in range(n)]
    limits, reached = zip(*found, strict=True)
    return Thresholds(np.clip(1 - np.array(limits) - MARGIN, 0, 1), min(reached))


def score_sets(probabilities: Array, least: Array) -> Mask:
    """Tell which classes are in each row's set, (rows, classes); the likeliest always is.

    Args:
        probabilities: (rows, classes).
        least: (classes,), or (rows, classes) where rows differ, as those of several groups do.
    """
    found = probabilities >= least
    found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
    return found


def cross_conformal(
    probabilities: Array,
    label: Index,
    cluster: Names,
    fold: Index,
    coverage: float,
    *,
    by_label: bool = False,
    group: Names | None = None,
) -> ScoreSets:
    """Give every row the set that the other folds' thresholds give it.

    Args:
        probabilities: (rows, classes), each by a fit that did not see its fold.
        label: (rows,).
        cluster: (rows,) those that are drawn together; each lies in one fold.
        fold: (rows,).
        coverage: The share of labels that sets are to hold.
        by_label: As in `least_probabilities`.
        group: (rows,) groups with thresholds of their own; None for none.
    """
    found = ScoreSets(np.zeros(probabilities.shape, dtype=np.bool_), np.full(len(label), coverage))
    groups = np.zeros(len(label), dtype="U1") if group is None else group
    for number in np.unique(fold):
        for name in np.unique(groups):
            own = groups == name
            out, others = own & (fold == number), own & (fold != number)
            parts = probabilities[others], label[others], cluster[others]
            least, found.stated[out] = least_probabilities(*parts, coverage, by_label=by_label)
            found.holds[out] = score_sets(probabilities[out], least)
    return found


def coverage_of(sets: ScoreSets, label: Index, cluster: Names, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure what sets hold: `covered`, the share of labels, each cluster counting once, with its interval over
    clusters; `stated`, what they are stated to; `mean_size`, and `single`, the share of sets of one class, and
    `whole`, of all classes.
    """  # noqa: D205
    samples = resamples(cluster, bootstraps, seed)
    _, place, size = np.unique(cluster, return_inverse=True, return_counts=True)
    weights = samples.weights(cluster) / size[place]
    held, sizes = sets.holds[np.arange(len(label)), label], sets.holds.sum(axis=1)
    return {
        "n": len(label),
        "n_clusters": len(samples.questions),
        "covered": interval(weighted_mean(held, weights)),
        "stated": round(float(np.average(sets.stated, weights=weights[0])), 4),
        "mean_size": round(float(sizes.mean()), 4),
        "single": round(float((sizes == 1).mean()), 4),
        "whole": round(float((sizes == sets.holds.shape[1]).mean()), 4),
    }


def by_value(sets: ScoreSets, label: Index, cluster: Names, values: Sequence[Any] | Names) -> dict[str, Any]:
    """Measure the same for each value, such as each label or group."""
    names = np.asarray(values).astype(str)
    own = {str(name): names == name for name in np.unique(names)}
    return {name: coverage_of(sets.take(rows), label[rows], cluster[rows]) for name, rows in own.items()}
