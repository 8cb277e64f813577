"""The published protocol: rank layers and poolings, fit a linear classifier on the first, test it once on a fifth."""

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature

from ..evaluation.metrics import Predictions, bootstrap, intervals, resamples
from ..features.plan import ExtractConfig
from ..features.store import OUTPUT_STATE, RUBRIC_PREFIX, FeatureSet, output_kind
from ..probing.table import Array, Index
from ..rows.records import is_good
from .attention import attention_entropies
from .rankings import Ranked, attention_statistics, best_first, rank_candidate, rank_states

logger = logging.getLogger(__name__)

CONCATENATED = ("min", "max", "mean")
RANKED_KEPT = 10  # candidates of each kind in the evidence
SPLIT_SEED = 731
TEST_SHARE = 0.2
FOLDS = 5
C_GRIDS = {"lr": (0.001, 0.01, 0.1, 1.0), "linear_svm": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)}
BOOTSTRAPS = 1000
LEAST_ROWS = 3  # of the rarest class: one to test, and two that cross-validation can part


@dataclass(frozen=True)
class ReferenceSettings:
    """What the published protocol leaves open.

    Attributes:
        task: multi, the scores as they are; or binary, 1 for a score of 4 or 5 and 0 for others.
        classifier: lr (logistic regression) or linear_svm.
        poolings: Which poolings are ranked.
        balanced: Whether to keep but as many rows of every score as the rarest has.
        attention: none; ranking, to rank attention features too; or probe, to give the probe the entropies of its
            layer's heads besides. The last two take a slow pass with eager attention.
    """

    task: Literal["multi", "binary"] = "multi"
    classifier: Literal["lr", "linear_svm"] = "lr"
    poolings: tuple[Literal["mean", "last", "min", "max", "concat"], ...] = ("mean", "last", "min", "max", "concat")
    balanced: bool = False
    attention: Literal["none", "ranking", "probe"] = "none"


def reference_features(config: ExtractConfig, output: str, readings: tuple[str, ...] = ("rubric",)) -> ExtractConfig:
    """Return the settings with which the extract stage reads what the protocol needs, of the same pairs and backbone.

    Args:
        config: Settings of an extraction for a judge.
        output: Another folder.
        readings: rubric, or files of templates.
    """
    poolings = ("mean", "last", "min", "max")
    return replace(
        config, output=output, readings=readings, poolings=poolings, states=(OUTPUT_STATE,), layers=None, depth=None
    )


def reference_protocol(features: FeatureSet, settings: ReferenceSettings | None = None) -> dict[str, Any]:
    """Run the published protocol on every aspect that has a rubric reading.

    Args:
        features: Read with the settings of `reference_features`; auxiliary pairs are left out.
        settings: What the protocol leaves open.

    Returns:
        Aspect -> the decoder output it reads (`layer`, counted from 0, as published), its `pooling`, what
        `fit_and_test` returns, and the best of each ranking. An aspect with too few rows for the protocol is left out,
        with a warning that says why.

    Raises:
        DataFileError: See `fit_reference`.
        BackboneError: See there.
    """
    return {name: fitted.result for name, fitted in fit_reference(features, settings).items()}


class Fitted(NamedTuple):
    """What the published protocol makes of one aspect.

    Attributes:
        result: Its evidence.
        search: The fitted search over C, as published classifiers hold it.
        ranked: Every candidate of its rankings.
    """

    result: dict[str, Any]
    search: GridSearchCV
    ranked: list[Ranked]


def fit_reference(features: FeatureSet, settings: ReferenceSettings | None = None) -> dict[str, Fitted]:
    """Run the published protocol on every aspect that has a rubric reading, and keep what it fitted.

    Args:
        features: Read with the settings of `reference_features`; auxiliary pairs are left out.
        settings: What the protocol leaves open.

    Returns:
        Aspect -> what it makes of it.

    Raises:
        DataFileError: The features lack a rubric reading, a pooling or a state.
        BackboneError: Attention is asked for, and the backbone cannot be loaded or gives no weights.
    """
    readings = [name for name in features.readings if name.startswith(RUBRIC_PREFIX)]
    if not readings:
        raise DataFileError(
            f"The published protocol expects features of readings named {RUBRIC_PREFIX}<aspect>, but got "
            f"{', '.join(features.readings)}. Extract them with the reading 'rubric'."
        )
    results = {}
    for name in hf_logging.tqdm(readings, desc="reference", unit="aspect"):
        rows = AspectRows(features, name, settings or ReferenceSettings())
        reason = why_not(rows.labels)
        if reason is None:
            results[name.removeprefix(RUBRIC_PREFIX)] = rows.fitted()
        else:
            logger.warning("The published protocol leaves out %s: %s.", name, reason)
    return results


class AspectRows:
    """One aspect's rows: their labels, and what the protocol reads of them.

    Args:
        features: Of all pairs.
        reading: The aspect's.
        settings: What the protocol leaves open.
    """

    def __init__(self, features: FeatureSet, reading: str, settings: ReferenceSettings) -> None:
        """Choose the rows; nothing is read yet."""
        self.features, self.reading, self.settings = features, reading, settings
        pairs = [features.pairs[i] for i in features.rows[reading]]
        scores = np.array([pair.scores[reading.removeprefix(RUBRIC_PREFIX)] for pair in pairs], dtype=np.int64)
        self.rows: Index = np.flatnonzero([not pair.auxiliary for pair in pairs])
        if settings.balanced and len(self.rows):
            self.rows = self.rows[balanced_rows(scores[self.rows])]
        self.scores: Index = scores[self.rows]
        classes = np.unique(self.scores).tolist()
        self.good: Index = is_good(self.scores, classes).astype(np.int64) if classes else self.scores
        self.labels = self.good if settings.task == "binary" else self.scores

    def fitted(self) -> Fitted:
        """Rank, choose, fit and test."""
        task, attention = self.settings.task, self.settings.attention
        heads = attention_entropies(self.features, self.reading) if attention != "none" else {}
        entropies = {layer: values[self.rows].astype(np.float64) for layer, values in heads.items()}
        ranked = best_first(self._ranked(entropies), task)
        chosen = next(one for one in ranked if one.kind == "pca")
        inputs = self._states(chosen.layer + 1, chosen.pooling)
        if attention == "probe":
            inputs = np.concatenate([inputs, entropies[chosen.layer + 1]], axis=1)
        kinds = dict.fromkeys(one.kind for one in ranked)
        search, tested = fit_probe(inputs, self.labels, self.settings.classifier)
        result = {
            "layer": chosen.layer,
            "pooling": chosen.pooling,
            **tested,
            "n": len(self.labels),
            "settings": asdict(self.settings),
            "rankings": {kind: [asdict(one) for one in ranked if one.kind == kind][:RANKED_KEPT] for kind in kinds},
        }
        return Fitted(result, search, ranked)

    def _states(self, layer: int, pooling: str) -> Array:
        """Return the pooled outputs of a decoder layer, counted from 1, as float64 (rows, hidden or 3 x hidden)."""
        kind = output_kind(layer, self.features.n_layers)
        parts = CONCATENATED if pooling == "concat" else (pooling,)
        read = [self.features.matrix(Feature(self.reading, layer, part, kind))[self.rows] for part in parts]
        return np.concatenate(read, axis=1).astype(np.float64)

    def _ranked(self, entropies: dict[int, Array]) -> Iterator[Ranked]:
        """Measure every layer, pooling and kind of feature; those of attention where there are (rows, heads) of it."""
        for layer in (layer for layer in self.features.layers if layer > 0):
            for pooling in self.settings.poolings:
                yield from rank_states(layer - 1, pooling, self._states(layer, pooling), self.scores, self.good)
            if entropies:
                statistics = attention_statistics(entropies[layer])
                yield rank_candidate(layer - 1, "heads", "attention", statistics, self.scores, self.good)


def why_not(labels: Index) -> str | None:
    """Say why labels, (rows,), are too few for the protocol, or None where they suffice."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return f"it expects two classes or more, but the labels have {len(classes)}"
    if counts.min() < LEAST_ROWS:
        return f"it expects {LEAST_ROWS} rows or more of every class, but the rarest has {counts.min()}"
    if math.ceil(TEST_SHARE * len(labels)) < len(classes):
        return f"it expects a test row for each of {len(classes)} classes in a fifth of the rows, of {len(labels)}"
    return None


def balanced_rows(scores: Index) -> Index:
    """Choose as many rows of every score as the rarest has, ascending."""
    rng = np.random.default_rng(SPLIT_SEED)
    classes, counts = np.unique(scores, return_counts=True)
    chosen = [rng.choice(np.flatnonzero(scores == c), counts.min(), replace=False) for c in classes]
    return np.sort(np.concatenate(chosen))


def fit_and_test(inputs: Array, labels: Index, classifier: str = "lr") -> dict[str, Any]:
    """Fit a probe and test it; see `fit_probe`, of which this is the second value."""
    return fit_probe(inputs, labels, classifier)[1]


def fit_probe(inputs: Array, labels: Index, classifier: str = "lr") -> tuple[GridSearchCV, dict[str, Any]]:
    """Fit a probe on 80 % of the rows and test it on the others, as published.

    Args:
        inputs: (rows, features), not standardised.
        labels: (rows,) scores, each of at least 3 rows.
        classifier: lr or linear_svm.

    Returns:
        The fitted search; and the number of test rows, the chosen C, cross-validated macro F1 on the other rows, and
        the test rows' metrics with intervals over them, None where they are not defined, as AUROC is not without both
        good scores and others to test. AUROC and Spearman's rho are those of the expected score; for linear_svm from
        Platt's probabilities, while the score itself is the vote.
    """
    everyone = np.arange(len(labels))
    train, test = train_test_split(everyone, test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED)
    search = _search(classifier, labels[train]).fit(inputs[train], labels[train])
    probabilities = search
    if classifier == "linear_svm":  # votes have none
        platt = CalibratedClassifierCV(search.best_estimator_, cv=_folds(labels[train]), ensemble=False)
        probabilities = platt.fit(inputs[train], labels[train])
    classes = [int(c) for c in search.classes_]
    expected = (probabilities.predict_proba(inputs[test]) @ np.array(classes, dtype=float))[None]
    unknown = np.full((1, len(test)), np.nan)  # P(good), which the protocol does not give
    predicted = Predictions(expected, expected, unknown, search.predict(inputs[test])[None])
    rows = np.arange(len(test)).astype(np.str_)
    draws = bootstrap(labels[test], classes, predicted, resamples(rows, BOOTSTRAPS, SPLIT_SEED).weights(rows))
    return search, {
        "n_test": len(test),
        "C": search.best_params_["clf__C"],
        "cv_macro_f1": round(float(search.best_score_), 4),
        **intervals(draws),
    }


def _search(classifier: str, labels: Index) -> GridSearchCV:
    model = (
        LogisticRegression(max_iter=2000, class_weight="balanced")
        if classifier == "lr"
        else SVC(kernel="linear", class_weight="balanced", random_state=SPLIT_SEED)
    )
    pipeline = Pipeline([("scaler", StandardScaler()), ("clf", model)])
    return GridSearchCV(pipeline, {"clf__C": list(C_GRIDS[classifier])}, cv=_folds(labels), scoring="f1_macro")


def _folds(labels: Index) -> int:
    """Return 5, or the rows of the rarest class where they are fewer."""
    return min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
