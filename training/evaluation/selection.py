"""What a judge is good for: choosing among answers to one question, and keeping the best share of many.

*Best of n*: of n random answers to a question, by different generators, the highest is taken; the expected share right
is exact, ties share. Beside it stand a random answer, the longest and the shortest, the vote of the majority (the final
answer that most of the n state), the same vote with each one weighed by the judge (by its rank among all rows, 0 to 1),
and the oracle, which is right wherever one of the n is. Votes are taken over all choices of n answers, or a seeded draw
of them where there are more. *Top share*: of all rows the highest are kept, and counted is how many of them are right.
*Surest*: of all pairs of a right and a wrong answer to one question, those with the largest difference.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from math import ceil, comb
from typing import Any, NamedTuple

import numpy as np

from inspector_pipeline.errors import DataFileError

from ..rows.answers import as_number
from ..rows.records import normal_text, question_id
from .metrics import BLOCK, Array, Index, Mask, Resamples, Ties, auroc, interval, resamples, weighted_mean
from .scored import Scored
from .surest import SURE, Decisions, decisions, rows_of, top_right

REQUIRED = ("question", "prediction", "generator", "correct")
JUDGE, RANDOM, ORACLE, MAJORITY, WEIGHTED = "judge", "random", "oracle", "majority", "judge_weighted"

Draws = Array  # (resamples + 1,)


class Answers(NamedTuple):
    """Answers to the questions of a set.

    Attributes:
        question: (rows,) each one's question, a place in `samples.questions`.
        right: (rows,) whether it is right.
        final: (rows,) what it states: one number for each final answer to a question; -1 for none.
        value: Name -> (rows,) what a way of choosing ranks it by.
        samples: Resamples of the questions.
    """

    question: Index
    right: Mask
    final: Index
    value: dict[str, Array]
    samples: Resamples

    def draws(self, measure: Callable[[Array], Array], question: Index | None = None) -> Array:
        """Measure every resample, some at a time: (resamples, n) weights -> (resamples, ...).

        Args:
            measure: What is measured.
            question: (n,) questions of what is weighed; of the rows where it is None.
        """
        counts, question = self.samples.counts, self.question if question is None else question
        with np.errstate(divide="ignore", invalid="ignore"):
            blocks = np.array_split(counts, min(len(counts), ceil(max(1, len(counts) * len(question)) / BLOCK)))
            return np.concatenate([measure(block[:, question].astype(np.float64)) for block in blocks])


def use_evidence(
    scored: Scored,
    baselines: Mapping[str, Array],
    *,
    sizes: Sequence[int] = (2, 4, 8, 16),
    top: float = 0.2,
    bootstraps: int = 1000,
    n_choices: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure what choosing by a judge brings, beside simpler ways.

    Args:
        scored: Verified answers of several generators: question, prediction, generator, correct (0 or 1), and final.
        baselines: Name -> (rows,) of other values to choose by, such as a question-only probe's.
        sizes: Answers to choose the best of.
        top: Share of all rows to keep.
        bootstraps: Resamples of the questions.
        n_choices: Choices of n answers to vote on, at most.
        seed: Of the resamples and choices.

    Returns:
        The part `use` of results.json, each figure with an interval over questions: counts and `field`; `best_of`,
        n -> way of choosing -> share right, `gain_over_<way>`, the judge's paired gain, and `n_questions` that have
        as many answers; `top`, the like for `share` of all rows; `auroc` and `same_question`, way -> figure; and
        `surest`, share of the decisions -> share right.

    Raises:
        DataFileError: A row is no verified answer, or no question has a right and a wrong one.
    """
    answers = _answers(scored, baselines, bootstraps, seed)
    ways = [way for way in answers.value if way not in (RANDOM, ORACLE, "shortest")]
    same = {way: decisions(answers.question, answers.right, answers.value[way]) for way in ways}
    if not len(same[JUDGE].won):
        raise DataFileError("Choosing expects questions with right and wrong answers, but found none.")
    return {
        "field": scored.field,
        "n_rows": len(scored.rows),
        "n_questions": len(answers.samples.questions),
        "n_seen": scored.n_seen([str(place) for place in answers.question]),
        "n_generators": len({str(row["generator"]) for row in scored.rows}),
        "best_of": {str(n): found for n in sizes if (found := _best_of(answers, n, n_choices, seed))},
        "top": {
            "share": top,
            **_compared({way: answers.draws(_top_of(v, answers.right, top)) for way, v in answers.value.items()}),
        },
        "auroc": {way: interval(answers.draws(partial(auroc, answers.right, answers.value[way]))) for way in ways},
        "same_question": {
            way: interval(answers.draws(partial(weighted_mean, found.won), found.question))
            for way, found in same.items()
        },
        "surest": _surest(answers, same[JUDGE]),
    }


def _answers(scored: Scored, baselines: Mapping[str, Array], bootstraps: int, seed: int) -> Answers:
    names = [question_id(str(row["question"])) for row in scored.rows]
    wrong = next(
        (row["correct"] for row in scored.rows if str(row["correct"]) not in ("0", "1", "True", "False")), None
    )
    if wrong is not None:
        raise DataFileError(f"Verified answers expect 0 or 1 as correct, but got {wrong!r:.40}.")
    right = np.array([str(row["correct"]) in ("1", "True") for row in scored.rows], dtype=np.bool_)
    samples = resamples(np.array(names), bootstraps, seed)
    question = np.searchsorted(samples.questions, np.array(names))
    length = np.array([len(row["prediction"]) for row in scored.rows], dtype=np.float64)
    values = {JUDGE: scored.value, RANDOM: np.zeros(len(right)), "longest": length, "shortest": -length, **baselines}
    codes: dict[tuple[str, str], int] = {}
    stated = [(name, _plain(row.get("final"))) for name, row in zip(names, scored.rows, strict=True)]
    final = np.array([codes.setdefault(key, len(codes)) if key[1] else -1 for key in stated])
    return Answers(question, right, final, {**values, ORACLE: right.astype(np.float64)}, samples)


def _plain(final: Any) -> str:
    """Write a final answer so that the same one is the same text; empty for none."""
    text = "" if final is None else normal_text(str(final))
    number = as_number(text)
    return text if number is None else str(number)


def _best_of(answers: Answers, n: int, n_choices: int, seed: int) -> dict[str, Any]:
    """Measure the choice among n answers, on the questions that have as many; empty where none has."""
    ranks = Ties.of(answers.value[JUDGE]).midranks(np.ones((1, len(answers.right))))[0] / len(answers.right)
    found: dict[str, list[float]] = defaultdict(list)
    kept = []
    for place, rows in enumerate(rows_of(answers.question)):
        if len(rows) < n:
            continue
        kept.append(place)
        for way, value in answers.value.items():
            found[way].append(best_of(value[rows], answers.right[rows], n))
        chosen = _choices(len(rows), n, n_choices, f"{seed}:{answers.samples.questions[place]}:{n}")
        own = answers.final[rows], answers.right[rows]
        found[MAJORITY].append(vote(*own, np.ones(len(rows)), chosen))
        found[WEIGHTED].append(vote(*own, ranks[rows], chosen))
    if not kept:
        return {}
    places = np.array(kept)
    draws = {way: answers.draws(partial(weighted_mean, np.array(own)), places) for way, own in found.items()}
    return {"n_questions": len(kept), **_compared(draws)}


def best_of(value: Array, right: Mask, n: int) -> float:
    """Return the chance that the highest of n of a question's answers, drawn at random, is right; ties share."""
    total, above, found = len(value), 0, 0.0
    for level in np.unique(value)[::-1]:
        tied = value == level
        size = int(tied.sum())
        chance = comb(total - above, n) - comb(total - above - size, n)
        found += chance * float(right[tied].mean())
        above += size
    return found / comb(total, n)


def _choices(total: int, n: int, most: int, seed: str) -> Mask:
    """Return choices of n of so many answers, (choices, answers): all of them, or a draw."""
    if comb(total, n) <= most:
        drawn = list(combinations(range(total), n))
    else:
        rng = random.Random(seed)
        drawn = [tuple(rng.sample(range(total), n)) for _ in range(most)]
    chosen = np.zeros((len(drawn), total), dtype=np.bool_)
    np.put_along_axis(chosen, np.array(drawn), True, axis=1)
    return chosen


def vote(final: Index, right: Mask, weight: Array, chosen: Mask) -> float:
    """Return how often the final answer with the most weight is right.

    Args:
        final: (answers,) what each states, as a number; -1 has no vote.
        right: (answers,) whether it is right.
        weight: (answers,) of its vote.
        chosen: (choices, answers) which of them vote.

    Returns:
        Mean over the choices; tied final answers share, and a random answer counts where none has a vote.
    """
    codes, place = np.unique(final, return_inverse=True)
    member = (place[:, None] == np.arange(len(codes))) & (codes >= 0)  # (answers, codes)
    counted = chosen.astype(np.float64)
    votes = counted @ (member * weight[:, None])
    best = np.isclose(votes, votes.max(axis=1, keepdims=True), rtol=1e-9, atol=0) & (votes > 0)
    share = (member * right[:, None]).sum(axis=0) / np.maximum(member.sum(axis=0), 1)
    any_vote = best.any(axis=1)
    by_vote = (best * share).sum(axis=1) / np.maximum(best.sum(axis=1), 1)
    return float(np.where(any_vote, by_vote, counted @ right / counted.sum(axis=1)).mean())


def _top_of(value: Array, right: Mask, share: float) -> Callable[[Array], Array]:
    return lambda weights: top_right(value, right, weights, [share])[:, 0]


def _surest(answers: Answers, made: Decisions) -> dict[str, Any]:
    found = answers.draws(lambda w: top_right(made.margin, made.won, w, SURE), made.question)
    return {str(share): interval(found[:, i]) for i, share in enumerate(SURE)}


def _compared(draws: Mapping[str, Draws]) -> dict[str, Any]:
    """Give each way's figure, and the judge's paired gain over each but the oracle."""
    others = [way for way in draws if way not in (JUDGE, ORACLE)]
    gains = {f"gain_over_{way}": interval(draws[JUDGE] - draws[way]) for way in others}
    return {way: interval(values) for way, values in draws.items()} | gains
