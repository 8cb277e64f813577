"""What an ablation found: accuracy of every run and arm with intervals, paired differences, and a table of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.stats import binomtest

from inspector_pipeline.files.tables import Row

from ..evaluation.metrics import interval, resamples
from ..labelling.generate import Generated
from ..probing.table import Array
from ..rows.correctness import judge_answer

Z = 1.959964  # of a two-sided 95 % interval
LEVEL = 0.05
SEED = 731
PACKAGES = ("torch", "transformers", "trl", "peft", "math-verify")
PAIRS = (("top", "random"), ("top", "all"), ("top", "untrained"))
INTERVALS = (
    "95 %, over test questions. Accuracy: Wilson's; of several seeds, for their mean as of one run. Difference: "
    "percentiles over resampled questions, each with its answers of both arms and all seeds. How much another seed of "
    "the training would change is not in them; it shows only in the runs of several seeds. Where few questions differ, "
    "resampling is too sure; so arms are said to differ only where an exact sign test over those questions says so too."
)
NO_INTERVAL = "the arms agree on every question, so resampling cannot tell how far they may differ"


@dataclass(frozen=True)
class Outcome:
    """What a run of an arm came to.

    Attributes:
        arm: random, top, all or untrained.
        seed: None of the untrained student.
        selection: What its rows are.
        training: What its training says.
        replies: Graded replies, one for each test question, in the same order in every outcome.
    """

    arm: str
    seed: int | None
    selection: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    replies: Sequence[Row]

    @property
    def right(self) -> Array:
        """float64 (questions,), 1 where the reply is right."""
        return np.array([row["right"] for row in self.replies], dtype=np.float64)


def grade(question: Row, reply: Generated) -> Row:
    """Judge a reply: right is 1 or 0, and 0 too where no answer is found for certain."""
    verdict = judge_answer(reply.text, question["final_answer"], question["question"])
    return {
        **question,
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "n_tokens": reply.n_tokens,
        "stated": verdict.stated,
        "right": int(verdict.score == 1),
    }


def summarize(outcomes: Sequence[Outcome], bootstraps: int) -> dict[str, Any]:
    """Sum outcomes up.

    Args:
        outcomes: Of all runs, the untrained student's first.
        bootstraps: Resamples of the test questions.

    Returns:
        questions (how many), runs, arms, differences, intervals (what they are) and versions.
    """
    arms = {arm: [one for one in outcomes if one.arm == arm] for arm in dict.fromkeys(one.arm for one in outcomes)}
    means = {arm: np.mean([one.right for one in found], axis=0) for arm, found in arms.items()}
    ids = np.array([str(row["id"]) for row in outcomes[0].replies])
    weights = resamples(ids, bootstraps, SEED).weights(ids)
    return {
        "questions": len(ids),
        "runs": [_run(one) for one in outcomes],
        "arms": {arm: {"runs": len(arms[arm]), "accuracy": accuracy(means[arm])} for arm in arms},
        "differences": {
            f"{ours} - {theirs}": difference(means[ours], means[theirs], weights)
            for ours, theirs in PAIRS
            if ours in means and theirs in means
        },
        "intervals": INTERVALS,
        "versions": {name: version(name) for name in PACKAGES},
    }


def accuracy(right: Array) -> dict[str, float]:
    """Give the share of right answers with Wilson's 95 % interval.

    Args:
        right: float64 (questions,), 0 to 1.
    """
    n, value = len(right), float(right.mean())
    center = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    low, high = max(0.0, center - half), min(1.0, center + half)
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


def difference(ours: Array, theirs: Array, weights: Array) -> dict[str, Any]:
    """Give the paired difference of two accuracies with its 95 % interval.

    Args:
        ours: float64 (questions,), 0 to 1.
        theirs: Of the same questions.
        weights: (resamples + 1, questions), how often each question was drawn.

    Returns:
        value, low, high; better and worse, how many questions are answered right more or less often; sign_test, the
        exact two-sided p-value of these counts. Where there are none of either, low and high are None, and reason says
        why.
    """
    gain = ours - theirs
    found: dict[str, Any] = dict(interval(weights @ gain / weights.sum(axis=1)))
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    found |= {"better": better, "worse": worse}
    if not better + worse:
        return found | {"low": None, "high": None, "sign_test": 1.0, "reason": NO_INTERVAL}
    return found | {"sign_test": round(float(binomtest(better, better + worse).pvalue), 4)}


def table(results: Mapping[str, Any]) -> str:
    """Write results as Markdown."""
    student, n = results["student"], results["questions"]
    rows, left_out = results["rows"], results["rows"]["left_out"]
    lines = [
        "# Does filtering help a student?",
        "",
        f"Student: {student['model']} ({student['dtype']}). Rows: {rows['used']}, ranked by {results['ranked_by']}; "
        f"top and random get {results['share']:g} of them. Held equal: {results['held_equal']}. Test: {n} questions.",
        *(f"Left out: {count} rows, since {reason}." for reason, count in left_out.items()),
        "",
        "| arm | seed | rows | steps | right | accuracy (95 %) | no answer | cut off |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, results["runs"]),
        "",
        "| difference | accuracy (95 %) | questions better, worse |",
        "|---|---|---|",
    ]
    for name, found in results["differences"].items():
        shown = f"{found['value']:+.3f} ({_limits(found, '+')})"
        lines.append(f"| {name} | {shown} | {found['better']}, {found['worse']} of {n} |")
    verdicts = map(_verdict, results["differences"], results["differences"].values())
    return "\n".join([*lines, "", *verdicts, "", f"Intervals: {results['intervals']}", ""])


def _run(one: Outcome) -> dict[str, Any]:
    found = {
        "n": len(one.replies),
        "right": int(one.right.sum()),
        "accuracy": accuracy(one.right),
        "no_answer": sum(row["stated"] is None for row in one.replies),
        "cut_off": sum(row["finish_reason"] == "length" for row in one.replies),
    }
    return {"arm": one.arm, "seed": one.seed, "selection": one.selection, "training": one.training, "test": found}


def _line(run: Mapping[str, Any]) -> str:
    test, trained = run["test"], run["training"]
    cells = [
        run["arm"],
        "-" if run["seed"] is None else run["seed"],
        run["selection"]["rows"] if run["selection"] else "-",
        trained["steps"] if trained else "-",
        f"{test['right']} of {test['n']}",
        f"{test['accuracy']['value']:.3f} ({_limits(test['accuracy'])})",
        test["no_answer"],
        test["cut_off"],
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _limits(found: Mapping[str, Any], sign: str = "") -> str:
    return "no interval" if found["low"] is None else f"{found['low']:{sign}.3f} to {found['high']:{sign}.3f}"


def _verdict(name: str, found: Mapping[str, Any]) -> str:
    ours, _, theirs = name.partition(" - ")
    if found["low"] is None:
        return f"- {ours} and {theirs}: {found['reason']}."
    tested = f"sign test p = {found['sign_test']:.3f}"
    if found["sign_test"] < LEVEL and (found["low"] > 0 or found["high"] < 0):
        how = "better" if found["value"] > 0 else "worse"
        return f"- {ours} is {how} than {theirs} on questions like these: {tested}."
    return f"- It is not shown that {ours} and {theirs} differ: {tested}."
