"""How well a judge ranks systems, where the truth is known: from out-of-fold scores of generators to many questions.

For every pair of generators prompts are drawn again and again, and the pair is compared as `inspector rank` does, with
the judge's error between generators as the *other* generators show it. Counted is how often the worse one is called
better, and the better one.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError

from ..evaluation.between import LEAST_GENERATORS, between_generators, rank_correlation
from ..evaluation.metrics import Array, rounded
from .ranking import LEAST_LABELLED, NEVER, JudgeError, critical, joined_df, judge_error, means_of, prompts_needed

ALONE, ALL = "two_compared", "all_compared"
LABELLED_DRAWS = 50  # which each take a while


def rank_evidence(
    ways: Mapping[str, Array],
    label: Array,
    question: Sequence[str],
    generator: Sequence[str],
    *,
    n_prompts: Sequence[int] = (60, 125, 250, 500),
    draws: int = 200,
    points: float = 0.1,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how well scores rank generators.

    Args:
        ways: Name -> (rows,) scores: the judge's, of fits that saw neither question nor generator, and others to
            compare with, such as the length.
        label: (rows,) the truth.
        question: (rows,) names.
        generator: (rows,) names.
        n_prompts: How many prompts to draw, without replacement; more than there are are left out.
        draws: How often.
        points: How far two generators' true means differ for the pair to count as one that should be told apart.
        level: Of the intervals.
        seed: Of the draws.

    Returns:
        Counts; and of each way `spearman` with the true means, `between_generators`, and `n` prompts -> whether two or
        all are compared at once -> `worse_called`, of all pairs the mean and the largest share of draws in which the
        worse one is called better, and `above_5_percent`, how many pairs have more; and of the pairs that differ by
        `points` or more, `called`, the share of pairs and draws in which the better one is called, and `mostly`, the
        share of pairs in which that is so in half of the draws or more; and `prompts_needed` of these pairs. Beside
        the ways, `with_labels`: n labelled prompts -> the same by them and the first way's scores of all prompts, and
        by the labels alone.

    Raises:
        DataFileError: There are too few generators or questions that all of them answer.
    """
    names, place = np.unique(np.asarray(generator), return_inverse=True)
    _, asked = np.unique(np.asarray(question), return_inverse=True)
    if len(names) < LEAST_GENERATORS + 2:
        raise DataFileError(f"The evidence expects {LEAST_GENERATORS + 2} generators or more, but got {len(names)}.")
    tables = {way: _table(values, asked, place) for way, values in {**ways, "": label}.items()}
    complete = ~np.isnan(tables[""]).any(axis=1)
    if complete.sum() < 10:
        raise DataFileError(f"The evidence expects 10 questions that all generators answer, but got {complete.sum()}.")
    tables = {way: table[complete] for way, table in tables.items()}
    truth = tables.pop("")
    true = truth.mean(axis=0)
    rng = np.random.default_rng(seed)
    sizes = [n for n in n_prompts if n <= len(truth)]
    drawn = {n: np.array([rng.choice(len(truth), n, replace=False) for _ in range(draws)]) for n in sizes}
    return {
        "n_questions": len(truth),
        "n_generators": len(names),
        "draws": draws,
        "points": points,
        "level": level,
        "generators": {str(name): rounded(mean) for name, mean in zip(names, true, strict=True)},
        "ways": {way: _way(table, truth, names, drawn, points, level) for way, table in tables.items()},
        "with_labels": _with_labels(next(iter(tables.values())), truth, drawn, points, level),
    }


def _table(values: Array, question: NDArray[np.int64], generator: NDArray[np.int64]) -> Array:
    """Put rows as (questions, generators), the mean where there are several; NaN where there is none."""
    shape = (int(question.max()) + 1, int(generator.max()) + 1)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (question, generator), values)
    np.add.at(count, (question, generator), 1)
    return np.asarray(np.divide(total, count, out=np.full(shape, np.nan), where=count > 0))


def _way(
    table: Array,
    truth: Array,
    names: NDArray[np.str_],
    drawn: Mapping[int, NDArray[np.int64]],
    points: float,
    level: float,
) -> dict[str, Any]:
    k = len(names)
    pairs, far = _pairs(truth, points)
    errors = [_error_without(table, truth, names, pair) for pair in pairs]
    found: dict[str, Any] = {}
    for n, at in drawn.items():
        drawn_values = table[at]
        calls = [_calls(drawn_values, pair, error, k, level) for pair, error in zip(pairs, errors, strict=True)]
        of_draws = np.array(calls)
        found[str(n)] = {kind: _counted(of_draws[:, :, i], far) for i, kind in enumerate((ALONE, ALL))}
    return {
        "spearman": rank_correlation(table.mean(axis=0), truth.mean(axis=0)),
        "between_generators": _between(table, truth, names),
        "by_prompts": found,
        "pairs_without_error": sum(error is None or not error.ranks for error in errors),
        "prompts_needed": {
            kind: _needed(
                table,
                [p for p, is_far in zip(pairs, far, strict=True) if is_far],
                [e for e, is_far in zip(errors, far, strict=True) if is_far],
                many,
                level,
            )
            for kind, many in ((ALONE, 2), (ALL, k))
        },
        "n_pairs": len(pairs),
        "n_pairs_that_differ": int(far.sum()),
    }


def _pairs(truth: Array, points: float) -> tuple[list[tuple[int, int]], NDArray[np.bool_]]:
    """Return the pairs that differ, the worse one first, and which of them differ by so much."""
    true = truth.mean(axis=0)
    every = combinations(range(len(true)), 2)
    pairs = [(a, b) if true[a] < true[b] else (b, a) for a, b in every if true[a] != true[b]]
    return pairs, np.array([true[b] - true[a] >= points - 1e-9 for a, b in pairs])


def _with_labels(
    table: Array, truth: Array, drawn: Mapping[int, NDArray[np.int64]], points: float, level: float
) -> dict[str, Any]:
    """Compare every pair with labels of the drawn prompts: with the judge's scores of all, and by the labels alone."""
    pairs, far = _pairs(truth, points)
    found: dict[str, Any] = {}
    for n, at in drawn.items():
        if n < LEAST_LABELLED or n == len(truth):
            continue
        kinds = (("judge", table), ("labels_alone", np.zeros_like(table)))
        found[str(n)] = {
            kind: _counted(
                np.array([_labelled_calls(said[:, pair], truth[:, pair], at, level) for pair in map(list, pairs)]), far
            )
            for kind, said in kinds
        }
    return found


def _labelled_calls(said: Array, truth: Array, at: NDArray[np.int64], level: float) -> Array:
    """Compare two generators in every draw, (draws,): 1 where the second is called better, -1 the first, else 0."""
    found = []
    for rows in at[:LABELLED_DRAWS]:
        labels = np.full(truth.shape, np.nan)
        labels[rows] = truth[rows]
        means = means_of(said, labels)
        difference = means.value[1] - means.value[0]
        variance = np.sum((means.influence[:, 1] - means.influence[:, 0]) ** 2)
        found.append(np.sign(difference) * (abs(difference) > critical(2, means.df, level) * np.sqrt(variance)))
    return np.array(found)


def _between(table: Array, truth: Array, names: NDArray[np.str_]) -> dict[str, Any] | None:
    question, generator = np.indices(table.shape)
    return between_generators(table.ravel(), truth.ravel(), question.ravel().astype(str), names[generator.ravel()])


def _error_without(table: Array, truth: Array, names: NDArray[np.str_], pair: tuple[int, int]) -> JudgeError | None:
    """Estimate the error between generators from those that are not compared."""
    others = np.delete(np.arange(len(names)), pair)
    found = _between(table[:, others], truth[:, others], names[others])
    return judge_error({"matched": {"way": {"between_generators": found}}}, "expected_way")


def _calls(values: Array, pair: tuple[int, int], error: JudgeError | None, k: int, level: float) -> Array:
    """Compare a pair in every draw.

    Args:
        values: (draws, prompts, generators).
        pair: The worse and the better one.
        error: The judge's; nothing is called where it is not known, or not shown to rank.
        k: How many generators there are.
        level: Of the intervals.

    Returns:
        (draws, 2): 1 where the better one is called better, -1 where the worse one is, else 0; where two are compared,
        and where all are at once.
    """
    difference = values[:, :, pair[1]] - values[:, :, pair[0]]
    n, mean = difference.shape[1], difference.mean(axis=1)
    if error is None or not error.ranks:
        return np.zeros((len(values), 2))
    variance = difference.var(axis=1, ddof=1) / n
    judge = 2 * error.sd**2
    df = joined_df(variance, n - 1, judge, error.df)
    called = [np.abs(mean) > critical(many, df, level) * np.sqrt(variance + judge) for many in (2, k)]
    return np.asarray(np.sign(mean)[:, None] * np.column_stack(called))


def _counted(calls: Array, far: NDArray[np.bool_]) -> dict[str, Any]:
    """Count calls, (pairs, draws)."""
    worse, better = (calls < 0).mean(axis=1), (calls > 0).mean(axis=1)
    return {
        "worse_called": {"mean": rounded(worse.mean()), "most": rounded(worse.max())},
        "above_5_percent": int((worse > 0.05).sum()),
        "called": rounded(better[far].mean()) if far.any() else None,
        "mostly": rounded((better[far] >= 0.5).mean()) if far.any() else None,
    }


def _needed(
    table: Array, pairs: Sequence[tuple[int, int]], errors: Sequence[JudgeError | None], k: int, level: float
) -> dict[str, Any]:
    """Say how many prompts would tell pairs apart, by all the questions there are."""
    found: list[int | str] = []
    for (a, b), error in zip(pairs, errors, strict=True):
        difference = table[:, b] - table[:, a]
        mean, variance = float(difference.mean()), float(difference.var(ddof=1))
        found.append(NEVER if error is None or mean <= 0 else prompts_needed(mean, variance, k, error, level))
    numbers = sorted(one for one in found if isinstance(one, int))
    half = -(-len(found) // 2)
    return {
        "never": len(found) - len(numbers),
        "for_half_of_the_pairs": numbers[half - 1] if found and len(numbers) >= half else NEVER,
        "median_where_any": int(np.median(numbers)) if numbers else None,
    }
