"""Inner products of features: what every fit of every depth, penalty and fold is computed from.

A fit never needs the features themselves, only their inner products between rows; those of layers 1..d are the sum
over the layers, so all depths cost one pass over the features. The weights come from the features once, at the end.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature

from ..features.store import OUTPUT_STATE, RUBRIC, RUBRIC_PREFIX, FeatureSet, output_kind
from .settings import View
from .table import Array, Index, Labels, Rows

WHITENING_RIDGE = 1.0  # as a multiple of the summed variance over the number of rows


class Design:
    """The features of labelled rows, and their inner products.

    A *unit* is a vector of features: a pair where all aspects share a reading, a labelled row where each has its own.

    Args:
        features: What the extract stage wrote.
        labels: All labelled rows.
    """

    def __init__(self, features: FeatureSet, labels: Labels) -> None:
        """Keep both; nothing is read yet."""
        self.data = features
        self.labels = labels
        self._plain: dict[View, dict[int, Array]] = {}
        self._widest: tuple[object, dict[int, Array]] = (None, {})

    def gram(self, view: View, depth: int) -> Array:
        """Return the inner products of unscaled features of units that are not auxiliary; all depths are kept."""
        if view not in self._plain:
            self._plain[view] = self.grams(view, self.depths, np.empty(0, dtype=np.int64))
        return self._plain[view][depth]

    @property
    def depths(self) -> list[int]:
        """The layers whose states are there, but for the embeddings."""
        return [layer for layer in self.data.layers if layer > 0]

    def rows(self, view: View, labels: Labels) -> Rows:
        """Take what a fit needs of labelled rows; `units` says what it raises."""
        return Rows(self.units(view, labels), labels.aspect, labels.weight, labels.question)

    def units(self, view: View, rows: Labels) -> Index:
        """Return the unit of each labelled row, (rows,).

        Raises:
            DataFileError: The features lack the reading of a row.
        """
        found = self._units(view)[rows.row]
        if (found < 0).any():
            missing = ", ".join(rows.names[a] for a in np.unique(rows.aspect[found < 0]))
            raise DataFileError(
                f"Expected features of the reading {view.reading!r} for every labelled row, but got none for rows of "
                f"{missing}; there are the readings {', '.join(self.data.rows)}. Run the extract stage with it."
            )
        return found

    def _units(self, view: View) -> Index:
        """Return the unit of each row of the whole table, -1 where it was not read."""
        if view.reading != RUBRIC:
            return self._positions(view.reading, self.labels.pair)
        units, start = np.full(len(self.labels.pair), -1), 0
        for a, name in enumerate(self.labels.names):
            own, reading = self.labels.aspect == a, f"{RUBRIC_PREFIX}{name}"
            found = self._positions(reading, self.labels.pair[own])
            units[own] = np.where(found < 0, found, start + found)
            start += len(self.data.rows.get(reading, ()))
        return units

    def features(self, view: View, aspect: str, depth: int) -> list[Feature]:
        """Return the features that an aspect's probe reads, in the order in which a judge's config lists them."""
        reading = f"{RUBRIC_PREFIX}{aspect}" if view.reading == RUBRIC else view.reading
        return [self._feature(view, reading, n, pooling) for n in view.layers_of(depth) for pooling in view.poolings]

    def _feature(self, view: View, reading: str, layer: int, pooling: str) -> Feature:
        state = output_kind(layer, self.data.n_layers) if view.state == OUTPUT_STATE else view.state
        return Feature(reading, layer, pooling, state)

    def block(self, view: View, layer: int, pooling: str) -> NDArray[np.float32]:
        """Return one layer's pooled states of all units, (units, hidden)."""
        rubrics = [f"{RUBRIC_PREFIX}{name}" for name in self.labels.names if f"{RUBRIC_PREFIX}{name}" in self.data.rows]
        readings = rubrics if view.reading == RUBRIC else [view.reading]
        parts = [self.data.matrix(self._feature(view, reading, layer, pooling)) for reading in readings]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def stack(self, view: View, depth: int) -> NDArray[np.float32]:
        """Return all features of all units, (units, layers x poolings x hidden), in the order of `features`."""
        blocks = [self.block(view, n, pooling) for n in view.layers_of(depth) for pooling in view.poolings]
        return np.concatenate(blocks, axis=1)

    def grams(self, view: View, depths: Sequence[int], train: Index, *, auxiliary: bool = False) -> dict[int, Array]:
        """Compute the inner products of units, for each depth.

        Args:
            view: Which features.
            depths: At which depths.
            train: Units to fit on; a scaling is fitted on them.
            auxiliary: Whether those of auxiliary rows are wanted too.

        Returns:
            Depth -> float64 (units, units); 0 at units that are not wanted.
        """
        key = (view, tuple(depths))
        if auxiliary and view.scaling == "none" and self._widest[0] == key:
            return self._widest[1]
        units = self._units(view)
        wanted = np.unique(units[(units >= 0) & (auxiliary | ~self.labels.auxiliary)])
        total = np.zeros((len(wanted), len(wanted)))
        found = {}
        for layer in range(1, max(depths) + 1):
            if view.layers == "one":
                total = np.zeros_like(total)
            if view.layers == "all" or layer in depths:
                for pooling in view.poolings:
                    total = total + self._inner(view, self.block(view, layer, pooling), wanted, train)
            if layer in depths:
                gram = np.zeros((int(units.max(initial=-1)) + 1,) * 2)
                gram[np.ix_(wanted, wanted)] = total
                found[layer] = whitened(gram, train) if view.scaling == "whiten" else gram
        if auxiliary:
            self._widest = (key, found)
        return found

    def _inner(self, view: View, block: NDArray[np.float32], units: Index, train: Index) -> Array:
        x = block[units].astype(np.float64)  # a few states are so large that float32 would round the others away
        if view.scaling == "standard":
            x /= deviation(block[train])
        return np.asarray(x @ x.T)

    def _positions(self, reading: str, pairs: Index) -> Index:
        """Return the places of pairs among those that a reading covers, -1 for others."""
        covered = self.data.rows.get(reading, np.empty(0, dtype=np.int64))
        if not len(covered):
            return np.full(len(pairs), -1)
        found = np.minimum(np.searchsorted(covered, pairs), len(covered) - 1)
        return np.where(covered[found] == pairs, found, -1)


def deviation(x: NDArray[np.float32]) -> Array:
    """Return each dimension's standard deviation, float64 (hidden,), 1 where it is constant."""
    found: Array = x.std(axis=0, dtype=np.float64)
    return np.where(found > 0, found, 1)


def whitened(gram: Array, train: Index) -> Array:
    """Return the inner products after whitening by the training units' covariance, with a ridge on it.

    With centred features X of the n training units and S = X'X / n + e I, those are x'S^-1 y, which is
    (x'y - k_x (n e I + K)^-1 k_y) / e by Woodbury's identity, where K = XX' and k_x = Xx.
    """
    centred = center(gram, train)
    inner, ridge = _whitening(centred, train)
    solved = np.linalg.solve(inner, centred[train])
    return np.asarray((centred - centred[:, train] @ solved) / ridge)


def unwhitened(gram: Array, train: Index, dual: Array) -> Array:
    """Return the coefficients, (units,), on plain centred features of a fit with coefficients on whitened ones.

    S^-1 X'd = X'(n (n e I + K)^-1 d), so both give the same weight. Only training units may have coefficients.
    """
    inner, _ = _whitening(center(gram, train), train)
    plain = np.zeros_like(dual)
    plain[train] = len(train) * np.linalg.solve(inner, dual[train])
    return plain


def _whitening(centred: Array, train: Index) -> tuple[Array, float]:
    inner = centred[np.ix_(train, train)]
    ridge = WHITENING_RIDGE * float(np.trace(inner)) / len(train) ** 2
    return inner + len(train) * ridge * np.eye(len(train)), ridge


def center(gram: Array, train: Index) -> Array:
    """Return the inner products after the training units' mean is taken off every unit."""
    to_mean = gram[:, train].mean(axis=1)
    return np.asarray(gram - to_mean[:, None] - to_mean[None, :] + float(to_mean[train].mean()))
