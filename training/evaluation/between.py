"""How far a judge prefers some generators to others at equal quality: its error between generators.

More prompts make a mean surer only against the chance of which prompts were drawn. What a judge adds to, or takes from,
every answer of one generator stays, so two systems can be told apart by a judge only as far as their difference exceeds
that. It is estimated from out-of-fold scores of several generators whose labels are known. With a generator's mean
score s and mean label y, both adjusted for which questions it answered,

    s_g = constant + slope * y_g + c_g + e_g

where e is the error of sampling, whose variance is known from the questions (clustered), and c, of variance sd^2, is
the judge's error between generators: a random-effects meta-regression, sd by Paule and Mandel's moments (1982), its
interval by Viechtbauer's Q-profile (2007). The slope is that between generators, freed from the error of the labels'
means; where these means do not differ, as in matched rows, it is that of a right against a wrong answer to one question
by one generator.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from .metrics import Array, rounded

LEAST_GENERATORS = 4  # below, there is next to nothing to tell their spread from
LEAST_ROWS = 2  # of a generator
TOLERANCE = 1e-9  # of eigenvalues that are 0


class Effects(NamedTuple):
    """Generators' mean scores and labels, each as the difference from all, adjusted for the questions.

    Attributes:
        generators: (k,) names, ascending.
        mean: (k, 2) of score and of label.
        covariance: (k, 2, 2) of sampling, over questions.
        residual: (rows, 2) what neither question nor generator explains.
        question: (rows,) numbers of the questions.
        adjusted: Whether questions were adjusted for; they are not where their answers do not link all generators.
    """

    generators: NDArray[np.str_]
    mean: Array
    covariance: Array
    residual: Array
    question: NDArray[np.int64]
    adjusted: bool


def generator_effects(
    score: Array, label: Array, question: Sequence[str] | NDArray[np.str_], generator: Sequence[str] | NDArray[np.str_]
) -> Effects:
    """Estimate each generator's mean score and label by least squares, with an effect for every question.

    Args:
        score: (rows,) the judge's, of fits that saw neither the question nor, at best, the generator.
        label: (rows,) the truth.
        question: (rows,) names.
        generator: (rows,) names.
    """
    names, place = np.unique(np.asarray(generator), return_inverse=True)
    _, asked = np.unique(np.asarray(question), return_inverse=True)
    found = np.column_stack([score, label]).astype(np.float64)
    indicators = np.eye(len(names))[place]
    within, centred = _without_means(indicators, asked), _without_means(found, asked)
    values = np.linalg.eigvalsh(within.T @ within)
    adjusted = int((values > TOLERANCE * values[-1]).sum()) == len(names) - 1
    if not adjusted:
        within, centred = indicators - indicators.mean(axis=0), found - found.mean(axis=0)
    inverse = np.linalg.pinv(within.T @ within, rcond=TOLERANCE, hermitian=True)
    mean = inverse @ within.T @ centred
    residual = centred - within @ mean
    n = int(asked.max()) + 1
    by_question = np.zeros((n, len(names), 2))
    np.add.at(by_question, asked, within[:, :, None] * residual[:, None, :])
    influence = np.einsum("gh,qhc->qgc", inverse, by_question)
    covariance = np.einsum("qgc,qgd->gcd", influence, influence) * n / max(n - 1, 1)
    return Effects(names, mean, covariance, residual, asked, adjusted)


def _without_means(values: Array, group: NDArray[np.int64]) -> Array:
    totals = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(totals, group, values)
    return np.asarray(values - (totals / np.bincount(group)[:, None])[group])


def between_generators(
    score: Array, label: Array, question: Sequence[str] | NDArray[np.str_], generator: Sequence[str] | NDArray[np.str_]
) -> dict[str, Any] | None:
    """Estimate a judge's error between generators.

    Args:
        score: (rows,) the judge's, of fits that saw neither the question nor, at best, the generator.
        label: (rows,) the truth, on any scale.
        question: (rows,) names.
        generator: (rows,) names; rows of "" and of generators with one row are left out.

    Returns:
        Counts; `sd`, the standard deviation of the error on the score's scale, with its 95 % interval, and its degrees
        of freedom `df`; `slope`, the score's rise a unit of the label, with its interval, and whether it is told
        `from` generators or answers; `spearman` of the generators' mean scores and labels; and `by_generator`: rows,
        mean score `judged` and label `true`, both adjusted for questions, the `error` and its standard error `se`. None
        where there are fewer than `LEAST_GENERATORS` or all labels are the same.
    """
    names, counts = np.unique(np.asarray(generator), return_counts=True)
    kept = np.isin(np.asarray(generator), names[(counts >= LEAST_ROWS) & (names != "")])
    score, label = np.asarray(score, dtype=np.float64)[kept], np.asarray(label, dtype=np.float64)[kept]
    question, generator = np.asarray(question)[kept], np.asarray(generator)[kept]
    if len(np.unique(generator)) < LEAST_GENERATORS or not np.ptp(label) > 0:
        return None
    found = generator_effects(score, label, question, generator)
    (judged, true), own = found.mean.T, found.covariance
    k = len(judged)
    spread = np.cov(found.mean.T) - own.mean(axis=0)
    of_generators = bool(spread[1, 1] > own[:, 1, 1].mean())  # more than half of what their means differ by is real
    slope = spread[0, 1] / spread[1, 1] if of_generators else _within_slope(found)[0]
    design = np.column_stack([np.ones(k), true])[:, : 1 + of_generators]
    outcome = judged if of_generators else judged - slope * true
    variance = np.einsum("gcd,c,d->g", own, [1, -slope], [1, -slope])
    df = k - design.shape[1]
    error = judged - slope * true
    error = error - error.mean()
    sd = _spread(lambda of: _weighted_squares(outcome, design, variance + of), df, float(np.var(judged)) + 1e-12)
    if of_generators:
        reach = stats.t.ppf(0.975, df) * np.sqrt(np.sum(error**2) / df / np.sum((true - true.mean()) ** 2))
    else:  # whose labels may be alike to the last digit
        reach = 1.96 * _within_slope(found)[1]
    middle = np.array([score.mean(), label.mean()])
    return {
        "n_rows": len(score),
        "n_questions": int(found.question.max()) + 1,
        "n_generators": k,
        "adjusted_for_questions": found.adjusted,
        "sd": sd,
        "df": df,
        "slope": {
            "value": rounded(slope),
            "low": rounded(slope - reach),
            "high": rounded(slope + reach),
            "from": "generators" if of_generators else "answers",
        },
        "spearman": rank_correlation(judged, true) if of_generators else None,
        "by_generator": {
            str(name): {
                "rows": int((generator == name).sum()),
                "judged": rounded(means[0]),
                "true": rounded(means[1]),
                "error": rounded(error[i]),
                "se": rounded(np.sqrt(variance[i])),
            }
            for i, (name, means) in enumerate(zip(found.generators, found.mean + middle, strict=True))
        },
    }


def _within_slope(found: Effects) -> tuple[float, float]:
    """Return how much higher a right answer's score is, question and generator aside, and its error over questions."""
    score, label = found.residual.T
    total = float(label @ label)
    if not total > 0:
        return 0.0, 0.0
    slope = float(score @ label) / total
    by_question = np.bincount(found.question, label * (score - slope * label))
    return slope, float(np.sqrt(np.sum(by_question**2))) / total


def _weighted_squares(outcome: Array, design: Array, variance: Array) -> float:
    """Sum the squares that a weighted fit leaves."""
    root = 1 / np.sqrt(np.maximum(variance, 1e-18))
    fitted = np.linalg.lstsq(design * root[:, None], outcome * root, rcond=None)[0]
    return float(np.sum(((outcome - design @ fitted) * root) ** 2))


def _spread(squares: Callable[[float], float], df: int, most: float) -> dict[str, float]:
    """Find the standard deviations at which the weighted squares are what their distribution says: mean, 2.5, 97.5 %.

    Args:
        squares: Of a variance between generators; falls with it.
        df: Degrees of freedom.
        most: A variance that is surely of the right size or above.
    """
    found = {}
    for name, wanted in (("value", df), ("low", stats.chi2.ppf(0.975, df)), ("high", stats.chi2.ppf(0.025, df))):
        upper = most
        while squares(upper) > wanted:
            upper *= 4
        root = 0.0 if squares(0.0) <= wanted else optimize.brentq(lambda of: squares(of) - wanted, 0.0, upper)  # noqa: B023
        found[name] = _digits(np.sqrt(root))
    return found


def _digits(value: float) -> float:
    """Keep four digits that count, since an sd may be small."""
    return float(f"{value:.4g}")


def rank_correlation(one: Array, other: Array) -> dict[str, float | None] | None:
    """Return Spearman's correlation with the interval of Bonett and Wright (2000); None below 5 points.

    Args:
        one: (k,).
        other: (k,).
    """
    if len(one) < LEAST_GENERATORS + 1 or not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return None
    value = float(stats.spearmanr(one, other).statistic)
    middle, reach = np.arctanh(np.clip(value, -0.999999, 0.999999)), 1.96 * np.sqrt((1 + value**2 / 2) / (len(one) - 3))
    return {
        "value": rounded(value),
        "low": rounded(np.tanh(middle - reach)),
        "high": rounded(np.tanh(middle + reach)),
    }
