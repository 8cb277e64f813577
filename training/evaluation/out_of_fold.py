"""What the fits of a cross-validation said of each row that they never saw, as rows for further reports."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..probing.table import Index, Labels
from ..rows.records import LabelledPair
from ..rows.scales import plain
from .metrics import UNSET, Predictions

FITTED, SET = "fitted", "set"
GENERATOR_UNSEEN = "generator_unseen"


def out_of_fold_rows(
    pairs: Sequence[LabelledPair],
    labels: Labels,
    source: Index,
    sets: Sequence[str],
    predictions: Predictions,
    unseen: Predictions | None,
) -> list[dict[str, Any]]:
    """Put together what was predicted of every pair, in the order of the pairs.

    Args:
        pairs: The pairs of the whole table.
        labels: The whole table.
        source: (rows,) 0 for labelled pairs that fits may see in other folds, or the number of another set.
        sets: The other sets' names.
        predictions: By fits that never saw the question, of the first repeat.
        unseen: By fits that saw neither the question nor the generator, where there are such.

    Returns:
        For each pair that was predicted: `id`, `question`, `prediction`, `generator`, `set` ("fitted" or another set's
        name), and for each of its aspects the label, `expected_<aspect>` and `good_<aspect>`, what a good label is
        ranked by; `generator_unseen` says whether these are by fits that did not see the generator either.
    """
    named = [FITTED, *sets]
    found: dict[int, dict[str, Any]] = {}
    for row in range(len(labels.score)):
        is_new = unseen is not None and unseen.score[0, row] != UNSET
        own = unseen if unseen is not None and is_new else predictions
        if own.score[0, row] == UNSET or (labels.auxiliary[row] and not source[row]):
            continue
        pair, aspect = pairs[labels.pair[row]], labels.names[labels.aspect[row]]
        entry = found.setdefault(
            int(labels.pair[row]),
            {
                "id": pair.id,
                "question": pair.question,
                "prediction": pair.prediction,
                "generator": pair.generator,
                SET: named[source[row]],
                GENERATOR_UNSEEN: is_new,
            },
        )
        entry |= {
            aspect: plain(labels.score[row].item()),
            f"expected_{aspect}": round(float(own.expected[0, row]), 6),
            f"good_{aspect}": None if np.isnan(own.good[0, row]) else round(float(own.good[0, row]), 6),
        }
    return [found[pair] for pair in sorted(found)]
