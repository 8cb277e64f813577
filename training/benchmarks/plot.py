"""The benchmark's picture: speeds, shares of the ceiling, and growth with pairs and length."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from training.benchmarks.report import GIB, THROUGHPUT_GROUPS
from training.plots import BLUE, GREY, ORANGE

Cases = Mapping[str, Mapping[str, Any]]

SIZE = (11.0, 8.5)  # inches
COLORS = {"judge": BLUE, "rubric": BLUE, "ceiling": BLUE}


def draw(results: Mapping[str, Any]) -> Figure:
    """Draw a panel for each part that was measured.

    Args:
        results: What benchmark.json holds.
    """
    cases: Cases = results["cases"]
    panels: list[tuple[Callable[[Any, Cases], None], Cases]] = [
        (_speeds, {name: case for name, case in cases.items() if case["group"] in THROUGHPUT_GROUPS}),
        (_shares, {name: case for name, case in cases.items() if case["group"] == "ceiling"}),
        (_growth_with_pairs, {name: case for name, case in cases.items() if name.startswith("growth-pairs-")}),
        (_growth_with_length, {name: case for name, case in cases.items() if name.startswith("growth-length-")}),
    ]
    figure = Figure(SIZE, layout="constrained")
    grid = figure.subplots(2, 2, squeeze=False).ravel()
    for axes, (panel, own) in zip(grid, panels, strict=True):
        if own:
            panel(axes, own)
        else:
            axes.set_visible(False)
    figure.suptitle(f"{results['machine']['cpu']}, {results['machine']['threads']} threads")
    return figure


def _bars(axes: Any, names: list[str], values: list[float], colors: list[str], texts: list[str]) -> None:
    places = range(len(names))
    bars = axes.barh(places, values, color=colors)
    axes.bar_label(bars, texts, padding=3, fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _speeds(axes: Any, cases: Cases) -> None:
    ordered = sorted(cases.items(), key=lambda item: -item[1]["pairs_per_second"])
    values = [case["pairs_per_second"] for _, case in ordered]
    colors = [COLORS.get(case["group"], GREY) for _, case in ordered]
    _bars(axes, [name for name, _ in ordered], values, colors, [f"{value:.3g}" for value in values])
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.set_title("Pairs per second, the same pairs (log scale)", fontsize=11)


def _shares(axes: Any, cases: Cases) -> None:
    names = [name.removeprefix("ceiling-") for name in cases]
    values = [100 * case["share_of_ceiling"] for case in cases.values()]
    texts = [f"{case['gflops']:.0f} of {case['ceiling_gflops']:.0f} GFLOP/s" for case in cases.values()]
    _bars(axes, names, values, [BLUE] * len(names), texts)
    axes.set_xlim(0, max(140.0, *values))
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_title("Share of the matrix-product ceiling, %", fontsize=11)


def _growth_with_pairs(axes: Any, cases: Cases) -> None:
    _growth(axes, [(case["pairs"], case) for case in cases.values()], "pairs of 64 tokens")


def _growth_with_length(axes: Any, cases: Cases) -> None:
    _growth(axes, [(case["details"]["length"], case) for case in cases.values()], "tokens of a pair")


def _growth(axes: Any, points: list[tuple[int, Mapping[str, Any]]], label: str) -> None:
    """Draw milliseconds a pair, which stay level where time is linear, and peak memory."""
    points = sorted(points, key=lambda point: point[0])
    places = [place for place, _ in points]
    times = [1000 / case["pairs_per_second"] for _, case in points]
    memory = [case["peak_memory_bytes"] / GIB for _, case in points]
    axes.plot(places, times, color=BLUE, marker="o", label="ms a pair")
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("ms a pair", color=BLUE)
    axes.set_ylim(0, max(times) * 1.2)
    other = axes.twinx()
    other.plot(places, memory, color=ORANGE, marker="s", linestyle="--", label="peak memory")
    other.set_ylabel("peak memory, GiB", color=ORANGE)
    other.set_ylim(0, max(memory) * 1.2)
    axes.grid(alpha=0.3)
    axes.set_title(f"Growth with {label}", fontsize=11)
