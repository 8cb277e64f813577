"""Rows that a judge is least sure of: which to leave out, and which to have labelled by a person or a better judge.

How far a row's label is expected to lie from its expected score is the standard deviation under its probabilities. A
calibrated judge's probabilities make that an honest figure; those of others order rows at best. Unfamiliar rows come
first, since a judge's probabilities say nothing of them.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataFileError, SettingsError
from ..familiarity import word_number, words_of
from ..files.entries import Row, share_of
from ..results import PROBABILITIES, UNFAMILIAR, expected_error

LABEL = "label_"  # how the columns begin that a person fills in
ESCALATED = "escalated"
CANDIDATES = 10  # rows that are compared with each other, for each one that is asked for
VECTOR_SIZE = 1024

Errors = NDArray[np.float64]
Mask = NDArray[np.bool_]


def expected_errors(
    rows: Iterable[Mapping[str, Any]], scales: Mapping[str, Mapping[str, float]], prefix: str = ""
) -> tuple[Errors, Mask]:
    """Return how far each row's label is expected to lie from its score, and which rows are unfamiliar.

    Args:
        rows: Results of a judge, or scored rows.
        scales: Of the aspects whose sum is scored, see `results.scales_of`.
        prefix: What the names of the judge's columns begin with.

    Raises:
        DataFileError: A row has no probabilities.
    """
    errors, unfamiliar = array("d"), array("b")
    for row in rows:
        shares = row.get(prefix + PROBABILITIES)
        if not isinstance(shares, Mapping) or not all(isinstance(shares.get(name), Mapping) for name in scales):
            raise DataFileError(
                f"Doubt is measured by {prefix + PROBABILITIES!r}, but a scored row has {shares!r:.60}. Score it again."
            )
        errors.append(expected_error(shares, scales))
        unfamiliar.append(bool(row.get(prefix + UNFAMILIAR)))
    return np.asarray(errors, np.float64), np.asarray(unfamiliar, np.bool_)


def abstained_rows(errors: Errors, unfamiliar: Mask, share: float) -> Mask:
    """Tell which rows a judge abstains from: a share of them, rounded down, ties in input order.

    Args:
        errors: (rows,) see `expected_errors`.
        unfamiliar: (rows,).
        share: Of all rows, from 0 to 1.

    Raises:
        SettingsError: All rows are alike, as those of a judge without probabilities are.
    """
    count = share_of(len(errors), share)
    if 0 < count < len(errors) and np.ptp(errors) == 0 and unfamiliar.all() == unfamiliar.any():
        raise SettingsError(
            f"Abstaining expects rows of which a judge is more and less sure, but its probabilities expect the same "
            f"error ({errors[0]:.3g}) of all {len(errors)}. Calibrate it on labels: inspector calibrate."
        )
    order = np.lexsort((np.arange(len(errors)), -errors, ~unfamiliar))
    found = np.zeros(len(errors), np.bool_)
    found[order[:count]] = True
    return found


def rows_to_label(
    rows: Callable[[], Iterable[Row]], errors: Errors, n: int, keys: Mapping[str, str], labels: Sequence[str]
) -> list[Row]:
    """Choose rows whose labels would help most: in doubt, and unlike each other.

    The largest errors are candidates, `CANDIDATES` for each row that is asked for. Of these the first is taken, and
    then, one by one, the row with the largest product of its error and its distance to the nearest one taken, 1 - the
    cosine of their words. The same rows give the same choice; in memory are the errors and the candidates.

    Args:
        rows: Gives the rows, from the first on.
        errors: (rows,) see `expected_errors`.
        n: How many to choose.
        keys: question and prediction -> the rows' column.
        labels: Aspects; each gets a column to be filled in, called `label_` and its name.

    Returns:
        The rows in the order in which they were taken, with `question` and `prediction`, the empty columns, `escalated`
        (True: they are not drawn at random), `expected_error`, and what else the rows hold.
    """
    order = np.lexsort((np.arange(len(errors)), -errors))[: n * CANDIDATES]
    wanted = np.zeros(len(errors), np.bool_)
    wanted[order] = True
    found = {index: row for index, row in enumerate(rows()) if wanted[index]}
    candidates = [found[index] for index in order.tolist()]
    texts = [" ".join(str(row.get(column) or "") for column in keys.values()) for row in candidates]
    taken = _spread(errors[order], _vectors(texts), n)
    columns = [f"{LABEL}{name}" for name in labels]
    return [
        {
            **{key: candidates[at].get(column) for key, column in keys.items()},
            **dict.fromkeys(columns),
            ESCALATED: True,
            "expected_error": round(float(errors[order[at]]), 4),
            **{name: value for name, value in candidates[at].items() if name not in keys.values()},
        }
        for at in taken
    ]


def _vectors(texts: Sequence[str]) -> Errors:
    """Count words by a hash, rare ones for more, and scale each text to length 1: (texts, VECTOR_SIZE)."""
    found = np.zeros((len(texts), VECTOR_SIZE))
    for row, text in zip(found, texts, strict=True):
        np.add.at(row, [word_number(word) % VECTOR_SIZE for word in words_of(text)], 1.0)
    weights = np.log1p(len(texts) / (1.0 + (found > 0).sum(axis=0)))
    found = np.sqrt(found) * weights
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))


def _spread(errors: Errors, vectors: Errors, n: int) -> list[int]:
    distance, free, taken = np.ones(len(errors)), np.ones(len(errors), np.bool_), []
    for _ in range(min(n, len(errors))):
        at = int(np.argmax(np.where(free, errors * distance, -1.0)))
        taken.append(at)
        free[at] = False
        distance = np.minimum(distance, np.clip(1.0 - vectors @ vectors[at], 0.0, 1.0))
    return taken
