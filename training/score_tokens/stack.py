"""Between score tokens and probes: a judge that stacks the layers' expectations of LAGER with a probe's value.

Without labels it is LAGER. With labels, a ridge regression weighs the probe's value against what each layer's score
tokens expect; how far it trusts either is set by left-out errors, on probe values that inner folds held out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy.special import softmax
from sklearn.linear_model import RidgeCV

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.heads import ScoreTokens, probe_key
from inspector_pipeline.int8 import TORCH
from inspector_pipeline.modeling_inspector import InspectorModel

from ..features.store import RUBRIC_PREFIX, FeatureSet
from ..judges.build import AspectHead, BackboneSpec, ProbeWeights, ScoreTokenWeights, build_judge
from ..probing.calibration import Calibration
from ..probing.fits import Target
from ..probing.kernels import Design
from ..probing.search import Choice, FittedJudge, fit_judge, held_out_values, search
from ..probing.settings import SearchConfig
from ..probing.table import Array, Index, Labels, question_folds
from ..rows.records import LabelledPair, is_good
from .logits import LayerLogits

SCORE_PREFIX = "score:"  # and an aspect: a reading that ends right before the score; no extracted one is named so
NO_LABELS = "there was no label of it"
ONE_KIND = "its labels are all good or all not"
UNCOUNTED = "it does not count in the total"
PENALTIES = np.logspace(0, 5, 11)
# Of a score; a column that moves less is rounding, as that of the embeddings is: a reading's last token is always one.
MIN_SPREAD = 1e-4


class Linear(NamedTuple):
    """A stack's value of one aspect as a linear map: probe * value + layers @ expectations + bias.

    Attributes:
        probe: Weight of the probe's value.
        layers: (layers,) those of the layers' expectations.
        bias: Added last.
    """

    probe: float
    layers: Array
    bias: float


@dataclass(frozen=True)
class Stack:
    """A ridge regression, shared by all aspects, on columns that are centred for each.

    The columns are the probe's value and then each layer's expectation.

    Attributes:
        means: Aspect -> (1 + layers,) of its columns.
        offsets: Aspect -> value at those means.
        scale: (1 + layers,) what centred columns are divided by.
        weights: (1 + layers,).
        penalty: The ridge's, chosen by the errors on left-out questions.
    """

    means: Mapping[int, Array]
    offsets: Mapping[int, float]
    scale: Array
    weights: Array
    penalty: float

    @classmethod
    def fit(cls, values: Array, expectations: Array, rows: Labels, config: SearchConfig) -> "Stack":
        """Fit on probe values of rows that the probe was not fitted on.

        Args:
            values: (rows,).
            expectations: (rows, layers).
            rows: Their labels.
            config: For the target and the folds that choose the penalty.

        Raises:
            TooFewLabelsError: There are fewer questions than folds.
        """
        target = Target.of(rows, config.target_weight).value
        columns = np.column_stack([values, expectations])
        aspects = [int(a) for a in np.unique(rows.aspect)]
        own = {a: rows.aspect == a for a in aspects}
        means = {a: np.average(columns[own[a]], axis=0, weights=rows.weight[own[a]]) for a in aspects}
        offsets = {a: float(np.average(target[own[a]], weights=rows.weight[own[a]])) for a in aspects}
        centred = columns - np.array([means[a] for a in rows.aspect])
        # Together the layers may say as much as the probe.
        n_layers = expectations.shape[1]
        scale = np.maximum(centred.std(axis=0), MIN_SPREAD) * np.sqrt([1.0, *[n_layers] * n_layers])
        wanted = target - np.array([offsets[a] for a in rows.aspect])
        folds = list(question_folds(rows, config.inner_folds, config.seed))
        model = RidgeCV(alphas=PENALTIES, fit_intercept=False, cv=folds, scoring="neg_mean_squared_error")
        model.fit(centred / scale, wanted, sample_weight=rows.weight)
        return cls(means, offsets, scale, np.asarray(model.coef_), float(model.alpha_))

    @property
    def probe_share(self) -> float:
        """The probe's part of the absolute weights, in units of each column's spread."""
        spread = np.abs(self.weights) / np.sqrt([1.0, *[len(self.weights) - 1] * (len(self.weights) - 1)])
        return float(spread[0] / max(spread.sum(), 1e-12))

    def values(self, values: Array, expectations: Array, aspect: Index) -> Array:
        """Return the value of rows, (rows,), by what their probes give, their expectations and their aspects."""
        columns = np.column_stack([values, expectations]) - np.array([self.means[int(a)] for a in aspect])
        return np.asarray(columns / self.scale @ self.weights + np.array([self.offsets[int(a)] for a in aspect]))

    def linear(self, aspect: int) -> Linear:
        """Return the same as one linear map of an aspect's columns as they are."""
        slopes = self.weights / self.scale
        return Linear(float(slopes[0]), slopes[1:], self.offsets[aspect] - float(self.means[aspect] @ slopes))


@dataclass(frozen=True)
class Combination:
    """Probes, the stack of them with score tokens, and how its value becomes scores, fitted on training rows.

    Attributes:
        design: The features of all rows.
        judge: The probes.
        stack: The stack.
        calibrations: Aspect -> from the stack's value to score and probabilities.
    """

    design: Design
    judge: FittedJudge
    stack: Stack
    calibrations: Mapping[int, Calibration]

    @classmethod
    def fit(cls, design: Design, logits: LayerLogits, train: Labels, config: SearchConfig) -> "Combination":
        """Search and fit probes, stack them, and calibrate.

        Args:
            design: Features of all rows.
            logits: Score tokens' logits of all rows.
            train: The training rows.
            config: What is searched.

        Raises:
            DataFileError: The training rows are too few, or the features lack what the search asks for.
        """
        choice = search(design, train, config)
        judge = fit_judge(design, train, choice, config)
        held_out, rows = _held_out(design, train, choice, config)
        expected = expectations(logits, rows)
        stack = Stack.fit(held_out, expected, rows, config)
        fitted = _left_out(held_out, expected, rows, config)
        own = {int(a): rows.aspect == a for a in np.unique(rows.aspect)}
        calibrations = {a: Calibration.fit(fitted[own[a]], rows.score[own[a]], rows.classes[a]) for a in own}
        return cls(design, judge, stack, calibrations)

    def values(self, logits: LayerLogits, rows: Labels) -> Array:
        """Return the stack's value of rows, (rows,)."""
        return self.stack.values(self.judge.values(self.design, rows), expectations(logits, rows), rows.aspect)

    def folded(self, aspect: int) -> tuple[ProbeWeights, Array]:
        """Fold probe, stack and the calibration's slope into one linear map, in float64: a probe and layer weights."""
        center, weight, bias = self.judge.probe(self.design, aspect)
        calibration, linear = self.calibrations[aspect], self.stack.linear(aspect)
        slope, parameters = calibration.slope, {"thresholds": calibration.thresholds, "cuts": calibration.cuts}
        folded = slope * linear.probe * weight[None], np.array([slope * (linear.probe * bias + linear.bias)])
        return ProbeWeights(
            "ordinal", self.judge.labels.classes[aspect], center, *folded, parameters
        ), slope * linear.layers


def expectations(logits: LayerLogits, rows: Labels) -> Array:
    """Return what each layer's score tokens expect, (rows, layers)."""
    n_layers = next(iter(logits.values.values())).shape[1]
    found = np.zeros((len(rows.score), n_layers))
    for a in np.unique(rows.aspect):
        own, name = rows.aspect == a, rows.names[a]
        shares = softmax(logits.of(name, rows.row[own]), axis=2)
        found[own] = shares @ np.array(logits.scales[name], dtype=float)
    return found


def refuse_missing_tokens(name: str, logits: LayerLogits) -> None:
    """Refuse score tokens that lack an aspect of the labels.

    Raises:
        DataFileError: They do.
    """
    present = {logits.labels.names[a] for a in np.unique(logits.labels.aspect)}
    missing = sorted(present - logits.values.keys())
    if missing:
        raise DataFileError(f"{name} expects score tokens of all aspects, but those of {missing[0]} are missing.")


def _left_out(values: Array, expected: Array, rows: Labels, config: SearchConfig) -> Array:
    """Return the stack's values of rows by fits that never saw their questions: what thresholds may be fitted on."""
    found = np.full(len(values), np.nan)
    for fit, out in question_folds(rows, config.inner_folds, config.seed):
        stack = Stack.fit(values[fit], expected[fit], rows.take(fit), config)
        found[out] = stack.values(values[out], expected[out], rows.aspect[out])
    return found


def _held_out(design: Design, train: Labels, choice: Choice, config: SearchConfig) -> tuple[Array, Labels]:
    """Return probe values of training rows by inner fits that never saw their questions, and those rows."""
    parts = [
        held_out_values(design, choice.view, choice.depth, train, group, [setting], config)
        for group, setting in zip(train.groups(), choice.settings, strict=True)
    ]
    order = np.concatenate([rows.row for _, rows in parts])
    by_row = np.argsort(train.row)
    places = by_row[np.searchsorted(train.row, order, sorter=by_row)]
    return np.concatenate([found[0] for found, _ in parts]), train.take(places)


def left_out(pairs: Sequence[LabelledPair], names: Sequence[str], uncounted: Collection[str]) -> dict[str, str]:
    """Say for which aspects no probe is fitted, and why.

    Args:
        pairs: Labelled pairs.
        names: The aspects that a judge of score tokens has.
        uncounted: Aspects that do not count in the total.
    """
    scores: dict[str, list[int]] = {name: [] for name in names}
    for pair in pairs:
        for name, score in pair.scores.items():
            scores.setdefault(name, []).extend([] if pair.auxiliary else [score])
    good = {name: is_good(np.array(own), own) for name, own in scores.items() if own}
    one_kind = {name: ONE_KIND for name, own in good.items() if own.all() or not own.any()}
    unlabelled = {name: NO_LABELS for name in scores if name not in good}
    return {**unlabelled, **one_kind, **{name: UNCOUNTED for name in scores if name in uncounted}}


def check_same_backbone(config: InspectorConfig, features: FeatureSet) -> None:
    """Refuse features that were not read from a judge's backbone.

    Args:
        config: The judge's.
        features: The features.

    Raises:
        DataFileError: They are of another backbone or dtype, or of pairs that were cut at another length.
    """
    settings = features.manifest.settings
    used, ours = settings["backbone"], astuple(BackboneSpec.of(config))[:5]
    theirs = (used["id"], used["revision"], used["dtype"], settings["max_length"], used.get("engine", TORCH))
    names = ("backbone_id", "backbone_revision", "dtype", "max_length", "engine")
    for name, expected, found in zip(names, ours, theirs, strict=True):
        if expected != found:
            raise DataFileError(
                f"A combined judge expects features and score tokens of one backbone, but {name} is {found!r} for the "
                f"features and {expected!r} for the score tokens. Make one of them again."
            )


def combined_judge(
    tokens: InspectorModel, fitted: Combination | None, uncounted: Collection[str] = ()
) -> InspectorModel:
    """Make a judge of stacked heads.

    Args:
        tokens: A judge of score tokens, without or with its backbone.
        fitted: Probes and stack; None where there are none.
        uncounted: Aspects that do not count in the total.

    Returns:
        A judge without its backbone. Aspects that were not fitted have the head that they have in `tokens`.
    """
    readings = {_score_reading(name): reading for name, reading in tokens.config.readings.items()}
    numbers = {}
    if fitted is not None:
        readings |= {name: reading.to_dict() for name, reading in fitted.design.data.readings.items()}
        numbers = {fitted.judge.labels.names[a]: a for a in fitted.calibrations}
    heads = []
    for aspect in tokens.aspects:
        module = cast(ScoreTokens, tokens.probes[probe_key(aspect.name)])
        head = {name: getattr(aspect.head, name) for name in ("type", "rule", "aggregation")}
        kept = AspectHead(
            aspect.name,
            [replace(feature, reading=_score_reading(feature.reading)) for feature in aspect.features],
            {**head, "token_ids": list(aspect.head.token_ids)},
            aspect.classes,
            tokens=ScoreTokenWeights(module.weight, module.bias, module.levels, module.layer_weights),
            counts_in_total=aspect.counts_in_total and aspect.name not in uncounted,
        )
        heads.append(_stacked(kept, fitted, numbers[kept.name]) if fitted and kept.name in numbers else kept)
    return build_judge(BackboneSpec.of(tokens.config), readings, heads, rank_by=tokens.config.rank_by)


def _score_reading(name: str) -> str:
    """Rename a reading of score tokens, since extracted features may be of another reading of that name."""
    return f"{SCORE_PREFIX}{name.removeprefix(RUBRIC_PREFIX)}"


def _stacked(kept: AspectHead, fitted: Combination, number: int) -> AspectHead:
    """Put an aspect's probe before its score tokens."""
    choice, (probe, layers) = fitted.judge.choice, fitted.folded(number)
    features = fitted.design.features(choice.view, kept.name, choice.depth)
    head = {"type": "stacked", "rule": probe.rule, "token_ids": kept.head["token_ids"]}
    return replace(
        kept,
        features=[*features, *kept.features],
        head={**head, "n_probe_features": len(features)},
        classes=probe.classes,
        probe=probe,
        tokens=cast(ScoreTokenWeights, kept.tokens)._replace(layers=torch.tensor(layers)),
    )
