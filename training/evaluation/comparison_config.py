"""Settings of a comparison."""

from dataclasses import dataclass, field
from typing import Literal

from inspector_pipeline.heads import AGGREGATIONS, SCORE_RULES

from ..labelling.rubrics import FIVE_LEVELS, Rubric
from ..probing.table import UNCOUNTED
from ..score_tokens.weights import TuningConfig
from .methods.base import ProbesConfig
from .methods.generated import EncoderConfig, GeneratedConfig, LoraConfig
from .methods.text import BASELINES, TfIdf

TEXT_BASELINES = {baseline.name: baseline for baseline in (*BASELINES, TfIdf())}
WEIGHTS = ("uniform", "adam")
LAGER_VARIANTS = (  # the ten scores of the published ablation, and a convex fit of its weights
    "last_argmax",
    "last_expectation",
    *(f"{what}_{weights}_{how}" for what in AGGREGATIONS for weights in WEIGHTS for how in SCORE_RULES),
    "logits_convex_expectation",
)


@dataclass(frozen=True)
class ScoreTokensConfig:
    """Methods that read or write score tokens.

    Attributes:
        judge: Folder of the lager stage, with all layers.
        variants: Which scores of the ablation: last_<decision>, or <logits or probabilities>_<weights>_<decision> with
            weights uniform, adam or convex, and the decision expectation or argmax.
        adam: How `adam` tunes.
        aspects: Which of the five aspects are the judge's, for the rubrics of free generation.
        scale: Theirs.
        custom_aspects: Further aspects of the judge.
        generated: Free generation of a score; null leaves it out.
    """

    judge: str
    variants: tuple[str, ...] = LAGER_VARIANTS
    adam: TuningConfig = field(default_factory=TuningConfig)
    aspects: tuple[str, ...] = tuple(FIVE_LEVELS)
    scale: Literal["1-5", "0-1"] = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    generated: GeneratedConfig | None = None


@dataclass(frozen=True)
class CompareConfig:
    """Settings of the compare stage.

    Attributes:
        pairs: Labelled rows.
        output: Folder to write to.
        judge: Name of the method that the others are compared with.
        baselines: Of majority, length, surface and tfidf.
        probes: Name -> probes on extracted features.
        combined: Name of the probes that are stacked with score tokens; null for no such method.
        score_tokens: Methods that read or write score tokens.
        encoder: An encoder to fine-tune.
        lora: Low-rank adapters of the backbone.
        uncounted: Aspects that are left out.
        folds: By question id over all aspects.
        bootstraps: Resamples of the questions for intervals and tests.
        learning_curve: Shares of the training questions to fit on besides, 0 for no label; none to leave the curve out.
        curve_methods: Methods whose learning curves stand beside each other.
        timed_pairs: Pairs that each method is timed on.
        seed: Of folds, fits and resamples.
    """

    pairs: str
    output: str
    judge: str = "probes"
    baselines: tuple[str, ...] = tuple(TEXT_BASELINES)
    probes: dict[str, ProbesConfig] = field(default_factory=dict)
    combined: str | None = None
    score_tokens: ScoreTokensConfig | None = None
    encoder: EncoderConfig | None = None
    lora: LoraConfig | None = None
    uncounted: tuple[str, ...] = UNCOUNTED
    folds: int = 5
    bootstraps: int = 1000
    learning_curve: tuple[float, ...] = ()
    curve_methods: tuple[str, ...] = (
        "probes",
        "lager_logits_uniform_expectation",
        "lager_logits_adam_expectation",
        "combined",
    )
    timed_pairs: int = 16
    seed: int = 731
