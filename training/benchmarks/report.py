"""What follows from a run's cases: ratios within the run, and the tables of benchmark.md."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..judges.plots import BLUE, GREY, ORANGE

Cases = Mapping[str, Mapping[str, Any]]

THROUGHPUT_GROUPS = ("judge", "rubric", "plain", "encoder", "reference")
DTYPES = ("float32", "bfloat16")
GIB = 2**30


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
    return {
        "ratios": _ratios(cases, f"reference-batch-{batch_size}"),
        "best_of_8": _best_of(cases),
        "equality": _equality(cases, f"reference-batch-{batch_size}"),
    }


def _speed(case: Mapping[str, Any]) -> float:
    return float(case["chat_tokens_per_second"])


def _ratios(cases: Cases, default: str) -> dict[str, dict[str, float]]:
    references = [case for case in cases.values() if case["group"] == "reference"]
    best = max(references, key=_speed, default=None)
    found = {}
    for name, case in cases.items():
        if case["group"] not in THROUGHPUT_GROUPS:
            continue
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
        together = cases.get(f"best_of_8-together-{dtype}")
        for mode in ("unrelated", "alone"):
            other = cases.get(f"best_of_8-{mode}-{dtype}")
            if together is not None and other is not None:
                found.setdefault(dtype, {})[f"over_{mode}"] = _speed(together) / _speed(other)
                found[dtype]["times_fewer_tokens"] = together["details"]["times_fewer_tokens"]
    return found


def _equality(cases: Cases, default: str) -> dict[str, dict[str, float]]:
    alone = "reference-batch-1"  # without padding, so what the other ones should give too
    others = ("rubric-float32", "rubric-bfloat16", default)
    return {
        f"{name} against {alone}": _same(cases[name]["details"], cases[alone]["details"])
        for name in others
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
    cases, compared = results["cases"], results["comparisons"]
    parts = [
        _machine(results),
        _throughput(cases, compared["ratios"]),
        _ceiling(cases),
        _best_of_table(cases, compared["best_of_8"]),
        _equality_table(compared["equality"]),
        _drift_table(cases.get("drift")),
        _growth_table(cases, "growth-pairs-", "pairs"),
        _growth_table(cases, "growth-length-", "length"),
        _start(cases.get("start")),
        _profile(cases),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"**{title}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


def _machine(results: Mapping[str, Any]) -> str:
    machine, settings = results["machine"], results["settings"]
    extensions = ", ".join(machine["matrix_extensions"])
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in ("torch", "transformers"))
    return (
        f"{machine['cpu']}, {machine['threads']} threads ({extensions}); {versions}; {settings['pairs']} pairs; "
        f"medians of {settings['repetitions']} repetitions, {settings['reference_repetitions']} of the reference."
    )


def _throughput(cases: Cases, ratios: Mapping[str, Mapping[str, float]]) -> str:
    head = ("case", "pairs/s", "s/pair", "tokens/s", "peak memory", "GFLOP/s", "x reference, best", "x its default")
    rows = [
        (
            name,
            _number(case["pairs_per_second"]),
            _number(1 / case["pairs_per_second"]),
            f"{case['tokens_per_second']:,.0f}",
            _memory(case),
            f"{case['gflops']:.0f}",
            _times(ratios[name].get("reference_best")),
            _times(ratios[name].get("reference_default")),
        )
        for name, case in cases.items()
        if case["group"] in THROUGHPUT_GROUPS
    ]
    return _table("The same pairs, by every procedure", head, rows)


def _ceiling(cases: Cases) -> str:
    head = ("case", "pairs", "tokens/pair", "GFLOP/s", "ceiling, GFLOP/s", "share")
    rows = [
        (
            name.removeprefix("ceiling-"),
            str(case["pairs"]),
            f"{case['tokens'] / case['pairs']:.0f}",
            f"{case['gflops']:.0f}",
            f"{case['ceiling_gflops']:.0f}",
            _percent(case["share_of_ceiling"]),
        )
        for name, case in cases.items()
        if case["group"] == "ceiling"
    ]
    return _table("Share of the matrix-product ceiling, pairs of 256 tokens or more", head, rows)


def _best_of_table(cases: Cases, found: Mapping[str, Mapping[str, float]]) -> str:
    head = ("case", "pairs/s", "tokens/s", "peak memory")
    rows = [
        (name, _number(case["pairs_per_second"]), f"{case['tokens_per_second']:,.0f}", _memory(case))
        for name, case in cases.items()
        if case["group"] == "best_of_8"
    ]
    said = [
        f"{dtype}: together {_times(ratios.get('over_unrelated'))} as unrelated pairs, "
        f"{_times(ratios.get('over_alone'))} one by one, by reading {ratios['times_fewer_tokens']:.2f} times fewer "
        "tokens."
        for dtype, ratios in found.items()
    ]
    return "\n\n".join(filter(None, [_table("Eight responses to a question of 300 tokens", head, rows), *said]))


def _equality_table(found: Mapping[str, Mapping[str, float]]) -> str:
    head = ("what", "pairs", "equal scores", "largest difference of expected scores")
    rows = [
        (name, str(entry["pairs"]), _percent(entry["equal_scores"]), f"{entry['max_difference']:.1e}")
        for name, entry in found.items()
    ]
    return _table("The same scores", head, rows)


def _drift_table(case: Mapping[str, Any] | None) -> str:
    if case is None:
        return ""
    names = {
        "bfloat16": "bfloat16 (as it runs) against float32 without sharing",
        "bfloat16_unshared": "bfloat16 without sharing against the same",
        "sharing_float32": "shared prefixes, float32",
        "sharing_bfloat16": "shared prefixes, bfloat16",
    }
    head = ("what changes", "largest difference", "mean", "standard deviation of scores", "scores that flip")
    rows = []
    for name, text in names.items():
        entry = case["details"][name]
        spread = f"{entry['spread']:.2f}"
        rows.append((text, f"{entry['max']:.1e}", f"{entry['mean']:.1e}", spread, _percent(entry["flips"], digits=2)))
    return _table(f"Drift of expected scores, {case['details']['pairs']} pairs", head, rows)


def _growth_table(cases: Cases, prefix: str, by: str) -> str:
    head = (by, "seconds", "ms/pair", "tokens/s", "peak memory")
    rows = [
        (
            f"{int(name.removeprefix(prefix)):,}",
            _number(case["median_seconds"]),
            f"{1000 / case['pairs_per_second']:.1f}",
            f"{case['tokens_per_second']:,.0f}",
            _memory(case),
        )
        for name, case in cases.items()
        if name.startswith(prefix)
    ]
    title = "Growth with pairs of 64 tokens" if by == "pairs" else "Growth with the tokens of a pair"
    return _table(title, head, rows)


def _start(case: Mapping[str, Any] | None) -> str:
    if case is None:
        return ""
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in case["details"]["steps"].items())
    seconds = case["median_seconds"]
    return f"First score from a warm cache: {seconds:.1f} s beyond the imports of torch and transformers ({steps})."


def _profile(cases: Cases) -> str:
    kinds = sorted({kind for case in cases.values() if case["group"] == "profile" for kind in case["details"]["kinds"]})
    rows = [
        (name.removeprefix("profile-"), *(_percent(case["details"]["kinds"].get(kind, 0.0)) for kind in kinds))
        for name, case in cases.items()
        if case["group"] == "profile"
    ]
    return _table("Where the judge's time goes, pairs of 256 tokens or more", ("dtype", *kinds), rows)


def _number(value: float) -> str:
    """Write three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _memory(case: Mapping[str, Any]) -> str:
    return f"{case['peak_memory_bytes'] / GIB:.2f} GiB"


def _times(value: float | None) -> str:
    return "" if value is None else f"{_number(value)}x"


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


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
