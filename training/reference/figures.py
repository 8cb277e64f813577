"""What the published study shows of its rankings: aspects by layer as a figure, poolings by layer as a table.

Both are of the published measure, accuracy in 5-fold cross-validation (see rankings.py), of telling good scores from
others (binary) and of telling the scores (multi). Layers are counted from 0.
"""

from collections.abc import Mapping, Sequence

from matplotlib import style
from matplotlib.figure import Figure

from .rankings import Ranked

TASKS = {"binary": "Binary classification accuracy by layer", "multi": "Multi-class classification accuracy by layer"}
# Okabe and Ito's colours; lines differ in marker too
LINES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#595959", "x"))

Rankings = Mapping[str, Sequence[Ranked]]


def layer_figure(rankings: Rankings) -> Figure:
    """Draw the best accuracy at each layer, whichever pooling and kind of feature gives it, a line for each aspect.

    Args:
        rankings: Aspect -> all candidates of its rankings.
    """
    with style.context("default"):
        figure = Figure((12, 4.5), layout="constrained")
        for axes, (task, title) in zip(figure.subplots(1, len(TASKS)), TASKS.items(), strict=True):
            axes.set(title=title, xlabel="Layer", ylabel="Accuracy, 5-fold mean and standard deviation")
            axes.grid(alpha=0.3)
            for i, (aspect, ranked) in enumerate(rankings.items()):
                color, marker = LINES[i % len(LINES)]
                points = best_by_layer(ranked, task)
                layers, means, spreads = ([point[part] for point in points] for part in range(3))
                axes.errorbar(layers, means, yerr=spreads, color=color, marker=marker, capsize=2, label=aspect)
            if rankings:
                axes.legend(frameon=False, fontsize=8)
        return figure


def best_by_layer(ranked: Sequence[Ranked], task: str) -> list[tuple[int, float, float]]:
    """Return layer, accuracy and its standard deviation over folds of the best candidate of every layer."""
    best: dict[int, Ranked] = {}
    for one in sorted(ranked, key=lambda one: one.accuracy(task)):
        best[one.layer] = one
    measured = ((layer, *measure(one, task)) for layer, one in sorted(best.items()))
    return [(layer, mean, spread) for layer, mean, spread in measured if mean is not None and spread is not None]


def pooling_table(rankings: Rankings) -> str:
    """Write the accuracy of the principal components at every layer by pooling, a table for each aspect and task.

    Args:
        rankings: Aspect -> all candidates of its rankings.

    Returns:
        Markdown. The best of a table is bold; what could not be measured is a dash.
    """
    parts = []
    for aspect, ranked in rankings.items():
        states = [one for one in ranked if one.kind == "pca"]
        poolings = list(dict.fromkeys(one.pooling for one in sorted(states, key=lambda one: one.layer)))
        for task in TASKS:
            highest = max((one.accuracy(task) for one in states), default=0.0)
            cells = {(one.layer, one.pooling): _cell(one, task, highest) for one in states}
            lines = [
                f"## {aspect}, {task}",
                "",
                f"| layer | {' | '.join(poolings)} |",
                "|---" * (len(poolings) + 1) + "|",
            ]
            for layer in sorted({one.layer for one in states}):
                lines.append(f"| {layer} | {' | '.join(cells.get((layer, name), '-') for name in poolings)} |")
            parts.append("\n".join(lines))
    head = "# Accuracy by layer and pooling\n\nLogistic regression on at most 50 principal components; layers from 0."
    return "\n\n".join([f"{head} 5-fold mean ± standard deviation.", *parts]) + "\n"


def measure(one: Ranked, task: str) -> tuple[float | None, float | None]:
    """Return a candidate's accuracy in a task, and its standard deviation over folds."""
    return (one.binary_accuracy, one.binary_std) if task == "binary" else (one.multi_accuracy, one.multi_std)


def _cell(one: Ranked, task: str, highest: float) -> str:
    mean, spread = measure(one, task)
    if mean is None or spread is None:
        return "-"
    said = f"{mean:.3f} ± {spread:.3f}"
    return f"**{said}**" if mean == highest else said
