"""What the rows of a fit were like, small enough for results.json, so that a job can say that its rows are others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inspector_pipeline.jobs.drift import PERCENTILES

from ..probing.table import Labels
from ..rows.records import LabelledPair
from ..rows.scales import plain
from .metrics import UNSET, Predictions, rounded


def fitted_on(pairs: Sequence[LabelledPair], labels: Labels, predictions: Predictions) -> dict[str, Any]:
    """Describe the labelled rows of a fit; auxiliary ones are left out.

    Args:
        pairs: The labelled pairs, as the table numbers them.
        labels: The table.
        predictions: The judge's, out of fold.

    Returns:
        `rows`; `characters`, question and prediction -> `PERCENTILES` of their lengths, white space around them aside;
        and `levels`, aspect -> score, as text -> share of the rows that it was given to out of fold.
    """
    own = [pairs[i] for i in np.unique(labels.pair[~labels.auxiliary]).tolist()]
    texts = {"question": [pair.question for pair in own], "prediction": [pair.prediction for pair in own]}
    lengths = {name: [len(text.strip()) for text in found] for name, found in texts.items() if any(found)}
    levels = {}
    for a, name in enumerate(labels.names):
        rows = (labels.aspect == a) & ~labels.auxiliary & (predictions.score[0] != UNSET)
        values, counts = np.unique(predictions.score[:, rows], return_counts=True)
        if len(values):
            shares = (counts / counts.sum()).tolist()
            levels[name] = {
                str(plain(value)): rounded(share) for value, share in zip(values.tolist(), shares, strict=True)
            }
    percentiles = {
        name: np.percentile(found, PERCENTILES).round().astype(int).tolist() for name, found in lengths.items()
    }
    return {"rows": len(own), "characters": percentiles, "levels": levels}
