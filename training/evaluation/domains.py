"""What a judge tells of domains that no fit saw, beside its baselines, fitted on the other domains too.

Rows that name a domain (the column `domain`) are divided into groups of domains, each of which is left out of a fit in
turn, with its questions wherever they stand; rows that name none are left out of all of these fits, since they may be
of any. A domain's figures are of all its rows; *same question* is as in `matched.py`, where questions have good and
other answers. Domains with few rows are not measured, and of many the largest.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probing.table import Labels, TooFewLabelsError
from ..rows.records import LabelledPair
from .matched import Decisions, beside, generator_groups
from .methods.base import Fold
from .metrics import UNSET, Mask, Predictions

logger = logging.getLogger(__name__)

MOST_DOMAINS = 20  # that are measured
MIN_ROWS = 20  # of a domain that is measured, and of an aspect in the rows to fit on
MIN_OF_A_KIND = 5  # good ones, and others, among either


def domains_of(labels: Labels, pairs: Sequence[LabelledPair]) -> NDArray[np.str_]:
    """Return each row's domain, "" where it is not known, (rows,)."""
    return np.array([pairs[i].domain or "" for i in labels.pair], dtype=np.str_)


def domain_folds(labels: Labels, domains: NDArray[np.str_], of_others: Mask, n_groups: int, seed: int) -> list[Fold]:
    """Leave domains out, a group of them in each fold.

    Args:
        labels: The whole table.
        domains: (rows,) as `domains_of` gives them.
        of_others: (rows,) which rows are of sets that are never fitted on.
        n_groups: Of domains, at most; below 2 there is no fold.
        seed: Which domains go together.

    Returns:
        Folds of one repeat. Their held-out rows are the labelled ones of a group's domains; their training rows are of
        other domains and other questions, both of aspects that these say enough of.
    """
    good, tested = labels.positive, ~labels.auxiliary & ~of_others & (domains != "")
    n_domains = len(np.unique(domains[tested]))
    found: list[Fold] = []
    for group in generator_groups(domains[tested], min(n_groups, n_domains), seed):
        of_group = np.isin(domains, group)
        held_out = of_group | (domains == "") | np.isin(labels.question, labels.question[of_group & tested])
        fitted = ~held_out & ~of_others
        known = np.array([_is_enough(good[fitted & tested & (labels.aspect == a)]) for a in range(len(labels.names))])
        said = known[labels.aspect]
        if (of_group & tested & said).any():
            train, test = (labels.take(np.flatnonzero(rows & said)) for rows in (fitted, of_group & tested))
            found.append(Fold(0, len(found), train, test))
    return found


def _is_enough(good: Mask) -> bool:
    """Tell whether rows of which these are good, (rows,), are enough to measure or to fit something."""
    counts = np.bincount(good, minlength=2)
    return bool(counts.sum() >= MIN_ROWS and counts.min() >= MIN_OF_A_KIND)


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
        beside them with the judge's paired gain over it; the largest domains first. Those are left out that a fit has
        too few labels for, which is logged.
    """
    positive, found = labels.positive, dict[str, dict[str, Any]]()
    for fold in folds:
        try:
            predictions = {name: predict([replace(fold, number=0)]) for name, predict in methods.items()}
        except TooFewLabelsError as error:
            names = ", ".join(np.unique(domains[fold.test.row]))
            logger.info("Unseen domains: %s not measured, since the others have too few labels: %s", names, error)
            continue
        for a in np.unique(fold.test.aspect):
            asked = fold.test.row[fold.test.aspect == a]
            asked = np.sort(asked[np.all([one.score[0, asked] != UNSET for one in predictions.values()], axis=0)])
            for domain in np.unique(domains[asked]):
                rows = asked[domains[asked] == domain]
                good, question = positive[rows], labels.question[rows]
                if _is_enough(good):
                    drawn = {
                        name: Decisions(good, one.good[0, rows], question, bootstraps, seed)
                        for name, one in predictions.items()
                    }
                    counted = {"n_rows": len(rows), "n_questions": len(np.unique(question))}
                    found.setdefault(labels.names[a], {})[str(domain)] = counted | beside(drawn)
    return {aspect: _largest(found[aspect], aspect) for aspect in labels.names if aspect in found}


def _largest(of_domains: Mapping[str, Any], aspect: str) -> dict[str, Any]:
    """Put the largest domains first and drop the small ones of many."""
    names = sorted(of_domains, key=lambda name: (-of_domains[name]["n_rows"], name))
    if len(names) > MOST_DOMAINS:
        logger.info("%s: %d of %d unseen domains are kept, the largest.", aspect, MOST_DOMAINS, len(names))
    return {name: of_domains[name] for name in names[:MOST_DOMAINS]}
