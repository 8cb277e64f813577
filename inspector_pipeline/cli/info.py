"""`inspector info`: what a judge is."""

import argparse
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from .arguments import JUDGE
from .printable import folded, printable

NOTE_MARKS = re.compile(r"[*`]")  # of Markdown, which notes may hold
INDENT = 14


def info(parser: argparse.ArgumentParser) -> None:
    """Describe a judge without loading its backbone."""
    parser.set_defaults(command=_info)
    parser.add_argument("judge", nargs="?", metavar="JUDGE", help=JUDGE)


def _info(args: argparse.Namespace) -> None:
    from inspector_pipeline.api.load import holds_classifiers, judge_name
    from inspector_pipeline.configuration_inspector import InspectorConfig

    judge = judge_name(args.judge)
    if holds_classifiers(judge):
        raise ValueError(
            f"JUDGE expects a judge's folder, but {judge} holds fitted classifiers. `inspector score --judge` takes "
            "them as they are; make a judge of them with import_reference of the training extra to describe it."
        )
    config = InspectorConfig.from_pretrained(judge)
    weights, evidence = (file_of(judge, name) for name in ("model.safetensors", "results.json"))
    size = weights.stat().st_size if weights else None
    try:
        lines = describe(config, size, json.loads(evidence.read_text(encoding="utf-8")) if evidence else {})
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"{evidence} expects what python -m training evaluate writes, but: {told:.200}.") from error
    for label, value in lines:
        print(f"{label:<{INDENT}}{folded(printable(value), INDENT)}")


def file_of(judge: str, name: str, revision: str | None = None) -> Path | None:
    """Return a file of the judge, fetched where the judge is on the Hub; None where it has none."""
    from transformers.utils import cached_file

    quiet = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    found = cached_file(judge, name, revision=revision, **dict.fromkeys(quiet, False))
    return Path(found) if found else None


def describe(config: Any, size: int | None, results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what a judge is, in (label, text) lines.

    Args:
        config: The judge's config.
        size: Bytes of its weights.
        results: Its results.json, empty where it has none.
    """
    from inspector_pipeline.results import own_rank_field

    backbone = config.backbone_config
    origin = f"{config.backbone_id or 'unnamed'} ({config.backbone_revision or 'no revision'}), {backbone.model_type}"
    form = "fused: backbone and probes" if config.fused else "probes only: the backbone is loaded by its id"
    lines = [
        ("backbone", origin),
        ("depth", f"{config.depth} layers of width {backbone.hidden_size}"),
        ("passes", f"{len(config.readings)} a pair"),
        ("max length", f"{config.max_length} tokens"),
        ("ranks by", own_rank_field(config) or "no field: none of its aspects counts in the total"),
        ("files", f"{form}; {size / 1e6:.2f} MB" if size else form),
    ]
    for name, reading in config.parsed_readings.items():
        lines.append(("reading", f"{name}: {reading.text('{question}', '{prediction}')!r}"))
    for aspect in config.parsed_aspects:
        read = [feature for feature in aspect.features if not feature.is_check]
        layers = _ranges(sorted({feature.layer for feature in read}))
        poolings, states = (", ".join(dict.fromkeys(getattr(f, key) for f in read)) for key in ("pooling", "state"))
        checks = "".join(f"; of the text, {feature.pooling}" for feature in aspect.features if feature.is_check)
        total = "" if aspect.counts_in_total else ", not in the total"
        classes = " ".join(map(str, aspect.levels))
        lines += [
            ("aspect", f"{aspect.name}: scores {classes} by {aspect.head.rule}{total}"),
            ("", f"layers {layers}, {poolings}, {states}{checks}"),
            ("", _evidence(results.get("aspects", {}).get(aspect.name))),
        ]
    told = [NOTE_MARKS.sub("", note) for note in results.get("notes", [])]
    notes = [("" if i else "cannot see", note) for i, note in enumerate(told)]
    return [
        *notes,
        *lines,
        *_measured(results),
        *_matched(results.get("matched", {})),
        *_compared(results.get("compared")),
        *_domains(results.get("unseen_domains")),
        *_calibrated(config, results.get("calibration")),
        *_degenerate(results.get("degenerate")),
        *_use(results.get("use")),
        *_trust(results.get("trust")),
        *_ranking(results.get("ranking")),
    ]


def _evidence(entry: dict[str, Any] | None) -> str:
    if entry and "preference" in entry:
        found, length = entry["preference"]["agreement"], entry["preference"]["length"]["agreement"]
        text = f"agrees with the majority in {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
        return f"{text}, length {length['value']:.3f}, {entry['n']} comparisons"
    if not entry or "auroc" not in entry:
        return "no evidence: this judge was not evaluated"
    ours, base = entry["auroc"], entry["surface"]["auroc"]
    text = f"AUROC {ours['value']:.3f} ({ours['low']:.3f} to {ours['high']:.3f}), surface baseline {base['value']:.3f}"
    return f"{text}, {entry['n']} pairs"


def _measured(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say on which days its evidence was measured, as far as it keeps them."""
    parts = [results.get(name) for name in ("protocol", "compared", "degenerate", "use", "ranking", "calibration")]
    parts += (results.get("trust") or {}).values()
    dates = sorted({part["date"] for part in parts if part and "date" in part})
    return [("measured", ", ".join(dates))] if dates else []


def _matched(part: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how often a right answer is ranked above a wrong one to the same question."""
    lines = []
    for name, entry in part.items():
        told = f"{name}: of a right and a wrong answer to one question the right one higher in"
        new = entry.get("unseen_generators")
        unseen = f"; by generators that no fit saw {_figure(new['same_question'])}" if new else ""
        lines.append(("same question", f"{told} {_figure(entry['same_question'])} (chance 0.5){unseen}"))
        if between := entry.get("between_generators"):
            sd = (
                f"{between['sd']['value']:.3g} (its score rises by {between['slope']['value']:.3g} a unit of the label)"
            )
            lines.append(("", f"{name}: error between {between['n_generators']} generators, standard deviation {sd}"))
    return lines


def _compared(part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what other methods tell of answers to one question in the same folds."""
    lines = []
    for name, found in (part or {}).get("aspects", {}).items():
        lines.append(("same folds", f"{name}: AUROC / same question of answers to one question"))
        for generators, methods in found.items():
            figures = {name: [_figure(own[key]) for key in ("auroc", "same_question")] for name, own in methods.items()}
            told = [f"{name} {' / '.join(own)}" for name, own in figures.items() if name != "majority"]
            lines.append(("", f"{generators} generators: {', '.join(told)}"))
    return lines


def _domains(part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what fits on other domains tell of each."""
    lines = []
    for name, of_domains in (part or {}).items():
        told = [f"{domain} {_figure(e['auroc'])} / {_figure(e['same_question'])}" for domain, e in of_domains.items()]
        lines += [("new domains", f"{name}: AUROC / same question by fits on the others:"), ("", ", ".join(told))]
    return lines


def _calibrated(config: Any, part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what labels of a domain made of the levels and probabilities."""
    lines = []
    for name, one in config.parsed_calibration.items():
        entry = (part or {}).get("aspects", {}).get(name)
        told = f"{name}: by {one.method}" + (f" on {entry['n']} labels" if entry else "")
        if entry:
            told += (
                f", ranked probability score {_figure(entry['before']['rps'])}, then {_figure(entry['after']['rps'])}"
            )
        lines.append(("calibrated", told))
        if one.coverage is not None:
            held = (
                f": {_figure(entry['sets']['covered'])} do, with {entry['sets']['mean_size']:.2f} levels"
                if entry
                else ""
            )
            lines.append(("", f"sets that hold {100 * one.coverage:.3g} % of the labels{held}"))
        lines += [("", warning) for warning in (entry or {}).get("warnings", [])]
    return lines


def _degenerate(part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say how often a right answer stands above each degenerate one."""
    if not part:
        return []
    entries = [entry for entry in part["forms"].values() if "above" in entry]
    told = [
        f"{entry['lower']}{'*' if entry['solved_by_rule'] else ''} {_figure(entry['above'])}"
        for entry in entries
        if entry["upper"] == "worked"
    ]
    terse = [
        f"{entry['upper']} above {entry['lower']} {_figure(entry['above'])}"
        for entry in entries
        if entry["upper"] != "worked"
    ]
    return [
        (
            "degenerate",
            f"worked right solutions above others, of {part['n_questions']} questions (* solved by a rule):",
        ),
        *(("", ", ".join(line)) for line in (told, terse) if line),
    ]


def _use(part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what choosing by the judge brings."""
    if not part:
        return []
    columns = {f"best of {n}": entry for n, entry in part["best_of"].items()}
    columns[f"best {part['top']['share']:.0%}"] = part["top"]
    ways = ("judge", "random", "longest", "majority", "oracle")
    return [
        (name, ", ".join(f"{way} {_figure(entry[way])}" for way in ways if way in entry) + " right")
        for name, entry in columns.items()
    ]


def _trust(part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say how far scores can be believed of questions and generators that no fit saw."""
    lines = []
    for field, own in (part or {}).items():
        right = ", ".join(f"{float(share):.0%} {_figure(own['decisions']['curve'][share])}" for share in ("0.1", "0.3"))
        sets = own["conformal"]["generators"].values()
        held = ", ".join(f"{100 * one['stated']:.3g} % {_figure(one['covered'])}" for one in sets)
        lines += [
            ("unseen", f"{field}: of the surest decisions between two answers right, of {right}"),
            ("", f"{field}: of score sets that state so much hold the label {held}"),
        ]
    return lines


def _figure(interval: dict[str, Any]) -> str:
    return "undefined" if interval["value"] is None else f"{interval['value']:.3f}"


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers briefly: 1-4, 7."""
    runs = [[one for _, one in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _ranking(part: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say how well the judge ranks systems that no fit saw."""
    if not part:
        return []
    own = part["ways"]["judge"]
    rank, between = own["spearman"], own["between_generators"]
    told = f"Spearman with the truth {_figure(rank)}" if rank else "no Spearman correlation, as means do not differ"
    error = f", error between them {between['sd']['value']:.3g}" if between else ""
    return [("ranking", f"{part['field']}: of {part['n_generators']} generators {told}{error}")]
