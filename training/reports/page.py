"""The page: one HTML file that needs no network, whatever its rows say.

Rows are text of strangers. What stands in the page's markup is escaped by the template; the rows' texts stand in a
block of JSON, in which every character that markup knows is an escape, and get onto the screen as text alone. The
page's policy lets no other script run than its own, by its hash, and nothing be fetched.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

from inspector_cli.info import describe
from inspector_cli.printable import printable
from jinja2 import Environment, FileSystemLoader, TemplateError

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.explain import NO_TOKEN
from inspector_pipeline.files.entries import Row, finite
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.jobs.drift import drift_told
from inspector_pipeline.results import EXPLANATION, REASON, SEEN, UNFAMILIAR

from ..evaluation.highlights import FIGURES, METHODS, usual_place_told
from ..judges.plots import PLOTS
from .figures import groups, histogram, of_results, picture
from .numbers import figure, interval
from .rows import ABSTAINED, TRUNCATED, flag, label_of, nested, read_scored, shown_rows, texts_of
from .scored import Asked, Scored
from .summary import summary

FOLDER = Path(__file__).parent
ROWS = 5000
MOST_TEXT = 6000  # characters of a text that are shown
DIGITS = 4
# A script ends at the first `</script`, and some parsers treat `<!--` alike; the separators end a line of JavaScript.
_MARKUP = re.compile("[<>&\u2028\u2029]")


def scored_page(place: Path, asked: Asked, rows: int = ROWS) -> str:
    """Write the page of scored rows.

    Args:
        place: A scored file or a job's folder.
        asked: What to show beside the scores.
        rows: Of how many rows the texts are shown.

    Raises:
        DataFileError: The rows cannot be read, or lack what was asked for.
    """
    scored = read_scored(place, asked)
    found = summary(scored)
    chosen = shown_rows(scored, rows)
    labelled = {"aspects": {name: one for name, one in found["labels"].items() if one["n"]}}
    plots = of_results(labelled)
    for name in scored.aspects:
        plots[f"expected {name}"] = str(picture(partial(histogram, scored.expected[name], name)))
    try:
        about = _about(scored)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataFileError(f"{place} expects a job's manifest, but a part of it is another: {error!r}.") from error
    return _render(
        title=f"Report of {place.name}",
        about=about,
        found=found,
        plots=plots,
        groups=picture(partial(groups, found["groups"], scored.ranked_by)),
        group=asked.group,
        scored_group=scored.groups[0],
        labels=asked.labels,
        shown=len(chosen),
        data=embedded(_data(scored, asked, chosen)),
        judge=None,
    )


def judge_page(folder: Path) -> str:
    """Write the page of a judge, from its config and its results.json.

    Raises:
        DataFileError: It has no results.json.
    """
    results = read_json(folder / "results.json")
    weights = folder / "model.safetensors"
    config = InspectorConfig.from_pretrained(folder)
    try:
        lines = describe(config, weights.stat().st_size if weights.is_file() else None, results)
        notes = [re.sub(r"[*`]", "", str(note)) for note in results.get("notes") or []]
        plots = of_results(results)
        return _render(
            title=f"Report of the judge {folder.resolve().name}",
            about=[(label, text) for label, text in lines if not (label == "cannot see" or text in "\n".join(notes))],
            found=None,
            plots=plots,
            data="",
            methods=METHODS,
            meanings=FIGURES,
            judge={"notes": notes, "results": results, "missing": _missing(results, plots), **_measured(results)},
        )
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError, TemplateError) as error:
        raise DataFileError(
            f"{folder / 'results.json'} expects results of the evaluate stage, but got something else "
            f"({type(error).__name__}: {error})."
        ) from error


def _measured(results: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out what was measured with a judge beside its quality."""
    return {
        "degenerate": _degenerate(results.get("degenerate")),
        "highlights": (results.get("highlights") or {}).get("sets"),
        "unfamiliar": _unfamiliar(results.get("unfamiliar")),
    }


def _unfamiliar(part: Mapping[str, Any] | None) -> list[tuple[str, int, float]]:
    """Lay out of which rows a judge calls how many unfamiliar: name, rows and share."""
    if not part:
        return []
    found = [("answers like those of its fit, held out", part["held_out_rows"], part["unfamiliar"])]
    for name, groups_of in (part.get("others") or {}).items():
        rows = sum(one["rows"] for one in groups_of.values())
        flagged = sum(one["rows"] * one["unfamiliar"] for one in groups_of.values())
        found.append((name.removesuffix("_features"), rows, flagged / max(1, rows)))
    return found


def _missing(results: Mapping[str, Any], plots: Mapping[str, str]) -> list[str]:
    """Name what a judge's page would show and its results do not hold."""
    parts = {
        "notes": "what it cannot see",
        "unfamiliar": "what it calls unfamiliar",
        "degenerate": "degenerate answers",
    }
    parts |= {"highlights": "whether highlights point at mistakes"}
    told = [name.replace("_", " ") for name in PLOTS if name not in plots]
    return [*told, *(text for part, text in parts.items() if not results.get(part))]


def embedded(data: Any) -> str:
    """Write data as JSON that is the same JSON, and no markup, within a script element."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate becomes the escape that JSON has
    return _MARKUP.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)


def _render(**parts: Any) -> str:
    pages = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"figure": figure, "interval": interval, "plain": printable, "usual_place": usual_place_told}
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return pages.get_template("report.html.jinja").render(
        script=script,
        digest=digest,
        style=(FOLDER / "report.css").read_text(encoding="utf-8"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("inspector-pipeline"),
        **parts,
    )


def _about(scored: Scored) -> list[tuple[str, str]]:
    """Say what was judged by what, as far as the job says so."""
    manifest = scored.manifest
    lines = [("rows", str(scored.place)), ("ranked by", scored.ranked_by), ("aspects", ", ".join(scored.aspects))]
    if not manifest:
        return [*lines, ("judge", "a scored file does not say; a job's folder does")]
    judge, settings = manifest.get("judge", {}), manifest["settings"]
    named = (
        f"{judge.get('name')}, {judge.get('revision') or 'no revision'}; weights {judge.get('weights_sha256', '')[:12]}"
    )
    inputs = [f"{one['name']} ({one['sha256'][:12]})" for one in manifest.get("input", [])]
    chosen = {
        key: value for key, value in settings.items() if key in ("where", "limit", "columns", "abstain") and value
    }
    drifted = _drift(scored.place / "_summary.json")
    packages = ", ".join(f"{name} {number}" for name, number in manifest.get("versions", {}).items())
    return [
        ("judge", f"{named}; {judge.get('dtype')} on {judge.get('device')}"),
        *lines,
        ("input", f"{', '.join(inputs[:5])}{f' and {len(inputs) - 5} more' if len(inputs) > 5 else ''}"),
        *([("settings", json.dumps(chosen, ensure_ascii=False))] if chosen else []),
        *([("drift", drifted)] if drifted else []),
        ("with", packages),
    ]


def _drift(summary_file: Path) -> str | None:
    try:
        drift = read_json(summary_file).get("drift") if summary_file.is_file() else None
        return drift_told(drift) if drift else None
    except (AttributeError, LookupError, TypeError) as error:
        raise DataFileError(f"{summary_file} expects what `inspector score` writes, but: {error!r}.") from error


def _degenerate(part: Mapping[str, Any] | None) -> list[tuple[str, str, str, bool]]:
    """Lay out how often the better of two forms stands above the other."""
    entries = (part or {}).get("forms", {}).values()
    return [
        (entry["upper"], entry["lower"], interval(entry["above"]), bool(entry.get("solved_by_rule")))
        for entry in entries
        if "above" in entry
    ]


def _data(scored: Scored, asked: Asked, chosen: Sequence[int]) -> dict[str, Any]:
    """Lay out the shown rows for the page's script, questions once."""
    questions: dict[str, int] = {}
    rows = [_row(scored, asked, at, row, questions) for at, row in texts_of(scored, chosen, asked)]
    return {
        "aspects": [printable(name) for name in scored.aspects],
        "field": printable(scored.ranked_by.removeprefix(scored.prefix)),
        "labels": [printable(name) for name in asked.labels],
        "group": asked.group and printable(asked.group),
        "questions": [printable(text, lines=True) for text in questions],
        "rows": rows,
        "total": scored.rows,
        "explained": printable(_explained_aspect(scored)),
    }


def _row(scored: Scored, asked: Asked, at: int, row: Row, questions: dict[str, int]) -> dict[str, Any]:
    prefix = scored.prefix
    texts = [str(row.get(key) or "")[:MOST_TEXT] for key in scored.texts]
    found: dict[str, Any] = {
        "n": at,
        "q": questions.setdefault(texts[0], len(questions)),
        "p": printable(texts[1], lines=True),
        "v": round(float(scored.ranked[at]), DIGITS),
        "d": round(float(scored.doubt[at]), DIGITS),
        "s": [_shown(scored.scores[name][at]) for name in scored.aspects],
        "e": [round(float(scored.expected[name][at]), DIGITS) for name in scored.aspects],
        "f": "".join(
            mark
            for mark, name in (("u", UNFAMILIAR), ("k", SEEN), ("t", TRUNCATED), ("a", ABSTAINED))
            if flag(row.get(prefix + name))
        ),
    }
    if row.get(prefix + REASON):
        found["r"] = printable(row[prefix + REASON])
    if asked.group is not None:
        found["g"] = printable(scored.groups[at])
    if asked.labels:
        found["l"] = [label_of(row.get(column)) for column in asked.labels.values()]
    where = f"{scored.place}: row {at}, {prefix + EXPLANATION},"
    if explained := nested(row.get(prefix + EXPLANATION), where):
        try:
            found["x"] = _highlights(explained.get(_explained_aspect(scored)) or {})
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataFileError(f"{where} expects what `inspector score --explain` writes, but: {error!r}.") from error
    return found


def _shown(score: Any) -> Any:
    return printable(score) if isinstance(score, str) else score


def _explained_aspect(scored: Scored) -> str:
    """Return the aspect whose highlights are shown: that of the ranked field, or the first."""
    ranked = scored.ranked_by.removeprefix(f"{scored.prefix}expected_")
    return ranked if ranked in scored.aspects else scored.aspects[0]


def _highlights(own: Mapping[str, Any]) -> dict[str, Any]:
    """Write where the response's pieces end in the text that is shown, in JavaScript's units, with their shares."""
    if "response" not in own:
        return {"why": printable(own.get("why_not", "this aspect was not explained"))}
    if not own["response"]:
        return {"why": NO_TOKEN}
    widths = [_units(printable(text, lines=True)) for text, _ in own["response"]]
    ends = accumulate(widths)
    shares = [None if share is None else float(f"{share:.3g}") for _, share in own["response"]]
    others = sum(share or 0.0 for part in ("question", "template") for _, share in own[part])
    return {
        "c": round(own["constant"], DIGITS),
        "v": round(own["value"], DIGITS),
        "o": round(others, DIGITS),
        "x": list(zip(ends, shares, strict=True)),
        "l": {name: float(f"{share:.3g}") for name, share in {**own["layers"], **own.get("checks", {})}.items()},
    }


def _units(text: str) -> int:
    """Return a text's length in UTF-16, which is what JavaScript counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
