"""Make a judge that stacks score tokens with probes, from no labels to hundreds.

    python -m training combine --judge work/lager --output work/combined
    python -m training combine --judge work/lager --pairs work/labelled.jsonl --features work/features \
        --output work/combined
    python -m training combine --judge work/lager --pairs work/labelled.jsonl --compare work/compare --output work/judge

A ridge regression weighs the probe's value against what the score tokens expect at every layer; how far it trusts
either is set by left-out errors. An aspect without good and other labels is left to the score tokens alone; so is the
whole judge where there are too few labels to fit probes. Without features the judge stays as it is, and a comparison
that read its score tokens is its evidence.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hub_cards.staging import Judge
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel

from ..audits.report import audit_summary
from ..evaluation.methods.probes import open_design
from ..evaluation.metrics import label_counts
from ..evaluation.procedure import Procedure
from ..features.store import load_features
from ..judges.stack import build_combined, check_same_backbone
from ..judges.write import read_card, write_judge
from ..probing.fitted import described_choice
from ..probing.search import SearchConfig
from ..probing.table import Labels, TooFewLabelsError, counted_table
from ..rows.records import LabelledPair, is_good, labelled_pairs, read_records
from ..runs.manifest import FOLDERS_MANIFEST, Manifest
from ..score_tokens.layer_logits import LogitsSettings, cached_layer_logits
from ..score_tokens.stack import Combination, refuse_missing_tokens

logger = logging.getLogger(__name__)

STAGE = "combine"
NO_FEATURES = "no features were given to fit probes on"
NO_LABELS = "there was no label of it"
ONE_KIND = "its labels are all good or all not"
UNCOUNTED = "it does not count in the total"


@dataclass(frozen=True)
class Config:
    """Settings of the combine stage.

    Attributes:
        judge: Folder of the lager stage.
        output: The judge's folder.
        pairs: Labelled rows; without them score tokens alone give the scores.
        features: Folder of the extract stage, of the same rows; without it, too, score tokens alone give the scores.
        search: What the probes are searched by. Aspects that do not count in the total are left out.
        logits: File for the score tokens' logits of all rows, which take the most time; that of a comparison of the
            same rows (methods/layer_logits.safetensors) is used as it is. By default it stands beside the output.
        compare: Folder of the compare stage, of the same inputs and search, for the evidence; its methods include
            `surface` and `combined`, or without features the judge's own, such as lager_logits_uniform_expectation.
        audit: audit.json of the audit stage.
        card: YAML or JSON with what only the judge's maker knows, as for the export stage.
        fused: Whether the truncated backbone goes into the folder.
    """

    judge: str
    output: str
    pairs: str | None = None
    features: str | None = None
    search: SearchConfig = field(default_factory=SearchConfig)
    logits: str | None = None
    compare: str | None = None
    audit: str | None = None
    card: str | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        """Refuse labels that serve nothing, and features or a comparison without labels.

        Raises:
            SettingsError: One is there without the other.
        """
        if (self.pairs is None) != (self.features is None and self.compare is None):
            raise SettingsError("pairs and features expect to be given together, or pairs and compare, or all three.")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The files that the fit is made from."""
        folders = (folder for folder in (self.features, self.judge) if folder)
        return (*([self.pairs] if self.pairs else []), *(str(Path(folder) / FOLDERS_MANIFEST) for folder in folders))

    @property
    def logits_file(self) -> Path:
        """Where the logits are kept."""
        output = Path(self.output)
        return Path(self.logits) if self.logits else output.with_name(f"{output.name}_layer_logits.safetensors")


@dataclass(frozen=True)
class Made:
    """A judge, and how it came about.

    Attributes:
        model: The judge, without its backbone.
        told: What was fitted, as plain data, for results.json.
    """

    model: InspectorModel
    told: dict[str, Any]


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: An input is missing or was changed, features and score tokens do not fit each other or the pairs,
            or the comparison is of other inputs.
        BackboneError: The backbone cannot be loaded.
    """
    output = Path(config.output)
    compared = _procedure(config).files(config.compare) if config.compare else []
    manifest = Manifest.of(STAGE, config, (*config.inputs, *compared, config.audit, config.card))
    if manifest.is_done(output):
        return
    measured = _measured(config)  # first, since the fit takes longer
    made = make_combined(config)
    write_judge(made.model, output, _evidence(config, made, measured), config.audit, fused=config.fused)
    manifest.write(output, [p for p in sorted(output.iterdir()) if p.is_file() and p.name != FOLDERS_MANIFEST])
    logger.info("Wrote a judge of depth %d to %s.", made.model.config.depth, output)


def _procedure(config: Config) -> Procedure:
    if config.features is not None or config.pairs is None:
        return Procedure.combined(config.search)
    return Procedure.lager(config.judge, config.pairs, config.search.uncounted)


def make_combined(config: Config) -> Made:
    """Fit what the labels allow, and build the judge.

    Raises:
        DataFileError: See `combine`.
    """
    tokens, uncounted = _read_tokens(config.judge), config.search.uncounted
    if config.pairs is None or config.features is None:
        reasons = dict.fromkeys((aspect.name for aspect in tokens.aspects), NO_FEATURES) if config.pairs else {}
        return Made(build_combined(tokens, None, None, uncounted), _untuned(tokens, reasons))
    check_same_backbone(tokens.config, load_features(config.features))
    pairs = labelled_pairs(read_records(config.pairs, ("id", "question", "prediction")), unlabelled=True)
    reasons = left_out(pairs, [aspect.name for aspect in tokens.aspects], uncounted)
    kept = [replace(p, scores={n: s for n, s in p.scores.items() if n not in reasons}) for p in pairs]
    if not any(p.scores for p in kept):
        return Made(build_combined(tokens, None, None, uncounted), _untuned(tokens, reasons))
    labels = counted_table(kept, uncounted)
    design = open_design(config.features, pairs, labels)
    settings = LogitsSettings(config.judge, config.pairs, uncounted)
    logits = cached_layer_logits(settings, pairs, labels, config.logits_file)
    refuse_missing_tokens(config.judge, logits)
    try:
        fitted = Combination.fit(design, logits, labels, config.search)
    except TooFewLabelsError as error:
        logger.warning("Score tokens alone give the scores: %s", error)
        names = dict.fromkeys(labels.names, f"probes could not be fitted ({error})")
        return Made(build_combined(tokens, None, None, uncounted), _untuned(tokens, {**reasons, **names}))
    told = {**_told(fitted, labels), **_untuned(tokens, reasons, labels.names)}
    told["extract"] = asdict(design.data.manifest)
    return Made(build_combined(tokens, design, fitted, uncounted), told)


def _read_tokens(folder: str) -> InspectorModel:
    """Read a judge of score tokens, without its backbone."""
    tokens = Judge.read(Path(folder), with_backbone=False, allow_unevaluated=True).probes()
    others = [aspect.name for aspect in tokens.aspects if aspect.head.type != "score_tokens"]
    if others:
        raise DataFileError(
            f"{folder} expects a judge of score tokens, but {others[0]} has another head. Give the folder of python -m "
            "inspector_training.stages.lager."
        )
    return tokens


def left_out(pairs: list[LabelledPair], names: list[str], uncounted: tuple[str, ...]) -> dict[str, str]:
    """Say for which aspects no probe is fitted, and why.

    Args:
        pairs: Labelled pairs.
        names: The aspects that a judge of score tokens has.
        uncounted: Aspects that do not count in the total.
    """
    scores: dict[str, list[int]] = {name: [] for name in names}
    for pair in pairs:
        for name, score in pair.scores.items():
            scores.setdefault(name, []).extend([] if pair.auxiliary else [score])
    good = {name: is_good(np.array(own), own) for name, own in scores.items() if own}
    one_kind = {name: ONE_KIND for name, own in good.items() if own.all() or not own.any()}
    unlabelled = {name: NO_LABELS for name in scores if name not in good}
    return {**unlabelled, **one_kind, **{name: UNCOUNTED for name in scores if name in uncounted}}


def _told(fitted: Combination, labels: Labels) -> dict[str, Any]:
    """Describe the fit."""
    scored = ~labels.auxiliary
    present = np.unique(labels.aspect)
    counts = {
        labels.names[a]: label_counts(labels.score[scored & (labels.aspect == a)], labels.classes[a]) for a in present
    }
    stack = fitted.stack
    n, n_layers = int(scored.sum()), len(stack.weights) - 1
    described = {
        "labels": n,
        "penalty": stack.penalty,
        "probe_share": round(stack.probe_share, 3),
        "layers": n_layers,
        "aspects": list(counts),
    }
    note = (
        f"The scores of {', '.join(counts)} stack two judges by a ridge regression on {n} labels: a probe's value, and "
        f"what the score tokens expect (LAGER) at each of {n_layers} states right before the score. The penalty "
        f"{stack.penalty:.3g} was chosen by left-out errors; {stack.probe_share:.0%} of the absolute weights are the "
        "probe's."
    )
    return {"aspects": counts, "judge": described_choice(fitted.judge.choice), "stack": described, "notes": [note]}


def _untuned(tokens: InspectorModel, reasons: Mapping[str, str], fitted: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe the aspects that are left to the score tokens."""
    alone = {a.name: reasons.get(a.name, NO_LABELS) for a in tokens.aspects if a.name not in fitted}
    return {"score_tokens_alone": alone}


def _measured(config: Config) -> dict[str, Any]:
    """Read the evidence of the comparison, where there is one."""
    if config.compare is None or config.pairs is None:
        return {}
    pairs = labelled_pairs(read_records(config.pairs, ("id", "question", "prediction")), unlabelled=True)
    labels = counted_table(pairs, config.search.uncounted)
    return _procedure(config).evidence(config.compare, labels, config.inputs)


def _evidence(config: Config, made: Made, measured: dict[str, Any]) -> dict[str, Any]:
    """Put together what the card says."""
    theirs, told = read_json(Path(config.judge) / "results.json"), made.told
    card = read_card(config.card) if config.card else {}
    meanings = {name: entry.get("meanings", {}) for name, entry in theirs.get("aspects", {}).items()}
    meanings |= card.pop("meanings", {})
    counts = told.get("aspects", {})
    aspects = {
        aspect.name: {
            **measured.get("aspects", counts).get(aspect.name, {}),
            "meanings": {str(score): words for score, words in meanings.get(aspect.name, {}).items()},
        }
        for aspect in made.model.aspects
    }
    left = told["score_tokens_alone"]
    inherited = {"sources": theirs.get("sources", [])} if left else {}
    notes = [*told.get("notes", []), *(theirs.get("notes", []) if left else [])]
    alone = "; ".join(f"{name} ({why})" for name, why in told["score_tokens_alone"].items())
    if alone:
        notes.append(f"Score tokens alone (LAGER), as in the judge that this one was made from, score {alone}.")
    notes += card.pop("notes", [])
    audit = {"audit": audit_summary(read_json(config.audit))} if config.audit else {}
    return {**inherited, **measured, **told, "aspects": aspects, "notes": notes, **audit, **card}
