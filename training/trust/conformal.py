"""Score sets of a stated coverage: the classes that are as likely as those of enough labelled rows were.

A class is in a row's set where its probability reaches a least one, which is set on rows that the probabilities were
not fitted on (split conformal prediction, Vovk et al. 2005, with 1 - P(label) as the score of misfit). Rows of one
question, or of one generator, are no independent draws: each such cluster counts once, its rows sharing its weight, and
one more is held to lie beyond every threshold (hierarchical conformal prediction, Lee, Barber and Willett 2023). With
one row a cluster it is the usual rule. The coverage then holds, on average over draws, for a row of a new cluster.

By class (`by_label`) each has a threshold of its own, so that rare ones are covered too; by group (Mondrian) each group
has.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.metrics import interval, resamples, weighted_mean
from ..probing.table import Array, Index
from .level_maps import Mask

Names = NDArray[np.str_]
MARGIN = 1e-6  # so that float32 loses no class that float64 holds


def conformal_quantile(misfit: Array, cluster: Names, coverage: float) -> float:
    """Return the misfit that a new cluster's row exceeds in at most 1 - coverage; infinite where there are too few.

    Args:
        misfit: (rows,).
        cluster: (rows,) those that are drawn together.
        coverage: Between 0 and 1.
    """
    _, place, size = np.unique(cluster, return_inverse=True, return_counts=True)
    order = np.argsort(misfit, kind="stable")
    reached = np.cumsum(1 / (size[place][order] * (len(size) + 1)))
    enough = np.flatnonzero(reached >= coverage - 1e-12)
    return float(misfit[order][enough[0]]) if len(enough) else float("inf")


def least_probabilities(
    probabilities: Array, label: Index, cluster: Names, coverage: float, *, by_label: bool = False
) -> Array:
    """Return from which probability on each class is in a set, (classes,).

    Args:
        probabilities: (rows, classes), by fits that did not see these rows' clusters.
        label: (rows,) the place of the label among the classes.
        cluster: (rows,) those that are drawn together, such as questions.
        coverage: The share of labels that sets are to hold.
        by_label: Whether each class gets its own threshold; one without labels is in every set.
    """
    n = probabilities.shape[1]
    misfit = 1 - probabilities[np.arange(len(label)), label]
    if not by_label:
        found = [conformal_quantile(misfit, cluster, coverage)] * n
    else:
        found = [conformal_quantile(misfit[label == k], cluster[label == k], coverage) for k in range(n)]
    return np.clip(1 - np.array(found) - MARGIN, 0, 1)


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
) -> Mask:
    """Give every row the set that the other folds' thresholds give it.

    Args:
        probabilities: (rows, classes), each by a fit that did not see its fold.
        label: (rows,).
        cluster: (rows,) those that are drawn together; each lies in one fold.
        fold: (rows,).
        coverage: The share of labels that sets are to hold.
        by_label: As in `least_probabilities`.
        group: (rows,) groups with thresholds of their own; None for none.

    Returns:
        (rows, classes).
    """
    found = np.zeros(probabilities.shape, dtype=np.bool_)
    groups = np.zeros(len(label), dtype="U1") if group is None else group
    for number in np.unique(fold):
        for name in np.unique(groups):
            own = groups == name
            out, others = own & (fold == number), own & (fold != number)
            parts = probabilities[others], label[others], cluster[others]
            found[out] = score_sets(probabilities[out], least_probabilities(*parts, coverage, by_label=by_label))
    return found


def coverage_of(sets: Mask, label: Index, cluster: Names, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure what sets hold: `covered`, the share of labels, each cluster counting once, with its interval over
    clusters; `mean_size`, and `single`, the share of sets of one class, and `whole`, of all classes.
    """  # noqa: D205
    samples = resamples(cluster, bootstraps, seed)
    _, place, size = np.unique(cluster, return_inverse=True, return_counts=True)
    weights = samples.weights(cluster) / size[place]
    held, sizes = sets[np.arange(len(label)), label], sets.sum(axis=1)
    return {
        "n": len(label),
        "n_clusters": len(samples.questions),
        "covered": interval(weighted_mean(held, weights)),
        "mean_size": round(float(sizes.mean()), 4),
        "single": round(float((sizes == 1).mean()), 4),
        "whole": round(float((sizes == sets.shape[1]).mean()), 4),
    }


def by_value(sets: Mask, label: Index, cluster: Names, values: Sequence[Any] | Names) -> dict[str, Any]:
    """Measure the same for each value, such as each label or group."""
    names = np.asarray(values).astype(str)
    return {str(name): coverage_of(*(c[names == name] for c in (sets, label, cluster))) for name in np.unique(names)}
