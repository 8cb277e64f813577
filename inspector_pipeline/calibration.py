"""Levels and probabilities as the labels of a domain have them: increasing maps of what a judge expects.

With s the expected score of a pair, P(score > class k) is read off a broken line through knots at s, one for each
class but the highest; the score is the number of cuts that s passes. A *score set* holds every class whose probability
reaches a least one, and the likeliest class: sets of a stated coverage. All of it is fitted by training/trust and
stands in the judge's config as plain numbers, so that it costs no pass and needs nothing but torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from .decisions import Decision, level_shares
from .errors import JudgeConfigError

NONE = "none"
METHODS = (NONE, "ordinal", "beta", "isotonic")
LEVEL_MAP_FIELDS = {"method": str, "knots": list, "exceed": list, "cuts": list, "coverage": float, "least": list}
OF_MAP, OF_SETS = ("knots", "exceed", "cuts"), ("coverage", "least")
OPTIONAL_LEVEL_MAP_FIELDS = (*OF_MAP, *OF_SETS)


@dataclass(frozen=True)
class LevelMap:
    """What the labels of a domain make of an aspect.

    Attributes:
        method: How the map was fitted, one of `METHODS`; with `none` the judge's own levels and probabilities stay.
        knots: Expected scores, ascending; beyond the outermost the map is constant. Empty where the method is `none`.
        exceed: (knots, classes - 1), P(score > class k) at each knot: rising over the knots, falling over the classes.
        cuts: (classes - 1,), ascending expected scores; a score is the number of cuts passed.
        coverage: The share of labels that the score sets are to hold; None where the judge gives no sets.
        least: (classes,), the probability from which on a class is in the set.
    """

    method: str
    knots: tuple[float, ...] = ()
    exceed: tuple[tuple[float, ...], ...] = ()
    cuts: tuple[float, ...] = ()
    coverage: float | None = None
    least: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, without the parts that it has not."""
        left_out = {*(OF_MAP if not self.knots else ()), *(OF_SETS if self.coverage is None else ())}
        return {name: _plain(value) for name, value in vars(self).items() if name not in left_out}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str, n_classes: int) -> "LevelMap":
        """Check a JSON object and return what it says.

        Args:
            values: Its fields, which have the types of `LEVEL_MAP_FIELDS`.
            where: Its place, for messages.
            n_classes: How many classes the aspect has.

        Raises:
            JudgeConfigError: A field is wrong or missing; the message names it.
        """
        method = values["method"]
        _require(method in METHODS, f"{where}.method expects one of {', '.join(METHODS)}, but got {method!r}.")
        for names, expected in ((OF_MAP, method != NONE), (OF_SETS, "least" in values or "coverage" in values)):
            wrong = [name for name in names if (name in values) != expected]
            _require(not wrong, f"{where} expects {', '.join(names)} all or none, as its method asks: see {wrong}.")
        exceed = values.get("exceed", [])
        _require(all(isinstance(row, list) for row in exceed), f"{where}.exceed expects a list for each knot.")
        found = cls(
            method,
            tuple(values.get("knots", ())),
            tuple(tuple(row) for row in exceed),
            tuple(values.get("cuts", ())),
            values.get("coverage"),
            tuple(values.get("least", ())),
        )
        found._check(where, n_classes)
        return found

    def _check(self, where: str, n_classes: int) -> None:
        """Refuse numbers from which no honest score can come."""
        numbers = [*self.knots, *self.cuts, *self.least, *(value for row in self.exceed for value in row)]
        plain = all(isinstance(n, float | int) and not isinstance(n, bool) and isfinite(n) for n in numbers)
        _require(plain, f"{where} expects finite numbers, but got others.")
        if self.knots:
            self._check_map(where, n_classes)
        if self.coverage is not None:
            is_share = 0 < self.coverage < 1 and all(0 <= value <= 1 for value in self.least)
            _require(
                is_share and len(self.least) == n_classes,
                f"{where} expects a coverage between 0 and 1, and least as {n_classes} numbers of 0 to 1, one a class, "
                f"but got {self.coverage} and {self.least}.",
            )

    def _check_map(self, where: str, n_classes: int) -> None:
        knots = torch.tensor(self.knots, dtype=torch.float32, device="cpu")  # even while a model is made on none
        _require(
            len(knots) > 1 and bool((knots.diff() > 0).all()),
            f"{where}.knots expects two or more, ascending and each once in float32, but got {self.knots}.",
        )
        _require(
            len(self.exceed) == len(knots) and {len(row) for row in self.exceed} == {n_classes - 1},
            f"{where}.exceed expects {n_classes - 1} probabilities, one less than classes, for each knot.",
        )
        columns = [[0.0, *column, 1.0] for column in zip(*self.exceed, strict=True)]
        rising = all(a <= b for column in columns for a, b in pairwise(column))
        falling = all(a >= b for row in self.exceed for a, b in pairwise(row))
        _require(
            rising and falling,
            f"{where}.exceed expects probabilities of 0 to 1 that rise from knot to knot and fall over the classes.",
        )
        _require(
            len(self.cuts) == n_classes - 1 and all(a <= b for a, b in pairwise(self.cuts)),
            f"{where}.cuts expects {n_classes - 1} ascending numbers, one less than classes, but got {self.cuts}.",
        )

    def tensors(self, device: torch.device) -> "LevelTensors | None":
        """Copy the map to a device; None where the judge's own levels and probabilities stay."""
        if not self.knots:
            return None
        parts = (self.knots, self.exceed, self.cuts)
        return LevelTensors(*(torch.tensor(values, dtype=torch.float32, device=device) for values in parts))

    def score_set(self, probabilities: Mapping[Any, float]) -> list[Any]:
        """Return the classes, ascending, that hold the label with the stated coverage.

        Args:
            probabilities: Class -> probability, classes ascending.
        """
        likeliest = max(probabilities, key=probabilities.__getitem__)
        pairs = zip(probabilities.items(), self.least, strict=True)
        return [name for (name, share), least in pairs if share >= least or name == likeliest]


@dataclass(frozen=True)
class LevelTensors:
    """A `LevelMap` on a device, float32.

    Attributes:
        knots: (knots,).
        exceed: (knots, classes - 1).
        cuts: (classes - 1,).
    """

    knots: Tensor
    exceed: Tensor
    cuts: Tensor

    def __call__(self, expected: Tensor) -> Decision:
        """Turn expected scores, (batch,), into the levels and probabilities of the domain."""
        at = expected.clamp(self.knots[0], self.knots[-1])
        upper = torch.searchsorted(self.knots, at.contiguous(), right=True).clamp(1, len(self.knots) - 1)
        low, high = self.knots[upper - 1], self.knots[upper]
        share = ((at - low) / (high - low)).unsqueeze(1)
        exceed = torch.lerp(self.exceed[upper - 1], self.exceed[upper], share)
        return Decision((expected.unsqueeze(1) > self.cuts).sum(dim=1), level_shares(exceed))


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise JudgeConfigError(message)
