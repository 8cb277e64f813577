"""Plots of a judge's evidence, as PNG files for its card, from nothing but its results.json.

The same results give the same bytes, so that plots can be made again at any time and need no manifest. A plot whose
part of the results is missing is left out, with a line in the log:

- `layer_curve.png` reads `judge.curve`, depth -> inner AUROC, marks `judge.depth` if it is there, and draws a band from
  `judge.curve_band`, depth -> [low, high], if that is there;
- `learning_curve.png` reads `learning_curve`, a list of `{"n": labels, "auroc": interval, "surface": interval}`, where
  an interval is `{"value", "low", "high"}` and `surface`, the baseline's AUROC, may be missing;
- `reliability.png` reads `aspects.<name>.reliability`, a list of `{"predicted", "observed", "n"}`, one for each bin;
- `confusion.png` reads `aspects.<name>.confusion`, `{"classes": [...], "matrix": [[...]]}`, a row for each label.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from PIL import Image

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import write_whole

logger = logging.getLogger(__name__)

Results = Mapping[str, Any]
DPI = 100
WIDTH = 9.0  # inches, so 900 pixels
PER_INCH = 10  # characters of a title
COLORS = 256
COLUMNS = 3  # of the plots with a panel for each aspect
# Okabe and Ito's colours, which colour-blind people tell apart; lines differ in stroke and marker too
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"


def draw(results: Results, output: Path, where: str = "results.json") -> list[Path]:
    """Draw all plots that the results have data for, and log which are left out.

    Args:
        results: Evidence in the form of results.json.
        output: Folder for the PNG files; made if missing.
        where: The results' file, for the message.

    Returns:
        The files.

    Raises:
        DataFileError: The results are not in the form that the module names.
    """
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for name, plot in PLOTS.items():
        path = output / f"{name}.png"
        try:
            with style.context("default"):  # not the user's own style
                figure = plot(results)
                if figure is None:
                    logger.info("%s is left out: the results hold no data for it.", path.name)
                    continue
                write_png(figure, path)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataFileError(
                f"{where} expects results of the evaluate stage, but got something else ({error!r}). "
                "Run python -m training evaluate again."
            ) from error
        files.append(path)
    return files


def layer_curve(results: Results) -> Figure | None:
    """Draw AUROC against depth, with the chosen depth."""
    judge = results.get("judge") or {}
    curve, band = ({int(n): v for n, v in (judge.get(key) or {}).items()} for key in ("curve", "curve_band"))
    if not curve:
        return None
    depths, chosen = sorted(curve), judge.get("depth")
    figure, axes = _axes("Quality by depth, from inner cross-validation", "depth (layers of the backbone that are run)")
    if band:
        low, high = _columns([band.get(depth, (None, None)) for depth in depths])
        axes.fill_between(depths, low, high, color=BLUE, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(depths, [curve[depth] for depth in depths], color=BLUE, marker="o", label="AUROC")
    if chosen in curve:
        axes.axvline(chosen, color=ORANGE, linestyle="--", linewidth=1)
        at = f"chosen depth, {chosen}"
        axes.scatter([chosen], [curve[chosen]], 100, color=ORANGE, marker="D", zorder=3, label=at)
    axes.set_xticks(depths)
    axes.legend(frameon=False)
    return figure


def learning_curve(results: Results) -> Figure | None:
    """Draw AUROC against the number of labels, the surface baseline beside it."""
    points = sorted(results.get("learning_curve") or [], key=lambda point: point["n"])
    if not points:
        return None
    figure, axes = _axes("Quality by number of labels", "labels to fit on (number, all aspects together)")
    lines = (("auroc", "judge", BLUE, "o", "-"), ("surface", "surface baseline", ORANGE, "s", "--"))
    for key, label, color, marker, stroke in lines:
        ends = [
            (point["n"], *(point[key][end] for end in ("value", "low", "high"))) for point in points if key in point
        ]
        if ends:
            n, value, low, high = _columns(ends)
            axes.fill_between(n, low, high, color=color, alpha=0.2, linewidth=0, label=f"{label}, 95 % interval")
            axes.plot(n, value, color=color, marker=marker, linestyle=stroke, label=label)
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.set_xscale("log")
    axes.set_xticks([point["n"] for point in points], [f"{point['n']:,}" for point in points])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def reliability(results: Results) -> Figure | None:
    """Draw the share of good labels against P(good), points as large as their bins, a panel for each aspect."""
    title = "Reliability of P(good): the dotted line is perfect, a point's area is its rows"
    panels = _panels(
        results, "reliability", title, "P(good) that was predicted (mean of a bin)", "share of good labels"
    )
    if panels is None:
        return None
    figure, grid = panels
    for axes, name, bins in grid:
        predicted, observed, n = _columns([(one["predicted"], one["observed"], one["n"]) for one in bins])
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        axes.plot(predicted, observed, color=BLUE, linewidth=1)
        axes.scatter(predicted, observed, 60 * n / n.max(), color=BLUE, zorder=3)
        sizes = f"{n.min():.0f}" if n.max() - n.min() < 1 else f"{n.min():.0f} to {n.max():.0f}"
        axes.set_title(f"{name}\n{n.sum():.0f} rows, {sizes} in a bin", fontsize=10)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.grid(alpha=0.3)
    return figure


def confusion(results: Results) -> Figure | None:
    """Draw labels against scores, coloured by the share of the label's rows, a panel for each aspect."""
    title = "Confusion; numbers are rows, averaged over repeats"
    panels = _panels(results, "confusion", title, "score that was given", "label")
    if panels is None:
        return None
    figure, grid = panels
    for axes, name, found in grid:
        counts = np.array(found["matrix"], dtype=float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
        image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        for i, j in np.ndindex(*counts.shape):
            ink = "black" if shares[i, j] > 0.5 else "white"
            axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color=ink, fontsize=9)
        ticks = range(len(found["classes"]))
        axes.set_xticks(ticks, found["classes"])
        axes.set_yticks(ticks, found["classes"])
        axes.set_title(f"{name} ({counts.sum():.0f} rows)", fontsize=10)
    figure.colorbar(image, ax=[axes for axes, *_ in grid], label="share of the label's rows", shrink=0.8)
    return figure


PLOTS: Mapping[str, Callable[[Results], Figure | None]] = {
    "layer_curve": layer_curve,
    "learning_curve": learning_curve,
    "reliability": reliability,
    "confusion": confusion,
}


def _axes(title: str, xlabel: str) -> tuple[Figure, Any]:
    """Make a figure of one plot, whose height is a mean AUROC."""
    figure = Figure((WIDTH, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel="AUROC, mean over aspects")
    axes.grid(alpha=0.3)
    return figure, axes


def _panels(
    results: Results, part: str, title: str, xlabel: str, ylabel: str
) -> tuple[Figure, list[tuple[Any, str, Any]]] | None:
    """Make a figure with a panel for every aspect that has a part, in rows of `COLUMNS`: its axes, name and part."""
    parts = {name: entry[part] for name, entry in (results.get("aspects") or {}).items() if entry.get(part)}
    if not parts:
        return None
    columns = min(len(parts), COLUMNS)
    rows = ceil(len(parts) / columns)
    width = min(WIDTH, WIDTH * columns / COLUMNS + 1.4)
    figure = Figure((width, 1.0 + 2.9 * rows), layout="constrained")
    figure.suptitle(fill(title, int(PER_INCH * width)))
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[len(parts) :]:
        spare.set_visible(False)
    return figure, [(axes, *named) for axes, named in zip(grid, parts.items(), strict=False)]


def write_png(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all, with few colours: a card's pictures should load fast."""
    picture, small = BytesIO(), BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    Image.open(picture).convert("RGB").quantize(COLORS).save(small, format="png", optimize=True)
    write_whole(path, small.getvalue())


def _columns(rows: Sequence[Sequence[float | None]]) -> Any:
    """Turn rows into columns of floats, (columns, rows); None becomes NaN, which is not drawn."""
    return np.array(rows, dtype=float).T
