"""Mean scores of a set of responses, with bootstrap intervals: what a benchmark reports."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..configuration_inspector import Aspect
from ..errors import PairError, SettingsError
from ..names import CONTEXT, PAIR, PREDICTION, QUESTION, REFERENCE, is_turns
from ..results import (
    ABSTAINED,
    PUBLISHED_TOTAL,
    SEEN,
    TOTAL,
    UNFAMILIAR,
    own_rank_field,
    rank_field,
    ranked_value,
    scales_of,
)
from ..rows import read_pairs
from .load import Judge, load_judge
from .uncertain import abstained_rows, expected_errors

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
N_RESAMPLES = 1000


def mean_scores(
    predictions: Sequence[Any],
    questions: Sequence[Any],
    judge: Judge = None,
    batch_size: int | None = None,
    *,
    return_pairs: bool = False,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    rank_by: str | None = None,
    reference: Sequence[str] | None = None,
    context: Sequence[str] | None = None,
    abstain: float = 0.0,
) -> dict[str, Any]:
    """Score responses to questions, and average.

    Args:
        predictions: The responses, texts or the assistant's turns; none may be blank, since a blank one has no score.
        questions: Their questions, in the same order: texts or turns (`messages`).
        judge: Folder, Hub id or loaded pipeline; None is the embedded judge.
        batch_size: Pairs that are read ahead and scored together; None is 256.
        return_pairs: Whether to give every pair's result too.
        n_resamples: Bootstrap samples of pairs.
        seed: Of the bootstrap.
        rank_by: The field to compare sets of responses by; None is the judge's own.
        reference: The reference answers, for a judge that reads them.
        context: What the answers should rest on, for a judge that reads it.
        abstain: Share of the pairs to leave out of all means: those with the largest expected error, unfamiliar ones
            first.

    Returns:
        A result in the shape of one pair's, with `{"mean", "low", "high"}` in the place of each number: `scores` and
        `expected` by aspect, `total_score`, and `expected_total` (None where no aspect counts); `n`, the number of
        pairs; `truncated`, `unfamiliar` and `seen`, how many of them were cut, are unlike what the judge was fitted on,
        and ask what it was fitted on (None where it cannot say); `ranked`, the field that the judge ranks by: `field`,
        its mean and interval, and the same with their `n` without the pairs that are `unfamiliar` or `seen`
        (`without_unfamiliar` and `without_seen`; None where none is or none is left), or None where no field ranks; and
        where asked for `pairs`, the results of the pairs. With `abstain`, `abstained` is how many were left out, and
        each of the pairs says whether it was. `low` and `high` are the 95 % percentile bootstrap interval.

    Raises:
        PairError: There are no pairs, not as many questions as predictions, or a pair cannot be scored.
        SettingsError: The judge has no such field.

    Example:
        >>> mean_scores(["4", "5"], ["2 + 2?", "2 + 3?"])["total_score"]  # doctest: +SKIP
        {'mean': 20.5, 'low': 20.0, 'high': 21.0}
    """
    pairs = _pairs(questions, predictions, {REFERENCE: reference, CONTEXT: context})
    loaded = load_judge(judge)
    config = loaded.model.config
    field = rank_field(config, rank_by) if rank_by or own_rank_field(config) else None
    results = every = loaded(pairs, batch_size=batch_size)
    if abstain:
        every = _marked(results, scales_of(config, field), abstain)
        results = [result for result in every if not result[ABSTAINED]]
    report = _means(results, config.parsed_aspects, n_resamples, seed)
    report["n"] = len(results)
    report["truncated"] = sum(result["truncated"] for result in results)
    report |= {flag: _count(results, flag) for flag in (UNFAMILIAR, SEEN)}
    report["ranked"] = field and _ranked(results, field, n_resamples, seed)
    for flag in (UNFAMILIAR, SEEN):
        if report[flag]:
            logger.warning("%d of %d pairs are %s: the means rest on them.", report[flag], len(results), flag)
    if abstain:
        report[ABSTAINED] = len(every) - len(results)
    return {**report, "pairs": every} if return_pairs else report


def _means(results: Sequence[dict[str, Any]], aspects: Sequence[Aspect], n_resamples: int, seed: int) -> dict[str, Any]:
    """Average every number of pairs' results, in the shape of one pair's; levels that are words by their numbers."""
    columns = {("scores", a.name): [a.number(r["scores"][a.name]) for r in results] for a in aspects}
    columns |= {("expected", a.name): [r["expected"][a.name] for r in results] for a in aspects}
    columns[PUBLISHED_TOTAL, ""] = [r[PUBLISHED_TOTAL] for r in results]
    if results[0][TOTAL] is not None:
        columns[TOTAL, ""] = [r[TOTAL] for r in results]
    means = dict(zip(columns, _intervals(np.array(list(columns.values())).T, n_resamples, seed), strict=True))
    return {
        "scores": {a.name: means["scores", a.name] for a in aspects},
        PUBLISHED_TOTAL: means[PUBLISHED_TOTAL, ""],
        "expected": {a.name: means["expected", a.name] for a in aspects},
        TOTAL: means.get((TOTAL, "")),
    }


def _pairs(
    questions: Sequence[Any], predictions: Sequence[Any], further: Mapping[str, Sequence[str] | None]
) -> list[dict[str, Any]]:
    """Put the parts of each pair together, and read conversations.

    Raises:
        PairError: There are none, or not as many questions as predictions.
    """
    if len(predictions) != len(questions):
        raise PairError(
            f"mean_scores expects a question for each prediction, but got {len(questions)} and {len(predictions)}."
        )
    if not len(predictions):
        raise PairError("mean_scores expects at least one pair, but got none.")
    pairs: list[dict[str, Any]] = [
        {QUESTION: asked, PREDICTION: said} for asked, said in zip(questions, predictions, strict=True)
    ]
    for key, texts in further.items():
        for pair, text in zip(pairs, texts or pairs, strict=True):
            pair |= {} if texts is None else {key: text}
    if not all(isinstance(pair[key], str) for pair in pairs for key in PAIR) and all(map(_is_turns_too, pairs)):
        return read_pairs(pairs, {key: key for key in PAIR}, list(pairs[0]))
    return pairs


def _marked(
    results: Sequence[dict[str, Any]], scales: Mapping[str, Mapping[str, float]], share: float
) -> list[dict[str, Any]]:
    """Say in each result whether the judge abstains from it.

    Raises:
        SettingsError: It would abstain from all of them, or the judge cannot tell of which it is less sure.
    """
    marks = abstained_rows(*expected_errors(results, scales), share)
    if marks.all():
        raise SettingsError(f"mean_scores expects pairs to average, but abstain={share} leaves none of {len(marks)}.")
    return [{**result, ABSTAINED: mark} for result, mark in zip(results, marks.tolist(), strict=True)]


def _is_turns_too(pair: dict[str, Any]) -> bool:
    """Whether a pair's texts are texts or turns, and nothing else."""
    return all(isinstance(pair[key], str) or is_turns(pair[key]) for key in PAIR)


def _count(results: Sequence[dict[str, Any]], flag: str) -> int | None:
    said = [result[flag] for result in results if result[flag] is not None]
    return sum(said) if said else None


def _ranked(results: Sequence[dict[str, Any]], field: str, n_resamples: int, seed: int) -> dict[str, Any]:
    """Average the field that is ranked by, with and without the pairs that are unfamiliar or seen."""

    def interval(kept: Sequence[dict[str, Any]]) -> dict[str, float]:
        values = np.array([[ranked_value(result, field)] for result in kept])
        return _intervals(values, n_resamples, seed)[0]

    found: dict[str, Any] = {"field": field, **interval(results)}
    for flag in (UNFAMILIAR, SEEN):
        kept = [result for result in results if not result[flag]]
        is_apart = 0 < len(kept) < len(results)
        found[f"without_{flag}"] = {**interval(kept), "n": len(kept)} if is_apart else None
    return found


def _intervals(values: np.ndarray[Any, Any], n_resamples: int, seed: int) -> list[dict[str, float]]:
    """Average columns, with percentile bootstrap intervals over rows; all columns share their resamples.

    Args:
        values: (rows, columns).
        n_resamples: Bootstrap samples.
        seed: Of the generator.
    """
    generator = np.random.default_rng(seed)
    n = len(values)
    draws = np.stack([values[generator.integers(n, size=n)].mean(axis=0) for _ in range(n_resamples)])
    tails = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(draws, [tails, 100 - tails], axis=0)
    rows = zip(values.mean(axis=0), low, high, strict=True)
    return [{"mean": float(mean), "low": float(below), "high": float(above)} for mean, below, above in rows]
