"""Figures of a page as SVG within it: drawn by matplotlib, so they need neither a script nor a network.

They are black, white and one colour that is dark where the rest is light, so that they read on paper too; lines differ
in stroke and marker. As pictures by data: URI they cannot reach into the page, whatever their labels say. A figure of
vega-altair or plotly would bring a library of one to four megabytes along, and more elements than rows.
"""

import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from inspector_cli.printable import printable
from matplotlib import rc_context, style
from matplotlib.figure import Figure

from ..evaluation.metrics import Array
from ..judges.plots import BLUE, PLOTS

RC: Any = {"svg.fonttype": "none", "svg.hashsalt": "inspector", "text.parse_math": False, "font.size": 10}
BINS = 20
GREY = "#dddddd"
LONGEST_NAME = 28


def picture(draw: Callable[[], Figure | None]) -> str | None:
    """Draw a figure, if it is one, and return it as the data: URI of an SVG; the same figure gives the same text."""
    with style.context("default"), rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's own fonts have them
        figure = draw()
        if figure is None:
            return None
        held = BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{b64encode(held.getvalue()).decode()}"


def histogram(values: Array, name: str) -> Figure:
    """Draw how an aspect's expected scores are distributed."""
    figure = Figure((4.2, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=BINS, color=BLUE, edgecolor="white", linewidth=0.5)
    axes.axvline(values.mean(), color="black", linestyle="--", linewidth=1)
    axes.set(xlabel=f"expected {shortened(name)} (dashed: mean)", ylabel="rows")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def groups(found: Sequence[Mapping[str, Any]], field: str) -> Figure | None:
    """Draw each group's mean of the ranked field with its interval, highest first, before where its rows lie."""
    if not found:
        return None
    ordered = sorted(found, key=lambda one: one["ranked"]["value"])
    figure = Figure((6.4, 1.0 + 0.28 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    values = np.array([one["ranked"]["value"] for one in ordered])
    ends = np.array([[one["ranked"][end] for one in ordered] for end in ("low", "high")])
    errors = np.nan_to_num(np.abs(ends - values))
    low, _, high = np.array([one["spread"] for one in ordered]).T
    axes.use_sticky_edges = False  # of bars, which would end where the axes do
    axes.barh(range(len(ordered)), high - low, left=low, height=0.6, color=GREY)
    axes.errorbar(
        values, range(len(ordered)), xerr=errors, fmt="o", color=BLUE, ecolor="black", elinewidth=1, capsize=3
    )
    names = [f"{shortened(one['name'])} ({one['n']:,})" for one in ordered]
    axes.set_yticks(range(len(ordered)), names)
    axes.set_xlabel(
        f"mean {shortened(field)}\nwith its 95 % interval over questions\ngrey: where the middle 80 % of rows lie"
    )
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def of_results(results: Mapping[str, Any]) -> dict[str, str]:
    """Draw the plots of results.json that it has data for: name -> picture."""
    drawn = {name: picture(lambda plot=plot: plot(results)) for name, plot in PLOTS.items()}  # type: ignore[misc]
    return {name: uri for name, uri in drawn.items() if uri is not None}


def shortened(name: str) -> str:
    """Return a name that fits beside a figure, and shows nothing but what it says."""
    text = printable(name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
