"""What a judge can and cannot do, in sentences: beside length, surface and words, and generator by generator."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .metrics import Interval

CHEAPER = {  # cheapest first
    "length": "length alone",
    "surface": "surface features (lengths, counts, word overlap)",
    "tfidf": "TF-IDF with logistic regression",
    "overlap": "words and numbers shared with the context or the reference",
    "exact_match": "comparing the stated answer with the reference",
    "math_verify": "math-verify against the reference",
}
PREFERENCE = "preference"  # an aspect's part with the evidence of comparisons
CHANCE = 0.5


def verdict(results: Mapping[str, Any]) -> list[str]:
    """Say of every aspect what the judge can do, which cheaper methods would do as well, and where it fails.

    Args:
        results: A results.json.

    Returns:
        Sentences, each beginning with its aspect.
    """
    told = results.get("labels", {}).get("aspects", {})
    without = results.get("protocol", {}).get("rival_without", [])
    return [
        f"{name}: {said}"
        for name, entry in results["aspects"].items()
        for said in (*_of_aspect(entry), *_of_slots(entry, without), *_left_out(told.get(name, {})))
    ]


def _of_slots(entry: Mapping[str, Any], without: Sequence[str]) -> Iterator[str]:
    """Say what reading a context or a reference is worth."""
    figures, metric = (entry[PREFERENCE], "agreement") if PREFERENCE in entry else (entry, "auroc")
    gain = figures.get("gain_over_rival", {}).get(metric, {})
    if not without or gain.get("value") is None:
        return
    slots = " and ".join(f"the {slot}" for slot in without)
    helps = "helps" if (gain["low"] or 0) > 0 else "does harm" if (gain["high"] or 0) < 0 else "is not shown to help"
    told = "" if helps == "helps" else " Train it without."
    reached = percent(figures["rival"][metric])
    yield f"without {slots} the same fit reaches {reached}; reading it {helps}: the gain is {signed(gain)}.{told}"


def _left_out(told: Mapping[str, Any]) -> Iterator[str]:
    unused = sum(told.get("unused", {}).values())
    if unused:
        yield f"{unused} labels were left out ({', '.join(told['unused'])}), and these figures know nothing of them."


def _of_aspect(entry: Mapping[str, Any]) -> Iterator[str]:
    figures = entry.get(PREFERENCE, entry)
    metric = "agreement" if PREFERENCE in entry else "auroc"
    if metric not in figures or figures[metric]["value"] is None:
        yield "it was not evaluated, since its labels are all good or all not."
        return
    own = figures[metric]
    can = "agrees with the majority of raters" if PREFERENCE in entry else "ranks a good response above another"
    known = "" if own["low"] > CHANCE else ", which is not shown to beat chance (50 %)"
    yield f"it {can} in {percent(own)} of such pairs{known}."
    gains = {way: figures[f"gain_over_{way}"][metric] for way in CHEAPER if f"gain_over_{way}" in figures}
    beaten = [CHEAPER[way] for way, gain in gains.items() if (gain["low"] or 0) > 0]
    if beaten:
        yield f"it is better than {' and '.join(beaten)}."
    for way, gain in gains.items():
        if gain["value"] is not None and CHEAPER[way] not in beaten:
            says = "does better" if (gain["high"] or 0) < 0 else "would do as well"
            yield f"{CHEAPER[way]} {says}, and is cheaper: the judge's gain is {signed(gain)}."
    own_rows = figures.get("by_generator", {})
    told = {name: found[metric] for name, found in own_rows.items() if found.get(metric) is not None}
    if len(told) > 1:
        values = {name: found["value"] if isinstance(found, dict) else found for name, found in told.items()}
        ordered = sorted(values, key=lambda name: values[name])
        yield (
            f"by generator it reaches {values[ordered[0]]:.3f} ({ordered[0]}, the worst of {len(ordered)}) to "
            f"{values[ordered[-1]]:.3f} ({ordered[-1]})."
        )


def percent(figure: Interval) -> str:
    """Write a share with its interval in percent."""
    value, low, high = (100 * (figure[key] or 0.0) for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def signed(figure: Interval) -> str:
    """Write a difference with its interval."""
    value, low, high = (f"{figure[key] or 0.0:+.3f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
