"""Inner products of features: what every fit of every depth, penalty and fold is computed from.

A fit never needs the features themselves, only their inner products between rows; those of layers 1..d are the sum
over the layers, so all depths cost one pass over the features. The weights come from the features once, at the end.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature

from ..features.store import OUTPUT_STATE, RUBRIC, RUBRIC_PREFIX, FeatureSet, output_kind
from .settings import View
from .table import Array, Index, Labels, Rows

KEPT_BYTES = 4 << 30  # of inner products, in memory at once
WHITENING_RIDGE = 1.0  # as a multiple of the summed variance over the number of rows


class Design:
    """The features of labelled rows, and their inner products.

    A *unit* is a vector of features: a pair where all aspects share a reading, a labelled row where each has its own.

    Args:
        features: What the extract stage wrote.
        labels: All labelled rows.
        aspects: The aspects whose rows alone are units; None for all.
        directions: Of views with a prior: feature -> (hidden, directions) of a released judge.
    """

    def __init__(
        self,
        features: FeatureSet,
        labels: Labels,
        aspects: tuple[int, ...] | None = None,
        directions: Mapping[Feature, Array] | None = None,
    ) -> None:
        """Keep both; nothing is read yet."""
        self.data = features
        self.labels = labels
        self.aspects = aspects
        self.directions = directions or {}
        self._kept: OrderedDict[tuple[View, int, bool], Array] = OrderedDict()
        self.held_out: dict[Hashable, Array] = {}  # what inner folds predicted last, for the search
        self._strengths: dict[tuple[View, int], float] = {}
        self._parts: dict[tuple[int, ...], Design] = {}

    def of(self, aspects: Sequence[int]) -> "Design":
        """Return the design of the rows of some aspects alone, whose units are numbered by themselves.

        Aspects are fitted in groups, and one group may have many times the rows of another: inner products are taken
        of the group's own units, or their square would not fit in memory.
        """
        key = tuple(aspects)
        if key not in self._parts:
            self._parts[key] = Design(self.data, self.labels, key, self.directions)
        return self._parts[key]

    def gram(self, view: View, depth: int, *, auxiliary: bool = False) -> Array:
        """Return the inner products of unscaled features of units; what was computed is kept, up to `KEPT_BYTES`.

        Args:
            view: Which features.
            depth: At which depth.
            auxiliary: Whether those of auxiliary rows are wanted too.

        Returns:
            float64 (units, units); 0 at units that are not wanted.
        """
        key = (view, depth, auxiliary)
        if key not in self._kept:
            self._kept[key] = self._with_directions(view, depth, auxiliary) if view.prior else self._sum(key)
            while len(self._kept) > 1 and sum(gram.nbytes for gram in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _with_directions(self, view: View, depth: int, auxiliary: bool) -> Array:
        """Compute inner products that lie the more along a judge's directions; see `with_prior`."""
        plain = self.gram(replace(view, prior=0.0), depth, auxiliary=auxiliary)
        along = self._along(view, depth) * (plain.diagonal() > 0)[:, None]  # 0 at units that are not wanted
        return plain + self._strength(view, depth) * along @ along.T

    def _sum(self, key: tuple[View, int, bool]) -> Array:
        """Compute the inner products at a depth, from the deepest kept ones above it."""
        view, depth, auxiliary = key
        shallower = [d for v, d, kind in self._kept if (v, kind) == (view, auxiliary) and d < depth]
        return self._plain(view, depth, auxiliary, max(shallower, default=0) if view.layers == "all" else 0)

    def _plain(self, view: View, depth: int, auxiliary: bool, start: int) -> Array:
        """Compute the inner products at a depth, from those at a shallower one where they are kept."""
        units = self._units(view)
        wanted = np.unique(units[(units >= 0) & (auxiliary | ~self.labels.auxiliary)])
        total = np.zeros((len(wanted), len(wanted)))
        above = view.blocks(start) if start else []
        for block in view.blocks(depth):
            if block not in above:
                total += _inner(self.block(view, *block), wanted)
        n_units = int(units.max(initial=-1)) + 1
        if len(wanted) < n_units:
            gram = np.zeros((n_units, n_units))
            gram[np.ix_(wanted, wanted)] = total
            total = gram
        if start:
            total += self._kept[view, start, auxiliary]
        return total

    def with_prior(self, view: View, depth: int, weight: Array) -> Array:
        """Turn a combination of features, (features,), into the weight whose values the view's inner products give.

        Inner products x' (I + c DD') z, where D are a judge's directions, are those of ridge towards them: along D a
        weight costs less by the factor 1 + c.
        """
        if not view.prior:
            return weight
        along = self._directions(view, depth)
        return np.asarray(weight + self._strength(view, depth) * along @ (along.T @ weight))

    def _directions(self, view: View, depth: int) -> Array:
        """Return the directions in the features of a view, (features, directions); 0 where the judge reads none."""
        width = max((own.shape[1] for own in self.directions.values()), default=0)
        none = np.zeros((self.data.hidden_size, width))
        found = np.concatenate([self.directions.get(feature, none) for feature in self.features(view, "", depth)])
        if not found.any():
            raise DataFileError(
                f"prior_judge expects a judge that reads some of {view} up to layer {depth}, but it reads none. "
                "Choose other depths, poolings or another judge."
            )
        return found

    def _along(self, view: View, depth: int) -> Array:
        """Return what the released judge's directions say of all units, (units, directions)."""
        return np.asarray(self.stack(view, depth).astype(np.float64) @ self._directions(view, depth))

    def _strength(self, view: View, depth: int) -> float:
        """Return c, so that as many times as `prior` says of the features' variance lie along the directions."""
        key = (view, depth)
        if key not in self._strengths:
            units = self._units(view)
            own = np.unique(units[(units >= 0) & ~self.labels.auxiliary])
            plain = self.gram(replace(view, prior=0.0), depth)[np.ix_(own, own)]
            spread = np.trace(plain) - plain.sum() / len(own)
            along = self._along(view, depth)[own]
            self._strengths[key] = float(view.prior * spread / max(((along - along.mean(axis=0)) ** 2).sum(), 1e-300))
        return self._strengths[key]

    @property
    def depths(self) -> list[int]:
        """The layers whose states are there, but for the embeddings."""
        return [layer for layer in self.data.layers if layer > 0]

    def rows(self, view: View, labels: Labels) -> Rows:
        """Take what a fit needs of labelled rows; `units` says what it raises."""
        return Rows(self.units(view, labels), labels.aspect, labels.weight, labels.question, labels.auxiliary)

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
        """Return the unit of each row of the whole table, -1 where it was not read or is of another group."""
        units = self._all_units(view)
        if self.aspects is None:
            return units
        own = self._own(units)
        found = np.minimum(np.searchsorted(own, units), max(len(own) - 1, 0))
        return np.where(own[found] == units, found, -1) if len(own) else np.full(len(units), -1)

    def _own(self, units: Index) -> Index:
        """Return which of all units are the group's, ascending."""
        return np.unique(units[(units >= 0) & np.isin(self.labels.aspect, self.aspects or ())])

    def _all_units(self, view: View) -> Index:
        """Return the unit of each row of the whole table among those of all aspects, -1 where it was not read."""
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
        return [self._feature(reading, *block) for block in view.blocks(depth)]

    def _feature(self, reading: str, layer: int, pooling: str, state: str) -> Feature:
        return Feature(
            reading, layer, pooling, output_kind(layer, self.data.n_layers) if state == OUTPUT_STATE else state
        )

    def block(self, view: View, layer: int, pooling: str, state: str) -> NDArray[np.float32]:
        """Return one layer's pooled states of all units, (units, hidden), or one check."""
        rubrics = [f"{RUBRIC_PREFIX}{name}" for name in self.labels.names if f"{RUBRIC_PREFIX}{name}" in self.data.rows]
        readings = rubrics if view.reading == RUBRIC else [view.reading]
        parts = [self.data.matrix(self._feature(reading, layer, pooling, state)) for reading in readings]
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return whole if self.aspects is None else whole[self._own(self._all_units(view))]

    def stack(self, view: View, depth: int) -> NDArray[np.float32]:
        """Return all features of all units, (units, features x hidden), in the order of `features`."""
        return np.concatenate([self.block(view, *block) for block in view.blocks(depth)], axis=1)

    def scaled(self, view: View, depth: int, train: Index, *, auxiliary: bool = False) -> Array:
        """Return the inner products of units under the view's scaling.

        Args:
            view: Which features.
            depth: At which depth.
            train: Units to fit on; a scaling is fitted on them.
            auxiliary: Whether those of auxiliary rows are wanted too.

        Returns:
            float64 (units, units); 0 at units that are not wanted.
        """
        if view.scaling == "none":
            return self.gram(view, depth, auxiliary=auxiliary)
        if view.scaling == "whiten":
            return whitened(self.gram(replace(view, scaling="none"), depth, auxiliary=auxiliary), train)
        units = self._units(view)
        wanted = np.unique(units[(units >= 0) & (auxiliary | ~self.labels.auxiliary)])
        gram = np.zeros((int(units.max(initial=-1)) + 1,) * 2)
        for one in view.blocks(depth):
            block = self.block(view, *one)
            gram[np.ix_(wanted, wanted)] += _inner(block, wanted, deviation(block[train]))
        return gram

    def _positions(self, reading: str, pairs: Index) -> Index:
        """Return the places of pairs among those that a reading covers, -1 for others."""
        covered = self.data.rows.get(reading, np.empty(0, dtype=np.int64))
        if not len(covered):
            return np.full(len(pairs), -1)
        found = np.minimum(np.searchsorted(covered, pairs), len(covered) - 1)
        return np.where(covered[found] == pairs, found, -1)


def _inner(block: NDArray[np.float32], units: Index, scale: Array | float = 1.0) -> Array:
    x = block[units].astype(np.float64)  # a few states are so large that float32 would round the others away
    x /= scale
    return np.asarray(x @ x.T)


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
