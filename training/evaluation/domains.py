"""What a judge tells of domains that no fit saw, beside its baselines, fitted on the other domains too.

Rows that name a domain (the column `domain`) are divided into groups of domains, each of which is left out of a fit in
turn, with its questions wherever they stand. A domain's figures are of all its rows; *same question* is as in
`matched.py`, where questions have good and other answers.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probing.table import Labels, TooFewLabelsError, with_both_kinds
from ..rows.records import LabelledPair
from .matched import Decisions, generator_groups
from .methods.base import Fold
from .metrics import UNSET, Mask, Predictions

logger = logging.getLogger(__name__)

MIN_DOMAINS = 2


def domains_of(labels: Labels, pairs: Sequence[LabelledPair]) -> NDArray[np.str_]:
    """Return each row's domain, "" where it is not known, (rows,)."""
    return np.array([str(pairs[i].domain or "") for i in labels.pair], dtype=np.str_)


def domain_folds(labels: Labels, domains: NDArray[np.str_], of_others: Mask, n_groups: int, seed: int) -> list[Fold]:
    """Leave domains out, a group of them in each fold.

    Args:
        labels: The whole table.
        domains: (rows,) as `domains_of` gives them.
        of_others: (rows,) which rows are of sets that are never fitted on.
        n_groups: Of domains, at most; below 2 there is no fold.
        seed: Which domains go together.

    Returns:
        Folds of one repeat. Their held-out rows are the labelled ones of a group's domains, of aspects that the other
        domains have good and other labels of; their training rows are of neither these domains nor these questions.
    """
    tested = ~labels.auxiliary & ~of_others
    n_domains = len(np.unique(domains[tested & (domains != "")]))
    found: list[Fold] = []
    for group in generator_groups(domains[tested], min(n_groups, n_domains), seed):
        of_group = np.isin(domains, group)
        held_out = of_group | np.isin(labels.question, labels.question[of_group & tested])
        train = labels.take(np.flatnonzero(~held_out & ~of_others))
        known = np.isin(labels.aspect, with_both_kinds(train))
        test = labels.take(np.flatnonzero(of_group & tested & known))
        if len(test.score):
            found.append(Fold(0, len(found), train, test))
    return found


def domain_evidence(
    folds: Sequence[Fold],
    methods: Mapping[str, Callable[[Sequence[Fold]], Predictions]],
    labels: Labels,
    domains: NDArray[np.str_],
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Measure what fits said of domains that they did not see.

    Args:
        folds: As `domain_folds` makes them.
        methods: The judge's first: name -> what predicts folds.
        labels: The whole table.
        domains: (rows,) as `domains_of` gives them.
        bootstraps: Resamples of the questions.
        seed: Of the resamples.

    Returns:
        Aspect -> domain -> `n_rows`, `n_questions`, `auroc` and `same_question` with intervals, each further method's
        beside them with the judge's paired gain over it. Empty where there is no fold, or too little to fit on.
    """
    if not folds:
        return {}
    try:
        predictions = {name: predict(folds) for name, predict in methods.items()}
    except TooFewLabelsError as error:
        logger.info("Unseen domains are not measured, since the others have too few labels: %s", error)
        return {}
    asked = np.concatenate([fold.test.row for fold in folds])
    found: dict[str, Any] = {}
    for a, aspect in enumerate(labels.names):
        for domain in np.unique(domains[asked]):
            rows = asked[(labels.aspect[asked] == a) & (domains[asked] == domain)]
            rows = np.sort(rows[np.all([one.score[0, rows] != UNSET for one in predictions.values()], axis=0)])
            good, question = labels.positive[rows], labels.question[rows]
            if len(np.unique(good)) < 2:
                continue
            drawn = [Decisions(good, one.good[0, rows], question, bootstraps, seed) for one in predictions.values()]
            entry = {"n_rows": len(rows), "n_questions": len(np.unique(question)), **drawn[0].intervals()}
            for name, theirs in list(zip(predictions, drawn, strict=True))[1:]:
                entry |= {name: theirs.intervals(), f"gain_over_{name}": drawn[0].gains(theirs)}
            found.setdefault(aspect, {})[str(domain)] = entry
    return found
