"""Port fitted scikit-learn classifiers to probes: linear maps in float64, folded once, and a decision rule.

Accepted are a Pipeline of SimpleImputer, StandardScaler and PCA (each optional, in any order) and then a linear
classifier or regression; GridSearchCV and RandomizedSearchCV stand for their best estimator.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.validation import check_is_fitted

from inspector_pipeline.errors import InspectorError

from .build import Array, ProbeWeights

PORTABLE = (
    "Pipeline of SimpleImputer, StandardScaler, PCA (each optional), then LogisticRegression, "
    "OneVsRestClassifier(LogisticRegression), SVC(kernel='linear'), LinearSVC, RidgeClassifier, Ridge, "
    "LinearRegression, Lasso, or CalibratedClassifierCV(method='sigmoid') around one of the classifiers"
)
REGRESSIONS = (Ridge, RidgeCV, LinearRegression, Lasso)
MARGINS = (LinearSVC, RidgeClassifier, RidgeClassifierCV)


class NotPortableError(InspectorError, ValueError):
    """An estimator cannot be written as a probe; the message says what can."""


@dataclass(frozen=True)
class _Affine:
    """x -> (x - center) @ matrix + shift; the matrix may be a diagonal, (features,)."""

    center: Array
    matrix: Array
    shift: Array

    def then_scale(self, mean: Array, factor: Array) -> "_Affine":
        """Append x -> (x - mean) * factor."""
        return _Affine(self.center, self.matrix * factor, (self.shift - mean) * factor)

    def then_project(self, mean: Array, components: Array) -> "_Affine":
        """Append x -> (x - mean) @ components.T."""
        matrix = self.matrix[:, None] * components.T if self.matrix.ndim == 1 else self.matrix @ components.T
        return _Affine(self.center, matrix, (self.shift - mean) @ components.T)

    def weight(self, coef: Array) -> Array:
        """Return the weight on x of a coefficient on what comes out."""
        weight: Array = coef * self.matrix if self.matrix.ndim == 1 else coef @ self.matrix.T
        return weight


def port(estimator: Any, classes: list[int] | None = None) -> ProbeWeights:
    """Port a fitted estimator.

    Args:
        estimator: See `PORTABLE`.
        classes: The scores that a regression was fitted on, ascending; classifiers know theirs.

    Returns:
        The probe, in float64.

    Raises:
        NotPortableError: The estimator, or a part of it, is not linear, is not fitted, lacks its classes, or holds
            numbers beyond float32.
    """
    with np.errstate(all="ignore"):  # what overflows is refused here, by name
        probe = _port(estimator, classes)
    numbers = (probe.center, probe.weight, probe.bias, *probe.parameters.values())
    held = all((np.abs(array) <= np.finfo(np.float32).max).all() for array in numbers)
    _require(held, "A probe expects numbers that float32 can hold, but the estimator's, put together, are larger.")
    return probe


def _port(estimator: Any, classes: list[int] | None) -> ProbeWeights:
    transforms, final = _split(estimator)
    calibrated = isinstance(final, CalibratedClassifierCV)
    inner = final.calibrated_classifiers_[0].estimator if calibrated else final
    n_features = int((transforms[0] if transforms else inner).n_features_in_)
    center = _first_mean([*transforms, *_split(inner)[0]], n_features)
    identity = _Affine(center, np.ones(n_features), center)  # written around the center
    affine = reduce(_append, transforms, identity)
    if calibrated:
        return _port_calibrated(final, affine)
    rule, coef, intercept, parameters = _linear_map(final, classes)
    coef = np.atleast_2d(np.asarray(coef, np.float64))
    bias = np.broadcast_to(np.asarray(intercept, np.float64), coef.shape[:1]) + coef @ affine.shift
    known = _classes(classes if isinstance(final, REGRESSIONS) else final.classes_)
    return ProbeWeights(rule, known, affine.center, affine.weight(coef), bias, parameters)


def _require(portable: bool, why: str) -> None:
    if not portable:
        raise NotPortableError(why)


def _split(estimator: Any) -> tuple[list[Any], Any]:
    """Divide a fitted estimator into its transforms and what follows them."""
    if isinstance(estimator, Pipeline):
        *steps, last = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
        inner_transforms, final = _split(last)
        for step in steps:
            _check_fitted(step)
        return [*steps, *inner_transforms], final
    _check_fitted(estimator)
    if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
        return _split(estimator.best_estimator_)
    return [], estimator


def _check_fitted(estimator: Any) -> None:
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise NotPortableError(f"Expected a fitted scikit-learn estimator, but: {error}") from error


def _first_mean(transforms: list[Any], n_features: int) -> Array:
    """Choose what to subtract first: the first mean that the pipeline itself subtracts, else nothing."""
    for transform in transforms:
        if isinstance(transform, (StandardScaler, PCA)) and getattr(transform, "mean_", None) is not None:
            return np.asarray(transform.mean_, dtype=np.float64)
        if not isinstance(transform, SimpleImputer):
            break
    return np.zeros(n_features)


def _append(affine: _Affine, transform: Any) -> _Affine:
    n = affine.shift.shape[0]
    if isinstance(transform, SimpleImputer):
        whole = not transform.add_indicator and not np.isnan(np.asarray(transform.statistics_, dtype=np.float64)).any()
        _require(whole, "SimpleImputer is ported where it keeps all features and adds none, but this one does not.")
        return affine  # states are always finite, so there is nothing to fill in
    if isinstance(transform, StandardScaler):
        mean = np.zeros(n) if transform.mean_ is None or not transform.with_mean else transform.mean_
        scale = np.ones(n) if transform.scale_ is None else transform.scale_
        return affine.then_scale(np.asarray(mean, np.float64), 1.0 / np.asarray(scale, np.float64))
    why = f"{type(transform).__name__} cannot be ported as a step. What can: {PORTABLE}."
    _require(isinstance(transform, PCA), why)
    components = np.asarray(transform.components_, np.float64)
    if transform.whiten:
        variance = np.asarray(transform.explained_variance_, np.float64)
        components = components / np.maximum(np.sqrt(variance), np.finfo(np.float64).eps)[:, None]
    return affine.then_project(np.asarray(transform.mean_, np.float64), components)


def _linear_map(final: Any, classes: list[int] | None = None) -> tuple[str, Any, Any, dict[str, Array]]:
    """Return rule, coefficients, intercepts and the rule's parameters of a classifier or a regression."""
    name = type(final).__name__
    if isinstance(final, REGRESSIONS):
        why = f"{name} predicts a number and does not know which scores there are. Give its classes."
        _require(classes is not None and len(classes) > 1, why)
        n_targets = len(np.atleast_2d(final.coef_))
        _require(n_targets == 1, f"A regression is ported with one target, but this one has {n_targets}.")
        levels = np.asarray(_classes(classes), np.float64)
        return "regression", final.coef_, np.atleast_1d(final.intercept_), {"levels": levels}
    if isinstance(final, LogisticRegression):
        alone = getattr(final, "multi_class", None) == "ovr" or final.solver == "liblinear"
        return "one_vs_rest" if alone and len(final.classes_) > 2 else "logistic", final.coef_, final.intercept_, {}
    if isinstance(final, OneVsRestClassifier):
        inner = final.estimators_
        plain = all(isinstance(member, LogisticRegression) for member in inner) and not final.multilabel_
        _require(plain, f"OneVsRestClassifier is ported around LogisticRegression only. What can: {PORTABLE}.")
        coef = np.vstack([member.coef_ for member in inner])
        intercept = np.concatenate([np.atleast_1d(member.intercept_) for member in inner])
        return "logistic" if len(final.classes_) == 2 else "one_vs_rest", coef, intercept, {}
    if isinstance(final, MARGINS):
        return "margin", final.coef_, final.intercept_, {}
    _require(isinstance(final, SVC), f"{name} cannot be ported. What can: {PORTABLE}.")
    why = f"SVC with kernel={final.kernel!r} is not linear and cannot be ported. What can: {PORTABLE}."
    _require(final.kernel == "linear", why)
    why = "SVC with break_ties=True decides by its confidences; refit with break_ties=False to port it."
    _require(not final.break_ties, why)
    # scikit-learn turns the sign of the one pair of two classes; votes are for a pair's first class.
    sign = -1.0 if len(final.classes_) == 2 else 1.0
    platt = {"platt_a": getattr(final, "_probA", None), "platt_b": getattr(final, "_probB", None)}
    known = {key: np.asarray(values) for key, values in platt.items() if values is not None and len(values)}
    rule, parameters = ("votes", known) if len(known) == 2 else ("hard_votes", {})
    return rule, sign * final.coef_, sign * final.intercept_, parameters


def _port_calibrated(final: CalibratedClassifierCV, affine: _Affine) -> ProbeWeights:
    classes = _classes(final.classes_)
    coefs, intercepts, slopes, offsets, rules = [], [], [], [], set()
    for member in final.calibrated_classifiers_:
        why = f"CalibratedClassifierCV is ported with method='sigmoid', but got {member.method!r}."
        _require(member.method == "sigmoid", why)
        transforms, inner = _split(member.estimator)
        why = "CalibratedClassifierCV is ported where every fold saw every class, but one did not."
        _require(_classes(inner.classes_) == classes, why)
        within = reduce(_append, transforms, affine)
        rule, coef, intercept, _ = _linear_map(inner)
        votes = rule in ("votes", "hard_votes")
        if votes and len(classes) == 2:
            votes, coef, intercept = False, -coef, -intercept
        why = "CalibratedClassifierCV around SVC is ported with decision_function_shape='ovr'."
        _require(not votes or inner.decision_function_shape == "ovr", why)
        rules.add("calibrated_votes" if votes else "calibrated")
        coefs.append(within.weight(np.asarray(coef, np.float64)))
        intercepts.append(np.asarray(intercept, np.float64) + np.asarray(coef, np.float64) @ within.shift)
        slopes += [calibrator.a_ for calibrator in member.calibrators]
        offsets += [calibrator.b_ for calibrator in member.calibrators]
    (rule,) = rules
    parameters = {"slope": np.array(slopes), "offset": np.array(offsets)}
    weight, bias = np.vstack(coefs), np.concatenate(intercepts)
    return ProbeWeights(rule, classes, affine.center, weight, bias, parameters, len(coefs))


def _classes(values: Any) -> list[int]:
    values = np.asarray(values)
    whole = np.issubdtype(values.dtype, np.number) and np.array_equal(values, np.round(values))
    _require(whole, f"Classes expect whole numbers, but got {values.tolist()}.")
    return [int(value) for value in values]
