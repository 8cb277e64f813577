"""What follows from a run's cases: ratios within the run, and the tables of benchmark.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from inspector_pipeline.files.disk import json_text, write_atomically

from ..judges.plots import BLUE, GREY, ORANGE, write_png
from ..runs.manifest import Manifest
from .config import DTYPES

Cases = Mapping[str, Mapping[str, Any]]

THROUGHPUT_GROUPS = ("judge", "rubric", "plain", "encoder", "peer", "reference")
GIB = 2**30
SIZE = (11.0, 8.5)  # inches


def write_report(
    folder: Path, cases: Cases, manifest: Manifest, machine: Mapping[str, Any], batch_size: int
) -> list[Path]:
    """Write benchmark.json, benchmark.md and benchmark.png.

    Args:
        folder: Where to.
        cases: Name -> what its JSON holds, of every case that was measured.
        manifest: The run's.
        machine: What it was measured on.
        batch_size: The reference's default batch.

    Returns:
        The files.
    """
    results = {
        "machine": machine,
        "settings": manifest.settings,
        "versions": manifest.versions,
        "cases": cases,
        "comparisons": comparisons(cases, batch_size),
    }
    data, tables, plot = (folder / f"benchmark.{suffix}" for suffix in ("json", "md", "png"))
    write_atomically(data, json_text(results))
    write_atomically(tables, markdown(results))
    write_png(draw(results), plot)
    return [data, tables, plot]


def comparisons(cases: Cases, batch_size: int) -> dict[str, Any]:
    """Compare cases with each other; what was not measured is left out.

    Args:
        cases: Name -> what its JSON holds.
        batch_size: The reference's default batch.

    Returns:
        `ratios`: case -> how many times as fast as the reference at its best and at its default, plain transformers and
        the encoder in the same dtype (chat tokens of the scored pairs per second, so pairs per second where the pairs
        are the same). `best_of_8`: dtype -> how many times as fast together as otherwise, and how many times fewer
        tokens are read so. `equality`: rubric judge against the reference, and the reference against itself in other
        batches.
    """
    default = f"reference-batch-{batch_size}"
    return {"ratios": _ratios(cases, default), "best_of_8": _best_of(cases), "equality": _equality(cases, default)}


def _of(cases: Cases, *groups: str) -> Cases:
    return {name: case for name, case in cases.items() if case["group"] in groups}


def _speed(case: Mapping[str, Any]) -> float:
    return float(case["chat_tokens_per_second"])


def _ratios(cases: Cases, default: str) -> dict[str, dict[str, float]]:
    best = max(_of(cases, "reference").values(), key=_speed, default=None)
    found = {}
    for name, case in _of(cases, *THROUGHPUT_GROUPS).items():
        others = {
            "reference_best": best,
            "reference_default": cases.get(default),
            "plain": cases.get(f"plain-{case['dtype']}"),
            "encoder": cases.get(f"encoder-{case['dtype']}"),
        }
        found[name] = {key: _speed(case) / _speed(other) for key, other in others.items() if other is not None}
    return found


def _best_of(cases: Cases) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        modes = {mode: cases.get(f"best_of_8-{mode}-{dtype}") for mode in ("together", "unrelated", "alone")}
        together = modes.pop("together")
        ratios = {f"over_{mode}": _speed(together) / _speed(case) for mode, case in modes.items() if together and case}
        if together and ratios:
            found[dtype] = {**ratios, "times_fewer_tokens": together["details"]["times_fewer_tokens"]}
    return found


def _equality(cases: Cases, default: str) -> dict[str, dict[str, float]]:
    alone = "reference-batch-1"  # without padding, so what the other ones should give too
    return {
        f"{name} against {alone}": _same(cases[name]["details"], cases[alone]["details"])
        for name in ("rubric-float32", "rubric-bfloat16", default)
        if name in cases and alone in cases and name != alone
    }


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """Compare the pairs that both scored; one list is the beginning of the other."""
    pairs = list(zip(one["scores"], other["scores"], strict=False))
    scores = [(a, b) for row in pairs for a, b in zip(*row, strict=True)]
    expected = zip(one["expected"], other["expected"], strict=False)
    apart = [abs(a - b) for row in expected for a, b in zip(*row, strict=True)]
    return {
        "pairs": len(pairs),
        "equal_scores": sum(a == b for a, b in scores) / len(scores),
        "max_difference": max(apart),
    }


def markdown(results: Mapping[str, Any]) -> str:
    """Write the tables, in Markdown; parts that were not measured are left out."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "times": _times, "percent": _percent, "memory": _memory}
    groups = {name: _of(results["cases"], name) for name in ("ceiling", "best_of_8", "profile", "device")}
    by_pairs, by_length = _growth_points(results["cases"])
    text = environment.get_template("report.md.jinja").render(
        {**results, **groups, "throughput": _of(results["cases"], *THROUGHPUT_GROUPS)},
        by_pairs=by_pairs,
        by_length=by_length,
    )
    return text.rstrip() + "\n"


def _number(value: float) -> str:
    """Write three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{_number(ratio)}x"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _memory(case: Mapping[str, Any]) -> str:
    return f"{case['peak_memory_bytes'] / GIB:.2f} GiB"


def _growth_points(cases: Cases) -> tuple[dict[int, Mapping[str, Any]], dict[int, Mapping[str, Any]]]:
    """Return the growth cases by their numbers of pairs, and by their tokens of a pair."""
    by_pairs, by_length = (
        {int(name.removeprefix(start)): case for name, case in cases.items() if name.startswith(start)}
        for start in ("growth-pairs-", "growth-length-")
    )
    return by_pairs, by_length


def draw(results: Mapping[str, Any]) -> Figure:
    """Draw a panel for each part that was measured.

    Args:
        results: What benchmark.json holds.
    """
    cases: Cases = results["cases"]
    by_pairs, by_length = _growth_points(cases)
    panels: list[tuple[Any, Callable[[Any], None]]] = [
        (speeds := _of(cases, *THROUGHPUT_GROUPS), lambda axes: _speeds(axes, speeds)),
        (shares := _of(cases, "ceiling"), lambda axes: _shares(axes, shares)),
        (by_pairs, lambda axes: _growth(axes, by_pairs, "pairs of 64 tokens")),
        (by_length, lambda axes: _growth(axes, by_length, "tokens of a pair")),
    ]
    if devices := _of(cases, "device"):
        panels[:2] = [(devices, lambda axes: _speeds(axes, devices)), (devices, lambda axes: _shares(axes, devices))]
    figure = Figure(SIZE, layout="constrained")
    for axes, (measured, panel) in zip(figure.subplots(2, 2, squeeze=False).ravel(), panels, strict=True):
        axes.set_visible(bool(measured))
        if measured:
            panel(axes)
    figure.suptitle(f"{results['machine']['cpu']}, {results['machine']['threads']} threads")
    return figure


def _bars(axes: Any, bars: Mapping[str, tuple[float, str, str]], title: str) -> None:
    """Draw a bar for each name: its length, its colour, and what is written at its end."""
    lengths, colors, texts = zip(*bars.values(), strict=True)
    axes.bar_label(axes.barh(range(len(bars)), lengths, color=colors), texts, padding=3, fontsize=9)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=9)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(title, fontsize=11)


def _speeds(axes: Any, cases: Cases) -> None:
    speeds = {name: case["pairs_per_second"] for name, case in cases.items()}
    names = sorted(speeds, key=lambda name: -speeds[name])
    colors = {name: BLUE if cases[name]["group"] in ("judge", "rubric") else GREY for name in names}
    bars = {name: (speeds[name], colors[name], f"{speeds[name]:.3g}") for name in names}
    _bars(axes, bars, "Pairs per second, the same pairs (log scale)")
    axes.set(xscale="log", xlim=(min(speeds.values()) / 2, max(speeds.values()) * 4))


def _shares(axes: Any, cases: Cases) -> None:
    bars = {
        name.removeprefix("ceiling-"): (
            100 * case["share_of_ceiling"],
            BLUE,
            f"{case['gflops']:.0f} of {case['ceiling_gflops']:.0f} GFLOP/s",
        )
        for name, case in cases.items()
    }
    _bars(axes, bars, "Share of the matrix-product ceiling, %")
    axes.set(xlim=(0, max(140.0, *(share for share, _, _ in bars.values()))), xticks=[0, 25, 50, 75, 100])


def _growth(axes: Any, points: Mapping[int, Mapping[str, Any]], label: str) -> None:
    """Draw milliseconds a pair, which stay level where time is linear, and peak memory."""
    places = sorted(points)
    times = [1000 / points[place]["pairs_per_second"] for place in places]
    memory = [points[place]["peak_memory_bytes"] / GIB for place in places]
    lines = ((axes, "ms a pair", BLUE, "o-", times), (axes.twinx(), "peak memory, GiB", ORANGE, "s--", memory))
    for side, what, color, stroke, values in lines:
        side.plot(places, values, stroke, color=color)
        side.set_ylabel(what, color=color)
        side.set_ylim(0, max(values) * 1.2)
    axes.set(xscale="log", xlabel=label)
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title(f"Growth with {label}", fontsize=11)
