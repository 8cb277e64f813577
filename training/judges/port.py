"""Port fitted scikit-learn classifiers to probes: linear maps in float64, folded once, and a decision rule.

Accepted are a Pipeline of SimpleImputer, StandardScaler and PCA (each optional, in any order) and then a linear
classifier or regression; GridSearchCV and RandomizedSearchCV stand for their best estimator.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
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

Array = NDArray[np.float64]

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
class ProbeWeights:
    """A classifier as a probe: decision values = (x - center) @ weight.T + bias, then a rule.

    Attributes:
        rule: One of `inspector_pipeline.decisions.RULES`.
        classes: The scores, ascending.
        center: (features,).
        weight: (outputs, features).
        bias: (outputs,).
        parameters: What the rule needs beside, each (size,).
        members: How many fits a calibrated rule averages.
    """

    rule: str
    classes: list[int]
    center: Array
    weight: Array
    bias: Array
    parameters: dict[str, Array] = field(default_factory=dict)
    members: int = 1


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
        NotPortableError: The estimator, or a part of it, is not linear, is not fitted, or lacks its classes.
    """
    transforms, final = _split(estimator)
    inner = final.calibrated_classifiers_[0].estimator if isinstance(final, CalibratedClassifierCV) else final
    all_transforms = [*transforms, *_split(inner)[0]]
    n_features = int((transforms[0] if transforms else inner).n_features_in_)
    center = _first_mean(all_transforms, n_features)
    affine = _Affine(center, np.ones(n_features), center)  # the identity, written around the center
    for transform in transforms:
        affine = _append(affine, transform)
    return _port_final(final, affine, classes)


def _split(estimator: Any) -> tuple[list[Any], Any]:
    """Divide a fitted estimator into its transforms and what follows them."""
    if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
        _check_fitted(estimator)
        estimator = estimator.best_estimator_
    if not isinstance(estimator, Pipeline):
        _check_fitted(estimator)
        return [], estimator
    *steps, last = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    inner_transforms, final = _split(last)
    for step in steps:
        _check_fitted(step)
    return [*steps, *inner_transforms], final


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
        if transform.add_indicator or np.isnan(np.asarray(transform.statistics_, dtype=np.float64)).any():
            raise NotPortableError(
                "SimpleImputer is ported where it keeps all features and adds none, but this one does not."
            )
        return affine  # states are always finite, so there is nothing to fill in
    if isinstance(transform, StandardScaler):
        mean = np.zeros(n) if transform.mean_ is None or not transform.with_mean else transform.mean_
        scale = np.ones(n) if transform.scale_ is None else transform.scale_
        return affine.then_scale(np.asarray(mean, np.float64), 1.0 / np.asarray(scale, np.float64))
    if isinstance(transform, PCA):
        components = np.asarray(transform.components_, np.float64)
        if transform.whiten:
            variance = np.asarray(transform.explained_variance_, np.float64)
            components = components / np.maximum(np.sqrt(variance), np.finfo(np.float64).eps)[:, None]
        return affine.then_project(np.asarray(transform.mean_, np.float64), components)
    raise NotPortableError(f"{type(transform).__name__} cannot be ported as a step. What can: {PORTABLE}.")


def _port_final(final: Any, affine: _Affine, classes: list[int] | None) -> ProbeWeights:
    if isinstance(final, CalibratedClassifierCV):
        return _port_calibrated(final, affine)
    if isinstance(final, REGRESSIONS):
        return _port_regression(final, affine, classes)
    rule, coef, intercept, parameters = _linear_classifier(final)
    coef = np.atleast_2d(coef)
    return _probe(affine, rule, _classes(final.classes_), coef, intercept, parameters)


def _linear_classifier(final: Any) -> tuple[str, Array, Array, dict[str, Array]]:
    """Return rule, coefficients, intercepts and the rule's parameters of a classifier."""
    if isinstance(final, LogisticRegression):
        alone = getattr(final, "multi_class", None) == "ovr" or final.solver == "liblinear"
        return "one_vs_rest" if alone and len(final.classes_) > 2 else "logistic", final.coef_, final.intercept_, {}
    if isinstance(final, OneVsRestClassifier):
        inner = final.estimators_
        if not all(isinstance(member, LogisticRegression) for member in inner) or final.multilabel_:
            raise NotPortableError(
                f"OneVsRestClassifier is ported around LogisticRegression only. What can: {PORTABLE}."
            )
        coef = np.vstack([member.coef_ for member in inner])
        intercept = np.concatenate([np.atleast_1d(member.intercept_) for member in inner])
        return "logistic" if len(final.classes_) == 2 else "one_vs_rest", coef, intercept, {}
    if isinstance(final, MARGINS):
        return "margin", final.coef_, final.intercept_, {}
    if isinstance(final, SVC):
        return _linear_svc(final)
    raise NotPortableError(f"{type(final).__name__} cannot be ported. What can: {PORTABLE}.")


def _linear_svc(final: SVC) -> tuple[str, Array, Array, dict[str, Array]]:
    if final.kernel != "linear":
        raise NotPortableError(
            f"SVC with kernel={final.kernel!r} is not linear and cannot be ported. What can: {PORTABLE}."
        )
    if final.break_ties:
        raise NotPortableError(
            "SVC with break_ties=True decides by its confidences; refit with break_ties=False to port it."
        )
    # scikit-learn turns the sign of the one pair of two classes; votes are for a pair's first class.
    sign = -1.0 if len(final.classes_) == 2 else 1.0
    platt = {"platt_a": getattr(final, "_probA", None), "platt_b": getattr(final, "_probB", None)}
    if all(values is not None and len(values) for values in platt.values()):
        return "votes", sign * final.coef_, sign * final.intercept_, {k: np.asarray(v) for k, v in platt.items()}
    return "hard_votes", sign * final.coef_, sign * final.intercept_, {}


def _port_regression(final: Any, affine: _Affine, classes: list[int] | None) -> ProbeWeights:
    if classes is None or len(classes) < 2:
        raise NotPortableError(
            f"{type(final).__name__} predicts a number and does not know which scores there are. Give its classes."
        )
    coef = np.atleast_2d(final.coef_)
    if coef.shape[0] != 1:
        raise NotPortableError(f"A regression is ported with one target, but this one has {coef.shape[0]}.")
    levels = np.asarray(_classes(np.asarray(classes)), np.float64)
    return _probe(
        affine, "regression", _classes(np.asarray(classes)), coef, np.atleast_1d(final.intercept_), {"levels": levels}
    )


def _port_calibrated(final: CalibratedClassifierCV, affine: _Affine) -> ProbeWeights:
    classes = _classes(final.classes_)
    coefs, intercepts, slopes, offsets, rules = [], [], [], [], set()
    for member in final.calibrated_classifiers_:
        if member.method != "sigmoid":
            raise NotPortableError(
                f"CalibratedClassifierCV is ported with method='sigmoid', but got {member.method!r}."
            )
        transforms, inner = _split(member.estimator)
        if _classes(inner.classes_) != classes:
            raise NotPortableError(
                "CalibratedClassifierCV is ported where every fold saw every class, but one did not."
            )
        within = affine
        for transform in transforms:
            within = _append(within, transform)
        rule, coef, intercept, _ = _linear_classifier(inner)
        if rule in ("votes", "hard_votes") and len(classes) == 2:
            rule, coef, intercept = "margin", -coef, -intercept
        if rule in ("votes", "hard_votes") and inner.decision_function_shape != "ovr":
            raise NotPortableError("CalibratedClassifierCV around SVC is ported with decision_function_shape='ovr'.")
        rules.add("calibrated_votes" if rule in ("votes", "hard_votes") else "calibrated")
        coefs.append(within.weight(np.asarray(coef, np.float64)))
        intercepts.append(np.asarray(intercept, np.float64) + np.asarray(coef, np.float64) @ within.shift)
        slopes += [calibrator.a_ for calibrator in member.calibrators]
        offsets += [calibrator.b_ for calibrator in member.calibrators]
    (rule,) = rules
    parameters = {"slope": np.array(slopes), "offset": np.array(offsets)}
    return ProbeWeights(
        rule, classes, affine.center, np.vstack(coefs), np.concatenate(intercepts), parameters, len(coefs)
    )


def _probe(
    affine: _Affine, rule: str, classes: list[int], coef: Any, intercept: Any, parameters: dict[str, Array]
) -> ProbeWeights:
    coef = np.asarray(coef, np.float64)
    bias = np.broadcast_to(np.asarray(intercept, np.float64), coef.shape[:1]) + coef @ affine.shift
    return ProbeWeights(rule, classes, affine.center, affine.weight(coef), bias, parameters)


def _classes(values: Any) -> list[int]:
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.number) or not np.array_equal(values, np.round(values)):
        raise NotPortableError(f"Classes expect whole numbers, but got {values.tolist()}.")
    return [int(value) for value in values]
