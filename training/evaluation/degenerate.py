"""How a judge ranks worked right solutions against degenerate answers, beside a rule that reads no meaning.

The rule adds four numbers of 0 to 1: how long the response is, up to 60 words; whether it has a digit or an option in
brackets; whether its last line states an answer in the usual words, in a box or behind ####; and which share of its
runs of three words is new, neither the question's nor said before. What it solves says nothing of a judge: a form is
marked where it puts the worked right solution above in 95 % of the questions.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row

from ..corruptions.degenerate import FORMS
from .metrics import Array, Index, Interval, interval, resamples, rounded, weighted_mean
from .scored import Scored

RULE = "length up to 60 words, a digit or option, an answer stated in the last line, words not copied or repeated"
WORDS = 60
SOLVED = 0.95
AGAINST = {"bare_right": "bare_wrong", "sentence_right": "sentence_wrong", "terse_right": "worked_wrong"}
"""Right forms, which need not stand below worked solutions, and the wrong ones that they are to stand above."""
_STATED = re.compile(r"answer\b.{0,30}(?:\bis\b|:)|boxed|####", re.IGNORECASE)


def rule_value(question: str, prediction: str) -> float:
    """Rank a response by the rule above, 0 to 4."""
    words, asked = prediction.lower().split(), question.lower().split()
    runs = _runs(words) or [" ".join(words)]
    new = set(runs) - {*_runs(asked), ""}
    last = prediction.strip().rpartition("\n")[2][-200:]
    holds = (re.search(r"\d|\([A-J]\)", prediction), _STATED.search(last))
    return min(len(words), WORDS) / WORDS + sum(map(bool, holds)) + len(new) / len(runs)


def _runs(words: list[str]) -> list[str]:
    return [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]


def degenerate_evidence(scored: Scored, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Compare worked right solutions with each form, question by question; ties count half.

    Args:
        scored: Rows of the degenerate stage, with id and form.
        bootstraps: Resamples of the questions.
        seed: Of the resamples.

    Returns:
        The part `degenerate` of results.json: `field`, `rule`, `n_questions`, `n_seen`, how many of them the judge
        was fitted on (None where it cannot say), and `forms`, form -> `upper` and `lower`,
        the forms that are compared (the worked right solution and the form; a right form and its wrong counterpart),
        `n` questions, `above`, the share in which the upper one is ranked higher, and `rule`, the same by the rule,
        both with intervals; `solved_by_rule`; and `unfamiliar`, the share of the form's rows that the judge flags,
        None where it cannot say. `worked` has the last alone.

    Raises:
        DataFileError: A question has a form twice, or none has a worked right solution and another form.
    """
    places: dict[str, dict[str, int]] = {}
    for i, row in enumerate(scored.rows):
        own = places.setdefault(str(row["form"]), {})
        if str(row["id"]) in own:
            raise DataFileError(f"The suite expects one {row['form']} of each question, but {row['id']!r} has two.")
        own[str(row["id"])] = i
    rule = np.array([rule_value(row["question"], row["prediction"]) for row in scored.rows])
    samples = resamples(np.array(sorted({str(row["id"]) for row in scored.rows})), bootstraps, seed)
    forms: dict[str, Any] = {}
    for form in (*FORMS, *sorted(places.keys() - FORMS.keys())):
        own = places.get(form, {})
        entry: dict[str, Any] = {"unfamiliar": _share([scored.unfamiliar[i] for i in own.values()])}
        upper, lower = (form, AGAINST[form]) if form in AGAINST else ("worked", form)
        both = sorted(places.get(upper, {}).keys() & places.get(lower, {}).keys())
        if form != "worked" and both:
            weights = samples.weights(np.array(both))
            first, second = (np.array([places[name][key] for key in both]) for name in (upper, lower))
            by = {
                name: _above(value, first, second, weights) for name, value in (("above", scored.value), ("rule", rule))
            }
            solved = by["rule"]["value"] is not None and by["rule"]["value"] >= SOLVED
            entry = {"upper": upper, "lower": lower, "n": len(both), **by, "solved_by_rule": solved, **entry}
        if own and (form == "worked" or both):
            forms[form] = entry
    if len(forms) < 2:
        raise DataFileError(
            "The degenerate suite expects worked right solutions and other forms of the same questions, but found none."
        )
    n_seen = scored.n_seen([str(row["id"]) for row in scored.rows])
    counts = {"n_questions": len(samples.questions), "n_seen": n_seen}
    return {"field": scored.field, "rule": RULE, **counts, "forms": forms}


def _above(value: Array, first: Index, second: Index, weights: Array) -> Interval:
    difference = value[first] - value[second]
    with np.errstate(invalid="ignore"):  # a resample may hold none of these questions
        return interval(weighted_mean((difference > 0) + (difference == 0) / 2, weights))


def _share(flags: list[bool | None]) -> float | None:
    said = [flag for flag in flags if flag is not None]
    return rounded(float(np.mean(said))) if said else None


def matched_to(scored: Scored, rows: Sequence[Row]) -> Scored:
    """Take the scores of other rows with the same question and prediction.

    Args:
        scored: Scored rows.
        rows: Those that scores are wanted for.

    Raises:
        DataFileError: A row was not scored.
    """
    places = {(row["question"], row["prediction"]): i for i, row in enumerate(scored.rows)}
    missing = next((row for row in rows if (row["question"], row["prediction"]) not in places), None)
    if missing is not None:
        raise DataFileError(
            f"The scored rows expect every row of the suite, but lack {missing['form']} of {missing['id']!r}. "
            "Score the suite that --rows gives."
        )
    taken = [places[row["question"], row["prediction"]] for row in rows]
    flags = ([flags[i] for i in taken] for flags in (scored.unfamiliar, scored.seen))
    return Scored(list(rows), scored.field, scored.value[taken], *flags)
