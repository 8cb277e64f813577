"""Between score tokens and probes: a judge that stacks the layers' expectations of LAGER with a probe's value.

Without labels it is LAGER. With labels, a ridge regression weighs the probe's value against what each layer's score
tokens expect; how far it trusts either is set by left-out errors, on probe values that inner folds held out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import RidgeCV

from inspector_pipeline.errors import DataFileError
from training.calibration import Calibration
from training.cost import Cost
from training.evaluate import Fold
from training.heads import Target
from training.labels import Array, Index, Labels
from training.methods import LayerLogits, Predicted, ProbesMethod, check_both_kinds
from training.metrics import Prediction
from training.probing_set import is_positive
from training.search import Choice, SearchConfig, fit_judge, held_out_values, search

PENALTIES = np.logspace(0, 5, 11)


class CombinedMethod:
    """Probes and score tokens, stacked inside each fold."""

    n_folds: int | None = None
    description = "a ridge regression on a probe's value and the expectation of each layer's score tokens"

    def __init__(self, name: str, probes: ProbesMethod, logits: LayerLogits) -> None:
        """Take probes and score tokens of the same rows.

        Args:
            name: Its name in the table.
            probes: The probes, not searched yet.
            logits: The score tokens' logits, of every aspect of the labels.

        Raises:
            DataFileError: The score tokens lack an aspect.
        """
        present = {logits.labels.names[a] for a in np.unique(logits.labels.aspect)}
        missing = sorted(present - logits.values.keys())
        if missing:
            raise DataFileError(f"{name} expects score tokens of all aspects, but those of {missing[0]} are missing.")
        self.name, self.probes, self.logits = name, probes, logits
        self.shares: list[float] = []

    @property
    def budget(self) -> str:
        """That of the probes, and one more fit."""
        return f"{self.probes.budget}; {len(PENALTIES)} penalties of the stack"

    def predict(self, fold: Fold) -> Predicted:
        """Fit on a fold's training rows and predict its test rows; by LAGER alone where probes cannot be fitted."""
        try:
            check_both_kinds(fold.train)
            choice = search(self.probes.design, fold.train, self.probes.search)
            judge = fit_judge(self.probes.design, fold.train, choice, self.probes.search)
        except DataFileError:  # the same features serve all rows, so it is the labels that are too few
            yield from self._untuned(fold.test)
            return
        self.probes.choices.append(choice)
        held_out, rows = _held_out(self.probes, fold.train, choice)
        stack = _Stack.fit(held_out, self._expectations(rows), rows, self.probes.search)
        self.shares.append(round(stack.probe_share, 3))
        fitted = stack.values(held_out, self._expectations(rows), rows.aspect)
        asked = stack.values(
            judge.values(self.probes.design, fold.test), self._expectations(fold.test), fold.test.aspect
        )
        for a in np.unique(fold.test.aspect):
            own, known, classes = fold.test.aspect == a, rows.aspect == a, rows.classes[a]
            calibration = Calibration.fit(fitted[known], rows.score[known], classes)
            yield fold.test.row[own], _prediction(calibration, asked[own], classes)

    def _untuned(self, test: Labels) -> Predicted:
        expectations = self._expectations(test).mean(axis=1)
        for a in np.unique(test.aspect):
            own, classes = test.aspect == a, np.array(test.classes[a])
            expected = expectations[own]
            nearest = classes[np.abs(expected[:, None] - classes).argmin(axis=1)]
            yield test.row[own], Prediction(expected, expected, np.full(len(expected), np.nan), nearest)

    def _expectations(self, rows: Labels) -> Array:
        """Return what each layer's score tokens expect, (rows, layers)."""
        n_layers = next(iter(self.logits.values.values())).shape[1]
        found = np.zeros((len(rows.score), n_layers))
        for a in np.unique(rows.aspect):
            own, name = rows.aspect == a, rows.names[a]
            shares = softmax(self.logits.of(name, rows.row[own]), axis=2)
            found[own] = shares @ np.array(self.logits.scales[name], dtype=float)
        return found

    def cost(self, notes: Mapping[str, Any]) -> Cost:
        """Both the probes' passes and the score tokens'; the latter alone where there were no probes."""
        tokens = self.logits.cost()
        if "deepest_reads" not in notes:
            return tokens
        probes = self.probes.cost(notes)
        seconds = (probes.seconds_per_pair or 0.0) + (tokens.seconds_per_pair or 0.0)
        return Cost(seconds, probes.flops_per_pair + tokens.flops_per_pair)

    def notes(self) -> dict[str, Any]:
        """What the probes chose, and how much of the stack's weight is theirs, by fold."""
        return {**self.probes.notes(), "probe_share": self.shares}


def _held_out(probes: ProbesMethod, train: Labels, choice: Choice) -> tuple[Array, Labels]:
    """Return probe values of training rows by inner fits that never saw their questions, and those rows."""
    parts = [
        held_out_values(probes.design, choice.view, choice.depth, train, group, [setting], probes.search)
        for group, setting in zip(train.groups(), choice.settings, strict=True)
    ]
    order = np.concatenate([rows.row for _, rows in parts])
    values = np.concatenate([found[0] for found, _ in parts])
    return values, train.take(_places(train.row, order))


def _places(rows: Index, wanted: Index) -> Index:
    sorter = np.argsort(rows)
    return np.asarray(sorter[np.searchsorted(rows, wanted, sorter=sorter)])


class _Stack:
    """A ridge regression, shared by all aspects, on columns that are centred for each."""

    def __init__(self, means: dict[int, Array], offsets: dict[int, float], scale: Array, weights: Array) -> None:
        self.means, self.offsets, self.scale, self.weights = means, offsets, scale, weights

    @classmethod
    def fit(cls, values: Array, expectations: Array, rows: Labels, config: SearchConfig) -> "_Stack":
        target = Target.of(rows, config.target_weight).value
        columns = np.column_stack([values, expectations])
        aspects = [int(a) for a in np.unique(rows.aspect)]
        means = {a: columns[rows.aspect == a].mean(axis=0) for a in aspects}
        offsets = {a: float(target[rows.aspect == a].mean()) for a in aspects}
        centred = columns - np.array([means[a] for a in rows.aspect])
        # Together the layers may say as much as the probe.
        scale = np.maximum(centred.std(axis=0), 1e-9) * np.sqrt([1.0, *[expectations.shape[1]] * expectations.shape[1]])
        wanted = target - np.array([offsets[a] for a in rows.aspect])
        model = RidgeCV(alphas=PENALTIES, fit_intercept=False).fit(centred / scale, wanted, sample_weight=rows.weight)
        return cls(means, offsets, scale, np.asarray(model.coef_))

    @property
    def probe_share(self) -> float:
        """The probe's part of the absolute weights, in units of each column's spread."""
        spread = np.abs(self.weights) / np.sqrt([1.0, *[len(self.weights) - 1] * (len(self.weights) - 1)])
        return float(spread[0] / max(spread.sum(), 1e-12))

    def values(self, values: Array, expectations: Array, aspect: Index) -> Array:
        columns = np.column_stack([values, expectations]) - np.array([self.means[int(a)] for a in aspect])
        return np.asarray(columns / self.scale @ self.weights + np.array([self.offsets[int(a)] for a in aspect]))


def _prediction(calibration: Calibration, values: Array, classes: list[int]) -> Prediction:
    scale, probabilities = np.array(classes), calibration.probabilities(values)
    expected = probabilities @ scale
    good = probabilities[:, is_positive(scale, classes)].sum(axis=1)
    return Prediction(expected, expected, good, scale[calibration.class_index(values)])
