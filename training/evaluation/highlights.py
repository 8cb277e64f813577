"""Whether highlights mean something: do the tokens that lower a score most fall into the step that is wrong?

A solution is a list of steps, of which one is marked as the first mistake. Each method says of every piece of the
response how suspicious it is: `share`, by how much it lowers the judge's decision value; `surprisal`, its negative log
probability under the judge's own backbone as a language model; `attention`, how much of its attention the pair's last
token gives it there; and `late`, its place. Beside each figure stands what chance gives. Steps after the first mistake
may be wrong as well, and count as right: figures are too low for all alike.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, fsum
from os.path import commonprefix
from typing import Any

import numpy as np

from inspector_pipeline.encoded import Span
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.explain import QUESTION, RESPONSE, TEMPLATE
from inspector_pipeline.files.entries import Row

from ..corruptions.arithmetic import planted_slip
from ..rows.records import question_id
from .metrics import Array, Index, auroc, interval, resamples, weighted_mean

PARTS = (QUESTION, RESPONSE, TEMPLATE)
METHODS = ("share", "surprisal", "attention", "late")
_ENDS = re.compile(r"(?<=[.!?])(?<!^\d\.)[^\S\n]+|\n+", re.MULTILINE)  # of sentences and lines
FIGURES = {
    "first": "the most suspicious piece lies in the wrong step",
    "tenth": "share of the most suspicious tenth of the pieces in the wrong step",
    "step": "the step whose pieces are most suspicious on average is the wrong one",
    "auroc": "a piece of the wrong step is more suspicious than another one; chance is one half",
}


@dataclass(frozen=True)
class Marked:
    """A solution with one wrong step.

    Attributes:
        name: The question's id.
        question: Its text.
        response: What is judged.
        steps: Where each step stands in the response.
        wrong: Which of them is the first mistake.
    """

    name: str
    question: str
    response: str
    steps: tuple[Span, ...]
    wrong: int

    def steps_of(self, pieces: Iterable[tuple[str, Any]]) -> Index:
        """Return the step of each piece, (pieces,), by its first character that is seen; -1 where it is in none."""
        found, at = [], 0
        for text, _ in pieces:
            first = at + len(text) - len(text.lstrip())
            found.append(next((i for i, step in enumerate(self.steps) if step.start <= first < step.end), -1))
            at += len(text)
        return np.array(found, dtype=np.int64)


def marked(rows: Sequence[Row], source: str, seed: int = 0) -> list[Marked]:
    """Read solutions with a marked step.

    Args:
        rows: With id, question, steps and first_mistake, from 0 (those without a mistake are left out); or with
            question and answer, a gold solution of which one result is made false here, where that is possible; or of
            the degenerate stage's forms `worked` and `step`, one number of which was changed: the sentence that differs
            from the worked solution to the same question is the mistake.
        source: Where they come from, for messages.
        seed: Of the results that are made false.

    Raises:
        DataFileError: There is none, or a mark names no step.
    """
    worked = {str(row["id"]): row["prediction"] for row in rows if row.get("form") == "worked"}
    found = []
    for i, row in enumerate(rows):
        if row.get("steps") is not None:
            found.append(_of_steps(row, [str(step) for step in row["steps"]], row.get("first_mistake"), source, i))
        elif row.get("form") is not None:
            right = worked.get(str(row["id"])) if row["form"] == "step" else None
            found.append(None if right is None else _of_changed_text(row, right))
        elif row.get("answer") and row.get("question") and (planted := planted_slip(row, seed)) is not None:
            found.append(_of_steps(row, *planted, source, i))
    if not any(found):
        raise DataFileError(
            f"{source} expects rows with steps and first_mistake, gold solutions with question and answer, or rows of "
            "the forms worked and step, but has none."
        )
    return [one for one in found if one is not None]


def _of_steps(row: Row, lines: list[str], wrong: Any, source: str, at: int) -> Marked | None:
    if wrong is None:
        return None
    if not isinstance(wrong, int) or not 0 <= wrong < len(lines):
        raise DataFileError(f"{source}: row {at} expects first_mistake below {len(lines)}, but got {wrong!r}.")
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    steps = tuple(Span(start, start + len(line)) for start, line in zip(starts, lines, strict=False))
    return Marked(_name(row), str(row["question"]), "\n".join(lines), steps, wrong)


def _of_changed_text(row: Row, right: str) -> Marked | None:
    """Mark the sentence that holds what was changed; None where that is more than a sentence, or the only one."""
    text = str(row["prediction"])
    begin = len(commonprefix([text, right]))
    end = len(text) - len(commonprefix([text[begin:][::-1], right[begin:][::-1]]))
    edges = [0, *(at for found in _ENDS.finditer(text) for at in found.span()), len(text)]
    steps = tuple(Span(*ends) for ends in zip(edges[::2], edges[1::2], strict=True) if ends[0] < ends[1])
    held = [i for i, step in enumerate(steps) if step.start <= begin and end <= step.end]
    if text == right or not held or len(steps) == 1:
        return None
    return Marked(_name(row), str(row["question"]), text, steps, held[0])


def _name(row: Row) -> str:
    return str(row.get("id") or question_id(row["question"]))


def solution_figures(suspicion: Array, steps: Index, wrong: int) -> dict[str, float]:
    """Compute the figures of one solution.

    Args:
        suspicion: (pieces,), higher is more suspicious.
        steps: (pieces,) the step of each.
        wrong: The wrong step.

    Returns:
        Each of `FIGURES`; ties share what they are worth. NaN where no piece, or every piece, is in the wrong step.
    """
    here = steps == wrong
    if here.all() or not here.any():
        return dict.fromkeys(FIGURES, float("nan"))
    named = np.unique(steps[steps >= 0])
    means = np.array([suspicion[steps == step].mean() for step in named])
    return {
        "first": _share_of_top(suspicion, here, 1),
        "tenth": _share_of_top(suspicion, here, ceil(len(suspicion) / 10)),
        "step": _share_of_top(means, named == wrong, 1),
        "auroc": float(auroc(here, suspicion, np.ones((1, len(here))))[0]),
    }


def chance_figures(steps: Index, wrong: int) -> dict[str, float]:
    """Compute what the figures are worth where all pieces are equally suspicious."""
    return solution_figures(np.zeros(len(steps)), steps, wrong)


def evidence(
    solutions: Sequence[tuple[Marked, Mapping[str, Array], Index]], bootstraps: int, seed: int
) -> dict[str, Any]:
    """Average the figures over solutions, with intervals over questions.

    Args:
        solutions: Each with method -> suspicion of its pieces, (pieces,), and the step of each piece.
        bootstraps: Resamples.
        seed: Of theirs.

    Returns:
        `n`, `usual_place`, and for each figure `chance`, and method -> its interval with `gain`, that over chance; for
        the shares also `gain_over_` each other method.
    """
    by_method: dict[str, list[dict[str, float]]] = {"chance": []}
    for one, suspicion, steps in solutions:
        own = {name: solution_figures(values, steps, one.wrong) for name, values in suspicion.items()}
        for name, figures in {"chance": chance_figures(steps, one.wrong), **own}.items():
            by_method.setdefault(name, []).append(figures)
    kept = [i for i, figures in enumerate(by_method["chance"]) if not np.isnan(figures["first"])]
    if not kept:
        raise DataFileError("Highlights expect solutions with pieces in and outside of the wrong step, but got none.")
    names = np.array([solutions[i][0].name for i in kept], dtype=np.str_)
    weights = resamples(names, bootstraps, seed).weights(names)
    found: dict[str, Any] = {
        "n": len(kept),
        "left_out": len(solutions) - len(kept),
        "usual_place": usual_place([solutions[i][0] for i in kept]),
        "figures": {},
    }
    for figure in FIGURES:
        draws = {
            name: weighted_mean(np.array([figures[i][figure] for i in kept]), weights)
            for name, figures in by_method.items()
        }
        chance = draws.pop("chance")
        part: dict[str, Any] = {
            name: {**interval(values), "gain": interval(values - chance)} for name, values in draws.items()
        }
        part["chance"] = interval(chance)["value"]
        for name in (name for name in draws if name != "share"):
            part["share"][f"gain_over_{name}"] = interval(draws["share"] - draws[name])
        found["figures"][figure] = part
    return found


def usual_place(solutions: Sequence[Marked]) -> dict[str, Any]:
    """Say where the wrong step stands most often: whoever always names that place reads nothing.

    Returns:
        `place`, from 0, or from -1 at the end; and `share`, of the solutions whose wrong step stands there.
    """
    places = Counter(place for one in solutions for place in (one.wrong, one.wrong - len(one.steps)))
    place = max(places, key=lambda one: (places[one], one))
    return {"place": place, "share": places[place] / len(solutions)}


def usual_place_told(found: Mapping[str, Any]) -> str:
    """Write what `usual_place` says."""
    place = found["place"]
    where = f"step {place + 1}" if place >= 0 else f"step {-place} from the end"
    return f"The wrong step is most often {where}: always naming it hits {found['share']:.3f}."


def sum_errors(explanation: Mapping[str, Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Say how far constant and shares lie from each decision value that an explanation explains, and its size."""
    found = []
    for own in explanation.values():
        if "why_not" not in own:
            shares = [share for part in PARTS for _, share in own[part] if share is not None]
            found.append((abs(fsum([own["constant"], *shares]) - own["value"]), abs(own["value"])))
    return found


def sums(errors: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Sum up how well explanations add up.

    Args:
        errors: Of each pair, what `sum_errors` says.

    Returns:
        `pairs`; `values`, how many decision values were explained; `largest_error`, how far a sum lay from its value at
        most, None where there is none; and `largest_value`, of the values' sizes.
    """
    lying = [error for own in errors for error, _ in own]
    values = [value for own in errors for _, value in own]
    largest = {"largest_error": max(lying, default=None), "largest_value": max(values, default=None)}
    return {"pairs": len(errors), "values": len(values), **largest}


def _share_of_top(values: Array, here: np.ndarray[Any, Any], n: int) -> float:
    """Return the share of the n largest values that are here; where several tie for the last places, on average."""
    edge = np.sort(values)[-n]
    above, tied = values > edge, values == edge
    return float((here[above].sum() + (n - above.sum()) * here[tied].mean()) / n)
