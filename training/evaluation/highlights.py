"""Whether highlights mean something: do the tokens that lower a score most fall into the step that is wrong?

A solution is a list of steps, of which one is marked as the first mistake. Each method says of every piece of the
response how suspicious it is: `share`, by how much it lowers the judge's decision value; `surprisal`, its negative log
probability under the judge's own backbone as a language model; and `late`, its place. Beside each figure stands what
chance gives. Steps after the first mistake may be wrong as well, and count as right: figures are too low for all alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.template import Span

from .metrics import Array, Index, auroc, interval, resamples, weighted_mean

METHODS = ("share", "surprisal", "late")
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
        response: The steps, a line each.
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


def marked(rows: Sequence[Row], source: str) -> list[Marked]:
    """Read solutions with a marked step.

    Args:
        rows: With id, question, steps and first_mistake, from 0 (those without a mistake are left out); or rows of the
            degenerate stage's forms `worked` and `step`, one number of which was changed: the line that differs from
            the worked solution to the same question is the mistake.
        source: Where they come from, for messages.

    Raises:
        DataFileError: There is none, or a mark names no step.
    """
    found = []
    worked = {str(row["id"]): row["prediction"].split("\n") for row in rows if row.get("form") == "worked"}
    for i, row in enumerate(rows):
        if row.get("steps") is not None:
            lines, wrong = [str(step) for step in row["steps"]], row.get("first_mistake")
        elif row.get("form") == "step" and str(row["id"]) in worked:
            lines = row["prediction"].split("\n")
            pairs = list(zip(lines, worked[str(row["id"])], strict=False))
            differing = [at for at, (line, other) in enumerate(pairs) if line != other]
            wrong = differing[0] if len(differing) == 1 and len(lines) > 1 else None
        else:
            continue
        if wrong is None:
            continue
        if not isinstance(wrong, int) or not 0 <= wrong < len(lines):
            raise DataFileError(f"{source}: row {i} expects first_mistake below {len(lines)}, but got {wrong!r}.")
        starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
        steps = tuple(Span(start, start + len(line)) for start, line in zip(starts, lines, strict=False))
        found.append(Marked(str(row["id"]), str(row["question"]), "\n".join(lines), steps, wrong))
    if not found:
        raise DataFileError(
            f"{source} expects rows with steps and first_mistake, or rows of the forms worked and step, but has none."
        )
    return found


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
        `n`, and for each figure `chance`, and method -> its interval with `gain`, that over chance; for the shares also
        `gain_over_surprisal`, where there is a surprisal.
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
    found: dict[str, Any] = {"n": len(kept), "left_out": len(solutions) - len(kept), "figures": {}}
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
        if "surprisal" in draws:
            part["share"]["gain_over_surprisal"] = interval(draws["share"] - draws["surprisal"])
        found["figures"][figure] = part
    return found


def _share_of_top(values: Array, here: np.ndarray[Any, Any], n: int) -> float:
    """Return the share of the n largest values that are here; where several tie for the last places, on average."""
    edge = np.sort(values)[-n]
    above, tied = values > edge, values == edge
    return float((here[above].sum() + (n - above.sum()) * here[tied].mean()) / n)
