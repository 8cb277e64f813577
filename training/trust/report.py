"""How far scores can be believed, measured on rows whose truth is known: sets, decisions, and means by few labels.

All scores must be out of fold: given by fits that saw neither the row's question nor, where it is of a held-out
generator, any row of that generator. Whatever is set here (maps, thresholds) is set on other questions than those that
it is measured on, and for held-out generators on rows of other generators alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.metrics import Array, Index, Mask, interval, resamples, shown
from ..evaluation.surest import SURE, decisions, top_right
from .conformal import Names, ScoreSets, coverage_of, least_probabilities, score_sets
from .level_maps import Slice, apply_map, fit_map, question_folds
from .prediction_powered import estimate_many

FOLDS = 5


class Outcomes(NamedTuple):
    """Answers with a known truth, and what a judge says of them out of fold.

    Attributes:
        value: (rows,) its score, such as P(right).
        right: (rows,) whether the answer is right.
        question: (rows,).
        generator: (rows,).
    """

    value: Array
    right: Mask
    question: Names
    generator: Names


KINDS = {  # of sets -> (what is new in a held-out row, what counts once in setting thresholds, one a label)
    "questions": ("question", "question", False),
    "questions_by_label": ("question", "question", True),
    "generators": ("generator", "question", False),
    "generators_by_label": ("generator", "question", True),
    "generators_guarded": ("generator", "generator", False),
}


def conformal_report(
    rows: Outcomes, coverages: Sequence[float], *, method: str = "isotonic", bootstraps: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Measure whether sets of `right` and `wrong` hold the truth as often as is stated.

    Args:
        rows: The answers.
        coverages: What is stated.
        method: How scores become probabilities, on the calibration rows alone.
        bootstraps: Resamples of questions, and of generators.
        seed: Of folds and resamples.

    Returns:
        Kind of sets -> coverage that was asked, as text -> `conformal.coverage_of`, of which `stated` is what the sets
        say of themselves. `questions`: of questions that set no threshold;
        `generators`: of generators that set none, to questions that set none, each generator counting once, with
        `by_generator`, `lowest` and `highest`; both also `_by_label`, with a threshold for each. `generators_guarded`:
        a threshold that counts each generator once and a new one beyond all, which holds on average over generators
        however they differ, and says more than is stated where they are few and alike.
    """
    folds = [(np.sort(one), np.sort(other)) for one, other in question_folds(rows.question, FOLDS, seed)]
    splits = {"question": folds, "generator": _generator_splits(rows, folds)}
    parts = {new: [_Held.of(rows, *split, method, seed) for split in own] for new, own in splits.items()}
    label = rows.right.astype(np.int64)
    found: dict[str, Any] = {"method": method, "n_rows": len(label)}
    for kind, (new, counted, by_label) in KINDS.items():
        order = np.concatenate([part.held for part in parts[new]])
        cluster = rows._asdict()[new][order]
        found[kind] = {}
        for coverage in coverages:
            own_sets = [part.sets(rows, counted, coverage, by_label) for part in parts[new]]
            joined = (np.concatenate([one.holds for one in own_sets]), np.concatenate([one.stated for one in own_sets]))
            sets = ScoreSets(*joined)
            entry = coverage_of(sets, label[order], cluster, bootstraps, seed)
            held = sets.holds[np.arange(len(order)), label[order]]
            entry["of_right"], entry["of_wrong"] = (round(float(held[label[order] == k].mean()), 4) for k in (1, 0))
            if new == "generator":
                own = {str(one): round(float(held[cluster == one].mean()), 4) for one in np.unique(cluster)}
                entry |= {"by_generator": own, "lowest": min(own.values()), "highest": max(own.values())}
            found[kind][f"{coverage:g}"] = entry
    return found


def _generator_splits(rows: Outcomes, folds: list[tuple[Index, Index]]) -> list[tuple[Index, Index]]:
    """Hold out each generator's rows of each fold's questions, from rows of other generators and other questions."""
    splits = []
    for name in np.unique(rows.generator):
        own = rows.generator == name
        splits += [(fitted[~own[fitted]], held[own[held]]) for fitted, held in folds]
    return [(fitted, held) for fitted, held in splits if len(held)]


class _Held(NamedTuple):
    """Rows that are held out, and what is known of the others.

    Attributes:
        held: (held rows,).
        probabilities: (held rows, classes), by a map that was fitted on the others.
        fitted: (others,).
        fitted_probabilities: (others, classes), each by a map that did not see its question.
    """

    held: Index
    probabilities: Array
    fitted: Index
    fitted_probabilities: Array

    @classmethod
    def of(cls, rows: Outcomes, fitted: Index, held: Index, method: str, seed: int) -> "_Held":
        table = _slice(rows)
        others = table.take(fitted)
        shares = np.empty_like(others.probabilities)
        for some, out in question_folds(others.question, FOLDS, seed + 1):
            shares[out] = apply_map(fit_map(method, others.take(some)), others.take(out))
        return cls(held, apply_map(fit_map(method, others), table.take(held)), fitted, shares)

    def sets(self, rows: Outcomes, counted: str, coverage: float, by_label: bool) -> ScoreSets:
        """Return the held-out rows' sets, by thresholds of the others, in which each question or generator counts."""
        label, cluster = rows.right[self.fitted].astype(np.int64), rows._asdict()[counted][self.fitted]
        least, stated = least_probabilities(self.fitted_probabilities, label, cluster, coverage, by_label=by_label)
        return ScoreSets(score_sets(self.probabilities, least), np.full(len(self.held), stated))


def _slice(rows: Outcomes) -> Slice:
    low, high = float(rows.value.min()), float(rows.value.max())
    place = (rows.value - low) / (high - low) if high > low else np.zeros(len(rows.value))
    shares = np.stack([1 - place, place], axis=1)
    return Slice((0, 1), place, shares, rows.right.astype(np.int64), rows.question, np.ones(len(place), np.bool_))


def decision_report(rows: Outcomes, *, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure how often the surest decisions between a right and a wrong answer to a question are right.

    Returns:
        `n_decisions`, `n_questions`, and `curve`: coverage, as text -> share right with its interval over questions.
        `by_threshold`: the same where the margin from which on decisions are made was set on other questions:
        `covered`, the share of decisions made, and `right`.
    """
    samples = resamples(rows.question, bootstraps, seed)
    place = np.searchsorted(samples.questions, rows.question)
    made = decisions(place, rows.right, rows.value)
    weights = samples.counts[:, made.question].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = top_right(made.margin, made.won, weights, SURE)
    fold = np.empty(len(made.question), dtype=np.int64)
    for number, (_, held) in enumerate(question_folds(samples.questions[made.question], FOLDS, seed)):
        fold[held] = number
    by_threshold = {}
    for share in SURE[:-1]:
        limit = np.array([np.quantile(made.margin[fold != number], 1 - share) for number in range(fold.max() + 1)])
        kept = made.margin >= limit[fold]
        with np.errstate(divide="ignore", invalid="ignore"):
            right = (weights @ (kept * made.won)) / (weights @ kept)
        by_threshold[str(share)] = {"covered": round(float(kept.mean()), 4), "right": interval(right)}
    return {
        "n_decisions": len(made.won),
        "n_questions": len(np.unique(made.question)),
        "curve": {str(share): interval(curve[:, at]) for at, share in enumerate(SURE)},
        "by_threshold": by_threshold,
    }


def mean_report(
    rows: Outcomes, n_labels: Sequence[int], *, n_draws: int = 2000, least_rows: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Measure how often intervals of prediction-powered means hold the truth, and how many labels they save.

    Of each generator as many rows as it has are drawn anew, with replacement, and so many of them labelled; the truth
    is the share right of all its rows.

    Args:
        rows: The answers.
        n_labels: How many are labelled.
        n_draws: Of each generator and number.
        least_rows: Generators with fewer rows are left out.
        seed: Of the draws.

    Returns:
        Number of labels, as text -> `covered`, the mean over generators, `lowest` and `highest`; `width` of intervals
        and `width_of_labels_alone`; `labels_saved`, the mean and as a share of the labels; `bias`, the mean of estimate
        less truth; and `by_generator`: truth, `covered`, `covered_of_labels_alone`, `labels_saved`, `tuning`.
    """
    found = {}
    for n in n_labels:
        own: dict[str, dict[str, float]] = {}
        for name in np.unique(rows.generator):
            mine = np.flatnonzero(rows.generator == name)
            if len(mine) >= max(least_rows, n + 1):
                own[str(name)] = _mean_of(rows, mine, n, n_draws, np.random.default_rng([seed, n, len(own)]))
        column = {key: np.array([one[key] for one in own.values()]) for key in next(iter(own.values()), {})}
        if own:
            saved = float(column["labels_saved"].mean())
            found[str(n)] = {
                "covered": round(float(column["covered"].mean()), 4),
                "lowest": float(column["covered"].min()),
                "highest": float(column["covered"].max()),
                "covered_of_labels_alone": round(float(column["covered_of_labels_alone"].mean()), 4),
                "width": round(float(column["width"].mean()), 4),
                "width_of_labels_alone": round(float(column["width_of_labels_alone"].mean()), 4),
                "labels_saved": round(saved, 2),
                "share_saved": round(saved / n, 4),
                "bias": round(float(column["bias"].mean()), 4),
                "n_generators": len(own),
                "by_generator": own,
            }
    return {"n_draws": n_draws, "labels": found}


def _mean_of(rows: Outcomes, mine: Index, n: int, n_draws: int, rng: np.random.Generator) -> dict[str, float]:
    right, value, truth = rows.right[mine].astype(np.float64), rows.value[mine], float(rows.right[mine].mean())
    drawn = rng.integers(0, len(mine), (n_draws, len(mine)))
    labels, said = right[drawn[:, :n]], value[drawn]
    ours = estimate_many(labels, said[:, :n], said[:, n:])
    plain = estimate_many(labels, said[:, :n], np.empty((n_draws, 0)))
    held, alone = (((one["low"] <= truth) & (truth <= one["high"])).mean() for one in (ours, plain))
    figures = {
        "truth": truth,
        "covered": held,
        "covered_of_labels_alone": alone,
        "width": (ours["high"] - ours["low"]).mean(),
        "width_of_labels_alone": (plain["high"] - plain["low"]).mean(),
        "labels_saved": np.median(ours["effective_n"]) - n,
        "tuning": np.median(ours["tuning"]),
        "bias": ours["value"].mean() - truth,
    }
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def report_lines(found: dict[str, Any]) -> list[str]:
    """Say the report's figures in lines that a paper can print."""
    lines = []
    for kind, what in (("questions", "new questions"), ("generators", "new generators (and new questions)")):
        for coverage, one in found["conformal"][kind].items():
            ends = f", {one['lowest']:.3f} to {one['highest']:.3f} over generators" if "lowest" in one else ""
            asked = "" if one["stated"] - float(coverage) < 0.005 else f" (asked were {float(coverage):.0%})"
            lines.append(
                f"sets stated to hold {one['stated']:.1%}{asked} hold {shown(one['covered'])} of {what}{ends}; "
                f"{one['single']:.0%} of them name one label"
            )
    made = found["decisions"]
    for share in ("0.1", "0.3", "0.5", "1.0"):
        lines.append(
            f"of the surest {float(share):.0%} of {made['n_decisions']} decisions between two answers to a question "
            f"{shown(made['curve'][share])} are right"
        )
    for n, one in found["means"]["labels"].items():
        lines.append(
            f"95 % intervals from {n} labels hold the truth in {one['covered']:.1%} of {found['means']['n_draws']} "
            f"draws of each of {one['n_generators']} generators ({one['lowest']:.1%} to {one['highest']:.1%}), labels "
            f"alone in {one['covered_of_labels_alone']:.1%}; {one['labels_saved']:.1f} labels saved "
            f"({one['share_saved']:.0%}), widths {one['width']:.3f} and {one['width_of_labels_alone']:.3f}"
        )
    return lines
