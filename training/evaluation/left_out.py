"""What a judge's rival reads less of: whether a context or a reference is worth reading."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from inspector_pipeline.template import PairTemplate

from .methods.base import Fold


def left_out_slots(readings: Mapping[str, PairTemplate], own: Sequence[str], other: Sequence[str]) -> list[str]:
    """Return the slots that the other's readings have none of.

    Args:
        readings: Name -> reading of the features.
        own: Readings that the judge chooses from.
        other: Readings that its rival chooses from; none where there is no rival.
    """
    held, rest = (
        [slot for name in names if name in readings for slot in readings[name].slots] for names in (own, other)
    )
    return [slot for slot in dict.fromkeys(held) if other and slot not in rest]


def folds_of_rival(folds: Sequence[Fold], left_out: Sequence[str]) -> list[Fold]:
    """Return what a rival is fitted on: the aspects that count; all of them, where it shows what a slot is worth."""
    return [replace(fold, others=None) if left_out else fold.that_counts() for fold in folds]
