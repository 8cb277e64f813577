"""Matched rows: verified answers in which neither question, generator, domain nor length tells right from wrong.

A judge that is fitted on whatever was answered learns what is easy to see: which questions are hard, which generator
is weak, that wrong answers run on. Of matched rows each question has as many right as wrong answers, each generator
wrote as many right as wrong ones, and both kinds are as long, so that none of these helps.

Which rows are kept is a circulation: a right answer is an edge from its generator to its question, a wrong one an edge
back, each used at most once, and what flows into a node flows out. The largest one is a linear programme whose corners
are whole numbers; two more constraints on lengths leave a handful of fractions, whose rows are dropped.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row

from .correctness import CORRECTNESS
from .records import normal_text, number_samples, question_id

MOST_ALONE = 0.55  # AUROC of any of these alone, above which rows are not matched
VERIFIED = ("question", "prediction", "generator", "correct")

Array = NDArray[np.float64]


def verified_rows(rows: Iterable[Row], source: str) -> list[Row]:
    """Take answers whose correctness is known as labelled rows, named by their question's text.

    Args:
        rows: Objects with question, prediction, generator and correct (0 or 1); other keys are kept.
        source: Where they come from, for messages.

    Returns:
        Labelled rows, those of a question beside each other (its tokens are read once then), without blank answers
        and those that repeat an earlier answer to their question.

    Raises:
        DataFileError: A row lacks a key, or `correct` is neither 0 nor 1.
    """
    seen: set[tuple[str, str]] = set()
    found = []
    for i, row in enumerate(rows):
        lacking = [key for key in VERIFIED if row.get(key) is None]
        if lacking or str(row["correct"]) not in ("0", "1", "True", "False"):
            got = f"lacks {lacking[0]!r}" if lacking else f"has correct = {row['correct']!r:.40}"
            raise DataFileError(f"{source}: row {i} expects {', '.join(VERIFIED)} (0 or 1), but {got}.")
        name, answer = question_id(row["question"]), normal_text(row["prediction"])
        if answer and (name, answer) not in seen:
            seen.add((name, answer))
            label = int(str(row["correct"]) in ("1", "True"))
            found.append({**row, "id": name, "sample": None, "scores": {CORRECTNESS: label}})
    return number_samples(sorted(found, key=lambda row: str(row["id"])), source)


def split_questions(rows: Sequence[Row], held_out: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Divide rows by question: which side a question falls on depends on its text and the seed alone.

    Args:
        rows: Rows named by their question's text.
        held_out: Share of the questions that is held out, 0 to 1.
        seed: Of the split.

    Returns:
        The rows of the other questions, and those of held-out ones.
    """
    ids = sorted({row["id"] for row in rows}, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    out = set(ids[: round(held_out * len(ids))])
    return [row for row in rows if row["id"] not in out], [row for row in rows if row["id"] in out]


def matched(rows: Sequence[Row]) -> list[Row]:
    """Keep as many rows as can be matched, in their order.

    Args:
        rows: What `verified_rows` gives.

    Raises:
        DataFileError: No question has right and wrong answers whose generators balance.
    """
    sign = np.array([1.0 if row["scores"][CORRECTNESS] else -1.0 for row in rows])
    length = np.array([len(row["prediction"]) for row in rows], dtype=float)
    questions, generators = (
        np.unique([str(row[key]) for row in rows], return_inverse=True)[1] for key in ("id", "generator")
    )
    columns = np.arange(len(rows))
    nodes = [csr_array((sign, (node, columns))) for node in (questions, generators)]
    lengths = [sign * (rankdata(length) / len(rows) - 0.5), sign * _ranks_within(length, questions)]
    balance = vstack([*nodes, csr_array(np.array(lengths))])
    solved = linprog(-np.ones(len(rows)), A_eq=balance, b_eq=np.zeros(balance.shape[0]), bounds=(0, 1), method="highs")
    kept = solved.x > 1 - 1e-6
    # A question from which a fraction fell is evened out: the last rows of its fuller side go too.
    total = np.bincount(questions[kept], sign[kept], questions.max(initial=0) + 1)
    for row in np.flatnonzero(kept)[::-1]:
        if total[questions[row]] * sign[row] > 0:
            kept[row] = False
            total[questions[row]] -= sign[row]
    if not kept.any():
        raise DataFileError(
            "Matched rows expect questions with right and wrong answers by generators that have both, but found none. "
            "Add answers of more generators."
        )
    return [row for row, keep in zip(rows, kept, strict=True) if keep]


def alone(rows: Sequence[Row]) -> dict[str, float]:
    """Say how well right is told from wrong by one thing alone.

    Returns:
        AUROC, or one less it where that is more, of generator, question and domain (by each one's share of right rows)
        and of length in characters; and `length_same_question`, the share of pairs of answers to one question.
    """
    right = np.array([row["scores"][CORRECTNESS] for row in rows])
    length = np.array([len(row["prediction"]) for row in rows], dtype=float)
    found = {"length": float(roc_auc_score(right, length))}
    for key in ("generator", "id", "domain"):
        groups = _numbered(rows, key)
        share = np.bincount(groups, right) / np.bincount(groups)
        found["question" if key == "id" else key] = float(roc_auc_score(right, share[groups]))
    found["length_same_question"] = same_question(right > 0, length, [str(row["id"]) for row in rows])
    return {name: round(max(value, 1 - value), 4) for name, value in found.items()}


def check_matched(rows: Sequence[Row], source: str) -> dict[str, float]:
    """Refuse rows that something alone tells apart; else return what each alone gives.

    Raises:
        DataFileError: Something gives more than `MOST_ALONE`; the message names it.
    """
    found = alone(rows)
    worst = max(found, key=found.__getitem__)
    if found[worst] > MOST_ALONE:
        raise DataFileError(
            f"{source}: matched rows expect at most {MOST_ALONE} AUROC by any one thing alone, but {worst} gives "
            f"{found[worst]}. Add answers of more generators or to more questions."
        )
    return found


def answer_margins(right: NDArray[np.bool_], value: Array, question: Sequence[str]) -> list[Array]:
    """Compare the answers to each question.

    Args:
        right: (rows,) which answers are right.
        value: (rows,) what they are ranked by.
        question: (rows,) their questions.

    Returns:
        For each question, ascending, by how much each right answer's value exceeds each wrong one's, (pairs,).
    """
    _, numbers, counts = np.unique(question, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    return [np.subtract.outer(value[own][right[own]], value[own][~right[own]]).ravel() for own in members]


def higher(margin: Array) -> Array:
    """Say of each margin whether the right answer is ranked higher: 1, 0, or half where they are equal."""
    return np.asarray((margin > 0) + (margin == 0) / 2)


def same_question(right: NDArray[np.bool_], value: Array, question: Sequence[str]) -> float:
    """Return the share of pairs of a right and a wrong answer to one question in which the right one's value is higher.

    Every question counts by its number of pairs; ties count half; NaN where there is no pair.
    """
    margins = np.concatenate(answer_margins(right, value, question))
    return float(higher(margins).mean()) if margins.size else float("nan")


def _numbered(rows: Sequence[Row], key: str) -> NDArray[np.int64]:
    """Return the number of each row's value among all values of a key, (rows,)."""
    return np.unique([str(row.get(key)) for row in rows], return_inverse=True)[1]


def _ranks_within(values: Array, groups: NDArray[np.int64]) -> Array:
    """Return each value's rank among its group's, -.5 to .5."""
    ranks = np.empty(len(values))
    for members in np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1]):
        ranks[members] = (rankdata(values[members]) - 0.5) / max(len(members), 1) - 0.5
    return ranks
