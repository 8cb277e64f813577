"""What a comparison says, as a Markdown table and as plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hub_cards.measured import answers_lines

HEADER = (
    "| method | AUROC (95 %) | Spearman | macro F1 | gain of the judge in AUROC (95 %) | p | s/pair | GFLOP/pair | "
    "parameters | rows | budget |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
)
INTERVAL = "{value:.3f} ({low:.3f} to {high:.3f})"
GAIN = "{value:+.3f} ({low:+.3f} to {high:+.3f})"


def table(results: Mapping[str, Any]) -> str:
    """Write the comparison as Markdown: a table by falling AUROC, what its names mean, and how score tokens fare."""
    judge, methods = results["judge"], results["methods"]
    ranked = sorted(methods, key=lambda name: -(methods[name]["mean"].get("auroc", {}).get("value") or 0))
    lines = [_line(name, methods[name], name == judge) for name in ranked]
    meanings = [f"- `{name}`: {methods[name]['description']}.{_failures(methods[name])}\n" for name in ranked]
    sentences = [_sentence(judge, name, methods[name]) for name in ranked]
    answers = [f"{line}\n" for line in answers_lines(results.get("matched", {}))]
    parts = [[HEADER, *lines], meanings, sentences, answers]
    return "\n".join("".join(part) for part in parts if part)


def _failures(entry: Mapping[str, Any]) -> str:
    """Say how many replies held no score, where a method writes its scores."""
    counts = entry.get("notes", {}).get("failures", {}).values()
    asked, failed = (sum(count[key] for count in counts) for key in ("of", "failed"))
    return f" {failed} of {asked} replies held no score; its figures are of the others." if asked else ""


def _line(name: str, entry: Mapping[str, Any], is_judge: bool) -> str:
    mean, gain = entry["mean"], entry["gain_of_judge"].get("auroc", {})
    seconds, flops = entry["seconds_per_pair"], entry["flops_per_pair"]
    cells = (
        f"**{name}**" if is_judge else name,
        _shown(mean.get("auroc"), INTERVAL),
        _shown(mean.get("spearman"), "{value:.3f}"),
        _shown(mean.get("macro_f1"), "{value:.3f}"),
        "the judge" if is_judge else _shown(gain, GAIN),
        "" if gain.get("p") is None else f"{gain['p']:.3f}",
        "no model" if not flops else f"{seconds:.3f}",
        "0" if not flops else f"{flops / 1e9:.1f}",
        f"{entry['parameters'] / 1e6:.1f} M" if entry.get("parameters") else "",
        f"{entry['rows']} of {entry['rows_of']}",
        entry["budget"],
    )
    return f"| {' | '.join(cells)} |\n"


def _sentence(judge: str, name: str, entry: Mapping[str, Any]) -> str:
    """Say whether the judge beats a method of score tokens, and by how much."""
    gain = entry["gain_of_judge"].get("auroc", {})
    if not name.startswith("lager") or gain.get("value") is None:
        return ""
    by = f"by {gain['value']:+.3f} mean AUROC (95 % {gain['low']:+.3f} to {gain['high']:+.3f})"
    aspects = {aspect: found["auroc"] for aspect, found in entry["gain_by_aspect"].items() if found.get("auroc")}
    better = [aspect for aspect, own in aspects.items() if (own["low"] or 0) > 0]
    worse = [aspect for aspect, own in aspects.items() if (own["high"] or 0) < 0]
    by += f"; by aspect, {judge} is reliably better on {', '.join(better) or 'none'}"
    by += f" and worse on {', '.join(worse)}" if worse else ""
    beats, loses = gain["low"] > 0, gain["high"] < 0
    verdict = f"beats {name}" if beats else f"loses to {name}," if loses else f"does not differ reliably from {name}:"
    return f"- {judge} {verdict} {by}.\n"


def _shown(found: Mapping[str, Any] | None, form: str) -> str:
    return "undefined" if not found or found.get("value") is None else form.format_map(found)


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw quality against cost: seconds and operations for a pair; what runs no model stands at the left edge."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    shown = {name: entry for name, entry in results["methods"].items() if entry["mean"].get("auroc", {}).get("value")}
    keys = {"seconds_per_pair": "seconds for a pair", "flops_per_pair": "operations for a pair"}
    for axis, (key, what) in zip(axes, keys.items(), strict=True):
        costs = {name: entry[key] for name, entry in shown.items() if entry["flops_per_pair"] and entry[key]}
        edge = min(costs.values(), default=1.0) / 5
        for name, entry in shown.items():
            auroc, x, marker = entry["mean"]["auroc"], costs.get(name, edge), "o" if name in costs else "<"
            spread = [[auroc["value"] - auroc["low"]], [auroc["high"] - auroc["value"]]]
            axis.errorbar([x], [auroc["value"]], yerr=spread, fmt=marker, capsize=2)
            axis.annotate(name, (x, auroc["value"]), xytext=(5, 3), textcoords="offset points", fontsize=7)
        axis.set(xscale="log", xlabel=what)
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("mean AUROC of a good score, 95 %")
    figure.savefig(path, dpi=150)


def plot_curves(curves: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw mean AUROC against the number of training labels, with intervals; a method of no labels is level."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, points in curves.items():
        shown = [(point["n"], point["auroc"]) for point in points if point["auroc"]]
        values = [auroc["value"] for _, auroc in shown]
        (line,) = axis.plot([n for n, _ in shown], values, marker="o", label=name)
        low, high = ([auroc[end] for _, auroc in shown] for end in ("low", "high"))
        axis.fill_between([n for n, _ in shown], low, high, alpha=0.12, color=line.get_color())
    axis.set_xscale("symlog", linthresh=10)  # no labels stand at the left edge
    axis.set(xlabel="labels of training rows", ylabel="mean AUROC of a good score, 95 %")
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)
