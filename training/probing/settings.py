"""What a search may choose from: views of the features, ways to fit, and how many of each are tried."""

from dataclasses import dataclass, field
from itertools import product

from inspector_pipeline.encoded import CHECKS
from inspector_pipeline.errors import SettingsError

UNCOUNTED = ("correctness",)  # aspects that do not count in a judge's total
SCALINGS = ("none", "standard", "whiten")
HEADS = ("ridge", "logistic", "svc", "ordinal")
BALANCES = ("none", "weights", "downsample")
KNOWN = {"layers": ("all", "one"), "scalings": SCALINGS, "heads": HEADS[1:], "balance": BALANCES}


@dataclass(frozen=True)
class View:
    """Which features a probe reads, up to the depth that is chosen.

    Attributes:
        reading: `chat` for one pass that all aspects share, another reading's name, or `rubric` for each aspect's own.
        poolings: Read at each layer; a check (`inspector_pipeline.encoded.CHECKS`) among them is read once.
        layers: `all` from 1 to the depth, or `one`, the depth itself.
        state: State kind; `output` is what the backbone gives: raw, but final_norm at its last layer.
        scaling: `none`; `standard`, each dimension divided by its deviation; `whiten`, by the covariance's root; on
            training rows.
        prior: How much easier a weight along a released judge's directions comes than another; 0 for no difference.
    """

    reading: str = "chat"
    poolings: tuple[str, ...] = ("response_mean", "last")
    layers: str = "all"
    state: str = "rms_normed"
    scaling: str = "none"
    prior: float = 0.0

    def layers_of(self, depth: int) -> list[int]:
        """Return the layers that a probe of a depth reads."""
        return [depth] if self.layers == "one" else list(range(1, depth + 1))

    def blocks(self, depth: int) -> list[tuple[int, str, str]]:
        """Return the layer, pooling and state kind of what a probe of a depth reads, in the order in which it does."""
        pooled = [pooling for pooling in self.poolings if pooling not in CHECKS]
        states = [(layer, pooling, self.state) for layer in self.layers_of(depth) for pooling in pooled]
        return states + [(0, check, "raw") for check in self.poolings if check in CHECKS]

    def __str__(self) -> str:
        """Name it in a table."""
        scaling = "" if self.scaling == "none" else f", {self.scaling}"
        prior = f", prior {self.prior:g}" if self.prior else ""
        pooled = "+".join(pooling for pooling in self.poolings if pooling not in CHECKS)
        checks = "".join(f", and {check}" for check in self.poolings if check in CHECKS)
        return f"{self.reading}: {pooled} of {self.layers} {self.state} layers{checks}{scaling}{prior}"


@dataclass(frozen=True)
class Setting:
    """One way to fit.

    Attributes:
        head: `ridge` on the target; `logistic` or `svc` (squared hinge) on good against other labels; `ordinal`, a
            logistic loss on every threshold between two scores.
        penalty: On the weight, as a multiple of the kernel's mean diagonal.
        sharing: Weight of the part that aspects share, against 1 for their own; 0 fits each alone.
        auxiliary: Factor on the weight of auxiliary rows; 0 leaves them out.
    """

    head: str = "ridge"
    penalty: float = 2.0
    sharing: float = 3.0
    auxiliary: float = 0.0

    def __str__(self) -> str:
        """Name it in a table."""
        auxiliary = f", auxiliary rows x {self.auxiliary:g}" if self.auxiliary else ""
        return f"{self.head}, penalty {self.penalty:g}, sharing {self.sharing:g}{auxiliary}"


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search and the fit.

    Attributes:
        readings: Readings to choose from: `chat`, `rubric` (each aspect's own), or a name of the extract stage.
        poolings: Sets of poolings to choose from; a probe reads all of a set at each layer. A set may hold checks of
            the response's text too, of `inspector_pipeline.encoded.CHECKS`, such as `wrong_sums`.
        layers: `all` layers up to the depth, `one` at the depth, or both to choose from.
        state: Which state kind to read.
        scalings: `none`, `standard` or `whiten`, to choose from.
        prior_judge: Folder or name of a judge on the same backbone, along whose directions weights may come easier: the
            penalty is then towards them instead of towards zero. It must not have seen the rows that are evaluated.
        priors: How much easier, to choose from: that much more of the kernel lies along them; 0 leaves them out.
        depths: Depths to choose from; None for every second layer.
        penalties: Ridge penalties to choose from, as multiples of the kernel's mean diagonal.
        alone_penalties: Those of an aspect that does not count in the total, chosen by the AUROC of its left-out
            values, as such an aspect is there to order by; None for `penalties`, chosen by the squared error, which
            asks for more shrinkage than the order does.
        sharings: Weights of the part that aspects share, against 1 for their own, to choose from; 0 fits each alone.
        heads: Heads to try beside ridge: `logistic`, `svc`, `ordinal`.
        head_penalties: Their penalties to choose from.
        auxiliary_weights: Weights of auxiliary rows to try, beside leaving them out.
        finalists: How many views go from the sweep into the inner cross-validation.
        tolerance: Mean AUROC that a shallower depth and a greater weight of auxiliary rows may lose, and that another
            head must gain.
        threshold_weight: The regression's target is score + weight * (score is good), where good is 4 or 5, or 1 of 0
            and 1: what users filter by counts more than a step elsewhere on the scale.
        balance: `none`, `weights` (each class of an aspect weighs the same) or `downsample` (to its rarest class).
        bias: Whether probes have a centre and a bias; without, a judge of one layer's last token can be exported as a
            plain sequence classifier.
        good: Aspect -> the level from which on its labels are good; the usual rule where not given (4 and 5 of 1 to 5,
            1 of 0 and 1). Targets of aspects with such a level are put on a scale of 1 to 5 first.
        uncounted: Aspects that do not count in the total; each is fitted alone, at the depth that the others choose.
        inner_folds: Of the cross-validation that chooses.
        seed: Of its folds.
    """

    readings: tuple[str, ...] = ("chat",)
    poolings: tuple[tuple[str, ...], ...] = (("response_mean", "last"), ("response_mean",), ("last",))
    layers: tuple[str, ...] = ("all",)
    state: str = "rms_normed"
    scalings: tuple[str, ...] = ("none",)
    prior_judge: str | None = None
    priors: tuple[float, ...] = (0.0,)
    depths: tuple[int, ...] | None = None
    penalties: tuple[float, ...] = (1.0, 2.0, 4.0)
    alone_penalties: tuple[float, ...] | None = None
    sharings: tuple[float, ...] = (1.0, 3.0, 10.0)
    heads: tuple[str, ...] = ("logistic", "svc", "ordinal")
    head_penalties: tuple[float, ...] = (0.25, 1.0)
    auxiliary_weights: tuple[float, ...] = ()
    finalists: int = 2
    tolerance: float = 0.005
    threshold_weight: float = 4.0
    balance: str = "none"
    bias: bool = True
    good: dict[str, float] = field(default_factory=dict)
    uncounted: tuple[str, ...] = UNCOUNTED
    inner_folds: int = 5
    seed: int = 731

    def __post_init__(self) -> None:
        """Refuse what is unknown.

        Raises:
            SettingsError: A setting is unknown, empty, or goes not with another.
        """
        for name, known in KNOWN.items():
            found = getattr(self, name)
            wrong = set((found,) if isinstance(found, str) else found) - set(known)
            if wrong or (name in ("layers", "scalings") and not found):
                raise SettingsError(f"{name} expects {', '.join(known)}, but got {found!r}.")
        for name in ("readings", "poolings", "penalties", "sharings"):
            if not getattr(self, name):
                raise SettingsError(f"{name} expects at least one to choose from, but got none.")
        if not all(set(own) - set(CHECKS) for own in self.poolings):
            raise SettingsError(f"poolings expects sets that hold more than checks, but got {self.poolings}.")
        if self.alone_penalties is not None and not all(penalty > 0 for penalty in self.alone_penalties or (0.0,)):
            raise SettingsError(f"alone_penalties expects numbers above 0, but got {self.alone_penalties}.")
        if self.inner_folds < 2 or self.finalists < 1 or min(self.penalties) <= 0 or min(self.sharings) < 0:
            raise SettingsError(
                f"inner_folds expects 2 or more, finalists 1 or more, penalties above 0 and sharings from 0, but got "
                f"{self.inner_folds}, {self.finalists}, {self.penalties} and {self.sharings}."
            )
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that do not go with others."""
        if not self.priors or min(self.priors) < 0 or (max(self.priors) > 0) != (self.prior_judge is not None):
            raise SettingsError(
                f"priors expects numbers from 0, and above 0 with a prior_judge alone, but got {self.priors} and "
                f"{self.prior_judge}."
            )
        if self.prior_judge is not None and (set(self.scalings) != {"none"} or "rubric" in self.readings):
            raise SettingsError("prior_judge expects the scaling none and a reading that all aspects share.")
        if not self.bias and "whiten" in self.scalings:
            raise SettingsError("scalings expects no whiten where bias is false, since whitening needs a centre.")

    @property
    def target_weight(self) -> float:
        """What a good label adds to the target; without a bias the value itself is the score."""
        return self.threshold_weight if self.bias else 0.0

    @property
    def views(self) -> list[View]:
        """All views to choose from."""
        grid = product(self.readings, self.poolings, self.layers, self.scalings, self.priors)
        return [
            View(reading, tuple(poolings), layers, self.state, scaling, prior)
            for reading, poolings, layers, scaling, prior in grid
        ]
