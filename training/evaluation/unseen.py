"""How judge and baselines rank responses of generators that no fit saw, all rows of all questions together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probing.table import Array, Labels
from ..rows.records import LabelledPair
from .metrics import UNSET, Index, Predictions, Resamples, averaged, bootstrap, compared, resamples, shown

AUROC = "auroc"
Draws = Mapping[str, Mapping[str, Array]]


def unseen_evidence(
    predictions: Mapping[str, Predictions],
    labels: Labels,
    generators: NDArray[np.str_],
    pairs: Sequence[LabelledPair],
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Measure what fits said that saw neither a row's question nor its generator.

    Args:
        predictions: The judge's first, then those of others, in one repeat; rows that one leaves out are left out.
        labels: The whole table.
        generators: (rows,) as `generators_of` gives them.
        pairs: All pairs, whose `form` divides the rows too, where they carry any.
        bootstraps: Resamples of the questions.
        seed: Of the resamples.

    Returns:
        Aspect -> `n_rows`, `n_questions`; of AUROC with intervals and paired gains: `pooled` over all rows (scores of
        several fits are compared there), `by_generator`, their `mean`, and `by_form`.
    """
    found: dict[str, Any] = {}
    for a, name in enumerate(labels.names):
        asked = (labels.aspect == a) & ~labels.auxiliary & (generators != "")
        known = [one for one in predictions.values() if (one.score[0, asked] != UNSET).any()]
        rows = np.flatnonzero(asked & np.all([one.score[0] != UNSET for one in known], axis=0))
        if not known or not _has_both(labels, rows):
            continue
        taken = {method: one for method, one in predictions.items() if any(one is other for other in known)}
        drawn = _Drawn(taken, labels, a, resamples(labels.question[rows], bootstraps, seed))
        by_generator = {key: drawn.of(own) for key, own in _parts(labels, rows, generators)}
        forms = np.array([pairs[i].form or "" for i in labels.pair], dtype=np.str_)
        means = {m: averaged([draws[m] for draws in by_generator.values()]) for m in taken} if by_generator else {}
        found[name] = {
            "n_rows": len(rows),
            "n_questions": len(np.unique(labels.question[rows])),
            "pooled": _beside(drawn.of(rows)),
            "mean": _beside(means) if means else {},
            "by_generator": {key: _beside(draws) for key, draws in by_generator.items()},
            "by_form": {key: _beside(drawn.of(own)) for key, own in _parts(labels, rows, forms)},
        }
    return found


@dataclass(frozen=True)
class _Drawn:
    """What methods predicted of an aspect, and the resamples to measure it on."""

    predictions: Mapping[str, Predictions]
    labels: Labels
    aspect: int
    samples: Resamples

    def of(self, rows: Index) -> Draws:
        truth, classes = self.labels.score[rows], self.labels.classes[self.aspect]
        weights = self.samples.weights(self.labels.question[rows])
        first = {method: one.take(rows, slice(1)) for method, one in self.predictions.items()}
        return {method: bootstrap(truth, classes, one, weights, (AUROC,)) for method, one in first.items()}


def _beside(draws: Draws) -> dict[str, Any]:
    """Give the first method's figures, the others' beside them, and the paired gains."""
    (_, ours), *others = draws.items()
    return compared(ours, dict(others))


def _parts(labels: Labels, rows: Index, names: NDArray[np.str_]) -> Iterator[tuple[str, Index]]:
    """Divide rows by their names, the empty one aside; parts of good or of other labels alone are left out."""
    for name in np.unique(names[rows]):
        own = rows[names[rows] == name]
        if name and _has_both(labels, own):
            yield str(name), own


def _has_both(labels: Labels, rows: Index) -> bool:
    return len(np.unique(labels.positive[rows])) == 2


def unseen_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """Write the figures of an aspect: the mean of the generators, all rows, and each form, with every method's."""
    parts = {"mean of generators": entry["mean"], "all rows": entry["pooled"]}
    for name, part in {**parts, **entry["by_form"]}.items():
        beside = [
            f"{method} {found[AUROC]['value']:.3f}, gain {shown(part[f'gain_over_{method}'][AUROC])}"
            for method, found in part.items()
            if f"gain_over_{method}" in part
        ]
        if part:
            yield "; ".join((f"{name} AUROC {shown(part[AUROC])}", *beside))
