"""Compare ways of judging in the same folds: quality with paired tests, and cost.

    python -m training compare --pairs work/labelled.jsonl --output work/compare --judge length

`--config training/configs/compare.yaml` compares all methods.

Every method predicts the rows that a fold holds out, from fits on its training rows alone. The quality of each, the
gain of the judge over it on the rows that both predict, the seconds and floating-point operations of scoring a pair,
and the budget that it was given go into results.json, table.md and quality_cost.png; learning curves, where they are
asked for, into learning_curve.png. A method that is done is not run again. Where the rows are answers of several
generators to one question, `matched` says which methods tell the right from the wrong ones, apart for generators that
a fold's fits never saw where `generator_groups` leaves some out; compared.json says it for a judge's card.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.heads import AGGREGATIONS, SCORE_RULES

from ..evaluation.cost import judge_cost
from ..evaluation.crossval import METHODS, Candidate, CrossValidation, KeptResults
from ..evaluation.evidence import Outcome, comparison_evidence, one_repeat, today
from ..evaluation.matched import compared_answers, generator_groups, generators_of, new_generators
from ..evaluation.methods.finetuned import EncoderConfig, LoraConfig, encoder_method, lora_method
from ..evaluation.methods.generated import GeneratedConfig, GeneratedMethod, PromptedConfig
from ..evaluation.methods.log_probability import NAME as LOG_PROBABILITY
from ..evaluation.methods.log_probability import LogProbabilityConfig, LogProbabilityMethod
from ..evaluation.methods.probes import ProbesConfig, ProbesMethod, open_design
from ..evaluation.methods.score_tokens import LagerMethod
from ..evaluation.methods.stacked import CombinedMethod
from ..evaluation.methods.text import TEXT_BASELINES, TextMethod
from ..evaluation.metrics import DEFINITIONS
from ..evaluation.procedure import COMBINED
from ..evaluation.tables import plot, plot_curves, table
from ..labelling.rubrics import FIVE_LEVELS, Rubric, chosen_rubrics
from ..probing.settings import UNCOUNTED
from ..probing.table import Labels, counted_table
from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import FOLDERS_MANIFEST
from ..score_tokens.logits import LogitsSettings, cached_layer_logits
from ..score_tokens.weights import TuningConfig

logger = logging.getLogger(__name__)

FOR_A_CARD = "compared.json"
LAGER_VARIANTS = (  # the ten scores of the published ablation, and a convex fit of its weights
    "last_argmax",
    "last_expectation",
    *(f"{what}_{weights}_{how}" for what in AGGREGATIONS for weights in ("uniform", "adam") for how in SCORE_RULES),
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
        prompted: Name -> further prompting: examples of the training rows, or reasons first.
    """

    judge: str
    variants: tuple[str, ...] = LAGER_VARIANTS
    adam: TuningConfig = field(default_factory=TuningConfig)
    aspects: tuple[str, ...] = tuple(FIVE_LEVELS)
    scale: Literal["1-5", "0-1"] = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    generated: GeneratedConfig | None = None
    prompted: dict[str, PromptedConfig] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """Settings of the compare stage.

    Attributes:
        pairs: Labelled rows.
        output: Folder to write to.
        judge: Name of the method that the others are compared with.
        baselines: Of majority, length, surface and tfidf.
        log_probability: How likely a backbone finds the response, without any training of it.
        probes: Name -> probes on extracted features.
        combined: Name of the probes that are stacked with score tokens; null for no such method.
        score_tokens: Methods that read or write score tokens.
        encoder: An encoder to fine-tune.
        encoder_frozen: An encoder that stays as it is, under logistic regressions.
        lora: Low-rank adapters of the backbone.
        uncounted: Aspects that are left out.
        folds: By question id over all aspects.
        generator_groups: Groups into which generators are divided; each fold's fits see none of one group, in turn, so
            that its held-out rows are of seen and of unseen generators. 0 for none.
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
    log_probability: LogProbabilityConfig | None = None
    probes: dict[str, ProbesConfig] = field(default_factory=dict)
    combined: str | None = None
    score_tokens: ScoreTokensConfig | None = None
    encoder: EncoderConfig | None = None
    encoder_frozen: EncoderConfig | None = None
    lora: LoraConfig | None = None
    uncounted: tuple[str, ...] = UNCOUNTED
    folds: int = 5
    generator_groups: int = 0
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


def run(config: Config) -> dict[str, Any]:
    """Run the stage.

    Returns:
        The content of results.json.

    Raises:
        DataFileError: An input cannot be read or does not fit the pairs.
        SettingsError: A method is unknown.
        BackboneError: A model cannot be loaded.
    """
    kept, candidates = prepare(config)
    outcomes, samples = kept.outcomes(candidates, config.timed_pairs), kept.validation.resamples(config.bootstraps)
    results = comparison_evidence(outcomes, kept.validation.labels, config.judge, samples)
    results["matched"] = _matched(kept, outcomes, config)
    results["protocol"] = {
        "date": today(),
        "generator_groups": config.generator_groups,
        "cross_validation": one_repeat(config.folds, config.seed),
        "intervals": f"95 %, percentile, {config.bootstraps} resamples of questions, the same for all methods",
        "tests": "two-sided, the share of resamples on the other side of no difference, doubled; not corrected for the "
        "number of methods",
        "metrics": {name: DEFINITIONS[name] for name in ("auroc", "spearman", "macro_f1")},
        "cost": f"scoring a pair on all aspects, timed on {config.timed_pairs} pairs, warm, once all methods had "
        "predicted; operations by formula, two for each weight and token, and those of attention",
    }
    output = Path(config.output)
    if config.learning_curve:
        by_name = {one.name: one for one in candidates}
        results["learning_curve"] = {
            name: kept.curve(by_name[name], outcomes[name], config.learning_curve, config.bootstraps)
            for name in config.curve_methods
        }
        plot_curves(results["learning_curve"], output / "learning_curve.png")
    write_atomically(output / "results.json", json_text(results))
    (output / FOR_A_CARD).unlink(missing_ok=True)  # of an earlier run
    if results["matched"]:
        write_atomically(output / FOR_A_CARD, json_text({"compared": _for_a_card(results, config)}))
    write_atomically(output / "table.md", table(results))
    plot(results, output / "quality_cost.png")
    logger.info("%s", table(results))
    return results


def _matched(kept: KeptResults, outcomes: Mapping[str, Outcome], config: Config) -> dict[str, Any]:
    """Compare the methods on answers to one question; empty where no generators are named."""
    validation = kept.validation
    if validation.generators is None:
        return {}
    predictions = {name: one.predictions for name, one in outcomes.items()}
    is_new = new_generators(validation.divided, validation.generators)
    named = (validation.labels, validation.generators, is_new, config.judge)
    return compared_answers(predictions, *named, config.bootstraps, config.seed)


def _for_a_card(results: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Take what a judge's card says of the comparison, see `compared_table`."""
    said = ("description", "budget", "folds")
    methods = {name: {key: entry[key] for key in said} for name, entry in results["methods"].items()}
    folds = {"folds": config.folds, "generator_groups": config.generator_groups}
    return {"date": today(), "judge": config.judge, **folds, "methods": methods, "aspects": results["matched"]}


def prepare(config: Config) -> tuple[KeptResults, list[Candidate]]:
    """Read the pairs and name the methods, none of which is loaded yet.

    Raises:
        DataFileError: The pairs cannot be read or are too few.
        SettingsError: A method is unknown, two share a name, the judge is none of them, or the learning curve names
            what is not compared or a share out of range.
    """
    pairs = labelled_pairs(read_records(config.pairs, ("id", "question", "prediction")), unlabelled=True)
    labels = counted_table(pairs, config.uncounted)
    generators = generators_of(labels, pairs)
    candidates = list(_candidates(config, pairs, labels))
    names = [one.name for one in candidates]
    if config.judge not in names or len(set(names)) != len(names):
        raise SettingsError(
            f"judge expects one of the methods, which have distinct names, but got {config.judge!r} of "
            f"{', '.join(names)}."
        )
    if not all(0 <= share < 1 for share in config.learning_curve):
        raise SettingsError(f"learning_curve expects shares from 0 to below 1, but got {config.learning_curve}.")
    left_out = generator_groups(generators, config.generator_groups, config.seed)
    if config.generator_groups and not left_out:
        raise SettingsError(
            f"generator_groups expects at least 2 groups and rows of as many generators, but got "
            f"{config.generator_groups} groups and {len(set(generators.tolist()) - {''})} generators."
        )
    unknown = [name for name in config.curve_methods if name not in names]
    if config.learning_curve and unknown:
        raise SettingsError(f"curve_methods expects methods that are compared, but got {unknown[0]!r}.")
    validation = CrossValidation(labels, config.folds, config.seed, generators=generators, left_out=left_out)
    return KeptResults(Path(config.output) / METHODS, validation, config.pairs, config.uncounted), candidates


def _candidates(config: Config, pairs: list[LabelledPair], labels: Labels) -> Iterator[Candidate]:
    """Name the methods that are asked for, in the order of the settings."""
    if config.combined is not None and (config.score_tokens is None or config.combined not in config.probes):
        raise SettingsError(
            f"combined expects score_tokens and the name of probes, {', '.join(config.probes) or 'none'}, but got "
            f"{config.combined!r}."
        )
    yield from _without_probes(config, pairs)
    sample = config.timed_pairs

    def probes(name: str, own: ProbesConfig) -> ProbesMethod:
        options: dict[str, Any] = {"description": own.description, "both_kinds": True, "timed": pairs[:sample]}
        return ProbesMethod(name, open_design(own.features, pairs, labels), own.search, **options)

    for name, own in config.probes.items():
        yield Candidate(name, own, (_manifest(own.features),), partial(probes, name, own))
    if config.score_tokens is not None:
        yield from _score_tokens(config, config.score_tokens, pairs, labels, probes)
    methods = Path(config.output) / METHODS
    for name, encoder in (("encoder", config.encoder), ("encoder_frozen", config.encoder_frozen)):
        if encoder is not None:
            options: dict[str, Any] = {"keep": methods / name, "frozen": name != "encoder"}
            yield Candidate(name, encoder, (), partial(encoder_method, encoder, pairs, labels, sample, **options))
    if config.lora is not None:
        build = partial(lora_method, config.lora, pairs, labels, sample, methods / "lora")
        yield Candidate("lora", config.lora, (), build)


def _without_probes(config: Config, pairs: list[LabelledPair]) -> Iterator[Candidate]:
    """Name the methods that read the text alone, or how likely a backbone finds it."""
    for name in config.baselines:
        if name not in TEXT_BASELINES:
            raise SettingsError(f"baselines expects some of {', '.join(TEXT_BASELINES)}, but got {name!r}.")
        baseline = TEXT_BASELINES[name]
        yield Candidate(name, repr(baseline), (), partial(TextMethod, baseline, pairs, config.seed))
    if (own := config.log_probability) is not None:
        build = partial(LogProbabilityMethod, own, pairs, config.seed, config.timed_pairs)
        yield Candidate(LOG_PROBABILITY, own, (), build)


def _score_tokens(
    config: Config,
    tokens: ScoreTokensConfig,
    pairs: list[LabelledPair],
    labels: Labels,
    probes: Callable[[str, ProbesConfig], ProbesMethod],
) -> Iterator[Candidate]:
    """Name the methods that read or write score tokens; their logits are read once for all, and so are the costs."""
    settings, inputs = LogitsSettings(tokens.judge, config.pairs, config.uncounted), (_manifest(tokens.judge),)
    path = Path(config.output) / METHODS / "layer_logits.safetensors"
    logits = cache(partial(cached_layer_logits, settings, pairs, labels, path))
    cost = cache(partial(judge_cost, tokens.judge, pairs[: config.timed_pairs]))
    tuning = {"adam": tokens.adam, "convex": TuningConfig(method="convex")}

    def lager(variant: str) -> LagerMethod:
        return LagerMethod(variant, logits(), tuning, cost)

    for variant in tokens.variants:
        described = {"variant": variant, "tuning": repr(tuning)}
        yield Candidate(f"lager_{variant}", described, inputs, partial(lager, variant))
    zero_shot = {} if tokens.generated is None else {"generated": tokens.generated}
    prompting: dict[str, GeneratedConfig] = {**zero_shot, **tokens.prompted}
    rubrics = chosen_rubrics(tokens.aspects, tokens.scale, tokens.custom_aspects) if prompting else []
    asked = [rubric for rubric in rubrics if rubric.name in labels.names]
    for name, own in prompting.items():
        shared = (own, tokens.judge, asked, pairs, labels, config.timed_pairs)
        build = partial(GeneratedMethod, *shared, name=name, keep=path.parent)
        yield Candidate(name, {"generated": own, "rubrics": repr(rubrics)}, inputs, build)
    if config.combined is not None:
        fitted = config.probes[config.combined]
        stacked = partial(probes, config.combined, fitted)
        both = (_manifest(fitted.features), *inputs)
        yield Candidate(COMBINED, fitted, both, lambda: CombinedMethod(COMBINED, stacked(), logits(), cost))


def _manifest(folder: str) -> str:
    return str(Path(folder) / FOLDERS_MANIFEST)
