"""Probes on pooled states, searched and fitted inside each fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature

from ...features.store import load_features
from ...probing.kernels import Design
from ...probing.priors import design_of
from ...probing.search import Choice, FittedJudge, Main, fit_judge, search
from ...probing.settings import SearchConfig
from ...probing.table import Labels, check_both_kinds
from ...rows.records import LabelledPair
from ..cost import Cost, passes_cost
from .base import Fold, Method, Predicted, calibrated


@dataclass(frozen=True)
class ProbesConfig:
    """Probes on pooled states.

    Attributes:
        features: Folder of the extract stage: the same pairs, in the same order.
        search: What is searched inside each fold, and how it is fitted.
        description: What it is, in a few words.
    """

    features: str
    search: SearchConfig = field(default_factory=SearchConfig)
    description: str = "linear probes on pooled states, everything chosen inside each fold"


class ProbesMethod(Method):
    """Probes, searched and fitted inside each fold.

    Attributes:
        choices: What was chosen, fold by fold.
    """

    def __init__(
        self,
        name: str,
        design: Design,
        search: SearchConfig,
        *,
        description: str = "",
        both_kinds: bool = False,
        timed: Sequence[LabelledPair] = (),
    ) -> None:
        """Keep the features and what is searched.

        Args:
            name: Its name in the table.
            design: Features and labels of all rows.
            search: What is searched.
            description: What it is, in a few words.
            both_kinds: Whether every aspect must have good and other labels among the training rows.
            timed: A sample of pairs.
        """
        if search.prior_judge is not None:
            design = design_of(design.data, design.labels, search)
        self.name, self.design, self.search, self.description = name, design, search, description
        self.both_kinds, self.timed = both_kinds, timed
        self.choices: list[Choice] = []
        self._found: dict[bytes, Main] = {}
        n_depths = len(search.depths or [n for n in design.data.layers if n > 0 and n % 2 == 0])
        self.budget = (
            f"{len(search.views)} views x {n_depths} depths x {len(search.penalties) * len(search.sharings)} settings "
            f"by left-out errors; then {1 + len(search.heads) * len(search.head_penalties)} heads in "
            f"{search.inner_folds} inner folds"
        )

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Search and fit.

        Raises:
            TooFewLabelsError: The training rows are too few.
        """
        if self.both_kinds:
            check_both_kinds(fold.train, np.unique(self.design.labels.aspect))
        choice = search(self.design, fold.train, self.search, self._found)
        self.choices.append(choice)
        return partial(self._predict, fit_judge(self.design, fold.train, choice, self.search))

    def _predict(self, judge: FittedJudge, rows: Labels) -> Predicted:
        values = judge.values(self.design, rows)
        for a, calibration in judge.calibrations.items():
            own = np.flatnonzero(rows.aspect == a)
            if len(own):
                yield rows.row[own], calibrated(calibration, values[own], rows.classes[a])

    def cost(self, notes: Mapping[str, Any]) -> Cost:
        """Time the passes that the deepest choice needs, on a sample of pairs."""
        features = [Feature(*read) for read in notes["deepest_reads"]]
        readings = {feature.reading: self.design.data.readings[feature.reading] for feature in features}
        settings = self.design.data.manifest.settings
        return passes_cost(
            {**settings["backbone"], "max_length": settings["max_length"]}, readings, features, self.timed
        )

    def notes(self) -> dict[str, Any]:
        """Say what was chosen, and what the deepest choice reads for all aspects."""
        found: dict[str, Any] = {
            f"{name}s_chosen": [str(getattr(choice, name)) for choice in self.choices] for name in ("depth", "view")
        }
        if self.choices:
            deepest = max(self.choices, key=lambda choice: choice.depth)
            labels = self.design.labels
            names = [labels.names[a] for a in np.unique(labels.aspect)]
            reads = (self.design.features(deepest.view, name, deepest.depth) for name in names)
            found["deepest_reads"] = list(dict.fromkeys(astuple(feature) for own in reads for feature in own))
        return found


def open_design(folder: str, pairs: Sequence[LabelledPair], labels: Labels) -> Design:
    """Open extracted features of labelled pairs.

    Args:
        folder: Of the extract stage.
        pairs: The pairs.
        labels: Their labels.

    Raises:
        DataFileError: The features are of other pairs.
    """
    features = load_features(folder)
    if identities(features.pairs) != identities(pairs):
        raise DataFileError(
            f"{folder} expects features of the {len(pairs)} pairs that are compared, in the same order, but holds "
            f"{len(features.pairs)} others. Extract them from the same file."
        )
    return Design(features, labels)


def identities(pairs: Sequence[LabelledPair]) -> list[tuple[str, str, dict[str, int]]]:
    """Return what tells pairs apart: question ids, responses and labels."""
    return [(str(pair.id), pair.prediction, pair.scores) for pair in pairs]
