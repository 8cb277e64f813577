"""Probes of preferences: a Bradley-Terry model of comparisons, linear in the features.

P(response i is preferred to j) = sigmoid(w . (x_i - x_j)): differences of the score w . x are log odds. It is a
logistic regression without an intercept on differences of features, fitted in dual form from their inner products, as
the other heads are. The raters' share of votes is the target, 0 to 1; a tie is one half, like half a win for each.
Layers and poolings are chosen by ridge regression on 2 won - 1 with leave-one-question-out errors, the penalty by an
inner cross-validation by question. On its held-out differences one slope is fitted, so that log odds are not too sure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from inspector_pipeline.errors import DataFileError

from ..features.store import FeatureSet
from ..rows.compared import FIRST, majority, text_digest
from ..rows.records import LabelledPair
from .fits import MAX_ITERATIONS, Target, coordinates_of, left_out_errors, mean_diagonal
from .kernels import Design
from .search import Choice, chosen_depths
from .settings import SearchConfig, Setting, View
from .table import Array, Index, Labels, Rows, TooFewLabelsError, question_folds, question_names

MAX_SLOPE = 20.0


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of one aspect, one row each.

    Attributes:
        aspect: The aspect.
        first: (rows,) the one response, a place among `pair`.
        second: (rows,) the other.
        won: (rows,) share of the votes for the one, ties counting half.
        weight: (rows,) weight in a fit.
        votes: (rows, 3) votes for the one, ties, and for the other.
        question: (rows,) the question's name.
        pair: (responses,) which pair each response is.
    """

    aspect: str
    first: Index
    second: Index
    won: Array
    weight: Array
    votes: Index
    question: NDArray[np.str_]
    pair: Index

    @classmethod
    def of(cls, pairs: Sequence[LabelledPair]) -> "dict[str, Comparisons]":
        """Collect the comparisons of pairs, aspects in order of first appearance.

        Raises:
            DataFileError: A response that another is compared with is not there.
        """
        places = {(str(pair.id), text_digest(pair.prediction)): i for i, pair in enumerate(pairs) if pair.comparisons}
        places = {(str(pair.id), text_digest(pair.prediction)): i for i, pair in enumerate(pairs)} if places else {}
        names = question_names(pairs) if places else []
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for i, pair in enumerate(pairs):
            for entry in pair.comparisons:
                other = places.get((str(pair.id), entry["against"]))
                if other is None:
                    raise DataFileError(
                        f"The question {pair.id!r} expects the response {entry['against']}, which another is compared "
                        "with, but it is gone. Leave out both, or neither."
                    )
                row = (i, other, entry["won"], entry.get("weight", 1.0), entry["votes"], names[i])
                rows.setdefault(entry["aspect"], []).append(row)
        return {aspect: cls._of_rows(aspect, own) for aspect, own in rows.items()}

    @classmethod
    def _of_rows(cls, aspect: str, rows: Sequence[tuple[Any, ...]]) -> "Comparisons":
        first, second, won, weight, votes, question = (np.array(column) for column in zip(*rows, strict=True))
        pair, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        ends = places[: len(first)], places[len(first) :]
        return cls(aspect, *ends, won.astype(float), weight.astype(float), votes, question, pair)

    def take(self, rows: Index) -> "Comparisons":
        """Return some of the rows."""
        columns = ("first", "second", "won", "weight", "votes", "question")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    @property
    def majority(self) -> Array:
        """(rows,) 1 where most prefer the one, 0 where the other, one half where neither."""
        found = [majority(votes) for votes in self.votes.tolist()]
        return np.array([1.0 if said == FIRST else 0.5 if said == "tie" else 0.0 for said in found])

    @property
    def differences(self) -> csr_array:
        """(rows, responses): 1 at the one and -1 at the other."""
        n = len(self.first)
        columns, rows = np.concatenate([self.first, self.second]), np.tile(np.arange(n), 2)
        return csr_array((np.repeat([1.0, -1.0], n), (rows, columns)), shape=(n, len(self.pair)))

    def labels(self) -> Labels:
        """Write them as a table, for folds by question."""
        n = len(self.won)
        zeros, score = np.zeros(n, dtype=np.int64), (2 * self.majority).astype(np.int64)
        auxiliary = np.zeros(n, dtype=bool)
        columns = (zeros, self.pair[self.first], self.question, score, self.weight, auxiliary, np.arange(n))
        return Labels((self.aspect,), ([0, 1, 2],), (False,), *columns)

    def responses(self) -> Labels:
        """Write the responses as a table, for their features."""
        n = len(self.pair)
        zeros, names = np.zeros(n, dtype=np.int64), np.full(n, "")
        auxiliary = np.zeros(n, dtype=bool)
        columns = (zeros, self.pair, names, zeros, np.ones(n), auxiliary, np.arange(n))
        return Labels((self.aspect,), ([0, 1],), (False,), *columns)


@dataclass(frozen=True)
class FittedPreference:
    """A fitted Bradley-Terry model, in dual form.

    Attributes:
        view: What the probe reads.
        depth: How deep.
        penalty: On the weight.
        slope: What held-out differences are multiplied by, so that they are log odds.
        dual: (responses,) the weight as a combination of the responses' features, slope included.
        center: (responses,) shares of the typical response, whose score is 0.
        explained: Of each view and depth, the share of outcomes' variance that left-out ridge fits explain.
        tried: Penalty -> inner log loss.
    """

    view: View
    depth: int
    penalty: float
    slope: float
    dual: Array
    center: Array
    explained: Mapping[View, Mapping[int, float]]
    tried: Mapping[float, float]

    @property
    def choice(self) -> Choice:
        """What was chosen, in the form of a search of levels."""
        sweep = {str(view): dict(own) for view, own in self.explained.items()}
        tried = {f"penalty {penalty:g}: log loss": loss for penalty, loss in self.tried.items()}
        setting = Setting("logistic", self.penalty, 0.0)
        return Choice(self.view, self.depth, (setting,), dict(self.explained[self.view]), sweep, tried)


class PreferenceDesign:
    """The features of compared responses, and the inner products of their differences.

    Args:
        features: What the extract stage wrote.
        comparisons: All comparisons of an aspect.
    """

    def __init__(self, features: FeatureSet, comparisons: Comparisons) -> None:
        """Keep both."""
        self.comparisons, self.labels = comparisons, comparisons.responses()
        self.design = Design(features, self.labels)
        self.differences = comparisons.differences

    def gram(self, view: View, depth: int) -> Array:
        """Return the inner products of all differences, (comparisons, comparisons)."""
        units = self.design.units(view, self.labels)
        inner = self.design.gram(view, depth)[np.ix_(units, units)]
        return np.asarray(self.differences @ (self.differences @ inner).T)

    def scores(self, fitted: FittedPreference) -> Array:
        """Return the log odds of all comparisons, (comparisons,)."""
        units = self.design.units(fitted.view, self.labels)
        inner = self.design.gram(fitted.view, fitted.depth)[np.ix_(units, units)]
        return np.asarray(self.differences @ (inner @ fitted.dual))

    def probe(self, fitted: FittedPreference) -> tuple[Array, Array, float]:
        """Return centre and weight, (features,) each, and bias; a score is (x - centre) . weight + bias."""
        x = self.design.stack(fitted.view, fitted.depth)[self.design.units(fitted.view, self.labels)]
        return fitted.center @ x.astype(np.float64), fitted.dual @ x.astype(np.float64), 0.0


def fit_preference(design: PreferenceDesign, train: Index, config: SearchConfig) -> FittedPreference:
    """Choose what is read and how strong the penalty is, and fit.

    Args:
        design: All comparisons.
        train: Those to fit on.
        config: What to choose from.

    Raises:
        TooFewLabelsError: There are too few comparisons.
        DataFileError: The features lack what is asked for.
    """
    own = design.comparisons.take(train)
    if np.all(own.won == 0.5):
        raise TooFewLabelsError(f"{own.aspect} expects comparisons that somebody won, but all are ties.")
    explained = _sweep(design, own, train, config)
    best = max(value for depths in explained.values() for value in depths.values())
    near = [(d, -v, view) for view, ds in explained.items() for d, v in ds.items() if v >= best - config.tolerance]
    depth, _, view = min(near, key=lambda entry: entry[:2])
    gram = design.gram(view, depth)[np.ix_(train, train)]
    penalties = sorted({*config.head_penalties, *config.penalties})
    held_out = np.zeros((len(penalties), len(train)))
    for fit_rows, out_rows in question_folds(own.labels(), config.inner_folds, config.seed):
        part = own.take(fit_rows)
        duals = fit_odds(gram[np.ix_(fit_rows, fit_rows)], part.won, part.weight, penalties)
        held_out[:, out_rows] = duals @ gram[np.ix_(fit_rows, out_rows)]
    slopes = [fit_slope(values, own.won, own.weight) for values in held_out]
    losses = [log_loss(s * values, own.won, own.weight) for s, values in zip(slopes, held_out, strict=True)]
    i = int(np.argmin(losses))
    dual = slopes[i] * fit_odds(gram, own.won, own.weight, [penalties[i]])[0]
    appears = np.bincount(np.concatenate([own.first, own.second]), np.tile(own.weight, 2), len(own.pair))
    on_responses = own.differences.T @ dual
    tried = {penalty: round(loss, 4) for penalty, loss in zip(penalties, losses, strict=True)}
    center = appears / appears.sum()
    return FittedPreference(view, depth, penalties[i], slopes[i], on_responses, center, explained, tried)


def _sweep(
    design: PreferenceDesign, own: Comparisons, train: Index, config: SearchConfig
) -> dict[View, dict[int, float]]:
    """Say how much of the outcomes each view and depth explains by left-out ridge fits."""
    rows = Rows(np.arange(len(train)), np.zeros(len(train), dtype=np.int64), own.weight, own.question)
    value = 2 * own.won - 1
    target = Target(value, value, value > 0)
    total = float(own.weight @ value**2)
    found: dict[View, dict[int, float]] = {}
    for view in dict.fromkeys(replace(view, scaling="none", prior=0.0) for view in config.views):
        for depth in chosen_depths(design.design, config):
            gram = design.gram(view, depth)[np.ix_(train, train)]
            errors = left_out_errors(gram, rows, target, 0.0, config.penalties, centered=False)
            left = [float(own.weight @ error**2) for error in errors]
            found.setdefault(view, {})[depth] = round(1 - min(left) / total, 6)
    return found


def fit_odds(gram: Array, won: Array, weight: Array, penalties: Sequence[float]) -> Array:
    """Fit a logistic regression without an intercept on differences, given their inner products.

    Args:
        gram: (rows, rows).
        won: (rows,) the target, 0 to 1.
        weight: (rows,).
        penalties: On the weight, as multiples of the mean diagonal.

    Returns:
        (penalties, rows) coefficients: log odds are inner products with the rows times these.
    """
    scale = mean_diagonal(gram)
    x, to_dual = coordinates_of(gram / scale)
    return np.stack([to_dual @ odds_weights(x, won, weight, penalty) / scale for penalty in penalties])


def odds_weights(x: Any, won: Array, weight: Array, penalty: float) -> Array:
    """Fit a logistic regression without an intercept, (features,), to targets between 0 and 1.

    Every second row is turned around, which changes nothing and gives both classes; a row with a share of the votes
    stands in both, each with its part of the weight.
    """
    turn = np.where(np.arange(len(won)) % 2, -1.0, 1.0)
    if len({*np.where(turn > 0, won, 1 - won).tolist()} & {0.0, 1.0}) == 1:  # winners took turns as well
        turn[np.argsort(won, kind="stable")] = turn.copy()
    target = np.where(turn > 0, won, 1 - won)
    is_part = np.concatenate([target > 0, target < 1])
    rows = np.tile(np.arange(len(won)), 2)[is_part]
    above = np.repeat([True, False], len(won))[is_part]
    parts = np.concatenate([target * weight, (1 - target) * weight])[is_part]
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, max_iter=MAX_ITERATIONS)
    turned = x[rows].multiply(turn[rows, None]).tocsr() if hasattr(x, "multiply") else x[rows] * turn[rows, None]
    if above.all() or not above.any():  # a single comparison
        return np.zeros(x.shape[1])
    return np.asarray(model.fit(turned, above, sample_weight=parts).coef_[0])


def fit_slope(values: Array, won: Array, weight: Array) -> float:
    """Return the positive factor that makes held-out differences log odds: the one of the smallest log loss."""
    found = minimize_scalar(
        lambda slope: log_loss(slope * values, won, weight), bounds=(1e-3, MAX_SLOPE), method="bounded"
    )
    return float(found.x)


def log_loss(odds: Array, won: Array, weight: Array) -> float:
    """Mean log loss of log odds against shares won."""
    p = np.clip(expit(odds), 1e-12, 1 - 1e-12)
    return float(np.average(-won * np.log(p) - (1 - won) * np.log1p(-p), weights=weight))
