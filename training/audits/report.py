"""The audit as a page to read, and as the small numbers of a judge's card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub_cards.markdown import Markdown, environment

EXAMPLES = 5  # a kind


def report(audit: Mapping[str, Any]) -> str:
    """Write an audit as Markdown; audit.md.jinja is the page. What it names stays the words that it is.

    Args:
        audit: What the audit stage's `audit` returns.
    """
    pages = environment({"markdown": Markdown}, Path(__file__).parent)
    return pages.get_template("audit.md.jinja").render(audit=audit, examples=EXAMPLES) + "\n"


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
