"""The audit as a page to read, and as the small numbers of a judge's card."""

from collections.abc import Mapping
from typing import Any

EXAMPLES = 5  # a kind
TITLES = {
    "foreign": "Filler: questions that are not in the dataset",
    "exact_duplicates": "Exact duplicates",
    "near_duplicates": "Near duplicates",
    "shifted": "Shifted pairing: responses that fit another row's question",
    "repeated_questions": "Questions that stand under two ids or in two splits",
    "undecidable_pairing": "Pairs whose pairing cannot be judged",
}
MEANING = {
    "foreign": "Neither in the dataset, case and punctuation aside, nor an edited copy of one of its questions. Sure.",
    "exact_duplicates": "Question and response stand in an earlier row letter by letter. Sure.",
    "near_duplicates": "An edited copy of an earlier row, or its question. Questions of one form with other "
    "numbers do not count. Nearly sure; where an edit turns a problem around, look.",
    "shifted": "Log odds, from shared words, names and numbers, that the response belongs to the other row, in nats. "
    "Nearly sure where the gain is large.",
    "repeated_questions": "Honest other responses, but folds and splits must keep them together.",
    "undecidable_pairing": "Their responses share no telling word with any question (a bare number, say). Kept. Where "
    "more than a tenth of the pairs are of this kind, responses hardly repeat questions, and shifted rows are hints.",
}


def report(audit: Mapping[str, Any]) -> str:
    """Write an audit as Markdown.

    Args:
        audit: What the audit stage's `audit` returns.
    """
    parts = [_head(audit), _overview(audit), *(_examples(kind, audit["findings"][kind]) for kind in TITLES)]
    parts += [_labels(audit), _fields(audit)]
    return "\n".join(part for part in parts if part)


def audit_summary(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce an audit to the small numbers of a judge's card.

    Args:
        audit: What `audit` returns, or audit.json holds.

    Returns:
        rows and items looked at, found and dropped rows by kind (found is None for a kind that was not looked for),
        and by aspect the unobserved and tiny classes, the rarest class's share and the correlation with length, after
        what was found is dropped.
    """
    return {
        "rows": sum(file["rows"] for file in audit["files"].values()),
        "items": sum(file["items"] for file in audit["files"].values()),
        "found": {kind: finding["count"] for kind, finding in audit["findings"].items()},
        "dropped": audit["dropped"],
        "aspects": {
            aspect: {key: table[key] for key in ("n", "unobserved", "tiny", "share_of_rarest", "length_correlation")}
            for aspect, table in audit["aspects_after_drop"].items()
        },
    }


def _head(audit: Mapping[str, Any]) -> str:
    lines = ["# Audit", ""]
    for split, file in audit["files"].items():
        lines.append(f"- {file['name']} ({split}): {file['rows']} rows, {file['items']} pairs")
    return "\n".join([*lines, ""])


def _overview(audit: Mapping[str, Any]) -> str:
    lines = ["| finding | rows | pairs | dropped by --drop |", "|---|---|---|---|"]
    for kind, title in TITLES.items():
        finding = audit["findings"][kind]
        found = (finding["count"], finding["items"]) if finding["count"] is not None else ("not looked for", "")
        lines.append(f"| {title} | {found[0]} | {found[1]} | {audit['dropped'].get(kind, 0)} |")
    total = audit["dropped"]["total"]
    return "\n".join(
        [
            *lines,
            "",
            f"`--drop` leaves out {total} rows; a row found twice is counted where it stands first. "
            "Of two rows that repeat each other the one named is left out, and the other stays.",
            "",
        ]
    )


def _examples(kind: str, finding: Mapping[str, Any]) -> str:
    if not finding["rows"]:
        return ""
    lines = [f"## {TITLES[kind]}", "", MEANING[kind], ""]
    lines += [f"- {_place(row)}: {row['why']}{_evidence(row)}" for row in finding["rows"][:EXAMPLES]]
    if len(finding["rows"]) > EXAMPLES:
        lines.append(f"- and {len(finding['rows']) - EXAMPLES} more, in audit.json")
    return "\n".join([*lines, ""])


def _place(row: Mapping[str, Any]) -> str:
    where = f"{row['aspect']} row {row['index']}" if row["aspect"] else f"row {row['index']}"
    return f"{row['split']} {where} (id {row['id']})".strip()


def _evidence(row: Mapping[str, Any]) -> str:
    if "own_fit" in row:
        return f": {_place(row['other'])}, fit {row['best_fit']} against its own {row['own_fit']}"
    if "other" in row:
        return f": {_place(row['other'])}, likeness {row['question_likeness']} and {row['response_likeness']}"
    return f"; the nearest has likeness {row['likeness']}" if row.get("nearest") else ""


def _labels(audit: Mapping[str, Any]) -> str:
    if not audit["aspects"]:
        return "No row carries a label.\n"
    lines = ["## Labels", "", "| aspect | n | by class | n after drop | by class | unobserved | tiny | length |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for aspect, before in audit["aspects"].items():
        after = audit["aspects_after_drop"].get(aspect)
        if after is None:
            lines.append(f"| {aspect} | {before['n']} | {_counts(before)} | 0 | | | | |")
            continue
        lines.append(
            f"| {aspect} | {before['n']} | {_counts(before)} | {after['n']} | {_counts(after)} | "
            f"{_list(after['unobserved'])} | {_list(after['tiny'])} | {_correlation(after['length_correlation'])} |"
        )
    note = "length: Spearman's rho of the label with the response's words, and its 95 % interval, after the drop."
    return "\n".join([*lines, "", note, ""])


def _counts(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{label}: {count}" for label, count in table["classes"].items())


def _list(labels: list[int]) -> str:
    return ", ".join(map(str, labels)) or "-"


def _correlation(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return str(found["why"])
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _fields(audit: Mapping[str, Any]) -> str:
    lines = [f"- {aspect}: every label is the same" for aspect, table in audit["aspects"].items() if table["constant"]]
    for split, fields in audit["fields"].items():
        lines += [
            f"- {split}: {key} is missing in {field['missing']} rows"
            for key, field in fields.items()
            if field["missing"]
        ]
        lines += [f"- {split}: {key} is always {field['value']}" for key, field in fields.items() if field["constant"]]
    generators = ", ".join(f"{name} {count}" for name, count in audit["generators"].items())
    return "\n".join(["## Fields", "", *lines, f"- generators: {generators}", ""])
