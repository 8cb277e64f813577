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
WORTH_HAVING = 0.05  # of AUROC or agreement: where the judge may be that much better, nobody knows that both do as well


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
    if not without or None in (gain.get("value"), gain.get("low")):
        return
    slots = " and ".join(f"the {slot}" for slot in without)
    helps = "helps" if (gain["low"] or 0) > 0 else "does harm" if (gain["high"] or 0) < 0 else "is not shown to help"
    told = "" if helps == "helps" else " Train it without."
    reached = percent(figures["rival"][metric])
    yield f"without {slots} the same fit reaches {reached}; reading it {helps}: the gain is {signed(gain)}.{told}"


def _left_out(told: Mapping[str, Any]) -> Iterator[str]:
    unused = sum(told.get("unused", {}).values())
    if unused:
        were, them = ("label was", "it") if unused == 1 else ("labels were", "them")
        yield f"{unused} {were} left out ({', '.join(told['unused'])}), and these figures know nothing of {them}."


def _of_aspect(entry: Mapping[str, Any]) -> Iterator[str]:
    figures = entry.get(PREFERENCE, entry)
    metric = "agreement" if PREFERENCE in entry else "auroc"
    if metric not in figures or None in (figures[metric]["value"], figures[metric]["low"]):
        yield "it was not evaluated, since its labels are all good or all not."
        return
    own = figures[metric]
    can = "agrees with the majority of raters" if PREFERENCE in entry else "ranks a good response above another"
    yield f"it {can} in {percent(own)} of such pairs{_beside_chance(own)}."
    measured = {way: figures.get(f"gain_over_{way}") for way in CHEAPER}
    yield from _beside_cheaper({way: gain[metric] for way, gain in measured.items() if gain})
    own_rows = figures.get("by_generator", {})
    told = {name: found[metric] for name, found in own_rows.items() if found.get(metric) is not None}
    if len(told) > 1:
        values = {name: found["value"] if isinstance(found, dict) else found for name, found in told.items()}
        ordered = sorted(values, key=lambda name: values[name])
        yield (
            f"by generator it reaches {values[ordered[0]]:.3f} ({ordered[0]}, the worst of {len(ordered)}) to "
            f"{values[ordered[-1]]:.3f} ({ordered[-1]})."
        )


def _beside_chance(own: Interval) -> str:
    """Say where a figure does not beat chance."""
    low, high = own["low"] or 0.0, own["high"] or 0.0
    if high < CHANCE:
        return ", which is below chance (50 %), as if its labels meant the opposite"
    return "" if low > CHANCE else ", which is not shown to beat chance (50 %)"


def _beside_cheaper(gains: Mapping[str, Interval]) -> Iterator[str]:
    """Say which cheaper methods the judge beats, which do as well or better, and of which nobody knows."""
    known = {way: gain for way, gain in gains.items() if gain["value"] is not None and gain["low"] is not None}
    beaten = [CHEAPER[way] for way, gain in known.items() if (gain["low"] or 0.0) > 0]
    if beaten:
        yield f"it is better than {listed(beaten)}."
    for way, gain in known.items():
        low, high = gain["low"] or 0.0, gain["high"] or 0.0
        if low <= 0:
            better, as_well = "would do better and cost less", "would do as well and cost less"
            apart = "would cost less and cannot be told apart from it on so few rows"
            says = better if high < 0 else as_well if high < WORTH_HAVING else apart
            yield f"{CHEAPER[way]} {says}: the judge's gain is {signed(gain)}."
    unknown = [CHEAPER[way] for way in gains if way not in known]
    if unknown:
        yield f"it could not be compared with {listed(unknown)}, since it has too few labels of one kind."


def listed(words: Sequence[str]) -> str:
    """Write words as a list in a sentence."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def percent(figure: Interval) -> str:
    """Write a share with its interval in percent."""
    value, low, high = (100 * (figure[key] or 0.0) for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def signed(figure: Interval) -> str:
    """Write a difference with its interval."""
    value, low, high = (f"{figure[key] or 0.0:+.3f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
