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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hub_cards.saved_judge import SavedJudge
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.modeling_inspector import InspectorModel

from ..evaluation.evidence import label_counts
from ..evaluation.methods.probes import open_design
from ..evaluation.procedure import Procedure
from ..features.store import load_features
from ..judges.write import read_card, write_judge
from ..probing.fitted import described_choice
from ..probing.settings import SearchConfig
from ..probing.table import Labels, TooFewLabelsError, counted_table
from ..rows.records import LabelledPair, labelled_pairs, read_records
from ..runs.manifest import FOLDERS_MANIFEST, Manifest
from ..score_tokens.logits import LogitsSettings, cached_layer_logits
from ..score_tokens.stack import (
    NO_LABELS,
    Combination,
    check_same_backbone,
    combined_judge,
    left_out,
    refuse_missing_tokens,
)

logger = logging.getLogger(__name__)

STAGE = "combine"
NO_FEATURES = "no features were given to fit probes on"


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


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: An input is missing or was changed, features and score tokens do not fit each other or the pairs,
            or the comparison is of other inputs.
        BackboneError: The backbone cannot be loaded.
    """
    output, procedure = Path(config.output), Procedure.combined(config.search)
    if config.features is None and config.pairs is not None:
        procedure = Procedure.lager(config.judge, config.pairs, config.search.uncounted)
    compared = procedure.files(config.compare) if config.compare else []
    manifest = Manifest.of(STAGE, config, (*config.inputs, *compared, config.audit, config.card))
    if manifest.is_done(output):
        return
    pairs: list[LabelledPair] = []
    if config.pairs is not None:
        pairs = labelled_pairs(read_records(config.pairs, ("id", "question", "prediction")), unlabelled=True)
    measured: dict[str, Any] = {}
    if config.compare is not None:  # first, since the fit takes longer
        measured = procedure.evidence(config.compare, counted_table(pairs, config.search.uncounted), config.inputs)
    tokens = _read_tokens(config.judge)
    fitted, made = _fit(config, tokens, pairs)
    model = combined_judge(tokens, fitted, config.search.uncounted)
    evidence = _evidence(config, model, made, measured)
    write_judge(model, output, evidence, audit=config.audit, fused=config.fused, manifest=manifest)
    logger.info("Wrote a judge of depth %d to %s.", model.config.depth, output)


def _read_tokens(folder: str) -> InspectorModel:
    """Read a judge of score tokens, without its backbone."""
    tokens = SavedJudge.read(Path(folder), with_backbone=False, allow_unevaluated=True).probes()
    others = [aspect.name for aspect in tokens.aspects if aspect.head.type != "score_tokens"]
    if others:
        raise DataFileError(
            f"{folder} expects a judge of score tokens, but {others[0]} has another head. Give the folder of python -m "
            "training lager."
        )
    return tokens


def _fit(
    config: Config, tokens: InspectorModel, pairs: list[LabelledPair]
) -> tuple[Combination | None, dict[str, Any]]:
    """Fit what the labels allow; return it, and what was fitted, as plain data for results.json."""
    names = [aspect.name for aspect in tokens.aspects]
    if config.pairs is None or config.features is None:
        return None, {"score_tokens_alone": dict.fromkeys(names, NO_FEATURES if config.pairs else NO_LABELS)}
    check_same_backbone(tokens.config, load_features(config.features))
    uncounted = config.search.uncounted
    reasons = left_out(pairs, names, uncounted)
    kept = [replace(p, scores={n: s for n, s in p.scores.items() if n not in reasons}) for p in pairs]
    made: dict[str, Any] = {}
    fitted, labels = None, counted_table(kept, uncounted) if any(p.scores for p in kept) else None
    if labels is not None:
        design = open_design(config.features, pairs, labels)
        settings = LogitsSettings(config.judge, config.pairs, uncounted)
        logits = cached_layer_logits(settings, pairs, labels, config.logits_file)
        refuse_missing_tokens(config.judge, logits)
        try:
            fitted = Combination.fit(design, logits, labels, config.search)
            made = _described(fitted, labels)
        except TooFewLabelsError as error:
            logger.warning("Score tokens alone give the scores: %s", error)
            reasons |= dict.fromkeys(labels.names, f"probes could not be fitted ({error})")
    stacked = made.get("aspects", {})
    made["score_tokens_alone"] = {name: reasons.get(name, NO_LABELS) for name in names if name not in stacked}
    if fitted is not None:
        made["extract"] = asdict(fitted.design.data.manifest)
    return fitted, made


def _described(fitted: Combination, labels: Labels) -> dict[str, Any]:
    """Describe the fit."""
    scored, stack = ~labels.auxiliary, fitted.stack
    counts = {
        labels.names[a]: label_counts(labels.score[scored & (labels.aspect == a)], labels.classes[a])
        for a in np.unique(labels.aspect)
    }
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


def _evidence(config: Config, model: InspectorModel, made: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Put together what the card says."""
    theirs, card = read_json(Path(config.judge) / "results.json"), read_card(config.card, config.audit)
    meanings = {name: entry.get("meanings", {}) for name, entry in theirs.get("aspects", {}).items()}
    meanings |= card.pop("meanings")
    counts = measured.get("aspects", made.get("aspects", {}))
    aspects = {a.name: {**counts.get(a.name, {}), "meanings": meanings.get(a.name, {})} for a in model.aspects}
    inherited, notes, alone = {}, made.get("notes", []), made["score_tokens_alone"]
    if alone:
        inherited = {"sources": theirs.get("sources", [])}
        left = "; ".join(f"{name} ({why})" for name, why in alone.items())
        told = f"Score tokens alone (LAGER), as in the judge that this one was made from, score {left}."
        notes = [*notes, *theirs.get("notes", []), told]
    notes = [*notes, *card.pop("notes", [])]
    return {**inherited, **measured, **made, "aspects": aspects, "notes": notes, **card}
