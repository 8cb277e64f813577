"""Fitted scikit-learn estimators from plain data: made anew here, of the numbers that a file holds for them.

A table says which fields of which classes are read, and of what kind and shape each is (see `fields`). Every other
field is left where it is.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV, _CalibratedClassifier, _SigmoidCalibration
from sklearn.decomposition import PCA
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
from sklearn.preprocessing import LabelBinarizer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from .fields import FLAG, Kind, Reading, feature_count, known_classes, numbers, one_of, sizes_of_classes, whole, word
from .inert import Record, require, shown
from .port import PORTABLE, NotPortableError

MAX_DEPTH = 8  # estimators within estimators
MAX_ESTIMATORS = 1000
VERSION = re.compile(r"\d+\.\d+[\w.]{0,20}", re.ASCII)


def _estimator(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
    return estimator_of(value, where, reading, depth + 1)


def _binarizer(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
    made = estimator_of(value, where, reading, depth + 1)
    require(isinstance(made, LabelBinarizer), f"{where} expects a LabelBinarizer, but got {shown(value)}.")
    c = sizes.setdefault("c", len(made.classes_))
    require(c == len(made.classes_), f"{where} expects {c} classes, but has {len(made.classes_)}.")
    return made


def _each(size: str, *kinds: type[Any]) -> Kind:
    """Make the kind of a list of estimators, as many as a letter says and all for the same features.

    Args:
        size: The letter.
        kinds: What each of them is; none allows any.
    """

    def read(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
        right = type(value) is list and 0 < len(value) == sizes.get(size, len(value))
        require(right, f"{where} expects a list of {sizes.get(size, 'some')} estimators, but got {shown(value)}.")
        made = [estimator_of(item, f"{where}[{i}]", reading, depth + 1) for i, item in enumerate(value)]
        names = ", ".join(kind.__name__ for kind in kinds)
        require(not kinds or all(isinstance(one, kinds) for one in made), f"{where} expects only {names}.")
        widths = {width for width in (sizes.get("n"), *(_widths(one)[0] for one in made)) if width is not None}
        require(len(widths) <= 1, f"{where} expects estimators of the same features, but got {sorted(widths)}.")
        return made

    return read


def _steps(value: Any, where: str, sizes: dict[str, int], reading: Reading, depth: int) -> Any:
    pairs = type(value) is list and value and all(type(item) is tuple and len(item) == 2 for item in value)
    require(bool(pairs), f"{where} expects (name, estimator) pairs, but got {shown(value)}.")
    steps, width = [], None
    for name, step in value:
        word(name, f"{where}: a name", sizes, reading, depth)
        if step is None or (type(step) is str and step == "passthrough"):
            continue
        made = estimator_of(step, f"{where}.{name}", reading, depth + 1)
        takes, gives = _widths(made)
        right = width is None or takes is None or takes == width
        require(right, f"{where}.{name} expects {takes} features, but the step before it gives {width}.")
        steps.append((name, made))
        width = gives if gives is not None else width
    require(bool(steps), f"{where} expects an estimator, but holds none.")
    return steps


def _widths(estimator: Any) -> tuple[int | None, int | None]:
    """Return how many features an estimator takes, and how many it gives on."""
    if isinstance(estimator, Pipeline):
        return _widths(estimator.steps[0][1])[0], _widths(estimator.steps[-1][1])[1]
    if isinstance(estimator, (CalibratedClassifierCV, _CalibratedClassifier)):
        calibrated = isinstance(estimator, CalibratedClassifierCV)
        return _widths(estimator.calibrated_classifiers_[0] if calibrated else estimator.estimator)
    takes = getattr(estimator, "n_features_in_", None)
    return takes, len(estimator.components_) if isinstance(estimator, PCA) else takes


FEATURES = {"n_features_in_": feature_count}
LINEAR = {**FEATURES, "classes_": known_classes, "coef_": numbers("k n"), "intercept_": numbers("k", "")}
REGRESSION = {**FEATURES, "coef_": numbers("n", "1 n"), "intercept_": numbers("", "1")}
BINARIZER = {"y_type_": one_of("binary", "multiclass"), "classes_": known_classes, "sparse_output": FLAG}
BINARIZER |= {"neg_label": whole(-1, 1), "pos_label": whole(-1, 1), "sparse_input_": FLAG}
SUPPORT = {
    **FEATURES,
    "kernel": word,
    "decision_function_shape": one_of("ovr", "ovo"),
    "break_ties": FLAG,
    "probability": one_of(False, True, "deprecated"),
    "degree": whole(0, 1000),
    "coef0": numbers(""),
    "_gamma": numbers("", lowest=0),
    "_sparse": one_of(False),
    "classes_": known_classes,
    "support_": numbers("s", lowest=0, dtype=np.int32),
    "support_vectors_": numbers("s n", dtype=np.float64),
    "_n_support": numbers("c", lowest=0, dtype=np.int32),
    **dict.fromkeys(("dual_coef_", "_dual_coef_"), numbers("d s", dtype=np.float64)),
    **dict.fromkeys(("intercept_", "_intercept_"), numbers("p", dtype=np.float64)),
    **dict.fromkeys(("_probA", "_probB"), numbers("p", "0", dtype=np.float64)),
}
SEARCH = {"best_estimator_": _estimator, "best_score_": numbers("", gaps=True)}
FORMS: dict[str, tuple[type[Any], Mapping[str, Kind]]] = {
    **{
        f"sklearn.model_selection._search.{made.__name__}": (made, SEARCH)
        for made in (GridSearchCV, RandomizedSearchCV)
    },
    "sklearn.pipeline.Pipeline": (Pipeline, {"memory": one_of(None), "steps": _steps}),
    "sklearn.impute._base.SimpleImputer": (
        SimpleImputer,
        {
            **FEATURES,
            "missing_values": numbers("", gaps=True),
            "strategy": one_of("mean", "median", "most_frequent", "constant"),
            "add_indicator": FLAG,
            "keep_empty_features": FLAG,
            "statistics_": numbers("n", gaps=True),
        },
    ),
    "sklearn.preprocessing._data.StandardScaler": (
        StandardScaler,
        {
            **FEATURES,
            **dict.fromkeys(("with_mean", "with_std"), FLAG),
            "mean_": numbers("n", none=True),
            "scale_": numbers("n", lowest=math.ulp(0.0), none=True),
        },
    ),
    "sklearn.decomposition._pca.PCA": (
        PCA,
        {
            **FEATURES,
            "whiten": FLAG,
            "mean_": numbers("n"),
            "components_": numbers("m n"),
            "explained_variance_": numbers("m", lowest=0),
        },
    ),
    "sklearn.linear_model._logistic.LogisticRegression": (
        LogisticRegression,
        {"solver": word, "multi_class": word, **LINEAR},
    ),
    "sklearn.svm._classes.LinearSVC": (LinearSVC, LINEAR),
    "sklearn.svm._classes.SVC": (SVC, SUPPORT),
    **{
        f"sklearn.linear_model._ridge.{made.__name__}": (
            made,
            {"_label_binarizer": _binarizer, **LINEAR, "coef_": numbers("k n", "n")},  # "n" for two classes
        )
        for made in (RidgeClassifier, RidgeClassifierCV)
    },
    **{f"sklearn.linear_model._ridge.{made.__name__}": (made, REGRESSION) for made in (Ridge, RidgeCV)},
    "sklearn.linear_model._base.LinearRegression": (LinearRegression, REGRESSION),
    "sklearn.linear_model._coordinate_descent.Lasso": (Lasso, REGRESSION),
    "sklearn.preprocessing._label.LabelBinarizer": (LabelBinarizer, BINARIZER),
    "sklearn.multiclass.OneVsRestClassifier": (
        OneVsRestClassifier,
        {**FEATURES, "classes_": known_classes, "estimators_": _each("k"), "label_binarizer_": _binarizer},
    ),
    "sklearn.calibration.CalibratedClassifierCV": (
        CalibratedClassifierCV,
        {"classes_": known_classes, "calibrated_classifiers_": _each("m", _CalibratedClassifier)},
    ),
    "sklearn.calibration._CalibratedClassifier": (
        _CalibratedClassifier,
        {
            "classes": known_classes,
            "estimator": _estimator,
            "calibrators": _each("k", _SigmoidCalibration),
            "method": one_of("sigmoid"),
        },
    ),
    "sklearn.calibration._SigmoidCalibration": (_SigmoidCalibration, {"a_": numbers(""), "b_": numbers("")}),
}
LEARNED = ("steps", "classes", "estimator", "calibrators")  # what a fit leaves, beside all names that end in `_`
OPTIONAL = ("best_score_", "sparse_input_")

MAKERS: dict[type[Any], Callable[[dict[str, Any]], Any]] = {
    Pipeline: lambda fields: Pipeline(fields["steps"]),
    GridSearchCV: lambda fields: GridSearchCV(fields["best_estimator_"], {}),
    RandomizedSearchCV: lambda fields: RandomizedSearchCV(fields["best_estimator_"], {}),
    OneVsRestClassifier: lambda fields: OneVsRestClassifier(fields["estimators_"][0]),
    _CalibratedClassifier: lambda fields: _CalibratedClassifier(
        fields["estimator"], fields["calibrators"], classes=fields["classes"]
    ),
}


def estimator_of(value: Any, where: str, reading: Reading, depth: int = 0) -> Any:
    """Make a fitted estimator of a file's numbers; of a search, its best estimator and that one's score.

    Args:
        value: The estimator's `Record`.
        where: File and field, for messages.
        reading: What was read of the file so far.
        depth: Of estimators around this one.

    Raises:
        NotPortableError: It is not fitted.
        UnsafePickleError: A field is not the numbers expected, or numbers of one estimator contradict each other.
    """
    reading.estimators += 1
    problem = f"{where} expects at most {MAX_ESTIMATORS} estimators, {MAX_DEPTH} in each other, but holds more."
    require(depth <= MAX_DEPTH and reading.estimators <= MAX_ESTIMATORS, problem)
    known = isinstance(value, Record) and value.args == () and value.name in FORMS
    require(known, f"{where} expects a fitted estimator, but got {shown(value)}. What can be ported: {PORTABLE}.")
    state, short = value.state or {}, value.name.rpartition(".")[2]
    require(type(state) is dict, f"{where} expects the fields of a {short}, but got {shown(state)}.")
    if isinstance(version := state.get("_sklearn_version"), str) and VERSION.fullmatch(version):
        reading.versions.add(version)
    made, kinds = FORMS[value.name]
    fields: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, kind in kinds.items():
        if name == "classes_" and name not in state and "_label_binarizer" in fields:  # before scikit-learn 1.9
            fields[name] = fields["_label_binarizer"].classes_
            sizes.update(sizes_of_classes(len(fields[name])))
        elif name in state:
            fields[name] = kind(state[name], f"{where}.{name}", sizes, reading, depth)
        elif name in LEARNED or ("_" in (name[0], name[-1]) and name not in OPTIONAL):
            why = f"{where} expects a fitted {short}, but it has no {name}. Fit it, and save it again."
            raise NotPortableError(why)
    make = MAKERS.get(made)
    estimator: Any = make(fields) if make else made()
    vars(estimator).update(fields)
    if isinstance(estimator, SimpleImputer):
        estimator._fit_dtype = estimator._fill_dtype = fields["statistics_"].dtype
        estimator.indicator_ = None
    _check_members(estimator, where)
    return estimator


def _check_members(estimator: Any, where: str) -> None:
    """Compare the classes of an estimator with those of the estimators within it."""
    if isinstance(estimator, OneVsRestClassifier):
        alike = all(len(getattr(member, "classes_", ())) == 2 for member in estimator.estimators_)
        require(alike, f"{where} expects an estimator of two classes for each class.")
    elif isinstance(estimator, CalibratedClassifierCV):
        alike = all(np.array_equal(one.classes, estimator.classes_) for one in estimator.calibrated_classifiers_)
        require(alike, f"{where} expects the same classes in every fold.")
    elif isinstance(estimator, _CalibratedClassifier):
        inner = getattr(estimator.estimator, "classes_", ())
        require(np.array_equal(inner, estimator.classes), f"{where} expects a classifier of the same classes within.")
    elif isinstance(estimator, (RidgeClassifier, RidgeClassifierCV)):
        right = estimator.coef_.ndim == 2 or len(estimator.classes_) == 2
        require(right, f"{where} expects coefficients of {len(estimator.classes_)} classes, but has those of two.")
    elif isinstance(estimator, SVC):
        votes = int(estimator._n_support.sum())
        right = votes == len(estimator.support_vectors_)
        require(right, f"{where} expects {len(estimator.support_vectors_)} support vectors in all, but counts {votes}.")
        right = len(estimator._probA) == len(estimator._probB)
        require(right, f"{where} expects _probA and _probB of one length.")
