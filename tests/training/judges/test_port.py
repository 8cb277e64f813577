import pickle
import warnings

import numpy as np
import pytest
import sklearn
import skops.io
from inspector_training.judges.estimators import estimator_of
from inspector_training.judges.fields import Reading
from inspector_training.judges.inert import read_pickle
from inspector_training.judges.port import NotPortableError, port
from inspector_training.judges.port_check import CLEAR_MARGIN, compare, margins, run_probe
from inspector_training.judges.skops_files import read_skops
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
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
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC

SHAPES = {"n_features": 16, "n_informative": 8, "n_clusters_per_class": 1, "class_sep": 0.8}


def data(n_classes, seed=0):
    x, y = make_classification(500, n_classes=n_classes, random_state=seed, **SHAPES)
    x = (x * np.linspace(0.1, 50, 16) + np.linspace(-300, 300, 16)).astype(np.float32)
    return x, y + (1 if n_classes > 2 else 0)


def quietly(fit, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # SVC(probability=True) goes away; files that have it stay
        return fit(*args)


CLASSIFIERS = {
    "lr": LogisticRegression(max_iter=3000),
    "ovr": OneVsRestClassifier(LogisticRegression(max_iter=3000)),
    "svc": SVC(kernel="linear", probability=True, random_state=0),
    "svc without probability": SVC(kernel="linear"),
    "linear svc": LinearSVC(max_iter=20_000),
    "ridge classifier": RidgeClassifier(),
    "calibrated linear svc": CalibratedClassifierCV(LinearSVC(max_iter=20_000), cv=3),
    "calibrated once": CalibratedClassifierCV(LinearSVC(max_iter=20_000), ensemble=False),
    "calibrated svc": CalibratedClassifierCV(SVC(kernel="linear"), cv=3),
    "calibrated lr": CalibratedClassifierCV(LogisticRegression(max_iter=3000), ensemble=False),
}
BEFORE = {
    "scaler": [StandardScaler()],
    "all": [SimpleImputer(), StandardScaler(), PCA(10, whiten=True, random_state=0)],
    "pca first": [PCA(12, random_state=0), StandardScaler(with_mean=False)],
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_ports_predict_as_sklearn_does(name, n_classes, before):
    x, y = data(n_classes)
    model = quietly(make_pipeline(*BEFORE[before], CLASSIFIERS[name]).fit, x, y)
    probe = port(model)
    decision_values, class_index, probabilities = run_probe(probe, x)
    exact = x.astype(np.float64)
    truth = (exact - probe.center) @ probe.weight.T + probe.bias
    np.testing.assert_allclose(decision_values, truth, atol=1e-3, rtol=1e-4)
    clear = margins(probe, truth) > CLEAR_MARGIN
    if probe.rule.startswith("calibrated"):
        top = np.sort(model.predict_proba(exact), axis=1)
        clear &= top[:, -1] - top[:, -2] > CLEAR_MARGIN
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(np.array(probe.classes)[class_index][clear], model.predict(exact)[clear])
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(probabilities[clear], quietly(model.predict_proba, exact)[clear], atol=1e-5)
    else:
        np.testing.assert_array_equal(probabilities.max(axis=1), 1.0)  # no probabilities are made up
    check_files(model, x)


def check_files(model, x, classes=None):
    """Read a classifier back from its files as plain data: the same numbers, the same port, the same predictions."""
    files = [read_pickle(pickle.dumps(model, protocol), "x") for protocol in (3, 4, 5)]
    expected = port(model, classes)
    for data in [*files, read_skops(skops.io.dumps(model), "x")]:
        reading = Reading("x")
        read = estimator_of(data, "x", reading)
        probe = port(read, classes)
        assert (probe.rule, probe.classes, probe.members) == (expected.rule, expected.classes, expected.members)
        numbers = {name: (getattr(probe, name), getattr(expected, name)) for name in ("center", "weight", "bias")}
        numbers |= {name: (probe.parameters[name], value) for name, value in expected.parameters.items()}
        for got, value in numbers.values():
            np.testing.assert_array_equal(got, value)
        np.testing.assert_array_equal(read.predict(x[:50]), model.predict(x[:50]))
        assert reading.versions == {sklearn.__version__}


def test_calibration_around_whole_pipelines_and_a_search():
    x, y = data(4)
    inner = make_pipeline(StandardScaler(), LinearSVC(max_iter=20_000))
    model = CalibratedClassifierCV(inner, cv=3).fit(x, y)
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)), {}, cv=3).fit(x, y)
    for fitted in (model, search):
        _, class_index, probabilities = run_probe(port(fitted), x)
        np.testing.assert_allclose(probabilities, fitted.predict_proba(x.astype(np.float64)), atol=1e-5)
        assert (np.array(port(fitted).classes)[class_index] == fitted.predict(x.astype(np.float64))).mean() > 0.99
        check_files(fitted, x)


def test_a_regression_gives_the_nearest_score_and_its_own_value_as_expectation():
    x, y = data(5)
    model = make_pipeline(StandardScaler(), Ridge()).fit(x, y)
    probe = port(model, classes=[1, 2, 3, 4, 5])
    _, class_index, probabilities = run_probe(probe, x)
    value = model.predict(x.astype(np.float64))
    np.testing.assert_allclose(probabilities @ np.arange(1, 6), value.clip(1, 5), atol=1e-4)
    clear = np.abs(value - np.floor(value) - 0.5) > 1e-4
    np.testing.assert_array_equal((class_index + 1)[clear], np.round(value).clip(1, 5)[clear])
    check_files(model, x, [1, 2, 3, 4, 5])
    for other in (Lasso(), LinearRegression(), RidgeCV(), RidgeClassifierCV()):
        check_files(other.fit(x, y), x, [1, 2, 3, 4, 5])
    with pytest.raises(NotPortableError, match="Ridge predicts a number.*Give its classes"):
        port(model)


REFUSED = {
    "rbf": (SVC(kernel="rbf"), "kernel='rbf' is not linear.*LogisticRegression"),
    "forest": (RandomForestClassifier(5), "RandomForestClassifier cannot be ported.*LogisticRegression"),
    "mlp": (MLPClassifier((3,), max_iter=5), "MLPClassifier cannot be ported.*LogisticRegression"),
    "ties": (SVC(kernel="linear", break_ties=True), "break_ties"),
    "isotonic": (
        CalibratedClassifierCV(LinearSVC(max_iter=20_000), method="isotonic"),
        "method='sigmoid', but got 'isotonic'",
    ),
    "other step": (make_pipeline(MinMaxScaler(), LogisticRegression()), "MinMaxScaler cannot be ported as a step"),
    "indicator": (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression(max_iter=3000)), "SimpleImputer"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_ported_is_refused_with_what_can(name):
    model, message = REFUSED[name]
    x, y = data(3)
    with pytest.raises(NotPortableError, match=message):
        port(model.fit(x, y))


def test_unfitted_and_odd_classes_are_refused():
    x, y = data(3)
    with pytest.raises(NotPortableError, match="Expected a fitted"):
        port(LogisticRegression())
    with pytest.raises(NotPortableError, match="whole numbers"):
        port(LogisticRegression(max_iter=3000).fit(x, np.array(["a", "b", "c"])[y - 1]))


def test_the_table_compares_rows_of_every_class():
    x, y = data(5)
    report = compare(make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)).fit(x, y))
    assert report.rows >= 2000 and report.smallest_share >= 0.05 and report.mismatches == 0
    assert report.probability_error < 1e-5
