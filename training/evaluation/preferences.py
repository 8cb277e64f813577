"""Evidence of preferences: does the judge agree with the majority on comparisons of questions that it never saw?

Everything is fitted anew inside each fold, and the folds are by question. Beside the judge stand Bradley-Terry models
of length alone, of surface features and of words (TF-IDF), fitted on the same comparisons, and how often a single rater
agrees with the others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from ..features.store import FeatureSet
from ..probing.preferences import Comparisons, PreferenceDesign, fit_preference, odds_weights
from ..probing.settings import SearchConfig
from ..probing.table import Array, Index, question_folds
from ..rows.records import LabelledPair
from .methods.text import TOKEN, surface_features
from .metrics import interval, resamples, rounded

JUDGE = "judge"
LOWER_IS_BETTER = ("log_loss", "brier")
DEFINITIONS = {
    "agreement": "share of comparisons with a majority in which the preferred response has the higher score",
    "log_loss": "of P(preferred) against the share of votes, a tie counting half",
    "brier": "mean squared error of P(preferred) against the share of votes",
}


def preference_evidence(
    features: FeatureSet,
    search: SearchConfig,
    rivals: Mapping[str, SearchConfig] | None = None,
    *,
    folds: int,
    repeats: int,
    bootstraps: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Cross-validate every aspect of preferences by question, beside baselines.

    Args:
        features: Features of compared responses.
        search: What is chosen from inside each fold.
        rivals: Name -> what another judge chooses from.
        folds: Their number.
        repeats: Repetitions with other folds.
        bootstraps: Resamples of the questions.
        seed: Of folds and resamples.

    Returns:
        Aspect -> `classes`, `n` and `preference`: counts, `agreement`, `log_loss` and `brier` with intervals, each
        baseline's and the paired gain over it, `raters` and `by_generator`.
    """
    found = {}
    for aspect, comparisons in Comparisons.of(features.pairs).items():
        design = PreferenceDesign(features, comparisons)
        searches = {JUDGE: search, **(rivals or {})}
        methods: dict[str, Callable[[Index], Array]]
        methods = {name: partial(_judge_odds, design, one) for name, one in searches.items()}
        methods |= baselines([features.pairs[i] for i in comparisons.pair], comparisons)
        odds = {name: np.empty((repeats, len(comparisons.won))) for name in methods}
        for repeat in range(repeats):
            for train, out in question_folds(comparisons.labels(), folds, seed + repeat):
                for name, fit in methods.items():
                    odds[name][repeat, out] = fit(train)[out]
        samples = resamples(comparisons.question, bootstraps, seed).weights(comparisons.question)
        evidence = compared_odds(odds, comparisons, samples)
        generators = [features.pairs[i].generator for i in comparisons.pair]
        evidence["by_generator"] = _by_generator(odds[JUDGE][0], comparisons, generators)
        won = {str(side): int((comparisons.majority == side).sum()) for side in (0, 1)}
        counts = {"classes": [0, 1], "n": len(comparisons.won), "counts_in_total": False, "won": won}
        found[aspect] = {**counts, "preference": evidence}
    return found


def _judge_odds(design: PreferenceDesign, search: SearchConfig, train: Index) -> Array:
    return design.scores(fit_preference(design, train, search))


def baselines(pairs: Sequence[LabelledPair], comparisons: Comparisons) -> dict[str, Callable[[Index], Array]]:
    """Return what fits a cheap model on some comparisons and gives the log odds of all."""
    lengths = np.log1p([(len(pair.prediction), len(pair.prediction.split())) for pair in pairs])
    surface = np.array([tuple(surface_features(pair.question, pair.prediction).values()) for pair in pairs])
    texts = [pair.prediction for pair in pairs]

    def of_numbers(x: Array, train: Index) -> Array:
        scaled = StandardScaler().fit(x).transform(x)
        return _odds(comparisons.differences @ scaled, comparisons, train, 1.0)

    def of_words(train: Index) -> Array:
        seen = np.unique(np.concatenate([comparisons.first[train], comparisons.second[train]]))
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
        words.fit([texts[i] for i in seen])
        return _odds(comparisons.differences @ words.transform(texts), comparisons, train, 1.0)

    return {
        "length": lambda train: of_numbers(np.hstack([lengths, lengths**2]), train),
        "surface": lambda train: of_numbers(surface, train),
        "tfidf": of_words,
    }


def _odds(x: Any, comparisons: Comparisons, train: Index, penalty: float) -> Array:
    return np.asarray(x @ odds_weights(x[train], comparisons.won[train], comparisons.weight[train], penalty))


def compared_odds(odds: Mapping[str, Array], comparisons: Comparisons, samples: Array) -> dict[str, Any]:
    """Measure log odds, (repeats, comparisons), of the judge and of others on the same resamples.

    Args:
        odds: Method -> log odds; the judge's first.
        comparisons: What really was preferred.
        samples: (resamples + 1, comparisons) how often each was drawn.
    """
    draws = {name: _measured(values, comparisons, samples) for name, values in odds.items()}
    judge, *others = draws
    found: dict[str, Any] = {
        "n_questions": len(np.unique(comparisons.question)),
        "ties": int((comparisons.majority == 0.5).sum()),
        "raters": rater_agreement(comparisons.votes),
        **{metric: interval(values) for metric, values in draws[judge].items()},
    }
    for name in others:
        found[name] = {metric: interval(values) for metric, values in draws[name].items()}
        found[f"gain_over_{name}"] = {
            metric: interval((-1 if metric in LOWER_IS_BETTER else 1) * (values - draws[name][metric]))
            for metric, values in draws[judge].items()
        }
    return found


def _measured(odds: Array, comparisons: Comparisons, samples: Array) -> dict[str, Array]:
    """Return each metric on every resample, the mean over repeats."""
    decided = comparisons.majority != 0.5
    right = np.where(odds == 0, 0.5, (odds > 0) == (comparisons.majority > 0.5))[:, decided]
    p = np.clip(expit(odds), 1e-12, 1 - 1e-12)
    losses = {
        "log_loss": -comparisons.won * np.log(p) - (1 - comparisons.won) * np.log1p(-p),
        "brier": (p - comparisons.won) ** 2,
    }
    with np.errstate(invalid="ignore"):  # a resample without a decided comparison
        agreement = samples[:, decided] @ right.mean(axis=0) / samples[:, decided].sum(axis=1)
    return {"agreement": agreement} | {
        name: samples @ values.mean(axis=0) / samples.sum(axis=1) for name, values in losses.items()
    }


def rater_agreement(votes: NDArray[np.int64]) -> dict[str, Any]:
    """Say how often a rater who is for one response agrees with the majority of the others who are.

    Args:
        votes: (comparisons, 3) votes for the one, ties, and for the other.

    Returns:
        `n`, such votes, and `agreement`; None where no comparison has a majority beside a vote.
    """
    right = n = 0
    for one, _, other in votes.tolist():
        for mine, theirs in ((one, other), (other, one)):
            rest = mine - 1 - theirs  # how many more of the others are for the same
            if mine and rest:
                n, right = n + mine, right + mine * (rest > 0)
    return {"n": n, "agreement": rounded(right / n) if n else None}


def _by_generator(odds: Array, comparisons: Comparisons, generators: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    """Say of each generator in how many comparisons with a majority the judge agrees."""
    names = np.array([name or "" for name in generators], dtype=np.str_)
    right = np.where(odds == 0, 0.5, (odds > 0) == (comparisons.majority > 0.5))
    found: dict[str, dict[str, Any]] = {}
    for name in np.unique(names[names != ""]).tolist():
        of_it = (names[comparisons.first] == name) | (names[comparisons.second] == name)
        own = of_it & (comparisons.majority != 0.5)
        if own.any():
            found[name] = {"n": int(own.sum()), "agreement": rounded(float(right[own].mean()))}
    return found
