"""Estimate a judge's quality by nested cross-validation, beside its baselines.

    python -m training evaluate --features work/features --output work/results.json

Whatever is chosen (reading, poolings, layers, depth, head, penalty, calibration) is chosen anew inside each fold from
its training rows. The majority, length and surface baselines, and another way of fitting if one is named, are fitted in
the same folds, and all differences are paired over the same resamples of questions. Where answers of several generators
to one question are there, what the judge tells of them is measured by itself, and for generators that no fit saw
(evaluation/matched.py); where rows name domains, for each domain by fits that saw none of it (evaluation/domains.py).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json, write_rows

from ..evaluation.crossval import CrossValidation
from ..evaluation.domains import domain_evidence, domain_folds, domains_of
from ..evaluation.evidence import by_generator, judge_evidence, protocol, set_evidence
from ..evaluation.fitted_on import fitted_on
from ..evaluation.left_out import folds_of_rival, left_out_slots
from ..evaluation.matched import generator_groups, generators_of, matched_evidence, without_generators
from ..evaluation.methods.beside import beside_baselines
from ..evaluation.methods.probes import ProbesMethod, identities
from ..evaluation.methods.text import BASELINES, TextMethod
from ..evaluation.metrics import METRICS, shown
from ..evaluation.out_of_fold import SET, out_of_fold_rows
from ..evaluation.preferences import DEFINITIONS, preference_evidence
from ..evaluation.unseen import unseen_evidence, unseen_lines
from ..evaluation.verdict import verdict
from ..features.store import FeatureSet, concatenate, load_features
from ..probing.kernels import Design
from ..probing.search import Choice
from ..probing.settings import SearchConfig
from ..probing.table import Index, Labels
from ..rows.rated import joined_reports
from ..rows.records import LabelledPair, Levels, is_good
from ..runs.manifest import Manifest, manifest_path

logger = logging.getLogger(__name__)

STAGE = "evaluate"
JUDGE = "judge"
RIVAL = "rival"
CHOSEN = ("poolings", "depth", "head", "penalty", "sharing between aspects", "thresholds", "cuts", "centres")


@dataclass(frozen=True)
class Config:
    """Settings of the evaluate stage.

    Attributes:
        features: Folders of the extract stage: the labelled pairs, and auxiliary ones.
        output: results.json to write.
        search: Settings of the search and fit that are evaluated.
        rival: Settings of another fit of the aspects that count, to compare with in the same folds, such as the
            published form; of all aspects, where it reads no context or reference and the judge does.
        rival_features: Folder of its features, of the same pairs; those of the judge where not given.
        labels: OUTPUT.labels.json of the data stage, of each table: what the labels are and what of them is not used,
            which becomes a part of the results.
        transfer: Folders of other labelled pairs (another dataset or generator), predicted but never fitted on.
        folds: Outer folds, by question id over all aspects.
        repeats: Repetitions with other folds.
        bootstraps: Resamples of the questions for the intervals.
        generator_groups: Groups into which generators are divided, to leave each out of the fit in turn; 0 for none.
        domain_groups: Groups into which domains are divided, where rows name some, to leave each out of the fit in
            turn; as many as there are domains at most, 0 for none.
        unseen: Whether to measure baselines and rival, too, on generators that no fit saw, and on all of their rows.
        learning_curve: Shares of the training questions to fit on, one repeat each; none to leave the curve out.
        seed: Of folds, forests and resamples.
        candidates_tried: How many other settings people looked at on this data before; said in the evidence.
        out_of_fold: Folder to write besides, with a file for `fitted` and for each set of `transfer`: what fits said
            that saw neither a row's question nor, where generators are left out, its generator; for `trust_report` and
            `rank_report`.
    """

    features: tuple[str, ...]
    output: str
    search: SearchConfig = field(default_factory=SearchConfig)
    rival: SearchConfig | None = None
    rival_features: str | None = None
    labels: str | tuple[str, ...] | None = None
    transfer: tuple[str, ...] = ()
    folds: int = 5
    repeats: int = 3
    bootstraps: int = 1000
    generator_groups: int = 4
    domain_groups: int = 4
    unseen: bool = False
    learning_curve: tuple[float, ...] = (0.1, 0.2, 0.4, 0.7)
    seed: int = 731
    candidates_tried: int = 0
    out_of_fold: str | None = None


def run(config: Config) -> None:
    """Run the stage: folders of features -> results.json.

    Raises:
        DataFileError: The features are incomplete, do not match, or carry too few labels.
    """
    output = Path(config.output)
    folders = [*config.features, *config.transfer, *([config.rival_features] if config.rival_features else [])]
    told = (config.labels,) if isinstance(config.labels, str) else config.labels or ()
    manifest = Manifest.of(STAGE, config, [*(manifest_path(Path(folder)) for folder in folders), *told])
    if manifest.is_done(output):
        return
    rows: list[dict[str, Any]] = []
    results = evaluate(
        concatenate([load_features(folder) for folder in config.features]),
        config,
        rival_features=load_features(config.rival_features) if config.rival_features else None,
        transfer={name: load_features(folder) for name, folder in _named(config.transfer).items()},
        out_of_fold=rows,
    )
    written = [output]
    if config.out_of_fold:
        written += _write_sets(rows, Path(config.out_of_fold))
    if told:
        results["labels"] = joined_reports([read_json(path) for path in told])
        _name_levels(results, config.search)
    results["verdict"] = verdict(results)
    write_atomically(output, json_text(results))
    manifest.write(output, written)
    logger.info(report(results))


def evaluate(
    features: FeatureSet,
    config: Config,
    *,
    rival_features: FeatureSet | None = None,
    transfer: Mapping[str, FeatureSet] | None = None,
    out_of_fold: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Run the nested cross-validation.

    Args:
        features: Features of labelled pairs.
        config: Settings; the paths in it are not read.
        rival_features: Features of the same pairs, for the settings' rival.
        transfer: Name -> features of other labelled pairs.
        out_of_fold: A list to put the rows of `out_of_fold_rows` into.

    Returns:
        The evidence, in the form of results.json.
    """
    comparisons = any(pair.comparisons for pair in features.pairs)
    results: dict[str, Any] = {"aspects": {}, "mean": {}, "protocol": _protocol(config, [])}
    results["candidates_tried"] = config.candidates_tried
    left_out = left_out_slots(features.readings, config.search.readings, config.rival.readings if config.rival else ())
    if not comparisons or any(pair.scores for pair in features.pairs):
        results |= _evaluate_levels(features, config, rival_features, transfer or {}, out_of_fold, left_out)
    if comparisons:
        numbers = {name: getattr(config, name) for name in ("folds", "repeats", "bootstraps", "seed")}
        rivals = {RIVAL: config.rival} if config.rival and left_out else {}
        results["aspects"] |= preference_evidence(features, config.search, rivals, **numbers)
        results["protocol"]["preferences"] = DEFINITIONS
    results["protocol"] |= {"rival_without": left_out} if left_out else {}
    return results


def _evaluate_levels(
    features: FeatureSet,
    config: Config,
    rival_features: FeatureSet | None,
    transfer: Mapping[str, FeatureSet],
    out_of_fold: list[dict[str, Any]] | None,
    left_out: Sequence[str],
) -> dict[str, Any]:
    """Evaluate the aspects whose labels are levels."""
    design, source = joined(features, transfer, config.search.uncounted, config.search.good)
    labels = design.labels
    validation = CrossValidation(labels, config.folds, config.seed, config.repeats, source > 0)
    rivals = (
        [ProbesMethod(RIVAL, _rival_design(design, features.pairs, rival_features), config.rival)]
        if config.rival
        else []
    )
    judge = ProbesMethod(JUDGE, design, config.search)
    baselines = (*BASELINES, *beside_baselines(features.slots))
    texts = {one.name: TextMethod(one, design.data.pairs, config.seed) for one in baselines}
    folds, samples = validation.divided, validation.resamples(config.bootstraps)
    predictions = {method.name: validation.predict(method, folds) for method in (judge, *texts.values())}
    of_rival = {rival.name: validation.predict(rival, folds_of_rival(folds, left_out)) for rival in rivals}
    results = judge_evidence({**predictions, **of_rival}, labels, samples)
    results |= {"protocol": _protocol(config, judge.choices[: len(folds)], baselines)}
    results["candidates_tried"] = config.candidates_tried
    results["fitted_on"] = fitted_on(design.data.pairs, labels, predictions[judge.name])
    generators = generators_of(labels, design.data.pairs)
    for name, own in by_generator(predictions[JUDGE], labels, generators, samples).items():
        results["aspects"][name]["by_generator"] = own
    groups = generator_groups(generators[~labels.auxiliary], config.generator_groups, config.seed)
    once = [fold for fold in folds if fold.repeat == 0]
    new = without_generators(once, generators, groups) if len(groups) else []
    unseen = validation.predict(judge, new) if new else None
    if config.unseen and unseen is not None:
        others = {one.name: validation.predict(one, folds_of_rival(new, left_out)) for one in rivals}
        others |= {name: validation.predict(one, new) for name, one in texts.items()}
        told = (labels, generators, design.data.pairs, config.bootstraps, config.seed)
        results["unseen_generators"] = unseen_evidence({JUDGE: unseen, **others}, *told)
    matched = matched_evidence(predictions, labels, generators, config.bootstraps, config.seed, unseen)
    if matched:
        results["matched"] = matched
    domains = domains_of(labels, design.data.pairs)
    without = domain_folds(labels, domains, source > 0, config.domain_groups, config.seed)
    methods = {one.name: partial(validation.predict, one) for one in (judge, *texts.values())}
    if of_domains := domain_evidence(without, methods, labels, domains, config.bootstraps, config.seed):
        results["unseen_domains"] = of_domains
    if out_of_fold is not None:
        out_of_fold += out_of_fold_rows(design.data.pairs, labels, source, [*transfer], predictions[judge.name], unseen)
    if config.learning_curve:
        few = ProbesMethod(JUDGE, design, replace(config.search, heads=()), both_kinds=True)
        shares = (*config.learning_curve, 1.0)
        points = [p for p in validation.learning_curve(lambda: few, shares, samples) if p["auroc"]]
        of_surface = validation.learning_curve(lambda: texts["surface"], [p["share"] for p in points], samples)
        results["learning_curve"] = [{**p, "surface": s["auroc"]} for p, s in zip(points, of_surface, strict=True)]
    if transfer:
        results["transfer"] = {
            name: set_evidence(predictions, labels, source == number, config.bootstraps, config.seed)
            for number, name in enumerate(transfer, start=1)
        }
    return results


def _name_levels(results: dict[str, Any], search: SearchConfig) -> None:
    """Say which labels are good and name levels by their words; refuse others than those that the card would name.

    Raises:
        DataFileError: The search calls other labels good than the data stage said.
    """
    aspects, levels_of = results["labels"]["aspects"], results.get("fitted_on", {}).get("levels", {})
    results["protocol"]["good"] = {name: told["good"] for name, told in aspects.items()}
    for name, own in levels_of.items():
        if words := aspects.get(name, {}).get("words"):
            levels_of[name] = {words[int(n) - 1]: share for n, share in own.items()}
    for name, told in aspects.items():
        classes = results["aspects"].get(name, {}).get("classes", [])
        levels = np.array(classes)
        if not classes or "good_from" not in told:
            continue
        if (is_good(levels, Levels(classes, search.good.get(name))) != (levels >= told["good_from"])).any():
            raise DataFileError(
                f"search.good expects {told['good_from']:g} for {name}, whose good labels are {told['good']}, but got "
                f"{search.good.get(name)}. Give --search.good.{name} to fit and evaluate."
            )


def joined(
    features: FeatureSet,
    transfer: Mapping[str, FeatureSet],
    uncounted: Sequence[str],
    good: Mapping[str, float] | None = None,
) -> tuple[Design, Index]:
    """Put the labelled pairs and other sets, whose labels count as auxiliary, one after another.

    Returns:
        The design of all rows, and of each, (rows,), 0 for the labelled pairs or the number of its other set.
    """
    others = [replace(one, pairs=[replace(p, auxiliary=True) for p in one.pairs]) for one in transfer.values()]
    everything = concatenate([features, *others]) if others else features
    labels = Labels.of(everything.pairs, uncounted, good)
    ends = np.cumsum([len(one.pairs) for one in (features, *others)])
    return Design(everything, labels), np.searchsorted(ends, labels.pair, side="right")


def _write_sets(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write the rows of each set to a file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = dict.fromkeys(row[SET] for row in rows)
    paths = [folder / f"{name.replace('/', '-')}.jsonl" for name in sets]
    for name, path in zip(sets, paths, strict=True):
        write_rows([{**row} for row in rows if row[SET] == name], str(path))
    return paths


def _rival_design(judge: Design, pairs: Sequence[LabelledPair], features: FeatureSet | None) -> Design:
    """Take a rival's features, which are to be of the same labelled pairs, or the judge's where there are none."""
    if features is None:
        return judge
    ours = [pair for pair in pairs if not pair.auxiliary]
    # A rival is fitted without auxiliary rows; those of the features come last, so that the others keep their numbers.
    if identities(features.pairs) != identities(ours) or any(pair.auxiliary for pair in pairs[: len(ours)]):
        raise DataFileError(
            f"rival_features expects the same {len(ours)} labelled pairs as features, in the same order and before any "
            f"auxiliary ones, but got {len(features.pairs)} others. Extract both from one file, without auxiliary or "
            "transfer sets."
        )
    return Design(features, judge.labels)


def _protocol(config: Config, choices: Sequence[Choice], baselines: Sequence[Any] = BASELINES) -> dict[str, Any]:
    folds = f"{config.folds} folds x {config.repeats} repeats, by question id over all aspects, stratified by label"
    chosen: dict[str, list[Any]] = {
        "depths_chosen": [choice.depth for choice in choices],
        "views_chosen": [str(choice.view) for choice in choices],
        "heads_chosen": [choice.settings[0].head for choice in choices],
        "auxiliary_weights_chosen": [choice.settings[0].auxiliary for choice in choices],
    }
    fits = {"search": asdict(config.search), "rival": asdict(config.rival) if config.rival else None}
    return {
        **protocol(folds, list(CHOSEN), list(METRICS), config.bootstraps),
        "baselines": {baseline.name: baseline.description for baseline in baselines},
        **{name: {str(one): own.count(one) for one in sorted(set(own))} for name, own in chosen.items()},
        "settings": {**fits, **{name: getattr(config, name) for name in ("folds", "repeats", "bootstraps", "seed")}},
    }


def report(results: Mapping[str, Any]) -> str:
    """Write the AUROC of every aspect as a table for people."""
    lines = []
    mean = [("mean", results["mean"])] if results["mean"] else []
    for name, entry in [*results["aspects"].items(), *mean]:
        if "preference" in entry:
            own = entry["preference"]
            gain = f"gain {shown(own['gain_over_length']['agreement'])}"
            line = f"{name:<22} agrees with the majority in {shown(own['agreement'])}"
            lines.append(f"{line}   length {own['length']['agreement']['value']:.3f}, {gain}")
            continue
        line = f"{name:<22} AUROC {shown(entry['auroc'])}"
        for other in ("surface", RIVAL):
            if other in entry:
                gain = entry[f"gain_over_{other}"]["auroc"]
                line += f"   {other} {entry[other]['auroc']['value']:.3f}, gain {shown(gain)}"
        lines.append(line)
    for name, entry in results.get("unseen_generators", {}).items():
        lines += [f"{name:<22} on generators never seen: {line}" for line in unseen_lines(entry)]
    for name, of_domains in results.get("unseen_domains", {}).items():
        for domain, entry in of_domains.items():
            told = f"AUROC {shown(entry['auroc'])}, same question {shown(entry['same_question'])}"
            lines.append(f"{name:<22} on {domain}, a domain never seen: {told}")
    for name, entry in results.get("matched", {}).items():
        lines.append(
            f"{name:<22} of {entry['n_questions']} questions answered by {entry['n_generators']} generators: AUROC "
            f"{shown(entry['auroc'])}, same question {shown(entry['same_question'])}"
        )
        if "unseen_generators" in entry:
            new = entry["unseen_generators"]
            lines.append(
                f"{'':<22} generators never seen: AUROC {shown(new['auroc'])}, same question "
                f"{shown(new['same_question'])}"
            )
    return "\n".join(lines)


def _named(folders: Sequence[str]) -> dict[str, str]:
    """Name folders by their last part, and where several share it, by as many parts as tell them apart."""
    parts = [Path(folder).parts for folder in folders]
    for n in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(own[-n:]) for own in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, folders, strict=True))
    if folders:
        raise DataFileError(f"transfer expects different folders, but got {', '.join(folders)}. Name each once.")
    return {}
