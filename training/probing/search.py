"""Choose what a judge reads and how it is fitted, from training rows alone, and fit it.

A probe is one linear map over the pooled states of some layers. Every view of the states (reading, poolings, layers,
scaling), depth, penalty and degree of sharing between aspects is tried by ridge regression with leave-one-question-out
errors, which need no refit. The best views go into an inner cross-validation by question, which chooses the depth: the
shallowest that loses at most `tolerance` mean AUROC against the best. There the other heads are tried, and one is taken
only where it gains more than `tolerance`; then auxiliary rows, which get the greatest weight that loses at most
`tolerance` against the best one. Probabilities come from a cumulative logit model, and the cuts between scores from
quantiles, both on the inner folds' held-out values.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from inspector_pipeline.errors import DataFileError

from .calibration import Calibration, Rounding
from .fits import Fit, Target, fit_each, left_out_errors
from .kernels import Design, deviation, unwhitened
from .settings import SearchConfig, Setting, View
from .table import Array, Index, Labels, TooFewLabelsError, balanced, question_folds, with_both_kinds

REMEMBERED = 8  # earlier held-out values of a group


@dataclass(frozen=True)
class Choice:
    """What the search chose.

    Attributes:
        view: What probes read.
        depth: Of the judge.
        settings: How each group of aspects is fitted, in the order of `Labels.groups`.
        curve: Depth -> inner AUROC of the chosen view, mean over the aspects that count.
        sweep: View -> depth -> share of the target's variance that left-out fits explain, mean over aspects.
        tried: What was tried at the chosen depth -> its inner AUROC.
    """

    view: View
    depth: int
    settings: tuple[Setting, ...]
    curve: dict[int, float]
    sweep: dict[str, dict[int, float]]
    tried: dict[str, float]


@dataclass(frozen=True)
class FittedJudge:
    """Probes and calibrations of all aspects, fitted on training rows.

    Attributes:
        choice: What was chosen.
        labels: The training rows.
        fits: One for each group of aspects.
        calibrations: How each aspect that has training rows turns values into scores.
    """

    choice: Choice
    labels: Labels
    fits: tuple[Fit, ...]
    calibrations: Mapping[int, Calibration | Rounding]

    def values(self, design: Design, rows: Labels) -> Array:
        """Return the fitted value of rows, (rows,)."""
        values = np.full(len(rows.score), np.nan)
        for group, fitted in zip(self.labels.groups(), self.fits, strict=True):
            own = np.flatnonzero(np.isin(rows.aspect, group))
            if len(own):  # a scaling is each group's own, as its fit was
                part = design.of(group)
                gram = _gram(part, self.choice.view, self.choice.depth, fitted.train.unit, auxiliary=True)
                values[own] = fitted.values(gram, part.rows(self.choice.view, rows.take(own)))
        return values

    def probe(self, design: Design, aspect: int) -> tuple[Array, Array, float]:
        """Return an aspect's centre and weight, (features,) each, and bias; a value is (x - centre) . weight + bias."""
        view, depth = self.choice.view, self.choice.depth
        groups = zip(self.labels.groups(), self.fits, strict=True)
        members, fitted = next((members, one) for members, one in groups if aspect in members)
        design = design.of(members)
        x = design.stack(view, depth)
        dual, center = fitted.unit_dual(aspect, len(x))
        train = np.unique(fitted.train.unit)
        if view.scaling == "whiten":
            plain = design.gram(replace(view, scaling="none"), depth, auxiliary=True)
            dual[: len(plain)] = unwhitened(plain, train, dual[: len(plain)])
        weight = design.with_prior(view, depth, dual @ x.astype(np.float64))
        if view.scaling == "standard":
            weight = weight / deviation(x[train]) ** 2
        return center @ x.astype(np.float64), weight, float(fitted.offset[aspect])


class Main(NamedTuple):
    """What was chosen on the group of aspects that decides view and depth.

    Attributes:
        view: What probes read.
        depth: Of the judge.
        curve: As in `Choice`.
        sweep: As in `Choice`.
        setting: How the group is fitted.
        tried: What was tried at the chosen depth -> its inner AUROC.
    """

    view: View
    depth: int
    curve: dict[int, float]
    sweep: dict[str, dict[int, float]]
    setting: Setting
    tried: dict[str, float]


def search(
    design: Design, labels: Labels, config: SearchConfig, found: MutableMapping[bytes, Main] | None = None
) -> Choice:
    """Choose view, depth, heads and penalties from training rows.

    Args:
        design: Features of all rows.
        labels: The training rows, of `design.labels`.
        config: What to choose from.
        found: What earlier searches with this config found on the rows that decide view and depth; added to. Folds that
            differ in other aspects' rows alone share it.

    Raises:
        TooFewLabelsError: There are too few labels.
        DataFileError: The features lack what is asked for.
    """
    if not len(labels.score):
        raise TooFewLabelsError("A search expects training labels, but there are none.")
    group, *others = labels.groups()
    deciding = labels.take(np.flatnonzero(np.isin(labels.aspect, group)))
    key, found = deciding.row.tobytes(), {} if found is None else found
    if key not in found:
        found[key] = _search_main(design, deciding, group, config)
    main = found[key]
    settings, tried = [main.setting], {**main.tried}
    by_order = config.alone_penalties is not None
    penalties = config.alone_penalties or config.penalties
    alone = replace(config, depths=(main.depth,), sharings=(0.0,), penalties=penalties)
    for members in others:
        ridge = _sweep(design, main.view, labels, members, alone, by_order=by_order)[main.depth][1]
        chosen, own = _refine(design, main.view, main.depth, labels, members, ridge, config)
        settings.append(chosen)
        tried |= _named(own, labels, members)
    return Choice(main.view, main.depth, tuple(settings), main.curve, main.sweep, tried)


def _search_main(design: Design, labels: Labels, group: Sequence[int], config: SearchConfig) -> Main:
    """Choose view and depth on the rows of one group of aspects, and how it is fitted."""
    if not set(group) & set(with_both_kinds(labels)):
        raise TooFewLabelsError(
            f"Expected good and other labels (4 and more against less; 1 against 0) of {labels.names[group[0]]} or "
            "another aspect that counts, but all are of one kind. Label more."
        )
    sweep = {view: _sweep(design, view, labels, group, config) for view in config.views}
    ranked = sorted(sweep, key=lambda view: max(value for value, _ in sweep[view].values()), reverse=True)
    curves = {
        (view, depth): _inner_aurocs(design, view, depth, labels, group, [setting], config)[setting]
        for view in ranked[: config.finalists]
        for depth, (_, setting) in sweep[view].items()
    }
    near = [key for key, value in curves.items() if value >= max(curves.values()) - config.tolerance]
    view, depth = min(near, key=lambda key: (key[1], -curves[key]))
    chosen, tried = _refine(design, view, depth, labels, group, sweep[view][depth][1], config)
    curve = {d: value for (v, d), value in curves.items() if v == view}
    explained = {str(v): {d: value for d, (value, _) in own.items()} for v, own in sweep.items()}
    return Main(view, depth, curve, explained, chosen, _named(tried, labels, group))


def _named(tried: Mapping[str, float], labels: Labels, group: Sequence[int]) -> dict[str, float]:
    """Put the group's aspects before what was tried for them."""
    return {f"{', '.join(labels.names[a] for a in group)}: {name}": value for name, value in tried.items()}


def fit_judge(design: Design, labels: Labels, choice: Choice, config: SearchConfig) -> FittedJudge:
    """Fit all aspects on training rows as chosen.

    Args:
        design: Features of all rows.
        labels: The training rows, of `design.labels`.
        choice: What the search chose.
        config: Settings.
    """
    calibrations: dict[int, Calibration | Rounding] = {}
    fits = []
    for members, setting in zip(labels.groups(), choice.settings, strict=True):
        calibrations |= _calibrations(design, labels, members, choice, setting, config)
        rows = training_rows(labels, members, setting)
        fits.extend(_fit(design.of(members), choice.view, choice.depth, rows, [setting], config))
    return FittedJudge(choice, labels, tuple(fits), calibrations)


def _calibrations(
    design: Design, labels: Labels, group: Sequence[int], choice: Choice, setting: Setting, config: SearchConfig
) -> Mapping[int, Calibration | Rounding]:
    if not config.bias:
        return {a: Rounding(labels.classes[a]) for a in group}
    (values,), rows = held_out_values(design, choice.view, choice.depth, labels, group, [setting], config)
    own = {a: rows.aspect == a for a in group}
    return {a: Calibration.fit(values[own[a]], rows.score[own[a]], labels.classes[a]) for a in group}


def held_out_values(
    design: Design,
    view: View,
    depth: int,
    labels: Labels,
    group: Sequence[int],
    settings: Sequence[Setting],
    config: SearchConfig,
) -> tuple[Array, Labels]:
    """Predict every row of some aspects by the inner fold's fits that did not see its question.

    Args:
        design: Features of all rows.
        view: What the fits read.
        depth: How deep.
        labels: The training rows.
        group: Aspects that are fitted together.
        settings: Ways to fit, all with the same weight of auxiliary rows.
        config: For the folds and the target.

    Returns:
        The values, (settings, rows), and the rows: those of the aspects that are not auxiliary.
    """
    kept, design = training_rows(labels, group, settings[0]), design.of(group)
    key = (view, depth, labels.row.tobytes(), tuple(settings), repr(config))  # a choice is calibrated on what chose it
    if key in design.held_out:
        return design.held_out[key], kept.take(np.flatnonzero(~kept.auxiliary))
    values = np.full((len(settings), len(kept.score)), np.nan)
    for fit_rows, out_rows in question_folds(kept, config.inner_folds, config.seed):
        fits = _fit(design, view, depth, kept.take(fit_rows), settings, config)
        gram = _gram(design, view, depth, fits[0].train.unit, auxiliary=settings[0].auxiliary > 0)
        out = design.rows(view, kept.take(out_rows))
        values[:, out_rows] = [fitted.values(gram, out) for fitted in fits]
    scored = np.flatnonzero(~kept.auxiliary)
    design.held_out = {key: values[:, scored]} | dict(list(design.held_out.items())[:REMEMBERED])
    return values[:, scored], kept.take(scored)


def training_rows(labels: Labels, group: Sequence[int], setting: Setting) -> Labels:
    """Return the rows of some aspects, auxiliary ones with the setting's weight or not at all."""
    wanted = np.isin(labels.aspect, list(group)) & (~labels.auxiliary | (setting.auxiliary > 0))
    kept = labels.take(np.flatnonzero(wanted))
    return replace(kept, weight=np.where(kept.auxiliary, kept.weight * setting.auxiliary, kept.weight))


def _fit(
    design: Design, view: View, depth: int, labels: Labels, settings: Sequence[Setting], config: SearchConfig
) -> list[Fit]:
    labels = balanced(labels, config.balance)
    train = design.rows(view, labels)
    gram = _gram(design, view, depth, train.unit, auxiliary=bool(labels.auxiliary.any()))
    return fit_each(gram, train, Target.of(labels, config.target_weight), settings, centered=config.bias)


def _gram(design: Design, view: View, depth: int, train: Index, *, auxiliary: bool) -> Array:
    return design.scaled(view, depth, np.unique(train), auxiliary=auxiliary and bool(design.labels.auxiliary.any()))


def _sweep(
    design: Design, view: View, labels: Labels, group: Sequence[int], config: SearchConfig, *, by_order: bool = False
) -> dict[int, tuple[float, Setting]]:
    """Find each depth's best ridge by its left-out errors: depth -> variance explained (or AUROC) and the setting."""
    gain = _ordered if by_order else _explained
    rows, design = balanced(training_rows(labels, group, Setting()), config.balance), design.of(group)
    train = design.rows(view, rows)
    target = Target.of(rows, config.target_weight)
    found: dict[int, tuple[float, Setting]] = {}
    for depth in chosen_depths(design, config):
        gram = _gram(design, view, depth, train.unit, auxiliary=False)
        for sharing in config.sharings if len(group) > 1 else (0.0,):
            errors = left_out_errors(gram, train, target, sharing, config.penalties, centered=config.bias)
            for penalty, error in zip(config.penalties, errors, strict=True):
                candidate = (gain(error, target.value, rows), Setting("ridge", penalty, sharing))
                found[depth] = max(found.get(depth, candidate), candidate, key=lambda entry: entry[0])
    return found


def chosen_depths(design: Design, config: SearchConfig) -> tuple[int, ...]:
    """Return the depths to choose from.

    Raises:
        DataFileError: The features lack one.
    """
    there = design.depths
    missing = set(config.depths or ()) - set(there)
    if missing or not there:
        raise DataFileError(
            f"depths expects layers of the features, {there}, but got {sorted(missing)}. Run the extract stage with "
            "them, or leave them out."
        )
    return config.depths or tuple(layer for layer in there if layer % 2 == 0) or (max(there),)


def _explained(error: Array, value: Array, rows: Labels) -> float:
    """Average over aspects the share of the target's variance that is explained; 0 where no aspect has any."""
    shares = []
    for a in np.unique(rows.aspect):
        own = (rows.aspect == a) & ~np.isnan(error)
        if len(np.unique(value[own])) > 1:
            weight, y = rows.weight[own], value[own]
            spread = np.average((y - np.average(y, weights=weight)) ** 2, weights=weight)
            shares.append(1 - float(np.average(error[own] ** 2, weights=weight) / spread))
    return float(np.mean(shares)) if shares else 0.0


def _ordered(error: Array, value: Array, rows: Labels) -> float:
    """Return the AUROC of left-out values, mean over aspects; 0 where no aspect has both kinds of labels."""
    known = np.flatnonzero(~np.isnan(error))
    return float(np.nan_to_num(mean_auroc(rows.take(known), (value - error)[known])))


def _refine(
    design: Design, view: View, depth: int, labels: Labels, group: Sequence[int], ridge: Setting, config: SearchConfig
) -> tuple[Setting, dict[str, float]]:
    """Try other heads, and keep one that gains more than the tolerance; then auxiliary rows, as heavy as may be."""
    heads = config.heads if config.bias else ()
    others = [replace(ridge, head=head, penalty=penalty) for head, penalty in product(heads, config.head_penalties)]
    tried = _inner_aurocs(design, view, depth, labels, group, [ridge, *others], config)
    best = max(tried, key=tried.__getitem__)
    best = best if tried[best] > tried[ridge] + config.tolerance else ridge
    if (labels.auxiliary & np.isin(labels.aspect, list(group))).any():
        weighted = [replace(best, auxiliary=weight) for weight in config.auxiliary_weights]
        for setting in weighted:
            tried |= _inner_aurocs(design, view, depth, labels, group, [setting], config)
        # The labelled rows cannot show what auxiliary rows are for: responses unlike themselves.
        enough = max(tried[setting] for setting in (best, *weighted)) - config.tolerance
        harmless = [setting for setting in (best, *weighted) if tried[setting] >= enough]
        best = max(harmless, key=lambda setting: setting.auxiliary)
    return best, {str(setting): value for setting, value in tried.items()}


def _inner_aurocs(
    design: Design,
    view: View,
    depth: int,
    labels: Labels,
    group: Sequence[int],
    settings: Sequence[Setting],
    config: SearchConfig,
) -> dict[Setting, float]:
    values, rows = held_out_values(design, view, depth, labels, group, settings, config)
    return {setting: mean_auroc(rows, own) for setting, own in zip(settings, values, strict=True)}


def mean_auroc(labels: Labels, values: Array) -> float:
    """AUROC of good against other labels, mean over the aspects that have both; NaN where none has."""
    positive, own = labels.positive, [labels.aspect == a for a in with_both_kinds(labels)]
    return float(np.mean([auroc(positive[rows], values[rows]) for rows in own])) if own else float("nan")


def auroc(positive: NDArray[np.bool_], values: Array) -> float:
    """Area under the ROC curve, by ranks; NaN where a class is absent."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(values)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
