"""Tables of what is measured with a judge: answers to one question, degenerate ones, choosing and ranking by it."""

from collections.abc import Mapping
from typing import Any

from .cards import interval
from .markdown import Markdown, words

WAYS = ("judge", "random", "shortest", "longest", "majority", "judge_weighted", "oracle")

BASELINES = ("length", "surface", "tfidf")

Part = Mapping[str, Any]


def calibration_table(part: Part) -> Markdown:
    """Write the part `calibration` of results.json as lines of Markdown, a row for each calibrated aspect.

    Args:
        part: `aspects`: aspect -> `n`, `method`, `before` and `after`, each with `rps` and `calibration_error`, `gain`
            and `sets`.
    """
    heads = "| aspect | labels | method | before | after | gain | calibration error | sets hold | levels in a set |"
    lines = [heads, "|---" * heads.count(" | ") + "|---|"]
    for name, entry in part["aspects"].items():
        before, after, sets = entry["before"], entry["after"], entry["sets"]
        scores = f"{_shown(before['rps'])} | {_shown(after['rps'])} | {_shown(entry['gain']['rps'])}"
        errors = f"{before['calibration_error']:.3f} to {after['calibration_error']:.3f}"
        held = f"{_shown(sets['covered'])}, stated {sets.get('stated', sets['coverage']):.2f} | {sets['mean_size']:.2f}"
        lines.append(f"| {words(name)} | {entry['n']} | {words(entry['method'])} | {scores} | {errors} | {held} |")
    return Markdown("\n".join(lines))


def degenerate_table(part: Part) -> Markdown:
    """Write the part `degenerate` of results.json as lines of Markdown.

    Args:
        part: `forms`: form -> `upper`, `lower`, `n`, `above` and `rule`, each with its interval, `solved_by_rule` and
            `unfamiliar`, a share or None; `worked` may have the last alone.
    """
    lines = ["| above | below | questions | judge | rule | the lower one flagged |", "|---|---|---|---|---|---|"]
    for form, entry in part["forms"].items():
        if "above" in entry:
            rule = f"{_shown(entry['rule'])}{', solved' if entry['solved_by_rule'] else ''}"
            flagged = part["forms"].get(entry["lower"], {}).get("unfamiliar")
            names = f"| {words(entry['upper'])} | {words(entry['lower'])} | {entry['n']}"
            lines.append(f"{names} | {_shown(entry['above'])} | {rule} | {_percent(flagged)} |")
        else:
            lines.append(f"| | {words(form)} | | | | {_percent(entry['unfamiliar'])} |")
    return Markdown("\n".join(lines))


def matched_table(part: Part) -> Markdown:
    """Write the part `matched` of results.json as lines of Markdown: what a judge tells of answers to one question.

    Args:
        part: Aspect -> `n_rows`, `n_questions`, `n_generators`, `auroc` and `same_question` with intervals, baselines'
            beside them, and `unseen_generators` where that was measured.
    """
    lines = ["| aspect | answers | AUROC | same question | length | surface | words |", "|---|---|---|---|---|---|---|"]
    for name, entry in part.items():
        told = f"{entry['n_rows']} answers of {entry['n_generators']} generators to {entry['n_questions']} questions"
        others = (_shown(entry.get(method, {}).get("same_question")) for method in BASELINES)
        figures = " | ".join(_shown(entry[figure]) for figure in ("auroc", "same_question"))
        lines.append(f"| {words(name)} | {told} | {figures} | {' | '.join(others)} |")
        if "unseen_generators" in entry:
            figures = " | ".join(_shown(entry["unseen_generators"][figure]) for figure in ("auroc", "same_question"))
            lines.append(f"| | of generators that no fit saw | {figures} | | | |")
        if between := entry.get("between_generators"):
            lines.append(f"| | error between generators (SD of the score): {_shown(between['sd'])} | | | | | |")
    return Markdown("\n".join(lines))


def compared_table(part: Part) -> Markdown:
    """Write the part `compared` of results.json: methods in the same folds on answers to one question.

    The best by AUROC stands first.

    Args:
        part: `judge`, the method that the others are compared with; `methods`: name -> `description` and `folds`;
            `aspects`: aspect -> `all`, `seen` and `unseen`, of generators -> method -> `n_rows`, `auroc` and
            `same_question` with intervals, and but for the judge's its paired `gain_of_judge`.
    """
    said = ((words(name), words(one["description"]), one["folds"]) for name, one in part["methods"].items())
    told = (f"- {name}: {what} ({folds} fold{'s' if folds > 1 else ''})" for name, what, folds in said)
    return Markdown("\n".join([*answers_lines(part["aspects"]), "", *told]))


def answers_lines(aspects: Part) -> list[str]:
    """Write what methods tell of answers to one question as lines of a Markdown table, the best by AUROC first.

    Args:
        aspects: As `compared_table` takes them.

    Returns:
        The lines; none where there is no aspect.
    """
    lines = []
    for aspect, parts in aspects.items():
        for generators, found in parts.items():
            for name in sorted(found, key=lambda name: (-(found[name]["auroc"]["value"] or 0), name)):
                own, gains = found[name], found[name].get("gain_of_judge")
                figures = [_shown(own.get(key)) for key in ("auroc", "same_question")]
                figures += [_gain(gains.get(key)) if gains else "the judge" for key in ("auroc", "same_question")]
                cells = (words(aspect), words(generators), words(name), str(own["n_rows"]), *figures)
                lines.append(f"| {' | '.join(cells)} |")
    head = "| aspect | generators | method | answers | AUROC | same question | gain of the judge | in same question |"
    return [head, "|---" * 8 + "|", *lines] if lines else []


def unseen_table(part: Part) -> Markdown:
    """Write the part `unseen_generators` of results.json: AUROC on generators that no fit saw, beside others.

    Args:
        part: Aspect -> `mean` over generators, `pooled` over all rows, `by_generator` and `by_form`, each with `auroc`,
            other methods' beside it, and paired gains.
    """
    gain = "gain_over_"
    methods = [key.removeprefix(gain) for key in next(iter(part.values()))["pooled"] if key.startswith(gain)]
    methods = [method for method in methods if method != "majority"]
    lines = [f"| aspect | of | judge | {' | '.join(map(words, methods))} |", "|---" * (len(methods) + 3) + "|"]
    for name, entry in part.items():
        parts = {"mean of the generators": entry["mean"], "all together": entry["pooled"]}
        for of, own in {**parts, **entry["by_generator"], **entry["by_form"]}.items():
            others = (_shown(own.get(method, {}).get("auroc")) for method in methods)
            if own:
                lines.append(f"| {words(name)} | {words(of)} | {_shown(own['auroc'])} | {' | '.join(others)} |")
    return Markdown("\n".join(lines))


def domains_table(part: Part) -> Markdown:
    """Write the part `unseen_domains` of results.json: what fits tell of a domain that they did not see.

    Args:
        part: Aspect -> domain -> `n_rows`, `n_questions`, `auroc` and `same_question` with intervals, those of
            `length`, `surface` and `tfidf` beside them, and the paired gains.
    """
    head = "| aspect | domain | answers | AUROC | same question | length | surface | words | gain over the best |"
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    for aspect, of_domains in part.items():
        for domain, entry in of_domains.items():
            known = [name for name in BASELINES if name in entry]
            best = max(known, key=lambda name: entry[name]["auroc"]["value"] or 0, default="")
            others = (_shown(entry.get(name, {}).get("auroc")) for name in BASELINES)
            figures = (_shown(entry.get("auroc")), _shown(entry.get("same_question")), *others)
            gain = _gain(entry.get(f"gain_over_{best}", {}).get("auroc"))
            cells = (words(aspect), words(domain), f"{entry['n_rows']} to {entry['n_questions']} questions")
            lines.append(f"| {' | '.join((*cells, *figures, gain))} |")
    return Markdown("\n".join(lines))


def use_table(part: Part) -> Markdown:
    """Write the part `use` of results.json as lines of Markdown, a row for each way of choosing.

    Args:
        part: `best_of`: n -> way -> share right; `top`: way -> the same, of a share of all; both with intervals, and
            gains over each way.
    """
    columns = {f"best of {n}": entry for n, entry in part["best_of"].items()}
    columns[f"best {part['top']['share']:.0%} of all"] = part["top"]
    found = dict.fromkeys(way for entry in columns.values() for way in entry if _is_way(entry, way))
    ways = [*(way for way in WAYS if way in found), *(way for way in found if way not in WAYS)]
    lines = [f"| chosen by | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for way in ways:
        lines.append(f"| {words(way)} | {' | '.join(_shown(entry.get(way)) for entry in columns.values())} |")
    return Markdown("\n".join(lines))


def ranking_table(part: Part) -> Markdown:
    """Write the part `ranking` of results.json as lines of Markdown: how well a judge ranks systems.

    Args:
        part: What `python -m training rank_report` measured.
    """
    far = f"pairs {100 * part['points']:.3g} points apart"
    lines = [
        f"| ranked by | prompts | intervals of | worse called better: mean, most | better called, of {far} | called in "
        "half of the draws |",
        "|---|---|---|---|---|---|",
    ]
    told = []
    for way, own in part["ways"].items():
        for n, kinds in own["by_prompts"].items():
            for kind, one in kinds.items():
                worse = f"{_percent(one['worse_called']['mean'])}, {_percent(one['worse_called']['most'])}"
                called = " | ".join(_percent(one[name]) for name in ("called", "mostly"))
                lines.append(f"| {words(way)} | {n} | {kind.removesuffix('_compared')} | {worse} | {called} |")
        between, rank, needed = own["between_generators"], own["spearman"], own["prompts_needed"]["two_compared"]
        half = needed["for_half_of_the_pairs"]
        some = f"half are told by {half} prompts, " if half != "never" else ""
        told += [
            "",
            f"By {words(way)}: Spearman of judged with true means {_shown(rank) or 'not defined'}; error between "
            f"generators {_shown(between['sd']) if between else 'not known'}. Of the {own['n_pairs_that_differ']} "
            f"{far} {some}{needed['never']} are told by no number of prompts.",
        ]
    for n, kinds in part.get("with_labels", {}).items():
        for kind, one in kinds.items():
            worse = f"{_percent(one['worse_called']['mean'])}, {_percent(one['worse_called']['most'])}"
            called = " | ".join(_percent(one[name]) for name in ("called", "mostly"))
            by = "labels alone" if kind == "labels_alone" else "labels and judge"
            lines.append(f"| {by} | {n} labelled | two | {worse} | {called} |")
    return Markdown("\n".join([*lines, *told]))


def trust_table(part: Part) -> Markdown:
    """Write the part `trust` of results.json as lines of Markdown: how far scores can be believed.

    Args:
        part: What `python -m training trust_report` measured: column of scores -> `conformal`, `decisions`, `means`.
    """
    lines = ["| scores | what was measured | found |", "|---|---|---|"]
    for field, own in part.items():
        rows = []
        for kind, of in (("questions", "new questions"), ("generators", "new questions and generators")):
            for asked, one in own["conformal"][kind].items():
                stated = f"sets stated to hold {_percent(one['stated'])} ({_percent(float(asked))} were asked)"
                held = f"{_shown(one['covered'])}; {_percent(one['single'])} of them name one label"
                rows.append((f"{stated}, {of}: share of labels held", held))
        made = own["decisions"]
        told = f"{made['n_decisions']} decisions between a right and a wrong answer to one question: share right of the"
        for share in ("0.1", "0.3", "0.5", "1.0"):
            rows.append((f"{told} surest {float(share):.0%}", _shown(made["curve"][share])))
        for n, one in own["means"]["labels"].items():
            held = f"{_percent(one['covered'])} ({_percent(one['lowest'])} to {_percent(one['highest'])} by generator)"
            saved = f"{one['labels_saved']:.1f} labels saved"
            rows.append(
                (f"95 % intervals of a generator's mean from {n} labels: share that hold it", f"{held}; {saved}")
            )
        lines += [f"| {words(field)} | {what} | {figure} |" for what, figure in rows]
    return Markdown("\n".join(lines))


def _is_way(entry: Part, key: str) -> bool:
    return isinstance(entry[key], Mapping) and not key.startswith("gain_over_")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return "not defined" if None in (value["value"], value["low"], value["high"]) else interval(value)


def _gain(value: Any) -> str:
    """Write a difference with its sign."""
    shown = _shown(value)
    return "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**value) if shown[-1:] == ")" else shown


def _percent(share: float | None) -> str:
    return "not said" if share is None else f"{share:.1%}"
