"""Why a pair got its score: what every token adds to the value of an aspect's probe, exactly.

A linear probe's decision value is w (pooled - center) + b. Where its features are pooled by a mean, that is a sum over
tokens: the share of token t of n is w (x_t - center) / n, and the shares with the constant b are the decision value. Of
a feature that is the last token's state, all is the share of that one token, whatever the states of others brought into
it. Of a check (`checks.py`) it is the share of where it found something. Pooled minima and maxima are no sums over
tokens, nor is what score tokens expect: for such aspects there are no shares, and the explanation says why.

What is explained is one number that rises with the score: the decision value itself where a rule has one; where it has
one for each class, the mean of those of the higher classes less that of the lower ones, weighted by their distance from
the middle class; where it has one for each pair of classes, the mean over the pairs of the value for the higher one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .decisions import RULES
from .encoded import EncodedPair, Place, Span
from .errors import SettingsError
from .features import Feature, TokenShares
from .heads import probe_key

ADDITIVE = ("mean", "response_mean", "last")
VOTES = ("votes", "hard_votes", "calibrated_votes")
QUESTION, RESPONSE, TEMPLATE = "question", "response", "template"  # the parts of `Place`

NO_TOKEN = "its probe reads no token of the response, but what the pair's last token holds of it"
"""What is told in the place of highlights where `response` is empty."""

Piece = list[Any]  # [text, share]; None where the text was cut and not read


class Explainer:
    """Explains the scores of a judge's aspects.

    Args:
        model: The judge.

    Attributes:
        why_not: Aspect -> why its score has no shares, for those of which it is so.
        names: The other aspects, in the order of the shares' outputs.
    """

    def __init__(self, model: Any) -> None:
        """Sum each probe's outputs to the one that is explained."""
        self.aspects = model.aspects
        self.why_not = {aspect.name: why for aspect in model.aspects if (why := _why_not(aspect))}
        self.names = [aspect.name for aspect in model.aspects if aspect.name not in self.why_not]
        self.directions, self.constants = {}, {}
        weights: dict[Feature, Tensor] = {}
        for aspect in model.aspects:
            if aspect.name in self.why_not:
                continue
            probe = model.probes[probe_key(aspect.name)]
            head = aspect.head
            direction = self.directions[aspect.name] = value_direction(head.rule, aspect.classes, head.members)
            own = direction.to(probe.bias.device)
            self.constants[aspect.name] = float(own @ probe.bias.detach())
            rows = torch.einsum("o,ofh->fh", own, probe.weight.detach())
            for feature, row in zip(aspect.probe_features, rows, strict=True):
                weights.setdefault(feature, row.new_zeros(len(self.names), len(row)))
                weights[feature][self.names.index(aspect.name)] += row
        self.centers = dict(zip(model.centred_features, model.centers.detach(), strict=True))
        self.weights = {feature: rows for feature, rows in weights.items() if not feature.is_check}
        self.of_checks = {check: rows.sum(dim=1).tolist() for check, rows in weights.items() if check.is_check}
        for check in self.of_checks:  # what it takes away where it finds nothing
            for at, name in enumerate(self.names):
                self.constants[name] -= float(weights[check][at] @ self.centers[check])

    def shares(self) -> TokenShares:
        """Return what collects the shares of a window's tokens."""
        return TokenShares(self.weights, self.centers)

    def explain(
        self,
        shares: TokenShares,
        decision_values: Mapping[str, Sequence[float]],
        row: int,
        pair: Mapping[str, EncodedPair],
    ) -> dict[str, dict[str, Any]]:
        """Explain the scores of one row.

        Args:
            shares: Of its window.
            decision_values: Aspect -> the row's decision values.
            row: Which row of the window.
            pair: As it was encoded, with its places.

        Raises:
            SettingsError: The pair was encoded without its places.

        Returns:
            Aspect -> `value`, what is explained; `constant`, which with all shares adds up to it; `question` and
            `response`, the texts in pieces [text, share], where a share of None is a text that was cut and not read;
            `template`, those of the tokens around them that have shares; `layers`, layer as text -> its part of the
            shares; `last`, how much of the last token's share it has as a feature of its own; and, where it reads
            checks, `checks`, check -> its part of the shares. Aspects without shares have only `why_not`.
        """
        found: dict[str, dict[str, Any]] = {name: {"why_not": why} for name, why in self.why_not.items()}
        placed: list[tuple[Place, list[float]]] = []
        texts: dict[str, str] = {}
        for reading, tokens in shares.of_tokens.get(row, {}).items():
            places = pair[reading].places
            if places is None:
                raise SettingsError("An explanation expects a pair with its places. Encode it with keep_places=True.")
            texts = texts or places.texts
            for place, own in zip(places.of_tokens, tokens.tolist(), strict=True):
                is_same = place.part == TEMPLATE or texts.get(place.part) == places.texts[place.part]
                placed.append((place if is_same else place._replace(part=TEMPLATE), own))
        placed += [one for check in self.of_checks for one in self._found(check, pair[check.reading])]
        features = {feature: own.tolist() for feature, own in shares.of_features.get(row, {}).items()}
        for at, name in enumerate(self.names):
            pieces = [(place, own[at]) for place, own in placed]
            read = {feature for aspect in self.aspects if aspect.name == name for feature in aspect.probe_features}
            brought = {feature: own[at] for feature, own in features.items() if feature in read}
            found[name] = {
                "value": float(self.directions[name] @ torch.tensor(decision_values[name])),
                "constant": self.constants[name],
                **{part: _cover(texts.get(part, ""), pieces, part) for part in (QUESTION, RESPONSE)},
                TEMPLATE: [[p.text, _short(own)] for p, own in pieces if p.part == TEMPLATE and own],
                "layers": {
                    str(layer): _short(sum(own for feature, own in brought.items() if feature.layer == layer))
                    for layer in sorted({feature.layer for feature in brought})
                },
                "last": _short(sum(own for feature, own in brought.items() if feature.pooling == "last")),
                **self._of_aspect(name, read, pair),
            }
        return {aspect.name: found[aspect.name] for aspect in self.aspects}

    def _of_aspect(self, name: str, read: set[Feature], pair: Mapping[str, EncodedPair]) -> dict[str, Any]:
        """Return what an aspect's checks bring; nothing where it reads none."""
        at, own = self.names.index(name), [check for check in self.of_checks if check in read]
        found = {c.pooling: self.of_checks[c][at] if pair[c.reading].checks[c.pooling] else 0.0 for c in own}
        return {"checks": {check: _short(share) for check, share in found.items()}} if own else {}

    def _found(self, check: Feature, pair: EncodedPair) -> Iterator[tuple[Place, list[float]]]:
        """Share what a check brings among the places where it found something."""
        found = pair.checks[check.pooling]
        text = pair.places.texts[RESPONSE] if pair.places else ""
        for start, end in found:
            shares = [share / len(found) for share in self.of_checks[check]]
            yield Place(RESPONSE, start, end, text[start:end]), shares


class Explanations:
    """Those of a window: what is collected of it while it is scored.

    Attributes:
        explainer: Of the judge.
        shares: Of the window's tokens.
        decision_values: For each of the judge's aspects, each row's.
    """

    def __init__(self, explainer: Explainer) -> None:
        """Hold nothing yet."""
        self.explainer = explainer
        self.shares = explainer.shares()
        self.decision_values: list[list[list[float]]] = []

    def of(self, row: int, pair: Mapping[str, EncodedPair]) -> dict[str, dict[str, Any]]:
        """Explain a row, by its place in the window; see `Explainer.explain`."""
        names = [aspect.name for aspect in self.explainer.aspects]
        values = dict(zip(names, (own[row] for own in self.decision_values), strict=True))
        return self.explainer.explain(self.shares, values, row, pair)


def value_direction(rule: str, classes: Sequence[int], members: int = 1) -> Tensor:
    """Return by what decision values are multiplied and summed to the value that is explained; see the module.

    Args:
        rule: One of `RULES`.
        classes: Ascending.
        members: How many fits' values there are, one after the other; they are averaged.

    Returns:
        float32 (outputs,).
    """
    n_values = RULES[rule].n_values(len(classes))
    if rule in VOTES:  # positive for the first of a pair, the lower class
        own = torch.full((n_values,), -1.0 / n_values)
    elif n_values == 1:
        own = torch.ones(1)
    else:
        levels = torch.tensor(classes, dtype=torch.float32)
        own = levels - levels.mean()
        own = own / own.clamp_min(0).sum()
    return own.repeat(members) / members


def _why_not(aspect: Any) -> str | None:
    """Say why an aspect's score is no sum over tokens; None where it is one."""
    if aspect.head.type != "linear":
        what = "score tokens expect, which is no sum" if aspect.head.type == "score_tokens" else "score tokens add"
        return f"its score comes from what {what}: a head of the type {aspect.head.type} has no shares of tokens"
    others = sorted({feature.pooling for feature in aspect.features if not feature.is_check} - set(ADDITIVE))
    if others:
        return f"its probe reads states pooled by {' and '.join(others)}, which are no sums over tokens"
    return None


def _cover(text: str, pieces: Iterable[tuple[Place, float]], part: str) -> list[Piece]:
    """Cut a text into pieces with their shares, that joined are the text; empty where none of its tokens has a share.

    Tokens that carry the same characters are one piece; white space that no token carries goes with what follows.
    """
    own = sorted((Span(place.start, place.end), share) for place, share in pieces if place.part == part)
    if not any(share for _, share in own):
        return []
    merged: list[tuple[Span, float]] = []
    for at, share in own:
        if merged and at.start < merged[-1][0].end:
            before, shared = merged.pop()
            at, share = Span(before.start, max(before.end, at.end)), shared + share
        merged.append((at, share))
    found: list[Piece] = []
    end = 0
    for at, share in merged:
        start, gap = at.start, text[end : at.start]
        if gap.strip():
            found.append([gap, None])
        elif gap:
            start = end
        found.append([text[start : at.end], _short(share)])
        end = at.end
    if end < len(text):
        rest = text[end:]
        found.append([rest, None if rest.strip() else 0.0])
    return found


def _short(share: float) -> float:
    """Round to what float32 holds."""
    return float(f"{share:.7g}")
