"""Whether scored rows are like those of their judge's fit: who is unfamiliar, how long texts are, which scores occur.

A judge's results.json may hold, as `fitted_on`, what its fit's rows were like (training/evaluation/fitted_on.py):
percentiles of the lengths of questions and responses, and how often each score was given out of fold; and, as
`unfamiliar`, the share of held-out rows that are called so. A judge without them gives no comparison.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from ..files.tables import read_json
from ..results import UNFAMILIAR

FITTED_ON = "fitted_on"
PERCENTILES = (5, 25, 50, 75, 95)
SHARES = tuple((high - low) / 100 for low, high in pairwise((0, *PERCENTILES, 100)))
FAR, FAR_UNFAMILIAR = 0.25, 0.1  # distances from which on rows are others, beside what so few rows move by chance
TEXTS = {"prediction": "responses", "question": "questions"}


@dataclass
class Drift:
    """Counts of scored rows beside those of a judge's fit.

    Attributes:
        fitted_on: The part of results.json.
        unfamiliar: Share of the fit's held-out rows that are unfamiliar; None where it is not known.
        keys: `question` and `prediction` -> the rows' column.
        prefix: What the names of the judge's columns begin with.
    """

    fitted_on: Mapping[str, Any]
    unfamiliar: float | None
    keys: Mapping[str, str]
    prefix: str = ""
    rows: int = 0
    flagged: Counter[bool] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in TEXTS})
    bins: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in TEXTS})
    levels: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: str | Path | None, keys: Mapping[str, str] | None = None, prefix: str = "") -> "Drift | None":
        """Compare rows with the fit of a judge.

        Args:
            evidence: Its results.json; None where it has none.
            keys: `question` and `prediction` -> the rows' column; their own names where it is None.
            prefix: What the names of the judge's columns begin with.

        Returns:
            None where the judge does not say what it was fitted on.

        Raises:
            DataFileError: What it says is none.
        """
        if evidence is None:
            return None
        results = read_json(evidence)
        try:
            fit = results.get(FITTED_ON)
            if not fit:
                return None
            _check(fit)
            calibrated = results.get("calibration", {}).get("aspects", {})  # whose scores are others than the fit's
            fit = {**fit, "levels": {name: own for name, own in fit["levels"].items() if name not in calibrated}}
            held_out = results.get(UNFAMILIAR, {}).get(UNFAMILIAR)
            return cls(fit, held_out and float(held_out), keys or {name: name for name in TEXTS}, prefix)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataFileError(
                f"{evidence} expects what python -m training evaluate writes as {FITTED_ON!r}, but: {error!r:.200}."
            ) from error

    @property
    def columns(self) -> list[str]:
        """The columns of a row that are looked at."""
        texts = [self.keys.get(name, name) for name in TEXTS if name in self.fitted_on["characters"]]
        return [*texts, *(self.prefix + name for name in self.fitted_on["levels"])]

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a scored row."""
        self.rows += 1
        flag = row.get(self.prefix + UNFAMILIAR)
        if flag is not None:
            self.flagged[bool(flag)] += 1
        for name, limits in self.fitted_on["characters"].items():
            text = row.get(self.keys.get(name, name))
            if isinstance(text, str):
                length = len(text.strip())
                self.bins[name][bisect_right(limits, length)] += 1
                if len(self.lengths[name]) < 10_000:  # of which the middle one is told
                    self.lengths[name].append(length)
        for name in self.fitted_on["levels"]:
            level = row.get(self.prefix + name)
            if level is not None:
                self.levels.setdefault(name, Counter())[str(level)] += 1

    def report(self) -> dict[str, Any]:
        """Return the comparison: `rows`, and of each kind the distance, and whether it is `far`."""
        found: dict[str, Any] = {"rows": self.rows}
        if self.unfamiliar is not None and self.flagged:
            share = self.flagged[True] / self.flagged.total()
            distance = share - self.unfamiliar
            far = distance >= FAR_UNFAMILIAR + _by_chance(2, self.flagged.total())
            found[UNFAMILIAR] = {"share": round(share, 4), "fit": self.unfamiliar, "far": far}
        found["characters"] = {
            name: {
                "median": sorted(self.lengths[name])[len(self.lengths[name]) // 2],
                "fit_median": self.fitted_on["characters"][name][len(PERCENTILES) // 2],
                **_compared({str(i): share for i, share in enumerate(SHARES)}, _as_text(self.bins[name])),
            }
            for name in self.fitted_on["characters"]
            if self.bins[name]
        }
        found["levels"] = {name: _compared(self.fitted_on["levels"][name], own) for name, own in self.levels.items()}
        return found


def _check(described: Mapping[str, Any]) -> None:
    """Look at all that will be read once rows were scored.

    Raises:
        LookupError: A part is missing; or AttributeError, TypeError, ValueError: it is something else.
    """
    for name, limits in described["characters"].items():
        if name not in TEXTS or len(limits) != len(PERCENTILES) or sorted(map(float, limits)) != limits:
            raise ValueError(f"{name} of {limits!r:.80}")
    for shares in described["levels"].values():
        sum(map(float, shares.values()))


def _as_text(counts: Counter[int]) -> Counter[str]:
    return Counter({str(key): number for key, number in counts.items()})


def _by_chance(kinds: int, rows: int) -> float:
    """Return about how far shares of so many kinds move with so few rows."""
    return 0.5 * math.sqrt(kinds / rows)


def _compared(fit: Mapping[str, float], counts: Counter[str]) -> dict[str, Any]:
    """Compare shares by the total variation distance: the share of rows that would have to be others."""
    n = counts.total()
    shares = {key: counts[key] / n for key in sorted({*fit, *counts})}
    distance = sum(abs(share - fit.get(key, 0.0)) for key, share in shares.items()) / 2
    far = distance >= FAR + _by_chance(len(shares), n)
    return {
        "shares": {key: round(share, 4) for key, share in shares.items()},
        "distance": round(distance, 4),
        "far": far,
    }


def drift_told(report: Mapping[str, Any]) -> str | None:
    """Say in one line that rows are not what the judge was fitted on, and in what; None where they are.

    Args:
        report: What `Drift.report` gives.
    """
    parts = []
    flagged = report.get(UNFAMILIAR)
    if flagged and flagged["far"]:
        parts.append(f"{_percent(flagged['share'])} are unfamiliar ({_percent(flagged['fit'])} of its fit's)")
    for name, own in report["characters"].items():
        if own["far"]:
            parts.append(f"{TEXTS[name]} of {own['median']:,} characters in the middle ({own['fit_median']:,})")
    others = [name for name, own in report["levels"].items() if own["far"]]
    if others:
        parts.append(f"other scores of {', '.join(others)}")
    return f"these rows are not what the judge was fitted on: {', '.join(parts)}" if parts else None


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
